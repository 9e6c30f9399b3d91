"""Which blob servers of SOS are tried last for now, since they failed or keep silent.

Nobody is left out: one that is avoided is asked after all others. How long depends on what it cost
to learn of the failure. A refused connection costs nothing, so it is soon tried again; a server that
hangs costs the whole time limit, and one that sends wrong bytes a broken download.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tierce.core.errors import Corrupt, DigestMismatch, TierceError
from tierce.core.limits import PEER_AVOIDED_SECONDS

# One that says nothing for so long is avoided, while who asked it goes on waiting.
SILENT_SECONDS = 5.0
SILENT_AVOIDED_SECONDS = 60.0
WRONG_AVOIDED_SECONDS = 60.0
# A failure counts for so many times as long as it was waited for.
WAITED_FACTOR = 5
LIMIT_SECONDS = 300.0


class SosAvoiding:
    """Remembers failures of servers by their base URLs. Belongs to one event loop."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def failed(self, url: str, failure: TierceError, waited_seconds: float) -> None:
        """A server failed, after it had been waited for without any progress."""
        seconds = max(PEER_AVOIDED_SECONDS, WAITED_FACTOR * waited_seconds)
        if isinstance(failure, Corrupt | DigestMismatch):
            seconds = max(seconds, WRONG_AVOIDED_SECONDS)
        self._avoid(url, min(seconds, LIMIT_SECONDS))

    def answered(self, url: str) -> None:
        """A server is well."""
        self._until.pop(url, None)

    def sorted(self, urls: Iterable[str]) -> list[str]:
        """The same servers in their order, those to be avoided last."""
        now = _now()
        return sorted(urls, key=lambda url: self._until.get(url, now) > now)

    @contextmanager
    def waiting(self, url: str) -> Iterator[None]:
        """Around the wait for a server's answer: others turn elsewhere where it takes long."""
        timer = asyncio.get_running_loop().call_later(
            SILENT_SECONDS, self._avoid, url, SILENT_AVOIDED_SECONDS
        )
        try:
            yield
        finally:
            timer.cancel()

    def _avoid(self, url: str, seconds: float) -> None:
        self._until[url] = _now() + seconds


def _now() -> float:
    return asyncio.get_running_loop().time()
