"""Hostile bytes on raw sockets. Whatever comes, the node answers 4xx or hangs up, and stays right.

After each test the node still serves its blob and holds no other, no request was a failure of the
node's own, nothing was logged as an error, and nothing has appeared in its data directory or beside
it. An answer may be lost when the client hangs up first, so failures are looked for in the node's
metrics as well as on the wire.
"""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tests.doors.native.node import Node, node_in_thread

from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.limits import HEADER_LINE_BYTES, HEADERS_COUNT
from tierce.testing.calls import Wire
from tierce.testing.processes import wait_for

KNOWN = b"the blob that is to survive it all" * 100
DIGEST = Digest.of(KNOWN, "sha256")
BODY = b"a body that nobody may find again, long enough to be spooled to a file"
BLOB_OF_BODY = f"/v1/blobs/{Digest.of(BODY)}".encode()
NO_BLOB = f"/v1/blobs/{Digest.of(b'something else')}".encode()
CLOSE = b"Connection: close"

_STATUS_LINE = re.compile(rb"^HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n", re.MULTILINE)
_EXPECTED_FILES = re.compile(
    r"data|data/(node\.toml|lock|lmdb|lmdb/(data|lock)\.mdb|tmp|quarantine|members|run|run/(metrics|view|epoch))"
    r"|data/files(/sha256(/[0-9a-f]{2}(/[0-9a-f]{2}(/[0-9a-f]{64})?)?)?)?"
)
EXAMPLES = settings(
    max_examples=100,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Bytes that may stand in a header's value without ending it.
VALUES = st.binary(max_size=200).map(lambda raw: re.sub(rb"[\r\n\0]", b"", raw))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("hostile")
    with node_in_thread(home / "data", pack_limit_bytes=16) as running:
        running.put(KNOWN, "sha256")
        yield running


@pytest.fixture(autouse=True)
def unharmed(target: Node, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    failures = failed_requests(target)
    yield
    wait_for(lambda: not any((target.data / "tmp").iterdir()), "uploads to be cleaned up")
    reply = target.call("GET", f"/v1/blobs/{DIGEST}")
    assert (reply.status, reply.body) == (200, KNOWN)
    entry = {"digest": str(DIGEST), "size": len(KNOWN)}
    assert target.call("GET", "/v1/blobs").json == {"blobs": [entry], "next": None}
    assert unexpected(target.data.parent) == set()
    assert failed_requests(target) == failures
    assert not [each for each in caplog.get_records("call") if each.levelno >= logging.ERROR]


def failed_requests(node: Node) -> float:
    """How many requests the node has answered with a failure of its own."""
    return sum(
        sample.value
        for sample in node.samples()
        if sample.name == "tierce_requests_total" and sample.labels["status"].startswith("5")
    )


def unexpected(home: Path) -> set[str]:
    """What lies in the folder of the data directory, or in it, and has no business there."""
    found = {str(path.relative_to(home)) for path in home.rglob("*")}
    return {name for name in found if not _EXPECTED_FILES.fullmatch(name)}


def head(*lines: bytes, method: bytes = b"POST", path: bytes = b"/v1/blobs") -> bytes:
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, path), b"Host: n", *lines, b"", b""])


def send(node: Node, data: bytes, *, hang_up: bool = False) -> list[int]:
    """Send bytes, and return the statuses of all answers until the node ends the connection.

    With ``hang_up`` we end our half first: then the node does not wait for the rest.
    """
    with node.wire() as wire:
        # The node may end the connection before it has read all.
        with suppress(ConnectionError):
            wire.send(data)
        return rest(wire, hang_up=hang_up)


def rest(wire: Wire, *, hang_up: bool) -> list[int]:
    """The statuses of all answers that still come until the node ends the connection."""
    found = b""
    if hang_up:
        with suppress(OSError):  # it may have ended already
            wire.socket.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):
        while more := wire.socket.recv(1 << 16):
            found += more
    return [int(status) for status in _STATUS_LINE.findall(found)]


def refused(found: list[int]) -> bool:
    return all(400 <= status < 500 for status in found)


@EXAMPLES
@given(st.binary(min_size=1, max_size=2000))
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
@example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(b"\0" * 20_000)
@example(b"\r\n" * 10_000)
def test_random_bytes(target: Node, data: bytes) -> None:
    assert refused(send(target, data, hang_up=True))


@EXAMPLES
@given(st.data())
def test_a_request_with_bytes_changed(target: Node, data: st.DataObject) -> None:
    lines = (b"Range: bytes=0-9,20-", b'If-Match: "x", *', b"Content-Length: 3", CLOSE)
    request = bytearray(head(*lines, method=b"GET", path=b"/v1/blobs/" + str(DIGEST).encode()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(request) - 1))
        request[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert all(status < 500 for status in send(target, bytes(request) + b"abc", hang_up=True))


@EXAMPLES
@given(
    name=st.sampled_from([b"x", b"Host", b"Range", b"If-None-Match", b"Authorization", b"Cookie"]),
    over=st.integers(1, 30_000),
    ended=st.booleans(),
)
def test_giant_header_lines(target: Node, name: bytes, over: int, ended: bool) -> None:
    line = name + b": " + b"v" * (HEADER_LINE_BYTES + over)
    request = head(line) if ended else b"GET / HTTP/1.1\r\n" + line
    found = send(target, request)
    assert found in ([431], [400], []), found


@EXAMPLES
@given(st.integers(HEADERS_COUNT + 1, 5000), st.sampled_from([b"x: y", b"x%d: y", b"a:"]))
def test_too_many_headers(target: Node, count: int, line: bytes) -> None:
    lines = [line % number if b"%d" in line else line for number in range(count)]
    assert send(target, head(*lines, method=b"GET", path=b"/")) in ([431], [])


@EXAMPLES
@given(st.binary(min_size=1, max_size=30).filter(lambda raw: not raw.isspace()))
@example(b"get")
@example(b"GETGET")
@example(b"G\0T")
@example(b"MKCOL")
@example(b"CONNECT")
def test_bad_methods(target: Node, method: bytes) -> None:
    assume(method.strip() not in (b"GET", b"HEAD"))
    assert refused(send(target, head(CLOSE, method=method, path=b"/v1/status"), hang_up=True))


@EXAMPLES
@given(st.text(st.sampled_from("HTTP/0123456789. x"), max_size=12).map(str.encode))
@example(b"HTTP/0.9")
@example(b"HTTP/2.0")
@example(b"HTTP/1.10")
@example(b"http/1.1")
@example(b"")
def test_bad_versions(target: Node, version: bytes) -> None:
    assume(version.strip() not in (b"HTTP/1.0", b"HTTP/1.1"))
    found = send(target, b"GET /nowhere " + version + b"\r\nHost: n\r\n\r\n", hang_up=True)
    assert refused(found)


@EXAMPLES
@given(missing=st.integers(1, 1 << 40), sent=st.integers(0, len(BODY)))
def test_a_body_shorter_than_its_length_stores_nothing(
    target: Node, missing: int, sent: int
) -> None:
    length = b"Content-Length: %d" % (sent + missing)
    found = send(target, head(length, method=b"POST") + BODY[:sent], hang_up=True)
    assert refused(found)


@EXAMPLES
@given(st.binary(min_size=1, max_size=300), st.booleans())
@example(head(CLOSE, method=b"DELETE", path=NO_BLOB), True)
def test_bytes_behind_a_body_are_a_request_or_an_error(
    target: Node, stray: bytes, together: bool
) -> None:
    """The body ends where its length says, so a digest mismatch is answered whatever follows."""
    first = head(b"Content-Length: %d" % len(BODY), method=b"PUT", path=NO_BLOB) + BODY
    with target.wire() as wire:
        wire.send(first + stray if together else first)
        # A parser that sees both at once may refuse both.
        assert wire.reply().status in ((422, 400) if together else (422,))
        with suppress(ConnectionError):
            wire.send(b"" if together else stray)
        assert refused(rest(wire, hang_up=True))


LENGTHS = st.one_of(
    VALUES,
    st.integers(max_value=-1).map(lambda number: b"%d" % number),
    st.integers(min_value=1 << 63).map(lambda number: b"%d" % number),
    st.sampled_from(
        [b"+5", b"5,5", b"5, 5", b"5 5", b"0x5", b"5.0", b"1e1", b"5;", b'"5"', b"\xd9\xa5", b"-0"]
    ),
)


@EXAMPLES
@given(LENGTHS)
def test_a_content_length_that_is_none(target: Node, length: bytes) -> None:
    # An empty one is taken for zero, and some numbers just are right.
    assume((length.strip(b" \t") and not length.strip(b" \t").isdigit()) or len(length) > 18)
    request = head(b"Content-Length: " + length, CLOSE, method=b"PUT", path=BLOB_OF_BODY)
    assert refused(send(target, request + BODY, hang_up=True))


@EXAMPLES
@given(st.lists(st.integers(0, 200), min_size=2, max_size=4))
def test_several_content_lengths(target: Node, lengths: list[int]) -> None:
    lines = [b"Content-Length: %d" % length for length in lengths]
    assert send(target, head(*lines, method=b"PUT", path=BLOB_OF_BODY) + BODY) == [400]


@EXAMPLES
@given(
    length=st.integers(0, 200),
    coding=st.sampled_from([b"chunked", b"Chunked", b"gzip, chunked", b"identity", b"\x0bchunked"]),
    first=st.booleans(),
)
def test_content_length_and_transfer_encoding(
    target: Node, length: int, coding: bytes, first: bool
) -> None:
    """The classic of request smuggling: two readers who disagree on where a body ends."""
    lines = [b"Content-Length: %d" % length, b"Transfer-Encoding: " + coding]
    request = head(*(lines if first else lines[::-1]), method=b"PUT", path=BLOB_OF_BODY)
    assert send(target, request + b"46\r\n" + BODY + b"\r\n0\r\n\r\n") == [400]


@EXAMPLES
@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(
        [b"5\r\nabcde\r\n", b"0\r\n", b"0\r\n\r\n", b"\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n",
         b"5;x=y\r\nabcde\r\n", b"5\nabcde\n", b"0005\r\nabcde\r\n", b"0\r\nTrailer: x\r\n\r\n"]
    )), max_size=8),
    st.booleans(),
)  # fmt: skip
def test_chunked_garbage(target: Node, pieces: list[bytes], together: bool) -> None:
    start = head(b"Transfer-Encoding: chunked", method=b"PUT", path=NO_BLOB)
    with target.wire() as wire:
        with suppress(ConnectionError):
            for piece in [start + b"".join(pieces)] if together else [start, *pieces]:
                wire.send(piece)
        assert refused(rest(wire, hang_up=True))


STEPS = st.sampled_from(
    ["..", ".", "", "%2e%2e", "%2E.", "%00", "%2f", "%5c", "\\", "..%2f..", "~", "%c0%ae", "%", "%zz",
     "v1", "blobs", "etc", "passwd", "files", "tmp", "node.toml", "%252e%252e", "a" * 3000, ";", "*"]
)  # fmt: skip
PREFIXES = st.sampled_from(
    ["", "/", "//", "/v1/", "/v1/blobs/", "/v1/blobs/sha256:", "/v1/blobs/../"]
)
PATHS = st.builds(
    lambda prefix, steps: (prefix + "/".join(steps)).encode(),
    PREFIXES,
    st.lists(STEPS, min_size=1, max_size=6),
)


@EXAMPLES
@given(PATHS, st.sampled_from([b"GET", b"PUT", b"DELETE", b"HEAD"]))
@example(b"/v1/blobs/../../../../etc/passwd", b"GET")
@example(b"/v1/blobs/\0", b"GET")
@example(b"/v1/blobs/blake3:" + b"../" * 22, b"PUT")
@example(b"/v1/blobs/" + b"a" * 100_000, b"GET")
def test_paths_that_try_to_escape(target: Node, path: bytes, method: bytes) -> None:
    lines = [CLOSE, b"Content-Length: %d" % len(BODY)] if method == b"PUT" else [CLOSE]
    found = send(target, head(*lines, method=method, path=path) + BODY * (method == b"PUT"))
    if path.split(b"?")[0] in (b"/", b"/v1/blobs", b"/v1/blobs/../v1/blobs") and method != b"PUT":
        return
    assert refused(found), found


DIGESTS = st.builds(
    lambda name, digits: quote_from_bytes(f"{name}:{digits}".encode("utf-8", "surrogatepass")),
    st.one_of(st.sampled_from([*ALGORITHMS, "SHA256", "md5", "", "sha256:sha256"]), st.text(max_size=9)),
    st.one_of(
        st.text(st.sampled_from("0123456789abcdefABCDEF g./\\\0\n\u0660"), max_size=130),
        st.sampled_from([32, 40, 64, 128]).map(lambda count: "/" * count),
        st.text(max_size=64),
    ),
)  # fmt: skip


@EXAMPLES
@given(DIGESTS, st.sampled_from([b"GET", b"PUT", b"DELETE"]))
def test_hostile_digests(target: Node, digest: str, method: bytes) -> None:
    length = b"Content-Length: %d" % (len(BODY) if method == b"PUT" else 0)
    request = head(CLOSE, length, method=method, path=b"/v1/blobs/" + digest.encode())
    (status,) = send(target, request + (BODY if method == b"PUT" else b""))
    assert status in (400, 404)


QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["limit", "after", "algorithm", "x", "limit[]", ""]),
        st.one_of(
            st.binary(max_size=30), st.sampled_from([b"1", b"sha256:", b"99999", b"=", b"&"])
        ),
        st.booleans(),
    ),
    max_size=5,
)


@EXAMPLES
@given(QUERIES, st.sampled_from([b"GET", b"POST"]))
def test_query_garbage(target: Node, query: list[tuple[str, bytes, bool]], method: bytes) -> None:
    printable = re.compile(rb"[^\x21-\x7e]|#")
    parts = [
        f"{name}={quote_from_bytes(value)}".encode() if quoted
        else name.encode() + b"=" + printable.sub(b"?", value)
        for name, value, quoted in query
    ]  # fmt: skip
    path = b"/v1/blobs?" + b"&".join(parts)
    # An upload that is refused in any case, so that none of them succeeds.
    lines = [b"Content-Length: 3", b"Repr-Digest: sha-256=:AAAA:"] if method == b"POST" else []
    (status,) = send(
        target, head(CLOSE, *lines, method=method, path=path) + b"abc" * len(lines[:1])
    )
    assert status == 400 or (method == b"GET" and status == 200)


@EXAMPLES
@given(
    st.sampled_from(
        [b"Range", b"If-Range", b"If-Match", b"If-None-Match", b"Authorization", b"Accept", b"Expect",
         b"Connection", b"Upgrade", b"Cookie", b"Content-Type", b"Accept-Encoding", b"X"]
    ),
    VALUES,
)  # fmt: skip
def test_garbage_in_headers_of_a_read(target: Node, name: bytes, value: bytes) -> None:
    path = b"/v1/blobs/" + str(DIGEST).encode()
    found = send(target, head(name + b": " + value, CLOSE, method=b"GET", path=path))
    assert all(status < 500 for status in found)
    assert len(found) <= 1


@EXAMPLES
@given(
    st.sampled_from(
        [b"Content-Digest", b"Repr-Digest", b"Content-Encoding", b"Expect", b"If-Match"]
    ),
    VALUES,
)
def test_garbage_in_headers_of_an_upload(target: Node, name: bytes, value: bytes) -> None:
    lines = (b"Content-Length: %d" % len(BODY), name + b": " + value, CLOSE)
    found = send(target, head(*lines, method=b"PUT", path=NO_BLOB) + BODY)
    assert refused(found)
    assert len(found) <= 1
