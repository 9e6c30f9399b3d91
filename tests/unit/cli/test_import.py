"""``tierce import``: what becomes of files that are not as they should be, and of nodes that fail."""

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.unit.cli.remote_harness import Ran, Tool, tool_with_server

from tierce.cli import import_
from tierce.cli.import_bucket import CaskBucket
from tierce.client.importing.doors import NativeDoor
from tierce.client.importing.files import FileContent, open_file
from tierce.client.importing.items import Item, Passed
from tierce.client.importing.trees import CaskTree, DtfcTree
from tierce.client.uploads import LocalFile
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Unavailable
from tierce.core.limits import MIB

LARGE = bytes(range(256)) * (5 * MIB // 256)


@pytest.fixture
def tool(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Tool]:
    with tool_with_server(monkeypatch, capsysbinary) as tool:
        yield tool


def add(root: Path, data: bytes, digits: str = "") -> Path:
    """A file as Cask keeps it. ``digits``: under another hash than its own."""
    digits = digits or hashlib.sha1(data).hexdigest()
    folder = root.joinpath("sha1", *(digits[at : at + 2] for at in range(0, 40, 2)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").write_bytes(data)
    return folder / "data"


def run(tool: Tool, root: Path, *options: str) -> Ran:
    return tool.run("import", "--from", "cask-disk", str(root), *options)


@pytest.mark.parametrize("data", [b"", b"tierce", LARGE], ids=["empty", "small", "large"])
def test_a_file_arrives_under_its_digest(tool: Tool, tmp_path: Path, data: bytes) -> None:
    add(tmp_path, data)
    ran = run(tool, tmp_path)
    assert ran.lines() == [f"1 imported ({len(data)} bytes), 0 there already, 0 corrupt"]
    assert (ran.code, ran.err) == (0, "")
    assert tool.server.blobs == {Digest.of(data, "sha1"): data}


def test_what_is_there_is_neither_read_nor_sent(tool: Tool, tmp_path: Path) -> None:
    path = add(tmp_path, b"tierce")
    tool.server.add(b"tierce", "sha1")
    path.write_bytes(b"not read")
    ran = run(tool, tmp_path)
    assert ran.lines() == ["0 imported (0 bytes), 1 there already, 0 corrupt"]
    assert "PUT" not in tool.server.methods()


@pytest.mark.parametrize(
    "data", [b"", b"tierce", LARGE, LARGE[: 4 * MIB]], ids=["empty", "small", "large", "round"]
)
def test_a_corrupt_file_is_named_and_no_body_of_it_comes_whole(
    tool: Tool, tmp_path: Path, data: bytes
) -> None:
    path = add(tmp_path, data, digits=hashlib.sha1(b"another").hexdigest())
    good = add(tmp_path, b"good")
    ran = run(tool, tmp_path, "--jobs", "1")
    assert ran.code == 1
    assert ran.lines() == [
        "1 imported (4 bytes), 0 there already, 1 corrupt",
        f"  corrupt: {path}",
    ]
    assert f"{path}: it is corrupt: its bytes have the digest {Digest.of(data, 'sha1')}" in ran.err
    assert tool.server.blobs == {Digest.of(good.read_bytes(), "sha1"): b"good"}


def test_a_dry_run_reads_all_and_asks_no_node(tool: Tool, tmp_path: Path) -> None:
    add(tmp_path, b"good")
    add(tmp_path, LARGE)
    path = add(tmp_path, b"bad", digits=hashlib.sha1(b"another").hexdigest())
    ran = run(tool, tmp_path, "--dry-run")
    assert ran.code == 1
    assert ran.lines() == [f"2 read ({4 + len(LARGE)} bytes), 1 corrupt", f"  corrupt: {path}"]
    assert tool.server.seen == []


def test_a_file_that_is_written_meanwhile_failed_and_is_not_called_corrupt(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add(tmp_path, LARGE)
    read_at = LocalFile.read_at

    def read(file: LocalFile, offset: int, size: int) -> bytes:
        if offset >= 2 * MIB:
            path.write_bytes(LARGE[::-1])
        return read_at(file, offset, size)

    monkeypatch.setattr(LocalFile, "read_at", read)
    ran = run(tool, tmp_path)
    assert ran.code == 1
    assert ran.lines()[0].endswith("0 corrupt, 1 failed")
    assert f"{path}: it was changed while it was read" in ran.err
    assert tool.server.blobs == {}


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_a_file_that_is_cut_meanwhile_failed(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = add(tmp_path, LARGE)
    read_at = LocalFile.read_at

    def read(file: LocalFile, offset: int, wanted: int) -> bytes:
        if offset:
            os.truncate(path, size)
        return read_at(file, offset, wanted)

    monkeypatch.setattr(LocalFile, "read_at", read)
    ran = run(tool, tmp_path)
    assert (ran.code, tool.server.blobs) == (1, {})
    assert f"{path}: it was changed while it was read" in ran.err


def test_a_file_that_vanishes_failed_and_the_others_go_on(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, good = add(tmp_path, b"gone"), add(tmp_path, b"good")

    def opened(tree: CaskTree, item: Item) -> AbstractAsyncContextManager[FileContent]:
        gone.unlink(missing_ok=True)
        return open_file(item)

    monkeypatch.setattr(CaskTree, "open", opened)
    ran = run(tool, tmp_path)
    assert ran.code == 1
    assert ran.lines() == [
        "1 imported (4 bytes), 0 there already, 0 corrupt, 1 failed",
        f"  failed: {gone}",
    ]
    assert f"{gone}: it is gone" in ran.err
    assert good.exists()


def test_a_read_error_concerns_one_file(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [add(tmp_path, LARGE[number:]) for number in range(1, 4)]
    add(tmp_path, b"good")
    read_at = LocalFile.read_at

    def read(file: LocalFile, offset: int, size: int) -> bytes:
        if offset:
            raise OSError(5, "Input/output error")
        return read_at(file, offset, size)

    monkeypatch.setattr(LocalFile, "read_at", read)
    ran = run(tool, tmp_path)
    assert ran.code == 1
    assert ran.lines()[0] == "1 imported (4 bytes), 0 there already, 0 corrupt, 3 failed"
    for path in bad:
        assert f"{path}: it can't be read: Input/output error" in ran.err


def test_foreign_files_are_named_and_links_followed(tool: Tool, tmp_path: Path) -> None:
    path = add(tmp_path, b"here")
    elsewhere = tmp_path / "elsewhere"
    moved = add(elsewhere, b"moved").relative_to(elsewhere / "sha1").parts[0]
    tree = tmp_path / "sha1"
    (tree / moved).symlink_to(elsewhere / "sha1" / moved)
    (tree / "00").symlink_to(tmp_path / "not-mounted")
    (tree / "AB").mkdir()
    (tree / "README").write_bytes(b"foreign")
    path.with_name("data~").write_bytes(b"foreign")
    ran = run(tool, tmp_path)
    assert ran.code == 1
    assert ran.lines() == [
        "2 imported (9 bytes), 0 there already, 0 corrupt, 1 failed, 3 skipped",
        f"  failed: {tree}/00",
    ]
    for skipped in (tree / "AB", tree / "README", path.with_name("data~")):
        assert f"skipped {skipped}: it is none of the store's files" in ran.err
    assert "00: the link leads to no directory" in ran.err


def test_nothing_is_changed_in_the_source(tool: Tool, tmp_path: Path) -> None:
    for number in range(20):
        add(tmp_path, b"%d" % number)
    add(tmp_path, b"bad", digits=hashlib.sha1(b"another").hexdigest())
    add(tmp_path, b"foreign").rename(tmp_path / "sha1" / "foreign")

    def snapshot() -> dict[Path, tuple[int, int, int]]:
        found = {path: path.lstat() for path in tmp_path.rglob("*")}
        return {
            path: (each.st_size, each.st_mtime_ns, each.st_mode) for path, each in found.items()
        }

    before = snapshot()
    assert run(tool, tmp_path).code == 1
    assert snapshot() == before


def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(tool: Tool, tmp_path: Path) -> None:
    path = add(tmp_path, b"file")
    path.unlink()
    os.mkfifo(path)
    assert "is not a regular file" in run(tool, tmp_path).err


def test_the_tree_is_found_where_cask_puts_it_for_a_root_without_a_slash(
    tool: Tool, tmp_path: Path
) -> None:
    add(tmp_path, b"tierce")
    (tmp_path / "sha1").rename(tmp_path / "rootsha1")
    (tmp_path / "root").mkdir()
    for root in ("root", "root/", "rootsha1"):
        assert run(tool, Path(tmp_path, root), "--dry-run").lines()[0].startswith("1 read")
    (tmp_path / "root" / "sha1").mkdir()
    ran = run(tool, tmp_path / "root", "--dry-run")
    assert (ran.code, "there are two trees" in ran.err) == (2, True)


def test_a_directory_without_a_tree_is_a_usage_error(tool: Tool, tmp_path: Path) -> None:
    assert run(tool, tmp_path).code == 2
    assert run(tool, tmp_path / "missing").code == 2
    assert tool.run("import", "--from", "dtfc", str(tmp_path / "missing")).code == 2
    assert tool.run("import", "--from", "sos", str(tmp_path / "missing")).code == 2


@pytest.mark.parametrize("kind", ["dtfc", "sos"])
def test_another_door_than_is_needed_is_told_before_anything_is_sent(
    tool: Tool, tmp_path: Path, kind: str
) -> None:
    (tmp_path / hashlib.sha1(b"data").hexdigest()).write_bytes(b"data")
    ran = tool.run("import", "--from", kind, str(tmp_path))
    assert ran.code == 2
    assert "Name one with --url" in ran.err
    assert len(tool.server.seen) == 1


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (503, 5), (507, 5)])
def test_what_concerns_the_node_ends_the_import(
    tool: Tool, tmp_path: Path, status: int, code: int
) -> None:
    for number in range(30):
        add(tmp_path, b"%02d" % number)
    tool.server.on_upload = lambda: tool.server.problems.extend([(status, {})] * 100)
    ran = run(tool, tmp_path, "--jobs", "1")
    assert ran.code == code
    assert ran.lines() == ["1 imported (2 bytes), 0 there already, 0 corrupt"]
    assert ran.err.count("planned") == 1
    assert len(tool.server.blobs) == 1


@pytest.mark.parametrize("problem", [(403, {}), (503, {}), None], ids=["right", "busy", "broken"])
def test_a_question_that_fails_is_answered_by_the_upload(
    tool: Tool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: tuple[int, dict[str, str]] | None,
) -> None:
    async def check(door: NativeDoor) -> None:
        """The first request is to be the question."""

    monkeypatch.setattr(NativeDoor, "check", check)
    add(tmp_path, b"tierce")
    tool.server.add(b"tierce", "sha1")
    tool.server.problems.append(problem)
    ran = run(tool, tmp_path)
    assert (ran.code, tool.server.methods()) == (0, ["HEAD", "PUT"])
    assert ran.lines() == ["0 imported (0 bytes), 1 there already, 0 corrupt"]


def test_a_wrong_acknowledgement_counts_for_nothing(tool: Tool, tmp_path: Path) -> None:
    path = add(tmp_path, b"tierce")
    tool.server.acknowledged = Digest.of(b"others")
    ran = run(tool, tmp_path)
    assert ran.code == 1
    assert ran.lines()[0] == "0 imported (0 bytes), 0 there already, 0 corrupt, 1 failed"
    assert f"{path}: the node says that it stored" in ran.err


def test_a_walk_over_many_files_needs_little_memory(tmp_path: Path) -> None:
    for number in range(150):
        add(tmp_path, b"%d" % number)
    for number in range(3000):
        (tmp_path / "sha1" / f"foreign-{number:0150}").touch()

    async def count() -> tuple[int, int]:
        items = passed = 0
        last = Digest("sha1", b"")
        async for met in CaskTree(str(tmp_path)).items():
            if isinstance(met, Passed):
                passed += 1
                continue
            assert met.digest is not None
            assert last < met.digest
            last = met.digest
            items += 1
        return items, passed

    tracemalloc.start()
    try:
        assert asyncio.run(count()) == (150, 3000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 300_000


def test_many_failures_are_told_and_the_first_ones_repeated(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_, "LISTED_COUNT", 2)
    for number in range(5):
        add(tmp_path, b"bad", digits=hashlib.sha1(b"%d" % number).hexdigest())
    ran = run(tool, tmp_path)
    assert ran.err.count("it is corrupt") == 5
    assert len(ran.lines()) == 4
    assert ran.lines()[-1] == "  corrupt: 3 more, told above"


def test_a_bucket_that_fails_ends_the_import_after_some_files(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_, "TROUBLES_IN_A_ROW", 3)
    folder = tmp_path / "bucket"
    folder.mkdir()
    for number in range(10):
        (folder / f"sha1:{hashlib.sha1(b'%d' % number).hexdigest()}").write_bytes(b"%d" % number)

    async def stat(bucket: CaskBucket, key: str) -> object:
        raise Unavailable(f"the upstream failed while looking at {key}: timeout")

    monkeypatch.setattr(CaskBucket, "_stat", stat)
    ran = tool.run("import", "--from", "cask-s3", f"fs://{folder}", "--jobs", "1")
    assert ran.code == 5
    assert ran.lines()[0] == "0 imported (0 bytes), 0 there already, 0 corrupt, 3 failed"
    assert "3 files in a row could not be read: the bucket failed while looking at" in ran.err


def test_a_directory_in_place_of_a_bucket_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="can't be read"):
        CaskBucket(f"fs://{tmp_path}/missing", {})


def test_a_tree_of_dtfc_gives_the_last_name_of_each_file(tmp_path: Path) -> None:
    digits = hashlib.sha512(b"tierce").hexdigest()
    folder = tmp_path.joinpath(*(digits[at : at + 2] for at in range(0, 128, 2)))
    folder.mkdir(parents=True)
    (folder / "filename").write_bytes(b"x" * 5000 + b"\nold\nMy Name.TXT\n \n")

    async def met() -> list[Item | Passed]:
        return [each async for each in DtfcTree(str(tmp_path)).items()]

    assert asyncio.run(met()) == []
    (folder / "data").write_bytes(b"tierce")
    (item,) = asyncio.run(met())
    assert item == Item(f"{folder}/data", Digest.of(b"tierce", "sha512"), name="my-name.txt")
    (folder / "404").touch()
    (passed,) = asyncio.run(met())
    assert isinstance(passed, Passed)
    assert (passed.is_failure, "marker 404" in passed.reason) == (False, True)
