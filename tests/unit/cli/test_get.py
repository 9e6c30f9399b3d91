"""``tierce get``."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.cli.remote_harness import Tool, tool_with_server

from tierce.core.digest import Digest

LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        yield tool


@pytest.mark.parametrize("data", [b"", b"tierce", LARGE])
def test_a_blob_goes_to_stdout(tool: Tool, data: bytes) -> None:
    ran = tool.run("get", str(tool.server.add(data)))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == data


def test_wrong_bytes_on_stdout_end_with_code_6(tool: Tool) -> None:
    digest = tool.server.add(b"tierce")
    tool.server.blobs[digest] = b"Tierce"
    ran = tool.run("get", str(digest), "-o", "-")
    assert ran.code == 6
    assert "the bytes that came" in ran.err


def test_a_blob_goes_to_a_file(tool: Tool, tmp_path: Path) -> None:
    tool.server.cuts.append(1_000_000)
    ran = tool.run("get", str(tool.server.add(LARGE)), "-o", str(tmp_path / "file"))
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    assert (tmp_path / "file").read_bytes() == LARGE


def test_an_interrupted_download_goes_on_later(tool: Tool, tmp_path: Path) -> None:
    digest = tool.server.add(LARGE)
    tool.server.cuts.extend([1_000_000, 0])
    arguments = ("get", str(digest), "-o", str(tmp_path / "file"))
    assert tool.run(*arguments).code == 5
    tool.server.seen.clear()
    assert tool.run(*arguments).code == 0
    assert (tmp_path / "file").read_bytes() == LARGE
    assert 0 < tool.server.starts()[0] <= 1_000_000


def test_wrong_bytes_make_no_file(tool: Tool, tmp_path: Path) -> None:
    digest = tool.server.add(b"tierce")
    tool.server.blobs[digest] = b"Tierce"
    assert tool.run("get", str(digest), "-o", str(tmp_path / "file")).code == 6
    assert os.listdir(tmp_path) == []


def test_other_content_is_replaced_by_force_only(tool: Tool, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"mine")
    arguments = ("get", str(tool.server.add(b"tierce")), "-o", str(target))
    ran = tool.run(*arguments)
    assert (ran.code, target.read_bytes()) == (2, b"mine")
    assert "--force" in ran.err
    assert tool.run(*arguments, "--force").code == 0
    assert target.read_bytes() == b"tierce"


def test_a_file_that_has_the_digest_is_a_success_at_once(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"tierce")
    digest = Digest.of(b"tierce", "sha512")
    assert tool.run("get", str(digest), "-o", str(tmp_path / "file")).code == 0
    assert tool.server.seen == []


def test_a_target_that_is_no_file_is_refused(tool: Tool, tmp_path: Path) -> None:
    digest = str(tool.server.add(b"tierce"))
    assert tool.run("get", digest, "-o", str(tmp_path)).code == 2
    assert tool.run("get", digest, "-o", "/dev/null", "--force").code == 2


def test_a_target_that_can_not_be_written_is_told(tool: Tool, tmp_path: Path) -> None:
    digest = str(tool.server.add(b"tierce"))
    ran = tool.run("get", digest, "-o", str(tmp_path / "no" / "file"))
    assert ran.code == 1
    assert "no/file: No such file or directory" in ran.err


def test_a_missing_blob_is_code_3(tool: Tool, tmp_path: Path) -> None:
    digest = str(Digest.of(b"missing"))
    assert tool.run("get", digest).code == 3
    assert tool.run("get", digest, "-o", str(tmp_path / "file")).code == 3
    assert os.listdir(tmp_path) == []


def test_what_is_no_digest_is_a_usage_error(tool: Tool) -> None:
    ran = tool.run("get", "md5:00")
    assert ran.code == 2
    assert "is not a digest" in ran.err


def test_help_has_examples(tool: Tool) -> None:
    assert b"Examples:" in tool.run("get", "--help").out
