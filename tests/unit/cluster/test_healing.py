"""What healing decides for one blob: as a table, and as laws that hold for any cluster."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierce.cluster.healing import RING, Keep, Plan, needs_plan, plan, whom_to_ask
from tierce.cluster.member import Member, State, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest

DIGEST = Digest.of(b"blob")
COUNT = 7


def placement(me: str, given: Iterable[Member], gone: Iterable[str] = ()) -> Placement:
    return Placement(View.of(me, given, gone))


def in_order(count: int = COUNT) -> list[str]:
    """Names that stand in the order of placement for the digest: 1 is the best placed."""
    names = [f"n{number}" for number in range(count)]
    return [each.node_id for each in placement(names[0], map(Member, names)).order(DIGEST)]


ORDER = in_order()


def ids(found: Iterable[Member]) -> str:
    """Their places in the order of placement, from 1."""
    return "".join(str(ORDER.index(each.node_id) + 1) for each in found)


def names(places: str) -> list[str]:
    return [ORDER[int(place) - 1] for place in places]


def decide(
    me: int,
    holders: str,
    *,
    silent: str = "",
    down: str = "",
    draining: str = "",
    read_only: str = "",
    max_replication: int = 0,
    keep: Keep = RING,
) -> Plan:
    given = [
        Member(
            name,
            state=State.DOWN if name in names(down) else State.ALIVE,
            draining=name in names(draining),
            writable=name not in names(read_only),
            max_replication=max_replication,
        )
        for name in ORDER
    ]
    here = placement(ORDER[me - 1], given)
    return plan(DIGEST, here, names(holders), names(silent), keep)


# me, who holds it, how the others are: copies, rank, pushed to, witnesses. Three copies are wanted.
TABLE = [
    (1, "123", {}, (3, 0, "", "")),
    (2, "123", {}, (3, 1, "", "")),
    (1, "1", {}, (1, 0, "23", "")),
    (5, "5", {}, (1, 0, "123", "")),
    (3, "34", {}, (2, 0, "12", "")),
    (4, "34", {}, (2, 1, "12", "")),
    # Surplus: removed by those that are not among the first, and only when nobody lacks it.
    (4, "1234", {}, (4, 3, "", "123")),
    (5, "12345", {}, (5, 4, "", "1234")),
    (3, "1234", {}, (4, 2, "", "")),
    (5, "1345", {}, (4, 3, "2", "")),
    (4, "1234", {"max_replication": 4}, (4, 3, "", "")),
    (5, "12345", {"max_replication": 4}, (5, 4, "", "1234")),
    # Silent ones are not pushed to, and are no witnesses.
    (1, "1", {"silent": "2"}, (1, 0, "3", "")),
    (4, "134", {"silent": "2"}, (3, 2, "", "")),
    # One that is down keeps its place, and is not pushed to.
    (1, "13", {"down": "2"}, (2, 0, "", "")),
    (4, "134", {"down": "2"}, (3, 2, "", "")),
    # A draining one counts for nothing, and removes its copy once the others have enough.
    (1, "123", {"draining": "1"}, (2, 0, "4", "")),
    (1, "1234", {"draining": "1"}, (3, 0, "", "234")),
    (2, "123", {"draining": "1"}, (2, 1, "4", "")),
    (4, "1234", {"draining": "1"}, (3, 3, "", "")),
    (1, "1234", {"draining": "1", "max_replication": 5}, (3, 0, "", "234")),
    # Read-only ones keep what they have and get nothing.
    (1, "1", {"read_only": "2"}, (1, 0, "34", "")),
    (1, "12", {"read_only": "2"}, (2, 0, "3", "")),
    (4, "1234", {"read_only": "2"}, (4, 3, "", "123")),
    (1, "1", {"read_only": "1"}, (1, 0, "23", "")),
]


@pytest.mark.parametrize(("me", "holders", "others", "expected"), TABLE, ids=str)
def test_a_plan(
    me: int, holders: str, others: dict[str, str], expected: tuple[int, int, str, str]
) -> None:
    found = decide(me, holders, **others)  # type: ignore[arg-type]
    assert (found.copies, found.rank, ids(found.push_to), ids(found.witnesses)) == expected


def test_the_nearest_members_are_asked_in_order_and_this_one_is_not() -> None:
    assert ids(whom_to_ask(DIGEST, placement(ORDER[1], map(Member, ORDER)))) == "1345"


def test_members_that_are_down_are_not_asked() -> None:
    given = [Member(name, state=State.DOWN if name == ORDER[2] else State.ALIVE) for name in ORDER]
    assert ids(whom_to_ask(DIGEST, placement(ORDER[0], given))) == "245"


def test_owners_are_asked_however_far_away_they_are() -> None:
    """Otherwise they would be given again and again what they have."""
    given = [Member(name, writable=name not in names("1234")) for name in ORDER]
    assert ids(whom_to_ask(DIGEST, placement(ORDER[0], given))) == "234567"


@st.composite
def clusters(draw: st.DrawFn) -> list[Member]:
    """Two to eight members; at least two of them take everything."""
    count = draw(st.integers(2, 8))
    replication = draw(st.integers(0, 4))
    extra = draw(st.sampled_from([0, 0, 1, 2]))
    zones = draw(st.lists(st.sampled_from(["", "x", "y"]), min_size=count, max_size=count))
    kinds = draw(st.lists(st.sampled_from("wwwrd"), min_size=count - 2, max_size=count - 2))
    return [
        Member(
            f"n{number}",
            zone=zone,
            writable=kind != "r",
            draining=kind == "d",
            replication=replication,
            max_replication=replication + extra if replication else 0,
        )
        for number, (zone, kind) in enumerate(zip(zones, ["w", "w", *kinds], strict=True))
    ]


digests = st.binary(min_size=4, max_size=4).map(Digest.of)


@given(clusters(), digests, st.data())
def test_exactly_one_holder_has_rank_0(
    given_: list[Member], digest: Digest, data: st.DataObject
) -> None:
    all_ids = [each.node_id for each in given_]
    holders = data.draw(st.lists(st.sampled_from(all_ids), min_size=1, unique=True))
    ranks = [plan(digest, placement(me, given_), holders).rank for me in holders]
    assert sorted(ranks) == list(range(len(holders)))


@given(clusters(), digests, st.data())
def test_nobody_trims_without_enough_better_placed_holders_or_while_someone_lacks_a_copy(
    given_: list[Member], digest: Digest, data: st.DataObject
) -> None:
    all_ids = [each.node_id for each in given_]
    holders = data.draw(st.lists(st.sampled_from(all_ids), min_size=1, unique=True))
    silent = data.draw(st.lists(st.sampled_from(all_ids), unique=True))
    silent = [each for each in silent if each not in holders]
    for me in holders:
        here = placement(me, given_)
        found = plan(digest, here, holders, silent)
        assert not found.push_to or not found.witnesses
        assert not set(silent).intersection(each.node_id for each in found.push_to)
        assert not set(holders).intersection(each.node_id for each in found.push_to)
        assert all(each.writable and not each.draining for each in found.push_to)
        if not found.witnesses:
            continue
        assert len(found.witnesses) >= here.replication
        assert me not in [each.node_id for each in found.witnesses]
        order = [each.node_id for each in here.order(digest)]
        for witness in found.witnesses:
            assert witness.node_id in holders
            assert not witness.draining
            assert here.me.draining or order.index(witness.node_id) < order.index(me)


@settings(max_examples=300)
@given(clusters(), digests, st.data(), st.randoms(use_true_random=False))
def test_following_the_plans_converges_to_exactly_the_owners(
    given_: list[Member], digest: Digest, data: st.DataObject, chance: random.Random
) -> None:
    """In any order of nodes, pushing and trimming as each of them plans for itself."""
    given_ = [
        Member(
            each.node_id,
            zone=each.zone,
            writable=each.writable,
            draining=each.draining,
            replication=each.replication,
        )
        for each in given_
    ]
    all_ids = [each.node_id for each in given_]
    staying = [each.node_id for each in given_ if each.writable and not each.draining]
    wanted = placement(all_ids[0], given_).replication
    holders = data.draw(st.lists(st.sampled_from(all_ids), min_size=1, unique=True))
    for _ in range(6):
        for me in chance.sample(all_ids, len(all_ids)):
            if me not in holders:
                continue
            found = plan(digest, placement(me, given_), holders)
            holders = [*holders, *(each.node_id for each in found.push_to)]
            if found.witnesses:
                holders.remove(me)
    owners = placement(all_ids[0], given_).owners(digest, holders)
    if len(staying) >= wanted:
        assert sorted(holders) == sorted(each.node_id for each in owners)
    else:
        # Too few can hold it: then whoever has it keeps it until there are more.
        assert set(holders) >= {each.node_id for each in owners}


@given(clusters(), digests)
def test_what_all_owners_hold_and_nobody_else_is_left_alone(
    given_: list[Member], digest: Digest
) -> None:
    owners = placement("n0", given_).owners(digest)
    holders = [each.node_id for each in owners]
    for me in holders:
        found = plan(digest, placement(me, given_), holders)
        assert (found.push_to, found.witnesses) == ((), ())


def test_a_draining_holder_that_is_alone_pushes_to_the_owners_and_keeps_its_copy() -> None:
    found = decide(1, "1", draining="1")
    assert (found.copies, found.rank, ids(found.push_to), found.witnesses) == (0, 0, "234", ())


BY_LEVEL = Keep(by_ring=False, by_level=True)
BY_BOTH = Keep(by_ring=True, by_level=True)
BY_NOTHING = Keep(by_ring=False, by_level=False)

# What a level keeps, or nothing: me, who holds it, how the others are: pushed to, witnesses, proofs.
LEAVING = [
    (1, "1", {"draining": "1"}, ("2", "", 1)),
    (1, "15", {"draining": "1"}, ("", "5", 1)),
    (3, "123", {"draining": "3"}, ("", "12", 1)),
    # No copy that goes away itself counts, nor does one that can't be asked.
    (1, "12", {"draining": "12"}, ("3", "", 1)),
    (1, "12", {"draining": "1", "down": "2"}, ("3", "", 1)),
    (1, "12", {"draining": "1", "read_only": "2"}, ("3", "", 1)),
    (1, "1", {"draining": "1", "silent": "2"}, ("3", "", 1)),
    (1, "1", {"draining": "1", "read_only": "234567"}, ("", "", 1)),
]


@pytest.mark.parametrize("keep", [BY_LEVEL, BY_NOTHING], ids=["level", "nothing"])
@pytest.mark.parametrize(("me", "holders", "others", "expected"), LEAVING, ids=str)
def test_what_only_a_level_keeps_leaves_a_draining_node_for_one_other(
    me: int, holders: str, others: dict[str, str], expected: tuple[str, str, int], keep: Keep
) -> None:
    found = decide(me, holders, keep=keep, **others)  # type: ignore[arg-type]
    assert (ids(found.push_to), ids(found.witnesses), found.proofs) == expected


@given(clusters(), digests, st.data())
def test_a_node_never_removes_what_a_level_keeps_there_unless_it_is_drained(
    given_: list[Member], digest: Digest, data: st.DataObject
) -> None:
    all_ids = [each.node_id for each in given_]
    holders = data.draw(st.lists(st.sampled_from(all_ids), min_size=1, unique=True))
    for me in holders:
        here = placement(me, given_)
        if here.me.draining:
            continue
        assert not needs_plan(BY_LEVEL, here)
        assert not needs_plan(BY_NOTHING, here)
        for keep in (BY_LEVEL, BY_NOTHING):
            found = plan(digest, here, holders, keep=keep)
            assert (found.push_to, found.witnesses) == ((), ())
        assert plan(digest, here, holders, keep=BY_BOTH).witnesses == ()


@given(clusters(), digests, st.data())
def test_a_draining_node_removes_its_only_copy_of_nothing(
    given_: list[Member], digest: Digest, data: st.DataObject
) -> None:
    all_ids = [each.node_id for each in given_]
    holders = data.draw(st.lists(st.sampled_from(all_ids), min_size=1, unique=True))
    keep = data.draw(st.sampled_from([BY_LEVEL, BY_NOTHING, BY_BOTH, RING]))
    for me in holders:
        here = placement(me, given_)
        found = plan(digest, here, holders, keep=keep)
        assert not (found.push_to and found.witnesses)
        for witness in found.witnesses:
            assert witness.node_id in holders
            assert witness.node_id != me
            assert not witness.draining
        if found.witnesses:
            needed = found.proofs or here.replication
            assert len(found.witnesses) >= needed >= 1


def test_what_a_level_keeps_may_be_anywhere_so_all_are_asked() -> None:
    here = placement(ORDER[0], map(Member, ORDER))
    assert ids(whom_to_ask(DIGEST, here, BY_LEVEL)) == "234567"
    assert ids(whom_to_ask(DIGEST, here, BY_BOTH)) == "2345"
