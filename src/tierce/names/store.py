"""Blobs and records of one node together: what must be one step is one transaction here.

A record never appears without the blob that it names, and a blob that came for a record's sake goes
when no record names it any more, after a grace time (blobs/marks.py).
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from tierce.blobs.environment import WriteBatch
from tierce.blobs.local import Collected, LocalStore
from tierce.blobs.spool import Spool
from tierce.core.digest import Digest
from tierce.names.index import Check
from tierce.names.lmdb_index import LmdbIndex
from tierce.names.record import Record


class ObjectStore(Protocol):
    """Durable when a method returns. All may be called concurrently, as those of a BlobStore."""

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        """Keep a finished spool's bytes and write the record of them (see Index.write).

        Digest and size are the spool's. If ``check`` raises, no record is written.
        """
        ...

    async def restore(self, spool: Spool, record: Record) -> bool:
        """Keep a finished spool's bytes, and merge the record of them as it is (see Index.merge)."""
        ...

    async def collect(self, before: int, limit: int) -> Collected:
        """Remove blobs that came for records' sake and that none named since ``before``.

        ``before`` is in milliseconds since 1970; ``limit`` is how many to look at.
        """
        ...


def named_by(spool: Spool, draft: Record) -> Record:
    """The draft with the digest and the size of a finished spool."""
    return msgspec.structs.replace(draft, digest=spool.digest, size=spool.size, deleted=False)


class LocalObjects:
    """The ObjectStore of a disk."""

    def __init__(self, store: LocalStore, index: LmdbIndex) -> None:
        self._store = store
        self._index = index

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        record = named_by(spool, draft)
        return await self._store.put_along(
            spool, lambda batch: self._index.write_in(batch, record, now=now, check=check)
        )

    async def restore(self, spool: Spool, record: Record) -> bool:
        whole = named_by(spool, record)
        return await self._store.put_along(spool, lambda batch: self._index.merge_in(batch, whole))

    async def collect(self, before: int, limit: int) -> Collected:
        return await self._store.collect(before, limit, self._is_referred_to)

    def _is_referred_to(self, batch: WriteBatch, digest: Digest) -> bool:
        return self._index.refers_in(batch, digest)


def releasing(store: LocalStore) -> Callable[[WriteBatch, Record | None, Record], None]:
    """What an index calls at each change, so that blobs without a record can be collected."""

    def released(batch: WriteBatch, old: Record | None, new: Record) -> None:
        if old is not None and old.digest is not None and old.digest != new.digest:
            store.marking.release(batch, old.digest)

    return released
