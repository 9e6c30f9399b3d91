"""How often and how long a service is asked, and when it is left alone for a while.

What may pass is tried again, after a pause that doubles each time and is cut by chance, so that
nodes that failed together don't return together. Every attempt has a bound by progress, and new ones
begin within a bounded time only. After several failures in a row the circuit opens: for some seconds
each request fails at once, so that a dead service holds up nobody; then one is let through to try.

What the service answered, if only by "no", is no failure of it. Nor is it one that it is asked too much:
then all requests slow down together (pacing.py), and the attempt is made again when its turn comes.
All times are the event loop's.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tierce.cloud.failures import (
    OPENDAL_ERRORS,
    UPSTREAM,
    Contended,
    Passing,
    SlowDown,
    timed_out,
    translate,
)
from tierce.cloud.pacing import RequestPace
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import KIB
from tierce.core.metrics import CIRCUIT_OPENED

T = TypeVar("T")

CLOUD_ATTEMPTS = 5
CLOUD_BACKOFF_MIN_SECONDS = 0.2
CLOUD_BACKOFF_MAX_SECONDS = 5.0
CLOUD_TOTAL_SECONDS = 30.0
CLOUD_STALL_SECONDS = 10.0
CLOUD_MIN_BYTES_PER_SECOND = 64 * KIB
CLOUD_CIRCUIT_FAILURES = 5
CLOUD_CIRCUIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds. ``attempts`` counts the first too; no attempt begins after ``total_seconds``.

    A body is given ``stall_seconds`` and its size over ``min_bytes_per_second``, as nobody can see
    how much of one request has gone out.
    """

    attempts: int = CLOUD_ATTEMPTS
    backoff_min_seconds: float = CLOUD_BACKOFF_MIN_SECONDS
    backoff_max_seconds: float = CLOUD_BACKOFF_MAX_SECONDS
    total_seconds: float = CLOUD_TOTAL_SECONDS
    stall_seconds: float = CLOUD_STALL_SECONDS
    min_bytes_per_second: float = CLOUD_MIN_BYTES_PER_SECOND
    circuit_failures: int = CLOUD_CIRCUIT_FAILURES
    circuit_seconds: float = CLOUD_CIRCUIT_SECONDS

    def body_seconds(self, size: int) -> float:
        """The longest that one request may take whose body has ``size`` bytes."""
        return self.stall_seconds + size / self.min_bytes_per_second

    def pause_seconds(self, failures: int, luck: float) -> float:
        """The pause after ``failures`` failures in a row. ``luck`` is in [0, 1)."""
        longest = min(
            self.backoff_max_seconds, self.backoff_min_seconds * 2.0 ** min(failures - 1, 32)
        )
        return longest * (0.5 + luck / 2)


class Circuit:
    """Counts failures in a row, and says when the service is left alone."""

    def __init__(self, patience: Patience, what: str = UPSTREAM) -> None:
        self._patience = patience
        self._what = what
        self._open_until = 0.0
        self._last_success = 0.0
        self._last_failure = 0.0
        self.failures_in_a_row = 0
        self.last_error = ""
        self.succeeded_count = 0
        self.failed_count = 0

    @property
    def is_open(self) -> bool:
        """Whether a request would fail at once."""
        return self._has_opened and _now() < self._open_until

    @property
    def _has_opened(self) -> bool:
        return self.failures_in_a_row >= self._patience.circuit_failures

    def check(self) -> None:
        """Raise Unavailable while the circuit is open."""
        left = self._open_until - _now()
        if self._has_opened and left > 0:
            raise Unavailable(
                f"the {self._what} failed several times in a row, and is left alone for a while;"
                f" the last: {self.last_error}",
                hint=f"Look at the {self._what}'s status; it is asked again in {left:.0f} s.",
                retry_after_seconds=left,
            )

    def enter(self) -> None:
        """Begin a request. Raises Unavailable while the circuit is open."""
        self.check()
        if not self._has_opened:
            return
        # This request tries it out; if it never ends, another may after as long again.
        self._open_until = _now() + self._patience.circuit_seconds

    def succeeded(self) -> None:
        """The service answered."""
        self.failures_in_a_row = 0
        self.succeeded_count += 1
        self._last_success = _now()

    def refused(self, error: TierceError) -> None:
        """The service answered that it is asked too much: it is not dead."""
        self.failures_in_a_row = 0
        self._note(error)

    def failed(self, error: TierceError) -> None:
        """The service failed."""
        self.failures_in_a_row += 1
        self._note(error)
        if self.failures_in_a_row == self._patience.circuit_failures:
            CIRCUIT_OPENED.labels(self._what).inc()
        if self._has_opened:
            self._open_until = _now() + self._patience.circuit_seconds

    def _note(self, error: TierceError) -> None:
        self.failed_count += 1
        self.last_error = error.message
        self._last_failure = _now()

    def status(self) -> dict[str, object]:
        """For status pages: ages in seconds, None for what never was."""
        return {
            "circuit": "open" if self.is_open else "trying" if self._has_opened else "closed",
            "failures_in_a_row": self.failures_in_a_row,
            "last_error": self.last_error,
            "last_error_age_seconds": _now() - self._last_failure if self.failed_count else None,
            "last_success_age_seconds": (
                _now() - self._last_success if self.succeeded_count else None
            ),
            "requests_succeeded": self.succeeded_count,
            "requests_failed": self.failed_count,
        }


class Retrying:
    """Runs requests within the bounds, at one pace, through one circuit. ``what`` is as in failures.py.

    ``on_answer`` is told of each request that has a kind, and how it ended: ``ok``, ``missing``,
    ``slow_down``, ``refused`` or ``failed``.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        what: str = UPSTREAM,
        luck: Callable[[], float] = random.random,
        pace: RequestPace | None = None,
        on_answer: Callable[[str, str], None] = lambda kind, result: None,
    ) -> None:
        self.patience = patience
        self.what = what
        self.circuit = Circuit(patience, what)
        self.pace = pace or RequestPace(what=what)
        self._luck = luck
        self._on_answer = on_answer

    async def run(
        self,
        doing: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        seconds: float | None = None,
        attempts: int | None = None,
        kind: str = "",
    ) -> T:
        """Attempt something until it works, each attempt for ``seconds`` (default: stall_seconds).

        Waiting for its turn counts among ``total_seconds``. ``attempt`` may raise what OpenDAL
        raises, Passing or NotFound. Raises Unavailable when the bounds are reached, and what can't
        pass at once.
        """
        trials = self.trials(attempts)
        while True:
            try:
                left = trials.seconds_left
                return await self.once(doing, attempt, seconds=seconds, kind=kind, patience=left)
            except Passing as error:
                await trials.pause(error)

    async def once(
        self,
        doing: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        seconds: float | None = None,
        is_step: bool = False,
        is_request: bool = True,
        kind: str = "",
        patience: float | None = None,
    ) -> T:
        """One attempt. Raises Passing for what another may do.

        A step is of a longer attempt, whose owner enters the circuit and tells it of the success.
        A request waits for its turn for ``patience`` seconds at most (default: total_seconds).
        """
        if not is_step:
            self.circuit.check()
        if is_request:
            await self.pace.turn(self.patience.total_seconds if patience is None else patience)
        if not is_step:
            self.circuit.enter()
        sent_at = _now()
        limit = self.patience.stall_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                answer = await attempt()
        except TimeoutError:
            failure: TierceError = timed_out(doing, limit, self.what)
        except (Passing, NotFound) as error:
            failure = error
        except OPENDAL_ERRORS as error:
            failure = translate(error, doing, self.what)
        else:
            if not is_step:
                self.circuit.succeeded()
            if kind:
                self._on_answer(kind, "ok")
            return answer
        if kind:
            self._on_answer(kind, _result_of(failure))
        if isinstance(failure, SlowDown):
            self.pace.slow_down(sent_at, failure.retry_after_seconds or 0.0)
            self.circuit.refused(failure)
        elif isinstance(failure, Unavailable) and not isinstance(failure, Contended):
            self.circuit.failed(failure)
        else:
            self.circuit.succeeded()
        raise failure

    def trials(self, attempts: int | None = None) -> "Trials":
        """Begin to count the failures of one request."""
        return Trials(self, self.patience.attempts if attempts is None else attempts)

    def pause_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return self.patience.pause_seconds(failures, self._luck())


class Trials:
    """The failures in a row of one request."""

    def __init__(self, retrying: Retrying, attempts: int) -> None:
        self._retrying = retrying
        self._attempts = attempts
        self._failures = 0
        self._deadline = _now() + retrying.patience.total_seconds

    @property
    def seconds_left(self) -> float:
        """How long an attempt may wait until it begins."""
        return max(0.0, self._deadline - _now())

    def progressed(self) -> None:
        """Something came: the failures so far don't count any more."""
        self._failures = 0
        self._deadline = _now() + self._retrying.patience.total_seconds

    async def pause(self, error: Passing) -> None:
        """Wait before the next attempt; raises the error if there must not be one."""
        if isinstance(error, SlowDown) and self._attempts > 1 and self.seconds_left:
            return  # its turn comes later, as that of all others: that is pause enough
        self._failures += 1
        # A request that may be carried out late goes out once; one that was refused was not.
        is_refused = isinstance(error, Contended)
        attempts = self._retrying.patience.attempts if is_refused else self._attempts
        pause = self._retrying.pause_seconds(self._failures)
        is_late = _now() + pause >= self._deadline
        if self._failures >= attempts or is_late or self._retrying.circuit.is_open:
            raise error
        await asyncio.sleep(pause)


def _result_of(failure: TierceError) -> str:
    if isinstance(failure, SlowDown):
        return "slow_down"
    if isinstance(failure, NotFound):
        return "missing"
    return "failed" if isinstance(failure, Unavailable) else "refused"


def _now() -> float:
    return asyncio.get_running_loop().time()
