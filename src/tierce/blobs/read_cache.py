"""What was read lately from a store in the cloud, on the node's own disk: small blobs, and pieces.

All processes of a node read what any of them has cached (cache_shelves.py). Each has a shelf, whose
book says what goes when room is needed; the bounds of all shelves together are that of the node. The
book does not hear what other processes read. It is told when a file would have to go, that stays then.

It is advice: it is verified whenever it is read, and dropped at will. Whether a blob is here the
catalogue says, before anyone asks the cache. Nobody waits until something is cached: that is done
beside, and left undone if more is read than the disk can take. The cache outlives its process, and the
book is made again from the files and their times.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from tierce.blobs.cache_shelves import Cached, Place, Shelf, Shelves, Tally, name_of, room_of
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.core.errors import ReadOnly
from tierce.core.limits import (
    STORE_CACHE_ENTRY_PART,
    STORE_CACHE_MARGIN_BYTES,
    STORE_CACHE_TELL_SECONDS,
    STORE_CACHE_TEND_SECONDS,
    STORE_CACHE_WAITING_BYTES,
)
from tierce.core.metrics import STORE_CACHE_HITS, STORE_CACHE_MISSES

T = TypeVar("T")
log = logging.getLogger(__name__)

# How often those are spared that were used, before one has to go all the same.
SPARED_TIMES = 4


class Book(Protocol):
    """Which files are on a shelf, and which go next (upstream/eviction.py)."""

    limit_bytes: int

    @property
    def size_bytes(self) -> int: ...

    def add(self, key: str, size: int) -> None: ...

    def touch(self, key: str) -> None: ...

    def remove(self, key: str) -> None: ...

    def victims_for(self, size: int) -> list[str]: ...


class CachePlan(NamedTuple):
    """How many shelves there are, and what makes an empty book for one of them, with its bound."""

    shelves: int
    make_book: Callable[[], Book]


class _Waiting(NamedTuple):
    name: str
    data: bytes
    is_wanted: Callable[[], bool]


class ReadCache:
    """The cache below ``directory``, as one process has it, while ``space`` has room.

    To be made in a running event loop. It takes a shelf in the background.
    """

    def __init__(self, directory: Path, plan: CachePlan, space: SpaceGuard, pool: Executor) -> None:
        self._shelves = Shelves(directory, plan.shelves)
        self._plan = plan
        self._space = space
        self._pool = pool
        self._shelf: Shelf | None = None
        self._book = plan.make_book()
        self._queue: deque[_Waiting] = deque()
        self._waiting: set[str] = set()
        self.waiting_bytes = 0
        self.hits = 0
        self.misses = 0
        self._told: Tally | None = None
        self._told_at = 0.0
        self._is_failing = False
        self._is_closed = False
        self._is_waiting = False
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def get(self, places: Sequence[Place], fits: Callable[[bytes], bool]) -> bytes | None:
        """The first bytes that are cached at one of some places and fit; called in a thread."""
        own = self._own
        return self._found(
            await self._in_thread(lambda: self._shelves.read(places, fits, own)), own
        )

    def get_now(self, place: Place, fits: Callable[[bytes], bool]) -> bytes | None:
        """The same, of few bytes: a thread would take several times as long as they do."""
        own = self._own
        return self._found(self._shelves.read([place], fits, own), own)

    @property
    def _own(self) -> int | None:
        return None if self._shelf is None else self._shelf.number

    def _found(self, found: tuple[bytes, str, int] | None, own: int | None) -> bytes | None:
        if found is None:
            self.misses += 1
            STORE_CACHE_MISSES.inc()
            return None
        data, name, number = found
        if number == own:
            self._book.touch(name)
        self.hits += 1
        STORE_CACHE_HITS.inc()
        now = asyncio.get_running_loop().time()
        if self._shelf is not None and now >= self._told_at + STORE_CACHE_TELL_SECONDS:
            self._wake.set()
        return data

    def put(self, name: str, data: bytes, is_wanted: Callable[[], bool]) -> None:
        """Keep verified bytes, soon, unless too much is waiting already.

        ``is_wanted`` is asked once they are there: was the blob deleted meanwhile, they go again.
        """
        if (
            self._shelf is None
            or not 0 < room_of(len(data)) <= self._book.limit_bytes // STORE_CACHE_ENTRY_PART
            or self.waiting_bytes + len(data) > STORE_CACHE_WAITING_BYTES
            or name in self._waiting
        ):
            return
        self._queue.append(_Waiting(name, data, is_wanted))
        self._waiting.add(name)
        self.waiting_bytes += len(data)
        self._wake.set()

    async def drop(self, digests: Sequence[Digest]) -> None:
        """Forget blobs, for all processes. What waits to be cached is dropped when it is there."""
        names = [name_of(each) for each in digests]
        own = self._own
        for removed in await self._in_thread(lambda: self._shelves.drop(names, own)):
            self._book.remove(removed)

    @property
    def is_idle(self) -> bool:
        """Whether all that it was told to do is done."""
        return self._is_waiting and not self._wake.is_set()

    def status(self) -> dict[str, int]:
        """How it goes, for all processes of the node; hits and misses since each began."""
        told = self._shelves.told()
        return {
            "hits": told.hits,
            "misses": told.misses,
            "bytes": told.size_bytes,
            "limit_bytes": self._plan.shelves * self._book.limit_bytes,
        }

    async def aclose(self) -> None:
        """Let go of the shelf; its files stay."""
        self._is_closed = True
        self._wake.set()
        await self._task

    # In the background

    async def _run(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            try:
                await self._work()
                self._is_failing = False
            except Exception as error:
                if not isinstance(error, OSError):
                    log.exception("the read cache starts anew")
                elif not self._is_failing:
                    log.warning("nothing can be cached for now: %s", error)
                self._is_failing = True
                self._let_go()
            self._is_waiting = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), STORE_CACHE_TEND_SECONDS)
            self._is_waiting = False
        self._let_go()

    async def _work(self) -> None:
        """Do what is to be done. Raises OSError if the disk does not let us."""
        if self._shelf is None and not await self._open():
            return
        while self._queue and not self._is_closed:
            waiting = self._queue[0]
            await self._keep(waiting)
            self._queue.popleft()
            self._waiting.discard(waiting.name)
            self.waiting_bytes -= len(waiting.data)
        await self._give_way(0)
        if asyncio.get_running_loop().time() >= self._told_at + STORE_CACHE_TELL_SECONDS:
            await self._tell()

    def _let_go(self) -> None:
        """What is on the shelf is known anew when it is taken again, by this process or another."""
        shelf, self._shelf, self._told = self._shelf, None, None
        if shelf is not None:
            shelf.close()
        self._book = self._plan.make_book()
        self._queue.clear()
        self._waiting.clear()
        self.waiting_bytes = 0

    async def _open(self) -> bool:
        """Take a shelf and learn what is on it; False if all are taken."""
        shelf = await self._in_thread(self._shelves.take)
        if shelf is None:
            return False
        try:
            limit_bytes = self._book.limit_bytes
            for each in await self._in_thread(lambda: _trimmed(shelf, limit_bytes)):
                self._book.add(each.name, each.size)
        except BaseException:
            shelf.close()
            raise
        self._shelf = shelf
        return True

    async def _keep(self, waiting: _Waiting) -> None:
        name, data, is_wanted = waiting
        size = room_of(len(data))
        if not await self._give_way(size):
            return
        await self._make_room(size)
        if not await self._in_thread(lambda: self._write(name, data)):
            return
        self._book.add(name, size)
        if not is_wanted():
            self._book.remove(name)
            await self._in_thread(lambda: self._held().remove([name]))

    def _write(self, name: str, data: bytes) -> bool:
        """Write a file, unless another process has done so meanwhile."""
        shelf = self._held()
        if self._shelves.has(name, but=shelf.number) or not shelf.write(name, data):
            return False
        if self._shelves.has(name, but=shelf.number):  # of two at once, one or both see the other
            shelf.remove([name])
            return False
        return True

    async def _make_room(self, size: int) -> None:
        """Drop what the book names until so many bytes fit below its bound."""
        shelf = self._held()
        for _ in range(SPARED_TIMES):
            victims = self._book.victims_for(size)
            if not victims:
                return
            for each in await self._in_thread(lambda v=victims: shelf.remove_unused(v)):  # type: ignore[misc]
                self._book.add(each.name, each.size)
                self._book.touch(each.name)
        victims = self._book.victims_for(size)
        await self._in_thread(lambda: shelf.remove(victims))

    async def _give_way(self, size: int) -> bool:
        """Where the disk is short of room, the cache makes some. False if so much must not come in."""
        if isinstance(self._space.why_not(), ReadOnly):
            return False
        seen = self._space.look()
        missing = seen.reserve + STORE_CACHE_MARGIN_BYTES + size - seen.free
        if missing <= 0:
            return True
        book = self._book
        await self._make_room(min(book.limit_bytes, book.limit_bytes - book.size_bytes + missing))
        return False

    async def _tell(self) -> None:
        shelf = self._held()
        tally = Tally(self._book.size_bytes, self.hits, self.misses)
        self._told_at = asyncio.get_running_loop().time()
        if tally != self._told:
            await self._in_thread(lambda: shelf.tell(tally))
            self._told = tally

    def _held(self) -> Shelf:
        assert self._shelf is not None
        return self._shelf

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _trimmed(shelf: Shelf, limit_bytes: int) -> list[Cached]:
    """What is on a shelf, without what is too much for its bound: files used longest ago."""
    kept = deque(shelf.listing())
    excess = sum(each.size for each in kept) - limit_bytes
    while excess > 0:
        oldest = kept.popleft()
        shelf.remove([oldest.name])
        excess -= oldest.size
    return list(kept)
