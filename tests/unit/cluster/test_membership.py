"""What one node concludes from what it hears and from who does not answer."""

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.cluster.gossip_messages import Ping, Question, Sync
from tierce.cluster.member import Member, State
from tierce.cluster.membership import Membership
from tierce.core.codec import encode
from tierce.core.errors import Conflict, NotFound
from tierce.core.limits import (
    GOSSIP_INDIRECT_PROBES,
    GOSSIP_MEMORY_SECONDS,
    GOSSIP_RETRANSMITS,
    GOSSIP_SUSPICION_PERIODS,
    GOSSIP_SYNC_SECONDS,
    GOSSIP_UPDATES_COUNT,
    KIB,
)

ALIVE, SUSPECT, DOWN, LEFT = State.ALIVE, State.SUSPECT, State.DOWN, State.LEFT
GRACE_SECONDS = 300.0


def member(
    node_id: str, incarnation: int = 1, state: State = ALIVE, boot: str = "01", **more: Any
) -> Member:
    fields = {"private": f"{node_id}:7071", **more}
    return Member(node_id, incarnation, state, boot, **fields)


def membership(*others: str) -> Membership:
    made = Membership(member("me", 10, boot="05"), now=0.0)
    made.hear([member(each) for each in others], now=0.0)
    return made


def state_of(one: Membership, node_id: str) -> State:
    found = one.find(node_id)
    assert found is not None
    return found.state


def tick_until(one: Membership, end: float, *, start: float = 0.0) -> None:
    for second in range(int(start), int(end) + 1):
        one.tick(float(second))


def fail(one: Membership, node_id: str, now: float) -> None:
    target = one.find(node_id)
    assert target is not None
    one.suspect(target, started=now - 1.0, now=now)


# About itself


@pytest.mark.parametrize(
    ("heard", "incarnation"),
    [
        (member("me", 10, SUSPECT, boot="05"), 11),
        (member("me", 10, DOWN, boot="05"), 11),
        (member("me", 12, LEFT, boot="05"), 13),
        (member("me", 12, ALIVE, boot="05"), 13),
        (member("me", 10, ALIVE, boot="04"), 11),
        (member("me", 10, ALIVE, boot="05"), 10),
        (member("me", 9, LEFT, boot="05"), 10),
    ],
)
def test_a_node_denies_what_is_wrong_about_itself(heard: Member, incarnation: int) -> None:
    one = membership()
    one.hear([heard], 1.0)
    assert one.me == member("me", incarnation, ALIVE, boot="05")


def test_a_record_that_lost_fields_of_a_newer_version_is_not_denied() -> None:
    one = Membership(member("me", 10, zone="z"), 0.0)
    one.hear([member("me", 10)], 1.0)
    assert one.me.incarnation == 10


def test_a_node_that_stops_denies_nothing_any_more() -> None:
    one = membership()
    one.leave(DOWN)
    one.hear([member("me", 12, SUSPECT, boot="05")], 1.0)
    assert (one.me.incarnation, one.me.state) == (10, DOWN)


def test_an_announcement_raises_incarnation_and_version() -> None:
    one = membership()
    version = one.version
    one.announce(writable=False, zone="z")
    assert (one.me.incarnation, one.me.writable, one.me.zone) == (11, False, "z")
    assert one.version > version


def test_announcing_what_is_known_changes_nothing() -> None:
    one = membership()
    version = one.version
    one.announce(writable=True)
    assert (one.me.incarnation, one.version) == (10, version)


def test_a_node_is_in_its_own_view_even_when_it_leaves_for_good() -> None:
    one = membership()
    one.leave(LEFT)
    assert [each.node_id for each in one.view(0.0, GRACE_SECONDS).members] == ["me"]


# About others


def test_an_unanswered_probe_makes_a_suspect() -> None:
    one = membership("a")
    fail(one, "a", 1.0)
    assert state_of(one, "a") is SUSPECT


def test_a_suspect_that_denies_it_is_alive() -> None:
    one = membership("a")
    fail(one, "a", 1.0)
    one.hear([member("a", 2)], 2.0)
    tick_until(one, 60)
    assert state_of(one, "a") is ALIVE


@pytest.mark.parametrize("size", [2, 10, 100, 1000])
def test_a_suspect_is_down_after_a_time_that_grows_with_the_logarithm(size: int) -> None:
    one = membership(*(f"n{number}" for number in range(size - 1)))
    limit = GOSSIP_SUSPICION_PERIODS * max(1.0, math.log10(size))
    fail(one, "n0", 0.0)
    tick_until(one, math.ceil(limit) - 1)
    assert state_of(one, "n0") is SUSPECT
    tick_until(one, math.ceil(limit), start=math.ceil(limit))
    assert state_of(one, "n0") is DOWN


def test_a_failed_probe_means_nothing_if_the_target_was_heard_of_meanwhile() -> None:
    one = membership("a")
    target = one.find("a")
    assert target is not None
    one.hear([member("a", 2)], 1.0)
    one.suspect(target, 0.5, 1.5)
    assert state_of(one, "a") is ALIVE


def test_a_failed_probe_means_nothing_after_a_pause_of_this_node() -> None:
    one = membership("a")
    target = one.find("a")
    assert target is not None
    one.suspect(target, started=1.0, now=31.0)
    assert state_of(one, "a") is ALIVE


def test_after_a_pause_of_this_node_suspects_have_their_whole_time_again() -> None:
    one = membership("a")
    one.tick(0.0)
    fail(one, "a", 1.0)
    one.tick(100.0)
    assert state_of(one, "a") is SUSPECT
    tick_until(one, 104, start=101)
    assert state_of(one, "a") is DOWN


def test_a_pause_of_this_node_does_not_count_towards_the_grace_time() -> None:
    one = membership()
    one.hear([member("a", 1, DOWN)], 0.0)
    tick_until(one, 100)
    one.tick(1000.0)
    assert one.gone(1000.0, GRACE_SECONDS) == ()
    assert one.gone(1201.0, GRACE_SECONDS) == ("a",)


@pytest.mark.parametrize("state", [DOWN, LEFT])
def test_old_gossip_resurrects_nobody(state: State) -> None:
    one = membership("a")
    one.hear([member("a", 5, state)], 1.0)
    one.hear([member("a", 5), member("a", 4)], 2.0)
    one.hear_everything(Sync((member("a", 5), member("a", 5, SUSPECT))), 3.0)
    assert state_of(one, "a") is state


def test_a_new_run_with_a_new_address_replaces_who_was_down() -> None:
    one = membership()
    one.hear([member("a", 5, DOWN)], 1.0)
    again = member("a", 9, boot="02", private="elsewhere:1")
    one.hear([again], 2.0)
    assert one.find("a") == again


def test_who_left_is_remembered_and_then_forgotten() -> None:
    one = membership("a")
    one.hear([member("a", 2, LEFT)], 0.0)
    one.tick(GOSSIP_MEMORY_SECONDS - 1)
    assert one.find("a") is not None
    one.tick(GOSSIP_MEMORY_SECONDS)
    assert one.find("a") is None


def test_who_left_is_not_learnt_again_once_forgotten() -> None:
    one = membership()
    one.hear([member("a", 2, LEFT)], 0.0)
    one.hear_everything(Sync((member("a", 2, LEFT),), {"a": int(GOSSIP_MEMORY_SECONDS)}), 0.0)
    assert one.find("a") is None


def test_who_is_down_stays_a_member_for_ever() -> None:
    one = membership("a")
    one.hear([member("a", 2, DOWN)], 0.0)
    one.tick(10 * GOSSIP_MEMORY_SECONDS)
    assert one.view(10 * GOSSIP_MEMORY_SECONDS, GRACE_SECONDS).find("a") is not None


def test_who_is_down_is_gone_after_the_grace_time() -> None:
    one = membership("a")
    one.hear([member("a", 2, DOWN)], 10.0)
    assert one.view(310.0, GRACE_SECONDS).gone == ()
    assert one.view(311.0, GRACE_SECONDS).gone == ("a",)


def test_a_newcomer_learns_since_when_a_member_is_down() -> None:
    one = membership()
    one.hear_everything(Sync((member("a", 2, DOWN),), {"a": 290}), 0.0)
    assert one.gone(11.0, GRACE_SECONDS) == ("a",)


def test_the_one_that_saw_a_member_go_down_first_is_believed() -> None:
    one = membership()
    one.hear([member("a", 2, DOWN)], 0.0)
    one.hear_everything(Sync((member("a", 2, DOWN),), {"a": 290}), 1.0)
    assert one.gone(12.0, GRACE_SECONDS) == ("a",)


def test_in_a_full_exchange_down_means_suspected_for_one_that_is_up_here() -> None:
    one = membership("a")
    one.hear_everything(Sync((member("a", 1, DOWN),), {"a": 1000}), 1.0)
    assert state_of(one, "a") is SUSPECT
    assert one.gone(2.0, GRACE_SECONDS) == ()


def test_a_member_remembered_from_an_earlier_run_is_a_suspect_that_any_news_replaces() -> None:
    one = membership()
    one.remember([member("a", 7, DOWN), member("b", 7), member("c", 7, LEFT), member("me")], 0.0)
    assert [state_of(one, each) for each in "ab"] == [SUSPECT, SUSPECT]
    assert one.find("c") is None
    one.hear_everything(Sync((member("b", 7),)), 1.0)
    assert state_of(one, "b") is ALIVE


def test_what_is_only_remembered_blames_nobody() -> None:
    one, other = membership(), membership("a")
    one.remember([member("a", 1)], 0.0)
    tick_until(one, 60)
    assert state_of(one, "a") is DOWN
    other.hear(one.updates_for("other"), 60.0)
    other.hear_everything(one.everything(60.0), 60.0)
    assert state_of(other, "a") is ALIVE


def test_being_remembered_twice_changes_no_incarnation() -> None:
    one, again = membership(), membership()
    one.remember([member("a", 7)], 0.0)
    again.remember(one.view(0.0, GRACE_SECONDS).members, 0.0)
    assert again.find("a") == one.find("a")


# Forgetting


def test_a_forgotten_node_has_left() -> None:
    one = membership("a")
    one.hear([member("a", 2, DOWN)], 0.0)
    one.forget("a", 1.0)
    assert state_of(one, "a") is LEFT
    assert one.view(1.0, GRACE_SECONDS).find("a") is None


@pytest.mark.parametrize("node_id", ["a", "me"])
def test_a_node_that_is_up_can_not_be_forgotten(node_id: str) -> None:
    with pytest.raises(Conflict, match=node_id):
        membership("a").forget(node_id, 1.0)


def test_an_unknown_node_can_not_be_forgotten_nor_one_twice() -> None:
    one = membership("a")
    one.hear([member("a", 2, DOWN)], 0.0)
    one.forget("a", 1.0)
    for node_id in ("a", "b"):
        with pytest.raises(NotFound, match=node_id):
            one.forget(node_id, 1.0)


# Passing on


def test_a_message_carries_a_bounded_number_of_updates() -> None:
    one = membership(*(f"n{number}" for number in range(100)))
    one.hear([member("n0", 2, DOWN)], 1.0)
    for _ in range(200):
        assert len(one.updates_for("n0")) <= GOSSIP_UPDATES_COUNT


def test_a_ping_full_of_news_is_small_in_a_cluster_of_any_size() -> None:
    one = membership()
    url = "http://storage-node-123.example.com:7070"
    address = "storage-node-123.example.com:7071"
    names: dict[str, Any] = {"private": address, "native": url, "cask": url, "zone": "room-2"}
    one.hear(
        [member(f"storage-node-{n}", 1 << 41, boot="0" * 26, **names) for n in range(500)], 1.0
    )
    question = Question(
        member("me", 1 << 41, boot="0" * 26, **names), Ping(), one.updates_for("somebody")
    )
    assert len(question.updates) == GOSSIP_UPDATES_COUNT
    assert len(encode(question)) < 3 * KIB


def test_each_update_is_told_a_number_of_times_that_grows_with_the_logarithm() -> None:
    one = membership(*(f"n{number}" for number in range(50)))
    told: Counter[str] = Counter()
    while updates := one.updates_for("somebody"):
        told.update(each.node_id for each in updates)
    assert set(told.values()) == {GOSSIP_RETRANSMITS * 2}
    assert len(told) == 50


def test_the_least_told_update_goes_first() -> None:
    one = membership(*(f"n{number:02}" for number in range(GOSSIP_UPDATES_COUNT)))
    one.updates_for("somebody")
    one.hear([member("new")], 1.0)
    assert one.updates_for("somebody")[0].node_id == "new"


def test_who_is_suspected_hears_it_first_and_each_time() -> None:
    one = membership(*(f"n{number}" for number in range(20)))
    fail(one, "n5", 1.0)
    for _ in range(200):
        assert one.updates_for("n5")[0] == member("n5", 1, SUSPECT)


def test_nobody_is_told_about_itself_that_it_lives() -> None:
    assert membership("a").updates_for("a") == ()


def test_another_run_with_the_receivers_id_is_told_to_it() -> None:
    one = membership("a")
    assert one.updates_for("a", boot="02") == (member("a"),)
    assert one.updates_for("a", boot="01") == ()


def test_what_a_lone_newcomer_learns_it_need_not_pass_on() -> None:
    one = membership()
    one.hear_everything(Sync((member("a"), member("b"))), 1.0)
    assert one.updates_for("c") == ()


def test_what_a_member_learns_from_a_full_exchange_it_passes_on() -> None:
    one = membership("a")
    one.hear_everything(Sync((member("b"),)), 1.0)
    assert member("b") in one.updates_for("c")


# Probing


def test_every_member_that_is_up_is_probed_once_a_round() -> None:
    one = membership(*"abcdef")
    one.hear([member("f", 2, DOWN)], 1.0)
    chance = random.Random(1)
    for _ in range(3):
        targets = [one.next_target(chance) for _ in range(5)]
        assert sorted(each.node_id for each in targets if each) == list("abcde")


def test_the_order_of_probes_changes_from_round_to_round() -> None:
    one = membership(*(f"n{number}" for number in range(20)))
    chance = random.Random(1)
    rounds = [[one.next_target(chance) for _ in range(20)] for _ in range(2)]
    assert rounds[0] != rounds[1]


def test_a_newcomer_gets_its_turn_in_the_running_round() -> None:
    one = membership(*"abcdef")
    chance = random.Random(1)
    one.next_target(chance)
    one.hear([member("new")], 1.0)
    targets = [one.next_target(chance) for _ in range(6)]
    assert "new" in [each.node_id for each in targets if each]


def test_there_is_nobody_to_probe_when_alone() -> None:
    one = membership()
    one.hear([Member("cask", 1, dialect="cask", ring_points=16)], 0.0)
    assert one.next_target(random.Random(1)) is None
    assert one.is_alone


def test_helpers_are_others_than_the_target() -> None:
    one = membership(*"abcdef")
    helpers = one.helpers(member("a"), random.Random(1))
    ids = [each.node_id for each in helpers]
    assert len(set(ids)) == GOSSIP_INDIRECT_PROBES
    assert "a" not in ids


def test_now_and_then_one_that_is_down_is_tried() -> None:
    one = membership(*"ab")
    one.hear([member("b", 2, DOWN)], 0.0)
    assert [each.node_id for each in one.sync_targets(random.Random(1))] == ["a", "b"]


def test_full_exchanges_are_rarer_in_a_large_cluster() -> None:
    assert membership("a").sync_seconds == GOSSIP_SYNC_SECONDS
    assert membership(*(f"n{number}" for number in range(199))).sync_seconds == 100.0


# Who may join


def test_other_ring_points_are_refused_with_both_numbers() -> None:
    with pytest.raises(Conflict, match=r"64.*128"):
        membership().admit(member("a", ring_points=64))


def test_a_node_with_other_ring_points_is_not_taken_by_gossip() -> None:
    one = membership()
    one.hear([member("a", ring_points=64)], 0.0)
    assert one.find("a") is None


def test_a_later_node_with_this_ones_id_is_refused() -> None:
    with pytest.raises(Conflict, match="id me runs at me:7071"):
        membership().admit(member("me", 99, boot="06", private="elsewhere:1"))


@pytest.mark.parametrize(
    ("known", "sender"),
    [
        (None, member("a", 2, boot="02", private="b:1")),
        (member("a", 1, DOWN), member("a", 2, boot="02", private="b:1")),
        (member("a", 1), member("a", 2, boot="02")),
        (member("a", 1), member("a", 2, private="b:1")),
        (member("a", 1, boot="03"), member("a", 2, boot="02", private="b:1")),
    ],
    ids=["unknown", "was down", "same address", "same run", "earlier run"],
)
def test_a_node_joins_without_further_question(known: Member | None, sender: Member) -> None:
    one = membership()
    one.hear([known] if known else [], 0.0)
    assert one.admit(sender) is None


def test_a_later_run_elsewhere_joins_only_if_the_known_one_is_silent() -> None:
    one = membership("a")
    assert one.admit(member("a", 2, boot="02", private="b:1")) == member("a")


@pytest.mark.parametrize(
    ("heard", "is_rival"),
    [
        (member("me", 20, boot="04", private="b:1"), True),
        (member("me", 3, boot="04", private="b:1"), True),
        (member("me", 20, DOWN, boot="04", private="b:1"), False),
        (member("me", 20, boot="06", private="b:1"), False),
        (member("me", 20, boot="04"), False),
    ],
    ids=["later", "less known", "down", "we were first", "same address"],
)
def test_an_earlier_node_with_this_ones_id_is_a_rival(heard: Member, is_rival: bool) -> None:
    assert membership().hear([heard], 0.0) == (heard if is_rival else None)


# The version


def test_the_version_stays_when_nothing_new_is_heard() -> None:
    one = membership("a")
    version = one.version
    one.hear([member("a"), member("a", 0, DOWN), member("me", 10, boot="05")], 1.0)
    assert one.version == version


@pytest.mark.parametrize(
    "heard", [member("a", 2, zone="z"), member("a", 1, SUSPECT), member("b"), member("a", 2, LEFT)]
)
def test_the_version_is_raised_when_a_view_changes(heard: Member) -> None:
    one = membership("a")
    version = one.version
    one.hear([heard], 1.0)
    assert one.version > version


heard_records = st.builds(
    member,
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.sampled_from([ALIVE, SUSPECT, DOWN]),
)


@given(st.lists(heard_records), st.randoms(use_true_random=False))
def test_the_order_of_gossip_does_not_matter(heard: list[Member], chance: random.Random) -> None:
    shuffled = heard * 2
    chance.shuffle(shuffled)
    one, other = membership(), membership()
    one.hear(heard, 1.0)
    for each in shuffled:
        other.hear([each], 1.0)
    assert one.view(1.0, GRACE_SECONDS) == other.view(1.0, GRACE_SECONDS)
