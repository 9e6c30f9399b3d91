"""The read cache of a store in the cloud: shared by processes, bounded, and never believed."""

import asyncio
import random

import pytest
from tests.unit.blobs.caches import (
    BLOCK,
    LIMIT_BYTES,
    Caches,
    blob,
    eventually,
    has,
    put,
    settled,
    written,
)

from tierce.blobs import cache_shelves, read_cache
from tierce.blobs.cache_shelves import Place, Shelf, name_of
from tierce.blobs.read_cache import ReadCache
from tierce.upstream.eviction import S3Fifo


async def test_what_one_process_has_cached_all_read(caches: Caches) -> None:
    async with caches.opened() as one, caches.opened() as other:
        assert not await has(one, 1)
        await put(one, 1)
        assert await has(one, 1)
        assert await has(other, 1)
        assert (one.hits, one.misses, other.hits) == (1, 1, 1)


async def test_what_another_process_has_cached_is_not_cached_again(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with caches.opened() as one, caches.opened() as other:
        await put(one, 1)
        with monkeypatch.context() as patched:
            patched.delattr(Shelf, "write")
            await put(other, 1)
        assert len(caches.files()) == 1
        await put(one, 2)
        await put(other, 3)
        assert len(caches.files()) == 3


async def test_of_two_that_cache_a_blob_at_once_at_most_one_counts_it(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with caches.opened() as one, caches.opened() as other:
        real = Shelf.write

        def write(self: Shelf, name: str, data: bytes) -> bool:
            (caches.directory / "1" / name).write_bytes(data)  # the other one is as far
            return real(self, name, data)

        with monkeypatch.context() as patched:
            patched.setattr(Shelf, "write", write)
            await put(one, 1)
        assert [each.parent.name for each in caches.files()] == ["1"]
        assert one.status()["bytes"] == 0
        await other.drop([blob(1)[0]])
        assert caches.files() == []
        await put(one, 1)
        assert one.status()["bytes"] == BLOCK


@pytest.mark.parametrize("left", [b"wrong", b"", None])
async def test_a_damaged_file_is_not_served_and_goes(caches: Caches, left: bytes | None) -> None:
    async with caches.opened() as one, caches.opened() as other:
        await put(one, 1)
        (file,) = caches.files()
        file.unlink()
        if left is not None:
            file.write_bytes(left)
        assert not await has(other, 1)
        assert caches.files() == []
        await put(one, 1)
        assert await has(one, 1)
        await put(one, 2)
        assert one.status()["bytes"] == 2 * BLOCK


async def test_what_is_dropped_is_gone_for_all(caches: Caches) -> None:
    async with caches.opened() as one, caches.opened() as other:
        for number in range(3):
            await put(one, number)
        one.put(name_of(blob(3)[0]) + "/0-1", b"piece", lambda: True)
        await settled(one)
        await other.drop([blob(0)[0], blob(3)[0]])
        await one.drop([blob(1)[0]])
        assert [await has(one, number) for number in range(3)] == [False, False, True]
        assert [each.name for each in caches.files()] == [name_of(blob(2)[0])]


async def test_the_room_of_what_is_dropped_is_free(caches: Caches) -> None:
    async with caches.opened() as cache:
        for number in range(3):
            await put(cache, number)
        cache.put(name_of(blob(3)[0]) + "/0-1", b"piece", lambda: True)
        await settled(cache)
        await cache.drop([blob(0)[0], blob(3)[0]])
        await put(cache, 4)
        assert cache.status()["bytes"] == 3 * BLOCK


async def test_a_blob_that_is_deleted_while_it_is_cached_goes_again(caches: Caches) -> None:
    async with caches.opened() as cache:
        await put(cache, 1, is_wanted=lambda: False)
        assert caches.files() == []
        await put(cache, 2)
        assert cache.status()["bytes"] == BLOCK


async def test_small_files_count_as_what_they_take_on_the_disk(caches: Caches) -> None:
    async with caches.opened() as cache:
        for number in range(30):
            await put(cache, number)
            assert caches.taken_bytes() <= LIMIT_BYTES
        assert len(caches.files()) == 10


async def test_a_victim_that_another_process_has_used_stays(caches: Caches) -> None:
    async with caches.opened() as one, caches.opened() as other:
        await put(one, 0)
        assert await has(other, 0)
        for number in range(1, 12):
            await put(one, number)
        assert await has(one, 0)
        assert not await has(one, 1)
        for number in range(20, 60):
            await put(one, number)
            assert caches.taken_bytes() <= LIMIT_BYTES
        assert await has(other, 0)  # in the main queue, where one-hit wonders don't get


class Listening(S3Fifo[str]):
    """A book that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(LIMIT_BYTES)
        self.touched: list[str] = []

    def touch(self, key: str) -> None:
        self.touched.append(key)
        super().touch(key)


async def test_a_book_hears_of_its_own_hits_at_once_and_of_others_when_it_asks(
    caches: Caches,
) -> None:
    books: list[Listening] = []

    def make_book() -> Listening:
        books.append(Listening())
        return books[-1]

    async with (
        caches.opened(make_book=make_book) as one,
        caches.opened(shelves=2) as other,
    ):
        await put(one, 0)
        await put(one, 1)
        assert await has(one, 0)
        assert await has(other, 1)
        assert books[0].touched == [name_of(blob(0)[0])]
        for number in range(2, 12):
            await put(one, number)
        assert name_of(blob(1)[0]) in books[0].touched


async def test_files_that_are_always_used_go_all_the_same(caches: Caches) -> None:
    async with caches.opened() as one, caches.opened() as other:
        for number in range(15):
            await put(one, number)
            for each in range(number + 1):
                await has(other, each)
            assert caches.taken_bytes() <= LIMIT_BYTES


async def test_a_scan_leaves_alone_what_is_read_often(caches: Caches) -> None:
    async with caches.opened(limit_bytes=100 * BLOCK) as cache:
        for number in range(20):
            await put(cache, number)
            for _ in range(2):
                assert await has(cache, number)
        for number in range(1000, 1100):
            await put(cache, number, size=10 * BLOCK)
        assert all([await has(cache, number) for number in range(20)])


async def test_what_would_take_much_of_the_cache_is_not_cached(caches: Caches) -> None:
    async with caches.opened() as cache:
        await put(cache, 1, size=2 * BLOCK)
        await put(cache, 2, size=3 * BLOCK)
        await put(cache, 3, size=0)
        assert len(caches.files()) == 1


async def test_it_outlives_its_process_and_keeps_what_was_used_last(caches: Caches) -> None:
    async with caches.opened() as one, caches.opened() as other:
        for number in range(10):
            await put(one, number)
            await asyncio.sleep(0.001)  # times of files are not finer than a clock's tick
        assert await has(other, 0)
    async with caches.opened() as cache:
        assert len(caches.files()) == 10
        assert cache.status()["bytes"] == LIMIT_BYTES
    async with caches.opened(limit_bytes=3 * BLOCK) as cache:
        assert [number for number in range(10) if await has(cache, number)] == [0, 8, 9]


async def test_a_scan_after_a_restart_leaves_alone_what_was_read_often(caches: Caches) -> None:
    async with caches.opened(limit_bytes=100 * BLOCK) as cache:
        for number in range(20):
            await put(cache, number)
            assert await has(cache, number)
    async with caches.opened(limit_bytes=100 * BLOCK) as cache:
        for number in range(1000, 1100):
            await put(cache, number, size=10 * BLOCK)
        assert all([await has(cache, number) for number in range(20)])


async def test_what_a_process_left_that_died_is_taken_over(caches: Caches) -> None:
    directory = caches.directory / "0"
    (directory / "blake3-aa").mkdir(parents=True)
    (directory / "blake3-aa" / "0-1").write_bytes(b"1")
    (directory / "blake3-bb").write_bytes(b"2")
    (directory / "blake3-cc").mkdir()
    (directory / cache_shelves.INCOMING).write_bytes(b"half")
    async with caches.opened() as cache:
        assert {each.name for each in caches.files()} == {"0-1", "blake3-bb"}
        assert not (directory / "blake3-cc").exists()
        assert cache.status()["bytes"] == 2 * BLOCK


async def test_without_a_shelf_it_reads_and_takes_one_that_becomes_free(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_cache, "STORE_CACHE_TEND_SECONDS", 0.01)
    async with caches.opened(shelves=1) as one:
        await put(one, 1)
        async with caches.opened(shelves=1) as other:
            assert await has(other, 1)
            await put(other, 2)
            assert len(caches.files()) == 1
            await one.aclose()
            await eventually(lambda: written(other, 2))


async def test_a_part_of_a_file_is_read(caches: Caches) -> None:
    async with caches.opened() as cache:
        cache.put("blake3-aa/0-2", b"0123456789", lambda: True)
        await settled(cache)
        places = [Place("blake3-aa/1-2", 0, 3), Place("blake3-aa/0-2", 4, 3)]
        assert await cache.get(places, lambda data: data == b"456") == b"456"


async def test_the_status_is_that_of_all_processes(caches: Caches) -> None:
    async with caches.opened() as one, caches.opened() as other:
        await put(one, 1)
        assert await has(one, 1)
        assert not await has(other, 2)
        await put(other, 2)
        await put(one, 3)  # what was counted is told then
        assert one.status() == other.status()
        assert one.status() == {
            "hits": 1,
            "misses": 1,
            "bytes": 3 * BLOCK,
            "limit_bytes": 2 * LIMIT_BYTES,
        }
        (caches.directory / "0" / cache_shelves.LOCK).write_bytes(b"nonsense")
        assert one.status()["bytes"] == BLOCK


async def test_hits_are_told_without_anything_being_cached(caches: Caches) -> None:
    async with caches.opened() as cache:
        await put(cache, 1)
        assert await has(cache, 1)
        await settled(cache)
        assert cache.status()["hits"] == 1


@pytest.mark.parametrize("seed", range(4))
async def test_two_processes_never_serve_wrong_bytes_and_keep_the_bound(
    caches: Caches, seed: int
) -> None:
    generator = random.Random(seed)
    async with caches.opened() as one, caches.opened() as other:
        here: set[int] = set()

        async def act(cache: ReadCache) -> None:
            number = int(30 * generator.random() ** 2)
            size = (100, 5000, 2 * BLOCK)[number % 3]
            what = generator.random()
            if what < 0.6:
                here.add(number)
                if not await has(cache, number, size):
                    digest, data = blob(number, size)
                    cache.put(name_of(digest), data, lambda: number in here)
            elif what < 0.7:
                here.discard(number)
                await cache.drop([blob(number, size)[0]])
            elif what < 0.8 and (files := caches.files()):
                generator.choice(files).write_bytes(b"damaged")

        for _ in range(60):
            await asyncio.gather(*(act(cache) for cache in (one, other, one, other)))
            assert caches.taken_bytes() <= 2 * LIMIT_BYTES + 2 * 2 * BLOCK
        await settled(one)
        await settled(other)
        assert caches.taken_bytes() <= one.status()["bytes"] <= 2 * LIMIT_BYTES
        names = [each.name for each in caches.files()]
        assert len(names) == len(set(names))
        wanted = {name_of(blob(n, (100, 5000, 2 * BLOCK)[n % 3])[0]) for n in here}
        assert set(names) <= wanted
