"""``tierce stat``."""

from collections.abc import Iterator

import pytest
from tests.unit.cli.remote_harness import Tool, tool_with_server

from tierce.core.digest import Digest

MISSING = Digest.of(b"missing")


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        yield tool


def test_sizes_are_told(tool: Tool) -> None:
    digests = [tool.server.add(b"x" * size) for size in (0, 5, 7)]
    ran = tool.run("stat", *map(str, digests))
    assert ran.code == 0
    assert ran.lines() == [f"{d} {n}" for d, n in zip(digests, (0, 5, 7), strict=True)]


def test_sizes_as_json(tool: Tool) -> None:
    digest = str(tool.server.add(b"tierce"))
    assert tool.run("stat", "--json", digest).objects() == [{"digest": digest, "size": 6}]


def test_one_that_is_missing_is_code_3(tool: Tool) -> None:
    ran = tool.run("stat", str(MISSING))
    assert (ran.code, ran.out) == (3, b"")
    assert "not found" in ran.err


def test_some_that_are_missing_are_code_1(tool: Tool) -> None:
    digest = tool.server.add(b"tierce")
    ran = tool.run("stat", str(MISSING), str(digest))
    assert (ran.code, ran.lines()) == (1, [f"{digest} 6"])
    assert str(MISSING) in ran.err


def test_the_node_tells_of_itself(tool: Tool) -> None:
    tool.server.status = {
        "id": "n1",
        "writable": True,
        "uptime_seconds": 93784.2,
        "note": "a\nb",
        "disk": {"free_bytes": 3 << 30, "reserve_bytes": None},
        "doors": ["native", "cask"],
        "workers": [{"pid": 1, "alive": True}, {"pid": 2, "alive": False}],
    }
    assert tool.run("stat").lines() == [
        "id:       n1",
        "writable: yes",
        "uptime:   1 d 2 h 3 min 4 s",
        "note:     a\\nb",
        "disk:",
        "  free:    3 GiB",
        "  reserve: -",
        "doors:    native, cask",
        "workers:",
        "  - pid:   1",
        "    alive: yes",
        "  - pid:   2",
        "    alive: no",
    ]


def test_the_node_as_json(tool: Tool) -> None:
    assert tool.run("stat", "--json").objects() == [{"id": "n1"}]


def test_help_has_examples(tool: Tool) -> None:
    assert b"Examples:" in tool.run("stat", "--help").out


def test_what_the_agent_says_of_healing_is_told_in_words_that_differ(tool: Tool) -> None:
    tool.server.status = {
        "agent": {
            "healing": {
                "below_target": 4,
                "bytes_to_move": 40960,
                "estimated_seconds": 0.4,
                "last_pass": "2026-01-01T00:00:00Z",
                "last_pass_seconds": 90.0,
                "pushed_blobs": 10,
                "pushed_bytes": 4096,
            },
            "members": [{"node_id": "n1", "cask": "", "down_seconds": None}],
        }
    }
    assert tool.run("stat").lines() == [
        "agent:",
        "  healing:",
        "    below target:   4",
        "    to move:        40 KiB",
        "    estimated:      0.4 s",
        "    last pass:      2026-01-01T00:00:00Z",
        "    last pass took: 1 min 30 s",
        "    pushed blobs:   10",
        "    pushed:         4 KiB",
        "  members:",
        "    - node id:  n1",
        "      cask:     -",
        "      down for: -",
    ]
