"""How many requests a second a process sends to a service: as many as its operator and it allow.

There are three limits. A fixed one is the operator's. Another one there is while the service says that
it is asked too much: then all requests of the process stop for a moment, go on at half the rate, and a
little faster each second, until a minute has passed without such an answer. A third one is
for background work, such as the scrub and healing; and while requests wait, those of clients go first,
though one of each few is the background's, so that it never stands still.

Whoever would wait longer than its patience is refused at once, which bounds the queue too. All times
are the event loop's.
"""

import asyncio
import contextlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from tierce.cloud.failures import STORE
from tierce.core.errors import Unavailable
from tierce.core.metrics import SLOW_DOWNS

PACE_MIN_PER_SECOND = 1.0
PACE_RECOVERY_SECONDS = 60.0
"""After so long without being told to slow down there is no such limit any more."""
PACE_HOLD_MAX_SECONDS = 300.0
"""The longest that a service's word on when to ask again is heeded."""
PACE_PAUSE_SECONDS = 0.5
"""How long nothing is sent when it does not say; services count by the second."""
PACE_BURST_SECONDS = 1.0
"""A fixed limit lets what was not used for so long be made up for."""
PACE_CLIENTS_FIRST = 4
"""How many requests of clients go before one of the background, while both wait."""

_ENOUGH = 1.0 - 1e-6

_in_background: ContextVar[bool] = ContextVar("in_background", default=False)


@contextlib.contextmanager
def background(is_so: bool = True) -> Iterator[None]:
    """What is asked inside, and in tasks begun inside, is background work, if ``is_so``."""
    token = _in_background.set(is_so or is_background())
    try:
        yield
    finally:
        _in_background.reset(token)


def is_background() -> bool:
    """Whether what is asked here is background work."""
    return _in_background.get()


class _Tokens:
    """They come at a rate, one for each request. A rate of infinity needs none."""

    def __init__(self, now: float, burst: float) -> None:
        self._tokens = burst
        self._at = now

    def wait_seconds(self, now: float, rate: float, burst: float) -> float:
        """How long until there is a token, at this rate from now on."""
        if math.isinf(rate):
            return 0.0
        # With a new rate, only what comes from now on comes at that.
        self._tokens = min(max(1.0, burst), self._tokens + (now - self._at) * rate)
        self._at = now
        return 0.0 if self._tokens >= _ENOUGH else (1.0 - self._tokens) / rate

    def take(self) -> None:
        self._tokens -= 1.0


class RequestPace:
    """The pace of a process towards one service. 0 requests a second is no limit.

    It belongs to one event loop. ``what`` is as in failures.py, ``luck`` is in [0, 1).
    """

    def __init__(
        self,
        per_second: float = 0.0,
        *,
        background_per_second: float = 0.0,
        what: str = STORE,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._what = what
        self._luck = luck
        self._fixed = per_second or math.inf
        self._background = background_per_second or math.inf
        self._allowed = math.inf
        self._step = 0.0
        self._slowed_at = -math.inf
        self._grown_at = 0.0
        self._held_until = -math.inf
        self._tokens: _Tokens | None = None
        self._background_tokens: _Tokens | None = None
        self._clients: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._clients_in_a_row = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._sent_now = 0
        self._sent_before = 0
        self.slow_downs = 0

    # Waiting

    async def turn(self, patience_seconds: float) -> None:
        """Wait until a request may be sent. Raises Unavailable if that takes longer than patience."""
        now = _now()
        self._grow(now)
        in_background = is_background()
        if in_background and not math.isinf(self._background):
            patience_seconds -= await self._background_turn(now, patience_seconds)
            now = _now()
        wait = self._due_seconds(now)
        if not wait and not self._clients and not self._others:
            self._send(now)
            return
        queue = self._others if in_background else self._clients
        ahead = len(self._clients) + (len(self._others) if in_background else 0)
        if wait + ahead / self._rate >= patience_seconds:
            raise self._refusal(wait + ahead / self._rate, self._rate)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        self._pump()
        try:
            async with asyncio.timeout(patience_seconds):
                await mine
        except TimeoutError:
            raise self._refusal(self._due_seconds(_now()), self._rate) from None
        finally:
            if mine in queue:
                queue.remove(mine)

    async def _background_turn(self, now: float, patience_seconds: float) -> float:
        """Wait for the background's own limit; returns how long that took."""
        tokens = self._background_tokens
        if tokens is None:
            tokens = self._background_tokens = _Tokens(now, 1.0)
        burst = self._background * PACE_BURST_SECONDS
        wait = tokens.wait_seconds(now, self._background, burst)
        if wait > patience_seconds:
            raise self._refusal(wait, self._background)
        tokens.take()
        if wait:
            await asyncio.sleep(wait)
        return wait

    @property
    def _rate(self) -> float:
        return min(self._fixed, self._allowed)

    def _due_seconds(self, now: float) -> float:
        """How long until the next request may go."""
        if self._tokens is None:
            self._tokens = _Tokens(now, max(1.0, self._burst))
        wait = self._tokens.wait_seconds(now, self._rate, self._burst)
        return max(wait, self._held_until - now, 0.0)

    @property
    def _burst(self) -> float:
        """How many requests may go at once: as a service is told to be spared, one."""
        if not math.isinf(self._allowed) or math.isinf(self._fixed):
            return 1.0
        return self._fixed * PACE_BURST_SECONDS

    def _send(self, now: float) -> None:
        if self._tokens is not None and not math.isinf(self._rate):
            self._tokens.take()
        second = math.floor(now)
        if second != self._second:
            self._sent_before = self._sent_now if second == self._second + 1 else 0
            self._second, self._sent_now = second, 0
        self._sent_now += 1

    def _pump(self) -> None:
        """Let those go whose turn it is, and come again when it is the next one's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._clients or self._others:
            now = _now()
            self._grow(now)
            if wait := self._due_seconds(now):
                self._timer = asyncio.get_running_loop().call_later(wait, self._pump)
                return
            following = self._next()
            if not following.done():
                self._send(now)
                following.set_result(None)

    def _next(self) -> "asyncio.Future[None]":
        is_others = not self._clients or (
            bool(self._others) and self._clients_in_a_row >= PACE_CLIENTS_FIRST
        )
        self._clients_in_a_row = 0 if is_others else self._clients_in_a_row + 1
        return (self._others if is_others else self._clients).popleft()

    def _refusal(self, wait: float, rate: float) -> Unavailable:
        seconds = max(1.0, wait)
        again = f"ask again in {seconds:.0f} s"
        if rate == self._allowed:
            hint = f"its service says that it is asked too much; {again}."
        else:
            hint = f"{again}, or raise the setting if the service allows more."
        waiting = len(self._clients) + len(self._others)
        return Unavailable(
            f"the {self._what} is asked {rate:.3g} times a second at most now,"
            f" and {waiting} requests are waiting",
            hint=f"The {self._what}'s rate limit is reached: {hint}",
            retry_after_seconds=seconds,
        )

    # What the service says

    def slow_down(self, sent_at: float, retry_after_seconds: float = 0.0) -> None:
        """A request that was sent at that time was refused, as the service is asked too much."""
        now = _now()
        self._grow(now)
        self.slow_downs += 1
        SLOW_DOWNS.labels(self._what).inc()
        # Those that were on their way together are one answer.
        is_new = sent_at >= self._slowed_at
        if retry_after_seconds > 0 or is_new:
            hold = max(retry_after_seconds, PACE_PAUSE_SECONDS)
            # Processes that were told the same don't return together.
            hold = min(hold, PACE_HOLD_MAX_SECONDS) * (1 + self._luck() / 4)
            self._held_until = max(self._held_until, now + hold)
        if is_new:
            self._due_seconds(now)  # what came until now came at the old rate
            is_adjacent = math.floor(now) <= self._second + 1
            seen = max(self._sent_now, self._sent_before) if is_adjacent else 1
            before = min(self._allowed, max(float(seen), PACE_MIN_PER_SECOND))
            self._allowed = max(PACE_MIN_PER_SECOND, before / 2)
            self._step = max(self._step, before / PACE_RECOVERY_SECONDS, PACE_MIN_PER_SECOND)
            self._slowed_at = self._grown_at = now
        if self._clients or self._others:
            self._pump()

    def _grow(self, now: float) -> None:
        """Allow a little more for each second that passed since the service said to slow down."""
        if math.isinf(self._allowed):
            return
        if now - self._slowed_at >= PACE_RECOVERY_SECONDS and now >= self._held_until:
            self._allowed, self._step = math.inf, 0.0
            return
        if now > self._held_until:
            since = max(self._grown_at, self._held_until)
            self._allowed += (now - since) * self._step
        self._grown_at = now

    def status(self) -> dict[str, object]:
        """For status pages: rates in requests a second, None for no limit, and an age in seconds."""
        now = _now()
        self._grow(now)
        rate = self._rate
        return {
            "allowed_per_second": None if math.isinf(rate) else round(rate, 3),
            "limit_per_second": None if math.isinf(self._fixed) else self._fixed,
            "background_per_second": None if math.isinf(self._background) else self._background,
            "held_seconds": round(max(0.0, self._held_until - now), 3),
            "waiting": len(self._clients) + len(self._others),
            "slow_downs": self.slow_downs,
            "last_slow_down_age_seconds": (
                round(now - self._slowed_at, 3) if self.slow_downs else None
            ),
        }


def _now() -> float:
    return asyncio.get_running_loop().time()
