"""Eviction policies for the simulation in eviction.py: SIEVE, which was not chosen, LRU and ARC."""

from collections import OrderedDict
from typing import Protocol

from tierce.upstream.eviction import K, Policy, Queue


class Cache(Protocol):
    """A cache of keys and sizes, as the simulation drives it."""

    def request(self, key: int, size: int) -> bool:
        """Ask for a key: True if it was there; if not, it is there now, if it fits at all."""
        ...


class Driven:
    """A cache under a policy of upstream/eviction.py."""

    def __init__(self, policy: Policy[int]) -> None:
        self.policy = policy

    def request(self, key: int, size: int) -> bool:
        policy = self.policy
        if key in policy:
            policy.touch(key)
            return True
        if size <= policy.limit_bytes:
            policy.victims_for(size)
            policy.add(key, size)
        return False


class Sieve(Policy[K]):
    """One queue with a hand that goes from its oldest key to its newest, and round again.

    A key that was hit stays where it is, and loses its mark; the next without a mark is the victim.
    The queue is kept in two parts: what the hand has passed in this round, and what lies ahead of
    it. After Zhang, Yang, Yue, Vigfusson, Rashmi: SIEVE is Simpler than LRU (NSDI 2024), algorithm 1.
    """

    _counter_max = 1

    def _reset(self) -> None:
        self._passed: Queue[K] = Queue()
        self._ahead: Queue[K] = Queue()
        self._queues = self._ahead, self._passed

    def _turn(self) -> None:
        """Past the newest key the hand begins again at the oldest one."""
        if not self._ahead:
            self._passed, self._ahead = self._ahead, self._passed
            self._queues = self._ahead, self._passed

    def _place(self, key: K) -> int:
        self._turn()
        return 0

    def victim(self) -> K | None:
        self._turn()
        while self._ahead:
            key, size, hit = self._ahead.pop()
            if not hit:
                return key
            self._passed.push(key, size)
            self._turn()
        return None


class Lru:
    """The key goes that was not asked for the longest."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0

    def request(self, key: int, size: int) -> bool:
        if key in self._sizes:
            self._sizes.move_to_end(key)
            return True
        if size <= self._limit_bytes:
            while self._bytes + size > self._limit_bytes:
                self._bytes -= self._sizes.popitem(last=False)[1]
            self._sizes[key] = size
            self._bytes += size
        return False


class _Part:
    """A list of keys by age, oldest first, and the sum of their sizes in bytes."""

    def __init__(self) -> None:
        self.sizes: OrderedDict[int, int] = OrderedDict()
        self.bytes = 0

    def push(self, key: int, size: int) -> None:
        self.sizes[key] = size
        self.bytes += size

    def pop(self) -> tuple[int, int]:
        key, size = self.sizes.popitem(last=False)
        self.bytes -= size
        return key, size

    def take(self, key: int) -> bool:
        size = self.sizes.pop(key, None)
        if size is None:
            return False
        self.bytes -= size
        return True


class Arc:
    """Keys seen once (t1) and more often (t2), each with its ghosts (b1, b2), and a moving target.

    After Megiddo and Modha: ARC, a Self-Tuning, Low Overhead Replacement Cache (FAST 2003), figure 4,
    with bytes in the place of numbers of pages. A hit in a list of ghosts moves the target by the size
    of the object, times the ratio of the two lists where the other one is larger.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._target_bytes = 0.0  # of t1; the paper's p
        self._t1, self._t2, self._b1, self._b2 = _Part(), _Part(), _Part(), _Part()

    def request(self, key: int, size: int) -> bool:
        t1, t2, b1, b2 = self._t1, self._t2, self._b1, self._b2
        if key in t2.sizes:
            t2.sizes.move_to_end(key)
            return True
        if t1.take(key):
            t2.push(key, size)
            return True
        if size > self._limit_bytes:
            return False
        if key in b1.sizes:
            step = size * max(1.0, b2.bytes / max(1, b1.bytes))
            self._target_bytes = min(self._target_bytes + step, self._limit_bytes)
            self._make_room(size, from_b2=False)
            b1.take(key)
            t2.push(key, size)
        elif key in b2.sizes:
            step = size * max(1.0, b1.bytes / max(1, b2.bytes))
            self._target_bytes = max(self._target_bytes - step, 0.0)
            self._make_room(size, from_b2=True)
            b2.take(key)
            t2.push(key, size)
        else:
            self._make_room(size, from_b2=False)
            t1.push(key, size)
        # t1 and b1 together hold up to the limit, all four up to twice the limit.
        while b1.sizes and t1.bytes + b1.bytes > self._limit_bytes:
            b1.pop()
        while b2.sizes and t1.bytes + t2.bytes + b1.bytes + b2.bytes > 2 * self._limit_bytes:
            b2.pop()
        return False

    def _make_room(self, size: int, *, from_b2: bool) -> None:
        t1, t2 = self._t1, self._t2
        while t1.bytes + t2.bytes + size > self._limit_bytes:
            over = t1.bytes > self._target_bytes or (from_b2 and t1.bytes == self._target_bytes)
            if t1.sizes and (over or not t2.sizes):
                self._b1.push(*t1.pop())
            else:
                self._b2.push(*t2.pop())
