"""When to try again, and after how long: a pure rule, with time and luck as arguments.

Only what may work a moment later is tried again: a connection that failed, was cut or stalled,
and a server that said "not now". A server that names a time is obeyed; one that names a long time
ends the attempts at once, because whoever waits should know about it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tierce.core.errors import Unavailable

ATTEMPTS_MAX = 5
BACKOFF_MIN_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 10.0
RETRY_AFTER_MAX_SECONDS = 60.0


class TryAgain(Unavailable):
    """One attempt failed in a way that another may not. ``retry_after_seconds`` is the server's wish."""

    def __init__(
        self, message: str, *, hint: str = "", retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a client tries again. ``attempts`` counts the first one too."""

    attempts: int = ATTEMPTS_MAX
    backoff_min_seconds: float = BACKOFF_MIN_SECONDS
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS
    retry_after_max_seconds: float = RETRY_AFTER_MAX_SECONDS

    def delay_seconds(
        self, failures: int, retry_after_seconds: float | None, luck: float
    ) -> float | None:
        """The pause after ``failures`` failed attempts in a row, or None to give up.

        ``luck`` is a random number in [0, 1): clients that failed together must not return together.
        """
        if failures >= self.attempts:
            return None
        backoff = min(
            self.backoff_max_seconds, self.backoff_min_seconds * 2.0 ** min(failures - 1, 32)
        )
        if retry_after_seconds is None:
            return backoff * (0.5 + luck / 2)
        if retry_after_seconds > self.retry_after_max_seconds:
            return None
        return retry_after_seconds + self.backoff_min_seconds * luck


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110, section 10.2.3) as seconds from ``now``; None if unusable."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - now).total_seconds())
