"""Large blobs from peers: shared, resumed where they broke off, and never wrong to the last byte."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.fakes import (
    NAMES,
    FakePeers,
    Room,
    blob_with_order,
    left_running,
    members,
    placed,
    spooler,
)

from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.core.limits import MIB
from tierce.node.avoiding import Avoiding
from tierce.node.fetcher import Fetcher
from tierce.node.fetching_large import RemoteBlob
from tierce.testing import virtual_time

SIZE = 5 * MIB + 77
ORDER = ("b", "c", "d")
PLACEMENT = placed("a", members(5))
DIGEST, DATA = blob_with_order(PLACEMENT, *ORDER, size=SIZE)


class Bench:
    """A fetcher at node a, and a large blob at b, c and d."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.peers = FakePeers()
        for name in ORDER:
            self.peers.of[name].blobs[DIGEST] = DATA
        self.room = Room()
        spools = spooler(directory, self.room)
        self.fetcher = Fetcher(
            self.peers, lambda: PLACEMENT, Avoiding(), spools, on_missing=lambda _: None
        )

    async def open(self) -> RemoteBlob:
        blob = await self.fetcher.open(DIGEST)
        assert isinstance(blob, RemoteBlob)
        return blob

    async def read(self, start: int = 0, stop: int | None = None) -> bytes:
        return b"".join([piece async for piece in (await self.open()).stream(start, stop)])

    async def read_until_broken(self) -> tuple[bytes, TierceError]:
        """What came before the failure, and the failure."""
        came = bytearray()
        stream = (await self.open()).stream()
        try:
            async for piece in stream:
                came += piece
        except TierceError as error:
            return bytes(came), error
        finally:
            await stream.aclose()
        raise AssertionError("it did not fail")

    def opened(self, name: str) -> list[str]:
        return [each for each in self.peers.of[name].asked if each.startswith("open")]

    def left(self) -> list[Path]:
        return list(self.directory.iterdir())


def on_bench(directory: Path, test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench(directory)
        await test(bench)
        assert (await left_running(), bench.left(), bench.peers.streaming) == ([], [], 0)
        await bench.fetcher.close()

    virtual_time.run(main())


async def some_of(stream: AsyncGenerator[bytes, None], size: int) -> bytes:
    """At least so many bytes."""
    came = b""
    while len(came) < size:
        came += await anext(stream)
    return came


def test_the_whole_is_what_it_should_be(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        blob = await bench.open()
        assert (blob.size, blob.data) == (SIZE, None)
        assert await bench.read() == DATA

    on_bench(tmp_path, check)


def test_two_readers_share_one_fetch(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        first, second = await asyncio.gather(bench.read(), bench.read())
        assert first == second == DATA
        assert bench.opened("b") == [f"open 0-{SIZE}"]

    on_bench(tmp_path, check)


def test_a_reader_that_comes_later_shares_the_fetch_from_the_beginning(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        stream = (await bench.open()).stream()
        came = await some_of(stream, 2 * MIB)
        assert await bench.read() == DATA
        assert came + b"".join([piece async for piece in stream]) == DATA
        assert bench.opened("b") == [f"open 0-{SIZE}"]

    on_bench(tmp_path, check)


def test_readers_one_after_another_fetch_anew(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.read()
        await bench.read()
        assert len(bench.opened("b")) == 2

    on_bench(tmp_path, check)


def test_a_peer_that_breaks_off_is_resumed_at_the_same_offset_from_the_next(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].breaks_after = 2 * MIB
        assert await bench.read() == DATA
        assert bench.opened("b") == [f"open 0-{SIZE}"]
        assert bench.opened("c") == [f"open {2 * MIB}-{SIZE}"]

    on_bench(tmp_path, check)


def test_a_peer_that_refuses_is_skipped(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        blob = await bench.open()
        bench.peers.of["b"].error = Unavailable("gone")
        assert b"".join([piece async for piece in blob.stream()]) == DATA
        assert bench.opened("c") == [f"open 0-{SIZE}"]

    on_bench(tmp_path, check)


def test_a_peer_whose_copy_has_another_size_is_skipped(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].sends[DIGEST] = DATA[:-1]
        assert await bench.read() == DATA

    on_bench(tmp_path, check)


def test_peers_that_all_break_off_again_and_again_still_give_the_whole(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for name in ORDER:
            bench.peers.of[name].breaks_after = 1 * MIB
        assert await bench.read() == DATA

    on_bench(tmp_path, check)


def test_when_nobody_can_go_on_it_is_unavailable(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for name in ORDER:
            bench.peers.of[name].breaks_after = 0
        came, error = await bench.read_until_broken()
        assert (came, type(error)) == (b"", Unavailable)
        assert "the last failure" in error.message

    on_bench(tmp_path, check)


def test_when_nobody_has_it_any_more_it_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        blob = await bench.open()
        for name in ORDER:
            bench.peers.of[name].blobs.clear()
        with pytest.raises(NotFound):
            await anext(blob.stream())

    on_bench(tmp_path, check)


@pytest.mark.parametrize("room", ["enough", "none"])
def test_with_a_wrong_digest_no_reader_gets_the_last_byte(tmp_path: Path, room: str) -> None:
    async def check(bench: Bench) -> None:
        bench.room.is_full = room == "none"
        bench.peers.of["b"].sends[DIGEST] = b"x" + DATA[1:]
        found = await asyncio.gather(*(bench.read_until_broken() for _ in range(3)))
        for came, error in found:
            assert isinstance(error, Corrupt)
            assert len(came) < SIZE

    on_bench(tmp_path, check)


def test_after_a_wrong_digest_the_next_reader_is_served_anew(tmp_path: Path) -> None:
    """While the first one, whose client is slow, has not noticed yet."""

    async def check(bench: Bench) -> None:
        bench.peers.of["b"].sends[DIGEST] = b"x" + DATA[1:]
        slow = (await bench.open()).stream()
        await anext(slow)
        await asyncio.sleep(0.1)  # the fetch ends meanwhile
        bench.peers.of["b"].sends.clear()
        assert await bench.read() == DATA
        with pytest.raises(Corrupt):
            await some_of(slow, SIZE)
        assert await left_running() == []

    on_bench(tmp_path, check)


@pytest.mark.parametrize(
    ("start", "stop"), [(1, SIZE), (0, SIZE - 1), (2 * MIB, 2 * MIB + 9), (SIZE - 1, SIZE)]
)
def test_a_part_is_asked_for_as_a_part(tmp_path: Path, start: int, stop: int) -> None:
    async def check(bench: Bench) -> None:
        assert await bench.read(start, stop) == DATA[start:stop]
        assert bench.opened("b") == [f"open {start}-{stop}"]
        assert bench.left() == []

    on_bench(tmp_path, check)


def test_a_part_is_resumed_too(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].breaks_after = 1 * MIB
        assert await bench.read(7, 4 * MIB) == DATA[7 : 4 * MIB]
        assert bench.opened("c") == [f"open {7 + MIB}-{4 * MIB}"]

    on_bench(tmp_path, check)


def test_without_room_it_is_passed_on_directly(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.room.is_full = True
        stream = (await bench.open()).stream()
        came = await some_of(stream, 2 * MIB)
        assert bench.left() == []
        assert came + b"".join([piece async for piece in stream]) == DATA

    on_bench(tmp_path, check)


def test_the_last_reader_that_leaves_ends_the_fetch_and_removes_the_spool(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].holds_back = asyncio.Event()
        streams = [(await bench.open()).stream() for _ in range(2)]
        readers = [asyncio.create_task(anext(stream)) for stream in streams]
        await asyncio.sleep(0.1)
        assert len(bench.left()) <= 1
        assert bench.peers.streaming == 1
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
        assert (bench.peers.streaming, bench.left(), await left_running()) == (0, [], [])

    on_bench(tmp_path, check)


def test_one_of_two_readers_leaving_does_not_end_the_fetch(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        leaving = (await bench.open()).stream()
        staying = (await bench.open()).stream()
        came = await anext(staying)
        await anext(leaving)
        await leaving.aclose()
        assert came + b"".join([piece async for piece in staying]) == DATA
        assert bench.opened("b") == [f"open 0-{SIZE}"]

    on_bench(tmp_path, check)


def test_a_slow_reader_does_not_hold_up_a_fast_one(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        slow = (await bench.open()).stream()
        came = await anext(slow)
        assert await bench.read() == DATA
        assert bench.peers.streaming == 0  # all is here: the peer was not held up either
        assert came + b"".join([piece async for piece in slow]) == DATA

    on_bench(tmp_path, check)


def test_closing_breaks_off_its_readers(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].holds_back = asyncio.Event()
        reading = asyncio.create_task(bench.read_until_broken())
        await asyncio.sleep(0.1)
        await bench.fetcher.close()
        async with asyncio.timeout(1):
            _, error = await reading
        assert isinstance(error, Unavailable)

    on_bench(tmp_path, check)


def test_a_peer_that_stalls_for_good_is_the_transports_to_notice(tmp_path: Path) -> None:
    """A reader may leave at any time, whatever its peer does."""

    async def check(bench: Bench) -> None:
        blob = await bench.open()
        for name in NAMES:
            bench.peers.of[name].is_silent = True
        reading = asyncio.create_task(anext(blob.stream(5, 9)))
        await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert await left_running() == []

    on_bench(tmp_path, check)


def test_whole_pieces_with_a_wrong_digest_are_held_back_too(tmp_path: Path) -> None:
    """All bytes are on disk before the digest is known then; readers look at every moment of it."""
    data = DATA[: 4 * MIB]
    digest = Digest.of(data)

    async def check(bench: Bench) -> None:
        bench.peers.of["b"].blobs[digest] = data
        bench.peers.of["b"].sends[digest] = b"x" + data[1:]

        async def read(steps: int) -> int:
            came = 0
            stream = (await bench.fetcher.open(digest)).stream()
            try:
                async for piece in stream:
                    came += len(piece)
                    for _ in range(steps):
                        await asyncio.sleep(0)
            except Corrupt:
                return came
            finally:
                await stream.aclose()
            raise AssertionError("it did not fail")

        assert max(await asyncio.gather(*map(read, range(30)))) < len(data)

    on_bench(tmp_path, check)
