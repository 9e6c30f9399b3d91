"""Deleting the objects of blobs that are here no more.

The row goes first, in the transaction of whoever removed the blob; what is left over is deleted at once
if it can be, else later by ``tend``, which one process of the node calls now and then. An object that
somebody reads stays until it is closed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from tierce.blobs import catalogue
from tierce.blobs.cloud_names import QUARANTINE_PREFIX, Layout, path_of
from tierce.blobs.cloud_owner import Ownership
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.holds import Holds
from tierce.blobs.processes import is_dead
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError
from tierce.core.limits import CLOUD_DELETE_AT_ONCE, CLOUD_LEFT_PAGE

log = logging.getLogger(__name__)


class Clearing:
    """Deletes leftovers (catalogue.py). ``now`` gives milliseconds since 1970.

    A request that got no answer may be carried out for ``settle_seconds``.
    """

    def __init__(
        self,
        bucket: Bucket,
        environment: Environment,
        ownership: Ownership,
        holds: Holds,
        layout: Layout,
        *,
        settle_seconds: float,
        now: Callable[[], int],
    ) -> None:
        self._bucket = bucket
        self._environment = environment
        self._ownership = ownership
        self._holds = holds
        self._layout = layout
        self._settle_milliseconds = int(settle_seconds * 1000)
        self._now = now
        self._gate = asyncio.Semaphore(CLOUD_DELETE_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Give up what is under way; the next start goes on with it."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def clear(self, digests: Sequence[Digest]) -> None:
        """Delete the objects of blobs that are here no more, as far as that can be done now."""
        tasks = [asyncio.create_task(self._clear(digest)) for digest in digests]
        for task in tasks:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if tasks:
            # Not gather: whoever gives up waiting must not break a request off half-way.
            await asyncio.wait(tasks)
            for task in tasks:
                task.result()

    async def end_uploads(self, is_dead: Callable[[int], bool]) -> None:
        """Abandon the uploads of processes that ``is_dead`` says are no more, by their number."""
        with self._environment.snapshot() as batch:
            dead = catalogue.dead_uploads_in(batch, is_dead)

        until = self._now() + self._settle_milliseconds

        def change(batch: WriteBatch) -> None:
            for digest, name in dead:
                catalogue.abandon_in(batch, digest, name, until)

        if dead:
            await self._environment.write(change)

    async def tend(self) -> None:
        """Once: see to uploads of dead processes, and to objects that are left over."""
        await self.end_uploads(is_dead)
        after: Digest | None = None
        while True:
            with self._environment.snapshot() as batch:
                left = catalogue.leftovers_in(batch, after, CLOUD_LEFT_PAGE)
            if not left:
                return
            await self.clear(left)
            after = left[-1]

    async def _clear(self, digest: Digest) -> None:
        async with self._gate:
            try:
                hold = self._holds.alone(digest)
                if hold is None:
                    return  # it is read; whoever closes it clears it
                try:
                    await self._delete(digest)
                finally:
                    self._holds.release(digest, hold)
            except (TierceError, OSError) as error:
                log.warning("the object of %s could not be deleted yet: %s", digest, error)

    async def _delete(self, digest: Digest) -> None:
        await self._ownership.check()
        until = self._now() + self._settle_milliseconds
        left = await self._environment.write(lambda batch: catalogue.go_in(batch, digest, until))
        if left is None:
            return
        path = path_of(digest, self._layout)
        if left.is_bad:
            await self._set_aside(digest, path)
            await self._ownership.check()  # that may have taken a while
        # Once only: an attempt that got no answer may still be carried out, so it must be known of.
        await self._bucket.delete(path, attempts=1)
        await self._environment.write(
            lambda batch: catalogue.gone_in(batch, digest, left, self._now())
        )

    async def _set_aside(self, digest: Digest, path: str) -> None:
        if not self._bucket.can_copy:
            return
        name = f"{digest.algorithm}-{digest.hex}.{self._now()}"
        with contextlib.suppress(NotFound):
            await self._bucket.copy(path, QUARANTINE_PREFIX + name)
