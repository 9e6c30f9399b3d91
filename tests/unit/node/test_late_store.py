"""A store that does not answer in time: peers are asked beside it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.fakes import FakePeers, Room, content, left_running, members, spooler

from tierce.blobs.memory import MemoryStore
from tierce.blobs.store import OpenBlob
from tierce.cluster.member import View
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.node.data_path import DataPath, PlacementCell
from tierce.testing import virtual_time

DATA = content(1)
DIGEST = Digest.of(DATA)
LARGE = content(2, 500)
LARGE_DIGEST = Digest.of(LARGE)
LATE_SECONDS = 2.0
DEAD_SECONDS = 30.0
SLOW = Unavailable("the store failed")


class SlowStore(MemoryStore):
    """Answers after ``seconds``, or fails then. What it has of LARGE comes in pieces of 100 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.error: TierceError | None = None
        self.slow_from = 0
        self.opened: list[SlowBlob] = []
        self.ended = 0

    async def open(self, digest: Digest) -> OpenBlob:  # type: ignore[override]
        if digest == LARGE_DIGEST:
            self.opened.append(SlowBlob(self))
            return self.opened[-1]
        await self.answer()
        return await super().open(digest)

    async def answer(self) -> None:
        await asyncio.sleep(self.seconds)
        self.ended += 1
        if self.error is not None:
            raise self.error


class SlowBlob:
    """Opens at once, as the catalogue knows it, and answers as the store does."""

    def __init__(self, store: SlowStore) -> None:
        self.digest = LARGE_DIGEST
        self.size = len(LARGE)
        self.data: bytes | None = None
        self.store = store
        self.closed = 0

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = len(LARGE) if stop is None else stop
        for at in range(start, stop, 100):
            if at >= self.store.slow_from:
                await self.store.answer()
            yield LARGE[at : min(at + 100, stop)]

    async def aclose(self) -> None:
        self.closed += 1


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store = SlowStore()
        self.store.blobs[DIGEST] = DATA
        self.peers = FakePeers()
        cell = PlacementCell(View.of("a", members(3)))
        self.path = DataPath(
            self.store,
            spooler(directory),
            Room(),
            self.peers,
            cell,
            lambda _: None,
            late_seconds=LATE_SECONDS,
        )

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def read(self, start: int = 0, stop: int | None = None) -> bytes:
        blob = await self.path.open(LARGE_DIGEST)
        try:
            return b"".join([piece async for piece in blob.stream(start, stop)])
        finally:
            await blob.aclose()


def on_bench(directory: Path, test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench(directory)
        await test(bench)
        await bench.path.close()
        assert await left_running() == []
        assert all(blob.closed == 1 for blob in bench.store.opened)

    virtual_time.run(main())


def test_a_store_that_answers_in_time_is_the_only_one_asked(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        bench.peers.put(LARGE, "b")
        bench.store.seconds = 0.9 * LATE_SECONDS
        opened, is_here = await bench.path.locate(DIGEST)
        assert (opened.data, is_here) == (DATA, True)
        assert await bench.read() == LARGE
        assert bench.peers.asked() == []

    on_bench(tmp_path, check)


def test_a_peer_answers_in_place_of_a_store_that_is_late(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b", "c")
        bench.store.seconds = DEAD_SECONDS
        opened, is_here = await bench.path.locate(DIGEST)
        assert (opened.data, is_here) == (DATA, False)
        assert LATE_SECONDS <= bench.now() < LATE_SECONDS + 1

    on_bench(tmp_path, check)


def test_a_store_that_was_late_is_heard_to_the_end(tmp_path: Path) -> None:
    """Else its circuit would never learn that it is dead."""

    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        bench.peers.put(LARGE, "b")
        bench.store.seconds, bench.store.error = DEAD_SECONDS, SLOW
        await bench.path.open(DIGEST)
        assert await bench.read() == LARGE
        assert bench.store.ended == 0
        await asyncio.sleep(DEAD_SECONDS)
        assert bench.store.ended == 2

    on_bench(tmp_path, check)


def test_what_peers_have_not_is_waited_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.seconds = 4 * LATE_SECONDS
        opened, is_here = await bench.path.locate(DIGEST)
        assert (opened.data, is_here) == (DATA, True)
        assert await bench.read() == LARGE

    on_bench(tmp_path, check)


def test_a_store_that_is_late_may_still_be_first(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b", "c")
        for name in "bc":
            bench.peers.of[name].latency_seconds = 20.0
        bench.store.seconds = 1.5 * LATE_SECONDS
        assert (await bench.path.locate(DIGEST))[1] is True
        assert bench.now() == pytest.approx(bench.store.seconds)

    on_bench(tmp_path, check)


@pytest.mark.parametrize("seconds", [0.0, DEAD_SECONDS])
def test_a_store_that_fails_is_not_taken_to_have_nothing(tmp_path: Path, seconds: float) -> None:
    """The blob may be there: that nobody else has it makes it no blob that is not found."""

    async def check(bench: Bench) -> None:
        bench.store.seconds, bench.store.error = seconds, SLOW
        with pytest.raises(Unavailable, match="the store failed"):
            await bench.path.open(DIGEST)
        with pytest.raises(Unavailable, match="the store failed"):
            await bench.read()

    on_bench(tmp_path, check)


def test_what_nobody_has_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.seconds = DEAD_SECONDS
        with pytest.raises(NotFound):
            await bench.path.open(Digest.of(b"unknown"))

    on_bench(tmp_path, check)


@pytest.mark.parametrize("slow_from", [0, 100, 400])
@pytest.mark.parametrize("part", [(0, None), (3, 450)])
@pytest.mark.parametrize("error", [None, SLOW])
def test_a_large_blob_goes_on_from_a_peer_where_the_store_stopped(
    tmp_path: Path, slow_from: int, part: tuple[int, int | None], error: TierceError | None
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(LARGE, "b")
        bench.store.slow_from, bench.store.error = slow_from, error
        bench.store.seconds = 0.0 if error else DEAD_SECONDS
        assert await bench.read(*part) == LARGE[slice(*part)]
        assert bench.now() < LATE_SECONDS + 1

    on_bench(tmp_path, check)


def test_the_next_part_of_a_blob_whose_store_was_late_comes_from_a_peer(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(LARGE, "b")
        bench.store.seconds = DEAD_SECONDS
        blob = await bench.path.open(LARGE_DIGEST)
        for part in ((0, 10), (400, 450)):
            assert b"".join([each async for each in blob.stream(*part)]) == LARGE[slice(*part)]
        assert bench.now() < LATE_SECONDS + 1
        await blob.aclose()

    on_bench(tmp_path, check)


@pytest.mark.parametrize("after", [0.5 * LATE_SECONDS, 1.5 * LATE_SECONDS])
def test_a_reader_that_leaves_while_it_waits_leaves_nothing_running(
    tmp_path: Path, after: float
) -> None:
    async def check(bench: Bench) -> None:
        for name in "bc":
            bench.peers.of[name].latency_seconds = 20.0
        bench.store.seconds = DEAD_SECONDS
        for reading in (bench.path.open(DIGEST), bench.read()):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(after):
                    await reading
        assert bench.store.ended == 0

    on_bench(tmp_path, check)
