"""What holds for any eviction policy: bound, pins, restoring. Tested on that in use and on its rival.

Which keys they choose is in test_eviction_papers.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from bench.policies import Sieve
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.errors import Full, TooLarge
from tierce.core.limits import STALE_MIN_COUNT
from tierce.upstream.eviction import (
    Entry,
    Policy,
    Queue,
    S3Fifo,
)

LIMIT_BYTES = 100

Make = Callable[[int], Policy[int]]


def s3_fifo(limit_bytes: int) -> Policy[int]:
    return S3Fifo(limit_bytes)


def s3_fifo_eager(limit_bytes: int) -> Policy[int]:
    return S3Fifo(limit_bytes, promoted_hits=1)


def sieve(limit_bytes: int) -> Policy[int]:
    return Sieve(limit_bytes)


both = pytest.mark.parametrize("make", [s3_fifo, sieve])
all_three = pytest.mark.parametrize("make", [s3_fifo, s3_fifo_eager, sieve])


class Step(NamedTuple):
    """What happens to a key: it is asked for (and added, with a size), removed, pinned or unpinned."""

    kind: str
    key: int
    size: int


KINDS = ["ask", "ask", "ask", "ask", "remove", "pin", "unpin"]
steps = st.lists(
    st.builds(Step, st.sampled_from(KINDS), st.integers(0, 30), st.integers(0, LIMIT_BYTES // 3)),
    max_size=120,
)


def walk(policy: Policy[int], story: list[Step]) -> list[list[int] | None]:
    """Do all steps as an owner does; returns the victims of each, None where there was no room."""
    told: list[list[int] | None] = []
    for kind, key, size in story:
        victims: list[int] | None = []
        if kind == "ask" and key in policy:
            policy.touch(key)
        elif kind == "ask":
            try:
                victims = policy.victims_for(size)
            except Full:
                victims = None
            else:
                policy.add(key, size)
        else:
            {"remove": policy.remove, "pin": policy.pin, "unpin": policy.unpin}[kind](key)
        told.append(victims)
    return told


def ask(policy: Policy[int], *keys: int, size: int = 10) -> list[int]:
    """Ask for keys of one size, one after the other; returns all victims."""
    told = walk(policy, [Step("ask", key, size) for key in keys])
    return [key for victims in told if victims is not None for key in victims]


def state(policy: Policy[int]) -> list[Entry[int]]:
    return list(policy.entries())


# What holds for each policy


@all_three
@given(story=steps)
def test_the_sum_of_sizes_never_passes_the_limit(make: Make, story: list[Step]) -> None:
    policy = make(LIMIT_BYTES)
    there: dict[int, int] = {}
    pinned: set[int] = set()
    for step in story:
        before = policy.size_bytes
        (victims,) = walk(policy, [step])
        if victims is None:
            assert sum(there[key] for key in pinned) + step.size > LIMIT_BYTES
        for victim in victims or ():
            assert victim not in pinned
            del there[victim]  # was there, and is named once
        if step.kind == "ask" and victims is not None:
            there.setdefault(step.key, step.size)
        elif step.kind == "remove":
            there.pop(step.key, None)
            pinned.discard(step.key)
        elif step.kind == "pin" and step.key in there:
            pinned.add(step.key)
        elif step.kind == "unpin":
            pinned.discard(step.key)
        assert policy.size_bytes == sum(there.values()) <= LIMIT_BYTES
        assert policy.pinned_bytes == sum(there[key] for key in pinned)
        assert len(policy) == len(there)
        assert set(policy.pinned()) == pinned
        assert all(key in policy for key in there)
        if victims:
            assert before + step.size > LIMIT_BYTES  # nothing goes without need
    for key in policy.pinned():
        policy.unpin(key)
    left = []
    while (last := policy.victim()) is not None:
        left.append(last)
    assert sorted(left) == sorted(there)
    assert (policy.size_bytes, len(policy)) == (0, 0)


@all_three
@given(past=steps, future=steps)
def test_restored_it_goes_on_as_if_never_stopped(
    make: Make, past: list[Step], future: list[Step]
) -> None:
    policy = make(LIMIT_BYTES)
    walk(policy, past)
    again = make(LIMIT_BYTES)
    ask(again, 1, 2, 3)  # what it knew before is replaced
    again.restore(list(policy.entries()))
    assert state(again) == state(policy)
    assert again.size_bytes == policy.size_bytes
    assert walk(again, future) == walk(policy, future)
    assert state(again) == state(policy)


@both
def test_a_scan_does_not_drive_out_what_is_hit_often(make: Make) -> None:
    hot = range(50)
    policy = make(1000)  # a hundred objects
    for _ in range(4):
        ask(policy, *hot)
    scanned = range(1000, 11_000)  # a hundred times the cache
    for key in scanned:
        ask(policy, key)
        if key % 50 == 0:
            ask(policy, *hot)
    assert sum(key in policy for key in hot) == 50


@both
def test_nor_does_a_scan_in_which_nothing_else_is_asked_for(make: Make) -> None:
    hot = range(50)
    policy = make(1000)
    for _ in range(4):
        ask(policy, *hot)
    ask(policy, *range(1000, 11_000))
    assert sum(key in policy for key in hot) == 50


@both
def test_an_object_larger_than_the_limit_is_refused_and_nothing_goes(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, 1, 2)
    before = state(policy)
    with pytest.raises(TooLarge) as caught:
        policy.victims_for(LIMIT_BYTES + 1)
    assert caught.value.hint
    assert state(policy) == before


@both
def test_an_object_of_the_whole_limit_takes_the_place_of_all(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, 1, 2, 3)
    assert ask(policy, 4, size=LIMIT_BYTES) == [1, 2, 3]
    assert (policy.size_bytes, len(policy)) == (LIMIT_BYTES, 1)
    assert ask(policy, 5, size=1) == [4]


@both
def test_objects_without_bytes_take_no_room_and_can_go(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    assert ask(policy, *range(1000), size=0) == []
    assert (policy.size_bytes, len(policy)) == (0, 1000)
    assert len(ask(policy, 1000, size=LIMIT_BYTES)) == 0
    assert 1000 in ask(policy, 1001, size=1)
    nothing = make(0)
    assert ask(nothing, 1, 2, size=0) == []
    assert {nothing.victim(), nothing.victim(), nothing.victim()} == {1, 2, None}


@both
def test_hits_and_removals_of_unknown_keys_are_without_effect(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, 1)
    before = state(policy)
    policy.touch(7)
    policy.remove(7)
    policy.pin(7)
    policy.unpin(7)
    policy.unpin(1)
    assert state(policy) == before


@both
def test_adding_without_room_is_a_mistake_of_the_owner(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    policy.add(1, 60)
    with pytest.raises(AssertionError, match="made room"):
        policy.add(2, 41)
    policy.add(1, 60)  # there already: a hit
    assert policy.size_bytes == 60


# Pins


@both
def test_a_victim_that_cannot_go_is_named_once_until_it_is_unpinned(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, *range(10))
    named = []
    with pytest.raises(Full) as caught:
        while victims := policy.victims_for(10):
            named += victims
            for victim in victims:
                policy.add(victim, 10, pinned=True)
    assert caught.value.hint
    assert sorted(named) == list(range(10))
    assert policy.victim() is None
    policy.unpin(3)
    policy.unpin(5)
    assert policy.victims_for(20) == [3, 5]
    assert policy.victims_for(20) == []


@both
def test_full_takes_nothing_out_and_forgets_no_hit(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, *range(10), 5, 5, 6)
    policy.pin(2)
    before = state(policy)
    with pytest.raises(Full):
        policy.victims_for(91)
    assert state(policy) == before
    assert len(policy.victims_for(90)) == 9
    assert 2 in policy


@both
def test_a_pinned_key_keeps_its_hits(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, *range(10))
    policy.pin(0)
    for _ in range(5):
        policy.touch(0)
    policy.unpin(0)
    assert ask(policy, *range(20, 28)) == [*range(1, 9)]
    assert 0 in policy


@both
def test_a_removed_pinned_key_is_gone(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    policy.add(1, LIMIT_BYTES, pinned=True)
    policy.remove(1)
    policy.unpin(1)
    assert (1 in policy, policy.pinned_bytes, policy.size_bytes) == (False, 0, 0)


# Restoring


@both
def test_a_lower_limit_is_reached_after_a_restore(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    ask(policy, *range(10))
    smaller = make(25)
    smaller.restore(policy.entries())
    assert smaller.size_bytes == LIMIT_BYTES
    assert smaller.victims_for(0) == [*range(8)]
    assert smaller.size_bytes == 20


@both
def test_what_was_pinned_is_pinned_after_a_restore(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    policy.add(1, 30, pinned=True)
    policy.add(2, 30)
    again = make(LIMIT_BYTES)
    again.add(3, 50, pinned=True)
    again.restore(policy.entries())
    assert (again.pinned(), again.pinned_bytes, again.size_bytes) == ([1], 30, 60)
    assert [entry.is_pinned for entry in again.entries()] == [False, True]


@both
def test_what_was_found_on_disk_is_appended_as_new(make: Make) -> None:
    policy = make(LIMIT_BYTES)
    policy.restore([Entry(1, 50), Entry(2, 50), Entry(3, 50), Entry(1, 7)])
    assert policy.size_bytes == 150
    assert policy.victims_for(10) == [1, 2]


@both
def test_another_policys_rows_are_understood(make: Make) -> None:
    other = sieve if make is s3_fifo else s3_fifo
    policy = other(LIMIT_BYTES)
    ask(policy, 0, 0, 0, *range(1, 20))
    again = make(LIMIT_BYTES)
    again.restore(policy.entries())
    assert again.size_bytes == policy.size_bytes
    assert all((key in again) == (key in policy) for key in range(20))


# The queue


@given(
    story=st.lists(
        st.tuples(
            st.sampled_from(["push", "push", "pop", "discard", "discard"]), st.integers(0, 8)
        ),
        max_size=200,
    )
)
def test_a_queue_is_a_list_of_keys_in_order(
    story: list[tuple[str, int]],
) -> None:
    queue: Queue[int] = Queue()
    model: dict[int, int] = {}
    for number, (kind, key) in enumerate(story):
        if kind == "push" and key not in model:
            queue.push(key, number, number % 4)
            model[key] = number
        elif kind == "pop" and model:
            first = next(iter(model))
            size = model.pop(first)
            assert queue.pop() == (first, size, size % 4)
        elif kind == "discard":
            found = model.pop(key, None)
            assert queue.discard(key) == (None if found is None else (found, found % 4))
        listed = [(entry.key, entry.size) for entry in queue.entries(0)]
        assert listed == [*model.items()]
        assert (len(queue), queue.size_bytes) == (len(model), sum(model.values()))


def test_pinning_over_and_over_takes_no_memory() -> None:
    policy = S3Fifo[int](LIMIT_BYTES)
    ask(policy, *range(10))
    for round_ in range(10_000):
        policy.pin(round_ % 10)
        policy.unpin(round_ % 10)
    assert len(policy._small._order) <= 2 * 10 + STALE_MIN_COUNT + 1
    assert sum(policy._small._stale.values()) == len(policy._small._order) - 10
    assert policy.victims_for(100) == [*range(10)]
