"""Loads from peers: one a file, whoever waits; the right bytes or an error; and what ends them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from tierce.core.errors import BadRequest, Conflict, Full, NotFound, TierceError, Unavailable
from tierce.core.limits import KIB, MIB
from tierce.node.peer_loading import LOAD, PROGRESS, Busy
from tierce.node.source_race import Nowhere

DIGEST = sha512(LARGE)
FLIPPED = LARGE[:-1] + b"?"


async def loaded(bench: LoadBench, data: bytes = LARGE) -> None:
    await bench.loaded(sha512(data))
    assert bench.store.blobs[sha512(data)] == data


async def failure(bench: LoadBench, kind: type[TierceError]) -> TierceError:
    with pytest.raises(TierceError) as raised:
        await bench.loaded(DIGEST)
    assert type(raised.value) is kind
    assert bench.store.blobs == {}
    return raised.value


@pytest.mark.parametrize("data", [b"", SMALL, LARGE[: 100 * KIB], LARGE])
def test_a_file_is_kept_under_the_name_of_the_peer(tmp_path: Path, data: bytes) -> None:
    async def check(bench: LoadBench) -> None:
        await loaded(bench, data)
        assert bench.names == {sha512(data): "file.bin"}
        assert bench.loading.status() == {"loading": 0, "loaded": 1, "loaded_bytes": len(data)}

    on_load_bench(tmp_path, check, FakeSource("one", data))


def test_all_who_ask_for_a_file_join_one_load(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE)

    async def check(bench: LoadBench) -> None:
        begun = await asyncio.gather(*(bench.loading.load(DIGEST) for _ in range(10)))
        assert len({each["number"] for each in begun}) == 1
        await loaded(bench)
        assert one.asked == [0]

    on_load_bench(tmp_path, check, one)


def test_it_begins_once_a_source_has_answered(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        begun = await bench.loading.load(DIGEST)
        assert begun["size"] == len(LARGE)
        assert begun["name"] == "file.bin"
        assert begun["path"].startswith(str(tmp_path))
        assert asyncio.get_running_loop().time() < 1
        await loaded(bench)

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, pause_seconds=1))


def test_a_load_that_has_not_begun_after_some_seconds_says_so(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        assert await bench.loading.load(DIGEST) == {"waiting": True}
        assert (await bench.loading.load(DIGEST))["size"] == len(LARGE)
        await loaded(bench)

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, seconds=15))


def test_it_goes_on_to_its_end_though_nobody_waits(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        asking = asyncio.create_task(bench.loading.load(DIGEST))
        await asyncio.sleep(0)
        asking.cancel()
        await until(lambda: bench.store.blobs)

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, seconds=1))


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([None], NotFound),
        ([None, Unavailable("down")], NotFound),
        ([Unavailable("down"), Unavailable("down")], Nowhere),
        ([], NotFound),
    ],
)
def test_what_nobody_has_is_not_found_if_somebody_says_so(
    tmp_path: Path, errors: list[TierceError | None], kind: type[TierceError]
) -> None:
    async def check(bench: LoadBench) -> None:
        await failure(bench, kind)

    on_load_bench(tmp_path, check, *(FakeSource(f"{n}", error=e) for n, e in enumerate(errors)))


def test_one_that_gives_wrong_bytes_is_left_out(tmp_path: Path) -> None:
    bad, good = FakeSource("bad", FLIPPED), FakeSource("good", LARGE, seconds=0.1)

    async def check(bench: LoadBench) -> None:
        await loaded(bench)
        assert (len(bad.asked), good.asked) == (1, [0])

    on_load_bench(tmp_path, check, bad, good)


def test_of_several_that_had_a_part_in_wrong_bytes_each_is_asked_alone(tmp_path: Path) -> None:
    bad = FakeSource("bad", b"?" + LARGE[1:], stops_after=MIB)
    good = FakeSource("good", LARGE, seconds=0.1)

    async def check(bench: LoadBench) -> None:
        await loaded(bench)

    on_load_bench(tmp_path, check, bad, good)


@pytest.mark.parametrize("told", [5, len(LARGE) - 1, len(LARGE) + 1, 10**15])
def test_one_that_tells_a_wrong_size_does_not_keep_the_right_one_out(
    tmp_path: Path, told: int
) -> None:
    liar = FakeSource("liar", LARGE, told=told, stops_after=MIB)

    async def check(bench: LoadBench) -> None:
        await loaded(bench)

    on_load_bench(tmp_path, check, liar, FakeSource("good", LARGE, seconds=0.1))


def test_if_all_give_wrong_bytes_nobody_knows(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        await failure(bench, Nowhere)
        assert [len(each.asked) for each in bench.sources] == [1, 1]

    on_load_bench(tmp_path, check, FakeSource("one", FLIPPED), FakeSource("two", FLIPPED))


def test_wrong_bytes_beside_a_peer_that_has_none_are_none(tmp_path: Path) -> None:
    sources = FakeSource("bad", FLIPPED), FakeSource("none"), FakeSource("down", hangs=True)

    async def check(bench: LoadBench) -> None:
        await failure(bench, NotFound)

    on_load_bench(tmp_path, check, *sources)


def test_a_size_beyond_the_room_there_is_is_told_as_that(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        await failure(bench, Full)

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, told=4 * 1024 * MIB))


def test_a_full_disk_ends_a_load_at_once(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        bench.room.is_full = True
        await failure(bench, Full)
        assert [len(each.asked) for each in bench.sources] == [1, 0]

    on_load_bench(tmp_path, check, FakeSource("one", LARGE), FakeSource("two", LARGE))


@pytest.mark.parametrize("error", [Full("no room"), NotFound("deleted"), Conflict("no")])
def test_what_can_not_be_kept_is_not_loaded_again(tmp_path: Path, error: TierceError) -> None:
    bad, good = FakeSource("bad", FLIPPED), FakeSource("good", LARGE, seconds=0.1)

    async def check(bench: LoadBench) -> None:
        bench.keep_error = error
        await failure(bench, type(error))
        assert len(good.asked) == 1
        assert bench.loading.loaded == 0

    on_load_bench(tmp_path, check, bad, good, FakeSource("more", LARGE, seconds=0.2))


def test_a_load_that_failed_is_begun_anew_by_the_next_who_asks(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, error=Unavailable("down"))

    async def check(bench: LoadBench) -> None:
        await failure(bench, Nowhere)
        one.error = None
        await loaded(bench)

    on_load_bench(tmp_path, check, one)


def test_only_so_many_loads_go_on_at_once(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        await bench.loading.load(DIGEST)
        await bench.loading.load(DIGEST)
        with pytest.raises(Busy):
            await bench.loading.load(sha512(SMALL))
        await loaded(bench)
        with pytest.raises(Nowhere):
            await bench.loaded(sha512(SMALL))

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, pause_seconds=1), loads_at_once=1)


def test_files_that_are_looked_for_in_vain_keep_none_from_being_loaded(tmp_path: Path) -> None:
    silent = FakeSource("silent", error=Unavailable("no answer"), seconds=9)

    async def check(bench: LoadBench) -> None:
        bench.sources = [silent]
        searches = [
            asyncio.create_task(bench.loading.load(sha512(each))) for each in (b"1", b"2", b"3")
        ]
        await asyncio.sleep(SECOND)
        bench.sources = [FakeSource("one", LARGE)]
        await loaded(bench)
        with pytest.raises(Busy):
            await asyncio.gather(*(bench.loading.load(sha512(each)) for each in (b"4", b"5")))
        for each in await asyncio.gather(*searches, return_exceptions=True):
            assert isinstance(each, Nowhere)

    on_load_bench(tmp_path, check, loads_at_once=1, searches_at_once=4)


def test_who_asks_again_learns_how_the_load_ended(tmp_path: Path) -> None:
    one = FakeSource("one", error=Unavailable("down"))

    async def check(bench: LoadBench) -> None:
        await failure(bench, Nowhere)
        with pytest.raises(Nowhere):
            await bench.loading.load(DIGEST, again=True)
        assert len(one.asked) == 1
        ended = bench.loading._ended[DIGEST].failure
        assert ended is not None
        # They would hold what came of the file.
        assert (ended.__traceback__, ended.__context__) == (None, None)
        one.error, one.data = None, LARGE
        await loaded(bench)
        assert (await bench.loading.load(DIGEST, again=True))["name"] == bench.names[DIGEST]
        assert len(one.asked) == 2

    on_load_bench(tmp_path, check, one)


def test_dropped_a_load_ends_as_not_found(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        waiting = asyncio.create_task(bench.loaded(DIGEST))
        await asyncio.sleep(3 * SECOND)
        await bench.loading.drop(DIGEST)
        await bench.loading.drop(DIGEST)
        with pytest.raises(NotFound):
            await waiting
        assert bench.store.blobs == {}

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, pause_seconds=1))


@pytest.mark.parametrize("seconds", [0, 0.0005, 3])
def test_closed_it_leaves_nobody_waiting(tmp_path: Path, seconds: float) -> None:
    async def check(bench: LoadBench) -> None:
        waiting = [asyncio.create_task(bench.loaded(DIGEST)) for _ in range(3)]
        await asyncio.sleep(seconds)
        await bench.loading.close()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, Unavailable)
        with pytest.raises(Unavailable):
            await bench.loading.load(DIGEST)

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, pause_seconds=1))


def test_progress_is_told_as_soon_as_there_is_more(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        number, position = (await bench.loading.load(DIGEST))["number"], 0
        bench.keep_gate = asyncio.Event()
        found = []
        while position < len(LARGE):
            told = await bench.loading.progress(DIGEST, number, position)
            assert not told["over"]
            assert told["readable"] > position
            position = told["readable"]
            found.append(position)
        assert len(found) >= len(LARGE) // MIB
        bench.keep_gate.set()
        await loaded(bench)
        assert (await bench.loading.progress(DIGEST, number, 0))["over"]

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, pause_seconds=0.1))


def test_an_attempt_that_gave_wrong_bytes_is_over_for_those_who_follow_it(tmp_path: Path) -> None:
    bad, good = FakeSource("bad", FLIPPED), FakeSource("good", LARGE, seconds=5)

    async def check(bench: LoadBench) -> None:
        number = (await bench.loading.load(DIGEST))["number"]
        told = await bench.loading.progress(DIGEST, number, len(LARGE) - 1)
        assert told["over"]
        assert asyncio.get_running_loop().time() < 1
        again = await bench.loading.load(DIGEST)
        assert again["number"] != number
        await loaded(bench)

    on_load_bench(tmp_path, check, bad, good)


def test_orders_answer_with_failures_that_other_processes_know(tmp_path: Path) -> None:
    async def check(bench: LoadBench) -> None:
        arguments: dict[str, Any] = {"digest": str(DIGEST), "number": "", "position": -1}
        assert (await bench.loading.call(LOAD, arguments))["failed"] == "nowhere"
        assert (await bench.loading.call(PROGRESS, arguments))["failed"] == "nowhere"
        with pytest.raises(BadRequest):
            await bench.loading.call("nonsense", arguments)

    on_load_bench(tmp_path, check, FakeSource("one", LARGE, error=Unavailable("down")))


FILE = LARGE[: 2 * MIB + 77]
FAULTS: dict[str, dict[str, Any]] = {
    "has none": {"data": None},
    "hangs": {"hangs": True},
    "is down": {"error": Unavailable("down")},
    "last byte": {"data": FILE[:-1] + b"?"},
    "first byte": {"data": b"?" + FILE[1:]},
    "too short": {"data": FILE[:-1]},
    "too long": {"data": FILE + b"?"},
    "empty": {"data": b""},
    "far too long": {"data": FILE + FILE, "told": None},
    "tells more": {"told": len(FILE) + 9},
    "tells less": {"told": len(FILE) - 9},
    "tells far more": {"told": 10**15},
    "stops once": {"stops_once": True, "stops_after": MIB},
    "stops": {},
}


@st.composite
def faulty(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    more: dict[str, Any] = {
        "stops_after": draw(st.sampled_from([None, 0, 1, MIB, 2 * MIB, 2 * MIB + 76])),
        "has_ranges": draw(st.booleans()),
        "seconds": draw(st.sampled_from([0.001, 0.2, 0.5, 3.0])),
    }
    if draw(st.booleans()):
        more["told"] = None
    return draw(st.sampled_from(sorted(FAULTS))), more


@given(
    faults=st.lists(faulty(), max_size=4),
    place=st.none() | st.integers(0, 4),
    honest=st.fixed_dictionaries(
        {
            "seconds": st.sampled_from([0.001, 0.4, 4.0]),
            "has_ranges": st.booleans(),
            "told": st.sampled_from([-1, None]),
        }
    ),
)
@settings(max_examples=60)
def test_whatever_peers_do_the_bytes_are_right_and_one_honest_peer_is_enough(
    tmp_path: Path,
    faults: list[tuple[str, dict[str, Any]]],
    place: int | None,
    honest: dict[str, Any],
) -> None:
    sources = [
        FakeSource(f"{number}: {fault}", **{"data": FILE, **more, **FAULTS[fault]})
        for number, (fault, more) in enumerate(faults)
    ]
    if place is not None:
        sources.insert(place, FakeSource("honest", FILE, **honest))

    async def check(bench: LoadBench) -> None:
        readers = [asyncio.create_task(bench.read(sha512(FILE))) for _ in range(2)]
        try:
            await bench.loaded(sha512(FILE))
        except TierceError:
            assert place is None
        assert bench.store.blobs in ({}, {sha512(FILE): FILE})
        assert place is None or bench.store.blobs
        for found in await asyncio.gather(*readers, return_exceptions=True):
            assert found == FILE or isinstance(found, TierceError)

    on_load_bench(tmp_path, check, *sources)
