"""Hostile bytes on raw sockets. Whatever comes, the node answers 4xx or hangs up, and stays right.

Each example leaves the node as it was: it serves its blob, holds no unfinished upload, and nothing
has appeared in its data directory or beside it.
"""

import re
import string
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.doors.native.node import Node, node_in_thread

from tierce.core.digest import Digest
from tierce.testing.calls import Wire
from tierce.testing.processes import wait_for

KNOWN = b"the blob that is to survive it all" * 100
DIGEST = Digest.of(KNOWN, "sha256")
BODY = b"a body that nobody may find again"

_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n")
_EXPECTED_FILES = re.compile(
    r"data|data/(node\.toml|lock|lmdb|lmdb/(data|lock)\.mdb|tmp|quarantine|run|run/metrics)"
    r"|data/files(/sha256(/[0-9a-f]{2}(/[0-9a-f]{2}(/[0-9a-f]{64})?)?)?)?"
)
EXAMPLES = settings(max_examples=100, derandomize=True)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("hostile")
    with node_in_thread(home / "data", pack_limit_bytes=16) as running:
        running.put(KNOWN, "sha256")
        yield running
    assert unexpected(home) == set()


def unexpected(home: Path) -> set[str]:
    """What lies in the folder of the data directory, or in it, and has no business there."""
    found = {str(path.relative_to(home)) for path in home.rglob("*")}
    return {name for name in found if not _EXPECTED_FILES.fullmatch(name)}


def send(node: Node, data: bytes) -> list[int]:
    """Send bytes, close our side, and return the statuses of all answers."""
    answers = b""
    with node.wire() as wire:
        # The node may hang up before it has read all, and then resets the connection.
        with suppress(ConnectionError):
            wire.send(data)
        answers = drain(wire)
    return statuses(answers)


def drain(wire: Wire) -> bytes:
    """All that comes until the node hangs up, or has answered the probe that is sent behind."""
    found = b""
    probe = b"\r\n\r\nDELETE /end/of/example HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n"
    # Twice: the first may be taken for the body of what came before.
    with suppress(ConnectionError):
        wire.send(probe)
    wire.socket.settimeout(0.25)
    with suppress(ConnectionError, TimeoutError):
        while more := wire.socket.recv(1 << 16):
            found += more
    return found


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in _STATUS_LINE.findall(answers)]


def check(node: Node, found: list[int], *, refused: bool = True) -> None:
    """The answers are refusals, and the node is as it was."""
    for status in found:
        assert 400 <= status < 500 or (not refused and status < 300), found
    reply = node.call("GET", f"/v1/blobs/{DIGEST}")
    assert (reply.status, reply.body) == (200, KNOWN)
    wait_for(lambda: not any((node.data / "tmp").iterdir()), "uploads to be cleaned up")


def head(*lines: bytes, method: bytes = b"POST", path: bytes = b"/v1/blobs") -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path), b"Host: n", *lines, b"", b""])


@EXAMPLES
@given(st.binary(min_size=1, max_size=2000))
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
@example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(b"\0" * 20_000)
def test_random_bytes(target: Node, data: bytes) -> None:
    check(target, send(target, data))
