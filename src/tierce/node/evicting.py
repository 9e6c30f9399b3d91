"""The near-cache's bound, held by the agent: what is cached here is never more than the limit.

Whoever is about to make a blob cached (names/cached.py) asks for room first, by way of guarding.py.
All of it happens under one lock: victims of the policy (upstream/eviction.py) are dropped, and what
comes is entered, pinned until it is there. Room counts from the grant on, so at every moment the sum
of what is cached is no more than the policy's, and that is never over the limit.

Counted is a little more than what is cached: shared blobs that once asked for room stay counted, and
pinned, so that they need none when they are shared no more. A shared blob that never asked is looked
at when it loses the record that needed it here, and then entered or dropped, within about a second:
only for so long, and only with content that has two names of different kinds, the sum can be over.
And by what has no room, and of which the upstream can't be asked whether it has it (uncounted.py).

The policy's state is saved now and then and at the end, and is advice: at the start it is compared
with what lies on the disk, and no room is granted before. A grant is void in the next run of the
agent, so that nothing comes in unseen while the disk is looked at.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from tierce.core.digest import Digest
from tierce.core.errors import Full, TierceError
from tierce.core.metrics import EVICTED_BLOBS, EVICTED_BYTES
from tierce.names.cached import CacheRows, Look, Standing
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.names.store import ObjectStore
from tierce.node.cache_finding import find_cached, not_counted, not_dropped, rows_of
from tierce.node.guarding import Grant
from tierce.node.uncounted import Uncounted
from tierce.upstream.eviction import PINNED_BIT, Entry, S3Fifo

log = logging.getLogger(__name__)

ROOM_PATIENCE_SECONDS = 2.0
CACHE_READY_SECONDS = 8.0
CACHE_TICK_SECONDS = 1.0
CACHE_SAVE_SECONDS = 5.0
CACHE_SAVE_REST_FACTOR = 20.0
SLACK_PERCENT = 1
EVICT_AT_ONCE = 256
WATCHED_PAGE_COUNT = 500


@dataclass
class _Held:
    """A blob that somebody is about to put: its size, and until when each grant counts."""

    size: int
    until: dict[int, float] = field(default_factory=dict)


class Evicting:
    """One node's cache of ``limit_bytes``. ``objects`` and ``index`` are the unguarded ones.

    ``wall_clock`` gives nanoseconds since 1970. To be made, and used, inside one event loop.
    """

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        rows: CacheRows,
        limit_bytes: int,
        *,
        wall_clock: Callable[[], int],
    ) -> None:
        self._objects = objects
        self._index = index
        self._rows = rows
        self._limit_bytes = limit_bytes
        self._wall_clock = wall_clock
        self._policy: S3Fifo[Digest] = S3Fifo(limit_bytes)
        self._lock = asyncio.Lock()
        self._ready = asyncio.Event()
        self._pulse = asyncio.Event()
        self._held: dict[Digest, _Held] = {}
        self._done: set[Digest] = set()
        # Records of these are on their way to the index: what was found for them is forgotten later.
        self.merging: Counter[Digest] = Counter()
        self.uncounted = Uncounted(objects, rows, self.merging, self._see_to)
        self._settling: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._is_dirty = False
        self.run_name = ""
        self.evicted = self.evicted_bytes = self.refused = 0

    # Asking for room

    def may_hold(self, size: int) -> bool:
        """Whether a blob of so many bytes can be cached at all."""
        return size <= self._limit_bytes

    def may_keep(self, size: int) -> bool:
        """Whether there is room without dropping anything. Raises Unavailable until that is known."""
        if not self._ready.is_set():
            raise not_counted()
        return self._policy.size_bytes + size <= self._limit_bytes

    async def reserve(self, digest: Digest, size: int, *, may_evict: bool = True) -> Grant | None:
        """See Room."""
        task = asyncio.create_task(self._reserve(digest, size, may_evict))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    def release(self, grant: Grant) -> None:
        """See Room. Of a grant that came to an end, or of another run, this is nothing."""
        held = self._held.get(grant.digest)
        if held is None or held.until.pop(grant.number, None) is None or held.until:
            return
        self._done.add(grant.digest)
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())
        self._beat()

    def touched(self, digest: Digest) -> None:
        """See Room."""
        self._policy.touch(digest)
        self._is_dirty = True

    def end_later(self, grant: Grant, seconds: float) -> None:
        """Release a grant after a time, if nobody does so before."""
        held = self._held.get(grant.digest)
        if held is not None and grant.number in held.until:
            held.until[grant.number] = self._now() + seconds

    async def make_way(
        self, digest: Digest, size: int, records: Sequence[Record] = ()
    ) -> Grant | None:
        """Drop a blob for which there is no room before records are merged that make it cached.

        Returns a grant in place of that if somebody else got room for it meanwhile.
        """
        async with self._lock:
            if digest in self._held or (self._ready.is_set() and digest in self._policy):
                return self._hold(digest, size)
            found = await self._objects.evict(digest, records)
            if found.is_dropped:
                self._count(found.size)
            elif found.standing is Standing.CACHED:
                raise not_dropped(digest)
            self.uncounted.note(digest, found)
            return None

    # Making room

    async def _reserve(self, digest: Digest, size: int, may_evict: bool) -> Grant | None:
        deadline = self._now() + ROOM_PATIENCE_SECONDS
        while size <= self._limit_bytes and await self._is_ready():
            async with self._lock:
                await self._settle_done()
                if not self._ready.is_set():
                    continue
                if digest in self._policy or await self._has_room(size, may_evict):
                    return self._enter(digest, size)
                may_come = may_evict and bool(self._held)
            if not may_come or not await self._beats(deadline):
                break
        self.refused += 1
        return None

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(CACHE_READY_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def _beats(self, deadline: float) -> bool:
        """Wait for something to be released, until a time at most; whether something was."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._pulse.wait()
        except TimeoutError:
            return False
        return True

    def _enter(self, digest: Digest, size: int) -> Grant:
        self._policy.add(digest, size, pinned=True)
        return self._hold(digest, size)

    def _hold(self, digest: Digest, size: int) -> Grant:
        """Keep what is counted from being dropped, or forgotten, until it is released."""
        self._policy.pin(digest)
        self.uncounted.counted(digest)
        self._is_dirty = True
        number = next(self._numbers)
        held = self._held.setdefault(digest, _Held(size))
        held.until[number] = math.inf
        return Grant(digest, number)

    async def _has_room(self, size: int, may_evict: bool) -> bool:
        policy = self._policy
        if policy.size_bytes + size <= self._limit_bytes:
            return True
        if not may_evict:
            return False
        slack = self._limit_bytes * SLACK_PERCENT // 100
        try:
            # A little more at once: each time costs a commit.
            victims = policy.victims_for(min(size + slack, self._limit_bytes))
        except Full:
            victims = []
        try:
            while victims := victims or policy.victims_for(size):
                await self._drop(victims)
                victims = []
        except Full:
            return False
        return True

    async def _drop(self, victims: Sequence[Digest]) -> None:
        """Drop what the policy chose. If that fails, all is counted anew from the disk."""
        try:
            for start in range(0, len(victims), EVICT_AT_ONCE):
                some = victims[start : start + EVICT_AT_ONCE]
                found = await asyncio.gather(*map(self._objects.evict, some))
                for digest, one in zip(some, found, strict=True):
                    if one.is_dropped:
                        self._count(one.size)
                    else:
                        self._stays(digest, Look(one.standing, one.size))
        except BaseException:
            self._ready.clear()
            raise

    def _stays(self, digest: Digest, found: Look) -> None:
        """A victim was not dropped: count it again, if it can be cached one day."""
        if found.standing in (Standing.ABSENT, Standing.OTHER):
            return
        if self._policy.size_bytes + found.size <= self._limit_bytes:
            self._policy.remove(digest)  # as a ghost: it did not come back, it never went
            self._policy.add(digest, found.size, pinned=True)
        elif found.standing is Standing.CACHED:
            raise not_dropped(digest)
        else:
            self.uncounted.note(digest, found)

    def _count(self, size: int) -> None:
        self._is_dirty = True
        self.evicted += 1
        self.evicted_bytes += size
        EVICTED_BLOBS.inc()
        EVICTED_BYTES.inc(size)

    # What became of it

    async def _settle(self) -> None:
        async with self._lock:
            await self._settle_done()

    async def _settle_done(self) -> None:
        """Look how those stand whose grants have ended. Under the lock."""
        if not self._done or not self._ready.is_set():
            return
        ended = [each for each in self._done if each not in self.merging]
        self._done.difference_update(ended)
        digests = [each for each in ended if each in self._held and not self._held[each].until]
        for digest in digests:
            del self._held[digest]
        try:
            await self._look_again(digests)
        except TierceError as error:
            log.warning("what is cached must be counted anew: %s", error.message)
            self._ready.clear()

    async def _look_again(self, digests: Sequence[Digest]) -> None:
        """Unpin what may be dropped from now on, and forget what is not cached. Under the lock."""
        if not digests:
            return
        for digest, found in zip(digests, await self._objects.look(digests), strict=True):
            if found.standing is Standing.CACHED:
                self._policy.unpin(digest)
            elif found.standing is not Standing.SHARED:
                self._policy.remove(digest)
            self._is_dirty = True

    async def tick(self) -> None:
        """What is done now and then: end grants, look at what is pinned, and at what lost a record."""
        now = self._now()
        for digest, held in list(self._held.items()):
            for number, until in list(held.until.items()):
                if until <= now:
                    self.release(Grant(digest, number))
        async with self._lock:
            await self._settle_done()
            if not self._ready.is_set():
                return
            busy = self._held.keys() | self.merging.keys()
            pinned = (each for each in self._policy.pinned() if each not in busy)
            await self._look_again(list(islice(pinned, WATCHED_PAGE_COUNT)))
            await self.uncounted.forget()
        await self.uncounted.look()

    async def _see_to(self, digest: Digest, size: int, may_evict: bool) -> None:
        """Enter what is cached and was not counted, or drop it; or leave it to Uncounted again."""
        grant = None
        if may_evict or self.may_keep(size):
            grant = await self.reserve(digest, size)
        grant = grant or await self.make_way(digest, size)
        if grant is not None:
            self.release(grant)

    # The whole of it

    async def run(self) -> None:
        """Count what lies here, then keep house, until cancelled."""
        save_at = 0.0
        while True:
            try:
                if not self._ready.is_set():
                    await self.rebuild()
                await self.tick()
                if self._now() >= save_at:
                    began = self._now()
                    await self.save()
                    took = self._now() - began
                    save_at = began + max(CACHE_SAVE_SECONDS, CACHE_SAVE_REST_FACTOR * took)
            except TierceError as error:
                log.error("the cache is not in order: %s", error.message)
            await asyncio.sleep(CACHE_TICK_SECONDS)

    async def close(self) -> None:
        """Save the state, for the next run."""
        if self._settling is not None:
            await asyncio.wait([self._settling])
        try:
            await self.save()
        except TierceError as error:
            log.warning("the order of the cache was not saved: %s", error.message)

    async def rebuild(self) -> None:
        """Find out what is cached, and drop what is too much; only then is room granted."""
        async with self._lock:
            self._ready.clear()
            self.run_name = f"{self._wall_clock()}-{next(self._numbers)}"
            await self._rows.begin(self.run_name)
            entries = await find_cached(self._objects, self._index, self._rows)
            held = [each for each in self._held if each not in {entry.key for entry in entries}]
            entries += [Entry(each, self._held[each].size, PINNED_BIT) for each in held]
            self._policy.restore(entries)
            for digest in self._held:
                self._policy.pin(digest)
            victims = []
            while self._policy.size_bytes > self._limit_bytes:
                victim = self._policy.victim()
                if victim is None:
                    log.warning("more is shared with other names than the cache may hold")
                    break
                victims.append(victim)
            await self._drop(victims)
            self._is_dirty = True
            self._ready.set()
        log.info("%d blobs are cached, %d bytes", len(self._policy), self._policy.size_bytes)

    async def save(self) -> None:
        """Write down the state, if it has changed."""
        async with self._lock:  # meanwhile no entry comes or goes; hits do no harm
            if not self._is_dirty or not self._ready.is_set():
                return
            rows = await rows_of(self._policy.entries())
            self._is_dirty = False
        await self._rows.save(rows)

    def status(self) -> dict[str, Any]:
        """How full it is, in bytes and blobs, and what was done since the start."""
        return {
            "ready": self._ready.is_set(),
            "limit_bytes": self._limit_bytes,
            "bytes": self._policy.size_bytes,
            "blobs": len(self._policy),
            "pinned_bytes": self._policy.pinned_bytes,
            "undropped_bytes": sum(self.uncounted.undropped.values()),
            "evicted": self.evicted,
            "evicted_bytes": self.evicted_bytes,
            "refused": self.refused,
        }

    def _beat(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

    def _give_back(self, task: "asyncio.Task[Grant | None]") -> None:
        if not task.cancelled() and task.exception() is None and (grant := task.result()):
            self.release(grant)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
