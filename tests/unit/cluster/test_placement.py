"""How many copies are wanted, and who is asked to hold, to take and to give them."""

import pytest

from tierce.cluster.member import Member, State, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Unavailable

DIGEST = Digest.of(b"blob")
SHA1 = Digest.of(b"blob", "sha1")
NAMES = ("a", "b", "c", "d", "e")


def members(count: int, **changed: Member) -> list[Member]:
    return [changed.get(name, Member(name)) for name in NAMES[:count]]


def placement(*given: Member, gone: tuple[str, ...] = ()) -> Placement:
    return Placement(View.of("a", given, gone))


def ids(found: list[Member]) -> list[str]:
    return [each.node_id for each in found]


def order_of(count: int, digest: Digest = DIGEST) -> list[str]:
    """The order of plain members, which flags do not change."""
    return ids(placement(*members(count)).order(digest))


def with_flags(count: int, **flagged: Member) -> Placement:
    return placement(*members(count, **flagged))


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_automatic_replication_grows_with_the_members_up_to_three(count: int, wanted: int) -> None:
    assert placement(*members(count)).replication == wanted


def test_a_member_that_is_down_counts_for_automatic_replication() -> None:
    assert with_flags(3, b=Member("b", state=State.DOWN)).replication == 3


def test_a_member_that_is_gone_counts_for_automatic_replication_until_it_is_forgotten() -> None:
    down = Member("b", state=State.DOWN)
    assert placement(*members(3, b=down), gone=("b",)).replication == 3
    assert placement(Member("a"), Member("c")).replication == 2


def test_a_draining_member_does_not_count_for_automatic_replication() -> None:
    assert with_flags(3, b=Member("b", draining=True)).replication == 2


def test_a_lone_draining_member_still_wants_one_copy() -> None:
    assert placement(Member("a", draining=True)).replication == 1


def test_the_highest_replication_that_any_member_asks_for_counts() -> None:
    found = placement(Member("a", replication=1), Member("b", replication=2))
    assert found.replication == 2


def test_automatic_replication_of_one_member_outweighs_a_lower_number_of_another() -> None:
    assert with_flags(4, b=Member("b", replication=1)).replication == 3


def test_what_a_cask_member_asks_for_does_not_count() -> None:
    cask = Member("b", dialect="cask", replication=9, max_replication=9)
    found = placement(Member("a", replication=1), cask)
    assert (found.replication, found.max_replication) == (1, 1)


def test_max_replication_is_never_below_replication() -> None:
    assert placement(Member("a", replication=3, max_replication=2)).max_replication == 3


def test_the_highest_max_replication_counts() -> None:
    assert with_flags(3, b=Member("b", max_replication=5)).max_replication == 5


def test_a_lone_member_that_wants_one_copy_is_alone() -> None:
    assert placement(Member("a")).is_alone


def test_a_lone_member_that_wants_two_copies_is_not_alone() -> None:
    assert not placement(Member("a", replication=2)).is_alone


def test_a_member_beside_one_that_is_down_is_not_alone() -> None:
    assert not placement(Member("a"), Member("b", state=State.DOWN)).is_alone


@pytest.mark.parametrize(
    "flagged",
    [
        {"writable": False},
        {"draining": True},
        {"state": State.DOWN},
        {"dialect": "cask"},
    ],
    ids=str,
)
def test_writers_leave_out_who_can_not_take_the_blob(flagged: dict[str, object]) -> None:
    out = Member("c", **flagged)  # type: ignore[arg-type]
    expected = [name for name in order_of(5) if name != "c"]
    assert ids(with_flags(5, c=out).writers(DIGEST)) == expected


def test_a_cask_member_is_a_writer_of_sha1_blobs() -> None:
    cask = Member("c", dialect="cask")
    assert ids(with_flags(5, c=cask).writers(SHA1)) == order_of(5, SHA1)


def test_suspects_are_the_last_writers_and_readers() -> None:
    first = order_of(5)[0]
    found = placement(*members(5, **{first: Member(first, state=State.SUSPECT)}))
    expected = [*order_of(5)[1:], first]
    assert ids(found.writers(DIGEST)) == expected
    assert ids(found.readers(DIGEST)) == expected


def test_readers_are_all_that_are_up_read_only_and_draining_ones_included() -> None:
    flagged = {
        "b": Member("b", writable=False),
        "c": Member("c", draining=True),
        "d": Member("d", state=State.DOWN),
    }
    expected = [name for name in order_of(5) if name != "d"]
    assert ids(placement(*members(5, **flagged)).readers(DIGEST)) == expected


def test_owners_are_the_first_in_order() -> None:
    assert ids(placement(*members(5)).owners(DIGEST)) == order_of(5)[:3]


def test_a_member_that_is_down_keeps_its_place_within_the_grace_time() -> None:
    first = order_of(5)[0]
    down = Member(first, state=State.DOWN)
    assert ids(placement(*members(5, **{first: down})).owners(DIGEST)) == order_of(5)[:3]


def test_a_member_that_is_gone_owns_nothing() -> None:
    first = order_of(5)[1]
    down = Member(first, state=State.DOWN)
    found = placement(*members(5, **{first: down}), gone=(first,))
    expected = [name for name in order_of(5) if name != first]
    assert ids(found.order(DIGEST)) == expected
    assert ids(found.owners(DIGEST)) == expected[:3]


def test_a_read_only_member_is_an_owner_of_what_it_holds_only() -> None:
    first = order_of(5)[0]
    found = placement(*members(5, **{first: Member(first, writable=False)}))
    assert ids(found.owners(DIGEST)) == order_of(5)[1:4]
    assert ids(found.owners(DIGEST, [first])) == order_of(5)[:3]


def test_a_draining_member_owns_nothing_even_if_it_holds_it() -> None:
    first = order_of(5)[0]
    found = placement(*members(5, **{first: Member(first, draining=True)}))
    assert ids(found.owners(DIGEST, [first])) == order_of(5)[1:4]


def test_a_cask_member_owns_sha1_blobs_only() -> None:
    first = order_of(5)[0]
    found = placement(*members(5, **{first: Member(first, dialect="cask")}))
    assert first not in ids(found.owners(DIGEST, [first]))
    assert ids(found.owners(SHA1)) == order_of(5, SHA1)[:3]


def test_fewer_members_than_copies_are_all_owners() -> None:
    assert ids(placement(Member("a", replication=3), Member("b")).owners(DIGEST)) == order_of(2)


def test_a_member_can_be_drained_while_enough_others_can_hold_its_blobs() -> None:
    placement(*members(4, a=Member("a", replication=3))).check_drainable(Member("b"))


def test_draining_is_refused_with_the_numbers_when_too_few_others_are_left() -> None:
    found = placement(*members(3, a=Member("a", replication=3)))
    with pytest.raises(
        Conflict, match="copies asked for: 3; other nodes that can hold them now: 2"
    ) as caught:
        found.check_drainable(Member("b"))
    assert "add a node" in caught.value.hint


@pytest.mark.parametrize("flagged", [{"writable": False}, {"draining": True}], ids=str)
def test_who_takes_nothing_is_no_help_to_a_draining_member(flagged: dict[str, object]) -> None:
    found = with_flags(3, a=Member("a", replication=2), c=Member("c", **flagged))  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="hold them now: 1"):
        found.check_drainable(Member("b"))


def test_with_automatic_replication_the_last_other_member_must_stay() -> None:
    placement(*members(2)).check_drainable(Member("b"))
    with pytest.raises(
        Conflict, match="copies asked for: 1; other nodes that can hold them now: 0"
    ):
        placement(Member("a")).check_drainable(Member("a"))


def test_enough_writable_members_may_be_written_to() -> None:
    placement(*members(3)).check_writable("blake3")


def test_too_few_writable_members_are_told_with_those_that_are_down() -> None:
    found = with_flags(3, b=Member("b", state=State.DOWN), c=Member("c", writable=False))
    with pytest.raises(Unavailable) as caught:
        found.check_writable("blake3")
    assert caught.value.message == "3 copies are asked for, and 1 nodes take new blobs now; down: b"
    assert "tierce cluster status" in caught.value.hint


def test_nobody_is_called_down_when_all_are_up() -> None:
    found = with_flags(2, b=Member("b", writable=False))
    with pytest.raises(Unavailable, match=r"1 nodes take new blobs now$"):
        found.check_writable("blake3")


def test_a_cask_member_counts_as_writable_for_sha1_only() -> None:
    found = placement(Member("a"), Member("b", dialect="cask"))
    found.check_writable("sha1")
    with pytest.raises(Unavailable):
        found.check_writable("blake3")


@pytest.mark.parametrize(
    "changed",
    [
        {"state": State.DOWN},
        {"writable": False},
        {"draining": True},
        {"zone": "z"},
        {"weight": 2.0},
        {"replication": 2},
        {"max_replication": 4},
    ],
    ids=str,
)
def test_what_moves_blobs_is_of_substance(changed: dict[str, object]) -> None:
    after = with_flags(3, b=Member("b", **changed))  # type: ignore[arg-type]
    assert after.substance != placement(*members(3)).substance


@pytest.mark.parametrize(
    "changed",
    [{"state": State.SUSPECT}, {"incarnation": 7}, {"version": "2"}, {"private": "x:1"}],
    ids=str,
)
def test_what_moves_no_blob_is_of_no_substance(changed: dict[str, object]) -> None:
    after = with_flags(3, b=Member("b", **changed))  # type: ignore[arg-type]
    assert after.substance == placement(*members(3)).substance
