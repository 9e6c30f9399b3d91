"""One attempt at a file: resumed where it broke off, never longer than was told, and nobody believed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.dtfc_bench import LARGE, SECOND, SMALL, STALL_SECONDS, FakeSource, sha512
from tests.unit.node.fakes import Room, left_running, spooler

from tierce.blobs.spool import Spooler
from tierce.core.errors import Corrupt, Full, TierceError, Unavailable
from tierce.core.limits import GIB, KIB, MIB
from tierce.node.load_attempt import Attempt, Wrong
from tierce.node.source_race import Nowhere, Race
from tierce.testing import virtual_time

FLIPPED = LARGE[:-1] + b"?"


class Bench:
    """Attempts at the file of ``data`` over ``sources``, the first one being who is asked first."""

    def __init__(self, directory: Path, data: bytes, sources: tuple[FakeSource, ...]) -> None:
        self.digest = sha512(data)
        self.sources = sources
        self.room = Room()
        self.spools: Spooler = spooler(directory, self.room)
        self.race = Race(0.3)
        self.told: list[int] = []
        self.most_written = 0

    async def begun(self) -> Attempt:
        first = await self.race.first(self.digest, self.sources[:1], 0)
        return Attempt(self.digest, first, self.spools, self._tell)

    async def content(self) -> bytes:
        """All of it, as the file has it in the end."""
        self.attempt = await self.begun()
        try:
            await self.attempt.open()
            await self.attempt.receive(self.sources, self.race)
            assert self.attempt.size == self.attempt.readable == self.attempt.spool.size
            if self.attempt.spool.data is not None:
                return self.attempt.spool.data
            assert self.attempt.spool.path is not None
            return self.attempt.spool.path.read_bytes()[: self.attempt.size]
        finally:
            if self.attempt.spool.path is not None:
                self.most_written = self.attempt.spool.path.stat().st_size
            await self.attempt.close()

    async def failure(self, kind: type[TierceError]) -> TierceError:
        with pytest.raises(TierceError) as raised:
            await self.content()
        assert type(raised.value) is kind
        return raised.value

    def _tell(self) -> None:
        self.told.append(self.attempt.readable)


def attempting(
    directory: Path, data: bytes, test: Callable[[Bench], Awaitable[None]], *sources: FakeSource
) -> None:
    async def main() -> None:
        await test(Bench(directory, data, sources))
        assert await left_running() == []
        assert [each.open_now for each in sources] == [0] * len(sources)
        assert list(directory.iterdir()) == []

    virtual_time.run(main())


def loads(directory: Path, data: bytes, *sources: FakeSource) -> Bench:
    """See that the attempt gives the data."""
    found: list[Bench] = []

    async def check(bench: Bench) -> None:
        found.append(bench)
        assert await bench.content() == data

    attempting(directory, data, check, *sources)
    return found[0]


def fails(
    directory: Path, data: bytes, kind: type[TierceError], *sources: FakeSource
) -> TierceError:
    """See that the attempt fails in this way."""
    found: list[TierceError] = []

    async def check(bench: Bench) -> None:
        found.append(await bench.failure(kind))
        assert bench.most_written <= len(data)

    attempting(directory, data, check, *sources)
    return found[0]


@pytest.mark.parametrize("told", [-1, None])
@pytest.mark.parametrize("size", [0, 1, 11, 64 * KIB, MIB, MIB + 1, 5 * MIB])
def test_a_file_of_any_size_comes(tmp_path: Path, size: int, told: int | None) -> None:
    loads(tmp_path, LARGE[:size], FakeSource("one", LARGE[:size], told=told))


def test_the_last_byte_is_held_back_until_all_are_verified(tmp_path: Path) -> None:
    bench = loads(tmp_path, LARGE, FakeSource("one", LARGE))
    assert bench.told == sorted(bench.told)
    assert 0 < max(bench.told) < len(LARGE)


def test_another_one_goes_on_from_where_the_first_stopped(tmp_path: Path) -> None:
    one, two = FakeSource("one", LARGE, stops_after=2 * MIB + 5), FakeSource("two", LARGE)
    loads(tmp_path, LARGE, one, two)
    assert (one.asked, two.asked) == ([0], [2 * MIB + 5])


def test_one_without_ranges_is_skipped_to_the_position(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, stops_after=2 * MIB + 5)
    loads(tmp_path, LARGE, one, FakeSource("two", LARGE, has_ranges=False))


def test_one_that_is_alone_and_stops_again_and_again_is_asked_on(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, stops_after=MIB)
    loads(tmp_path, LARGE, one)
    assert one.asked == [each * MIB for each in range(len(one.asked))]


def test_a_bad_disk_of_a_source_is_no_failure_of_the_attempt(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, stops_after=MIB, stops_with=Corrupt("input/output error"))
    loads(tmp_path, LARGE, one, FakeSource("two", LARGE))


def test_it_ends_if_nobody_sends_any_more(tmp_path: Path) -> None:
    sources = [FakeSource(name, LARGE, stops_after=0) for name in "ab"]
    fails(tmp_path, LARGE, Nowhere, *sources)
    assert sum(len(each.asked) for each in sources) <= 4


def test_it_is_not_unknown_if_the_one_who_has_it_is_gone(tmp_path: Path) -> None:
    class Dying(FakeSource):
        async def _pieces(self, data):  # type: ignore[no-untyped-def]
            self.error = Unavailable("down")
            yield data[:MIB]
            raise Unavailable("the connection broke")

    fails(tmp_path, LARGE, Nowhere, Dying("one", LARGE), FakeSource("none"))


def test_one_that_is_slow_is_waited_for_if_another_one_stops_at_once(tmp_path: Path) -> None:
    quick, slow = FakeSource("quick", LARGE, stops_after=0), FakeSource("slow", LARGE, seconds=5)
    loads(tmp_path, LARGE, quick, slow)
    assert len(quick.asked) == 1


def test_one_that_hangs_after_another_one_stopped_does_not_end_it(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, stops_after=MIB, stops_once=True)

    async def check(bench: Bench) -> None:
        assert await bench.content() == LARGE
        assert asyncio.get_running_loop().time() < 2 * STALL_SECONDS

    attempting(tmp_path, LARGE, check, one, FakeSource("mute", hangs=True))


@pytest.mark.parametrize("told", [len(LARGE) - 1, len(LARGE) + 1, MIB + 7, GIB // 2])
def test_of_two_that_tell_other_sizes_neither_is_judged(tmp_path: Path, told: int) -> None:
    one = FakeSource("one", LARGE, told=told, stops_after=MIB)
    wrong = fails(tmp_path, LARGE, Wrong, one, FakeSource("two", LARGE))
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is None


def test_no_more_is_written_than_was_told(tmp_path: Path) -> None:
    data = LARGE[: 2 * MIB - 7]
    one = FakeSource("one", data, stops_after=MIB)
    fails(tmp_path, data, Wrong, one, FakeSource("two", LARGE, told=None))


def test_one_that_ends_before_the_size_that_was_told_is_contradicting_it(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, told=len(LARGE) + 1, stops_after=MIB)
    fails(tmp_path, LARGE, Wrong, one, FakeSource("two", LARGE, told=None))


def test_wrong_bytes_of_one_are_that_ones_fault(tmp_path: Path) -> None:
    one = FakeSource("one", FLIPPED)
    wrong = fails(tmp_path, LARGE, Wrong, one, FakeSource("two", LARGE))
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is one


def test_for_wrong_bytes_of_two_nobody_is_blamed(tmp_path: Path) -> None:
    one = FakeSource("one", b"?" + LARGE[1:], stops_after=MIB)
    wrong = fails(tmp_path, LARGE, Wrong, one, FakeSource("two", LARGE))
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is None


def test_one_that_is_asked_and_gives_nothing_has_no_part_in_it(tmp_path: Path) -> None:
    one, two = FakeSource("one", FLIPPED, told=None, stops_after=0), FakeSource("two", FLIPPED)
    wrong = fails(tmp_path, LARGE, Wrong, one, two)
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is two


def test_one_that_ends_at_once_is_wrong_by_itself(tmp_path: Path) -> None:
    one = FakeSource("one", b"", told=None)
    wrong = fails(tmp_path, LARGE, Wrong, one, FakeSource("two", LARGE))
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is one


def test_for_more_bytes_than_another_one_told_nobody_is_blamed(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, told=len(LARGE) - 9, stops_after=0)
    wrong = fails(tmp_path, LARGE, Wrong, one, FakeSource("two", LARGE, told=None))
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is None


def test_a_name_that_the_first_lacks_is_taken_from_the_next(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, stops_after=MIB, name="")
    bench = loads(tmp_path, LARGE, one, FakeSource("two", LARGE, name="../My File.TXT"))
    assert bench.attempt.name == "my-file.txt"


@pytest.mark.parametrize("told", [10**15, GIB + 1])
def test_one_that_tells_more_than_there_is_room_for_is_wrong(tmp_path: Path, told: int) -> None:
    one = FakeSource("one", LARGE, told=told)
    wrong = fails(tmp_path, LARGE, Wrong, one)
    assert isinstance(wrong, Wrong)
    assert wrong.culprit is one


def test_with_a_full_disk_nobody_is_blamed(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.room.is_full = True
        await bench.failure(Full)

    attempting(tmp_path, LARGE, check, FakeSource("one", LARGE))


def test_a_disk_that_fills_up_midway_ends_it(tmp_path: Path) -> None:
    one, two = FakeSource("one", LARGE, pause_seconds=1), FakeSource("two", LARGE)

    async def check(bench: Bench) -> None:
        asyncio.get_running_loop().call_later(8, setattr, bench.room, "is_full", True)
        await bench.failure(Full)
        assert two.asked == []

    attempting(tmp_path, LARGE, check, one, two)


@pytest.mark.parametrize("told", [None, 10 * MIB])
def test_one_without_an_end_is_given_up_at_the_limit(tmp_path: Path, told: int | None) -> None:
    one = FakeSource("one", LARGE, told=told)

    async def check(bench: Bench) -> None:
        bench.spools.blob_limit_bytes = 3 * MIB
        wrong = await bench.failure(Wrong)
        assert isinstance(wrong, Wrong)
        assert wrong.culprit is one
        assert bench.most_written <= 3 * MIB

    attempting(tmp_path, SMALL, check, one)


def test_a_cancelled_attempt_leaves_nothing(tmp_path: Path) -> None:
    one = FakeSource("one", LARGE, pause_seconds=1)

    async def check(bench: Bench) -> None:
        loading = asyncio.create_task(bench.content())
        await asyncio.sleep(9 * SECOND)
        assert bench.told != []
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading

    attempting(tmp_path, LARGE, check, one)
