"""A node's store in the cloud: bytes in a bucket, and all that is known of them in the node's index.

catalogue.py says how rows and objects go together. An upload is acknowledged when the service has the
whole object and the row is committed; a deletion when the row is gone, and the object follows. What a
crash or a failure leaves over is seen to by ``tend``, which one process of the node runs.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from tierce.blobs import catalogue
from tierce.blobs.cached_reading import CachedReading
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_checking import Checking
from tierce.blobs.cloud_clearing import Clearing
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_names import OWNER_PATH
from tierce.blobs.cloud_owner import Ownership
from tierce.blobs.cloud_proof import Proving
from tierce.blobs.cloud_reading import CloudBlob
from tierce.blobs.cloud_recall import Recall
from tierce.blobs.cloud_uploading import Finish, Uploads
from tierce.blobs.environment import WriteBatch
from tierce.blobs.holds import Holds
from tierce.blobs.marked import Collected, Referred
from tierce.blobs.marks import (
    Marking,
    blob_of,
    claim,
    claim_all,
    drop,
    is_due,
    key_of,
    loose_before,
    managed_of,
)
from tierce.blobs.packed import SmallBlob, digest_of
from tierce.blobs.quarantine import Quarantine
from tierce.blobs.read_cache import ReadCache
from tierce.blobs.spool import Spool
from tierce.blobs.store import BlobInfo, Counts, OpenBlob
from tierce.blobs.turns import Turns
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, Unavailable, from_os_error
from tierce.core.limits import CLOUD_LATE_SECONDS, CLOUD_POLL_SECONDS, CLOUD_WAIT_SECONDS

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often a small blob is looked for that is neither right nor to be set aside.
OPEN_TRIES = 3
# Who asks for so few sizes wants these blobs. Who asks for more compares what nodes have, and then a
# blob that the listing lacks only costs a copy too many.
RECALLED_AT_ONCE = 8


class CloudStore:
    """The MarkedStore of a bucket (marked.py). Close it before its environment.

    ``marking`` has the clock of the ``ground``. ``by_tags`` is as in cloud_proof.py.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        marking: Marking,
        quarantine: Quarantine,
        holds: Holds,
        turns: Turns,
        cache: ReadCache | None,
        by_tags: bool,
    ) -> None:
        self.ground = ground
        self.bucket = ground.bucket
        self.bucket.marker = OWNER_PATH
        self.layout = ground.layout
        self.marking = marking
        self.marking.places.append(catalogue.has_in)
        self._environment = ground.environment
        self._holds = holds
        self.cache = cache
        self._cached = CachedReading(cache, lambda digest: ground.row(digest) is not None)
        self.proving = Proving(ground, by_tags=by_tags)
        self._uploads = Uploads(ground, turns, self.proving)
        self.recall = Recall(ground)
        self.ownership = Ownership(ground.bucket, ground.environment, clock=ground.host.seconds)
        self._clearing = Clearing(ground, self.ownership, holds)
        self.checking = Checking(ground, quarantine, self._clearing, self.ownership)

    async def aclose(self) -> None:
        """Give up what is under way in the background; the next start goes on with it."""
        self._uploads.close()
        await self._clearing.aclose()
        if self.cache is not None:
            await self.cache.aclose()

    # Putting

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        def finish(batch: WriteBatch, row: Row, sums: bytes | None, name: bytes) -> bool:
            self._mark(batch, spool.digest, managed, is_loose=True)
            return catalogue.put_in(batch, spool.digest, row, sums, name)

        return await self._put(spool, finish)

    async def put_along(
        self, spool: Spool, change: Callable[[WriteBatch], T], *, is_loose: bool = False
    ) -> T:
        def finish(batch: WriteBatch, row: Row, sums: bytes | None, name: bytes) -> T:
            result = change(batch)
            self._mark(batch, spool.digest, True, is_loose=is_loose)
            catalogue.put_in(batch, spool.digest, row, sums, name)
            return result

        return await self._put(spool, finish)

    async def _put(self, spool: Spool, finish: Finish[T]) -> T:
        # If it is here and nobody knows, an upload that failed would be taken for all there was of it.
        await self.recall.ask(spool.digest)
        return await self._uploads.put(spool, finish)

    def _mark(
        self, batch: WriteBatch, digest: Digest, managed: bool | None, *, is_loose: bool
    ) -> None:
        was_there = catalogue.has_in(batch, digest)
        self.marking.put(
            batch, digest, managed, is_loose=is_loose, at=catalogue.has_in, was_there=was_there
        )

    # Removing

    async def claim(self, digests: Sequence[Digest]) -> None:
        await claim_all(self._environment, digests)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        return managed_of(self._environment, digests)

    async def delete(self, digest: Digest) -> bool:
        return await self.delete_unless(digest, lambda batch, digest: None)

    async def delete_unless(
        self, digest: Digest, check: Callable[[WriteBatch, Digest], None]
    ) -> bool:
        def change(batch: WriteBatch) -> bool:
            check(batch, digest)
            return _remove(batch, digest) is not None

        await self.recall.ask(digest)
        removed = await self._environment.write(change)
        if removed:
            await self._removed([digest])
        return removed

    async def evict(self, digest: Digest, may_go: Callable[[WriteBatch], bool]) -> int | None:
        def change(batch: WriteBatch) -> int | None:
            row = catalogue.row_in(batch, digest)
            if row is None or not may_go(batch):
                return None
            _remove(batch, digest)
            return row.size

        size = await self._environment.write(change)
        if size is not None:
            await self._removed([digest])
        return size

    async def collect(self, before: int, limit: int, is_referred_to: Referred) -> Collected:
        removed: list[Digest] = []

        def sweep(batch: WriteBatch) -> int:
            entries = loose_before(batch, before, limit)
            for entry in entries:
                digest = digest_of(blob_of(entry))
                if (
                    digest is not None
                    and is_due(batch, entry)
                    and not is_referred_to(batch, digest)
                ):
                    if _remove(batch, digest) is not None:
                        removed.append(digest)
                    claim(batch, blob_of(entry))  # there may be a mark alone, of a bad copy
                drop(batch, entry)
            return len(entries)

        seen = await self._environment.write(sweep)
        await self._removed(removed)
        return Collected(seen, removed)

    async def _removed(self, digests: Sequence[Digest]) -> None:
        if self.cache is not None and digests:
            await self.cache.drop(digests)
        await self._clearing.clear(digests, patience_seconds=CLOUD_LATE_SECONDS)

    async def tend(self) -> None:
        """Once: see to what uploads and deletions have left over (Clearing.tend)."""
        await self._clearing.tend()

    async def end_uploads(self) -> None:
        """At a start: nothing that was begun is under way any more."""
        self._holds.sweep()
        await self._clearing.end_uploads(lambda pid: True)

    async def is_missing(self, digest: Digest, is_old: Callable[[Row], bool]) -> bool:
        """See to a blob that the bucket's listing lacks; True if it is here no more.

        ``is_old``: it was put so long ago that it should be in the listing.
        """
        row = self.ground.row(digest)
        if row is None or not is_old(row):
            return False
        with contextlib.suppress(NotFound):
            await self.bucket.look(self.ground.path(digest))
            return False
        return await self.bad(digest, row)

    # Reading

    def _here(self, digest: Digest) -> Row:
        row = self.ground.row(digest)
        if row is None:
            raise NotFound(f"{digest} is not here")
        return row

    async def open(self, digest: Digest) -> OpenBlob:
        row = await self.recall.here(digest)
        if row.size > self.ground.whole_bytes:
            return await self._open_large(digest)
        for _ in range(OPEN_TRIES):
            ask = functools.partial(self.checking.read_small, digest, row)
            data = await self._cached.small(digest, row, ask)
            if data is not None:
                return SmallBlob(digest, data)
            if await self.bad(digest, row):
                raise NotFound(f"the copy of {digest} here was bad", found_bad=True)
            row = self._here(digest)  # it was replaced meanwhile
        raise Unavailable(
            f"{digest} keeps coming damaged from the store",
            hint="If it is bad there, see in the node's log why it could not be set aside.",
        )

    async def bad(self, digest: Digest, row: Row) -> bool:
        """Set aside a blob that was found bad or missing; False if it is not so any more."""
        is_removed = await self.checking.bad(digest, row)
        if is_removed and self.cache is not None:
            await self.cache.drop([digest])
        return is_removed

    async def _open_large(self, digest: Digest) -> CloudBlob:
        hold = await self._hold(digest)
        try:
            with self._environment.snapshot() as batch:
                sums = catalogue.sums_in(batch, digest)
            row = self._here(digest)
        except BaseException:
            self._holds.release(digest, hold)
            raise
        found = self.checking.large(digest, row, sums)
        return CloudBlob(found, _Reading(self, digest, row, hold), self._cached)

    async def _hold(self, digest: Digest) -> int:
        deadline = asyncio.get_running_loop().time() + CLOUD_WAIT_SECONDS
        while True:
            self._here(digest)
            try:
                hold = self._holds.share(digest)
            except OSError as error:
                raise from_os_error(error, "reading a blob") from error
            if hold is not None:
                return hold
            if asyncio.get_running_loop().time() >= deadline:
                raise Unavailable(f"{digest} is being replaced", hint="Ask again.")
            await asyncio.sleep(CLOUD_POLL_SECONDS)

    async def read_no_more(self, digest: Digest, hold: int) -> None:
        """A large blob was closed; if it is gone, its object goes now."""
        self._holds.release(digest, hold)
        if self.ground.row(digest) is None:
            await self._clearing.clear([digest], patience_seconds=CLOUD_LATE_SECONDS)

    async def stat(self, digest: Digest) -> int:
        return (await self.recall.here(digest)).size

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        def look(batch: WriteBatch) -> list[int | None]:
            rows = [catalogue.row_in(batch, digest) for digest in digests]
            return [None if row is None else row.size for row in rows]

        found = await self.reading(look)
        if len(digests) <= RECALLED_AT_ONCE:
            for at, digest in enumerate(digests):
                if found[at] is None:
                    with contextlib.suppress(NotFound):
                        found[at] = await self.stat(digest)
        return found

    async def reading(self, look: Callable[[WriteBatch], T]) -> T:
        def read() -> T:
            with self._environment.snapshot() as batch:
                return look(batch)

        return await asyncio.get_running_loop().run_in_executor(self.ground.pool, read)

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.ground.pool, catalogue.listed, self._environment, after, limit
        )

    async def counts(self) -> Counts:
        return self._environment.counts(catalogue.KIND)

    async def set_counts(self, counts: Counts) -> None:
        """Replace the counts by those of a full walk."""
        await self._environment.write(lambda batch: batch.set_counts(catalogue.KIND, counts))

    # Verifying

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        row = await self.recall.here(digest)
        told = await self.proving.look(digest) if repair else None
        if await self.checking.is_good(digest, row, repair=repair):
            await self.proving.keep(digest, row, told)
            return row.size
        await self.checking.check_owner()
        if not self._is_same(digest, row) or (repair and not await self.bad(digest, row)):
            raise Unavailable(f"{digest} was replaced while it was verified", hint="Ask again.")
        raise Corrupt(
            f"the copy of {digest} is missing in the store, or damaged",
            hint="Run tierce doctor --repair, and put the blob again from a good copy.",
        )

    async def prove(self, digest: Digest) -> int:
        row = await self.recall.here(digest)
        if await self.proving.is_still(digest, row):
            return row.size
        return await self.verify(digest, repair=True)

    def _is_same(self, digest: Digest, row: Row) -> bool:
        with self._environment.snapshot() as batch:
            return catalogue.same_in(batch, digest, row)


class _Reading:
    """What a reader of a large blob tells its store (cloud_reading.Reports)."""

    def __init__(self, store: CloudStore, digest: Digest, row: Row, hold: int) -> None:
        self._store = store
        self._digest = digest
        self._row = row
        self._hold: int | None = hold

    async def bad(self) -> bool:
        return await self._store.bad(self._digest, self._row)

    async def sums(self, sums: bytes) -> None:
        await self._store.checking.keep_sums(self._digest, sums)

    async def closed(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            await self._store.read_no_more(self._digest, hold)


def _remove(batch: WriteBatch, digest: Digest) -> Row | None:
    """Remove a blob and its mark, if it is here."""
    row = catalogue.remove_in(batch, digest)
    if row is not None:
        claim(batch, key_of(digest))
    return row
