"""Asking until enough have done it: how many are asked, and who takes the place of whom."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.node.fakes import left_running, members
from tests.unit.node.record_nodes import passes

from tierce.cluster.member import Member
from tierce.core.errors import Refused, Unavailable
from tierce.node.enough import enough
from tierce.testing import virtual_time


class Asked:
    """Notes who was asked, in order, and who did it. ``seconds`` and ``failing`` are by name."""

    def __init__(self, *, failing: str = "", **seconds: float) -> None:
        self.failing = failing
        self.seconds = seconds
        self.names = ""
        self.done = ""

    async def __call__(self, member: Member) -> None:
        self.names += member.node_id
        await asyncio.sleep(self.seconds.get(member.node_id, 0.1))
        if member.node_id in self.failing:
            raise Unavailable(f"{member.node_id} fails")
        self.done += member.node_id


async def ask(asked: Callable[[Member], Awaitable[object]], wanted: int, count: int = 5) -> None:
    await enough(wanted, members(count), asked, patience_seconds=2.0, what="it was done")


CASES = [
    # how many are wanted, who fails, how long they take: who is asked, who did it, and when
    (0, "", {}, "", "", 0.0),
    (2, "", {}, "ab", "ab", 0.1),
    (2, "a", {}, "abc", "bc", 0.2),
    (2, "abc", {}, "abcde", "de", 0.3),
    (1, "", {"a": 9.0}, "ab", "b", 2.1),
    (2, "", {"a": 9.0, "b": 9.0}, "abcd", "cd", 2.1),
    (2, "", {"a": 2.05, "b": 9.0}, "abcd", "ac", 2.1),
    (1, "a", {"a": 3.0, "b": 9.0}, "abc", "c", 3.1),
    # All are late: the first that does it after all counts.
    (1, "", dict.fromkeys("abcde", 9.0), "abcde", "a", 9.0),
]


@pytest.mark.parametrize(("wanted", "failing", "seconds", "names", "done", "when"), CASES, ids=str)
def test_who_is_asked_and_when_it_ends(
    wanted: int, failing: str, seconds: dict[str, float], names: str, done: str, when: float
) -> None:
    async def check() -> None:
        asked = Asked(failing=failing, **seconds)
        await ask(asked, wanted)
        assert len(asked.done) >= wanted
        assert (asked.names, asked.done[:2]) == (names, done)
        assert asyncio.get_running_loop().time() == pytest.approx(when, abs=0.06)
        assert await left_running() == []

    virtual_time.run(check())


@pytest.mark.parametrize(("failing", "count"), [("abcd", 5), ("", 1), ("b", 2)])
def test_too_few_are_no_success_and_the_last_failure_is_told(failing: str, count: int) -> None:
    async def check() -> None:
        with pytest.raises(Unavailable, match="it was done on 1 of 2") as caught:
            await ask(Asked(failing=failing), 2, count)
        if failing:
            assert any(f"{each} fails" in caught.value.message for each in failing)
        assert await left_running() == []

    virtual_time.run(check())


def test_a_refusal_counts_as_a_failure_and_a_mistake_is_raised() -> None:
    async def refuse(member: Member) -> None:
        raise Refused("no")

    async def mistaken(member: Member) -> None:
        raise ZeroDivisionError

    async def check() -> None:
        with pytest.raises(Unavailable, match="on 0 of 1"):
            await ask(refuse, 1)
        with pytest.raises(ZeroDivisionError):
            await ask(mistaken, 1)

    virtual_time.run(check())


def test_whoever_gives_up_waiting_leaves_nobody_asked() -> None:
    async def check() -> None:
        waiting = asyncio.create_task(ask(Asked(a=99.0), 1, 1))
        await passes(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await left_running() == []

    virtual_time.run(check())
