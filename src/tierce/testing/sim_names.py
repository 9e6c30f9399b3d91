"""Records on a simulated disk: an Index and an ObjectStore of one process, with what crashes do.

As with blobs, what was acknowledged survives, and what a crash interrupts is there afterwards or it is
not, blob and record together. Beyond that it does what names/memory.py does.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from tierce.blobs.marked import Collected
from tierce.blobs.spool import Spool
from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.names.cached import Evicted, Look, Standing, standing_of
from tierce.names.changes import Epoch
from tierce.names.index import Change, Check, NameCounts
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record, merge, stamp
from tierce.names.store import named_by, named_by_objects
from tierce.testing.sim_disk import SimDisk, SimStore, content_of
from tierce.testing.sim_process import Process

T = TypeVar("T")


class SimIndex:
    """A process's index on a disk. ``now`` gives milliseconds since 1970."""

    def __init__(
        self, disk: SimDisk, process: Process, node_id: str, now: Callable[[], int]
    ) -> None:
        if disk.index is None:
            disk.index = MemoryIndex(node_id, epoch="first")
        self._disk = disk
        self._process = process
        self._memory = disk.index
        self._node_id = node_id
        self._now = now

    # Changes

    async def write(self, draft: Record, *, now: int, check: Check | None = None) -> Record:
        """See Index."""
        return await self.commit(lambda: self.write_now(draft, now, check))

    async def merge(self, records: Sequence[Record]) -> list[bool]:
        """See Index."""
        return await self.commit(lambda: [self.merge_now(record) for record in records])

    async def reserve(self, now: int) -> int:
        """See Index."""

        def change() -> int:
            self._memory.clock = stamp(now, self._memory.clock)
            return self._memory.clock

        return await self.commit(change)

    async def drop(self, bucket: str, key: str, timestamp: int) -> bool:
        """See Index."""
        self._check_alive()
        return await self._memory.drop(bucket, key, timestamp)

    async def begin_epoch(self, name: str) -> None:
        """See Index."""
        self._check_alive()
        await self._memory.begin_epoch(name)

    async def set_checkpoint(self, peer: str, value: bytes) -> None:
        """See Index."""
        self._check_alive()
        await self._memory.set_checkpoint(peer, value)

    async def commit(self, change: Callable[[], T]) -> T:
        """Make a change durable."""
        self._check_alive()
        return await self._disk.commit(change)

    def write_now(self, draft: Record, now: int, check: Check | None) -> Record:
        """A write, as a part of a change. Raises what ``check`` does."""
        known = self._memory.get(draft.bucket, draft.key)
        if check is not None:
            check(known)
        timestamp = stamp(now, self._memory.clock)
        record = msgspec.structs.replace(draft, timestamp=timestamp, node=self._node_id)
        self._accept(known, record)
        return record

    def merge_now(self, record: Record) -> bool:
        """A merge, as a part of a change."""
        known = self._memory.get(record.bucket, record.key)
        merged = merge(known, record)
        if merged == known:
            return False
        self._accept(known, merged)
        return True

    def _accept(self, known: Record | None, record: Record) -> None:
        self._memory._accept(record)
        old = None if known is None else known.digest
        if old is not None and old != record.digest and old in self._disk.marks:
            self._disk.marks[old] = self._now()

    # Reading

    def get(self, bucket: str, key: str) -> Record | None:
        """See Index."""
        self._check_alive()
        return self._memory.get(bucket, key)

    async def list_after(
        self, bucket: str, prefix: str, after: str, limit: int, *, deleted: bool = False
    ) -> list[Record]:
        """See Index."""
        self._check_alive()
        return await self._memory.list_after(bucket, prefix, after, limit, deleted=deleted)

    async def scan_after(self, after: tuple[str, str] | None, limit: int) -> list[Record]:
        """See Index."""
        self._check_alive()
        return await self._memory.scan_after(after, limit)

    async def changes(self, since: int, limit: int) -> list[Change]:
        """See Index."""
        self._check_alive()
        return await self._memory.changes(since, limit)

    def last_seq(self) -> int:
        """See Index."""
        return self._memory.last_seq()

    def latest(self) -> int:
        """See Index."""
        return self._memory.clock

    def epochs(self) -> tuple[Epoch, ...]:
        """See Index."""
        return self._memory.epochs()

    def checkpoint(self, peer: str) -> bytes | None:
        """See Index."""
        return self._memory.checkpoint(peer)

    def refers(self, digest: Digest) -> list[Record]:
        """See Index."""
        return self._memory.refers(digest)

    def counts(self) -> NameCounts:
        """See Index."""
        return self._memory.counts()

    def _check_alive(self) -> None:
        if not self._process.is_alive:
            raise Unavailable("this process was killed")


class SimObjects:
    """A process's blobs and records together (names/store.py)."""

    def __init__(
        self, disk: SimDisk, store: SimStore, index: SimIndex, now: Callable[[], int]
    ) -> None:
        self._disk = disk
        self._store = store
        self._index = index
        self._now = now

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        """See ObjectStore."""
        record = named_by(spool, draft)
        return await self._along(spool, lambda: self._index.write_now(record, now, check))

    async def restore(
        self, spool: Spool, record: Record, *, check: Callable[[], None] | None = None
    ) -> bool:
        """See ObjectStore."""
        whole = named_by(spool, record)

        def change() -> bool:
            if check is not None:
                check()
            return self._index.merge_now(whole)

        return await self._along(spool, change)

    async def _along(self, spool: Spool, change: Callable[[], T]) -> T:
        self._store.check_room()
        digest, data, now = spool.digest, content_of(spool), self._now()

        def both() -> T:
            result = change()
            self._disk.apply(digest, data, True, now)
            return result

        return await self._index.commit(both)

    async def delete_blob(self, digest: Digest) -> bool:
        """See ObjectStore."""

        def change() -> bool:
            if self._index.refers(digest):
                raise named_by_objects(digest)
            return self._disk.apply(digest, None)

        return await self._index.commit(change)

    async def collect(self, before: int, limit: int) -> Collected:
        """See ObjectStore."""

        def sweep() -> Collected:
            due = [
                digest
                for digest, time in self._disk.marks.items()
                if time < before and not self._index.refers(digest)
            ][:limit]
            for digest in due:
                self._disk.apply(digest, None)
            return Collected(0, due)

        return await self._index.commit(sweep)

    async def look(self, digests: Sequence[Digest]) -> list[Look]:
        """See ObjectStore."""
        return [self._look(digest) for digest in digests]

    async def evict(self, digest: Digest, heard: Sequence[Record] = ()) -> Evicted:
        """See ObjectStore."""

        def drop() -> Evicted:
            found = self._look(digest, heard)
            is_dropped = found.standing is Standing.CACHED
            if is_dropped:
                self._disk.apply(digest, None)
            return Evicted(*found, is_dropped=is_dropped)

        return await self._index.commit(drop)

    def _look(self, digest: Digest, heard: Sequence[Record] = ()) -> Look:
        data = self._disk.blobs.get(digest)
        if data is None:
            return Look(Standing.ABSENT, 0)
        records = {(each.bucket, each.key): each for each in self._index.refers(digest)}
        for each in heard:
            name = each.bucket, each.key
            records[name] = merge(self._index.get(*name), each)
        referring = [each for each in records.values() if each.digest == digest]
        return Look(standing_of(digest in self._disk.marks, referring), len(data))
