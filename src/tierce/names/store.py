"""Blobs and records of one node together: what must be one step is one transaction here.

A record never appears without the blob that it names, and a blob that came for a record's sake goes
when no record names it any more, after a grace time (blobs/marks.py).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from tierce.blobs.environment import WriteBatch
from tierce.blobs.marked import Collected, MarkedStore
from tierce.blobs.spool import Spool
from tierce.core.digest import Digest
from tierce.core.errors import Conflict
from tierce.names.cached import Evicted, Look, Standing, standing_in, watch_in
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

    async def restore(
        self, spool: Spool, record: Record, *, check: Callable[[], None] | None = None
    ) -> bool:
        """Keep a finished spool's bytes, and merge the record of them as it is (see Index.merge).

        ``check`` is asked in the same transaction, perhaps in a thread; if it raises, no record is
        written.
        """
        ...

    async def collect(self, before: int, limit: int) -> Collected:
        """Remove blobs that came for records' sake and that none named since ``before``.

        ``before`` is in milliseconds since 1970; ``limit`` is how many to look at.
        """
        ...

    async def delete_blob(self, digest: Digest) -> bool:
        """Remove a blob that somebody no longer wants; False if it was not there.

        Raises Conflict for the content of an object: that is looked at in the same transaction, or,
        for a file, while nobody can put it.
        """
        ...

    async def look(self, digests: Sequence[Digest]) -> list[Look]:
        """For each blob how it stands (names/cached.py), and its size."""
        ...

    async def evict(self, digest: Digest, heard: Sequence[Record] = ()) -> Evicted:
        """Drop a blob with its mark, but no record, if it is cached (names/cached.py).

        That is looked at in the transaction that drops it, or, for a file, while nobody can put it.
        ``heard``: count these as merged already. Who reads it reads on.
        """
        ...


def named_by(spool: Spool, draft: Record) -> Record:
    """The draft with the digest and the size of a finished spool."""
    return msgspec.structs.replace(draft, digest=spool.digest, size=spool.size, deleted=False)


def named_by_objects(digest: Digest) -> Conflict:
    """Why a blob that objects consist of can't be deleted."""
    return Conflict(
        f"{digest} is the content of an object",
        hint="Delete the object: its content goes with it, after the grace time.",
    )


class LocalObjects:
    """The ObjectStore of a node, over its own blobs."""

    def __init__(self, store: MarkedStore, index: LmdbIndex) -> None:
        self._store = store
        self._index = index

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        record = named_by(spool, draft)
        return await self._store.put_along(
            spool, lambda batch: self._index.write_in(batch, record, now=now, check=check)
        )

    async def restore(
        self, spool: Spool, record: Record, *, check: Callable[[], None] | None = None
    ) -> bool:
        whole = named_by(spool, record)

        def change(batch: WriteBatch) -> bool:
            if check is not None:
                check()
            return self._index.merge_in(batch, whole)

        return await self._store.put_along(spool, change, is_loose=True)

    async def collect(self, before: int, limit: int) -> Collected:
        return await self._store.collect(before, limit, self._is_referred_to)

    async def delete_blob(self, digest: Digest) -> bool:
        return await self._store.delete_unless(digest, self._check_unnamed)

    def _check_unnamed(self, batch: WriteBatch, digest: Digest) -> None:
        if self._is_referred_to(batch, digest):
            raise named_by_objects(digest)

    async def look(self, digests: Sequence[Digest]) -> list[Look]:
        def standings(batch: WriteBatch) -> list[Standing]:
            return [standing_in(batch, digest) for digest in digests]

        sizes = await self._store.sizes(digests)
        found = await self._store.reading(standings)
        return [
            Look(Standing.ABSENT, 0) if size is None else Look(standing, size)
            for size, standing in zip(sizes, found, strict=True)
        ]

    async def evict(self, digest: Digest, heard: Sequence[Record] = ()) -> Evicted:
        def is_cached(batch: WriteBatch) -> bool:
            merged = {(each.bucket, each.key): self._index.merged_in(batch, each) for each in heard}
            return standing_in(batch, digest, merged) is Standing.CACHED

        size = await self._store.evict(digest, is_cached)
        if size is not None:
            return Evicted(Standing.CACHED, size, is_dropped=True)
        return Evicted(*(await self.look([digest]))[0], is_dropped=False)

    def _is_referred_to(self, batch: WriteBatch, digest: Digest) -> bool:
        return self._index.refers_in(batch, digest)


def releasing(
    store: MarkedStore, *, is_limited: bool = False
) -> Callable[[WriteBatch, Record | None, Record], None]:
    """What an index calls at each change, so that blobs without a record can be collected.

    ``is_limited``: the near-cache is, so it is told of blobs that may be cached now that a record
    is gone which needed them here.
    """

    def released(batch: WriteBatch, old: Record | None, new: Record) -> None:
        if old is None or old.digest is None or old.digest == new.digest:
            return
        store.marking.release(batch, old.digest)
        if is_limited and standing_in(batch, old.digest) is Standing.CACHED:
            watch_in(batch, old.digest)

    return released
