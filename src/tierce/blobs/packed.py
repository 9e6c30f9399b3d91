"""Small blobs, as values in LMDB: no file each, and their writes share syncs (environment.py).

The key is the algorithm's name, a colon and the raw digest, so keys sort as digests do. The value
is a version byte and the bytes themselves. A value is hashed before it is handed out.

Other rows stand beside a blob, even if it is in a file: their keys are its own, and more behind it. A
put writes them too, and so changes one page of the index for all.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from tierce.blobs.environment import BLOBS, Environment, WriteBatch
from tierce.blobs.marks import Marking, claim, claim_all, key_of, managed_of
from tierce.blobs.quarantine import Quarantine
from tierce.blobs.spool import Spool
from tierce.blobs.store import BlobInfo, Counts, ProvedByReading
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import Corrupt, NotFound

log = logging.getLogger(__name__)

KIND = "packed"
_VERSION = b"\x01"


class SmallBlob:
    """An open blob that is wholly in memory, and verified."""

    def __init__(self, digest: Digest, data: bytes) -> None:
        self.digest = digest
        self.size = len(data)
        self.data: bytes | None = data

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        assert self.data is not None
        yield self.data[start:stop]

    async def aclose(self) -> None:
        self.data = None


class PackedStore(ProvedByReading):
    """A BlobStore in the node's LMDB environment. For bodies that a spool keeps in memory."""

    def __init__(
        self,
        environment: Environment,
        quarantine: Quarantine,
        pool: Executor,
        marking: Marking | None = None,
    ) -> None:
        self._marking = marking or Marking()
        self._marking.places.append(self.has_in)
        self._environment = environment
        self._quarantine = quarantine
        self._pool = pool
        self._blobs = environment.database(BLOBS)

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        assert spool.data is not None, "a packed blob comes from memory"
        digest, data = spool.digest, spool.data
        return await self._environment.write(
            lambda batch: self.put_in(batch, digest, data, managed), len(data)
        )

    def put_in(
        self,
        batch: WriteBatch,
        digest: Digest,
        data: bytes,
        managed: bool | None,
        *,
        is_loose: bool = True,
    ) -> bool:
        """Put a blob as a part of a transaction (see BlobStore.put, and marks.py)."""
        key = key_of(digest)
        value = _VERSION + data
        added = batch.add(BLOBS, key, value)
        self._marking.put(
            batch, digest, managed, is_loose=is_loose, at=self.has_in, was_there=not added
        )
        if added:
            batch.count(KIND, 1, len(data))
            return True
        old = batch.get(BLOBS, key)
        if old is not None and old != value:  # a bad copy, replaced by the good bytes at hand
            batch.count(KIND, 0, len(value) - len(old))
            batch.put(BLOBS, key, value)
        return False

    def has_in(self, batch: WriteBatch, digest: Digest) -> bool:
        """Whether a blob is here, in the eyes of a transaction."""
        return batch.get(BLOBS, key_of(digest)) is not None

    def delete_in(self, batch: WriteBatch, digest: Digest) -> bool:
        """Remove a blob, and its mark, as a part of a transaction; False if it was not there."""
        key = key_of(digest)
        claim(batch, key)
        old = batch.get(BLOBS, key)
        if old is None:
            return False
        size = len(old) - 1
        batch.delete(BLOBS, key)
        batch.count(KIND, -1, -size)
        return True

    def get(self, digest: Digest) -> bytes | None:
        """The verified bytes, or None. Raises Corrupt and changes nothing if they don't fit.

        Blocks for the read of a few pages at most, so it may be called on the event loop.
        """
        value = self._read(key_of(digest))
        if value is None:
            return None
        if not _fits(value, digest):
            raise Corrupt(
                f"the packed copy of {digest} is bad",
                hint="Run tierce doctor, and put the blob again from a good copy.",
            )
        return value[1:]

    async def open(self, digest: Digest) -> SmallBlob:
        try:
            data = self.get(digest)
        except Corrupt as error:
            await self._quarantine_bad(digest)
            raise NotFound(f"the copy of {digest} here was bad", found_bad=True) from error
        if data is None:
            raise NotFound(f"{digest} is not here")
        return SmallBlob(digest, data)

    async def stat(self, digest: Digest) -> int:
        with self._environment.read() as transaction:
            value = transaction.get(key_of(digest), db=self._blobs)
            if value is None:
                raise NotFound(f"{digest} is not here")
            return len(value) - 1

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._sizes, digests)

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        try:
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(self._pool, self.get, digest)
        except Corrupt:
            if repair:
                await self._quarantine_bad(digest)
            raise
        if data is None:
            raise NotFound(f"{digest} is not here")
        return len(data)

    async def delete(self, digest: Digest) -> bool:
        return await self._environment.write(lambda batch: self.delete_in(batch, digest))

    async def claim(self, digests: Sequence[Digest]) -> None:
        await claim_all(self._environment, digests)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        return managed_of(self._environment, digests)

    async def list_after(
        self, after: Digest | None, limit: int, until: Digest | None = None
    ) -> list[BlobInfo]:
        """See BlobStore. ``until``: none that come later in order need be looked for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._list, after, limit, until)

    async def counts(self) -> Counts:
        return self._environment.counts(KIND)

    async def set_counts(self, counts: Counts) -> None:
        """Replace the counts by those of a full walk."""
        await self._environment.write(lambda batch: batch.set_counts(KIND, counts))

    def _read(self, key: bytes) -> bytes | None:
        with self._environment.read() as transaction:
            value = transaction.get(key, db=self._blobs)
            return None if value is None else bytes(value)

    def _sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        with self._environment.read() as transaction:
            values = [transaction.get(key_of(digest), db=self._blobs) for digest in digests]
            return [None if value is None else len(value) - 1 for value in values]

    def _list(self, after: Digest | None, limit: int, until: Digest | None) -> list[BlobInfo]:
        found: list[BlobInfo] = []
        with (
            self._environment.read() as transaction,
            transaction.cursor(db=self._blobs) as cursor,
        ):
            more = cursor.first() if after is None else cursor.set_range(_behind(after))
            while more and len(found) < limit:
                row = row_of(bytes(cursor.key()))
                if row is None:
                    log.error("the index holds a key that names no blob: %s", cursor.key().hex())
                    more = cursor.next()
                    continue
                if until is not None and row.digest > until:
                    break
                if not row.more:
                    found.append(BlobInfo(row.digest, len(cursor.value()) - 1))
                more = cursor.set_range(_behind(row.digest))
        return found

    async def _quarantine_bad(self, digest: Digest) -> None:
        key = key_of(digest)

        def change(batch: WriteBatch) -> None:
            value = batch.get(BLOBS, key)
            # Someone may have put a good copy in the meantime.
            if value is None or _fits(bytes(value), digest):
                return
            bad = bytes(value[1:])
            try:
                self._quarantine.take_bytes(digest, bad)
            except OSError:
                # It stays where it is, and is found bad again by whoever reads it.
                log.exception("the bad copy of %s could not be moved to quarantine", digest)
                return
            batch.delete(BLOBS, key)
            batch.count(KIND, -1, -len(bad))

        await self._environment.write(change)


def _fits(value: bytes, digest: Digest) -> bool:
    return value[:1] == _VERSION and digest.fits(memoryview(value)[1:])


class Row(NamedTuple):
    """What a row is about, and what stands behind the blob's key: nothing if it is the blob itself."""

    digest: Digest
    more: bytes


def row_of(key: bytes) -> Row | None:
    """The row with a key, or None if it is about no blob."""
    name, _, rest = key.partition(b":")
    algorithm = ALGORITHMS.get(name.decode("ascii", "replace"))
    if algorithm is None or len(rest) < algorithm.size_bytes:
        return None
    size = algorithm.size_bytes
    return Row(Digest(algorithm.name, rest[:size]), rest[size:])


def digest_of(key: bytes) -> Digest | None:
    """The digest that a key names, or None if it names none."""
    row = row_of(key)
    return None if row is None or row.more else row.digest


def _behind(digest: Digest) -> bytes:
    """A key behind all rows about a blob, and before those of the next one."""
    return key_of(digest) + b"\xff"
