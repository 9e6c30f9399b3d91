"""The laws of merging, and what a view shows."""

import random
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from tierce.cluster.member import Member, State, View, merge
from tierce.core.codec import decode, encode


def record(incarnation: int, state: State) -> Member:
    """What a node wrote under that incarnation; others may only have changed the state."""
    return Member("n", incarnation, state, private=f"host:{incarnation}")


records = st.builds(record, st.integers(0, 3), st.sampled_from(list(State)))


@given(records, records)
def test_merging_does_not_depend_on_who_is_heard_first(one: Member, other: Member) -> None:
    assert merge(one, other) == merge(other, one)


@given(records, records, records)
def test_merging_does_not_depend_on_grouping(a: Member, b: Member, c: Member) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(records)
def test_hearing_the_same_again_changes_nothing(one: Member) -> None:
    assert merge(one, one) is one


@given(st.lists(records, min_size=1), st.randoms(use_true_random=False))
def test_all_who_heard_the_same_in_any_order_know_the_same(
    heard: list[Member], chance: random.Random
) -> None:
    shuffled = heard * 2
    chance.shuffle(shuffled)
    assert reduce(merge, heard) == reduce(merge, shuffled) == max(heard, key=lambda m: m.rank)


@given(records, records)
def test_merging_never_lowers_the_rank(one: Member, other: Member) -> None:
    assert merge(one, other).rank >= max(one.rank, other.rank)


def test_a_higher_incarnation_counts_more_than_any_state() -> None:
    alive = record(2, State.ALIVE)
    assert merge(record(1, State.LEFT), alive) is alive


def test_who_is_unknown_is_taken_as_heard() -> None:
    heard = record(1, State.DOWN)
    assert merge(None, heard) is heard


def test_a_view_is_sorted_and_without_those_that_left() -> None:
    members = [Member("c"), Member("a"), Member("b", state=State.LEFT)]
    view = View.of("c", members, ["z", "y"])
    assert [each.node_id for each in view.members] == ["a", "c"]
    assert view.gone == ("y", "z")
    assert view.find("a") == Member("a")
    assert view.find("b") is None


@given(records)
def test_a_record_survives_the_wire(one: Member) -> None:
    assert decode(encode(one), Member, "record") == one
