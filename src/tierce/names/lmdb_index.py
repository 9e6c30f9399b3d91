"""The index of records in the node's LMDB environment, beside its blobs.

So a blob, its record and the record's place in the feed can be one transaction: the parts whose names
end in ``_in`` work inside a change given to Environment.write. Each change first reads and checks all
that it needs, and only then writes, so that it happens whole or not at all. What must be counted (the
clock, the latest number, the names) is read and written in the same transaction, as several processes
write.

The databases: ``records`` has what is known of a name, under the name (keys.py); ``feed`` the key of a
record under the number of its last change, in 8 bytes; ``references`` that number, behind the hash of
a digest, for each record in force with that content; ``names`` the rest.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from ulid import ULID

from tierce.blobs.environment import Environment, Transaction, WriteBatch
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.core.limits import (
    EPOCHS_COUNT,
    MERGE_CHUNK_RECORDS,
    RECORD_ABOUT_BYTES,
    REFERENCES_COUNT,
)
from tierce.names.changes import Epoch, Position
from tierce.names.damage import DamagedRecords
from tierce.names.index import Change, Check, NameCounts
from tierce.names.keys import (
    FEED,
    NAMES,
    RECORDS,
    REFERENCES,
    SEQ_MAX,
    check_holdable,
    check_timestamp,
    feed_key,
    index_key,
    mended_key,
    reference_key,
    references_of,
    whole_key,
)
from tierce.names.record import Record, merge, stamp
from tierce.names.rows import Rows, is_referred_to, starts
from tierce.names.values import (
    NO_EPOCHS,
    Entry,
    State,
    content_of,
    damaged,
    read_entry_of,
    read_epochs,
    read_state,
    record_of,
    written_entry,
)

__all__ = ["DATABASES", "FEED", "NAMES", "RECORDS", "REFERENCES", "STATE_KEY"]
__all__ += ["LmdbIndex", "OnChange"]

T = TypeVar("T")

DATABASES: tuple[str, ...] = (RECORDS, FEED, REFERENCES, NAMES)

STATE_KEY = b"state"
_STATE = "the state of names"
_EPOCHS = b"epochs"
_CHECKPOINT = b"checkpoint/"

OnChange = Callable[[WriteBatch, Record | None, Record], None]
"""Told of an accepted change: the record in force before it (a tombstone too), and now."""


def _no_one(batch: WriteBatch, old: Record | None, new: Record) -> None:
    pass


class LmdbIndex:
    """An Index in an environment that was opened with DATABASES, for the node ``node_id``.

    ``on_change`` is called in the transaction of every accepted change, after the index's own
    writes; it must not raise. It may write to other databases than these.
    """

    def __init__(
        self, environment: Environment, node_id: str, *, on_change: OnChange = _no_one
    ) -> None:
        self._environment = environment
        self._node_id = node_id
        self._on_change = on_change
        self._records = environment.database(RECORDS)
        self._feed = environment.database(FEED)
        self._references = environment.database(REFERENCES)
        self._names = environment.database(NAMES)
        self._epochs_read: tuple[bytes, tuple[Epoch, ...]] = b"", ()
        self._damages = DamagedRecords()
        self._rows = Rows(environment, self._damages)

    # In somebody's transaction

    def write_in(
        self, batch: WriteBatch, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        """What ``write`` does, inside a change. Raises before it writes; do so before your writes."""
        key = index_key(check_holdable(draft))
        state = self._state_in(batch)
        timestamp = stamp(now, state.clock)
        record = msgspec.structs.replace(draft, timestamp=timestamp, node=self._node_id)
        check_timestamp(record)
        known = read_entry_of(batch.get(RECORDS, key), draft.bucket, draft.key)
        if check is not None:
            check(record_of(known))
        self._accept(batch, state, key, known, record)
        return record

    def merge_in(self, batch: WriteBatch, record: Record) -> bool:
        """What ``merge`` does with one record, inside a change. Raises before it writes."""
        return self.merge_all_in(batch, [record])[0]

    def merge_all_in(self, batch: WriteBatch, records: Sequence[Record]) -> list[bool]:
        """What ``merge`` does, inside a change. Raises before it writes: call it before your writes.

        A damaged record counts as none, but as one in the counts: it is replaced, whatever it was.
        For a few thousand records at most: they are held in memory, and other writers wait.
        """
        state = self._state_in(batch)
        keys: list[bytes] = []
        known: dict[bytes, Entry | None] = {}
        bad: set[bytes] = set()
        for record in records:
            keys.append(key := index_key(check_holdable(record)))
            if key not in known:
                try:
                    known[key] = read_entry_of(batch.get(RECORDS, key), record.bucket, record.key)
                except Corrupt as error:
                    self._damages.note(key, error)
                    known[key] = None
                    bad.add(key)
        results = []
        for key, record in zip(keys, records, strict=True):
            old = known[key]
            merged = merge(record_of(old), record)
            changed = old is None or merged != old.record
            if changed:
                known[key] = self._accept(batch, state, key, old, merged)
                if key in bad:
                    bad.remove(key)
                    state.count(merged, -1)
                    batch.put(NAMES, mended_key(key), feed_key(state.seq))
            results.append(changed)
        return results

    def get_in(self, batch: WriteBatch, bucket: str, key: str) -> Record | None:
        """What ``get`` does, inside a change."""
        found = batch.get(RECORDS, index_key(whole_key(bucket, key)))
        entry = read_entry_of(found, bucket, key)
        return record_of(entry)

    def merged_in(self, batch: WriteBatch, record: Record) -> Record:
        """The record that would be in force if this one were merged."""
        try:
            return merge(self.get_in(batch, record.bucket, record.key), record)
        except Corrupt:
            return record

    def refers_in(self, batch: WriteBatch, digest: Digest) -> bool:
        """Whether any record in force, no tombstone, has this blob as its content.

        Also if that is only not to be ruled out, as a record is damaged.
        """
        return is_referred_to(batch, digest)

    def _accept(
        self, batch: WriteBatch, state: State, key: bytes, old: Entry | None, record: Record
    ) -> Entry:
        """Write a change whose record counts."""
        self._write_state(batch, state)
        state.seq += 1
        state.clock = max(state.clock, record.timestamp)
        if old is not None:
            batch.delete(FEED, feed_key(old.seq))
            state.count(old.record, -1)
            if (content := content_of(old.record)) is not None:
                batch.delete(REFERENCES, reference_key(content, old.seq))
        state.count(record, +1)
        entry = Entry(state.seq, record)
        batch.put(RECORDS, key, written_entry(entry))
        batch.put(FEED, feed_key(state.seq), key)
        if (content := content_of(record)) is not None:
            batch.put(REFERENCES, reference_key(content, state.seq), b"")
        self._on_change(batch, record_of(old), record)
        return entry

    def _state_in(self, batch: WriteBatch) -> State:
        """The state in the eyes of a change, one for all changes of the batch. See _write_state."""
        return batch.once(_STATE, lambda: read_state(batch.get(NAMES, STATE_KEY)))

    def _write_state(self, batch: WriteBatch, state: State) -> None:
        """Have the state written as it is when the batch ends."""
        is_first = batch.at_end(_STATE, lambda: batch.put(NAMES, STATE_KEY, encode(state)))
        if is_first and batch.get(NAMES, _EPOCHS) is None:
            # Numbers given before any run was begun must be told from those of another disk.
            batch.put(NAMES, _EPOCHS, encode((*NO_EPOCHS, Epoch(str(ULID()), 0))))

    # Changes of their own

    async def write(self, draft: Record, *, now: int, check: Check | None = None) -> Record:
        def change(batch: WriteBatch) -> Record:
            return self.write_in(batch, draft, now=now, check=check)

        return await self._environment.write(change, RECORD_ABOUT_BYTES)

    async def reserve(self, now: int) -> int:
        def change(batch: WriteBatch) -> int:
            state = self._state_in(batch)
            state.clock = stamp(now, state.clock)
            self._write_state(batch, state)
            return state.clock

        return await self._environment.write(change)

    async def merge(self, records: Sequence[Record]) -> list[bool]:
        results: list[bool] = []
        for start in range(0, len(records), MERGE_CHUNK_RECORDS):
            chunk = records[start : start + MERGE_CHUNK_RECORDS]

            def change(batch: WriteBatch, chunk: Sequence[Record] = chunk) -> list[bool]:
                return self.merge_all_in(batch, chunk)

            results += await self._environment.write(change, len(chunk) * RECORD_ABOUT_BYTES)
        return results

    async def drop(self, bucket: str, key: str, timestamp: int) -> bool:
        name = index_key(whole_key(bucket, key))

        def change(batch: WriteBatch) -> bool:
            state = self._state_in(batch)
            known = read_entry_of(batch.get(RECORDS, name), bucket, key)
            if known is None or not known.record.deleted or known.record.timestamp != timestamp:
                return False
            state.count(known.record, -1)
            batch.delete(RECORDS, name)
            batch.delete(FEED, feed_key(known.seq))
            self._write_state(batch, state)
            return True

        return await self._environment.write(change)

    async def begin_epoch(self, name: str) -> None:
        Position.parse(f"{name}-0")  # what can't be read back must not be given out

        def change(batch: WriteBatch) -> None:
            epochs = read_epochs(batch.get(NAMES, _EPOCHS))
            if name not in [epoch.name for epoch in epochs]:
                state = self._state_in(batch)
                epochs = (*epochs, Epoch(name, state.seq))[-EPOCHS_COUNT:]
                batch.put(NAMES, _EPOCHS, encode(epochs))

        await self._environment.write(change)

    async def set_checkpoint(self, peer: str, value: bytes) -> None:
        """``value`` is kept as it is: its version is the caller's to note."""
        await self._environment.write(
            lambda batch: batch.put(NAMES, _CHECKPOINT + peer.encode(), value)
        )

    # Reading

    def get(self, bucket: str, key: str) -> Record | None:
        name = index_key(whole_key(bucket, key))
        with self._environment.read() as transaction:
            try:
                entry = read_entry_of(transaction.get(name, db=self._records), bucket, key)
            except Corrupt as error:
                self._damages.note(name, error)
                raise
        return record_of(entry)

    def last_seq(self) -> int:
        return self._state().seq

    def latest(self) -> int:
        return self._state().clock

    def counts(self) -> NameCounts:
        state = self._state()
        return NameCounts(state.objects, state.tombstones, self._rows.count_damaged())

    def epochs(self) -> tuple[Epoch, ...]:
        with self._environment.read() as transaction:
            value = bytes(transaction.get(_EPOCHS, db=self._names) or b"")
        if value != self._epochs_read[0] or not value:
            self._epochs_read = value, read_epochs(value or None)
        return self._epochs_read[1]

    def checkpoint(self, peer: str) -> bytes | None:
        with self._environment.read() as transaction:
            value = transaction.get(_CHECKPOINT + peer.encode(), db=self._names)
            return None if value is None else bytes(value)

    def refers(self, digest: Digest) -> list[Record]:
        start = references_of(digest)
        found: list[Record] = []
        with (
            self._environment.read() as transaction,
            transaction.cursor(db=self._references) as cursor,
        ):
            more = cursor.set_range(start)
            while more and len(found) < REFERENCES_COUNT and starts(cursor.key(), start):
                change = self._rows.change_at(transaction, bytes(cursor.key()[len(start) :]))
                if change is not None:
                    if content_of(change.record) != digest:
                        raise damaged(f"change {change.seq} is of another content than {digest}")
                    found.append(change.record)
                more = cursor.next()
        return found

    async def list_after(
        self, bucket: str, prefix: str, after: str, limit: int, *, deleted: bool = False
    ) -> list[Record]:
        first, behind = whole_key(bucket, prefix), whole_key(bucket, after)

        def page(transaction: Transaction) -> list[Record]:
            found: list[Record] = []
            for whole, record in self._rows.in_order(transaction, max(first, behind)):
                if len(found) == limit or (whole > first and not whole.startswith(first)):
                    break
                if whole > behind and whole >= first and (deleted or not record.deleted):
                    found.append(record)
            return found

        return await self._read(page)

    async def scan_after(self, after: tuple[str, str] | None, limit: int) -> list[Record]:
        behind = b"" if after is None else whole_key(*after)

        def page(transaction: Transaction) -> list[Record]:
            found: list[Record] = []
            for whole, record in self._rows.in_order(transaction, behind):
                if len(found) == limit:
                    break
                if whole > behind:
                    found.append(record)
            return found

        return await self._read(page)

    async def changes(self, since: int, limit: int) -> list[Change]:
        def page(transaction: Transaction) -> list[Change]:
            found = self._rows.changes_from(transaction, min(since + 1, SEQ_MAX))
            with contextlib.closing(found):
                return list(itertools.islice(found, limit))

        return await self._read(page)

    async def _read(self, page: Callable[[Transaction], T]) -> T:
        """Read what may be many pages, in a thread."""

        def reading() -> T:
            with self._environment.read() as transaction:
                return page(transaction)

        return await asyncio.to_thread(reading)

    def _state(self) -> State:
        with self._environment.read() as transaction:
            return read_state(transaction.get(STATE_KEY, db=self._names))
