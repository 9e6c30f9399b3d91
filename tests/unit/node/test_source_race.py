"""Who is asked for a file first, who wins, and that nothing is held of those who lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.node.dtfc_bench import SECOND, SMALL, STALL_SECONDS, FakeSource, sha512
from tests.unit.node.fakes import left_running

from tierce.core.errors import Corrupt, NotFound, Unavailable
from tierce.core.limits import PEER_AVOIDED_SECONDS
from tierce.node.source_race import Nowhere, Race
from tierce.testing import virtual_time

DIGEST = sha512(SMALL)
HEDGE_SECONDS = 0.3


def racing(test: Callable[[Race], Awaitable[None]], *sources: FakeSource) -> None:
    async def main() -> None:
        await test(Race(HEDGE_SECONDS))
        assert await left_running() == []
        assert [each.open_now for each in sources] == [0] * len(sources)

    virtual_time.run(main())


async def winner(race: Race, *sources: FakeSource, in_turn: bool = False) -> str:
    given = await race.first(DIGEST, sources, 0, in_turn=in_turn)
    await given.held.aclose()
    return given.source.label


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_second_is_asked_only_if_the_first_takes_long() -> None:
    one, two = FakeSource("one", SMALL, seconds=0.1), FakeSource("two", SMALL)

    async def check(race: Race) -> None:
        assert await winner(race, one, two) == "one"
        assert two.asked == []

    racing(check, one, two)


def test_a_slow_first_is_overtaken_after_the_hedge_delay() -> None:
    one, two = FakeSource("one", SMALL, seconds=5), FakeSource("two", SMALL, seconds=0.1)

    async def check(race: Race) -> None:
        assert await winner(race, one, two) == "two"
        assert now() == pytest.approx(HEDGE_SECONDS + 0.1)

    racing(check, one, two)


def test_the_fastest_of_late_is_asked_first() -> None:
    one, two = FakeSource("one", SMALL, seconds=0.2), FakeSource("two", SMALL, seconds=0.1)

    async def check(race: Race) -> None:
        assert [await winner(race, one, two) for _ in range(3)] == ["one", "two", "two"]

    racing(check, one, two)


def test_one_that_never_answers_does_not_stay_the_first() -> None:
    mute, good = FakeSource("mute", hangs=True), FakeSource("good", SMALL)

    async def check(race: Race) -> None:
        await winner(race, mute, good)
        began = now()
        assert await winner(race, mute, good) == "good"
        assert now() - began < HEDGE_SECONDS
        assert len(mute.asked) == 1

    racing(check, mute, good)


def test_after_a_failure_the_next_one_is_asked_at_once() -> None:
    bad = FakeSource("bad", error=Unavailable("down"))
    good = FakeSource("good", SMALL)

    async def check(race: Race) -> None:
        assert await winner(race, bad, good) == "good"
        assert now() < HEDGE_SECONDS

    racing(check, bad, good)


def test_one_that_failed_is_the_last_for_some_time() -> None:
    one, two = FakeSource("one", SMALL, seconds=0.1), FakeSource("two", SMALL, seconds=0.2)

    async def check(race: Race) -> None:
        await winner(race, one)
        await winner(race, two)
        one.error = Corrupt("a bad disk")
        assert await winner(race, one, two) == "two"
        one.error = None
        assert await winner(race, one, two) == "two"
        await asyncio.sleep(PEER_AVOIDED_SECONDS)
        assert await winner(race, one, two) == "one"

    racing(check, one, two)


@pytest.mark.parametrize("in_turn", [False, True])
def test_it_is_not_found_if_one_says_so_and_nobody_has_it(in_turn: bool) -> None:
    sources = (FakeSource("none"), FakeSource("down", error=Unavailable("down")))

    async def check(race: Race) -> None:
        for order in (sources, sources[::-1]):
            with pytest.raises(NotFound):
                await winner(race, *order, in_turn=in_turn)

    racing(check, *sources)


def test_nobody_knows_if_nobody_could_be_asked() -> None:
    async def check(race: Race) -> None:
        down = FakeSource("down", error=Unavailable("it is down"))
        with pytest.raises(Nowhere, match="it is down"):
            await winner(race, down)
        with pytest.raises(Nowhere):
            await winner(race)

    racing(check)


def test_of_two_that_answer_at_the_same_moment_one_is_let_go() -> None:
    one = FakeSource("one", SMALL, seconds=1 + HEDGE_SECONDS)
    two = FakeSource("two", SMALL, seconds=1)

    async def check(race: Race) -> None:
        assert await winner(race, one, two) in ("one", "two")

    racing(check, one, two)


def test_in_turn_a_slow_one_is_waited_for() -> None:
    slow, quick = FakeSource("slow", SMALL, seconds=9), FakeSource("quick", SMALL)

    async def check(race: Race) -> None:
        assert await winner(race, slow, quick, in_turn=True) == "slow"
        assert quick.asked == []

    racing(check, slow, quick)


def test_in_turn_one_that_fails_is_followed_by_the_next() -> None:
    mute, good = FakeSource("mute", hangs=True), FakeSource("good", SMALL)

    async def check(race: Race) -> None:
        assert await winner(race, mute, good, in_turn=True) == "good"
        assert now() > STALL_SECONDS

    racing(check, mute, good)


def test_cancelled_it_holds_nothing() -> None:
    sources = [FakeSource(str(number), SMALL, seconds=2) for number in range(4)]

    async def check(race: Race) -> None:
        asking = asyncio.create_task(race.first(DIGEST, sources, 0))
        await asyncio.sleep(SECOND)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [len(each.asked) for each in sources] == [1, 1, 1, 1]

    racing(check, *sources)


def test_a_mistake_is_not_taken_for_a_failure() -> None:
    class Mistaken(FakeSource):
        def open(self, *_: object) -> object:  # type: ignore[override]
            raise RuntimeError("ours")

    slow = FakeSource("slow", SMALL, seconds=1)

    async def check(race: Race) -> None:
        with pytest.raises(RuntimeError):
            await winner(race, Mistaken("mistaken"), slow)

    racing(check, slow)
