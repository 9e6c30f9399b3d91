"""What an agent does for a store in the cloud: leftovers, and now and then the bucket's listing."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from tierce.blobs import catalogue, cloud_listing
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.cloud_listing import Compared
from tierce.core.digest import Digest
from tierce.core.errors import TierceError
from tierce.core.limits import (
    CLOUD_COMPARE_SECONDS,
    CLOUD_LISTED_SECONDS,
    CLOUD_TEND_SECONDS,
    DAY_SECONDS,
)

log = logging.getLogger(__name__)

MONTH_SECONDS = 30 * DAY_SECONDS


class StoreTending:
    """Runs in one process of a node. ``on_missing`` is told of blobs whose object is gone."""

    def __init__(
        self,
        disk: CloudDisk,
        *,
        scrub_interval_seconds: float,
        scrub_bytes_per_second: float,
        on_missing: Callable[[Digest], None],
    ) -> None:
        self._disk = disk
        self._interval_seconds = scrub_interval_seconds
        self._bytes_per_second = scrub_bytes_per_second
        self._on_missing = on_missing
        self._compared: Compared | None = None
        self._compared_at: str | None = None

    async def run(self) -> None:
        """Tend until cancelled."""
        loop = asyncio.get_running_loop()
        # Not at once: a node that starts has better things to do.
        next_compare = loop.time() + CLOUD_COMPARE_SECONDS / 24
        while True:
            try:
                await self._disk.store.tend()
                if loop.time() >= next_compare:
                    next_compare = loop.time() + CLOUD_COMPARE_SECONDS
                    await self.compare()
            except TierceError as error:
                log.warning("the store could not be tended: %s %s", error.message, error.hint)
            await asyncio.sleep(CLOUD_TEND_SECONDS)

    async def compare(self) -> Compared:
        """Hold catalogue and listing against each other once. Raises Unavailable."""
        store = self._disk.store
        old = store.marking.now() - int(CLOUD_LISTED_SECONDS * 1000)
        self._compared = await cloud_listing.compare(
            store,
            self._disk.environment,
            is_old=lambda row: row.put < old,
            on_missing=self._on_missing,
        )
        self._compared_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return self._compared

    def status(self) -> dict[str, Any]:
        """How it goes: the bucket, the last comparison, and what the scrub costs in a month."""
        done = self._compared
        cache = self._disk.store.cache
        return {
            **self._disk.store.bucket.status(),
            "layout": self._disk.store.layout,
            "cache": None if cache is None else {"hits": cache.hits, "misses": cache.misses},
            "compared_at": self._compared_at,
            "compared": None if done is None else vars(done).copy(),
            "scrub_month": self._scrub_month(),
        }

    def _scrub_month(self) -> dict[str, int]:
        """About how many requests the scrub sends in 30 days, and how many bytes it reads."""
        counts = self._disk.environment.counts(catalogue.KIND)
        if not counts.blobs:
            return {"requests": 0, "bytes": 0}
        seconds = max(
            counts.blobs * self._interval_seconds, counts.bytes / self._bytes_per_second, 1.0
        )
        passes = MONTH_SECONDS / seconds
        ranges = counts.bytes // self._disk.store.checking.range_bytes
        return {
            "requests": int(passes * (counts.blobs + ranges)),
            "bytes": int(passes * counts.bytes),
        }
