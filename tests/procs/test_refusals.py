"""What is refused is refused before its body was sent, with the reason; and no secret is logged."""

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import KIB, MIB
from tierce.core.rights import Right, Token
from tierce.testing.calls import Reply, Wire, call, get, listing, metric, put, status
from tierce.testing.processes import NodeProcess

pytestmark = pytest.mark.procs

BLOB_LIMIT_BYTES = MIB


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that takes blobs of a mebibyte at most."""
    data = tmp_path_factory.mktemp("refusals") / "data"
    with NodeProcess(data, blob_limit_bytes=BLOB_LIMIT_BYTES) as node:
        yield node.start()
        assert node.spools() == []
        node.stop()


def _expecting(node: NodeProcess, size: int, **headers: str) -> Wire:
    wire = Wire(node.address)
    wire.request("POST", "/v1/blobs", Content_Length=size, Expect="100-continue", **headers)
    return wire


def _assert_final_without_body(wire: Wire, code: int) -> Reply:
    """The first answer is the last one; it ends the connection, whose body was never asked for."""
    started = time.monotonic()
    reply = wire.reply()
    assert reply.status == code
    assert reply.headers["connection"] == "close"
    assert reply.json["hint"]
    assert time.monotonic() - started < 5
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.rest(1) == b""
    return reply


def test_a_good_upload_is_told_to_go_on(node: NodeProcess) -> None:
    data = random.Random(1).randbytes(300 * KIB)
    with _expecting(node, len(data)) as wire:
        assert wire.head() == (100, {})
        wire.send(data)
        reply = wire.reply()
        assert reply.status == 201
        assert reply.json["digest"] == str(Digest.of(data))
        wire.request("GET", "/v1/health/live")
        assert wire.reply().status == 200


def test_a_body_that_is_announced_too_large_is_not_asked_for(node: NodeProcess) -> None:
    with _expecting(node, BLOB_LIMIT_BYTES + 1) as wire:
        assert _assert_final_without_body(wire, 413).json["type"].endswith("/too-large")


def test_a_body_with_a_wrong_digest_in_its_path_is_not_asked_for(node: NodeProcess) -> None:
    with Wire(node.address) as wire:
        wire.request("PUT", "/v1/blobs/md5:00", Content_Length=10, Expect="100-continue")
        _assert_final_without_body(wire, 400)


def test_a_body_that_turns_out_too_large_is_refused_and_leaves_nothing(node: NodeProcess) -> None:
    blobs = status(node.address)["blobs"]
    with Wire(node.address) as wire:
        wire.request("POST", "/v1/blobs", Transfer_Encoding="chunked")
        with contextlib.suppress(ConnectionError):
            for _ in range(BLOB_LIMIT_BYTES // 0x10000 + 2):
                wire.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        assert wire.reply().status == 413
    assert node.spools() == []
    assert status(node.address)["blobs"] == blobs


def test_a_refused_body_that_was_sent_anyway_leaves_the_connection_in_order(
    node: NodeProcess,
) -> None:
    """The rest of the body must not be taken for the next request."""
    inner = b"DELETE /v1/blobs/x HTTP/1.1\r\nHost: node\r\n\r\n"
    with Wire(node.address) as wire:
        wire.request("PUT", "/v1/blobs/nonsense", Content_Length=len(inner))
        wire.send(inner)
        assert wire.reply().status == 400
        wire.request("GET", "/v1/health/live")
        assert wire.reply().status == 200


def test_a_read_only_node_serves_and_takes_nothing(tmp_path: Path) -> None:
    contents = [b"", b"small", random.Random(2).randbytes(MIB)]
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        digests = [put(node.address, data) for data in contents]
        node.stop()
        node.settings["read_only"] = True
        node.start()
        for digest, data in zip(digests, contents, strict=True):
            assert get(node.address, digest).body == data
        assert listing(node.address).keys() == set(digests)
        for size in (10, MIB):
            reply = call(node.address, "POST", "/v1/blobs", bytes(size))
            assert reply.status == 503
            assert reply.json["type"].endswith("/read-only")
            assert "read_only" in reply.json["hint"]
        with _expecting(node, 100) as wire:
            _assert_final_without_body(wire, 503)
        told = status(node.address)
        assert not told["writable"]
        assert "read-only" in told["read_only_reason"]
        assert call(node.address, "GET", "/v1/health/ready").json == {
            "ready": True,
            "writable": False,
        }
        assert metric(node.address, "tierce_writable") == 0
        assert node.spools() == []
        node.stop()


SECRETS = {
    name: f"{name}-token-J7dQ2v-that-nobody-may-see" for name in ("reader", "writer", "boss")
}
RIGHTS = {
    "reader": frozenset({Right.READ}),
    "writer": frozenset({Right.WRITE}),
    "boss": frozenset(Right),
}
CLUSTER_SECRET = "cluster-secret-4Zp-that-nobody-may-see"


def _bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


def _environment() -> dict[str, str]:
    tokens = [Token.of(name, RIGHTS[name], text) for name, text in SECRETS.items()]
    return {"TIERCE_TOKENS": ",".join(map(str, tokens)), "TIERCE_CLUSTER_SECRET": CLUSTER_SECRET}


def _use_tokens(node: NodeProcess) -> None:
    """Ask for everything with every token, and see each right at work."""
    data = b"for those who may"
    blob = f"/v1/blobs/{Digest.of(data)}"
    assert call(node.address, "PUT", blob, data, _bearer("boss")).status == 201
    cases = {
        ("GET", blob): {"reader": 200, "writer": 403, "boss": 200},
        ("HEAD", blob): {"reader": 200, "writer": 403, "boss": 200},
        ("GET", "/v1/blobs"): {"reader": 200, "writer": 403, "boss": 200},
        ("GET", "/v1/status"): {"reader": 200, "writer": 403, "boss": 200},
        ("GET", "/metrics"): {"reader": 200, "writer": 403, "boss": 200},
        ("PUT", blob): {"reader": 403, "writer": 200, "boss": 200},
        ("POST", "/v1/blobs"): {"reader": 403, "writer": 201, "boss": 201},
        ("DELETE", blob): {"reader": 403, "writer": 403, "boss": 204},
        ("GET", "/v1/health/live"): {"reader": 200, "writer": 200, "boss": 200},
    }
    for (method, path), expected in cases.items():
        body = data if method in ("PUT", "POST") else None
        for name, code in expected.items():
            reply = call(node.address, method, path, body, _bearer(name))
            assert reply.status == code, (method, path, name)
        if path.startswith("/v1/health"):
            continue
        for wrong in (
            {},
            {"Authorization": "Bearer wrong-token-kT3"},
            {"Authorization": "Basic d3Jvbmc6d3Jvbmc="},
            {"Authorization": f"Bearer {Token.of('x', RIGHTS['boss'], SECRETS['boss'])}"},
        ):
            reply = call(node.address, method, path, body, wrong)
            assert reply.status == 401, (method, path, wrong)
            assert reply.headers["www-authenticate"].startswith("Bearer")
    with _expecting(node, 100) as wire:
        _assert_final_without_body(wire, 401)
    with _expecting(node, 100, **_bearer("reader")) as wire:
        _assert_final_without_body(wire, 403)


@pytest.mark.parametrize(("log_format", "workers"), [("text", 1), ("json", 2)])
def test_tokens_rule_and_no_secret_is_logged(tmp_path: Path, log_format: str, workers: int) -> None:
    with NodeProcess(
        tmp_path / "data",
        environment=_environment(),
        workers=workers,
        access_log=True,
        log_format=log_format,
        log_level="debug",
    ) as node:
        node.start()
        _use_tokens(node)
        command_lines = [" ".join(process.cmdline()) for process in node.family()]
        node.stop()
    said = node.log + node.stdout.read_text() + "\n".join(command_lines)
    hashes = [Token.of("x", RIGHTS["boss"], text).sha256.hex() for text in SECRETS.values()]
    wrong = ["wrong-token-kT3", "d3Jvbmc6d3Jvbmc="]
    for secret in [*SECRETS.values(), *hashes, *wrong, CLUSTER_SECRET]:
        assert secret not in said
    assert said.count("/v1/status") >= 7, "the access log is on"


def test_every_line_of_a_json_log_parses(tmp_path: Path) -> None:
    """Whatever happens: hostile paths, broken HTTP, a worker's death, a bad blob."""
    with NodeProcess(
        tmp_path / "data", workers=2, log_format="json", access_log=True, log_level="debug"
    ) as node:
        node.start()
        digest = put(node.address, b"x" * 100_000)
        for path in (
            "/v1/%0a%22%00%ff",
            "/" + "a" * 3000,
            "/v1/blobs/%E2%80%A8",
            "/v1/blobs?after=%22",
        ):
            call(node.address, "GET", path)
        for broken in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET\r\n\r\n",
            b"A / HTTP/9.9\r\n\r\n",
        ):
            with Wire(node.address) as wire:
                wire.send(broken)
                wire.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    wire.reply()
        name = digest.hex
        file = node.data / "files" / "blake3" / name[:2] / name[2:4] / name
        with file.open("r+b") as out:
            out.write(b"bad")
        assert get(node.address, digest).status == 404
        node.stop()
    records = [json.loads(line) for line in node.log.splitlines()]
    for record in records:
        assert {"time", "level", "logger", "role", "pid", "message"} <= record.keys()
    assert {record["role"] for record in records} >= {"worker-1", "worker-2"}
    served = [record for record in records if record["logger"] == "tierce.access"]
    assert {record["status"] for record in served} >= {201, 404}
    assert all(record["door"] == "native" and record["seconds"] >= 0 for record in served)


def test_a_text_log_has_one_line_for_each_record_however_hostile_the_path(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", access_log=True) as node:
        node.start()
        for path in ("/v1/%0aforged%20line", "/v1/%1b[31m", "/v1/%E2%80%A8"):
            assert call(node.address, "GET", path).status == 404
        node.stop()
    lines = node.log.split("\n")[:-1]
    assert all(line[:2] == "20" and " node[" in line for line in lines)
    assert "\x1b" not in node.log
