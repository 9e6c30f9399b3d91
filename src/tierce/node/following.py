"""Following this node's own feed of changes to the end, and on: what background work is made of.

A follower looks at every change once, and remembers durably how far it got, so that a restart neither
skips one nor begins anew. What could not be done is tried again, and the place that is remembered does
not move past it. While very much waits to be tried again, nothing new is read, so that memory stays
bounded. What fails here ends nothing else: on a full disk it goes on, and at worst a restart does some
work again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tierce.core.codec import decode, encode
from tierce.core.errors import TierceError
from tierce.core.limits import (
    COPY_PAGE_RECORDS,
    COPY_POLL_SECONDS,
    COPY_RETRY_SECONDS,
    FOLLOW_HELD_SECONDS,
    FOLLOW_SAVE_SECONDS,
)
from tierce.names.changes import Position, resume
from tierce.names.damage import known_record
from tierce.names.index import Change, Index

log = logging.getLogger(__name__)

UNDONE_RECORDS = 100_000
RETRY_RECORDS = 64
"""How many are tried again before new changes are looked at."""


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
        poll_seconds: float = COPY_POLL_SECONDS,
    ) -> None:
        self._poll_seconds = poll_seconds
        self._name = name
        self._index = index
        self._concerns = concerns
        self._work = work
        self._gate = asyncio.Semaphore(at_once)
        self._retry_seconds = retry_seconds
        self.undone: dict[tuple[str, str], int] = {}
        self._running: dict[tuple[str, str], tuple[int, asyncio.Task[None]]] = {}
        self._mistake: BaseException | None = None
        self.last_error = ""
        self._reached = self._saved = 0
        self._retry_at = self._save_at = 0.0
        self._round: list[tuple[str, str]] = []

    @property
    def waiting(self) -> int:
        """How many changes may not be done yet: those that failed, and those not looked at."""
        unread = max(0, self._index.last_seq() - self._reached)
        return len(self.undone) + len(self._running) + unread

    async def run(self) -> None:
        """Follow until cancelled."""
        self._reached = self._saved = self._resumed()
        try:
            while True:
                try:
                    if not await self._step():
                        await asyncio.sleep(self._poll_seconds)
                except TierceError as error:
                    log.error("%s: the feed could not be followed: %s", self._name, error)
                    await asyncio.sleep(self._retry_seconds)
                if self._mistake is not None:
                    raise self._mistake
        finally:
            await self._give_up()

    async def _step(self) -> bool:
        """Do what there is to do next; False if there is nothing now."""
        now = asyncio.get_running_loop().time()
        last = self._index.last_seq()
        is_news = last > self._reached and len(self.undone) < UNDONE_RECORDS
        # In turns: neither new changes nor old failures may hold up the other for long.
        retries = bool(self.undone) and now >= self._retry_at
        if is_news:
            page = await self._index.changes(self._reached, COPY_PAGE_RECORDS)
            await self._do(page)
            # Of what is not there any more, the last number known before counts: not one more.
            self._reached = page[-1].seq if page else last
        if retries:
            await self._retry()
        await self._save()
        # Where there is a little news all the time, it is taken a page at a time all the same.
        return (is_news and len(page) == COPY_PAGE_RECORDS) or retries

    async def _save(self) -> None:
        """Remember how far all is done."""
        open_ones = [*self.undone.values(), *(seq for seq, _ in self._running.values())]
        done = min(open_ones, default=self._reached + 1) - 1
        now = asyncio.get_running_loop().time()
        if done > self._saved and now >= self._save_at:
            self._save_at = now + FOLLOW_SAVE_SECONDS
            await self._index.set_checkpoint(self._name, encode(self._position(done)))
            self._saved = done

    def _resumed(self) -> int:
        try:
            kept = self._index.checkpoint(self._name)
            if kept is None:
                return 0
            epoch, seq = decode(kept, tuple[str, int], "place in the feed")
            position = Position(epoch, seq)
            return resume(self._index.epochs(), self._index.last_seq(), position) or 0
        except TierceError as error:
            log.error("%s: the feed is read from the start: %s", self._name, error)
            return 0

    def _position(self, seq: int) -> tuple[str, int]:
        return self._index.epochs()[-1].name, seq

    async def _do(self, changes: list[Change]) -> None:
        """Begin work on those that concern it, and wait for it; but not for what takes very long."""
        begun = [self._begin(each) for each in changes if self._concerns(each)]
        tasks = [each for each in begun if each is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=FOLLOW_HELD_SECONDS)
        while len(self._running) >= COPY_PAGE_RECORDS:
            running = [task for _, task in self._running.values()]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    def _begin(self, change: Change) -> "asyncio.Task[None] | None":
        name = change.record.bucket, change.record.key
        if name in self._running:  # one of a name at a time: the later one when that is done
            self.undone[name] = min(change.seq, self.undone.get(name, change.seq))
            return None
        # What is undone of it from here on is a later change, or this one if it fails.
        self.undone.pop(name, None)
        task = asyncio.create_task(self._one(change))
        self._running[name] = change.seq, task
        task.add_done_callback(lambda done: self._ended(name, done))
        return task

    def _ended(self, name: tuple[str, str], task: "asyncio.Task[None]") -> None:
        self._running.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            self._mistake = task.exception()

    async def _give_up(self) -> None:
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _retry(self) -> None:
        """Try some again, those first that were not tried for the longest time."""
        if not self._round:
            self._round = list(self.undone)
        names, self._round = self._round[:RETRY_RECORDS], self._round[RETRY_RECORDS:]
        changes = []
        for bucket, key in names:
            seq = self.undone.get((bucket, key))
            if seq is None or (bucket, key) in self._running:
                continue
            record = known_record(self._index, bucket, key)
            if record is None or not self._concerns(change := Change(seq, record)):
                del self.undone[bucket, key]
            else:
                changes.append(change)
        await self._do(changes)
        if not self._round:
            self._retry_at = asyncio.get_running_loop().time() + self._retry_seconds

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
            else:
                if not self.undone:
                    self.last_error = ""
