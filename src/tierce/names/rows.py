"""Reading the rows of an index of records in a transaction, past those that are damaged."""

import heapq
from collections.abc import Generator, Iterator
from typing import Any

from tierce.blobs.environment import Environment, Transaction, WriteBatch
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.names.damage import DamagedRecords, entry_of_change, is_fit
from tierce.names.index import Change
from tierce.names.keys import (
    FEED,
    RECORDS,
    REFERENCES,
    feed_key,
    group_of,
    references_of,
    seek_key,
    whole_key,
)
from tierce.names.record import Record
from tierce.names.values import read_entry_at


class Rows:
    """The rows of an environment's index. ``damages`` is told of what is passed over."""

    def __init__(self, environment: Environment, damages: DamagedRecords) -> None:
        self._environment = environment
        self._damages = damages
        self._records = environment.database(RECORDS)
        self._feed = environment.database(FEED)

    def in_order(self, transaction: Transaction, start: bytes) -> Iterator[tuple[bytes, Record]]:
        """Names in full with their records, in the order of names, from about ``start`` on."""
        with transaction.cursor(db=self._records) as cursor:
            more = cursor.set_range(seek_key(start)) if start else cursor.first()
            while more:
                group = group_of(bytes(cursor.key()))
                if group is None:
                    yield from self._named(cursor)
                    more = cursor.next()
                    continue
                names = []
                while more and starts(cursor.key(), group):
                    names += self._named(cursor)
                    more = cursor.next()
                heapq.heapify(names)  # a page may need few of them
                while names:
                    yield heapq.heappop(names)

    def changes_from(self, transaction: Transaction, seq: int) -> Generator[Change, None, None]:
        """The changes with this number and greater ones, in order."""
        with transaction.cursor(db=self._feed) as cursor:
            more = cursor.set_range(feed_key(seq))
            while more:
                number, key = bytes(cursor.key()), bytes(cursor.value())
                try:
                    change = self.change_at(transaction, number)
                except Corrupt as error:
                    self._damages.note(key if is_fit(key) else number, error)
                else:
                    if change is not None:
                        yield change
                more = cursor.next()

    def change_at(self, transaction: Transaction, number: bytes) -> Change | None:
        """The change with a number, as it is a key of ``feed``; None if it is stale (damage.py).

        Raises Corrupt.
        """

        def get(database: str, key: bytes) -> memoryview | None:
            return transaction.get(key, db=self._environment.database(database))

        entry = entry_of_change(get, number)
        return None if entry is None else Change(entry.seq, entry.record)

    def count_damaged(self) -> int:
        """How many records are damaged now, of those that were passed over since the start."""
        keys = self._damages.noted()
        if not keys:
            return 0
        with self._environment.snapshot() as batch:
            return sum(_is_damaged(batch, key) for key in keys)

    def _named(self, cursor: Any) -> list[tuple[bytes, Record]]:
        """The name in full at a cursor of ``records``, and its record; nothing if it is damaged."""
        try:
            record = read_entry_at(cursor.value(), cursor.key()).record
        except Corrupt as error:
            self._damages.note(bytes(cursor.key()), error)
            return []
        return [(whole_key(record.bucket, record.key), record)]


def _is_damaged(batch: WriteBatch, key: bytes) -> bool:
    value = batch.get(RECORDS, key)
    if value is not None:
        try:
            read_entry_at(value, key)
        except Corrupt:
            return True
    return False


def is_referred_to(batch: WriteBatch, digest: Digest) -> bool:
    """Whether any record in force has this blob as its content, or a damaged one may have it."""
    start = references_of(digest)
    with batch.cursor(REFERENCES) as cursor:
        more = cursor.set_range(start)
        while more and starts(cursor.key(), start):
            try:
                if entry_of_change(batch.get, bytes(cursor.key()[len(start) :])) is not None:
                    return True
            except Corrupt:
                return True
            more = cursor.next()
    return False


def starts(key: memoryview, start: bytes) -> bool:
    """Whether a key begins so."""
    return key[: len(start)] == start
