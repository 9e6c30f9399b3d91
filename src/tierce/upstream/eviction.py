"""Which blob the near-cache drops next, when it needs room. Pure.

A policy is a book of keys and sizes: it knows what is cached, and names victims so that the sum of all
sizes never passes a limit. It touches no blob. Its owner evicts the victims, and knows what is safely
upstream; the policy knows only which keys its owner has pinned, and never names one of those.

S3Fifo is the policy in use (docs/decisions/0012-eviction.md): three queues, first in first out. A new
key goes into the small one, which has a tenth of the bytes. If it was hit there more than once it moves
to the main one, else it is dropped from the small one and only remembered, as a ghost. A key that comes
back while it is a ghost goes to the main queue at once. Keys of the main queue go round as often as
their counter of hits allows. So a scan passes through the small queue and leaves the main one alone.
After Yang, Zhang, Qiu, Yue, Rashmi: FIFO Queues are All You Need for Cache Eviction (SOSP 2023),
algorithm 1, with bytes in the place of numbers of objects.

The owner's part:

- Make room, then add, under one lock that every ``add`` holds: a victim's bytes are on disk until it
  is dropped, and nothing else may take their place before. A new blob is pinned while it is written::

      while victims := policy.victims_for(size):
          ...  # drop each; one that can't be dropped now (or if this is broken off) is added again
      policy.add(key, size, pinned=True)

  A victim is added again with ``pinned=True``. It is not named again before it is unpinned, so this
  loop ends, at the latest with Full.
- Sizes are those that dropping the blob frees on disk. Of size 0 there may be any number.
- To keep the state over a restart, write down what ``entries`` gives, a row for each: its place in the
  order (8 bytes), the key, the size (8 bytes), the bits (1 byte). It is advice, not truth: before
  ``restore``, leave out the entries that are no ghosts and are no longer on disk, and append
  ``Entry(key, size)`` for what is on disk and has no entry.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from tierce.core.errors import Full, TooLarge
from tierce.core.limits import (
    GHOSTS_MIN_COUNT,
    PROMOTED_HITS_COUNT,
    SMALL_QUEUE_PERCENT,
    STALE_MIN_COUNT,
)

COUNTER_MAX = 3
COUNTER_BITS = 2
PINNED_BIT = 1 << 4

SMALL, MAIN, GHOST = range(3)

K = TypeVar("K", bound=Hashable)


class Entry(NamedTuple, Generic[K]):
    """What a policy knows of a key. ``size`` is in bytes; without ``bits`` it is a new one.

    Bits 0 and 1 count hits, bits 2 and 3 name the queue, bit 4 is set while the key is pinned.
    """

    key: K
    size: int
    bits: int = 0

    @property
    def counter(self) -> int:
        return self.bits & COUNTER_MAX

    @property
    def place(self) -> int:
        """The number of the queue; GHOST for a key that is remembered only, and not cached."""
        return self.bits >> COUNTER_BITS & 3

    @property
    def is_pinned(self) -> bool:
        return bool(self.bits & PINNED_BIT)


class Queue(Generic[K]):
    """Keys in the order in which they came, each with its size and a counter of 0 to 3.

    A dict and a deque take half of the memory of an OrderedDict. A key that is discarded stays in the
    deque, as stale, until it comes to the front or until most of the deque is stale. Of a key that
    came again meanwhile, the stale places are those before the last one.
    """

    __slots__ = ("_order", "_packed", "_stale", "size_bytes")

    def __init__(self) -> None:
        # Size and counter share one integer: there may be millions of entries.
        self._packed: dict[K, int] = {}
        self._order: deque[K] = deque()
        self._stale: dict[K, int] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: K) -> bool:
        return key in self._packed

    def push(self, key: K, size: int, counter: int = 0) -> None:
        """Append a key that is not there."""
        self._packed[key] = size << COUNTER_BITS | counter
        self._order.append(key)
        self.size_bytes += size

    def pop(self) -> tuple[K, int, int]:
        """Remove the first key of some; returns it with its size and its counter."""
        key = self._order.popleft()
        while stale := self._stale.pop(key, 0):
            if stale > 1:
                self._stale[key] = stale - 1
            key = self._order.popleft()
        packed = self._packed.pop(key)
        self.size_bytes -= packed >> COUNTER_BITS
        return key, packed >> COUNTER_BITS, packed & COUNTER_MAX

    def discard(self, key: K) -> tuple[int, int] | None:
        """Remove a key, if it is there; returns its size and its counter."""
        packed = self._packed.pop(key, None)
        if packed is None:
            return None
        self.size_bytes -= packed >> COUNTER_BITS
        self._stale[key] = self._stale.get(key, 0) + 1
        if len(self._order) > 2 * len(self._packed) + STALE_MIN_COUNT:
            self._order = deque(self._keys())
            self._stale.clear()
        return packed >> COUNTER_BITS, packed & COUNTER_MAX

    def _keys(self) -> Iterator[K]:
        stale = self._stale.copy()
        for key in self._order:
            if stale.get(key):
                stale[key] -= 1
            else:
                yield key

    def hit(self, key: K, most: int = COUNTER_MAX) -> bool:
        """Count one hit more, up to ``most``; False if the key is not there."""
        packed = self._packed.get(key)
        if packed is None:
            return False
        if packed & COUNTER_MAX < most:
            self._packed[key] = packed + 1
        return True

    def entries(self, place: int) -> Iterator[Entry[K]]:
        """All entries in order, with the bits that name this queue by a number."""
        for key in self._keys():
            packed = self._packed[key]
            bits = place << COUNTER_BITS | packed & COUNTER_MAX
            yield Entry(key, packed >> COUNTER_BITS, bits)


class Policy(ABC, Generic[K]):
    """The contract, and what is the same in each policy: the bound, the pins, the saved state.

    Every call costs O(1), amortised over the calls before it; ``entries`` and ``restore`` cost O(n).
    It belongs to one process, and to one thread or event loop of it.
    """

    def __init__(self, limit_bytes: int) -> None:
        assert limit_bytes >= 0, limit_bytes
        self.limit_bytes = limit_bytes
        self._pinned: dict[K, Entry[K]] = {}
        self._pinned_bytes = 0
        self._reset()

    @abstractmethod
    def _reset(self) -> None:
        """Make all queues empty, and ``self._queues`` the two that hold what is cached, by place."""

    @abstractmethod
    def _place(self, key: K) -> int:
        """In which queue a key goes that is added now."""

    @abstractmethod
    def victim(self) -> K | None:
        """Take out the key to be dropped next; None if nothing is there that is not pinned."""

    _queues: tuple[Queue[K], Queue[K]]
    _counter_max = COUNTER_MAX

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of all that is cached."""
        first, second = self._queues
        return first.size_bytes + second.size_bytes + self._pinned_bytes

    @property
    def pinned_bytes(self) -> int:
        """The part of it that is pinned."""
        return self._pinned_bytes

    def __len__(self) -> int:
        return sum(map(len, self._queues)) + len(self._pinned)

    def __contains__(self, key: K) -> bool:
        first, second = self._queues
        return key in first or key in second or key in self._pinned

    def add(self, key: K, size: int, *, pinned: bool = False) -> None:
        """Enter a key that is cached now. Of one that is there already this is a hit.

        There must be room for ``size`` bytes (see victims_for).
        """
        assert size >= 0, size
        if key in self:
            self.touch(key)
        else:
            assert self.size_bytes + size <= self.limit_bytes, "add without having made room"
            place = self._place(key)  # may turn the queues
            self._queues[place].push(key, size)
        if pinned:
            self.pin(key)

    def touch(self, key: K) -> None:
        """Count a hit. Without effect for a key that is not there: it may come late."""
        for queue in self._queues:
            if queue.hit(key, self._counter_max):
                return
        entry = self._pinned.get(key)
        if entry is not None and entry.counter < self._counter_max:
            self._pinned[key] = entry._replace(bits=entry.bits + 1)

    def remove(self, key: K) -> None:
        """Forget a key that is gone for another reason. Without effect if it is not there."""
        for queue in self._queues:
            queue.discard(key)
        entry = self._pinned.pop(key, None)
        if entry is not None:
            self._pinned_bytes -= entry.size

    def pin(self, key: K) -> None:
        """Keep a key from being a victim until it is unpinned. Without effect if it is not there."""
        for place, queue in enumerate(self._queues):
            found = queue.discard(key)
            if found is not None:
                size, counter = found
                self._hold(Entry(key, size, PINNED_BIT | place << COUNTER_BITS | counter))

    def unpin(self, key: K) -> None:
        """Let a key be a victim again: as the last of the queue that it was in."""
        entry = self._pinned.pop(key, None)
        if entry is not None:
            self._pinned_bytes -= entry.size
            self._queues[entry.place].push(key, entry.size, entry.counter)

    def pinned(self) -> list[K]:
        """All keys that are pinned."""
        return list(self._pinned)

    def victims_for(self, size: int) -> list[K]:
        """Take out as many keys as must be dropped before ``size`` bytes more fit under the limit.

        Raises TooLarge for what can never fit, and Full if it can't as long as so much is pinned;
        then nothing was taken out. With 0 it leads back under the limit after ``restore``.
        """
        if size > self.limit_bytes:
            raise TooLarge(
                f"{size} bytes don't fit into a cache of {self.limit_bytes}",
                hint="Raise cache_limit_bytes, or read the object from the upstream itself.",
            )
        if self._pinned_bytes + size > self.limit_bytes:
            raise Full(
                f"{self._pinned_bytes} of {self.limit_bytes} bytes of the cache can't be dropped now",
                hint="They wait to be stored upstream: see that it is reachable, or raise "
                "cache_limit_bytes.",
            )
        victims: list[K] = []
        while self.size_bytes + size > self.limit_bytes:
            key = self.victim()
            assert key is not None  # what is pinned leaves room enough
            victims.append(key)
        return victims

    def entries(self) -> Iterator[Entry[K]]:
        """The whole state, in an order from which ``restore`` makes it again. Don't change it
        meanwhile."""
        for place, queue in enumerate(self._queues):
            yield from queue.entries(place)
        yield from self._pinned.values()

    def restore(self, entries: Iterable[Entry[K]]) -> None:
        """Replace the state. What was pinned is pinned again. It may be over the limit now.

        Of several entries of a key that is cached the first counts.
        """
        self._reset()
        self._pinned.clear()
        self._pinned_bytes = 0
        for entry in entries:
            assert entry.size >= 0, entry
            if entry.key not in self:
                self._restore_one(entry)

    def _restore_one(self, entry: Entry[K]) -> None:
        if entry.place >= len(self._queues):
            return  # another policy's ghost
        if entry.is_pinned:
            self._hold(entry)
        else:
            counter = min(entry.counter, self._counter_max)
            self._queues[entry.place].push(entry.key, entry.size, counter)

    def _hold(self, entry: Entry[K]) -> None:
        self._pinned[entry.key] = entry
        self._pinned_bytes += entry.size


class S3Fifo(Policy[K]):
    """Small, main and ghost queue. Ghosts are as many bytes as the main queue may have.

    Nor are they more than the keys that are cached, or 10,000 if these are fewer: so small objects,
    of which many fit into those bytes, don't fill the memory.
    """

    def __init__(self, limit_bytes: int, *, promoted_hits: int = PROMOTED_HITS_COUNT) -> None:
        """``promoted_hits``: with how many hits a key moves from the small queue to the main one.

        The paper has 2. Another number is for the simulation (bench/EVICTION.md).
        """
        super().__init__(limit_bytes)
        self._small_bytes = limit_bytes * SMALL_QUEUE_PERCENT // 100
        self._promoted_hits = promoted_hits

    def _reset(self) -> None:
        self._small: Queue[K] = Queue()
        self._main: Queue[K] = Queue()
        self._ghosts: Queue[K] = Queue()
        self._queues = self._small, self._main

    def _place(self, key: K) -> int:
        return SMALL if self._ghosts.discard(key) is None else MAIN

    def remove(self, key: K) -> None:
        super().remove(key)
        self._ghosts.discard(key)

    def victim(self) -> K | None:
        small, main = self._small, self._main
        while small or main:
            if small and (small.size_bytes >= self._small_bytes or not main):
                key, size, hits = small.pop()
                if hits < self._promoted_hits:
                    self._remember(key, size)
                    return key
                main.push(key, size)
            else:
                key, size, hits = main.pop()
                if not hits:
                    return key
                main.push(key, size, hits - 1)
        return None

    def _remember(self, key: K, size: int) -> None:
        ghosts = self._ghosts
        ghosts.push(key, size)
        ghosts_bytes = self.limit_bytes - self._small_bytes
        ghosts_count = max(GHOSTS_MIN_COUNT, len(self))
        while ghosts.size_bytes > ghosts_bytes or len(ghosts) > ghosts_count:
            ghosts.pop()

    def entries(self) -> Iterator[Entry[K]]:
        yield from super().entries()
        yield from self._ghosts.entries(GHOST)

    def _restore_one(self, entry: Entry[K]) -> None:
        if entry.place != GHOST:
            self._ghosts.discard(entry.key)
            super()._restore_one(entry)
        elif entry.key not in self._ghosts:
            self._ghosts.push(entry.key, entry.size)
