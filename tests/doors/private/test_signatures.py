"""The private door hears only who knows the secret, once, and says why in its log and metrics."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
from prometheus_client import REGISTRY
from tests.doors.private.serving import Served, serving, signed_header

from tierce.cluster.signing import HEADER
from tierce.core import codec
from tierce.core.digest import Digest
from tierce.node.http_transport import Refusal

PATH = f"/blobs/{Digest.of(b'x')}"
NONCE = "0123456789abcdef"


class Reply(NamedTuple):
    """A raw answer."""

    status: int
    head: bytes
    refusal: Refusal | None


async def raw(
    served: Served,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request as it is, with the headers given and no others but those of HTTP."""
    host, port = served.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body and not any(line.startswith("Transfer-Encoding") for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(20):
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status = int(head.split()[1])
    return Reply(
        status, head, codec.decode(answer, Refusal, "refusal") if status >= 400 and answer else None
    )


def count(reason: str) -> float:
    name = "tierce_refused_requests_total"
    return REGISTRY.get_sample_value(name, {"reason": reason}) or 0.0


async def test_a_right_request_is_answered_and_its_repetition_is_not() -> None:
    async with serving() as served:
        before = count("replayed")
        headers = {HEADER: signed_header("POST", "/gossip", time.time(), NONCE, b"hello")}
        replies = [await raw(served, "POST", "/gossip", b"hello", headers) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 403, 403]
        assert replies[1].refusal is not None
        assert replies[1].refusal.message == "this request came before"
        assert len(served.service.calls) == 1
        assert count("replayed") - before == 2


@pytest.mark.parametrize(
    ("reason", "header"),
    [
        ("missing", lambda now: None),
        ("malformed", lambda now: "nonsense"),
        ("wrong", lambda now: signed_header("POST", "/control", now, NONCE, b"hello")),
        ("wrong", lambda now: signed_header("PUT", "/gossip", now, NONCE, b"hello")),
        ("wrong", lambda now: signed_header("POST", "/gossip?x", now, NONCE, b"hello")),
        ("wrong", lambda now: signed_header("POST", "/gossip", now, NONCE, b"jello")),
        ("wrong", lambda now: signed_header("POST", "/gossip", now, NONCE)),
        ("clock", lambda now: signed_header("POST", "/gossip", now - 3600, NONCE, b"hello")),
    ],
)
async def test_a_request_that_is_not_rightly_signed_is_refused_and_counted(
    reason: str, header: Callable[[float], str | None]
) -> None:
    async with serving() as served:
        before = count(reason)
        text = header(time.time())
        headers = {} if text is None else {HEADER: text}
        reply = await raw(served, "POST", "/gossip", b"hello", headers)
        assert reply.status == 403
        assert reply.refusal is not None
        assert reply.refusal.error == "Forbidden"
        assert HEADER.encode() not in reply.head
        assert served.service.calls == []
        assert count(reason) - before == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_blobs_ask_for_a_signature_too(method: str) -> None:
    async with serving() as served:
        assert (await raw(served, method, PATH)).status == 403
        assert served.service.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/gossip", 405), ("POST", PATH, 405), ("DELETE", PATH, 405),
        ("POST", "/blobs", 404),
    ],
)  # fmt: skip
async def test_there_is_no_other_page(method: str, path: str, status: int) -> None:
    async with serving() as served:
        assert (await raw(served, method, path)).status == status
        assert served.service.calls == []


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/blobs/nonsense", 400),
        ("GET", f"{PATH}?start=x", 400),
        ("GET", f"{PATH}?start=-1", 400),
        ("GET", f"{PATH}?start=0&stop=" + "9" * 20, 400),
        ("GET", f"{PATH}?start=2&stop=1", 400),
        ("PUT", "/blobs/nonsense", 400),
    ],
)
async def test_a_signed_request_that_makes_no_sense_is_refused(
    method: str, target: str, status: int
) -> None:
    async with serving() as served:
        served.service.blobs[PATH] = b"x"
        headers = {HEADER: signed_header(method, target, time.time(), NONCE)}
        reply = await raw(served, method, target, headers=headers)
        assert reply.status == status
        assert HEADER.encode() in reply.head


async def test_an_upload_without_a_size_is_refused() -> None:
    async with serving() as served:
        header = signed_header("PUT", PATH, time.time(), NONCE, b"x")
        headers = {HEADER: header, "Transfer-Encoding": "chunked"}
        reply = await raw(served, "PUT", PATH, b"1\r\nx\r\n0\r\n\r\n", headers)
        assert reply.status == 400
        assert served.service.calls == []


async def test_head_of_a_blob_has_no_body() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = b"x"
        headers = {HEADER: signed_header("HEAD", PATH, time.time(), NONCE)}
        reply = await raw(served, "HEAD", PATH, headers=headers)
        assert reply.status == 200
        assert b"Tierce-Blob-Size: 1" in reply.head


async def test_the_log_tells_of_refused_requests_but_not_of_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as served:
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                await raw(served, "POST", "/gossip", b"hello")
    (record,) = (each for each in caplog.records if "private door" in each.message)
    assert record.levelno == logging.WARNING
    assert "127.0.0.1" in record.message
