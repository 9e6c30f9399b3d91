"""SOS's README, command by command: two blob servers, an upload and a download server, and curl."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tierce.testing.calls import call
from tierce.testing.cluster_processes import free_port
from tierce.testing.processes import Address, Ended, NodeProcess, wait_for

pytestmark = pytest.mark.procs

TIERCE = [sys.executable, "-m", "tierce", "sos"]
READY = re.compile(r"^tierce: sos-\w+=0\.0\.0\.0:(\d+)$", re.MULTILINE)
PASSWD = b"root:x:0:0:root:/root:/bin/bash\n"
ID = hashlib.sha1(PASSWD).hexdigest()
OK = f'{{"id":"{ID}","size":{len(PASSWD)},"status":"OK"}}'.encode()


class SosProcess(NodeProcess):
    """One of the programs, with a home of its own. ``words`` are its command line."""

    def __init__(self, home: Path, *words: str) -> None:
        environment = {
            "HOME": str(home), "XDG_STATE_HOME": "", "NO_PROXY": "*", "TIERCE_RESERVE_BYTES": "0",
            "TIERCE_WORKERS": "2" if "upload-server" in words else "1",
        }  # fmt: skip
        super().__init__(home / words[-1], environment=environment, logs=home / f"logs{words[-1]}")
        self._words = [*words[:-1], str(home / words[-1])] if "blob-server" in words else [*words]

    def __enter__(self) -> "SosProcess":
        return self

    def command(self) -> list[str]:
        return [*TIERCE, *self._words]

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.exit_code() is not None:
                raise Ended(f"it ended with {self.exit_code()}:\n{self.log[-4000:]}")
            found = READY.findall(self.stdout.read_text())
            if found:
                self.addresses = {"native": Address(f"127.0.0.1:{found[0]}")}
            return bool(found)

        wait_for(ready, "the program to be ready")


class Quick:
    """The programs of the README, with free ports in place of its own."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        ports = [free_port() for _ in range(4)]
        self.one, self.two, self.upload, self.download = (
            stack.enter_context(SosProcess(home, *words))
            for words in (
                ("blob-server", "--port", f"{ports[0]}", "data1"),
                ("blob-server", "--port", f"{ports[1]}", "dat2"),
                ("upload-server", f"--port={ports[2]}"),
                ("download-server", f"--port={ports[3]}"),
            )
        )
        (home / ".sos.conf").write_text(
            f"http://localhost:{ports[0]}\nhttp://localhost:{ports[1]}\n"
        )

    def start(self) -> None:
        programs = (self.one, self.two, self.upload, self.download)
        for each in programs:
            each.launch()
        for each in programs:
            each.wait_ready()

    def curl(self, *words: str) -> bytes:
        return subprocess.run(
            ["curl", "-s", "--noproxy", "*", *words], capture_output=True, check=True, timeout=30
        ).stdout

    def replicate(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TIERCE, "replicate", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "NO_PROXY": "*"},
            check=False,
        )

    def holders(self, sos_id: str) -> int:
        """How many blob servers list an id."""
        lists = [call(each.address, "GET", "/blob").json for each in (self.one, self.two)]
        return sum(sos_id in each for each in lists)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quick]:
    with ExitStack() as stack:
        found = Quick(tmp_path_factory.mktemp("home"), stack)
        found.start()
        yield found


def test_the_quick_start_works_command_by_command(quick: Quick, tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    file.write_bytes(PASSWD)
    upload, download = (
        f"http://localhost:{each.address.port}" for each in (quick.upload, quick.download)
    )
    assert quick.curl("-X", "POST", "--data-binary", f"@{file}", f"{upload}/upload") == OK
    assert quick.curl(f"{download}/fetch/{ID}") == PASSWD
    assert quick.holders(ID) == 1
    done = quick.replicate("--verbose")
    assert done.returncode == 0, done.stderr
    assert "Replication successful" in done.stdout
    assert quick.holders(ID) == 2
    again = quick.replicate("--verbose")
    assert again.returncode == 0
    assert "Replication successful" not in again.stdout


def test_a_replicated_object_outlives_the_loss_of_a_server(quick: Quick) -> None:
    address = quick.upload.address
    sent = json.loads(call(address, "POST", "/upload", b"precious", {"X-Owner": "steve"}).body)
    assert quick.replicate().returncode == 0
    for lost in (quick.one, quick.two):
        lost.kill()
        found = call(quick.download.address, "GET", f"/fetch/{sent['id']}.txt")
        assert (found.status, found.body) == (200, b"precious")
        assert found.headers["x-owner"] == "steve"
        more = json.loads(call(address, "POST", "/upload", b"more").body)
        assert more["status"] == "OK"
        lost.launch()
        lost.wait_ready()


def test_all_stop_in_order(quick: Quick) -> None:
    for each in (quick.upload, quick.download, quick.one, quick.two):
        each.stop()


def test_a_store_of_its_own_takes_uploads_and_gives_them_back(tmp_path: Path) -> None:
    words = (
        "api-server",
        "--upload-port=0",
        "--download-port=0",
        "--config=/dev/null",
        "--data=own",
    )
    with SosProcess(tmp_path, *words) as server:
        server.launch()
        server.wait_ready()
        upload, download = READY.findall(server.stdout.read_text())
        told = call(Address(f"127.0.0.1:{upload}"), "POST", "/upload", PASSWD)
        assert told.body == OK
        found = call(Address(f"127.0.0.1:{download}"), "GET", f"/fetch/{ID}")
        assert found.body == PASSWD
        server.stop()
