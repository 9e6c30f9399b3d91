"""The way of objects through the cluster, as the service sees it: put, delete, open.

First the blob goes to its owners, then the record is written here, which gives it its timestamp, then
to each node that took the blob: one that never heard of the record would collect its copy after the
grace time (blobs/marks.py). So whoever is told of success can lose any ``replication`` - 1 nodes, and
be cut off from any for as long as it takes. All other nodes get the record at once too, but nobody
waits for them (record_sync.py).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from tierce.blobs.spool import Spool
from tierce.blobs.store import OpenBlob
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import COLLECT_GRACE_SECONDS, WRITE_HEDGE_SECONDS
from tierce.names.index import Check, Index
from tierce.names.record import NEAR_CACHE_BUCKET, NO_LEVEL, Record
from tierce.names.store import ObjectStore
from tierce.node.data_path import DataPath
from tierce.node.enough import enough


class RecordPeers(Protocol):
    """What is asked of other nodes here (names_peers.py)."""

    async def push(self, member: Member, records: Sequence[Record]) -> int:
        """Give a member records; durable there when it returns."""
        ...


class ObjectPath:
    """Objects of one process. ``wall_clock`` gives nanoseconds since 1970."""

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        blobs: DataPath,
        peers: RecordPeers,
        placement: Callable[[], Placement],
        *,
        grace_seconds: float = COLLECT_GRACE_SECONDS,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.objects = objects
        self.index = index
        self._blobs = blobs
        self._peers = peers
        self._placement = placement
        self._grace_seconds = grace_seconds
        self.wall_clock = wall_clock

    async def put(self, spool: Spool, draft: Record, check: Check | None) -> Record:
        """Keep a finished spool as an object. Raises what ``check`` raises, Unavailable, Full."""
        began = asyncio.get_running_loop().time()
        stored = await self._blobs.store_elsewhere(spool)
        took_seconds = asyncio.get_running_loop().time() - began
        check_in_time(took_seconds, self._grace_seconds)
        now = self.wall_clock()
        if stored.keeps_here:
            record = await self.objects.put(spool, draft, now=now, check=check)
        else:
            whole = msgspec.structs.replace(draft, digest=spool.digest, size=spool.size)
            record = await self.index.write(whole, now=now, check=check)
        if stored.holders:
            await self._tell(stored.holders, record)
        return record

    async def _tell(self, holders: Sequence[Member], record: Record) -> None:
        """Have a record on each node that took its blob. Raises Unavailable."""
        await enough(
            len(holders),
            holders,
            lambda member: self._peers.push(member, [record]),
            patience_seconds=WRITE_HEDGE_SECONDS,
            what="the record was stored",
        )

    async def delete(self, bucket: str, key: str, check: Check | None) -> Record:
        """Put a tombstone in the place of a record. Raises as put does."""
        known = self.index.get(bucket, key) or Record(bucket=bucket, key=key)
        return await self.write(tombstone(known), check)

    async def write(self, draft: Record, check: Check | None) -> Record:
        """Write a record without content of its own, here and on as many nodes as must have it."""
        self._placement().check_reached()
        record = await self.index.write(draft, now=self.wall_clock(), check=check)
        await self.spread(record)
        return record

    async def open(self, record: Record) -> OpenBlob:
        """Open the content of a record. Raises NotFound, or Unavailable if that can't be said."""
        if record.digest is None:
            raise NotFound(f"{record.key[:200]!a} was deleted")
        first = () if record.level == NO_LEVEL else (record.node,)
        try:
            return await self._blobs.open(record.digest, first=first)
        except NotFound as error:
            # The record says that there is such a blob, so whoever has it can't be reached now.
            raise Unavailable(
                f"the content of {record.key[:200]!a} is on no node that answers",
                hint="Try again when all nodes are up; see `tierce cluster status`.",
            ) from error

    async def spread(self, record: Record) -> None:
        """Have a record on ``replication`` nodes, this one among them. Raises Unavailable."""
        placement = self._placement()
        wanted = placement.replication - 1
        if wanted < 1:
            return
        near = record.digest or Digest.of(record.key.encode())
        others = [
            each
            for each in placement.readers(near)
            if each.dialect == "tierce" and each.node_id != placement.view.me
        ]
        await enough(
            wanted,
            others,
            lambda member: self._peers.push(member, [record]),
            patience_seconds=WRITE_HEDGE_SECONDS,
            what="the record was stored",
        )


def check_in_time(took_seconds: float, grace_seconds: float) -> None:
    """Raise Unavailable if the first copies might be collected before a record names them."""
    if took_seconds > grace_seconds / 2:
        raise Unavailable(
            f"it took {took_seconds:.0f} s to store the copies, which is too long",
            hint="Try again, or raise the setting collect_grace_seconds.",
        )


def tombstone(record: Record) -> Record:
    """A draft of what is left of an object that is deleted: all but its content."""
    return msgspec.structs.replace(
        record,
        digest=None,
        size=0,
        deleted=True,
        is_upstream=record.bucket == NEAR_CACHE_BUCKET,
        modified=0,
    )
