"""Talking to a dtfc node byte by byte, and what it is known to answer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.doors.cask.wire import RawAnswer, talk

from tierce.core.digest import Digest

HELLO = b"hello dtfc\n"
HASH = (
    "ac34e79f12a6bf28a85de374ce357d891b4653fbcbdc6260289219dd68e7ca1e"
    "d6d459a1b77a15d73f1790211fc26760e7c4c781884d31d53c7e55ce211bea9c"
)
DIGEST = Digest.parse(f"sha512:{HASH}")
UNKNOWN = "0" * 128
STORED = (
    f'{{"sha512":"{HASH}","filename":"foo.bin","length":11,'
    '"content_type":"application/octet-stream","stub":true}'
).encode()
DELETED = b'{"deleted":true,' + STORED.removeprefix(b"{")
NOT_FOUND = ("HTTP/1.1 404 Not Found", "text/plain; charset=utf-8", b"404 Not Found.\n")


class Dtfc:
    """A dtfc door, by its base URL. Each call has a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def call(
        self,
        method: str,
        target: str,
        *headers: str,
        body: bytes = b"",
        host: str = "127.0.0.1:8080",
    ) -> RawAnswer:
        """Send a request as it stands."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        if body or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body)}")
        async with talk(self.url) as connection:
            await connection.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            return await connection.answer()

    async def get(self, target: str = f"/{HASH}", *headers: str, **more: str) -> RawAnswer:
        return await self.call("GET", target, *headers, **more)  # type: ignore[arg-type]

    async def head(self, target: str = f"/{HASH}", *headers: str) -> RawAnswer:
        return await self.call("HEAD", target, *headers)

    async def delete(self, target: str = f"/{HASH}", *headers: str) -> RawAnswer:
        return await self.call("DELETE", target, *headers)

    async def put(self, name: str = "foo.bin", content: bytes = HELLO, *headers: str) -> RawAnswer:
        """Store a file, as ``curl -T`` does."""
        return await self.call("PUT", f"/{name}", *headers, body=content)


def hash_of(content: bytes) -> str:
    return Digest.of(content, "sha512").raw.hex()


def content_of(answer: RawAnswer) -> Mapping[str, Any]:
    """The JSON object of an answer."""
    assert answer.headers["content-type"] == "application/json"
    found: Mapping[str, Any] = json.loads(answer.body)
    return found


def in_tree(base: Path, hash_text: str = HASH) -> Path:
    """The directory that a dtfc program has for a hash, made."""
    pairs = [hash_text[at : at + 2] for at in range(0, 128, 2)]
    directory = base.joinpath(*pairs)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
