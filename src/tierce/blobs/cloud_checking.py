"""Is a blob's object in the cloud what it should be? And what becomes of one that is not."""

import contextlib
import logging

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_clearing import Clearing
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_owner import Ownership
from tierce.blobs.cloud_reading import Object, harmed_on_the_way
from tierce.blobs.environment import WriteBatch
from tierce.blobs.layout import SUM_BYTES, chunk_count
from tierce.blobs.quarantine import Quarantine
from tierce.core.digest import Digest
from tierce.core.errors import NotFound

log = logging.getLogger(__name__)

_LARGE = b"It is in the bucket of the store, under quarantine/, if the service can copy.\n"


class Checking:
    """Reads objects by the rows of the catalogue."""

    def __init__(
        self, ground: Ground, quarantine: Quarantine, clearing: Clearing, ownership: Ownership
    ) -> None:
        self._ground = ground
        self._bucket = ground.bucket
        self._environment = ground.environment
        self._quarantine = quarantine
        self._clearing = clearing
        self._ownership = ownership

    async def read_small(self, digest: Digest, row: Row) -> bytes | None:
        """A whole blob; None if its object is missing, or wrong twice the same way: see :meth:`bad`.

        Raises Unavailable if it comes wrong in another way each time.
        """
        wrong: bytes | None = None
        for _ in range(2):
            try:
                data = await self._bucket.read(self._ground.path(digest), 0, row.size)
            except NotFound:
                return None
            if digest.fits(data):
                return data
            if data == wrong:
                return None
            wrong = data
        raise harmed_on_the_way(digest)

    def large(self, digest: Digest, row: Row, sums: bytes | None) -> Object:
        """A large blob's object, and its checksums if they can be those of a blob of its size."""
        if sums is not None and len(sums) != SUM_BYTES * chunk_count(row.size):
            sums = None
        return Object(
            self._bucket,
            self._ground.path(digest),
            digest,
            row.size,
            sums,
            self._ground.pool,
            range_bytes=self._ground.range_bytes,
        )

    async def is_good(self, digest: Digest, row: Row, *, repair: bool) -> bool:
        """Read the whole. With ``repair`` checksums that are missing or wrong are made anew."""
        if row.size <= self._ground.whole_bytes:
            return await self.read_small(digest, row) is not None
        with self._environment.snapshot() as batch:
            known = catalogue.sums_in(batch, digest)
        try:
            sums = await self.large(digest, row, None).examine()
        except NotFound:
            return False
        if sums is not None and sums != known and repair:
            await self.keep_sums(digest, sums)
        return sums is not None

    async def keep_sums(self, digest: Digest, sums: bytes) -> None:
        """Write down the checksums of a large blob."""
        await self._environment.write(
            lambda batch: catalogue.set_sums_in(batch, digest, sums), len(sums)
        )

    async def check_owner(self) -> None:
        """See that the bucket is the one it was, before it is believed that objects are missing."""
        await self._ownership.check(is_afresh=True)

    async def bad(self, digest: Digest, row: Row) -> bool:
        """A blob's object is bad or missing: it is here no more. False if that is not so any more.

        Its mark stays, for the copy that is made again. What is left of it goes to quarantine: here
        if it is small, in the bucket if the service can copy. What is missing is not deleted: it may
        turn up again.
        """
        await self.check_owner()
        data: bytes | None = None
        with contextlib.suppress(NotFound):
            found = await self._bucket.look(self._ground.path(digest))
            if found.size != row.size and await self._is_resized(digest, row, found.size):
                return False
            if row.size <= self._ground.whole_bytes:
                read_bytes = min(found.size, self._ground.whole_bytes)
                read = await self._bucket.read(found.path, 0, read_bytes)
                if digest.fits(read):
                    return False  # it came damaged twice, and the third time it is right
                data = read
            else:
                if found.size == row.size and await self.large(digest, row, None).examine():
                    return False  # it was missing for a moment
                data = _LARGE

        def change(batch: WriteBatch) -> bool:
            if not catalogue.same_in(batch, digest, row):
                return False
            try:
                if data is not None:
                    self._quarantine.take_bytes(digest, data, "cloud")
            except OSError:
                # It stays where it is, and is found bad again by whoever reads it.
                log.exception("the bad copy of %s could not be moved to quarantine", digest)
                return False
            if data is None:
                catalogue.lose_in(batch, digest)
            else:
                catalogue.remove_in(batch, digest, is_bad=True)
            return True

        is_removed = await self._environment.write(change)
        if is_removed and data is not None:
            await self._clearing.clear([digest])
        return is_removed

    async def _is_resized(self, digest: Digest, row: Row, size: int) -> bool:
        """Whether not the object is wrong but the catalogue, which says now how large it is."""
        right = row._replace(size=size, tag="", proved=0)
        if not await self.is_good(digest, right, repair=False):
            return False

        def change(batch: WriteBatch) -> None:
            if catalogue.same_in(batch, digest, row):
                catalogue.put_in(batch, digest, right, None, None)

        await self._environment.write(change)
        return True
