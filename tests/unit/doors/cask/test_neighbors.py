"""The table of Cask nodes: who is added, who counts as writable, who is dropped, what they are told."""

import json

import pytest

from tierce.cluster.member import Member, State, View
from tierce.core.errors import BadRequest
from tierce.doors.cask.neighbors import (
    KNOWN,
    MYSELF,
    NEIGHBORS_LIMIT,
    Heartbeat,
    Neighbors,
    Node,
    added,
)

ME = Member("me", cask="http://me:1")
A = Member("a", cask="http://a:1", dialect="cask")
B = Member("b", cask="http://b:1", dialect="cask")
ALONE = View.of("me", [ME])
INTERVAL = 60.0


def table(*members: Member, now: float = 0.0) -> Neighbors:
    neighbors = Neighbors("knock", INTERVAL)
    for member in members:
        neighbors.add(member, now)
    return neighbors


def beat(sender: Member, *others: Member, writeable: bool = True) -> Heartbeat:
    nodes = [Node(each.node_id, each.cask, True) for each in others]
    return Heartbeat(sender.node_id, sender.cask, writeable, "knock", nodes)


def test_those_that_were_known_are_to_hear_of_a_new_one() -> None:
    neighbors = table()
    assert neighbors.add(B, 0.0) == []
    assert neighbors.add(A, 0.0) == [B]
    assert neighbors.members() == [A, B]


@pytest.mark.parametrize(
    ("node_id", "view", "answer"),
    [
        ("me", ALONE, MYSELF),
        ("a", ALONE, KNOWN),
        ("b", ALONE, None),
        ("b", View.of("me", [ME, Member("b")]), KNOWN),
        ("b", View.of("me", [ME, Member("b", state=State.DOWN)]), None),
        ("b", View.of("me", [ME, B]), None),
    ],
)
def test_who_is_not_added(node_id: str, view: View, answer: str | None) -> None:
    assert table(A).why_not(node_id, view) == answer


def test_there_is_a_limit() -> None:
    neighbors = table(*(Member(f"{number}") for number in range(NEIGHBORS_LIMIT)))
    with pytest.raises(BadRequest):
        neighbors.add(A, 0.0)


@pytest.mark.parametrize(("age", "dropped"), [(0.0, []), (180.0, []), (180.1, ["a"])])
def test_a_node_is_dropped_after_three_silent_intervals(age: float, dropped: list[str]) -> None:
    neighbors = table(A, now=1000.0)
    assert neighbors.reap(ALONE, 1000.0 + age) == dropped
    assert ("a" in neighbors) is (not dropped)


def test_heartbeats_and_copies_are_signs_of_life() -> None:
    neighbors = table(A, B)
    neighbors.heard(beat(A), ALONE, 170.0)
    neighbors.copied("b", worked=True, now=170.0)
    assert neighbors.reap(ALONE, 200.0) == []
    neighbors.copied("b", worked=False, now=340.0)
    assert neighbors.reap(ALONE, 351.0) == ["a", "b"]


def test_a_failed_copy_counts_until_the_next_heartbeat() -> None:
    neighbors = table(A)
    neighbors.copied("a", worked=False, now=1.0)
    neighbors.copied("unknown", worked=False, now=1.0)
    assert [each.writable for each in neighbors.members()] == [False]
    neighbors.copied("a", worked=True, now=2.0)
    assert [each.writable for each in neighbors.members()] == [False]
    neighbors.heard(beat(A), ALONE, 3.0)
    assert [each.writable for each in neighbors.members()] == [True]


def test_a_heartbeat_overwrites_what_is_known_of_its_sender() -> None:
    neighbors = table(A)
    moved = Member("a", cask="http://elsewhere:1", dialect="cask")
    assert neighbors.heard(beat(moved, writeable=False), ALONE, 1.0) == []
    assert neighbors.members() == [
        Member("a", cask="http://elsewhere:1", writable=False, dialect="cask")
    ]


def test_of_those_that_a_heartbeat_tells_of_the_unknown_are_joined() -> None:
    tierce = Member("t", cask="http://t:1", state=State.DOWN)
    view = View.of("me", [ME, tierce])
    told = beat(B, A, ME, tierce, Member("c", cask="http://c:1"), Member("", cask="http://x:1"))
    neighbors = table(A)
    assert neighbors.heard(told, view, 1.0) == ["http://c:1"]
    assert "b" not in neighbors


@pytest.mark.parametrize("sender", [Heartbeat(), Heartbeat("a", "nonsense"), Heartbeat(None, None)])
def test_a_heartbeat_of_nobody_is_refused(sender: Heartbeat) -> None:
    with pytest.raises(BadRequest):
        table(A).heard(sender, ALONE, 1.0)


def test_a_cask_node_whose_place_a_tierce_node_took_is_dropped() -> None:
    view = View.of("me", [ME, Member("a", cask="http://a:1")])
    assert table(A).reap(view, 1.0) == ["a"]


def test_a_heartbeat_tells_of_all_nodes_with_a_cask_door() -> None:
    view = View.of(
        "me",
        [
            ME,
            B,
            Member("t", cask="http://t:1"),
            Member("draining", cask="http://d:1", draining=True),
            Member("suspect", cask="http://s:1", state=State.SUSPECT, writable=False),
            Member("down", cask="http://x:1", state=State.DOWN),
            Member("native only", native="http://n:1"),
        ],
    )
    neighbors = table(A)
    neighbors.copied("a", worked=False, now=0.0)
    said = json.loads(neighbors.heartbeat(view))
    told = said.pop("neighbors")
    assert said == {
        "uuid": "me", "base_url": "http://me:1", "writeable": True, "secret": "knock",
    }  # fmt: skip
    assert [(each["uuid"], each["writeable"]) for each in told] == [
        ("a", False), ("draining", False), ("suspect", False), ("t", True),
    ]  # fmt: skip


def test_a_heartbeat_is_written_as_cask_writes_it() -> None:
    assert table(A).heartbeat(ALONE) == (
        b'{"uuid":"me","base_url":"http://me:1","writeable":true,"secret":"knock",'
        b'"neighbors":[{"uuid":"a","base_url":"http://a:1","writeable":true}]}'
    )


@pytest.mark.parametrize(
    ("interval", "chance", "seconds"),
    [(60.0, 0.0, 60.0), (60.0, 0.5, 62.0), (60.0, 1.0, 64.0), (1.0, 1.0, 2.0)],
)
def test_the_pause_before_a_heartbeat(interval: float, chance: float, seconds: float) -> None:
    assert Neighbors("knock", interval).pause_seconds(chance) == seconds


def test_the_words_of_a_join() -> None:
    assert added("a") == "Added node [a]"
