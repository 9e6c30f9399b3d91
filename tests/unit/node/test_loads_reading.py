"""Reading what is being loaded: as it comes, never a wrong byte to the end, and never for ever."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.node.dtfc_bench import (
    LARGE,
    SECOND,
    SMALL,
    FakeSource,
    LoadBench,
    on_load_bench,
    sha512,
    until,
)

from tierce.blobs.store import OpenBlob
from tierce.core.errors import Full, NotFound, TierceError, Unavailable
from tierce.core.limits import KIB, MIB
from tierce.node import loads_reading
from tierce.node.loads_reading import FollowedBlob
from tierce.node.peer_loading import PROGRESS, Busy
from tierce.node.source_race import Nowhere

DIGEST = sha512(LARGE)
FLIPPED = LARGE[:-1] + b"?"


def slow(data: bytes = LARGE, label: str = "slow", **more: object) -> FakeSource:
    """A source that needs 0.1 s for each piece."""
    return FakeSource(label, data, pause_seconds=0.1, **more)  # type: ignore[arg-type]


async def until_broken(blob: OpenBlob) -> tuple[bytes, TierceError | None]:
    """What came, and the failure that ended it."""
    came = bytearray()
    try:
        async for piece in blob.stream():
            came += piece
    except TierceError as error:
        return bytes(came), error
    finally:
        await blob.aclose()
    return bytes(came), None


async def opened(bench: LoadBench) -> FollowedBlob:
    blob = (await bench.reading.open(DIGEST)).blob
    assert isinstance(blob, FollowedBlob)
    return blob


@pytest.mark.parametrize("told", [-1, None])
@pytest.mark.parametrize("size", [0, 11, MIB, MIB + 1, 5 * MIB])
def test_a_file_of_any_size_is_read(tmp_path: Path, size: int, told: int | None) -> None:
    async def check(bench: LoadBench) -> None:
        assert await bench.read(sha512(LARGE[:size])) == LARGE[:size]

    on_load_bench(tmp_path, check, FakeSource("one", LARGE[:size], told=told))


def test_it_has_the_name_that_the_peer_gave(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        loaded = await bench.reading.open(DIGEST)
        assert (loaded.name, loaded.blob.size) == ("file.bin", len(LARGE))
        await loaded.blob.aclose()

    on_load_bench(tmp_path, check, FakeSource("one", LARGE))


def test_a_large_file_is_read_while_it_comes(tmp_path: Path) -> None:
    one = slow()
    one.gate = asyncio.Event()

    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        assert one.gate is not None
        one.gate.set()
        stream = blob.stream()
        assert LARGE.startswith(await anext(stream))
        assert bench.store.blobs == {}
        rest = b"".join([each async for each in stream])
        assert LARGE.endswith(rest)
        await blob.aclose()

    on_load_bench(tmp_path, check, one)


def test_nobody_gets_the_last_byte_of_wrong_ones(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        blobs = [await opened(bench) for _ in range(3)]
        for came, error in await asyncio.gather(*map(until_broken, blobs)):
            assert isinstance(error, Unavailable)
            assert len(came) < len(LARGE)

    on_load_bench(tmp_path, check, slow(FLIPPED))


def test_who_lags_behind_is_not_given_wrong_bytes_once_right_ones_are_kept(tmp_path: Path) -> None:
    """The first attempt's file is all there, and the load is over, well, when it goes on."""

    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        stream = blob.stream()
        came = await anext(stream)
        await bench.loaded(DIGEST)
        assert bench.store.blobs == {DIGEST: LARGE}
        with pytest.raises(Unavailable):
            while True:
                came += await anext(stream)
        assert len(came) < len(LARGE)
        await blob.aclose()

    on_load_bench(tmp_path, check, slow(FLIPPED), FakeSource("good", LARGE, seconds=0.2))


def test_who_has_not_begun_is_given_what_the_next_attempt_kept(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        assert await until_broken(blob) == (LARGE, None)
        assert bench.store.blobs == {DIGEST: LARGE}

    none = FakeSource("none", LARGE, stops_after=0)
    liar = FakeSource("liar", LARGE, told=len(LARGE) + 9, seconds=0.5)
    on_load_bench(tmp_path, check, none, liar, FakeSource("good", LARGE, seconds=2))


def test_who_lags_behind_reads_on_when_the_load_is_over(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        stream = blob.stream()
        came = await anext(stream)
        await bench.loaded(DIGEST)
        bench.store.blobs.clear()  # deleted meanwhile
        bench.is_down = True
        assert came + b"".join([each async for each in stream]) == LARGE
        await blob.aclose()

    on_load_bench(tmp_path, check, slow())


def test_ten_readers_cause_one_transfer_and_few_questions(tmp_path: Path) -> None:
    one = slow()

    async def check(bench: LoadBench) -> None:
        found = await asyncio.gather(*(bench.read(DIGEST) for _ in range(10)))
        assert found == [LARGE] * 10
        assert one.asked == [0]
        assert bench.calls.count(PROGRESS) < 20

    on_load_bench(tmp_path, check, one)


@pytest.mark.parametrize(
    ("start", "stop"), [(1, None), (0, len(LARGE) - 1), (2 * MIB, 2 * MIB + 9), (5, 5)]
)
def test_a_part_is_read_once_the_whole_is_verified(
    tmp_path: Path, start: int, stop: int | None
) -> None:
    async def check(bench: LoadBench) -> None:
        assert await bench.read(DIGEST, start, stop) == LARGE[start:stop]

    on_load_bench(tmp_path, check, slow())


def test_a_part_of_what_can_not_be_loaded_is_refused(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        with pytest.raises(Nowhere):
            await bench.read(DIGEST, 5, 9)

    on_load_bench(tmp_path, check, slow(FLIPPED))


def test_a_part_is_refused_if_the_size_that_was_told_is_wrong(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        with pytest.raises(Unavailable, match="wrong size"):
            await bench.read(DIGEST, 5, 9)
        assert bench.store.blobs == {DIGEST: LARGE}

    liar = slow(told=len(LARGE) + 5, stops_after=MIB)
    on_load_bench(tmp_path, check, liar, FakeSource("good", LARGE, seconds=0.2))


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("error", "kind"), [(None, NotFound), (Unavailable("down"), Nowhere)], ids=["none", "down"]
)
def test_what_can_not_be_loaded_is_told_as_such(
    tmp_path: Path, data: bytes, error: TierceError | None, kind: type[TierceError]
) -> None:
    async def check(bench: LoadBench) -> None:
        with pytest.raises(kind):
            await bench.read(sha512(data))

    on_load_bench(tmp_path, check, FakeSource("one", error=error))


def test_a_small_file_that_came_wrong_is_told_as_such(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        with pytest.raises(Nowhere):
            await bench.read(sha512(SMALL))

    on_load_bench(tmp_path, check, slow(b"hello DTFC\n"))


def test_a_large_file_that_can_not_be_kept_is_read_to_its_end(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        bench.keep_error = Full("no room")
        assert await bench.read(DIGEST) == LARGE
        assert bench.store.blobs == {}

    on_load_bench(tmp_path, check, slow())


def test_a_disk_that_fills_up_breaks_readers_off(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        asyncio.get_running_loop().call_later(1, setattr, bench.room, "is_full", True)
        came, error = await until_broken(blob)
        assert isinstance(error, Unavailable)
        assert 0 < len(came) < len(LARGE)

    on_load_bench(tmp_path, check, slow())


def test_without_its_agent_a_reader_is_broken_off(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        await until(lambda: blob._there() > MIB)
        bench.is_down = True
        came, error = await until_broken(blob)
        assert isinstance(error, Unavailable)
        assert LARGE.startswith(came)
        assert 0 < len(came) < len(LARGE)
        with pytest.raises(Unavailable):
            await bench.read(DIGEST)

    on_load_bench(tmp_path, check, slow())


@pytest.mark.parametrize("is_over", [False, True])
def test_an_agent_started_anew_does_not_give_one_attempts_bytes_for_anothers(
    tmp_path: Path, is_over: bool
) -> None:
    """The file of the one that died has wrong bytes, and as many as the next one's."""
    bad, good = slow(FLIPPED), slow(label="good")

    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        stream = blob.stream()
        came = await anext(stream)
        dead = bench.loading
        await until(lambda: blob._there() > 4 * MIB)
        bench.loading, bench.sources = bench.new_loading(), [bad, good]
        bad.error = Unavailable("down")
        if is_over:
            await bench.loaded(DIGEST)
        else:
            await bench.loading.load(DIGEST)
        with pytest.raises(Unavailable):
            while True:
                came += await anext(stream)
        assert len(came) < len(LARGE)
        await blob.aclose()
        await dead.close()
        await bench.loaded(DIGEST)

    on_load_bench(tmp_path, check, bad)


@pytest.mark.parametrize("is_loaded_again", [False, True])
def test_a_path_that_is_used_again_is_not_read(tmp_path: Path, is_loaded_again: bool) -> None:
    """The agent has died after its answer, and the next one spools another file there."""

    async def check(bench: LoadBench) -> None:
        begun = await bench.loading.load(DIGEST)
        await bench.loading.close()
        Path(begun["path"]).write_bytes(b"x" * 3 * MIB)
        bench.loading = bench.new_loading()
        if is_loaded_again:
            await bench.loading.load(DIGEST)
        assert await bench.reading._followed(DIGEST, begun) is None
        Path(begun["path"]).unlink()

    on_load_bench(tmp_path, check, slow())


def test_a_file_that_the_store_took_over_before_it_was_opened_is_read_there(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        begun = await bench.loading.load(DIGEST)
        await bench.loaded(DIGEST)
        assert await bench.reading._followed(DIGEST, begun) is None
        assert (await bench.reading.kept(DIGEST)).data == LARGE

    on_load_bench(tmp_path, check, FakeSource("one", LARGE))


def test_all_who_wait_and_follow_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads_reading, "DTFC_READERS_COUNT", 3)
    small = sha512(SMALL)

    async def check(bench: LoadBench) -> None:
        following = await opened(bench)
        waiting = [asyncio.create_task(bench.read(small)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert bench.reading.readers == 3
        with pytest.raises(Busy):
            await bench.read(DIGEST)
        await following.aclose()
        await following.aclose()
        assert bench.reading.readers == 2
        assert await bench.read(DIGEST) == LARGE
        await asyncio.gather(*waiting, return_exceptions=True)
        assert bench.reading.readers == 0

    on_load_bench(tmp_path, check, slow())


@pytest.mark.parametrize("seconds", [0.0, 0.0015, 0.003, 0.5, 1.0])
def test_readers_that_leave_hold_nothing_and_the_load_goes_on(
    tmp_path: Path, seconds: float
) -> None:
    async def check(bench: LoadBench) -> None:
        leaving = [asyncio.create_task(bench.read(DIGEST)) for _ in range(3)]
        staying = asyncio.create_task(bench.read(DIGEST))
        await asyncio.sleep(seconds)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert bench.reading.readers == 1
        assert await staying == LARGE

    on_load_bench(tmp_path, check, slow())


def test_when_the_last_reader_leaves_nobody_asks_the_agent_any_more(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        leaving = asyncio.create_task(bench.read(DIGEST))
        await asyncio.sleep(0.5 * SECOND)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert bench.reading._polls == {}
        asked = len(bench.calls)
        await bench.loaded(DIGEST)
        assert len(bench.calls) == asked

    on_load_bench(tmp_path, check, slow())


def test_a_reader_that_comes_as_another_one_leaves_is_served(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        leaving = asyncio.create_task(bench.read(DIGEST))
        await asyncio.sleep(0.5 * SECOND)
        leaving.cancel()
        assert await bench.read(DIGEST) == LARGE
        await asyncio.gather(leaving, return_exceptions=True)

    on_load_bench(tmp_path, check, slow())


def test_waiting_for_a_source_that_is_slow_to_answer_is_no_failure(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        assert await bench.read(DIGEST) == LARGE
        assert asyncio.get_running_loop().time() > 15

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, seconds=15))


def test_a_reader_of_what_is_only_verified_gets_all_before_it_is_kept(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        bench.keep_gate = asyncio.Event()
        assert await bench.read(DIGEST) == LARGE
        assert bench.store.blobs == {}
        late = asyncio.create_task(bench.read(DIGEST))
        await asyncio.sleep(0.1)
        assert await late == LARGE
        bench.keep_gate.set()
        await bench.loaded(DIGEST)

    on_load_bench(tmp_path, check, slow())


def test_pieces_are_of_bounded_size(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        blob = await opened(bench)
        await bench.loaded(DIGEST)
        sizes = [len(each) async for each in blob.stream()]
        assert sum(sizes) == len(LARGE)
        assert max(sizes) <= MIB
        await blob.aclose()

    on_load_bench(tmp_path, check, slow(piece_bytes=64 * KIB))
