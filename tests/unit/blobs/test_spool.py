"""A spool's content on its way to others: readable early, sent from a file of its own, closed safely."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tierce.blobs.local import Disk, make_directories
from tierce.blobs.space import Space, SpaceGuard
from tierce.blobs.spool import SpoolSource, read_at
from tierce.core.errors import Corrupt, Full, ReadOnly, Unavailable
from tierce.core.limits import CHUNK_BYTES, GIB, PIECE_BYTES
from tierce.testing.blob_contract import body

SIZE = 3 * PIECE_BYTES + 7


class Room(SpaceGuard):
    """Room for everything, or for nothing."""

    is_full = False

    def look(self) -> Space:
        return Space(total=GIB, free=0 if self.is_full else GIB, reserve=0)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    make_directories(tmp_path)
    made = Disk(tmp_path, space=Room(tmp_path))
    yield made
    await made.close()


async def collected(source: SpoolSource) -> bytes:
    return b"".join([piece async for piece in source.stream()])


async def test_a_source_in_memory_gives_its_bytes(disk: Disk) -> None:
    async with disk.spooler.holding(b"small", "blake3") as spool:
        source = SpoolSource(spool)
        assert (source.size, source.data, source.digest) == (5, b"small", spool.digest)
        assert await collected(source) == b"small"
        source.close()


@pytest.mark.parametrize("size", [CHUNK_BYTES, PIECE_BYTES, SIZE])
async def test_a_source_in_a_file_gives_the_body_without_its_checksums(
    disk: Disk, size: int
) -> None:
    async with disk.spooler.holding(body(size), "blake3") as spool:
        assert spool.path is not None
        source = SpoolSource(spool)
        assert (source.size, source.data) == (size, None)
        assert await collected(source) == body(size)
        source.close()


async def test_several_may_read_a_source_at_a_time(disk: Disk) -> None:
    async with disk.spooler.holding(body(SIZE), "blake3") as spool:
        source = SpoolSource(spool)
        assert await asyncio.gather(*(collected(source) for _ in range(4))) == [body(SIZE)] * 4
        source.close()


@pytest.mark.parametrize("how", ["discarded", "stored"])
async def test_a_source_outlives_its_spool(disk: Disk, how: str) -> None:
    async with disk.spooler.holding(body(SIZE), "blake3") as spool:
        source = SpoolSource(spool)
        if how == "stored":
            await disk.store.put(spool)
    assert await collected(source) == body(SIZE)
    source.close()


async def test_a_closed_source_holds_no_file(disk: Disk) -> None:
    async with disk.spooler.holding(body(SIZE), "blake3") as spool:
        before = len(os.listdir("/proc/self/fd"))
        source = SpoolSource(spool)
        assert len(os.listdir("/proc/self/fd")) == before + 1
        source.close()
        source.close()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_source_must_not_be_closed_while_it_is_read(disk: Disk) -> None:
    async with disk.spooler.holding(body(SIZE), "blake3") as spool:
        source = SpoolSource(spool)
        stream = source.stream()
        await anext(stream)
        with pytest.raises(AssertionError, match="while it was read"):
            source.close()
        await stream.aclose()
        source.close()


async def test_a_source_whose_file_is_gone_is_unavailable(disk: Disk) -> None:
    async with disk.spooler.holding(body(SIZE), "blake3") as spool:
        assert spool.path is not None
        spool.path.unlink()
        with pytest.raises(Unavailable, match="sending a body"):
            SpoolSource(spool)


async def test_the_readable_bytes_grow_and_are_the_bodys(disk: Disk) -> None:
    spool = disk.spooler.new("blake3", memory_limit_bytes=-1)
    seen = []
    for start in range(0, SIZE, 100_000):
        await spool.write(body(SIZE)[start : start + 100_000])
        readable = spool.readable_bytes
        seen.append(readable)
        assert spool.path is not None
        assert spool.path.read_bytes()[:readable] == body(SIZE)[:readable]
        assert readable <= spool.size
    assert seen == sorted(seen)
    assert seen[-1] > 0
    await spool.finish()
    assert spool.readable_bytes == SIZE
    await spool.discard()


async def test_a_body_in_memory_has_no_readable_bytes_in_a_file(disk: Disk) -> None:
    spool = disk.spooler.new("blake3")
    await spool.write(b"small")
    assert (spool.readable_bytes, spool.path) == (0, None)
    await spool.discard()


async def test_a_memory_limit_of_minus_1_sends_even_an_empty_body_to_a_file(disk: Disk) -> None:
    spool = disk.spooler.new("blake3", memory_limit_bytes=-1)
    await spool.write(b"")
    assert spool.path is not None
    await spool.discard()


async def test_a_body_that_only_passes_is_taken_by_a_read_only_node(tmp_path: Path) -> None:
    make_directories(tmp_path)
    disk = Disk(tmp_path, space=Room(tmp_path, read_only=True))
    passing = disk.spooler.new("blake3", passing=True)
    await passing.write(body(SIZE))
    await passing.finish()
    await passing.discard()
    staying = disk.spooler.new("blake3")
    with pytest.raises(ReadOnly):
        await staying.write(body(SIZE))
    await staying.discard()
    await disk.close()


async def test_a_body_that_only_passes_still_needs_room(disk: Disk) -> None:
    assert isinstance(disk.space, Room)
    disk.space.is_full = True
    spool = disk.spooler.new("blake3", passing=True)
    with pytest.raises(Full):
        await spool.write(body(SIZE))
    await spool.discard()


async def test_reading_past_the_end_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with ThreadPoolExecutor(1) as pool, path.open("rb") as file:
        assert await read_at(pool, file.fileno(), 2, 1) == b"bc"
        with pytest.raises(Unavailable, match="ended early"):
            await read_at(pool, file.fileno(), 3, 1)


async def test_a_disk_error_while_reading_is_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with ThreadPoolExecutor(1) as pool, pytest.raises(Corrupt, match="sending a body"):
        await read_at(pool, 0, 1, 0)


async def test_a_cancelled_read_waits_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the descriptor would be closed, and its number used again, while it is read."""
    import threading

    reading, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(*_: int) -> bytes:
        reading.set()
        go_on.wait(10)
        ended.set()
        return b"x"

    monkeypatch.setattr(os, "pread", slow)
    with ThreadPoolExecutor(1) as pool:
        task = asyncio.create_task(read_at(pool, 0, 1, 0))
        while not reading.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
