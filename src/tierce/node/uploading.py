"""Which write's content the upstream has, and how the one in force gets there again.

Of two nodes that take the same id at the same time, before they hear of each other, the one with the
older content may be the last to upload. What the upstream has is told by its own metadata: the
timestamp and the node of the write stand there.
"""

from collections.abc import Awaitable

from tierce.blobs.store import OpenBlob
from tierce.core.errors import NotFound
from tierce.core.limits import MEND_TRIES_COUNT
from tierce.names.index import Index
from tierce.names.record import LOCAL, Record
from tierce.node.data_path import DataPath
from tierce.upstream.tier import Upstream


def is_for_upstream(record: Record) -> bool:
    """Whether a record's content belongs into the upstream, be it there already or not."""
    return record.level > LOCAL and record.digest is not None


def is_of(found: Record, record: Record) -> bool:
    """Whether what the upstream has came of a record's very write, content and metadata."""
    return found.rank == record.rank and found.digest == record.digest


def is_newer(found: Record, record: Record) -> bool:
    """Whether what the upstream has came of a later write of this cluster than a record did."""
    return found.digest is not None and found.rank > record.rank


async def found_in(upstream: Upstream, key: str) -> Record | None:
    """What the upstream has under a key; None for nothing. Raises Unavailable."""
    try:
        return await upstream.stat(key)
    except NotFound:
        return None


async def upload_blob(upstream: Upstream, record: Record, opening: Awaitable[OpenBlob]) -> None:
    """Put a record's content into the upstream, from a blob that is opened for it, and closed.

    Raises what opening it and Upstream.upload do.
    """
    blob = await opening
    try:
        await upstream.upload(record, blob)
    finally:
        await blob.aclose()


async def put_in_force(upstream: Upstream, index: Index, blobs: DataPath, record: Record) -> None:
    """Put the content in force into the upstream again, after something older went there.

    And once more, should that be overtaken meanwhile. If it never settles, or this ends here, the
    content is put there by the node that lost (overtaken.py), or by who would drop it from the
    cache (checked_eviction.py).
    """
    for _ in range(MEND_TRIES_COUNT):
        opening = blobs.open(record.content, first=(record.node,))
        await upload_blob(upstream, record, opening)
        now = index.get(record.bucket, record.key)
        if now is None or now.rank == record.rank or not is_for_upstream(now):
            return
        record = now
