"""The near-cache as its door sees it: levels that rise, what is known, and what was deleted."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.object_bench import Bench, content_of, level_record, on_bench

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, NotFound, ReadOnly, TooLarge
from tierce.core.limits import BLOB_LIMIT_BYTES, METADATA_BYTES
from tierce.names.record import FULL, LOCAL, UPSTREAM, Record
from tierce.service.blobs import Blobs
from tierce.service.levels import Levels
from tierce.service.near_cache import Deleted, Kept

DATA = b"content"
DIGEST = Digest.of(DATA)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


class Service:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        blobs = Blobs(bench.store, bench.spools, bench.room, bench.blobs)
        self.levels = Levels(blobs, bench.levels)

    async def put(self, level: int, *data: bytes, key: str = "id", **fields: Any) -> Kept:
        draft = Record(bucket="", key=key, level=level, **fields)
        return await self.levels.put(draft, pieces(*data))


def on_service(directory: Path, test: Callable[[Service], Awaitable[None]]) -> None:
    async def check(bench: Bench) -> None:
        await test(Service(bench))

    on_bench(directory, check)


@pytest.mark.parametrize("level", [LOCAL, UPSTREAM, FULL])
def test_what_was_put_is_known_and_opened(tmp_path: Path, level: int) -> None:
    async def check(service: Service) -> None:
        kept = await service.put(level, b"con", b"tent", name="n")
        assert (kept.record.digest, kept.record.level, kept.is_queued) == (DIGEST, level, False)
        known = await service.levels.know("id")
        assert known == (kept.record, False)
        found = await service.levels.open("id", fetch=False)
        assert found.record == kept.record
        assert not found.is_symlink
        assert await content_of(found.blob) == DATA

    on_service(tmp_path, check)


# The level before, the level of an empty body: whether it raises the level.
RISES = [
    (LOCAL, UPSTREAM, True),
    (LOCAL, FULL, True),
    (UPSTREAM, FULL, True),
    (LOCAL, LOCAL, False),
    (UPSTREAM, UPSTREAM, False),
    (FULL, UPSTREAM, False),
    (UPSTREAM, LOCAL, False),
]


@pytest.mark.parametrize(("before", "after", "rises"), RISES)
def test_an_empty_body_raises_a_level_or_changes_nothing_however_often_it_is_sent(
    tmp_path: Path, before: int, after: int, rises: bool
) -> None:
    async def check(service: Service) -> None:
        await service.put(before, DATA, name="n")
        for _ in range(2):
            kept = await service.put(after)
            assert kept.record.level == (after if rises else before)
            assert kept.record.digest == DIGEST
            assert kept.record.name == "n"

    on_service(tmp_path, check)


def test_an_empty_body_for_what_was_never_there_or_is_deleted_is_an_empty_object(
    tmp_path: Path,
) -> None:
    async def check(service: Service) -> None:
        assert (await service.put(UPSTREAM)).record.size == 0
        await service.put(LOCAL, DATA)
        await service.levels.delete("id")
        assert (await service.put(FULL)).record.digest == Digest.of(b"")

    on_service(tmp_path, check)


def test_what_another_node_has_is_a_symlink(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        service.bench.peers.put(DATA, "b")
        record = level_record(DATA, LOCAL)
        await service.bench.index.merge([record])
        assert await service.levels.know("id") == (record, True)
        found = await service.levels.open("id", fetch=True)
        assert (found.is_symlink, found.is_fetched) == (True, False)
        assert await content_of(found.blob) == DATA

    on_service(tmp_path, check)


def test_what_is_unknown_is_fetched_only_if_that_is_asked_for(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        service.bench.upstream.put_foreign("id", DATA, {}, 1)
        with pytest.raises(NotFound):
            await service.levels.open("id", fetch=False)
        with pytest.raises(NotFound):
            await service.levels.know("id")
        with pytest.raises(NotFound):
            await service.levels.delete("id")
        found = await service.levels.open("id", fetch=True)
        assert found.is_fetched
        assert await content_of(found.blob) == DATA

    on_service(tmp_path, check)


def test_what_was_deleted_is_never_fetched_and_its_tombstone_is_told(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.put(FULL, DATA, name="n")
        gone = await service.levels.delete("id")
        assert (gone.deleted, gone.name) == (True, "n")
        for fetch in (False, True):
            with pytest.raises(Deleted) as caught:
                await service.levels.open("id", fetch=fetch)
            assert caught.value.record == gone
        assert await service.levels.know("id") == (gone, False)
        assert (await service.levels.delete("id")).rank > gone.rank

    on_service(tmp_path, check)


def test_bad_drafts_and_nodes_that_take_nothing_are_refused_before_the_body(
    tmp_path: Path,
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        read.append(True)
        yield b""

    read: list[bool] = []

    async def check(service: Service) -> None:
        levels = service.levels
        with pytest.raises(BadRequest):
            await levels.put(Record(bucket="", key="", level=LOCAL), unread())
        metadata = {"k": "v" * METADATA_BYTES}
        draft = Record(bucket="", key="id", level=LOCAL)
        with pytest.raises(TooLarge):
            await levels.put(Record(bucket="", key="id", metadata=metadata), unread())
        with pytest.raises(TooLarge):
            await levels.put(draft, unread(), announced_bytes=BLOB_LIMIT_BYTES + 1)
        service.bench.room._read_only = True
        with pytest.raises(ReadOnly):
            await levels.put(draft, unread())
        assert not read
        assert service.bench.known() is None

    on_service(tmp_path, check)
