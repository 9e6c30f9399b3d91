"""``tierce ls``."""

from collections.abc import Iterator

import pytest
from tests.unit.cli.remote_harness import Tool, tool_with_server


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        yield tool


def test_all_pages_are_listed(tool: Tool) -> None:
    digests = sorted(tool.server.add(b"%d" % number) for number in range(8))
    tool.server.page_limit = 3
    assert tool.run("ls").lines() == [f"{digest} 1" for digest in digests]


def test_nothing_is_no_line(tool: Tool) -> None:
    ran = tool.run("ls")
    assert (ran.code, ran.out) == (0, b"")


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 8, 9])
def test_a_limit_goes_across_pages(tool: Tool, limit: int) -> None:
    digests = sorted(tool.server.add(b"%d" % number) for number in range(8))
    tool.server.page_limit = 3
    lines = tool.run("ls", "--limit", str(limit)).lines()
    assert lines == [f"{digest} 1" for digest in digests[:limit]]


def test_a_listing_can_begin_behind_a_digest(tool: Tool) -> None:
    digests = sorted(tool.server.add(b"%d" % number) for number in range(8))
    lines = tool.run("ls", "--after", str(digests[4]), "--limit", "2").lines()
    assert lines == [f"{digest} 1" for digest in digests[5:7]]


def test_json_is_one_object_a_line(tool: Tool) -> None:
    digest = tool.server.add(b"tierce")
    assert tool.run("ls", "--json").objects() == [{"digest": str(digest), "size": 6}]


def test_no_server_is_code_5(tool: Tool) -> None:
    tool.server.problems.extend([(503, {})] * 9)
    assert tool.run("ls").code == 5


def test_an_address_that_can_not_be_is_a_usage_error(tool: Tool) -> None:
    assert tool.run("ls", "--url", "nowhere").code == 2


def test_help_has_examples(tool: Tool) -> None:
    assert b"Examples:" in tool.run("ls", "--help").out
