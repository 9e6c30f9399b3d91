"""Deleting the objects of blobs that are here no more.

The row goes first, in the transaction of whoever removed the blob; what is left over is deleted at once
if it can be, else later by ``tend``, which one process of the node calls now and then. An object that
somebody reads stays until it is closed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from tierce.blobs import catalogue
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_names import QUARANTINE_PREFIX
from tierce.blobs.cloud_owner import Ownership
from tierce.blobs.environment import WriteBatch
from tierce.blobs.holds import Holds
from tierce.cloud.failures import Lasting
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, TooLarge
from tierce.core.limits import CLOUD_DELETE_AT_ONCE, CLOUD_LEFT_PAGE

log = logging.getLogger(__name__)


class Clearing:
    """Deletes leftovers (catalogue.py)."""

    def __init__(self, ground: Ground, ownership: Ownership, holds: Holds) -> None:
        self._ground = ground
        self._bucket = ground.bucket
        self._environment = ground.environment
        self._ownership = ownership
        self._holds = holds
        self._gate = asyncio.Semaphore(CLOUD_DELETE_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Give up what is under way; the next start goes on with it."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def clear(
        self, digests: Sequence[Digest], *, patience_seconds: float | None = None
    ) -> None:
        """Delete the objects of blobs that are here no more, as far as that can be done now.

        Who waits no longer than ``patience_seconds`` leaves the rest to go on.
        """
        tasks = [asyncio.create_task(self._clear(digest)) for digest in digests]
        for task in tasks:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if tasks:
            # Not gather: whoever gives up waiting must not break a request off half-way.
            done, _ = await asyncio.wait(tasks, timeout=patience_seconds)
            for task in done:
                task.result()

    async def end_uploads(self, is_dead: Callable[[int], bool]) -> None:
        """Abandon the uploads of processes that ``is_dead`` says are no more, by their number."""
        with self._environment.snapshot() as batch:
            dead = catalogue.dead_uploads_in(batch, is_dead)

        until = self._ground.settled_at()

        def change(batch: WriteBatch) -> None:
            for digest, name in dead:
                catalogue.abandon_in(batch, digest, name, until)

        if dead:
            await self._environment.write(change)

    async def tend(self) -> None:
        """Once: see to uploads of dead processes, and to objects that are left over."""
        await self.end_uploads(self._ground.host.is_dead)
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
            if self._bucket.is_left_alone:
                return  # a later ``tend`` does it; why is told once, by the bucket's status
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
        path = self._ground.path(digest)
        if self._bucket.can_copy and self._is_bad(digest):
            # Nobody who puts it again waits for that: a copy that fails bars nothing.
            await self._set_aside(digest, path)
        # The request may wait for its turn, so it is sent that much later.
        turn_seconds = self._bucket.turn_seconds
        await self._ownership.check(ahead_seconds=turn_seconds)
        until = self._ground.settled_at() + int(turn_seconds * 1000)
        left = await self._environment.write(lambda batch: catalogue.go_in(batch, digest, until))
        if left is None:
            return
        try:
            # Once only: an attempt that got no answer may still be carried out, so it is known of.
            await self._bucket.delete(path, attempts=1)
        except TierceError:
            latest = self._ground.settled_at()
            await self._environment.write(
                lambda batch: catalogue.unanswered_in(batch, digest, latest)
            )
            raise
        await self._environment.write(
            lambda batch: catalogue.gone_in(batch, digest, left, self._ground.now())
        )

    def _is_bad(self, digest: Digest) -> bool:
        """Whether an object is a bad copy that was not set aside yet, and nobody replaces just now."""
        with self._environment.snapshot() as batch:
            left = catalogue.left_in(batch, digest)
            if left is None or left.is_going:
                return False
            return left.is_bad and not catalogue.is_uploaded_in(batch, digest)

    async def _set_aside(self, digest: Digest, path: str) -> None:
        """Raises Unavailable if that may work later. Where it never will, the copy is given up.

        A copy that is made again, as nobody heard of the first one, has the same name all day.
        """
        day = time.strftime("%Y-%m-%d", time.gmtime(self._ground.now() / 1000))
        name = f"{digest.algorithm}-{digest.hex}.{day}"
        try:
            await self._bucket.copy(path, QUARANTINE_PREFIX + name)
        except NotFound:
            return
        except (Lasting, TooLarge) as error:
            log.warning("the bad copy of %s could not be set aside: %s", digest, error)
