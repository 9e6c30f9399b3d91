"""The account of the cluster: sums over nodes, and what an operator should put right."""

from typing import Any

from tests.unit.node.fakes import member, members, placed

from tierce.cluster.member import Member, State
from tierce.node import overview


def account(**healing: Any) -> dict[str, Any]:
    found = {
        "phase": "resting",
        "responsible_blobs": 10,
        "below_target": 0,
        "at_target": 10,
        "over_target": 0,
        "bytes_to_move": 0,
        "estimated_seconds": 0.0,
        "last_pass": "2026-01-01T00:00:00Z",
    }
    return {"drained": False, "healing": {**found, **healing}}


def content(
    accounts: list[dict[str, Any] | None], given: list[Member] | None = None, **down: float
) -> dict[str, Any]:
    found = members(len(accounts)) if given is None else given
    return overview.content(placed("a", found), down, accounts)


def test_numbers_are_sums_over_the_nodes() -> None:
    found = content(
        [
            account(below_target=1, over_target=2, bytes_to_move=30),
            account(below_target=4, responsible_blobs=5),
        ]
    )
    names = ("blobs", "below_target", "at_target", "over_target", "bytes_to_move")
    assert [found[name] for name in names] == [15, 5, 20, 2, 30]


def test_replication_is_what_is_in_force() -> None:
    found = content([account()] * 3)
    assert (found["node_id"], found["replication"], found["max_replication"]) == ("a", 3, 3)


def test_the_estimate_is_that_of_the_slowest_node() -> None:
    found = content([account(estimated_seconds=3.0), account(estimated_seconds=9.5)])
    assert found["estimated_seconds"] == 9.5


def test_an_estimate_that_one_node_can_not_give_is_unknown() -> None:
    found = content([account(estimated_seconds=3.0), account(estimated_seconds=None)])
    assert found["estimated_seconds"] is None


def test_a_cluster_where_nothing_is_to_be_done_is_settled() -> None:
    assert content([account(), account()])["settled"]


def test_a_cluster_where_something_is_to_be_done_is_not_settled() -> None:
    for change in (
        {"below_target": 1},
        {"over_target": 1},
        {"bytes_to_move": 1},
        {"last_pass": None},
        {"phase": "surveying"},
        {"phase": "healing"},
    ):
        assert not content([account(), account(**change)])["settled"], change


def test_a_cluster_with_a_node_that_gives_no_account_is_not_settled() -> None:
    found = content([account(), None])
    assert not found["settled"]
    assert found["nodes"][1]["status"] is None
    assert found["blobs"] == 10


def test_a_cask_member_gives_no_account_and_that_is_all_right() -> None:
    cask = member("b", dialect="cask", cask="http://b")
    assert content([account(), None], [member("a"), cask])["settled"]


def test_a_node_that_is_down_says_since_when() -> None:
    found = content([account(), None], [member("a"), member("b", state=State.DOWN)], b=12.345)
    up, down = found["nodes"]
    assert (up["state"], up["down_seconds"]) == ("alive", None)
    assert (down["state"], down["down_seconds"]) == ("down", 12.3)


def test_a_node_that_is_drained_says_so() -> None:
    found = content([account(), {**account(), "drained": True}])
    assert [each["drained"] for each in found["nodes"]] == [False, True]


def test_a_members_record_is_told() -> None:
    node = content([account()], [member("a", zone="z", weight=2.0, version="1")])["nodes"][0]
    assert (node["node_id"], node["zone"], node["weight"], node["version"]) == ("a", "z", 2.0, "1")
    assert (node["writable"], node["draining"], node["private"]) == (True, False, "a:7071")


def test_nodes_that_are_set_alike_give_no_warning() -> None:
    assert content([account()] * 3)["warnings"] == []


def test_settings_that_differ_give_a_warning() -> None:
    found = content(
        [account()] * 2, [member("a", replication=2), member("b", max_replication=3, zone="z")]
    )
    first, second, third = found["warnings"]
    assert "different replication;" in first
    assert "different max_replication;" in second
    assert "zone" in third


def test_what_a_cask_member_is_set_to_gives_no_warning() -> None:
    given = [member("a", replication=2, zone="z"), member("b", dialect="cask")]
    assert content([account(), None], given)["warnings"] == []
