"""Following this node's own feed of changes to the end, and on: what background work is made of.

A follower looks at every change once, and remembers durably how far it got, so that a restart neither
skips one nor begins anew. What could not be done is tried again, and the place that is remembered does
not move past it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tierce.core.codec import decode, encode
from tierce.core.errors import TierceError
from tierce.core.limits import COPY_PAGE_RECORDS, COPY_POLL_SECONDS, COPY_RETRY_SECONDS
from tierce.names.changes import Position, resume
from tierce.names.index import Change, Index

log = logging.getLogger(__name__)


class Follower:
    """Hands changes to ``work``, ``at_once`` of them at a time. ``name`` is its own, for ever.

    ``concerns`` says whether a change is any work at all; ``work`` raises a TierceError to be asked
    again later, with the record as it is then.
    """

    def __init__(
        self,
        name: str,
        index: Index,
        concerns: Callable[[Change], bool],
        work: Callable[[Change], Awaitable[None]],
        *,
        at_once: int,
        retry_seconds: float = COPY_RETRY_SECONDS,
    ) -> None:
        self._name = name
        self._index = index
        self._concerns = concerns
        self._work = work
        self._gate = asyncio.Semaphore(at_once)
        self._retry_seconds = retry_seconds
        self.undone: dict[tuple[str, str], int] = {}
        self.last_error = ""

    @property
    def waiting(self) -> int:
        """How many changes could not be done yet."""
        return len(self.undone)

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        reached = saved = self._resumed()
        retry_at = 0.0
        while True:
            if self._index.last_seq() > reached:
                page = await self._index.changes(reached, COPY_PAGE_RECORDS)
                await self._do(page)
                reached = page[-1].seq if page else self._index.last_seq()
            elif self.undone and loop.time() >= retry_at:
                await self._retry()
                retry_at = loop.time() + self._retry_seconds
            else:
                await asyncio.sleep(COPY_POLL_SECONDS)
            done = min(self.undone.values(), default=reached + 1) - 1
            if done > saved and (done == reached or done - saved >= COPY_PAGE_RECORDS):
                await self._index.set_checkpoint(self._name, encode(self._position(done)))
                saved = done

    def _resumed(self) -> int:
        kept = self._index.checkpoint(self._name)
        if kept is None:
            return 0
        epoch, seq = decode(kept, tuple[str, int], "place in the feed")
        found = resume(self._index.epochs(), self._index.last_seq(), Position(epoch, seq))
        return found or 0

    def _position(self, seq: int) -> tuple[str, int]:
        return self._index.epochs()[-1].name, seq

    async def _do(self, changes: list[Change]) -> None:
        await asyncio.gather(*(self._one(each) for each in changes if self._concerns(each)))

    async def _retry(self) -> None:
        for (bucket, key), seq in list(self.undone.items())[:COPY_PAGE_RECORDS]:
            record = self._index.get(bucket, key)
            del self.undone[bucket, key]
            if record is not None and self._concerns(change := Change(seq, record)):
                await self._one(change)

    async def _one(self, change: Change) -> None:
        name = change.record.bucket, change.record.key
        async with self._gate:
            try:
                await self._work(change)
            except TierceError as error:
                if error.message != self.last_error:
                    log.warning("%s: %s", self._name, error.message)
                self.last_error = error.message
                self.undone[name] = min(change.seq, self.undone.get(name, change.seq))
