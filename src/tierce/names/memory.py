"""An index of records in memory: the contract in its plainest words, for tests and simulation.

Nothing outlives it. What it does is right by being obvious; the index that nodes use is checked
against it.
"""

from collections.abc import Sequence

import msgspec
from ulid import ULID

from tierce.core.digest import Digest
from tierce.core.limits import EPOCHS_COUNT, REFERENCES_COUNT
from tierce.names.changes import Epoch, Position
from tierce.names.index import Change, Check, NameCounts
from tierce.names.keys import check_holdable
from tierce.names.record import Record, merge, stamp


class MemoryIndex:
    """An Index of the node ``node_id``. ``epoch`` names the first epoch; "" for a new name."""

    def __init__(self, node_id: str, *, epoch: str = "") -> None:
        self.changed: dict[tuple[str, str], Change] = {}
        self.clock = 0
        self._node_id = node_id
        self._last_seq = 0
        self._epochs = [Epoch(epoch or str(ULID()), 0)]
        self._checkpoints: dict[str, bytes] = {}

    def get(self, bucket: str, key: str) -> Record | None:
        change = self.changed.get((bucket, key))
        return change and change.record

    async def write(self, draft: Record, *, now: int, check: Check | None = None) -> Record:
        check_holdable(draft)
        if check is not None:
            check(self.get(draft.bucket, draft.key))
        timestamp = stamp(now, self.clock)
        record = msgspec.structs.replace(draft, timestamp=timestamp, node=self._node_id)
        self._accept(record)
        return record

    async def reserve(self, now: int) -> int:
        self.clock = stamp(now, self.clock)
        return self.clock

    async def merge(self, records: Sequence[Record]) -> list[bool]:
        for record in records:
            check_holdable(record)
        return [self._merge(record) for record in records]

    async def list_after(
        self, bucket: str, prefix: str, after: str, limit: int, *, deleted: bool = False
    ) -> list[Record]:
        return [
            record
            for record in self._in_order()
            if record.bucket == bucket
            and record.key.startswith(prefix)
            and record.key > after
            and (deleted or not record.deleted)
        ][:limit]

    async def scan_after(self, after: tuple[str, str] | None, limit: int) -> list[Record]:
        return [
            record
            for record in self._in_order()
            if after is None or (record.bucket, record.key) > after
        ][:limit]

    async def changes(self, since: int, limit: int) -> list[Change]:
        return sorted(change for change in self.changed.values() if change.seq > since)[:limit]

    def last_seq(self) -> int:
        return self._last_seq

    def latest(self) -> int:
        return self.clock

    def epochs(self) -> tuple[Epoch, ...]:
        return tuple(self._epochs)

    async def begin_epoch(self, name: str) -> None:
        Position.parse(f"{name}-0")  # what can't be read back must not be given out
        if name not in [epoch.name for epoch in self._epochs]:
            self._epochs = [*self._epochs, Epoch(name, self._last_seq)][-EPOCHS_COUNT:]

    async def drop(self, bucket: str, key: str, timestamp: int) -> bool:
        record = self.get(bucket, key)
        if record is None or not record.deleted or record.timestamp != timestamp:
            return False
        del self.changed[bucket, key]
        return True

    def checkpoint(self, peer: str) -> bytes | None:
        return self._checkpoints.get(peer)

    async def set_checkpoint(self, peer: str, value: bytes) -> None:
        self._checkpoints[peer] = value

    def refers(self, digest: Digest) -> list[Record]:
        return [
            record for record in self._in_order() if record.digest == digest and not record.deleted
        ][:REFERENCES_COUNT]

    def counts(self) -> NameCounts:
        tombstones = sum(change.record.deleted for change in self.changed.values())
        return NameCounts(len(self.changed) - tombstones, tombstones)

    def _in_order(self) -> list[Record]:
        """All records by bucket, then key. Strings sort by code points, which is as UTF-8 does."""
        return [self.changed[name].record for name in sorted(self.changed)]

    def _merge(self, record: Record) -> bool:
        known = self.get(record.bucket, record.key)
        merged = merge(known, record)
        if merged == known:
            return False
        self._accept(merged)
        return True

    def _accept(self, record: Record) -> None:
        self._last_seq += 1
        self.clock = max(self.clock, record.timestamp)
        self.changed[record.bucket, record.key] = Change(self._last_seq, record)
