"""A node that can't start says why in a few words, what to do about it, and harms nothing."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.cli.main import CORRUPT, TRY_AGAIN, USAGE
from tierce.testing.calls import get, put
from tierce.testing.processes import PATIENCE_SECONDS, NodeProcess

pytestmark = pytest.mark.procs


def _fails(node: NodeProcess, code: int) -> str:
    """Launch a node that must end by itself; returns what it said: two lines, no traceback."""
    before = len(node.log)
    node.launch()
    assert node.wait() == code, node.log
    assert node.stdout.read_text() == ""
    said = node.log[before:]
    assert "Traceback" not in said
    assert said.startswith("tierce: ")
    assert len(said.splitlines()) == 2
    return said


def _snapshot(data: Path) -> dict[str, bytes]:
    """All files of a data directory but the run-time ones."""
    files = (path for path in data.rglob("*") if path.is_file())
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in files
        if path.relative_to(data).parts[0] not in ("run", "lock") and path.name != "lock.mdb"
    }


@contextlib.contextmanager
def _used(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node that has run, holds a small and a large blob, and was stopped."""
    with NodeProcess(tmp_path / "data") as node:
        node.start()
        put(node.address, b"small")
        put(node.address, bytes(100_000))
        node.stop()
        yield node


def test_a_second_node_on_the_same_directory_is_turned_away(tmp_path: Path) -> None:
    logs = tmp_path / "second"
    with (
        NodeProcess(tmp_path / "data", workers=2) as first,
        NodeProcess(tmp_path / "data", logs=logs) as second,
    ):
        first.start()
        digest = put(first.address, b"content")
        said = _fails(second, TRY_AGAIN)
        assert "another node is running on" in said
        assert f"process {first.pid}" in said
        assert get(first.address, digest).body == b"content"
        first.stop()
        second.start()
        assert get(second.address, digest).body == b"content"
        second.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_node_on_the_same_port_is_turned_away(tmp_path: Path, workers: int) -> None:
    with NodeProcess(tmp_path / "one", workers=workers) as first:
        first.start()
        listen = [f"native={first.address}"]
        with NodeProcess(tmp_path / "two", workers=workers, listen=listen) as second:
            said = _fails(second, TRY_AGAIN)
            assert f"can't listen on native={first.address}" in said
            assert "--listen" in said
            first.stop()
            second.start()
            assert second.address == first.address
            second.stop()


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with NodeProcess(tmp_path / "data") as node:
        assert "can't be used as a data directory" in _fails(node, USAGE)
    with NodeProcess(tmp_path / "data" / "below", logs=tmp_path / "logs") as node:
        assert "can't be used as a data directory" in _fails(node, USAGE)
    assert (tmp_path / "data").read_text() == "a file"


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    wrapper: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # Root may write anywhere, unless it gives up that capability.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("running as root, and there is no setpriv to give up its powers")
        wrapper = (setpriv, "--bounding-set=-dac_override,-dac_read_search")
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o500)
    with NodeProcess(data, wrapper=wrapper) as node:
        said = _fails(node, USAGE)
        assert "can't be used as a data directory" in said
        assert "--data" in said
        data.chmod(0o700)
        node.start()
        put(node.address, b"now it works")
        node.stop()


def test_a_damaged_node_toml(tmp_path: Path) -> None:
    with _used(tmp_path) as node:
        for content in (
            b"",
            b"\xff\xfe no text",
            b"no = toml = here",
            b'node_id = "n"\n',
            b"format_version = 2\n",
            b'node_id = "n"\nformat_version = []\n',
        ):
            (node.data / "node.toml").write_bytes(content)
            before = _snapshot(node.data)
            said = _fails(node, CORRUPT)
            assert "node.toml" in said, content
            assert "is damaged" in said, content
            assert "format_version = 2" in said, content
            assert _snapshot(node.data) == before, content


def test_a_format_from_the_future_is_left_alone(tmp_path: Path) -> None:
    with _used(tmp_path) as node:
        file = node.data / "node.toml"
        file.write_text(file.read_text().replace("format_version = 2", "format_version = 3"))
        before = _snapshot(node.data)
        said = _fails(node, CORRUPT)
        assert "format version 3" in said
        assert "this program reads 2" in said
        assert _snapshot(node.data) == before


@pytest.mark.parametrize("size", [10, 100_000], ids=["only-a-packed-one", "only-a-file"])
def test_blobs_without_a_node_toml(tmp_path: Path, size: int) -> None:
    with NodeProcess(tmp_path / "data") as node:
        node.start()
        put(node.address, bytes(size), "sha256")
        node.stop()
        if size > 65536:
            shutil.rmtree(node.data / "lmdb")
        (node.data / "node.toml").unlink()
        before = _snapshot(node.data)
        assert "its node.toml is missing" in _fails(node, CORRUPT)
        assert _snapshot(node.data) == before


def test_node_toml_is_written_once(tmp_path: Path) -> None:
    with _used(tmp_path) as node:
        before = (node.data / "node.toml").read_text()
        node.start()
        node.stop()
        assert (node.data / "node.toml").read_text() == before


@pytest.mark.parametrize("listen", ["native=0.0.0.0:0", "native=[::]:0"])
def test_reachable_from_afar_without_tokens_is_refused(tmp_path: Path, listen: str) -> None:
    with NodeProcess(tmp_path / "data", listen=[listen]) as node:
        said = _fails(node, USAGE)
        assert "no token is set" in said
        assert "tierce token new" in said
        assert not node.data.exists()


def test_a_port_that_is_no_port(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", listen=["native=127.0.0.1:99999"]) as node:
        assert "is not a port" in _fails(node, USAGE)


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    listen = ["native=192.0.2.1:7070"]
    with NodeProcess(tmp_path / "data", listen=listen, anonymous_rights="read") as node:
        said = _fails(node, USAGE)
        assert "can't listen on native=192.0.2.1:7070" in said


def test_python_m_tierce_is_the_command() -> None:
    command = NodeProcess(Path("unused"), logs=Path("/tmp")).command()[:3]
    done = subprocess.run(
        [*command, "--version"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert done.stdout.startswith("tierce ")
