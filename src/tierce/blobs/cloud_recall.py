"""What a late listing lacked: after a catalogue was made from one, a miss is not believed at once.

There are services that list an object only some time after they have it. A node that lost its data
directory knows no more than the listing, so for a while it asks the bucket by name for what it does not
know, before it says that it has no such blob. That costs a request for each miss. It ends with a
comparison that began so long after that the listing must have had everything (cloud_listing.py).
"""

from collections.abc import Callable

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_names import Layout, path_of
from tierce.blobs.environment import Environment, WriteBatch
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest
from tierce.core.errors import NotFound
from tierce.core.limits import CLOUD_LISTED_SECONDS

_UNSURE = "unsure"


class Recall:
    """Finds rows, in the bucket too while that is unsure. ``now`` gives milliseconds since 1970."""

    def __init__(
        self, bucket: Bucket, environment: Environment, layout: Layout, *, now: Callable[[], int]
    ) -> None:
        self._bucket = bucket
        self._environment = environment
        self._layout: Layout = layout
        self._now = now

    async def here(self, digest: Digest) -> Row:
        """A blob's row. Raises NotFound, and Unavailable if only the bucket could say."""
        if (row := self._row(digest)) is None:
            await self.ask(digest)
            if (row := self._row(digest)) is None:
                raise NotFound(f"{digest} is not here")
        return row

    async def ask(self, digest: Digest) -> None:
        """Adopt an object that the catalogue lacks, if that may be for the listing's sake.

        Its content is verified when it is read, as that of those in the listing.
        """
        with self._environment.snapshot() as batch:
            if not catalogue.meta_in(batch, _UNSURE) or _is_known(batch, digest):
                return
        try:
            told = await self._bucket.look(path_of(digest, self._layout))
        except NotFound:
            return
        row = Row(told.size, self._now(), "", 0)

        def change(batch: WriteBatch) -> None:
            if not _is_known(batch, digest):
                catalogue.put_in(batch, digest, row, None, None)

        await self._environment.write(change)

    async def made(self) -> None:
        """The catalogue was just made from a listing."""
        await self._set(str(self._now()))

    async def compared(self, began: int) -> None:
        """A comparison with a listing that began then is complete."""
        with self._environment.snapshot() as batch:
            since = catalogue.meta_in(batch, _UNSURE)
        if since and began >= int(since) + CLOUD_LISTED_SECONDS * 1000:
            await self._set("")

    async def _set(self, value: str) -> None:
        await self._environment.write(lambda batch: catalogue.set_meta_in(batch, _UNSURE, value))

    def _row(self, digest: Digest) -> Row | None:
        with self._environment.snapshot() as batch:
            return catalogue.row_in(batch, digest)


def _is_known(batch: WriteBatch, digest: Digest) -> bool:
    """Whether a blob is here, was deleted lately, or is being put."""
    return (
        catalogue.has_in(batch, digest)
        or catalogue.left_in(batch, digest) is not None
        or catalogue.is_uploaded_in(batch, digest)
    )
