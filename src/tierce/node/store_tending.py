"""What an agent does for a store in the cloud: leftovers, and now and then the bucket's listing.

It also notices when another node took the bucket over: then this one must not go on.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from tierce.blobs import catalogue, cloud_listing
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.cloud_listing import Compared
from tierce.cloud.failures import Taken
from tierce.cloud.pacing import background
from tierce.core.digest import Digest
from tierce.core.errors import TierceError
from tierce.core.limits import (
    CLOUD_COMPARE_SECONDS,
    CLOUD_LISTED_SECONDS,
    CLOUD_TEND_SECONDS,
)
from tierce.node.scrub_cost import ScrubMonth, ScrubPace, by_reading, by_tags

log = logging.getLogger(__name__)


class StoreTending:
    """Runs in one process of a node. ``on_missing`` is told of blobs whose object is gone.

    ``on_taken`` is told once if the bucket belongs to another node now; the tending ends then.
    """

    def __init__(
        self,
        disk: CloudDisk,
        *,
        scrub: ScrubPace,
        on_missing: Callable[[Digest], None],
        on_taken: Callable[[TierceError], None],
    ) -> None:
        self._disk = disk
        self._scrub = scrub
        self._on_missing = on_missing
        self._on_taken = on_taken
        self._wanted = asyncio.Event()
        self._is_comparing = False
        self._comparisons = 0
        self._compare_error = ""
        self._compared: Compared | None = None
        self._compared_at: str | None = None

    async def run(self) -> None:
        """Tend until cancelled."""
        with background():
            await self._run()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_compare = loop.time()
        if not self._is_comparison_due():
            # Not at once: a node that starts has better things to do.
            next_compare += CLOUD_COMPARE_SECONDS / 24
        while True:
            self._is_comparing = self._wanted.is_set() or loop.time() >= next_compare
            self._wanted.clear()
            try:
                await self._disk.store.tend()
                await self._disk.store.ownership.check()
                if self._is_comparing:
                    # If that fails, in an hour again.
                    next_compare = loop.time() + CLOUD_COMPARE_SECONDS / 24
                    await self.compare()
                    next_compare = loop.time() + CLOUD_COMPARE_SECONDS
                    self._compare_error = ""
            except Taken as error:
                self._on_taken(error)
                return
            except TierceError as error:
                log.warning("the store could not be tended: %s. %s", error.message, error.hint)
                if self._is_comparing:
                    self._compare_error = error.message
            self._comparisons += self._is_comparing
            self._is_comparing = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), CLOUD_TEND_SECONDS)

    def order_comparison(self) -> int:
        """Have a comparison made now. When ``comparisons`` in the status is at this number, it was."""
        self._wanted.set()
        return self._comparisons + self._is_comparing + 1

    def _is_comparison_due(self) -> bool:
        """Whether tags are worth nothing until listing and catalogue were compared, or soon will be."""
        proving = self._disk.store.proving
        if not proving.by_tags:
            return False
        last = proving.vouched()
        now = self._disk.store.marking.now()
        return last is None or last.at < now - int(CLOUD_COMPARE_SECONDS * 1000)

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
            "proof": "tags" if self._disk.store.proving.by_tags else "read",
            "cache": None if cache is None else cache.status(),
            "comparing": self._is_comparing or self._wanted.is_set(),
            "comparisons": self._comparisons,
            "compare_error": self._compare_error,
            "compared_at": self._compared_at,
            "compared": None if done is None else vars(done).copy(),
            "scrub_month": self._scrub_month()._asdict(),
        }

    def _scrub_month(self) -> ScrubMonth:
        store = self._disk.store
        counts = self._disk.environment.counts(catalogue.KIND)
        listing_requests = cloud_listing.list_requests(counts.blobs, store.layout)
        if store.proving.by_tags:
            return by_tags(counts, store.proving.vouched(), self._scrub, listing_requests)
        return by_reading(counts, self._scrub, listing_requests)
