"""Forgetting the tombstones that may go; cluster/sync.py says which."""

from tierce.cluster.sync import may_drop
from tierce.core.limits import PULL_RECORDS
from tierce.names.index import Index
from tierce.node.pacing import Pace


async def purge(index: Index, *, read: int, horizon: int, pace: Pace) -> int:
    """Drop the tombstones from before ``horizon`` (nanoseconds since 1970) up to number ``read``.

    Returns how many went. Goes through the feed, at the pace, as only there tombstones have numbers.
    """
    dropped = seq = 0
    while seq < read and (page := await index.changes(seq, PULL_RECORDS)):
        for change in page:
            record = change.record
            # One that was replaced in the meantime has another timestamp, and stays.
            if may_drop(change, horizon, read):
                dropped += await index.drop(record.bucket, record.key, record.timestamp)
        await pace.spend(len(page))
        seq = page[-1].seq
    return dropped
