"""A read cache for tests, as the processes of a node have it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from tierce.blobs import cache_shelves
from tierce.blobs.cache_shelves import Place, name_of, room_of
from tierce.blobs.read_cache import Book, CachePlan, ReadCache
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.core.limits import STORE_CACHE_BLOCK_BYTES
from tierce.testing.blob_contract import body
from tierce.upstream.eviction import S3Fifo

BLOCK = STORE_CACHE_BLOCK_BYTES
LIMIT_BYTES = 10 * BLOCK


class Caches:
    """The caches of a node's processes, over one directory."""

    def __init__(self, root: Path, pool: Executor) -> None:
        self.directory = root / "cache"
        self.space = SpaceGuard(root, reserve_bytes=0)
        self._pool = pool

    @contextlib.asynccontextmanager
    async def opened(
        self,
        *,
        shelves: int = 2,
        limit_bytes: int = LIMIT_BYTES,
        make_book: Callable[[], Book] | None = None,
        space: SpaceGuard | None = None,
    ) -> AsyncIterator[ReadCache]:
        plan = CachePlan(shelves, make_book or (lambda: S3Fifo(limit_bytes)))
        cache = ReadCache(self.directory, plan, space or self.space, self._pool)
        try:
            await settled(cache)
            yield cache
        finally:
            await cache.aclose()

    def files(self) -> list[Path]:
        return [
            each
            for each in self.directory.rglob("*")
            if each.is_file() and each.name != cache_shelves.LOCK
        ]

    def taken_bytes(self) -> int:
        total = 0
        for each in self.files():
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                total += room_of(each.stat().st_size)
        return total


async def settled(cache: ReadCache) -> None:
    """Wait until the cache has nothing more to do."""
    async with asyncio.timeout(5):
        while not cache.is_idle:
            await asyncio.sleep(0)


def blob(number: int, size: int = 100) -> tuple[Digest, bytes]:
    data = body(size, seed=number)
    return Digest.of(data), data


async def put(
    cache: ReadCache, number: int, *, size: int = 100, is_wanted: Callable[[], bool] = lambda: True
) -> None:
    digest, data = blob(number, size)
    cache.put(name_of(digest), data, is_wanted)
    await settled(cache)


async def has(cache: ReadCache, number: int, size: int = 100) -> bool:
    digest, data = blob(number, size)
    found = await cache.get([Place(name_of(digest))], digest.fits)
    assert found in (None, data)
    return found is not None


async def written(cache: ReadCache, number: int) -> bool:
    await put(cache, number)
    return await has(cache, number)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await check():
            await asyncio.sleep(0.005)
