"""``tierce store compare``: the order, the wait for its end, and what was found."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.cli.remote_harness import Tool, tool_with_server
from tests.unit.client.fake_server import FakeServer

from tierce.cli import store
from tierce.cli.main import SUCCESS, TRY_AGAIN

FOUND = {"objects": 9, "adopted": 1, "missing": 2, "strange": 0}


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    monkeypatch.setattr(store, "POLL_SECONDS", 0.001)
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        tool.server.status = told(1)
        yield tool


def told(comparisons: int, **more: Any) -> dict[str, object]:
    """The status of a node after so many comparisons."""
    found = {
        "comparing": True,
        "comparisons": comparisons,
        "compare_error": "",
        "compared": FOUND,
        **more,
    }
    return {"agent": {"store": found}}


def test_what_was_found_is_shown_when_it_is_done(tool: Tool) -> None:
    ran = tool.run("store", "compare")
    assert ran.code == SUCCESS
    assert ran.lines() == [
        "9 objects in the store",
        "1 taken into the catalogue, which did not know it",
        "2 missing in the store, to be healed",
    ]
    tool.server.status = told(2, compared={"objects": 1})
    assert tool.run("store", "compare").lines() == [
        "1 object in the store",
        "all as in the catalogue",
    ]


def test_it_is_json_when_asked_for(tool: Tool) -> None:
    ran = tool.run("store", "compare", "--json")
    assert json.loads(ran.out) == FOUND


def test_it_waits_for_the_comparison_that_it_ordered(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the agent is down, and while an earlier comparison is under way."""
    states = iter([{"agent": None}, told(0), told(0), told(1)])
    monkeypatch.setattr(FakeServer, "status", property(lambda server: next(states)), raising=False)
    assert tool.run("store", "compare").code == SUCCESS
    assert next(states, None) is None


def test_a_comparison_that_failed_is_an_error(tool: Tool) -> None:
    tool.server.status = told(1, compare_error="the store failed while listing", compared=None)
    ran = tool.run("store", "compare")
    assert ran.code == TRY_AGAIN
    assert "the comparison failed: the store failed while listing" in ran.err


def test_nothing_is_waited_for_if_that_is_asked(tool: Tool) -> None:
    tool.server.status = told(0)
    ran = tool.run("store", "compare", "--no-wait")
    assert ran.code == SUCCESS
    assert "It is being compared" in ran.lines()[0]
    assert tool.server.comparisons == 1


def test_an_agent_that_forgot_the_order_is_not_waited_for(tool: Tool) -> None:
    tool.server.status = told(0, comparing=False)
    ran = tool.run("store", "compare")
    assert ran.code == TRY_AGAIN
    assert "Give the order again" in ran.err
