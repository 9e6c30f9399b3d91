"""The read cache of a store in the cloud, where the disk is full, slow, broken or gone: it gives way."""

from pathlib import Path
from typing import NoReturn

import pytest
from tests.unit.blobs.caches import (
    BLOCK,
    Caches,
    blob,
    eventually,
    has,
    put,
    settled,
    written,
)

from tierce.blobs import read_cache
from tierce.blobs.cache_shelves import Shelf, name_of
from tierce.blobs.space import Space, SpaceGuard
from tierce.core.limits import STORE_CACHE_MARGIN_BYTES


async def test_a_removed_directory_is_made_again(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_cache, "STORE_CACHE_TEND_SECONDS", 0.01)
    async with caches.opened() as cache:
        await put(cache, 1)
        caches.directory.rename(caches.directory.with_name("elsewhere"))
        assert not await has(cache, 1)
        await eventually(lambda: written(cache, 1))
        assert cache.status()["bytes"] == BLOCK


async def test_a_disk_that_does_not_take_it_is_tried_again(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(read_cache, "STORE_CACHE_TEND_SECONDS", 0.01)

    def fail(*arguments: object) -> NoReturn:
        raise OSError(30, "Read-only file system")

    async with caches.opened() as cache:
        await put(cache, 1)
        with monkeypatch.context() as broken:
            broken.setattr(Shelf, "write", fail)
            broken.setattr(Shelf, "take", fail)
            await put(cache, 2)
            assert await has(cache, 1)
            await cache.drop([blob(1)[0]])
        assert "Read-only file system" in caplog.text
        await eventually(lambda: written(cache, 3))
        assert cache.status()["bytes"] == caches.taken_bytes()


async def test_where_no_directory_can_be_made_reads_are_misses(caches: Caches) -> None:
    caches.directory.write_bytes(b"")
    async with caches.opened() as cache:
        assert not await has(cache, 1)
        await put(cache, 1)
        await cache.drop([blob(1)[0]])
        assert not await has(cache, 1)
        assert cache.status()["bytes"] == 0


class FakeSpace(SpaceGuard):
    """A disk whose free room a test sets."""

    free = 1 << 40

    def look(self) -> Space:
        return Space(1 << 41, self.free, 1000)


async def test_on_a_disk_that_fills_up_the_cache_gives_way(caches: Caches, tmp_path: Path) -> None:
    space = FakeSpace(tmp_path)
    async with caches.opened(space=space) as cache:
        for number in range(10):
            await put(cache, number)
        space.free = 1000 + STORE_CACHE_MARGIN_BYTES - 3 * BLOCK
        await put(cache, 20)
        assert caches.taken_bytes() <= 7 * BLOCK
        assert not await has(cache, 20)
        space.free = 0
        await put(cache, 21)
        assert caches.files() == []
        space.free = 1 << 40
        await put(cache, 22)
        assert await has(cache, 22)


async def test_it_gives_way_even_if_nothing_is_read(
    caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_cache, "STORE_CACHE_TEND_SECONDS", 0.01)
    space = FakeSpace(tmp_path)
    async with caches.opened(space=space) as cache:
        await put(cache, 1)
        space.free = 0

        async def is_empty() -> bool:
            return not caches.files()

        await eventually(is_empty)


async def test_a_read_only_node_caches_nothing_more(caches: Caches, tmp_path: Path) -> None:
    async with caches.opened() as cache:
        await put(cache, 1)
    space = SpaceGuard(tmp_path, reserve_bytes=0, read_only=True)
    async with caches.opened(space=space) as cache:
        await put(cache, 2)
        assert [await has(cache, number) for number in (1, 2)] == [True, False]


async def test_more_than_the_disk_can_take_is_left_out(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_cache, "STORE_CACHE_WAITING_BYTES", 250)
    async with caches.opened() as cache:
        for number in range(5):
            digest, data = blob(number)
            cache.put(name_of(digest), data, lambda: True)  # nothing is written meanwhile
        await settled(cache)
        assert [await has(cache, number) for number in range(5)] == [True, True] + [False] * 3
        await put(cache, 4)
        assert await has(cache, 4)
