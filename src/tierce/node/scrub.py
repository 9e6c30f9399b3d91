"""The scrub: verifies all local blobs in digest order, at a pace that leaves the disk to the clients.

Then it rests, and begins again. A bad copy is set aside by the store, and healing is told.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError
from tierce.core.limits import SCRUB_PAGE_BLOBS, SCRUB_REST_SECONDS
from tierce.core.metrics import SCRUBBED_BLOBS, SCRUBBED_BYTES

log = logging.getLogger(__name__)


class Scrub:
    """Pauses for ``interval_seconds`` after each blob, or longer for ``bytes_per_second``."""

    def __init__(
        self,
        store: BlobStore,
        *,
        interval_seconds: float,
        bytes_per_second: float,
        on_bad: Callable[[Digest], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._interval_seconds = interval_seconds
        self._bytes_per_second = bytes_per_second
        self._on_bad = on_bad
        self._wall_clock = wall_clock
        self._checked = 0
        self._bad = 0
        self._passes = 0
        self._last_pass: str | None = None

    def status(self) -> dict[str, Any]:
        """How it goes: counts since the start; when the last full pass ended (UTC)."""
        return {
            "checked_blobs": self._checked,
            "bad_blobs": self._bad,
            "passes": self._passes,
            "last_pass": self._last_pass,
        }

    async def run(self) -> None:
        """Scrub until cancelled."""
        while True:
            try:
                await self.scrub_once()
            except TierceError as error:
                log.error("the scrub was interrupted: %s", error)
            await asyncio.sleep(SCRUB_REST_SECONDS)

    async def scrub_once(self) -> None:
        """One full pass over all blobs, paced."""
        after: Digest | None = None
        while page := await self._store.list_after(after, SCRUB_PAGE_BLOBS):
            for info in page:
                await self._check(info.digest)
                pause = max(self._interval_seconds, info.size / self._bytes_per_second)
                await asyncio.sleep(pause)
            after = page[-1].digest
        self._passes += 1
        self._last_pass = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock()))

    async def _check(self, digest: Digest) -> None:
        try:
            size = await self._store.verify(digest, repair=True)
        except NotFound:
            return
        except Corrupt:
            self._bad += 1
            size = 0
            self._on_bad(digest)
        self._checked += 1
        SCRUBBED_BLOBS.inc()
        SCRUBBED_BYTES.inc(size)
