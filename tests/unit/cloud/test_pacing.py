"""The pace towards a service, on a clock of its own."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from opendal import exceptions

from tierce.cloud.pacing import (
    PACE_CLIENTS_FIRST,
    PACE_MIN_PER_SECOND,
    PACE_PAUSE_SECONDS,
    PACE_RECOVERY_SECONDS,
    RequestPace,
    background,
)
from tierce.cloud.retrying import Patience, Retrying
from tierce.core.errors import NotFound, Unavailable
from tierce.testing.virtual_time import run

MOMENT_SECONDS = 1.0  # of a clock that jumps
SLOW_DOWN = exceptions.RateLimited("RateLimited (temporary) at read")
SLOW_DOWN_FOR_8_SECONDS = exceptions.RateLimited(
    'RateLimited (temporary) at read\n\nContext:\n  response: {"retry-after": "8"}'
)
Check = Callable[[], Coroutine[Any, Any, None]]


def on_virtual_time(check: Check) -> Callable[[], None]:
    @functools.wraps(check)
    def wrapper() -> None:
        run(check())

    del wrapper.__wrapped__
    return wrapper


def now() -> float:
    return asyncio.get_running_loop().time()


async def times_of(turns: int, turn: Callable[[], Awaitable[None]]) -> list[float]:
    """When each of so many had its turn, from now on."""
    began = now()
    times: list[float] = []

    async def one() -> None:
        await turn()
        times.append(now() - began)

    await asyncio.gather(*(one() for _ in range(turns)))
    return times


def patiently(pace: RequestPace, seconds: float = 1e6) -> Callable[[], Awaitable[None]]:
    return lambda: pace.turn(seconds)


@on_virtual_time
async def test_without_a_limit_nobody_waits() -> None:
    assert await times_of(1000, patiently(RequestPace())) == [0.0] * 1000


@on_virtual_time
async def test_a_fixed_limit_holds_after_a_burst_of_a_second() -> None:
    pace = RequestPace(10.0)
    times = await times_of(50, patiently(pace))
    assert times[:10] == [0.0] * 10
    assert times[-1] == pytest.approx(4.0)
    assert max(sum(at <= each < at + 1 for each in times) for at in times) <= 20
    await asyncio.sleep(100 * MOMENT_SECONDS)
    times = await times_of(20, patiently(pace))
    assert times[:10] == [0.0] * 10
    assert times[-1] == pytest.approx(1.0)


@on_virtual_time
async def test_a_limit_below_one_a_second_lets_requests_through() -> None:
    assert await times_of(3, patiently(RequestPace(0.5))) == pytest.approx([0.0, 2.0, 4.0])


@on_virtual_time
async def test_who_would_wait_too_long_is_refused_at_once_and_the_queue_is_bounded() -> None:
    pace = RequestPace(10.0)
    results = await asyncio.gather(*(refused_at(pace, 3.0) for _ in range(1000)))
    refused = [at for at in results if at is not None]
    assert set(refused) == {0.0}
    assert 38 <= 1000 - len(refused) <= 41  # a burst of a second, and what three allow
    with pytest.raises(Unavailable) as caught:
        await asyncio.gather(*(pace.turn(3.0) for _ in range(1000)))
    assert "rate limit" in caught.value.hint
    assert caught.value.retry_after_seconds is not None
    assert caught.value.retry_after_seconds > 2.0


async def refused_at(pace: RequestPace, patience: float) -> float | None:
    try:
        await pace.turn(patience)
    except Unavailable:
        return now()
    return None


@on_virtual_time
async def test_one_who_leaves_the_queue_holds_up_nobody() -> None:
    pace = RequestPace(1.0)
    await pace.turn(0.0)
    leaving = [asyncio.create_task(pace.turn(100.0)) for _ in range(50)]
    await asyncio.sleep(0)
    assert pace.status()["waiting"] == 50
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert pace.status()["waiting"] == 0
    assert await times_of(1, patiently(pace)) == pytest.approx([1.0])


@on_virtual_time
async def test_told_to_slow_down_all_go_at_half_the_rate_once_for_answers_that_came_together() -> (
    None
):
    pace = RequestPace(luck=lambda: 0.0)
    sent_at = now()
    await times_of(100, patiently(pace))
    await asyncio.sleep(MOMENT_SECONDS / 2)
    for _ in range(30):
        pace.slow_down(sent_at)
    assert pace.status()["allowed_per_second"] == 50.0
    assert pace.status()["slow_downs"] == 30
    times = await times_of(100, patiently(pace))
    assert times[0] >= PACE_PAUSE_SECONDS
    assert 1.5 < times[-1] - PACE_PAUSE_SECONDS <= 2.0
    pace.slow_down(now())
    allowed = pace.status()["allowed_per_second"]
    assert isinstance(allowed, float)
    assert 20.0 < allowed < 30.0


@on_virtual_time
async def test_the_rate_grows_and_after_a_minute_there_is_no_limit_again() -> None:
    pace = RequestPace()
    await times_of(100, patiently(pace))
    pace.slow_down(now())
    before = 50.0
    for _ in range(5):
        await asyncio.sleep(PACE_RECOVERY_SECONDS / 6)
        allowed = pace.status()["allowed_per_second"]
        assert isinstance(allowed, float)
        assert allowed > before
        before = allowed
    await asyncio.sleep(PACE_RECOVERY_SECONDS / 6)
    assert pace.status()["allowed_per_second"] is None
    assert await times_of(1000, patiently(pace)) == [0.0] * 1000


@on_virtual_time
async def test_a_rate_never_falls_below_the_least() -> None:
    pace = RequestPace()
    for _ in range(50):
        await pace.turn(100.0)
        pace.slow_down(now())
    assert pace.status()["allowed_per_second"] == PACE_MIN_PER_SECOND


@on_virtual_time
async def test_nothing_is_sent_before_the_service_said() -> None:
    pace = RequestPace(luck=lambda: 1.0)
    pace.slow_down(now(), retry_after_seconds=20.0)
    with pytest.raises(Unavailable):
        await pace.turn(10.0)
    assert now() == 0.0
    times = await times_of(3, patiently(pace))
    assert times[0] == pytest.approx(25.0)


@on_virtual_time
async def test_background_work_keeps_to_its_own_limit_and_clients_do_not() -> None:
    pace = RequestPace(background_per_second=10.0)
    with background():
        others = asyncio.create_task(times_of(50, patiently(pace)))
    await asyncio.sleep(0)
    assert await times_of(50, patiently(pace)) == [0.0] * 50
    assert (await others)[-1] >= 4.0


@on_virtual_time
async def test_clients_go_first_and_the_background_never_stands_still() -> None:
    pace = RequestPace(10.0)
    await times_of(10, patiently(pace))
    with background():
        others = asyncio.create_task(times_of(20, patiently(pace)))
    await asyncio.sleep(0)
    clients = await times_of(40, patiently(pace))
    expected = 40 * (1 + 1 / PACE_CLIENTS_FIRST) / 10
    assert clients[-1] == pytest.approx(expected, abs=0.2)
    assert (await others)[-1] == pytest.approx(6.0, abs=0.2)


class Service:
    """Takes so many requests a second, and says so to the others."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._taken: list[float] = []
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        await asyncio.sleep(0.05)
        lately = [at for at in self._taken if at > now() - 1.0]
        if len(lately) >= self._per_second:
            raise SLOW_DOWN
        self._taken = [*lately, now()]
        return "done"


@on_virtual_time
async def test_a_service_that_takes_less_than_is_asked_serves_all_in_the_end() -> None:
    service = Service(50)
    retrying = Retrying(Patience(total_seconds=120.0))
    answers = await asyncio.gather(*(retrying.run("asking", service) for _ in range(1000)))
    assert answers == ["done"] * 1000
    assert now() < 80.0  # 20 s at best
    assert service.asked < 2200  # of a thousand that came at once, fifty were taken
    assert retrying.circuit.status()["circuit"] == "closed"


@on_virtual_time
async def test_a_service_that_only_says_slow_down_opens_no_circuit_and_patience_ends() -> None:
    retrying = Retrying(Patience(total_seconds=10.0, circuit_failures=3))

    async def attempt() -> None:
        raise SLOW_DOWN

    results = await asyncio.gather(
        *(retrying.run("asking", attempt) for _ in range(50)), return_exceptions=True
    )
    assert all(isinstance(each, Unavailable) for each in results)
    assert now() <= 10.0 + 1.0
    assert retrying.circuit.status()["circuit"] == "closed"
    assert "RateLimited" in str(retrying.circuit.status()["last_error"])
    assert retrying.pace.slow_downs > 3


@on_virtual_time
async def test_a_service_that_says_when_is_asked_then() -> None:
    answers: list[Exception | str] = [SLOW_DOWN_FOR_8_SECONDS, "done"]
    asked: list[float] = []

    async def attempt() -> str:
        asked.append(now())
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    retrying = Retrying(Patience())
    assert await retrying.run("asking", attempt) == "done"
    assert 8.0 <= asked[1] < 10.0


@on_virtual_time
async def test_what_must_be_asked_once_only_is_not_asked_again() -> None:
    asked = 0

    async def attempt() -> None:
        nonlocal asked
        asked += 1
        raise SLOW_DOWN

    with pytest.raises(Unavailable):
        await Retrying(Patience()).run("deleting", attempt, attempts=1)
    assert asked == 1


@on_virtual_time
async def test_every_attempt_is_told_with_how_it_ended() -> None:
    answers: list[Exception | str] = [
        SLOW_DOWN,
        exceptions.Unexpected("Unexpected (temporary) at read"),
        "done",
        exceptions.NotFound("NotFound (permanent) at read"),
        exceptions.PermissionDenied("PermissionDenied (permanent) at read"),
    ]
    told: list[tuple[str, str]] = []
    retrying = Retrying(Patience(), on_answer=lambda kind, result: told.append((kind, result)))

    async def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    await retrying.run("reading", attempt, kind="read")
    with pytest.raises(NotFound):
        await retrying.run("reading", attempt, kind="read")
    with pytest.raises(Exception, match="PermissionDenied"):
        await retrying.run("reading", attempt, kind="read")
    results = [result for _, result in told]
    assert results == ["slow_down", "failed", "ok", "missing", "refused"]
