"""Blobs that may be cached here and are not counted (evicting.py): they are entered, or dropped.

Some lost the record that needed them here. Others had no room when the record came that made them
cached, and could not be dropped either: the upstream was not found to have them (checked_eviction.py),
so they may be the only copy. A record is not kept out for that, as all that comes after it in a feed
would be kept out too. They are tried again, until the upstream can't be asked about one: then it is
likely that it can't be about the others, and it is left in peace for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container
from itertools import islice

from tierce.core.digest import Digest
from tierce.names.cached import CacheRows, Evicted, Look, Standing
from tierce.names.store import ObjectStore

LOOK_COUNT = 500
REST_SECONDS = 10.0


class Uncounted:
    """``see_to`` enters or drops a blob of so many bytes, and tells what became of it.

    It is told whether others may be dropped for it. Records of ``merging`` are not in the index yet.
    """

    def __init__(
        self,
        objects: ObjectStore,
        rows: CacheRows,
        merging: Container[Digest],
        see_to: Callable[[Digest, int, bool], Awaitable[None]],
    ) -> None:
        self._objects = objects
        self._rows = rows
        self._merging = merging
        self._see_to = see_to
        self._undropped: dict[Digest, int] = {}
        self._rests_until = 0.0

    @property
    def undropped(self) -> dict[Digest, int]:
        """What could not be dropped, with its size in bytes."""
        return dict(self._undropped)

    def note(self, digest: Digest, found: Look | Evicted) -> None:
        """What became of one that has no room and was to be dropped. Under the cache's lock."""
        self.counted(digest)  # those that were tried last come last
        if found.standing is Standing.SHARED and found.size:
            self._undropped[digest] = found.size

    def counted(self, digest: Digest) -> None:
        """This has room now."""
        self._undropped.pop(digest, None)

    async def forget(self) -> None:
        """Forget what is not cached any more, or was not after all. Under the cache's lock."""
        some = list(islice(self._undropped, LOOK_COUNT))
        for digest, found in zip(some, await self._objects.look(some) if some else [], strict=True):
            if found.standing is not Standing.CACHED and digest not in self._merging:
                del self._undropped[digest]

    async def look(self) -> None:
        """See to what lost a record, and again to what could not be dropped."""
        watched = await self._rows.watched(LOOK_COUNT)
        looks = await self._objects.look(watched) if watched else []
        for digest, found in zip(watched, looks, strict=True):
            if found.standing is Standing.CACHED:
                await self._see_to(digest, found.size, True)
        if watched:
            await self._rows.unwatch(watched)
        await self._try_again()

    async def _try_again(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._rests_until:
            return
        for digest, size in list(islice(self._undropped.items(), LOOK_COUNT)):
            if digest in self._merging:
                continue
            await self._see_to(digest, size, False)
            if digest in self._undropped:
                self._rests_until = now + REST_SECONDS
                return
