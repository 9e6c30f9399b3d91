"""What a late listing lacked: after a catalogue was made from one, a miss is not believed at once.

There are services that list an object only some time after they have it. A node that lost its data
directory knows no more than the listing, so for a while it asks the bucket by name for what it does not
know, before it says that it has no such blob. That costs a request for each miss. It ends with a
comparison that began so long after that the listing must have had everything (cloud_listing.py).
"""

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.environment import WriteBatch
from tierce.core.digest import Digest
from tierce.core.errors import NotFound
from tierce.core.limits import CLOUD_LISTED_SECONDS

_UNSURE = "unsure"


class Recall:
    """Finds rows, in the bucket too while that is unsure."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._environment = ground.environment

    async def here(self, digest: Digest) -> Row:
        """A blob's row. Raises NotFound, and Unavailable if only the bucket could say."""
        if (row := self._ground.row(digest)) is None:
            await self.ask(digest)
            if (row := self._ground.row(digest)) is None:
                raise NotFound(f"{digest} is not here")
        return row

    async def ask(self, digest: Digest) -> None:
        """Adopt an object that the catalogue lacks, if that may be for the listing's sake.

        Its content is verified when it is read, as that of those in the listing.
        """
        with self._environment.snapshot() as batch:
            if not catalogue.meta_in(batch, _UNSURE) or catalogue.is_known_in(batch, digest):
                return
        try:
            told = await self._ground.bucket.look(self._ground.path(digest))
        except NotFound:
            return
        row = Row(told.size, self._ground.now(), "", 0)

        def change(batch: WriteBatch) -> None:
            if not catalogue.is_known_in(batch, digest):
                catalogue.put_in(batch, digest, row, None, None)

        await self._environment.write(change)

    async def made(self) -> None:
        """The catalogue was just made from a listing."""
        await self._set(str(self._ground.now()))

    async def compared(self, began: int) -> None:
        """A comparison with a listing that began then is complete."""
        with self._environment.snapshot() as batch:
            since = catalogue.meta_in(batch, _UNSURE)
        if since and began >= int(since) + CLOUD_LISTED_SECONDS * 1000:
            await self._set("")

    async def _set(self, value: str) -> None:
        await self._environment.write(lambda batch: catalogue.set_meta_in(batch, _UNSURE, value))
