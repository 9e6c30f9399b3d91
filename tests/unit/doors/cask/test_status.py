"""What ``/status/`` and the status page tell of the cluster, as far as the agent has told it."""

from typing import Any

import pytest

from tierce.blobs.space import Space
from tierce.blobs.store import Counts
from tierce.core.settings import Settings
from tierce.doors.cask import render
from tierce.service.status import Identity, Status

IDENTITY = Identity("me", "1.0", ("cask=127.0.0.1:8080",), 1, 0.0)
MEMBERS = [
    {
        "node_id": "me",
        "cask": "http://me:1",
        "writable": True,
        "state": "alive",
        "dialect": "tierce",
    },
    {"node_id": "a", "cask": "http://a:1", "writable": False, "state": "alive", "dialect": "cask"},
    {"node_id": "t", "cask": "", "writable": True, "state": "down", "dialect": "tierce"},
]
HEALING = {"below_target": 3, "last_pass": None}


def status_of(agent: dict[str, Any] | None) -> Status:
    return Status(IDENTITY, 1.0, Counts(0, 0), Space(10, 5, 1), "", agent)


def test_all_other_nodes_are_neighbors() -> None:
    now = status_of({"members": MEMBERS, "healing": HEALING})
    found = render.status(now, "http://me:1", Settings())
    assert found["neighbors"] == [
        {
            "uuid": "a", "base_url": "http://a:1", "writeable": False, "state": "alive",
            "dialect": "cask",
        },
        {
            "uuid": "t", "base_url": "", "writeable": True, "state": "down",
            "dialect": "tierce",
        },
    ]  # fmt: skip
    assert found["healing"] == HEALING


@pytest.mark.parametrize("agent", [None, {}, {"members": None}])
def test_without_the_agent_nothing_is_known_of_others(agent: dict[str, Any] | None) -> None:
    found = render.status(status_of(agent), "http://me:1", Settings())
    assert (found["neighbors"], found["healing"]) == ([], None)
    assert b"None are known" in render.status_page(status_of(agent), "http://me:1", Settings()).body


def test_the_page_shows_neighbors_and_healing() -> None:
    now = status_of({"members": MEMBERS, "healing": HEALING})
    page = render.status_page(now, "http://me:1", Settings()).body.decode()
    assert "http://a:1" in page
    assert "takes no files" in page
    assert "below_target" in page


def test_settings_that_follow_from_the_cluster_are_null() -> None:
    shown = render.status(status_of(None), "http://me:1", Settings())["settings"]
    assert (shown["replication"], shown["max_replication"]) == (None, None)
    shown = render.status(status_of(None), "http://me:1", Settings(replication=2))["settings"]
    assert (shown["replication"], shown["max_replication"]) == (2, 2)
