"""``tierce cask`` as an operator starts it: a Cask node's environment, and no arguments."""

import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import trustme

from tierce.testing.calls import Reply, call
from tierce.testing.processes import Address, NodeProcess, wait_for

pytestmark = pytest.mark.procs

CONTENT = b"hello cask\n"
KEY = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"
UUID = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
SECRET = "not-a-real-secret"
COMMAND = [sys.executable, "-m", "tierce", "cask"]
READY = re.compile(r"^tierce: cask=([0-9.]+):(\d+)$", re.MULTILINE)


class CaskProcess(NodeProcess):
    """A node with CASK_* variables on a free port. Keyword arguments are further ones."""

    def __init__(self, data: Path, **cask: str) -> None:
        environment = {
            "CASK_PORT": "0",
            "CASK_WRITEABLE": "true",
            "CASK_DISK_BACKEND_ROOT": str(data),
            "CASK_KEEP_FREE": "0",
            "CASK_MAX_PROCS": "1",
            **cask,
        }
        super().__init__(data, doors=("cask",), environment=environment)
        self.host = ""

    def __enter__(self) -> "CaskProcess":
        return self

    def command(self) -> list[str]:
        return COMMAND

    def start(self) -> "CaskProcess":
        self.launch()

        def ready() -> re.Match[str] | None:
            assert self.exit_code() is None, self.log
            return READY.search(self.stdout.read_text())

        self.host, port = wait_for(ready, "the node to be ready").groups()  # type: ignore[union-attr]
        self.addresses = {"cask": Address(f"127.0.0.1:{port}")}
        return self

    @property
    def address(self) -> Address:
        return self.addresses["cask"]


def upload(address: Address, target: str = "/", **headers: str) -> Reply:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        b"%b\r\n--b--\r\n" % CONTENT
    )
    sent = {"Content-Type": "multipart/form-data; boundary=b", **headers}
    return call(address, "POST", target, body, sent)


def refused(tmp_path: Path, *arguments: str, **cask: str) -> tuple[int, str]:
    """Start a node that must not start; its exit code, and what it said."""
    ended = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "CASK_DISK_BACKEND_ROOT": str(tmp_path / "data"), **cask},
        timeout=60,
        check=False,
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_a_node_serves_what_it_took_before_it_was_stopped(tmp_path: Path) -> None:
    with CaskProcess(tmp_path / "data", CASK_UUID=UUID).start() as node:
        reply = upload(node.address)
        assert reply.body == f'{{"key":"{KEY}","success":true}}'.encode()
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
        node.start()
        assert call(node.address, "GET", f"/file/{KEY}/").body == CONTENT
        config = call(node.address, "GET", "/config/").json
        assert config["uuid"] == UUID
        assert config["base_url"] == f"http://{node.address}"
        assert "Traceback" not in node.log


def test_several_workers_answer_as_one_node(tmp_path: Path) -> None:
    with CaskProcess(tmp_path / "data", CASK_MAX_PROCS="2").start() as node:
        upload(node.address)
        for _ in range(20):
            assert call(node.address, "GET", f"/file/{KEY}/").body == CONTENT
            assert call(node.address, "GET", "/status/").json["files"] == 1


def test_without_a_secret_a_node_is_for_this_machine_and_says_so(tmp_path: Path) -> None:
    with CaskProcess(tmp_path / "data").start() as node:
        assert node.host == "127.0.0.1"
        assert "tierce: CASK_CLUSTER_SECRET is not set" in node.log


def test_with_a_secret_a_node_listens_on_all_addresses(tmp_path: Path) -> None:
    base_url = "http://cask.example:8080"
    with CaskProcess(
        tmp_path / "data", CASK_CLUSTER_SECRET=SECRET, CASK_BASE_URL=base_url
    ).start() as node:
        assert node.host == "0.0.0.0"
        assert upload(node.address, "/local/").status == 403
        reply = upload(node.address, "/local/", **{"X-Cask-Cluster-Secret": SECRET})
        assert (reply.status, reply.body) == (200, KEY.encode())
        assert call(node.address, "GET", "/config/").json["base_url"] == base_url
        assert SECRET not in node.log


def test_a_node_without_writeable_is_read_only_and_says_so(tmp_path: Path) -> None:
    with CaskProcess(tmp_path / "data", CASK_WRITEABLE="").start() as node:
        reply = upload(node.address)
        assert (reply.status, reply.json) == (503, {"key": KEY, "success": False})
        assert "tierce: CASK_WRITEABLE is not set" in node.log


def test_a_node_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with CaskProcess(
        tmp_path / "data",
        CASK_BASE_URL="https://127.0.0.1:8443",
        CASK_SSL_CERTIFICATE=str(certificate),
        CASK_SSL_KEY=str(key),
    ).start() as node:
        where = f"https://{node.address}/config/"
        with urllib.request.urlopen(where, context=trust, timeout=30) as answer:
            assert json.load(answer)["base_url"] == "https://127.0.0.1:8443"


def test_the_files_of_a_cask_node_are_noted_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    old = data / "sha1" / "/".join(KEY[at : at + 2] for at in range(5, 45, 2)) / "data"
    old.parent.mkdir(parents=True)
    old.write_bytes(CONTENT)
    with CaskProcess(data).start() as node:
        assert "looks like the files of a Cask node. They are not served" in node.log
        assert call(node.address, "GET", f"/file/{KEY}/").status == 404
        assert old.read_bytes() == CONTENT


def test_a_node_whose_neighbors_are_away_makes_no_promise(tmp_path: Path) -> None:
    neighbor = "http://127.0.0.1:1"
    with CaskProcess(
        tmp_path / "data", CASK_REPLICATION="3", CASK_NEIGHBORS=neighbor
    ).start() as node:
        assert "tierce: CASK_NEIGHBORS needs CASK_CLUSTER_SECRET" in node.log
        reply = upload(node.address)
        assert (reply.status, reply.json) == (503, {"key": KEY, "success": False})


@pytest.mark.parametrize(
    ("cask", "complaint"),
    [
        ({}, "CASK_PORT is not set"),
        ({"CASK_PORT": "http"}, "CASK_PORT='http' is not a whole number"),
        ({"CASK_PORT": "0", "CASK_PROT": "1"}, "'CASK_PROT' is not a known environment variable"),
        ({"CASK_PORT": "0", "CASK_WRITEABLE": "yes"}, "CASK_WRITEABLE='yes' is neither"),
        ({"CASK_PORT": "0", "CASK_BACKEND": "azure"}, "CASK_BACKEND='azure' is not a backend"),
        ({"CASK_PORT": "0", "CASK_SSL_KEY": "key.pem"}, "without CASK_SSL_CERTIFICATE"),
        ({"CASK_PORT": "0", "TIERCE_WROKERS": "1"}, "'TIERCE_WROKERS' is not a known"),
    ],
)
def test_wrong_settings_end_it_before_it_begins(
    tmp_path: Path, cask: dict[str, str], complaint: str
) -> None:
    code, said = refused(tmp_path, **cask)
    assert code == 2
    assert complaint in said
    assert not (tmp_path / "data").exists()


def test_it_takes_no_arguments(tmp_path: Path) -> None:
    assert refused(tmp_path, "8080", CASK_PORT="0")[0] == 2


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = refused(tmp_path, CASK_PORT=port, CASK_WRITEABLE="true")
    assert code == 5
    assert f"can't listen on cask=127.0.0.1:{port}" in said
