"""The victims of S3-FIFO and SIEVE: by hand, and against the papers' algorithms in obvious lines.

LRU and ARC, the references of the simulation, are checked at the end.
"""

from collections.abc import Callable
from typing import Protocol

import pytest
from bench import policies as references
from bench.policies import Sieve
from hypothesis import given
from hypothesis import strategies as st

from tierce.upstream import eviction
from tierce.upstream.eviction import GHOST, MAIN, SMALL, Entry, Policy, S3Fifo

LIMIT_BYTES = 100

Make = Callable[[int], Policy[int]]


def s3_fifo(limit_bytes: int) -> Policy[int]:
    return S3Fifo(limit_bytes)


def sieve(limit_bytes: int) -> Policy[int]:
    return Sieve(limit_bytes)


def ask(policy: Policy[int], *keys: int, size: int = 10) -> list[int]:
    """Ask for keys of one size, one after the other; returns all victims."""
    victims: list[int] = []
    for key in keys:
        if key in policy:
            policy.touch(key)
        else:
            victims += policy.victims_for(size)
            policy.add(key, size)
    return victims


def places(policy: Policy[int]) -> dict[int, list[tuple[int, int]]]:
    """Keys and counters by queue, each from the oldest to the newest."""
    found: dict[int, list[tuple[int, int]]] = {SMALL: [], MAIN: [], GHOST: []}
    for entry in policy.entries():
        found[entry.place].append((entry.key, entry.counter))
    return found


def test_s3_fifo_by_hand() -> None:
    policy = s3_fifo(LIMIT_BYTES)  # ten objects of 10 bytes; the small queue has one of them
    assert ask(policy, *range(10)) == []
    ask(policy, 0, 0, 0, 0, 1, 1, 2)
    assert places(policy)[SMALL][:3] == [(0, 3), (1, 2), (2, 1)]
    # 0 and 1 move to the main queue, with their counters cleared; 2 had one hit, which is too few.
    assert ask(policy, 10) == [2]
    assert places(policy)[MAIN] == [(0, 0), (1, 0)]
    assert places(policy)[GHOST] == [(2, 0)]
    # A ghost that comes back goes to the main queue.
    assert ask(policy, 2) == [3]
    assert places(policy)[MAIN] == [(0, 0), (1, 0), (2, 0)]
    assert places(policy)[GHOST] == [(3, 0)]
    # Of the main queue those without hits go, others go round and lose one. No ghosts come of it.
    ask(policy, 0, 0)
    assert ask(policy, 4, 5, 6, 7, 8, 9, 10) == []
    assert ask(policy, 20, 21, 22, 23, 24, 25) == [4, 5, 6, 7, 8, 9]
    assert [key for key, _ in places(policy)[SMALL]] == [10, 20, 21, 22, 23, 24, 25]


def test_s3_fifo_main_queue_goes_round() -> None:
    policy = s3_fifo(LIMIT_BYTES)
    rows = [Entry(key, 10, MAIN << 2 | key % 3) for key in range(10)]
    policy.restore(rows)  # counters 0 1 2 0 1 2 0 1 2 0, and nothing in the small queue
    assert policy.victim() == 0
    assert policy.victim() == 3
    assert places(policy)[MAIN] == [(4, 1), (5, 2), (6, 0), (7, 1), (8, 2), (9, 0), (1, 0), (2, 1)]
    assert places(policy)[GHOST] == []


def test_s3_fifo_counts_three_hits_at_most() -> None:
    policy = s3_fifo(LIMIT_BYTES)
    ask(policy, *[1] * 100)
    assert places(policy)[SMALL] == [(1, 3)]


def test_s3_fifo_keeps_the_main_queue_while_the_small_one_has_its_tenth() -> None:
    policy = s3_fifo(LIMIT_BYTES)
    policy.restore([*(Entry(key, 10, MAIN << 2) for key in range(9)), Entry(100, 9)])
    assert ask(policy, 101, size=2) == [0]  # 9 bytes in the small queue are less than a tenth
    assert ask(policy, 102, size=10) == [100]  # now it has 11
    policy.restore([*(Entry(key, 10, MAIN << 2) for key in range(9)), Entry(100, 10)])
    assert ask(policy, 101, size=1) == [100]  # a tenth is as good as more


def test_s3_fifo_forgets_the_ghost_of_a_removed_key() -> None:
    policy = s3_fifo(LIMIT_BYTES)
    assert ask(policy, *range(11)) == [0]
    policy.remove(0)
    ask(policy, 0)
    assert places(policy)[MAIN] == []


def test_s3_fifo_remembers_ghosts_of_nine_tenths_of_the_bytes() -> None:
    policy = s3_fifo(LIMIT_BYTES)
    ask(policy, *range(100))
    assert places(policy)[GHOST] == [(key, 0) for key in range(81, 90)]
    ask(policy, 200, size=LIMIT_BYTES)  # ten more ghosts, of which nine may be kept
    assert places(policy)[GHOST] == [(key, 0) for key in range(91, 100)]


def test_s3_fifo_does_not_remember_more_ghosts_than_it_has_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eviction, "GHOSTS_MIN_COUNT", 20)
    policy = s3_fifo(LIMIT_BYTES)
    ask(policy, *range(200), size=1)
    assert len(places(policy)[GHOST]) == 90  # a hundred keys may have more, but not in bytes
    policy = s3_fifo(LIMIT_BYTES)
    ask(policy, *range(100), size=1)
    assert len(ask(policy, 1000, size=LIMIT_BYTES)) == 100
    ghosts = places(policy)[GHOST]
    # While keys go there are ever fewer of them, so ghosts go too, down to the least count.
    assert [key for key, _ in ghosts] == [*range(80, 100)]


def test_s3_fifo_restores_a_key_from_rows_that_disagree() -> None:
    policy = s3_fifo(LIMIT_BYTES)
    policy.restore([Entry(1, 40, GHOST << 2), Entry(1, 10), Entry(2, 40, GHOST << 2)] * 2)
    assert places(policy) == {SMALL: [(1, 0)], MAIN: [], GHOST: [(2, 0)]}
    assert policy.size_bytes == 10
    ask(policy, 2)
    assert places(policy) == {SMALL: [(1, 0)], MAIN: [(2, 0)], GHOST: []}
    assert ask(policy, 3, size=LIMIT_BYTES) == [1, 2]


class Naive(Protocol):
    """What naive models have: the key to go, told from lists."""

    def ask(self, key: int, size: int) -> list[int]: ...


class NaiveS3Fifo:
    """Algorithm 1 of the paper, line by line, in lists of [key, size, freq] with the head first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.s: list[list[int]] = []
        self.m: list[list[int]] = []
        self.g: list[list[int]] = []
        self.evicted: list[int] = []

    def ask(self, key: int, size: int) -> list[int]:
        self.evicted = []
        for x in self.s + self.m:
            if x[0] == key:
                x[2] = min(x[2] + 1, 3)
                return []
        while sum(x[1] for x in self.s + self.m) + size > self.limit:
            self.evict()
        (self.m if key in [x[0] for x in self.g] else self.s).insert(0, [key, size, 0])
        self.g = [x for x in self.g if x[0] != key]
        return self.evicted

    def evict(self) -> None:
        if self.s and (sum(x[1] for x in self.s) >= self.limit // 10 or not self.m):
            self.evict_s()
        else:
            self.evict_m()

    def evict_s(self) -> None:
        t = self.s.pop()
        if t[2] > 1:
            self.m.insert(0, [t[0], t[1], 0])
            return  # and the caller asks again
        self.g.insert(0, t)
        while sum(x[1] for x in self.g) > self.limit - self.limit // 10:
            self.g.pop()
        self.evicted.append(t[0])

    def evict_m(self) -> None:
        t = self.m.pop()
        if t[2] > 0:
            self.m.insert(0, [t[0], t[1], t[2] - 1])
        else:
            self.evicted.append(t[0])


class NaiveSieve:
    """Algorithm 1 of the paper: one list of [key, size, visited], head first, and a hand."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.t: list[list[int]] = []
        self.hand: list[int] | None = None

    def ask(self, key: int, size: int) -> list[int]:
        for x in self.t:
            if x[0] == key:
                x[2] = 1
                return []
        evicted = []
        while sum(x[1] for x in self.t) + size > self.limit:
            o = self.t[-1] if self.hand is None else self.hand
            while o[2]:
                o[2] = 0
                o = self.before(o) or self.t[-1]
            self.hand = self.before(o)
            self.t = [x for x in self.t if x is not o]
            evicted.append(o[0])
        self.t.insert(0, [key, size, 0])
        return evicted

    def before(self, o: list[int]) -> list[int] | None:
        place = next(i for i, x in enumerate(self.t) if x is o)
        return self.t[place - 1] if place else None


requests = st.lists(st.tuples(st.integers(0, 25), st.sampled_from([0, 1, 5, 10, 60])), max_size=150)


@pytest.mark.parametrize(("make", "model"), [(s3_fifo, NaiveS3Fifo), (sieve, NaiveSieve)])
@given(asked=requests)
def test_victims_are_those_of_the_paper(
    make: Make, model: Callable[[int], Naive], asked: list[tuple[int, int]]
) -> None:
    policy, naive = make(LIMIT_BYTES), model(LIMIT_BYTES)
    for key, size in asked:
        assert ask(policy, key, size=size) == naive.ask(key, size)


# SIEVE and the other references


def test_sieve_by_hand() -> None:
    policy = sieve(70)
    ask(policy, *range(1, 8))  # 7 is the newest, 1 the oldest
    ask(policy, 1, 2, 7)
    # The hand passes 1 and 2, which lose their marks, and takes 3; then 4, 5 and 6.
    assert ask(policy, 8, 9, 10, 11) == [3, 4, 5, 6]
    # It goes on from there: past 7, then the new ones, though 1 and 2 are older and unmarked.
    assert ask(policy, 12) == [8]
    ask(policy, 9, 10, 11, 12)
    # The hand reaches the head and begins again at the tail.
    assert ask(policy, 13) == [1]


def test_lru_drops_what_was_not_asked_for_the_longest() -> None:
    cache = references.Lru(30)
    asked = [cache.request(key, 10) for key in (1, 2, 3, 1, 4, 1, 2, 3)]
    assert asked == [False, False, False, True, False, True, False, False]
    assert not cache.request(9, 31)
    assert cache.request(3, 10)


@given(asked=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 110)), max_size=150))
def test_arc_keeps_to_the_limit_by_its_own_account(asked: list[tuple[int, int]]) -> None:
    cache = references.Arc(LIMIT_BYTES)
    sizes = dict(asked)
    there: set[int] = set()
    for key, _ in asked:
        assert cache.request(key, sizes[key]) == (key in there)
        there = {*cache._t1.sizes, *cache._t2.sizes}
        assert (key in there) == (sizes[key] <= LIMIT_BYTES)
        assert sum(sizes[each] for each in there) <= LIMIT_BYTES
        assert not there & {*cache._b1.sizes, *cache._b2.sizes}


def test_arc_keeps_what_was_seen_twice_through_a_scan() -> None:
    cache = references.Arc(1000)
    for key in [*range(50)] * 2 + [*range(1000, 2000)]:
        cache.request(key, 10)
    assert sum(cache.request(key, 10) for key in range(50)) == 50
