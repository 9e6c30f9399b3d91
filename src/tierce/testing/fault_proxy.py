"""A proxy between an HTTP client and a server on loopback, that can be told to misbehave.

What it does next stands in ``mode``, and may be changed at any time; it holds from the next request
(or connection, for REFUSE) on. ``only`` limits faults to requests of one method, ``times`` to so many;
``skip`` lets so many of them pass before.
"""

import asyncio
import contextlib
import enum
import re
from collections.abc import AsyncIterator
from typing import NamedTuple

_HEAD_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024
_FLIP_STEP_BYTES = 4099
_S3_ERROR = b"<Error><Code>%s</Code><Message>told</Message></Error>"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Mode(enum.Enum):
    """What becomes of a request."""

    NONE = "none"
    REFUSE = "refuse"
    """The connection is reset before anything is answered."""
    ERROR = "error"
    """It is answered with ``status``, and ``code`` in S3's words, and never reaches the server."""
    LATE_ERROR = "late error"
    """The server gets it and does it; the client is told ``status``."""
    STALL = "stall"
    """It is never answered."""
    STALL_BODY = "stall body"
    """The answer stops after ``cut_bytes`` of its body."""
    CUT = "cut"
    """The connection is closed after ``cut_bytes`` of the answer's body."""
    WRONG_LENGTH = "wrong length"
    """The answer announces ``cut_bytes`` as its body's length, and ends there, in good order."""
    FLIP = "flip"
    """One bit of the answer's body is wrong, another one each time."""
    SLOW = "slow"
    """The answer's body comes at ``bytes_per_second``."""


class _Message(NamedTuple):
    head: bytes
    length: int


class FaultProxy:
    """Counts the ``requests`` that came, as (method, target), and those it did harm to."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.mode = Mode.NONE
        self.status = 503
        self.code = ""
        self.retry_after_seconds = 0
        self.skip = 0
        self.cut_bytes = 1000
        self.bytes_per_second = 100_000
        self.only = ""
        self.times = -1
        self.requests: list[tuple[str, str]] = []
        self.harmed = 0
        self.endpoint = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        """Listen on a free port of loopback, told by ``endpoint``, inside the block."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()

    def harm(self, mode: Mode, *, only: str = "", times: int = -1, skip: int = 0) -> None:
        """Misbehave from now on: for one method, if ``only``, and so many ``times``; -1: always."""
        self.mode, self.only, self.times, self.skip = mode, only, times, skip

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on requests, each over a connection of its own, until one is cut."""
        try:
            while await self._one(client, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # either side has gone
        finally:
            writer.transport.abort() if self.mode is Mode.REFUSE else writer.close()

    async def _one(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _head(client)
        method, target, _ = request.head.split(b" ", 2)
        self.requests.append((method.decode(), target.decode()))
        mode = self._next_mode(method.decode())
        if mode is Mode.REFUSE:
            return False
        if mode is Mode.STALL:
            await asyncio.Event().wait()
        if mode is Mode.ERROR:
            await client.readexactly(request.length)
            return await self._fail(writer, method)
        server, to_server = await asyncio.open_connection(
            "127.0.0.1", self._server_port, limit=_HEAD_BYTES
        )
        try:
            to_server.write(request.head)
            await _copy(client, to_server, request.length)
            answer = await _head(server)
            length = 0 if method == b"HEAD" else answer.length
            if mode is Mode.LATE_ERROR:
                await server.readexactly(length)
                return await self._fail(writer, method)
            if mode is Mode.WRONG_LENGTH and method == b"HEAD":
                mode = Mode.NONE  # it has no body to be cut
            return await self._answer(server, writer, answer._replace(length=length), mode)
        finally:
            to_server.close()

    async def _answer(
        self,
        server: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: _Message,
        mode: Mode,
    ) -> bool:
        head, length = answer
        is_short = mode in (Mode.CUT, Mode.STALL_BODY, Mode.WRONG_LENGTH)
        sent = min(length, self.cut_bytes) if is_short else length
        if mode is Mode.WRONG_LENGTH:
            head = _LENGTH.sub(b"\r\nContent-Length: %d" % sent, head)
        writer.write(head)
        if mode is Mode.SLOW:
            for at in range(0, sent, self.bytes_per_second // 20):
                await _copy(server, writer, min(self.bytes_per_second // 20, sent - at))
                await asyncio.sleep(0.05)
        elif mode is Mode.FLIP and sent:
            body = bytearray(await server.readexactly(sent))
            body[self.harmed * _FLIP_STEP_BYTES % sent] ^= 1
            writer.write(body)
        else:
            await _copy(server, writer, sent)
        await writer.drain()
        if mode is Mode.STALL_BODY and sent < length:
            await asyncio.Event().wait()
        return mode is not Mode.CUT

    async def _fail(self, writer: asyncio.StreamWriter, method: bytes) -> bool:
        body = _S3_ERROR % self.code.encode() if self.code and method != b"HEAD" else b""
        wait = b"Retry-After: %d\r\n" % self.retry_after_seconds
        writer.write(
            b"HTTP/1.1 %d Fault\r\n%sContent-Length: %d\r\n\r\n%s"
            % (self.status, wait if self.retry_after_seconds else b"", len(body), body)
        )
        await writer.drain()
        return True

    def _next_mode(self, method: str) -> Mode:
        if self.mode is Mode.NONE or self.times == 0 or self.only not in ("", method):
            return Mode.NONE
        if self.skip:
            self.skip -= 1
            return Mode.NONE
        self.times -= 1 if self.times > 0 else 0
        self.harmed += 1
        return self.mode


async def _head(reader: asyncio.StreamReader) -> _Message:
    """A message up to its body, and the length of that in bytes. Chunked bodies are not for it."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert not _CHUNKED.search(head), "this proxy knows bodies with a Content-Length only"
    length = _LENGTH.search(head)
    return _Message(head, int(length[1]) if length else 0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    while size > 0:
        piece = await reader.readexactly(min(size, _PIECE_BYTES))
        writer.write(piece)
        await writer.drain()
        size -= len(piece)
