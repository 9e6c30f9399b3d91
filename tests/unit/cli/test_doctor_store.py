"""``tierce doctor --store`` and ``tierce store take-over``: what they print, and how they end."""

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest

from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud_names import OWNER_PATH, path_of
from tierce.cli.main import CORRUPT, REFUSED, SUCCESS, TRY_AGAIN, USAGE, main
from tierce.cli.store import LEASE_SECONDS
from tierce.cloud.bucket import open_bucket
from tierce.core.digest import Digest
from tierce.names.lmdb_index import DATABASES
from tierce.node.directory import DataDirectory, read_identity
from tierce.testing.cloud_nodes import cloud_disk
from tierce.testing.rclone import ACCESS_KEY, BUCKET, serve_s3

BLOBS = [b"one", b"two"]


class Tool:
    """``tierce`` on a data directory, and what it said."""

    def __init__(self, data: Path, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self.url = url
        self._capture = capture
        self.out = self.err = ""

    def run(self, *words: str, store: str | None = None) -> int:
        """Run a command with ``--data`` and ``--store``."""
        code = main([*words, "--data", str(self.data), "--store", store or self.url])
        self.out, self.err = self._capture.readouterr()
        return code


async def fill(data: Path, url: str, node_id: str, blobs: list[bytes]) -> None:
    directory = DataDirectory.open(data, node_id)
    disk = cloud_disk(data, open_bucket(url), databases=(*DATABASES, *CLOUD_DATABASES))
    try:
        await disk.prepare(node_id)
        for each in blobs:
            async with disk.spooler.holding(each, "blake3") as spool:
                await disk.store.put(spool)
    finally:
        await disk.close()
        directory.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The bucket."""
    root = tmp_path / "bucket"
    root.mkdir()
    return root


@pytest.fixture
def tool(
    tmp_path: Path,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Tool:
    """With a stopped node that has two blobs in a directory as its store."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(fill(tmp_path / "data", f"file://{root}", "one", BLOBS))
    return Tool(tmp_path / "data", f"file://{root}", capsys)


def object_of(root: Path, data: bytes) -> Path:
    return root / path_of(Digest.of(data), "tierce")


def test_a_sound_store_is_told_to_be_well_after_its_cost(tool: Tool) -> None:
    assert tool.run("doctor") == SUCCESS
    assert "2 objects listed and read" in tool.out
    assert tool.out.splitlines()[-1] == "all is well"
    assert "examining the store takes about" in tool.err
    assert "reads 6 B" in tool.err
    assert tool.run("doctor", "--listing-only") == SUCCESS
    assert "2 objects listed\n" in tool.out
    assert "reads 0 B" in tool.err


def test_without_the_store_it_is_said_how_to_examine_it(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", str(tool.data)]) == SUCCESS
    told = capsys.readouterr().out
    assert "not examined: 2 blobs in the store" in told
    assert "give --store" in told
    assert main(["doctor", "--data", str(tool.data), "--listing-only"]) == USAGE


def test_a_missing_object_ends_with_its_own_code_and_is_repaired(tool: Tool, root: Path) -> None:
    object_of(root, b"one").unlink()
    assert tool.run("doctor") == CORRUPT
    assert f"bad: {Digest.of(b'one')}: it is missing in the store" in tool.out
    assert "--repair removes them from the catalogue" in tool.out
    assert tool.run("doctor", "--repair") == CORRUPT
    assert "other nodes heal them, or put them again" in tool.out
    assert tool.run("doctor") == SUCCESS


def test_what_is_unknown_and_strange_is_told_and_is_no_illness(tool: Tool, root: Path) -> None:
    for name, content in ((b"new", b"new"), (b"odd", b"other")):
        object_of(root, name).parent.mkdir(parents=True, exist_ok=True)
        object_of(root, name).write_bytes(content)
    assert tool.run("doctor") == SUCCESS
    assert f"not in the catalogue: {Digest.of(b'new')}" in tool.out
    assert f"{Digest.of(b'odd').hex}'" in tool.out
    assert "--repair puts the rest right" in tool.out
    assert tool.run("doctor", "--repair") == SUCCESS
    assert "taken into the catalogue: 1 blob" in tool.out


def test_the_report_of_a_store_is_json_when_asked_for(tool: Tool, root: Path) -> None:
    object_of(root, b"new").parent.mkdir(parents=True, exist_ok=True)
    object_of(root, b"new").write_bytes(b"new")
    assert tool.run("doctor", "--json") == SUCCESS
    found = json.loads(tool.out)
    assert found["store"]["unknown"] == [str(Digest.of(b"new"))]
    assert found["store"]["objects"] == 3
    assert found["store"]["read_bytes"] >= 9
    assert found["in_store"]["blobs"] == 2


def test_another_nodes_store_is_a_wrong_setting(tool: Tool, root: Path) -> None:
    (root / OWNER_PATH).write_text('{"version": 1, "node_id": "two"}')
    assert tool.run("doctor") == USAGE
    assert "belongs to the node two" in tool.err


def test_a_store_that_can_not_be_reached_is_to_be_tried_again(tool: Tool) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{unused.getsockname()[1]}"
        assert tool.run("doctor", store=url) == TRY_AGAIN
    assert "the store failed" in tool.err


def test_wrong_credentials_are_refused(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with serve_s3(tmp_path / "s3") as server:
        url = f"s3://{BUCKET}/prefix?endpoint={server.endpoint}"
        assert tool.run("doctor", store=url) == REFUSED
    assert "the store's credentials" in tool.err


def test_a_store_is_taken_over_from_the_node_that_is_named(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    tool.data = tmp_path / "new"
    assert tool.run("store", "take-over", "three") == USAGE
    assert "belongs to the node one, not to three" in tool.err
    assert tool.run("store", "take-over", "one") == SUCCESS
    assert waited == [LEASE_SECONDS]
    assert "can't delete anything any more" in tool.err
    name = read_identity(tool.data).node_id
    assert f"The store is {name}'s now. Start the node" in tool.out
    assert tool.run("store", "take-over", "one") == SUCCESS
    assert "already" in tool.out
    asyncio.run(fill(tool.data, tool.url, name, []))
    assert tool.run("doctor") == SUCCESS
    assert "2 objects listed and read" in tool.out


def test_a_store_is_not_taken_over_by_a_node_that_has_one(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    asyncio.run(fill(tmp_path / "data2", f"file://{tmp_path / 'other'}", "two", []))
    tool.data = tmp_path / "data2"
    assert tool.run("store", "take-over", "one", "--no-wait") == USAGE
    assert "has a catalogue of a store already" in tool.err
    assert tool.run("store", "take-over", "one", "--no-wait", store="") == USAGE
