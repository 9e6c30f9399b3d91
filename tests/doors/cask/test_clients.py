"""The known clients of a Cask node, by what they check: a Go peer, and the front end Hakmes."""

import asyncio
import hashlib
import json
import random

import pytest
from tests.doors.cask.wire import KNOCK, RawAnswer, request, talk

from tierce.testing.serving import Served

GO = ("User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip")


async def go(url: str, method: str, target: str, *headers: str, body: bytes = b"") -> RawAnswer:
    async with asyncio.timeout(10), talk(url) as connection:
        await connection.send(request(method, target, *GO, *headers, body=body))
        return await connection.answer()


def go_form(content: bytes) -> tuple[str, bytes]:
    """A body as Go's multipart.Writer makes it, with a boundary of 60 hex digits."""
    boundary = random.Random(len(content)).randbytes(30).hex()
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file.dat"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + f"\r\n--{boundary}--\r\n".encode()
    )
    return f"Content-Type: multipart/form-data; boundary={boundary}", body


class Peer:
    """What a Cask node asks of another, and how it takes the answer."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def copy(self, key: str, content: bytes) -> bool:
        content_type, body = go_form(content)
        answer = await go(self._url, "POST", "/local/", KNOCK, content_type, body=body)
        return answer.status == 200 and answer.body.decode() == key

    async def has(self, key: str) -> bool:
        answer = await go(self._url, "HEAD", f"/local/{key}/", KNOCK)
        return answer.line.removeprefix("HTTP/1.1 ") == "200 OK"

    async def fetch(self, key: str) -> bytes | None:
        answer = await go(self._url, "GET", f"/local/{key}/", KNOCK)
        return answer.body if answer.line.removeprefix("HTTP/1.1 ") == "200 OK" else None


class Hakmes:
    """Stores chunks, and takes anything but the exact answers as a failure."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def store(self, content: bytes) -> str | None:
        content_type, body = go_form(content)
        answer = await go(self._url, "POST", "/", content_type, body=body)
        if answer.status != 200:
            return None
        found = json.loads(answer.body)
        return str(found["key"]) if found["success"] else None

    async def load(self, key: str) -> bytes | None:
        answer = await go(self._url, "GET", f"/file/{key}/")
        return answer.body if answer.line.removeprefix("HTTP/1.1 ") == "200 OK" else None


@pytest.mark.parametrize("size", [0, 1, 3000, 1 << 20])
async def test_a_peer_copies_checks_and_fetches(node: Served, size: int) -> None:
    peer = Peer(node.cask)
    content = random.Random(size).randbytes(size)
    key = f"sha1:{hashlib.sha1(content).hexdigest()}"
    assert not await peer.has(key)
    assert await peer.fetch(key) is None
    assert await peer.copy(key, content)
    assert await peer.copy(key, content)
    assert await peer.has(key)
    assert await peer.fetch(key) == content


async def test_a_peer_learns_that_a_node_takes_no_copies(read_only: Served, full: Served) -> None:
    for node in (read_only, full):
        assert not await Peer(node.cask).copy(f"sha1:{hashlib.sha1(b'x').hexdigest()}", b"x")


@pytest.mark.parametrize("size", [0, 1, 3000, 1 << 20])
async def test_hakmes_stores_and_loads_chunks(node: Served, size: int) -> None:
    hakmes = Hakmes(node.cask)
    content = random.Random(size).randbytes(size)
    key = await hakmes.store(content)
    assert key == f"sha1:{hashlib.sha1(content).hexdigest()}"
    assert await hakmes.load(key) == content


async def test_hakmes_learns_that_nothing_was_stored(read_only: Served, full: Served) -> None:
    for node in (read_only, full):
        assert await Hakmes(node.cask).store(b"x") is None


async def test_hakmes_learns_that_a_chunk_is_not_there(node: Served) -> None:
    assert await Hakmes(node.cask).load("sha1:" + 40 * "0") is None
