"""Before something is dropped from the cache the upstream is asked, and gets what it lacks."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.node.fakes import FakeObjects, left_running
from tests.unit.node.object_bench import STARTED, Bench, level_record, on_bench

from tierce.blobs.memory import MemoryStore
from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.names.cached import Evicted, Look, Standing, standing_of
from tierce.names.memory import MemoryIndex
from tierce.names.record import LOCAL, NO_LEVEL, UPSTREAM, Record, merge
from tierce.node.checked_eviction import CheckedObjects
from tierce.testing.upstream_contract import BytesSource

DATA = b"content"
DIGEST = Digest.of(DATA)
SAFE = level_record(DATA, UPSTREAM, is_upstream=True)
OLDER = level_record(b"older", UPSTREAM, is_upstream=True, timestamp=STARTED - 1)
NEWER = level_record(b"newer", UPSTREAM, is_upstream=True, timestamp=STARTED + 1)


class CachingObjects(FakeObjects):
    """Blobs and records together that drop what is cached, as those on a disk."""

    def __init__(self, store: MemoryStore, index: MemoryIndex) -> None:
        super().__init__(store, index)
        self.blobs = store
        self.index = index

    async def look(self, digests: Sequence[Digest]) -> list[Look]:
        return [self._look(digest, ()) for digest in digests]

    async def evict(self, digest: Digest, heard: Sequence[Record] = ()) -> Evicted:
        found = self._look(digest, heard)
        is_dropped = found.standing is Standing.CACHED
        if is_dropped:
            await self.blobs.delete(digest)
        return Evicted(*found, is_dropped=is_dropped)

    def _look(self, digest: Digest, heard: Sequence[Record]) -> Look:
        if digest not in self.blobs.blobs:
            return Look(Standing.ABSENT, 0)
        records = {(each.bucket, each.key): each for each in self.index.refers(digest)}
        for each in heard:
            name = each.bucket, each.key
            records[name] = merge(self.index.get(*name), each)
        referring = [each for each in records.values() if each.digest == digest]
        standing = standing_of(digest in self.blobs.marks, referring)
        return Look(standing, len(self.blobs.blobs[digest]))


class Cache:
    """Node a, whose near-cache holds DATA, and nothing is in the upstream yet."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.upstream = bench.upstream
        self.objects = CachingObjects(bench.store, bench.index)
        self.checked = CheckedObjects(self.objects, bench.store, bench.index, bench.upstream)
        bench.store.blobs[DIGEST] = DATA
        bench.store.marks.add(DIGEST)

    @property
    def is_here(self) -> bool:
        return DIGEST in self.bench.store.blobs

    async def know(self, *records: Record) -> None:
        await self.bench.index.merge(records)

    async def upload(self, data: bytes, record: Record) -> None:
        await self.upstream.upload(record, BytesSource(data))
        self.upstream.uploads = 0

    async def evict(self, *heard: Record) -> Evicted:
        evicted = await self.checked.evict(DIGEST, heard)
        assert evicted.is_dropped is not self.is_here
        return evicted

    async def mended(self, count: int = 1) -> None:
        async with asyncio.timeout(60):
            while self.checked.mended < count:
                await asyncio.sleep(0.01)


STAYS = Evicted(Standing.SHARED, len(DATA), is_dropped=False)


def with_cache(directory: Path, test: Callable[[Cache], Awaitable[None]]) -> None:
    async def check(bench: Bench) -> None:
        cache = Cache(bench)
        try:
            await test(cache)
        finally:
            await cache.checked.close()

    on_bench(directory, check)


# Dropping


def test_what_the_upstream_has_is_dropped(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        await cache.know(SAFE)
        await cache.upload(DATA, SAFE)
        assert await cache.evict() == Evicted(Standing.CACHED, len(DATA), is_dropped=True)
        assert cache.upstream.uploads == cache.checked.mended == 0

    with_cache(tmp_path, check)


@pytest.mark.parametrize("there", ["nothing", "older"])
def test_what_the_upstream_lacks_stays_gets_there_and_goes_later(
    tmp_path: Path, there: str
) -> None:
    async def check(cache: Cache) -> None:
        await cache.know(SAFE)
        if there == "older":
            await cache.upload(b"older", OLDER)
        assert await cache.evict() == STAYS
        await cache.mended()
        assert cache.upstream.objects["id"][1] == DATA
        assert (await cache.evict()).is_dropped
        assert cache.upstream.uploads == 1

    with_cache(tmp_path, check)


@pytest.mark.parametrize(("data", "expected"), [(b"CONTENT", True), (b"contents", False)])
def test_of_another_programs_object_the_size_must_do(
    tmp_path: Path, data: bytes, expected: bool
) -> None:
    async def check(cache: Cache) -> None:
        await cache.know(SAFE)
        cache.upstream.put_foreign("id", data, {}, STARTED)
        assert (await cache.evict()).is_dropped is expected

    with_cache(tmp_path, check)


def test_a_newer_content_in_the_upstream_is_not_overwritten(tmp_path: Path) -> None:
    """Its record is on the way here: another node put it there a moment ago."""

    async def check(cache: Cache) -> None:
        await cache.know(SAFE)
        await cache.upload(b"newer", NEWER)
        assert await cache.evict() == STAYS
        assert await left_running() == []
        assert cache.upstream.objects["id"][1] == b"newer"

    with_cache(tmp_path, check)


def test_victims_of_one_content_are_uploaded_once(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        cache.upstream.seconds = 5.0
        started: list[str] = []
        upload = cache.upstream.upload

        async def noted(record: Record, source: BytesSource) -> None:
            started.append(record.key)
            await upload(record, source)

        cache.upstream.upload = noted  # type: ignore[method-assign, assignment]
        await cache.know(SAFE)
        assert set(await asyncio.gather(cache.evict(), cache.evict())) == {STAYS}
        await cache.mended()
        assert started == ["id"]

    with_cache(tmp_path, check)


def test_all_names_of_a_content_must_be_in_the_upstream(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        other = level_record(DATA, UPSTREAM, key="other", is_upstream=True)
        await cache.know(SAFE, other)
        await cache.upload(DATA, SAFE)
        assert await cache.evict() == STAYS
        await cache.mended()
        assert cache.upstream.objects["other"][1] == DATA
        assert (await cache.evict()).is_dropped

    with_cache(tmp_path, check)


def test_an_upstream_that_is_down_keeps_everything_here_and_fails_nothing(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        await cache.know(SAFE)
        await cache.upload(DATA, SAFE)
        cache.upstream.is_down = True
        assert await cache.evict() == STAYS
        assert await left_running() == []
        cache.upstream.is_down = False
        assert (await cache.evict()).is_dropped

    with_cache(tmp_path, check)


def test_an_upload_that_fails_is_begun_again_at_the_next_try(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        upload = cache.upstream.upload
        tries: list[str] = []

        async def failing_at_first(record: Record, source: BytesSource) -> None:
            tries.append(record.key)
            if len(tries) == 1:
                raise Unavailable("not now")
            await upload(record, source)

        cache.upstream.upload = failing_at_first  # type: ignore[method-assign, assignment]
        await cache.know(SAFE)
        assert await cache.evict() == STAYS
        assert await left_running() == []
        assert cache.checked.mended == 0
        assert await cache.evict() == STAYS
        await cache.mended()
        assert (await cache.evict()).is_dropped

    with_cache(tmp_path, check)


# Records that are just heard of


def test_what_is_heard_is_looked_for_in_the_upstream_too(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        assert await cache.evict(SAFE) == STAYS
        await cache.mended()
        assert (await cache.evict(SAFE)).is_dropped

    with_cache(tmp_path, check)


@pytest.mark.parametrize("level", [NO_LEVEL, LOCAL])
def test_what_is_no_business_of_the_upstream_never_gets_there(tmp_path: Path, level: int) -> None:
    """A content may be that of an object of the ring as well: its key is one of another kind."""

    async def check(cache: Cache) -> None:
        await cache.know(level_record(DATA, level, key="private"))
        await cache.upload(DATA, SAFE)
        assert await cache.evict(SAFE) == STAYS
        assert await left_running() == []
        assert list(cache.upstream.objects) == ["id"]

    with_cache(tmp_path, check)


def test_what_is_heard_too_late_never_gets_to_the_upstream(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        await cache.know(NEWER)
        assert not (await cache.evict(SAFE)).is_dropped
        assert await left_running() == []
        assert cache.upstream.objects == {}

    with_cache(tmp_path, check)


def test_closing_ends_an_upload_under_way(tmp_path: Path) -> None:
    async def check(cache: Cache) -> None:
        upload = cache.upstream.upload

        async def stuck(record: Record, source: BytesSource) -> None:
            await asyncio.Event().wait()
            await upload(record, source)

        cache.upstream.upload = stuck  # type: ignore[method-assign, assignment]
        await cache.know(SAFE)
        await cache.evict()
        assert len(await left_running()) == 1
        await cache.checked.close()
        assert await left_running() == []

    with_cache(tmp_path, check)
