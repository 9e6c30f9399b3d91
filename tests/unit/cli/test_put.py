"""``tierce put``."""

import os
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.cli.remote_harness import Tool, tool_with_server

from tierce.cli.main import main
from tierce.cli.put import find
from tierce.core.digest import Digest


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        yield tool


def test_a_file_is_stored_and_told(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"tierce")
    ran = tool.run("put", str(path))
    assert (ran.code, ran.lines()) == (0, [f"{Digest.of(b'tierce')} 6 {path}"])
    assert tool.server.blobs == {Digest.of(b"tierce"): b"tierce"}


def test_json_is_one_object_a_line(tool: Tool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"tierce")
    digest = Digest.of(b"tierce", "sha1")
    expected = {"digest": str(digest), "size": 6, "created": True, "name": str(path)}
    assert tool.run("put", "--json", "--algorithm", "sha1", str(path)).objects() == [expected]
    again = tool.run("put", "--json", "--algorithm", "sha1", str(path)).objects()
    assert again == [expected | {"created": False}]


@pytest.mark.parametrize("data", [b"", b"tierce", bytes(5 << 20)])
def test_stdin_is_stored(tool: Tool, data: bytes) -> None:
    ran = tool.run_apart("put", "-", stdin=data)
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines() == [f"{Digest.of(data)} {len(data)} -"]
    assert tool.server.blobs == {Digest.of(data): data}


def test_stdin_twice_is_a_usage_error(tool: Tool) -> None:
    assert tool.run("put", "-", "-").code == 2


def test_a_tree_is_stored(tool: Tool, tmp_path: Path) -> None:
    for number in range(50):
        folder = tmp_path / f"{number % 3}" / f"{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(b"%d" % number)
    ran = tool.run("put", "-r", "--jobs", "3", str(tmp_path))
    assert ran.code == 0
    assert len(ran.lines()) == 50
    assert len(tool.server.blobs) == 50


def test_a_directory_needs_r(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"tierce")
    ran = tool.run("put", str(tmp_path), str(tmp_path / "file"))
    assert ran.code == 1
    assert "it is a directory; -r stores" in ran.err
    assert len(ran.lines()) == 1


def test_a_failure_is_told_and_the_others_go_on(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"tierce")
    ran = tool.run("put", str(tmp_path / "missing"), str(tmp_path / "file"))
    assert ran.code == 1
    assert f"{tmp_path}/missing: No such file or directory" in ran.err
    assert "1 not stored, 1 stored" in ran.err
    assert len(ran.lines()) == 1


def test_what_the_server_says_of_one_file_is_told(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"tierce")
    tool.server.problems.append((413, {}))
    ran = tool.run("put", str(tmp_path / "file"))
    assert ran.code == 1
    assert "file: planned. Do better." in ran.err


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (503, 5), (507, 5)])
def test_what_concerns_the_node_ends_the_command(
    tool: Tool, tmp_path: Path, status: int, code: int
) -> None:
    for number in range(30):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    tool.server.problems.extend([(status, {})] * 100)
    ran = tool.run("put", "-r", "--jobs", "2", str(tmp_path))
    assert ran.code == code
    assert ran.err.count("planned") == 1
    assert len(tool.server.seen) <= 4


def test_links_are_followed_when_named_only(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "file").write_bytes(b"tierce")
    (tmp_path / "tree" / "to-file").symlink_to(tmp_path / "file")
    (tmp_path / "tree" / "to-tree").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    ran = tool.run("put", "-r", str(tmp_path / "tree"), str(tmp_path / "link"))
    assert ran.code == 0
    assert [line.split()[-1] for line in ran.lines()] == [str(tmp_path / "link")]
    assert ran.err.count("skipped") == 2


def test_special_files_in_a_tree_are_skipped(tool: Tool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        ran = tool.run("put", "-r", str(tmp_path))
    assert (ran.code, ran.out) == (0, b"")
    assert "pipe: it is a pipe" in ran.err
    assert "socket: it is a socket" in ran.err


def test_a_special_file_that_is_named_is_a_failure(tool: Tool) -> None:
    ran = tool.run("put", "/dev/null")
    assert ran.code == 1
    assert "it is a device, not a file" in ran.err


def test_strange_names_stay_in_their_line(tool: Tool, tmp_path: Path) -> None:
    names = [
        b"new\nline",
        b"back\\slash",
        b"bad\xff\xfe",
        "\u00fcml\u00e4ut".encode(),
        b"esc\x1b[0m",
    ]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    shown = {line.split(" ", 2)[2].rpartition("/")[2] for line in _put(tool, tmp_path)}
    assert shown == {
        r"new\nline",
        r"back\\slash",
        r"bad\xff\xfe",
        "\u00fcml\u00e4ut",
        r"esc\x1b[0m",
    }
    exact = tool.run("put", "-r", "--json", str(tmp_path)).objects()
    assert {os.fsencode(each["name"]).rpartition(b"/")[2] for each in exact} == set(names)


def _put(tool: Tool, path: Path) -> list[str]:
    return tool.run("put", "-r", str(path)).lines()


def test_a_token_file_is_read(tool: Tool, tmp_path: Path) -> None:
    tool.server.token = "secret"
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "file").write_bytes(b"tierce")
    arguments = ("put", str(tmp_path / "file"), "--token-file")
    assert tool.run(*arguments, str(tmp_path / "token")).code == 0
    assert tool.run(*arguments, str(tmp_path / "missing")).code == 2
    assert tool.run("put", str(tmp_path / "file")).code == 4


def test_a_token_comes_from_the_environment(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.server.token = "secret"
    (tmp_path / "file").write_bytes(b"tierce")
    monkeypatch.setenv("TIERCE_TOKEN", "secret")
    assert tool.run("put", str(tmp_path / "file")).code == 0


def test_a_large_directory_needs_little_memory(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:0200}").touch()
    tracemalloc.start()
    try:
        assert sum(1 for _ in find((str(tmp_path),), recursive=True)) == 3000
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["put", "--help"]) == 0
    assert "tar c project | tierce put -" in capsys.readouterr().out
