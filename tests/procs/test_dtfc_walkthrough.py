"""dtfc's README on three real nodes, by curl: its properties, its answers, and its thoughts."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tierce.testing.cluster_processes import free_port
from tierce.testing.processes import Address, Ended, NodeProcess, wait_for

pytestmark = pytest.mark.procs

READY = re.compile(r"^tierce: dtfc=\S+:(\d+)$", re.MULTILINE)
PHOTO = os.urandom(300_000)
SHA512 = hashlib.sha512(PHOTO).hexdigest()


class DtfcProcess(NodeProcess):
    """``tierce dtfc`` with flags as dtfc takes them."""

    def __init__(self, home: Path, port: int, peers: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._flags = [
            f"--port={port}", f"--basedir={home / str(port)}", f"-me={self.url}/",
            f"--peerlist={peers}", f"-deny={home / f'deny{port}/'}/",
        ]  # fmt: skip
        (home / f"deny{port}").mkdir()
        super().__init__(
            home / str(port),
            environment={
                "NO_PROXY": "*", "TIERCE_RESERVE_BYTES": "0", "TIERCE_WORKERS": "1",
                "TIERCE_COLLECT_GRACE_SECONDS": "1",
            },
            logs=home / f"logs{port}",
        )  # fmt: skip

    def __enter__(self) -> "DtfcProcess":
        return self

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tierce", "dtfc", *self._flags]

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.exit_code() is not None:
                raise Ended(f"it ended with {self.exit_code()}:\n{self.log[-4000:]}")
            found = READY.findall(self.stdout.read_text())
            if found:
                self.addresses = {"native": Address(f"127.0.0.1:{found[0]}")}
            return bool(found)

        wait_for(ready, "the node to be ready")


class Three:
    """Three nodes that are each other's peers."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        peers = home / "peers"
        ports = [free_port() for _ in range(3)]
        peers.write_text("".join(f"http://127.0.0.1:{port}/\n" for port in ports))
        self.nodes = [stack.enter_context(DtfcProcess(home, port, peers)) for port in ports]
        for each in self.nodes:
            each.launch()
        for each in self.nodes:
            each.wait_ready()

    def curl(self, *words: str) -> bytes:
        return subprocess.run(
            ["curl", "-s", "--noproxy", "*", *words], capture_output=True, check=True, timeout=30
        ).stdout

    def status(self, number: int, path: str, *words: str) -> int:
        url = f"{self.nodes[number].url}{path}"
        return int(self.curl("-o", "/dev/null", "-w", "%{http_code}", *words, url))

    def put(self, number: int, name: str, content: bytes) -> dict[str, Any]:
        file = self.home / name
        file.write_bytes(content)
        found: dict[str, Any] = json.loads(
            self.curl("-T", str(file), f"{self.nodes[number].url}/{name}")
        )
        return found


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with ExitStack() as stack:
        yield Three(tmp_path_factory.mktemp("dtfc"), stack)


def test_the_properties_of_the_readme_hold(three: Three) -> None:
    """Until a peer has performed a GET, the first node is the only one to have a file."""
    answer = three.put(0, "Holiday_2015.JPG", PHOTO)
    assert answer == {
        "sha512": SHA512, "filename": "holiday-2015.jpg", "length": len(PHOTO),
        "content_type": "image/jpeg", "stub": True,
    }  # fmt: skip
    here = [three.status(number, f"/{SHA512}/nopeerload") for number in range(3)]
    assert here == [200, 404, 404]
    assert three.curl(f"{three.nodes[1].url}/{SHA512}") == PHOTO
    here = [three.status(number, f"/{SHA512}/nopeerload") for number in range(3)]
    assert here == [200, 200, 404]
    # Once a peer has it, the first node may go: the file has no centre any more.
    three.nodes[0].kill()
    try:
        assert three.curl(f"{three.nodes[2].url}/{SHA512}") == PHOTO
    finally:
        three.nodes[0].launch()
        three.nodes[0].wait_ready()
    head = three.curl("-I", f"{three.nodes[2].url}/{SHA512}").decode()
    assert 'filename="holiday-2015.jpg"' in head
    assert f"Content-Length: {len(PHOTO)}" in head
    part = three.curl("-r", "100-199", f"{three.nodes[2].url}/{SHA512}")
    assert part == PHOTO[100:200]


def test_the_responses_of_the_readme(three: Three) -> None:
    url = three.nodes[0].url
    assert three.curl(f"{url}/health.html") == b"All systems go."
    assert three.status(0, "/refreshpeers.html", "-X", "PUT") == 200
    hashed = three.put(0, "words.txt", b"some words\n")["sha512"]
    assert three.status(0, f"/{hashed}/ffmetadata") == 415
    assert three.status(1, f"/{hashed}") == 200
    # DELETE is for the node that is asked; the others keep it.
    deleted = json.loads(three.curl("-X", "DELETE", f"{url}/{hashed}"))
    assert (deleted["deleted"], deleted["sha512"]) == (True, hashed)
    assert three.status(0, f"/{hashed}") == three.status(0, f"/{hashed}", "-I") == 404
    assert three.status(1, f"/{hashed}") == 200
    # A new PUT of the same content brings it back.
    assert three.put(0, "again.txt", b"some words\n")["sha512"] == hashed
    assert three.curl(f"{url}/{hashed}") == b"some words\n"


def test_a_node_that_was_down_hears_of_a_deletion_when_it_returns(three: Three) -> None:
    hashed = three.put(0, "old.bin", b"to be gone everywhere")["sha512"]
    assert [three.status(number, f"/{hashed}") for number in (1, 2)] == [200, 200]
    three.nodes[2].kill()
    try:
        found = json.loads(three.curl("-X", "DELETE", f"{three.nodes[0].url}/{hashed}/allpeers"))
        words = {url.rpartition(":")[2].strip("/"): word for url, word in found["peers"].items()}
        assert words == {
            str(three.nodes[1].port): "deleted", str(three.nodes[2].port): "queued"
        }  # fmt: skip
    finally:
        three.nodes[2].launch()
        three.nodes[2].wait_ready()
    assert [three.status(number, f"/{hashed}") for number in (0, 1)] == [404, 404]
    wait_for(lambda: three.status(2, f"/{hashed}/nopeerload") == 404, "the order to arrive")


def test_permissions_by_files(three: Three) -> None:
    """A method is denied by a file of its name, a hash by a 403 or 404 in its directory."""
    hashed = three.put(1, "secret.txt", b"hidden")["sha512"]
    node = three.nodes[1]
    deny = three.home / f"deny{node.port}" / "put"
    deny.touch()
    assert three.status(1, "/x.txt", "-T", str(three.home / "secret.txt")) == 403
    deny.unlink()
    directory = node.data.joinpath(*re.findall("..", hashed))
    directory.mkdir(parents=True)
    for marker, status in (("403", 403), ("404", 404)):
        (directory / marker).touch()
        assert three.status(1, f"/{hashed}") == three.status(1, f"/{hashed}", "-I") == status
        (directory / marker).unlink()
    assert three.status(1, f"/{hashed}") == 200
