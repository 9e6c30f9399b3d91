"""``tierce cluster``: what it shows, what it asks, and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tests.unit.cli.remote_harness import Ran, Tool, tool_with_server

from tierce.cli import cluster
from tierce.cli.overview import problems, rendered
from tierce.client import answers

A, B, C = (f"01JZ8PGS0M5Q4V5YB2Q1X8ZK{end}" for end in ("3C", "3D", "4E"))


def node(node_id: str, **more: Any) -> dict[str, Any]:
    status = {
        "blobs": 1000, "blob_bytes": 4_096_000,
        "disk": {"total_bytes": 1 << 40, "free_bytes": 1 << 39, "reserve_bytes": 1 << 30},
        "healing": {"below_target": 0, "last_pass": "2026-01-01T00:00:00Z"},
    }  # fmt: skip
    return {
        "node_id": node_id, "state": "alive", "dialect": "tierce", "private": "127.0.0.1:7071",
        "native": "http://127.0.0.1:7070", "cask": "", "zone": "", "weight": 1.0, "writable": True,
        "draining": False, "drained": False, "version": "0.1.0", "down_seconds": None,
        "status": status, **more,
    }  # fmt: skip


def young_node() -> dict[str, Any]:
    young = node(A)
    young["status"]["healing"]["last_pass"] = None
    return young


def overview_of(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "node_id": A, "replication": 3, "max_replication": 3, "blobs": 1000, "below_target": 0,
        "at_target": 1000, "over_target": 0, "bytes_to_move": 0, "estimated_seconds": 0.0,
        "settled": True, "warnings": [], "nodes": list(nodes or (node(A), node(B), node(C))), **more,
    }  # fmt: skip


DOWN = node(B, state="down", status=None, down_seconds=12.0)


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.001)
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        tool.server.overviews = [overview_of()]
        yield tool


def line_of(ran: Ran, start: str) -> str:
    (line,) = [each for each in ran.lines() if each.startswith(start)]
    return line


# status


def test_a_healthy_cluster_is_shown_and_is_code_0(tool: Tool) -> None:
    ran = tool.run("cluster", "status")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines() == [
        "NODE                        STATE  ADDRESS                BLOBS       SIZE     FREE  WRITES"
        "  BELOW",
        *(
            f"{name}  alive  http://127.0.0.1:7070   1000  3.906 MiB  512 GiB  yes         0"
            for name in (A, B, C)
        ),
        "",
        "replication 3",
        "blobs       1000: 0 below target, 1000 at target, 0 over",
        "last pass   2026-01-01T00:00:00Z",
        "",
        "All healthy.",
    ]


def test_a_node_that_is_down_is_told_and_is_code_1(tool: Tool) -> None:
    tool.server.overviews = [overview_of(node(A), DOWN)]
    ran = tool.run("cluster", "status")
    assert ran.code == 1
    assert ran.lines()[2].split() == [
        B, "down", "http://127.0.0.1:7070", "-", "-", "-", "-", "-",
    ]  # fmt: skip
    assert f"{B} is down for 12 s." in ran.lines()
    assert "All healthy." not in ran.lines()


def test_blobs_below_target_are_told_with_what_is_to_do_and_are_code_1(tool: Tool) -> None:
    healing = {"below_target": 4, "last_pass": "2025-12-31T00:00:00Z"}
    ailing = node(A)
    ailing["status"]["healing"] = healing
    tool.server.overviews = [
        overview_of(
            ailing, node(B), below_target=4, at_target=990, over_target=6, max_replication=4,
            bytes_to_move=40960, estimated_seconds=90.0,
        )
    ]  # fmt: skip
    ran = tool.run("cluster", "status")
    assert ran.code == 1
    assert line_of(ran, A).split()[-1] == "4"
    assert line_of(ran, "replication") == "replication 3, surplus removed above 4"
    assert line_of(ran, "blobs") == "blobs       1000: 4 below target, 990 at target, 6 over"
    assert line_of(ran, "to move") == "to move     40 KiB, about 1 min 30 s"
    assert line_of(ran, "last pass") == "last pass   2025-12-31T00:00:00Z"
    assert ran.lines()[-1] == "4 blobs have too few copies."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (overview_of(DOWN), f"{B} is down for 12 s."),
        (overview_of(node(B, state="suspect", status=None)), f"{B} gives no account of itself."),
        (overview_of(below_target=1), "1 blob has too few copies."),
        (overview_of(young_node()), f"{A} has not yet looked at all its blobs."),
    ],
)  # fmt: skip
def test_each_problem_has_a_sentence(content: dict[str, Any], sentence: str) -> None:
    assert problems(answers.overview(content)) == [sentence]


@pytest.mark.parametrize(
    "content",
    [
        overview_of(over_target=5, bytes_to_move=7, settled=False),
        overview_of(node(A, draining=True)),
        overview_of(node(A, writable=False)),
        overview_of(node(A, dialect="cask", cask="http://h:80", native="", status=None)),
        overview_of(warnings=["nodes ask for different replication"]),
    ],
)
def test_some_things_are_shown_but_are_no_problem(content: dict[str, Any]) -> None:
    assert problems(answers.overview(content)) == []


def test_zones_are_shown_where_there_are_some(tool: Tool) -> None:
    tool.server.overviews = [overview_of(node(A, zone="rack-1"), node(B))]
    ran = tool.run("cluster", "status")
    assert ran.lines()[0].split()[2] == "ZONE"
    assert line_of(ran, A).split()[2] == "rack-1"
    assert line_of(ran, B).split()[2] == "-"


def test_nodes_that_leave_and_warnings_are_told(tool: Tool) -> None:
    nodes = [node(A, draining=True), node(B, draining=True, drained=True), node(C, writable=False)]
    tool.server.overviews = [overview_of(*nodes, warnings=["they differ"])]
    ran = tool.run("cluster", "status")
    assert [line_of(ran, name).split()[-2] for name in (A, B, C)] == ["draining", "drained", "no"]
    assert line_of(ran, "warning") == "warning     they differ"
    assert line_of(ran, "draining") == f"draining    {A}: 1000 blobs left."
    assert line_of(ran, "drained") == f"drained     {B} may be stopped."


def test_a_node_without_an_account_of_healing_is_shown(tool: Tool) -> None:
    young = node(A)
    young["status"]["healing"] = None
    tool.server.overviews = [overview_of(young, node(B))]
    ran = tool.run("cluster", "status")
    assert ran.lines()[1].split()[-1] == "-"
    assert line_of(ran, "last pass") == "last pass   not yet finished everywhere"


def test_a_cluster_in_which_healing_is_at_work_is_healthy(tool: Tool) -> None:
    tool.server.overviews = [overview_of(over_target=1, settled=False)]
    ran = tool.run("cluster", "status")
    assert (ran.code, ran.lines()[-1]) == (0, "All healthy. Healing is at work.")


def test_a_pass_that_is_not_finished_everywhere_is_not_told_as_one(tool: Tool) -> None:
    tool.server.overviews = [overview_of(young_node(), node(B))]
    ran = tool.run("cluster", "status")
    assert line_of(ran, "last pass") == "last pass   not yet finished everywhere"


def test_without_a_terminal_nothing_is_cut_folded_or_coloured(tool: Tool) -> None:
    wide, address = "n" * 255, "http://" + "h" * 250 + ":7070"
    tool.server.overviews = [overview_of(node(wide, native=address), DOWN)]
    ran = tool.run("cluster", "status")
    assert line_of(ran, wide).split()[:3] == [wide, "alive", address]
    assert b"\x1b" not in ran.out


def test_on_a_terminal_there_are_colours_and_an_id_is_folded_not_cut() -> None:
    wide = "".join(f"{number:03}" for number in range(80))
    content = answers.overview(overview_of(node(wide), DOWN))
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system="standard", width=100)
    console.print(rendered(content))
    assert "\x1b[31mdown" in written.getvalue()
    assert "\x1b[32malive" in written.getvalue()
    shown = "".join(line[:30].split(" ")[0] for line in written.getvalue().splitlines()[1:])
    assert wide in shown.replace("\x1b", "")


def test_names_of_other_nodes_can_not_reach_the_terminals_controls(tool: Tool) -> None:
    evil = "n\x1b[2J\n[red]"
    tool.server.overviews = [overview_of(node(evil, zone=evil, native=evil), warnings=[evil])]
    ran = tool.run("cluster", "status")
    assert b"\x1b" not in ran.out
    assert line_of(ran, "n\\x1b[2J\\n[red]")


def test_json_is_the_overview_as_it_came(tool: Tool) -> None:
    ran = tool.run("cluster", "status", "--json")
    assert (ran.code, ran.objects()) == (0, [overview_of()])
    tool.server.overviews = [overview_of(DOWN, new_member=1)]
    ran = tool.run("cluster", "status", "--json")
    assert (ran.code, ran.objects()) == (1, [overview_of(DOWN, new_member=1)])


def test_an_answer_that_is_no_overview_is_code_5(tool: Tool) -> None:
    tool.server.overviews = [{"nodes": []}]
    for more in ([], ["--json"]):
        ran = tool.run("cluster", "status", *more)
        assert (ran.code, ran.out) == (5, b"")
        assert "not a Tierce node's" in ran.err


@pytest.mark.parametrize("seconds", ["0", "soon", "-1"])
def test_an_interval_that_is_none_is_code_2(tool: Tool, seconds: str) -> None:
    assert tool.run("cluster", "status", f"--watch={seconds}").code == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_watching_goes_on_until_it_is_interrupted(tool: Tool, as_json: bool) -> None:
    """Also past a node that is away for a while."""
    tool.server.problems.extend([(500, {})])
    arguments = ["cluster", "status", "--watch", "0.1", *(["--json"] if as_json else [])]
    environment = {**os.environ, "TIERCE_URL": tool.server.url}
    with subprocess.Popen(
        [sys.executable, "-m", "tierce.cli.main", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as watching:  # fmt: skip
        assert watching.stdout is not None
        seen = 0
        for line in watching.stdout:
            seen += json.loads(line) == overview_of() if as_json else line == "All healthy.\n"
            if seen == 3:
                break
        watching.send_signal(signal.SIGINT)
        _, complaints = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "planned" in complaints


def test_on_a_terminal_the_watch_draws_over_itself(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=120)
    monkeypatch.setattr(cluster, "_console", lambda: terminal)
    tool.server.overviews = [overview_of(), overview_of(DOWN), {"nodes": []}, overview_of()]
    pauses = iter([2.0, 2.0, 2.0])

    async def pause(seconds: float) -> None:
        if next(pauses, None) != seconds:
            raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "asyncio", SimpleNamespace(sleep=pause))
    assert tool.run("cluster", "status", "--watch").code == 130
    shown = written.getvalue()
    assert shown.index("All healthy.") < shown.index("is down for 12 s") < shown.rindex("healthy")
    assert "not a Tierce node's" in shown
    assert "\x1b[1A" in shown


# NODE


@pytest.mark.parametrize("order", ["forget", "drain"])
def test_the_beginning_of_an_id_will_do(tool: Tool, order: str) -> None:
    more = ["--yes", "--no-wait"] if order == "drain" else []
    assert tool.run("cluster", order, C[:25], *more).code == 0
    assert tool.server.orders == [("POST", order, C)]


def test_a_whole_id_is_taken_even_if_it_is_the_beginning_of_another(tool: Tool) -> None:
    tool.server.overviews = [overview_of(node("n1"), node("n10"))]
    assert tool.run("cluster", "forget", "n1").code == 0
    assert tool.server.orders == [("POST", "forget", "n1")]


@pytest.mark.parametrize("order", ["forget", "drain"])
def test_a_beginning_of_several_ids_is_code_2(tool: Tool, order: str) -> None:
    ran = tool.run("cluster", order, A[:25])
    assert ran.code == 2
    assert f"{A}, {B}" in ran.err
    assert C not in ran.err
    assert "Write more of it." in ran.err
    assert tool.server.orders == []


@pytest.mark.parametrize(
    ("text", "hint"), [("", "cluster status"), ("zzz", "cluster status"), (A + "x", A)]
)
def test_an_unknown_node_is_code_3(tool: Tool, text: str, hint: str) -> None:
    ran = tool.run("cluster", "forget", text)
    assert ran.code == 3
    assert hint in ran.err
    assert tool.server.orders == []


# drain and forget


def test_forgetting_says_what_happens_next(tool: Tool) -> None:
    ran = tool.run("cluster", "forget", B)
    assert ran.lines() == [
        f"{B} is no member any more. `tierce cluster status` shows how its blobs are copied."
    ]


def test_a_refusal_of_the_node_is_told(tool: Tool) -> None:
    tool.server.token = "secret"
    assert tool.run("cluster", "forget", B).code == 4


def draining(blobs: int, **more: Any) -> dict[str, Any]:
    leaving = node(A, draining=True, **more)
    leaving["status"]["blobs"] = blobs
    return overview_of(leaving, node(B), bytes_to_move=blobs * 4096, estimated_seconds=blobs / 10)


def test_draining_waits_until_it_is_done_and_says_what_to_do(tool: Tool) -> None:
    tool.server.overviews = [
        overview_of(), overview_of(), draining(900), draining(300), draining(0, drained=True),
    ]  # fmt: skip
    ran = tool.run("cluster", "drain", A, "--yes")
    assert ran.code == 0
    assert tool.server.orders == [("POST", "drain", A)]
    assert ran.lines() == [
        f"{A} is drained. Stop it now: a drained node leaves the cluster when it stops,",
        "and `tierce cluster forget` is not needed.",
    ]
    assert "--cancel" in ran.err
    assert f"{A}: 1000 blobs left" in ran.err


def test_progress_is_told_without_a_terminal(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "POLLS_PER_LINE", 1)
    tool.server.overviews = [
        overview_of(), draining(900), draining(1), draining(0, drained=True),
    ]  # fmt: skip
    ran = tool.run("cluster", "drain", A, "--yes")
    assert ran.err.splitlines()[1:] == [
        f"{A}: 900 blobs left, about 1 min 30 s",
        f"{A}: 1 blob left, about 0.1 s",
    ]


def test_draining_need_not_be_waited_for(tool: Tool) -> None:
    ran = tool.run("cluster", "drain", A, "--yes", "--no-wait")
    assert ran.code == 0
    assert "`tierce cluster status` shows how far it is" in ran.out.decode()


def test_draining_can_be_called_off_without_a_question(tool: Tool) -> None:
    ran = tool.run("cluster", "drain", A, "--cancel")
    assert (ran.code, ran.lines()) == (0, [f"{A} is in use again."])
    assert tool.server.orders == [("DELETE", "drain", A)]


def test_a_node_that_left_before_it_was_drained_is_code_3(tool: Tool) -> None:
    tool.server.overviews = [overview_of(), draining(5), overview_of(node(B))]
    ran = tool.run("cluster", "drain", A, "--yes")
    assert ran.code == 3
    assert "start it again" in ran.err


def test_a_draining_that_someone_else_called_off_is_code_5(tool: Tool) -> None:
    tool.server.overviews = [overview_of(), draining(5), overview_of()]
    ran = tool.run("cluster", "drain", A, "--yes")
    assert ran.code == 5
    assert "called off" in ran.err


def test_where_nobody_can_be_asked_draining_is_code_2(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ran = tool.run("cluster", "drain", A)
    assert ran.code == 2
    assert "--yes" in ran.err
    assert tool.server.orders == []


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("y\n", 0), ("", 130)])
def test_draining_asks(tool: Tool, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Person(answer))
    ran = tool.run("cluster", "drain", A, "--no-wait")
    assert ran.code == code
    assert f"Move all blobs of {A} (1000 blobs, 3.906 MiB) to other nodes?" in (
        ran.err + ran.out.decode()
    )
    assert tool.server.orders == ([] if code else [("POST", "drain", A)])


@pytest.mark.parametrize("name", ["status", "drain", "forget"])
def test_help_has_examples(tool: Tool, name: str) -> None:
    assert b"Examples:" in tool.run("cluster", name, "--help").out
