"""Which blobs a near-cache may drop, and what is remembered of them between two runs of a node.

A blob is *cached* if it came for records' sake only (blobs/marks.py), some record in force refers to
it, and each that does has a level that the upstream belongs to, and is there: so the upstream has it
for all who want it. It is *shared* if the upstream has it for one record, while another one needs it
here. What nobody but its owner may drop, or no record of the upstream names, is neither.

The database ``cache`` has three kinds of rows: ``m/`` and a name for single values; ``r``, a number
and a place in the order, 9 bytes, for what the policy of eviction knew of a blob; ``w`` and a blob's
key for one that lost a record and may be cached since, unnoticed. The first are advice: what lies on
the disk is the truth. Rows are written beside those in force, which then change places with them.
"""

import asyncio
import itertools
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from enum import Enum
from typing import NamedTuple, Protocol

from tierce.blobs import marks
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.marks import key_of
from tierce.blobs.packed import digest_of
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.names.damage import entry_of_change
from tierce.names.keys import references_of
from tierce.names.lmdb_index import REFERENCES
from tierce.names.record import UPSTREAM, Record

CACHE = "cache"
ROWS_CHUNK = 2000

_RUN = b"m/run"
_GENERATION = b"m/generation"
_ROW = b"r"
_WATCHED = b"w"
_VERSION = b"\x01"
_ROW_ABOUT_BYTES = 80


class Standing(Enum):
    """What the near-cache may do with a blob; see the head of this module."""

    ABSENT = "absent"
    OTHER = "other"
    SHARED = "shared"
    CACHED = "cached"


class Look(NamedTuple):
    """How a blob stands, and its size in bytes; 0 if it is absent."""

    standing: Standing
    size: int


class Evicted(NamedTuple):
    """What became of a blob that should go: how it stood, its size, and whether it was dropped."""

    standing: Standing
    size: int
    is_dropped: bool


class Row(NamedTuple):
    """What a policy knew of a blob: its size in bytes, and bits of the policy's own."""

    digest: Digest
    size: int
    bits: int


def is_safe(record: Record) -> bool:
    """Whether a record says that the upstream has its content, and so it may be dropped here."""
    return (
        record.digest is not None
        and not record.deleted
        and record.level >= UPSTREAM
        and record.is_upstream
    )


def standing_of(is_managed: bool, records: Iterable[Record]) -> Standing:
    """How a blob stands that is here, to which these records in force refer."""
    found: set[bool] = set()
    if is_managed:
        for record in records:
            found.add(is_safe(record))
            if len(found) == 2:
                return Standing.SHARED
    return Standing.CACHED if True in found else Standing.OTHER


def standing_in(
    batch: WriteBatch, digest: Digest, merged: Mapping[tuple[str, str], Record] | None = None
) -> Standing:
    """How a blob stands that is here, in the eyes of a transaction. Raises nothing.

    While a record is damaged that may refer to it, it is one that nobody may drop.
    ``merged``: by their names, records that count in the place of what is in force.
    """
    is_managed = marks.is_managed(batch, key_of(digest))
    merged = merged or {}
    records = [each for each in merged.values() if each.digest == digest and not each.deleted]
    with closing(_referring(batch, digest)) as referring:
        others = (each for each in referring if (each.bucket, each.key) not in merged)
        try:
            return standing_of(is_managed, itertools.chain(records, others))
        except Corrupt:
            return Standing.OTHER


def _referring(batch: WriteBatch, digest: Digest) -> Generator[Record, None, None]:
    start = references_of(digest)
    with batch.cursor(REFERENCES) as cursor:
        more = cursor.set_range(start)
        while more and bytes(cursor.key()[: len(start)]) == start:
            entry = entry_of_change(batch.get, bytes(cursor.key()[len(start) :]))
            if entry is not None:
                yield entry.record
            more = cursor.next()


class CacheRows(Protocol):
    """What is remembered of a node's cache. All is durable when a method returns."""

    def run(self) -> str:
        """The run of the agent that room is granted in. Quick; may be called in a thread."""
        ...

    async def begin(self, run: str) -> None:
        """A new run begins: what was granted in another one is void from now on."""
        ...

    async def load(self) -> list[Row]:
        """What was saved last, in its order."""
        ...

    async def save(self, rows: Sequence[Row]) -> None:
        """Replace what was saved. A crash leaves the one or the other."""
        ...

    async def watched(self, limit: int) -> list[Digest]:
        """Blobs that lost a record and were cached then, ``limit`` at most."""
        ...

    async def unwatch(self, digests: Sequence[Digest]) -> None:
        """These were seen to."""
        ...


class LmdbRows:
    """The rows of a disk, in an environment that was opened with CACHE."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def run(self) -> str:
        with self._environment.snapshot() as batch:
            return bytes(batch.get(CACHE, _RUN) or b"").decode()

    async def begin(self, run: str) -> None:
        await self._environment.write(lambda batch: batch.put(CACHE, _RUN, run.encode()))

    async def load(self) -> list[Row]:
        def read() -> list[Row]:
            with self._environment.snapshot() as batch:
                start = _ROW + bytes(batch.get(CACHE, _GENERATION) or b"\0")
                return [row for key in _keys(batch, start) if (row := _read_row(batch, key))]

        return await asyncio.to_thread(read)

    async def save(self, rows: Sequence[Row]) -> None:
        with self._environment.snapshot() as batch:
            old = bytes(batch.get(CACHE, _GENERATION) or b"\0")
        new = bytes([1 - old[0]])
        await self._clear(_ROW + new)  # what a run left that was killed meanwhile
        for start in range(0, len(rows), ROWS_CHUNK):

            def change(batch: WriteBatch, start: int = start) -> None:
                for place, row in enumerate(rows[start : start + ROWS_CHUNK], start):
                    key = _ROW + new + place.to_bytes(8)
                    batch.put(CACHE, key, _row_value(row))

            await self._environment.write(change, ROWS_CHUNK * _ROW_ABOUT_BYTES)
        await self._environment.write(lambda batch: batch.put(CACHE, _GENERATION, new))
        await self._clear(_ROW + old)

    async def watched(self, limit: int) -> list[Digest]:
        with self._environment.snapshot() as batch:
            found = (digest_of(key[len(_WATCHED) :]) for key in _keys(batch, _WATCHED, limit))
            return [digest for digest in found if digest is not None]

    async def unwatch(self, digests: Sequence[Digest]) -> None:
        def change(batch: WriteBatch) -> None:
            for digest in digests:
                batch.delete(CACHE, _WATCHED + key_of(digest))

        await self._environment.write(change)

    async def _clear(self, start: bytes) -> None:
        def change(batch: WriteBatch) -> int:
            keys = _keys(batch, start, ROWS_CHUNK)
            for key in keys:
                batch.delete(CACHE, key)
            return len(keys)

        while await self._environment.write(change, ROWS_CHUNK * _ROW_ABOUT_BYTES) == ROWS_CHUNK:
            pass


class MemoryRows:
    """Rows that nothing keeps, for simulations."""

    def __init__(self) -> None:
        self._run = ""
        self._rows: list[Row] = []

    def run(self) -> str:
        return self._run

    async def begin(self, run: str) -> None:
        self._run = run

    async def load(self) -> list[Row]:
        return self._rows

    async def save(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    async def watched(self, limit: int) -> list[Digest]:
        return []

    async def unwatch(self, digests: Sequence[Digest]) -> None:
        pass


def watch_in(batch: WriteBatch, digest: Digest) -> None:
    """Have the agent look at a blob, as a part of the transaction in which it lost a record."""
    batch.put(CACHE, _WATCHED + key_of(digest), b"")


def _keys(batch: WriteBatch, start: bytes, limit: int | None = None) -> list[bytes]:
    found: list[bytes] = []
    with batch.cursor(CACHE) as cursor:
        more = cursor.set_range(start)
        while more and (limit is None or len(found) < limit):
            key = bytes(cursor.key())
            if not key.startswith(start):
                break
            found.append(key)
            more = cursor.next()
    return found


def _row_value(row: Row) -> bytes:
    return _VERSION + row.size.to_bytes(8) + bytes([row.bits]) + key_of(row.digest)


def _read_row(batch: WriteBatch, key: bytes) -> Row | None:
    """A row, or None for one that can't be read: it is advice."""
    value = bytes(batch.get(CACHE, key) or b"")
    digest = digest_of(value[10:])
    if value[:1] != _VERSION or digest is None:
        return None
    return Row(digest, int.from_bytes(value[1:9]), value[9])
