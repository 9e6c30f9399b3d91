"""What ``tierce doctor`` finds in a node's store in the cloud, and what it repairs there.

The listing is held against the catalogue, then each object is read. Nothing is believed at the first
look: while a node runs, blobs come and go between the listing and the look into the catalogue. So each
finding is asked for by its name, between two looks at the row, and counts if that stayed the same.

A repair has the data directory to itself. It ends what the last run began, adopts objects that the
catalogue does not know, once their content is right, and sets bad copies aside. Then the rows of what is
bad or missing are gone, and the cluster heals it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from tierce.blobs import catalogue, cloud_listing, cloud_parts
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.cloud_names import digest_of
from tierce.blobs.cloud_owner import listed_as, of_another, owner_of, place_of
from tierce.blobs.marks import key_of
from tierce.blobs.store import Counts
from tierce.cloud.bucket import Entry
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, NotFound, TierceError, Unavailable
from tierce.core.limits import CLOUD_EXAMINE_AT_ONCE, CLOUD_LEFT_PAGE, CLOUD_LIST_PAGE

T = TypeVar("T")

_MISSING = "it is missing in the store"


@dataclass
class StoreReport:
    """What was found in the bucket.

    ``unknown`` are objects that the catalogue does not know; after a repair ``adopted`` says how many
    it has now. ``strange`` are those whose content is not what their name says, and those that are no
    blob's: they are left alone. ``leftovers`` are objects that are still to be deleted; ``unfinished``
    are uploads that were broken off, with ``parts`` of theirs.
    """

    url: str
    is_listing_only: bool
    objects: int = 0
    unknown: list[Digest] = field(default_factory=list)
    adopted: int = 0
    strange: list[str] = field(default_factory=list)
    leftovers: int = 0
    unfinished: int = 0
    parts: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    read_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """About what an examination costs: requests that list or read, and bytes."""

    requests: int
    bytes: int


class StoreDoctor:
    """Examines one node's store. ``node_runs``: what is under way is the node's, not a remainder.

    ``bad`` are the blobs whose objects are missing or bad, ``here`` counts those that are blobs
    afterwards, ``examined`` those that were looked at.
    """

    def __init__(
        self,
        disk: CloudDisk,
        *,
        repair: bool,
        node_runs: bool,
        is_listing_only: bool,
        progress: Callable[[int, int], None],
    ) -> None:
        self._disk = disk
        self._store = disk.store
        self._repair = repair
        self._node_runs = node_runs
        self._progress = progress
        self.report = StoreReport(disk.store.bucket.shown, is_listing_only)
        self.bad: list[tuple[Digest, str]] = []
        self.here = Counts(0, 0)
        self.examined = Counts(0, 0)

    async def check(self, node_id: str) -> None:
        """See that the bucket is this node's, and the catalogue is of this bucket.

        Raises BadRequest if not; Unavailable, or what the service said, if it can't be asked.
        """
        bucket = self._store.bucket
        try:
            owner = await owner_of(bucket)
        except Unavailable as error:
            # To a node that serves, missing rights are a service that fails. Here they are the answer.
            if isinstance(error.__cause__, TierceError):
                raise error.__cause__ from None
            raise
        if owner is None:
            raise BadRequest(
                f"the store {bucket.shown} belongs to no node",
                hint="Check its URL, and that it was not emptied. If it is right, start the node: it "
                "takes it, and what is missing is healed.",
            )
        if owner != node_id:
            raise of_another(bucket, owner)
        listed = place_of(self._disk.environment).listed
        place = listed_as(bucket, self._store.layout)
        if listed != place:
            raise BadRequest(
                f"the catalogue is not of the store {place}, but of {listed or 'none yet'}",
                hint="Give the node's own store and store_layout. If they are right, start the node: "
                "it makes the catalogue from the listing.",
            )

    def cost(self) -> Cost:
        """What it will be."""
        counts = self._disk.environment.counts(catalogue.KIND)
        requests = cloud_listing.list_requests(counts.blobs, self._store.layout)
        if self.report.is_listing_only:
            return Cost(requests, 0)
        ranges = counts.bytes // self._store.ground.range_bytes
        return Cost(requests + counts.blobs + ranges, counts.bytes)

    async def examine(self) -> None:
        """Find, and repair, all there is. Raises Unavailable."""
        if self._repair:
            await self._store.end_uploads()
            await self._store.tend()
        sizes, unknown = await self._listed()
        async for rows in self._rows():
            await _at_once(lambda each: self._examine_row(*each, sizes), rows)
        await _at_once(lambda each: self._examine_unknown(*each), unknown)
        if self._repair:
            for path in self.report.parts:
                await self._store.ownership.check()
                await self._store.bucket.delete(path)
        if not self._node_runs:
            self._count_remainders()
        self.report.requests = dict(self._store.bucket.requests)
        self.report.read_bytes = self._store.bucket.read_bytes

    async def _listed(self) -> tuple[dict[bytes, int], list[tuple[Digest, Entry]]]:
        """The sizes of all blobs' objects, by their digests' keys; and the objects without a row."""
        layout = self._store.layout
        sizes: dict[bytes, int] = {}
        unknown = []
        async with aclosing(cloud_listing.objects_of(self._store)) as found:
            async for entry in found:
                self.report.objects += 1
                digest = digest_of(entry.path, layout)
                if digest is not None:
                    sizes[key_of(digest)] = entry.size
                    if not self._is_known(digest):
                        unknown.append((digest, entry))
                elif not cloud_parts.is_part(entry.path, layout):
                    self.report.strange.append(entry.path)
                elif not self._node_runs:
                    self.report.parts.append(entry.path)
        return sizes, unknown

    async def _rows(self) -> AsyncIterator[list[tuple[Digest, Row]]]:
        after: Digest | None = None
        while page := await self._store.list_after(after, CLOUD_LIST_PAGE):
            with self._disk.environment.snapshot() as batch:
                rows = [(info.digest, catalogue.row_in(batch, info.digest)) for info in page]
            yield [(digest, row) for digest, row in rows if row is not None]
            after = page[-1].digest

    async def _examine_row(self, digest: Digest, row: Row, sizes: dict[bytes, int]) -> None:
        """Find what is wrong with a blob, unless it is removed or put again meanwhile."""
        problem = ""
        if sizes.get(key_of(digest)) != row.size:
            problem = await self._problem_by_name(digest, row)
        elif not self.report.is_listing_only:
            problem = await self._problem_by_content(digest, row)
        size: int | None = row.size
        if problem and await self._is_same(digest, row):
            self.bad.append((digest, problem))
            if self._repair:
                size = await self._repaired(digest, row)
        if size is not None:
            self.here += Counts(1, size)
        self.examined += Counts(1, row.size)
        self._progress(*self.examined)

    async def _problem_by_name(self, digest: Digest, row: Row) -> str:
        """The listing lacks an object, or has another size. It may have been put since."""
        try:
            told = await self._store.bucket.look(self._store.ground.path(digest))
        except NotFound:
            return _MISSING
        if told.size != row.size:
            return f"it has {told.size} bytes in the store instead of {row.size}"
        if self.report.is_listing_only:
            return ""
        return await self._problem_by_content(digest, row)

    async def _problem_by_content(self, digest: Digest, row: Row) -> str:
        for _ in range(2):  # it may have been damaged on its way
            if await self._store.checking.is_good(digest, row, repair=self._repair):
                return ""
        try:
            await self._store.bucket.look(self._store.ground.path(digest))
        except NotFound:
            return _MISSING
        return "its content in the store is not what its digest says"

    async def _repaired(self, digest: Digest, row: Row) -> int | None:
        """Set a bad copy aside; the blob's size if it is here all the same."""
        if await self._store.checking.bad(digest, row):
            return None
        (size,) = await self._store.sizes([digest])
        return size

    async def _is_same(self, digest: Digest, row: Row) -> bool:
        """Whether the catalogue says what it said, and the bucket is the one that it was."""
        await self._store.checking.check_owner()
        with self._disk.environment.snapshot() as batch:
            return catalogue.same_in(batch, digest, row)

    async def _examine_unknown(self, digest: Digest, entry: Entry) -> None:
        """An object that has no row, unless somebody is just putting or deleting it."""
        if self._repair:
            done = cloud_listing.Compared()
            await cloud_listing.adopt_one(self._store, self._disk.environment, digest, entry, done)
            if done.adopted:
                self.report.adopted += 1
                self.here += Counts(1, await self._store.stat(digest))
            elif done.strange:
                self.report.strange.append(entry.path)
            return
        try:
            told = await self._store.bucket.look(entry.path)
        except NotFound:
            return
        is_blob = self.report.is_listing_only or await self._store.checking.is_good(
            digest, Row(told.size, 0, "", 0), repair=False
        )
        if self._is_known(digest):
            return
        if is_blob:
            self.report.unknown.append(digest)
        else:
            self.report.strange.append(entry.path)

    def _is_known(self, digest: Digest) -> bool:
        with self._disk.environment.snapshot() as batch:
            return catalogue.is_known_in(batch, digest)

    def _count_remainders(self) -> None:
        after: Digest | None = None
        with self._disk.environment.snapshot() as batch:
            self.report.unfinished = len(catalogue.dead_uploads_in(batch, lambda pid: True))
            while page := catalogue.leftovers_in(batch, after, CLOUD_LEFT_PAGE):
                self.report.leftovers += len(page)
                after = page[-1]


async def _at_once(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Do several at a time; the first failure ends them all."""
    gate = asyncio.Semaphore(CLOUD_EXAMINE_AT_ONCE)

    async def one(item: T) -> None:
        async with gate:
            await work(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
