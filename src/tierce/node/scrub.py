"""The scrub: verifies all local blobs in digest order, at a pace that leaves the disk to the clients.

Then it rests, and begins again. A bad copy is set aside by the store, and healing is told. Blobs that
something else vouches for are passed over: those that the store says are not due.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from tierce.blobs.store import BlobInfo, BlobStore
from tierce.cloud.pacing import background
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError
from tierce.core.limits import SCRUB_PAGE_BLOBS, SCRUB_REST_SECONDS
from tierce.core.metrics import SCRUBBED_BLOBS, SCRUBBED_BYTES

log = logging.getLogger(__name__)

IsDue: TypeAlias = Callable[[Sequence[Digest]], Awaitable[list[bool]]]
"""For each blob whether it must be verified. It may ask the disk, but no service."""


class Scrub:
    """Pauses for ``interval_seconds`` after each blob, or longer for ``bytes_per_second``.

    And after each page of which no blob is due, so that going round and round costs little too. After
    a pass it rests for ``rest_seconds``.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        interval_seconds: float,
        bytes_per_second: float,
        on_bad: Callable[[Digest], None],
        is_due: IsDue | None = None,
        rest_seconds: float = SCRUB_REST_SECONDS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._interval_seconds = interval_seconds
        self._bytes_per_second = bytes_per_second
        self._on_bad = on_bad
        self._is_due = is_due
        self._rest_seconds = rest_seconds
        self._wall_clock = wall_clock
        self._after: Digest | None = None
        self._checked = 0
        self._vouched = 0
        self._bad = 0
        self._passes = 0
        self._last_pass: str | None = None

    def status(self) -> dict[str, Any]:
        """How it goes: counts since the start; when the last full pass ended (UTC)."""
        return {
            "checked_blobs": self._checked,
            "vouched_blobs": self._vouched,
            "bad_blobs": self._bad,
            "passes": self._passes,
            "last_pass": self._last_pass,
        }

    async def run(self) -> None:
        """Scrub until cancelled."""
        while True:
            try:
                with background():
                    await self.scrub_once()
            except TierceError as error:
                log.error("the scrub was interrupted: %s", error)
                rest = SCRUB_REST_SECONDS
            else:
                rest = self._rest_seconds
            await asyncio.sleep(rest)

    async def scrub_once(self) -> None:
        """One full pass over all blobs, paced; or the rest of one that was interrupted.

        That goes on behind the blob that could not be read, or one would keep all others from it.
        """
        while page := await self._store.list_after(self._after, SCRUB_PAGE_BLOBS):
            due = await self._due(page)
            for info in due:
                self._after = info.digest
                await self._check(info.digest)
                pause = max(self._interval_seconds, info.size / self._bytes_per_second)
                await asyncio.sleep(pause)
            if not due:
                await asyncio.sleep(self._interval_seconds)
            self._after = page[-1].digest
        self._after = None
        self._passes += 1
        self._last_pass = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock()))

    async def _due(self, page: list[BlobInfo]) -> list[BlobInfo]:
        if self._is_due is None:
            return page
        answers = await self._is_due([info.digest for info in page])
        due = [info for info, is_due in zip(page, answers, strict=True) if is_due]
        self._vouched += len(page) - len(due)
        return due

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
