"""Talking to a Cask node byte by byte: requests written out, answers kept as they came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit

SECRET = "not-a-real-secret"
KNOCK = f"X-Cask-Cluster-Secret: {SECRET}"
BOUNDARY = "------------------------d74496d66958873e"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"

HELLO = b"hello cask\n"
HELLO_KEY = "sha1:bec6a3ef4770a51ba1feb4d41e7348ab43ac119a"
ONLY = b"only here\n"
ONLY_KEY = "sha1:9c760b1252e153ca044d0a1fc66328708fb1a698"
EMPTY_KEY = "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"
UNKNOWN_KEY = "sha1:" + 40 * "0"


class RawAnswer(NamedTuple):
    """An answer: its first line, its headers by their names in lower case, and all bytes after."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    @property
    def text(self) -> tuple[str, str, bytes]:
        """What identifies a plain answer."""
        return self.line, self.headers["content-type"], self.body


class Talk:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Say that no more is sent."""
        self._writer.write_eof()

    async def head(self) -> tuple[str, dict[str, str]]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return first, {name.lower(): value for name, value in pairs}

    async def rest(self) -> bytes:
        """All that comes until the connection ends."""
        return await self._reader.read()

    async def answer(self) -> RawAnswer:
        """An answer on a connection that ends with it."""
        line, headers = await self.head()
        return RawAnswer(line, headers, await self.rest())


@contextlib.asynccontextmanager
async def talk(url: str) -> AsyncIterator[Talk]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """A request after which the connection ends."""
    lines = [f"{method} {target} HTTP/1.1", "Host: cask", "Connection: close", *headers]
    if method in ("POST", "PUT") and not any("Transfer-Encoding" in each for each in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def form(content: bytes, field: str = "file", name: str = "hello.txt") -> bytes:
    """A body as curl sends it for ``-F FIELD=@NAME``."""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        f"Content-Type: text/plain\r\n\r\n".encode()
        + content
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


async def ask(url: str, method: str, target: str, *headers: str, body: bytes = b"") -> RawAnswer:
    """One request on a connection of its own."""
    async with talk(url) as connection:
        await connection.send(request(method, target, *headers, body=body))
        return await connection.answer()


async def post(url: str, content: bytes, target: str = "/", *headers: str) -> RawAnswer:
    """Upload a file."""
    return await ask(url, "POST", target, FORM, *headers, body=form(content))


def success(key: str) -> bytes:
    return f'{{"key":"{key}","success":true}}'.encode()


def failure(key: str) -> bytes:
    return f'{{"key":"{key}","success":false}}'.encode()
