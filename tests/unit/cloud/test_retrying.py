"""Attempts, pauses and the circuit, on a clock of their own."""

import asyncio
from dataclasses import replace

import pytest
from opendal import exceptions

from tierce.cloud.failures import Lasting, Passing, SlowDown, translate
from tierce.cloud.retrying import Patience, Retrying
from tierce.core.errors import (
    BadRequest,
    NotFound,
    Refused,
    TierceError,
    TooLarge,
    Unavailable,
)
from tierce.testing.virtual_time import run

PATIENCE = Patience(
    attempts=4,
    backoff_min_seconds=1.0,
    backoff_max_seconds=4.0,
    total_seconds=60.0,
    stall_seconds=10.0,
    circuit_failures=6,
    circuit_seconds=30.0,
)
MOMENT_SECONDS = 1.0  # of a clock that jumps
TEMPORARY = exceptions.Unexpected("Unexpected (temporary) at stat => send http request")
PERMANENT = exceptions.Unexpected("Unexpected (permanent) at stat => no")
MISSING = exceptions.NotFound("NotFound (permanent) at stat")


class Script:
    """Answers in order: an exception is raised, a float is slept, anything else returned."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.times: list[float] = []

    async def __call__(self) -> object:
        self.times.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        return answer


def retrying(luck: float = 1.0, patience: Patience = PATIENCE) -> Retrying:
    return Retrying(patience, luck=lambda: luck)


def test_what_may_pass_is_tried_again_after_longer_and_longer_pauses() -> None:
    async def check() -> None:
        script = Script(TEMPORARY, TEMPORARY, TEMPORARY, "done")
        assert await retrying().run("x", script) == "done"
        start = script.times[0]
        assert [time - start for time in script.times] == [0.0, 1.0, 3.0, 7.0]

    run(check())


def test_pauses_differ_by_chance_and_have_a_most() -> None:
    pauses = [PATIENCE.pause_seconds(failures, 1.0) for failures in range(1, 1100)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 4.0]
    assert max(pauses) == 4.0
    assert PATIENCE.pause_seconds(1, 0.0) == 0.5


def test_attempts_end() -> None:
    async def check() -> None:
        script = Script(*[TEMPORARY] * 9)
        with pytest.raises(Unavailable, match="send http request"):
            await retrying().run("x", script)
        assert len(script.times) == PATIENCE.attempts

    run(check())


def test_no_attempt_begins_after_the_total_time() -> None:
    async def check() -> None:
        patience = Patience(attempts=100, total_seconds=12.0, stall_seconds=5.0)
        script = Script(*[100.0] * 100)
        with pytest.raises(Unavailable, match="no progress in 5 s"):
            await retrying(patience=patience).run("x", script)
        assert script.times[-1] - script.times[0] < 12.0

    run(check())


@pytest.mark.parametrize("answer", [PERMANENT, MISSING])
def test_what_can_not_pass_is_told_at_once(answer: Exception) -> None:
    async def check() -> None:
        script = Script(answer)
        with pytest.raises(TierceError):
            await retrying().run("x", script)

    run(check())


def test_the_circuit_opens_and_lets_one_through_after_a_while() -> None:
    async def check() -> None:
        asked = retrying()
        with pytest.raises(Unavailable):
            await asked.run("x", Script(*[TEMPORARY] * 4))
        assert asked.circuit.status()["circuit"] == "closed"
        with pytest.raises(Unavailable):
            await asked.run("x", Script(*[TEMPORARY] * 2))
        assert asked.circuit.status()["circuit"] == "open"
        never = Script()
        with pytest.raises(Unavailable, match="left alone"):
            await asked.run("x", never)
        await asyncio.sleep(PATIENCE.circuit_seconds)
        assert asked.circuit.status()["circuit"] == "trying"
        slow = asyncio.create_task(asked.run("x", Script(5.0)))
        await asyncio.sleep(MOMENT_SECONDS)
        with pytest.raises(Unavailable, match="left alone"):
            await asked.run("x", never)
        assert await slow == 5.0
        assert asked.circuit.status()["circuit"] == "closed"
        assert await asked.run("x", Script("done")) == "done"
        assert never.times == []

    run(check())


def test_a_trial_that_never_ended_does_not_keep_the_circuit_open() -> None:
    async def check() -> None:
        asked = retrying()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await asked.run("x", Script(*[TEMPORARY] * 4))
        await asyncio.sleep(PATIENCE.circuit_seconds)
        trial = asyncio.create_task(asked.run("x", Script(5.0)))
        await asyncio.sleep(MOMENT_SECONDS)
        trial.cancel()
        await asyncio.sleep(PATIENCE.circuit_seconds)
        assert await asked.run("x", Script("done")) == "done"

    run(check())


def test_an_answer_of_no_is_no_failure() -> None:
    async def check() -> None:
        asked = retrying()
        for _ in range(20):
            with pytest.raises(NotFound):
                await asked.run("x", Script(MISSING))
        assert asked.circuit.status()["requests_failed"] == 0

    run(check())


def test_nor_is_one_of_ours_which_closes_the_circuit_as_well() -> None:
    async def check() -> None:
        tried = retrying(patience=replace(PATIENCE, circuit_failures=1, attempts=1))
        with pytest.raises(Passing):
            await tried.run("x", Script(TEMPORARY))
        await asyncio.sleep(PATIENCE.circuit_seconds)
        with pytest.raises(NotFound, match="it ends before"):
            await tried.run("x", Script(NotFound("it ends before")))
        assert await tried.run("x", Script("done")) == "done"

    run(check())


def test_the_status_tells_ages() -> None:
    async def check() -> None:
        asked = retrying()
        status = asked.circuit.status()
        assert (status["last_error_age_seconds"], status["last_success_age_seconds"]) == (
            None,
            None,
        )
        await asked.run("x", Script(TEMPORARY, "done"))
        await asyncio.sleep(10 * MOMENT_SECONDS)
        status = asked.circuit.status()
        assert status["last_error_age_seconds"] == 11.0
        assert status["last_success_age_seconds"] == 10.0
        assert (status["requests_failed"], status["requests_succeeded"]) == (1, 1)
        assert "send http request" in str(status["last_error"])

    run(check())


def test_more_time_is_given_to_a_large_body() -> None:
    assert PATIENCE.body_seconds(0) == PATIENCE.stall_seconds
    assert PATIENCE.body_seconds(64 * 1024 * 100) == PATIENCE.stall_seconds + 100


S3_ERROR = (
    'ConfigInvalid (permanent) at list => S3Error {{ code: "{code}", message: "{message}", '
    'resource: "b", request_id: "" }}\n\nContext:\n   uri: http://h/b?X-Amz-Signature=hidden\n'
)
CASES: list[tuple[str, type[TierceError], str]] = [
    (S3_ERROR.format(code="NoSuchBucket", message="none"), Lasting, "none (NoSuchBucket)"),
    (S3_ERROR.format(code="ExpiredToken", message="old"), Refused, "old (ExpiredToken)"),
    ("Unexpected (permanent) at stat\n\nContext:\n   x: status: 400, y", Lasting, "400"),
    (S3_ERROR.format(code="EntityTooLarge", message=""), TooLarge, "EntityTooLarge"),
    (S3_ERROR.format(code="MetadataTooLarge", message="m"), TooLarge, "MetadataTooLarge"),
    ("NotFound (permanent) at stat\n\nContext:\n   uri: hidden", NotFound, "NotFound"),
    ("PermissionDenied (permanent) at stat\n\nContext:\n   x: status: 403,", Refused, "403"),
    ("RateLimited (temporary) at write\n\nContext:\n", SlowDown, "RateLimited"),
    (S3_ERROR.format(code="SlowDown", message="less"), SlowDown, "less (SlowDown)"),
    (S3_ERROR.format(code="ServerBusy", message="less"), SlowDown, "less (ServerBusy)"),
    ("Unexpected (permanent) at read\n\nContext:\n   x: status: 429, y", SlowDown, "429"),
    (
        'Unexpected (temporary) at stat\n\nContext:\n   x: status: 503, {"retry-after": "7"}',
        SlowDown,
        "503",
    ),
    ("Unsupported (permanent) at write => OneShot\n\nContext:", BadRequest, "OneShot"),
    (
        "Unexpected (temporary) at stat\n\nContext:\n   x: status: 503, y",
        Passing,
        "HTTP status 503",
    ),
    ("Unexpected (persistent) at write => operation timeout reached\n", Unavailable, "timeout"),
    (
        "Unexpected (temporary) at read, context: { url: hidden } => read data, source: error",
        Passing,
        "read data, source: error",
    ),
    (
        "Unexpected (temporary) at stat => send http request\n\nContext:\n   url: hidden\n\nSource:\n"
        "   tcp connect error: Connection refused (os error 111)\n\nBacktrace:\n   0: x",
        Passing,
        "Connection refused",
    ),
    ("something else altogether", Passing, "something else"),
]


@pytest.mark.parametrize(("text", "kind", "told"), CASES)
def test_opendals_words_become_our_errors(text: str, kind: type[TierceError], told: str) -> None:
    error = translate(OSError(text), "testing")
    assert type(error) is kind
    assert told in error.message
    assert "while testing" in error.message
    assert "hidden" not in error.message + error.hint


def test_missing_credentials_are_told_as_such() -> None:
    text = (
        "Unexpected (permanent) at stat => signing\n\nSource:\n   failed to load signing credential"
    )
    error = translate(exceptions.Unexpected(text), "testing")
    assert type(error) is Lasting
    assert "AWS_ACCESS_KEY_ID" in error.hint
