"""Reading from the cloud through the read cache, and once for all who ask at the same time.

What of a large blob is cached are the pieces that readers asked for: runs of whole chunks, at most a
range, and never across a border of ranges. So whoever reads all of it gets the same pieces each time,
and who reads its last bytes again and again gets the piece with these, and nobody has to wait for bytes
that he did not ask for. A piece is shared and cached only once it was checked against checksums.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tierce.blobs.cache_shelves import Place, name_of
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_reading import Object, Room
from tierce.blobs.flights import Flights
from tierce.blobs.read_cache import ReadCache
from tierce.cloud.pacing import is_background
from tierce.core.digest import Digest
from tierce.core.limits import CHUNK_BYTES, PACK_LIMIT_BYTES

T = TypeVar("T")


class CachedReading:
    """Reads through ``cache``, if there is one. ``is_here`` tells whether the catalogue has a blob."""

    def __init__(self, cache: ReadCache | None, is_here: Callable[[Digest], bool]) -> None:
        self._cache = cache
        self._is_here = is_here
        self.room = Room()
        # What clients ask for is not shared with what is asked in the background: that may wait long.
        self._small: Flights[tuple[Digest, Row, bool], bytes | None] = Flights()
        self._pieces: Flights[tuple[Digest, int, int, bytes, bool], bytes] = Flights()

    async def small(
        self, digest: Digest, row: Row, ask: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None:
        """A small blob. ``ask`` gets its verified bytes from the service, or None."""
        place, key = Place(name_of(digest)), (digest, row, is_background())
        if self._cache is None or row.size > PACK_LIMIT_BYTES:
            return await self._small.share(
                key, lambda: self._through(digest, [place], digest.fits, ask)
            )
        data = self._cache.get_now(place, digest.fits)
        if data is not None:
            return data
        return await self._small.share(key, lambda: self._asked(digest, place.name, ask))

    async def piece(self, found: Object, start: int, stop: int) -> bytes:
        """A piece of a large blob, as Object.read gives it."""
        start, stop = found.cut(start, stop)
        sums = found.sums_of(start, stop)
        if sums is None:
            return await found.read(start, stop)
        return await self._pieces.share(
            (found.digest, start, stop, sums, is_background()),
            lambda: self._piece(found, start, stop),
        )

    async def _piece(self, found: Object, start: int, stop: int) -> bytes:
        begin, end = found.range_of(start)
        places = [Place(_piece_name(found.digest, start, stop), 0, stop - start)]
        if (start, stop) != (begin, end):
            places.append(Place(_piece_name(found.digest, begin, end), start - begin, stop - start))
        return await self._through(
            found.digest,
            places,
            lambda data: len(data) == stop - start and found.fits(data, start),
            lambda: found.read(start, stop),
        )

    async def _through(
        self,
        digest: Digest,
        places: list[Place],
        fits: Callable[[bytes], bool],
        ask: Callable[[], Awaitable[T]],
    ) -> bytes | T:
        """From the cache, or else from the service, to be cached at the first of the places."""
        if self._cache is not None and (data := await self._cache.get(places, fits)) is not None:
            return data
        return await self._asked(digest, places[0].name, ask)

    async def _asked(self, digest: Digest, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        """From the service, to be cached."""
        asked = await ask()
        if isinstance(asked, bytes) and self._cache is not None:
            self._cache.put(name, asked, lambda: self._is_here(digest))
        return asked


def _piece_name(digest: Digest, start: int, stop: int) -> str:
    return f"{name_of(digest)}/{start // CHUNK_BYTES}-{-(-stop // CHUNK_BYTES)}"
