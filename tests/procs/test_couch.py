"""``tierce couch`` with a real server of CouchDB's HTTP (tests/couch) and a real node."""

import base64
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tierce.cli.main import main
from tierce.testing.calls import call
from tierce.testing.processes import Address, Ended, NodeProcess, wait_for

pytestmark = pytest.mark.procs

COUCH = [sys.executable, "-m", "tierce", "couch"]
SERVER = Path(__file__).parents[1] / "couch" / "server.js"
MODULES = Path(sys.prefix) / "couch" / "node_modules"  # where the Makefile installs them
PHOTO = random.Random(1).randbytes(300_000)
LISTENING = "listening "


class Database:
    """A database of the server."""

    def __init__(self, address: Address, name: str) -> None:
        self._address = address
        self._path = f"/{name}"
        self.url = f"http://{address}/{name}"
        assert self.call("PUT", "").status == 201

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "") -> Any:
        headers = {"Content-Type": kind or "application/json"} if body else {}
        return call(self._address, method, f"{self._path}{path}", body or None, headers)

    def add(self, doc_id: str, attachments: dict[str, tuple[bytes, str]]) -> None:
        """Make a document with attachments, as CouchDB's users do."""
        inline = {
            name: {"content_type": kind, "data": base64.b64encode(data).decode()}
            for name, (data, kind) in attachments.items()
        }
        body = json.dumps({"year": 2015, "_attachments": inline}).encode()
        assert self.call("PUT", f"/{quote(doc_id, safe='')}", body).status == 201

    def document(self, doc_id: str) -> Any:
        return self.call("GET", f"/{quote(doc_id, safe='')}").json

    def attachment(self, doc_id: str, name: str) -> bytes:
        reply = self.call("GET", f"/{quote(doc_id, safe='')}/{quote(name, safe='')}")
        assert reply.status == 200
        assert isinstance(reply.body, bytes)
        return reply.body


class Place(NamedTuple):
    """The two servers."""

    couch: Address
    node: NodeProcess

    @property
    def door(self) -> Address:
        return self.node.addresses["dtfc"]


class Ran(NamedTuple):
    """How a run ended."""

    code: int
    out: str
    err: str


class Tool:
    """``tierce couch`` with the node's door as its store."""

    def __init__(self, place: Place, capture: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self._capture = capture

    def run(self, word: str, database: Database) -> Ran:
        """Run it in this process, which is quicker."""
        self._capture.readouterr()
        code = main(["couch", word, "--db", database.url])
        return Ran(code, *self._capture.readouterr())


def start_server(home: Path) -> tuple[subprocess.Popen[bytes], Address]:
    """Start the server, and wait until it answers. Skips the test where it is not installed."""
    node = shutil.which("node")
    if node is None or not (MODULES / "express-pouchdb").is_dir():
        reason = "needs node and npm, and `make test` to install the server of tests/couch"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    said = home / "server.log"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [node, str(SERVER)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "NODE_PATH": str(MODULES)},
            cwd=home,
        )

    def port() -> str:
        if process.poll() is not None:
            raise Ended(f"the server ended: {said.read_text()[-4000:]}")
        _, _, found = said.read_text().rpartition(LISTENING)
        return found.strip() if found.endswith("\n") else ""

    return process, Address(f"127.0.0.1:{wait_for(port, 'the server to listen')}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("couch")
    process, address = start_server(home)
    try:
        with NodeProcess(home / "data", doors=("dtfc",)) as node:
            node.start()
            yield Place(address, node)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def tool(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    monkeypatch.setenv("TIERCE_DTFC_URL", f"http://{place.door}/")
    for name in ("TIERCE_TOKEN", "COUCHDB_USER", "COUCHDB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return Tool(place, capsys)


def test_attachments_go_there_and_back(tool: Tool) -> None:
    place = tool.place
    database = Database(place.couch, "photos")
    attachments = {
        "My File.JPG": (PHOTO, "image/jpeg"),
        "2015/nöte?.txt": (b"It was a fine day.", "text/plain"),
        "empty": (b"", "application/x-empty"),
    }
    ids = ["beach", "two words/ü"]
    for doc_id in ids:
        database.add(doc_id, attachments)
    ran = tool.run("offload", database)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("6 attachments (600036 bytes) of 2 documents moved into the store\n")
    for doc_id in ids:
        found = database.document(doc_id)
        assert found == {
            "_id": doc_id,
            "_rev": found["_rev"],
            "year": 2015,
            "dtfc": {
                name: {
                    "sha512": hashlib.sha512(data).hexdigest(),
                    "length": len(data),
                    "content_type": kind,
                }
                for name, (data, kind) in attachments.items()
            },
        }
        for entry in found["dtfc"].values():  # with the path that dtfc's README has
            assert len(call(place.door, "GET", f"/{entry['sha512']}").body) == entry["length"]
    ran = tool.run("offload", database)
    assert (ran.code, ran.out[:14]) == (0, "0 attachments ")
    ran = tool.run("restore", database)
    assert (ran.code, ran.err) == (0, "")
    for doc_id in ids:
        found = database.document(doc_id)
        assert "dtfc" not in found
        for name, (data, kind) in attachments.items():
            assert database.attachment(doc_id, name) == data
            assert found["_attachments"][name]["content_type"] == kind


@pytest.mark.parametrize(
    ("word", "number"),
    [("offload", signal.SIGKILL), ("restore", signal.SIGKILL), ("offload", signal.SIGINT)],
    ids=["offload killed", "restore killed", "offload interrupted"],
)
def test_a_run_that_is_ended_in_the_middle_is_completed_by_another(
    tool: Tool, word: str, number: signal.Signals
) -> None:
    place = tool.place
    database = Database(place.couch, f"{word}-{number.name.lower()}")
    generator = random.Random(2)
    contents = {f"d{each:02}": generator.randbytes(10_000) for each in range(12)}
    for doc_id, data in contents.items():
        database.add(doc_id, {"a.jpg": (data, "image/jpeg")})
    if word == "restore":
        assert tool.run("offload", database).code == 0
    with subprocess.Popen(
        [*COUCH, word, "--db", database.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b": 1 attachment (10000 bytes)\n")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    killed = number is signal.SIGKILL
    assert process.returncode == (-signal.SIGKILL if killed else 130), said
    assert said == (b"" if killed else b"tierce: interrupted\n")
    done = {True: 0, False: 0}
    for doc_id, data in contents.items():
        found = database.document(doc_id)
        if "_attachments" in found:
            assert database.attachment(doc_id, "a.jpg") == data
        else:
            sha512 = found["dtfc"]["a.jpg"]["sha512"]
            assert call(place.door, "GET", f"/{sha512}").body == data
        done[is_done(word, found)] += 1
    assert done[True], "the run was ended before it did anything"
    assert done[False], "the run was over before it was ended"
    assert tool.run(word, database).code == 0
    assert all(is_done(word, database.document(doc_id)) for doc_id in contents)


def is_done(word: str, document: dict[str, Any]) -> bool:
    """Whether a document has its attachments on the side to which they are moved, and only there."""
    is_attached, is_mapped = "_attachments" in document, "dtfc" in document
    assert is_attached or is_mapped
    return is_attached != is_mapped and is_attached == (word == "restore")
