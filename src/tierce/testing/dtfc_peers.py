"""dtfc nodes as peers see them, which fail on demand.

Written from the wire sheet of dtfc alone, with sockets of its own and none of Tierce's code, so that
what the loading of files believes of other nodes is checked by something that doesn't share it. As the
program, it never looks whether bytes fit their hash. It has no peers of its own.
"""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tierce.testing.in_thread import held_in_thread

_PIECE_BYTES = 64 * 1024
_MISSING = "404 Not Found."
_LOADING = "Service Unavailable. Try again in 2 minutes."
_DATE = "Sat, 21 Nov 2015 05:26:01 GMT"


@dataclass
class Faults:
    """What goes wrong, until it is set back. Counts are in bytes of the body of one answer.

    ``stops_after``: the connection breaks off there; with ``stops_once``, only the first time.
    ``hangs_after``: nothing more comes from there on. ``claims_more``: so many bytes more than it has
    are announced (fewer, if below zero: what is beyond is left out). ``pads_with``: that many bytes too
    many, which are announced. ``tells_no_length``: a body in chunks. ``never_ends``: a body in chunks
    without an end, after the right bytes.
    """

    gives_wrong_bytes: bool = False
    stops_after: int | None = None
    stops_once: bool = False
    hangs_after: int | None = None
    claims_more: int = 0
    pads_with: int = 0
    tells_no_length: bool = False
    never_ends: bool = False
    has_no_ranges: bool = False
    answers_after_seconds: float = 0.0
    pause_seconds: float = 0.0
    answers_500: bool = False
    is_loading: bool = False
    hangs: bool = False


class Request(NamedTuple):
    """What was asked. ``headers`` have lower-case names; ``body`` is what came of it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    is_file: bool = False


class _StoppedError(Exception):
    """The peer is gone in the middle of something."""


class _HangsError(Exception):
    """Nothing more comes of the peer."""


@dataclass
class DtfcPeer:
    """One node. ``url`` is set while it serves; ``files`` and ``names`` are by hash, in hex.

    ``deleted`` are the hashes with a marker. ``sent_bytes`` are those of the bodies of files.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    faults: Faults = field(default_factory=Faults)
    seen: list[Request] = field(default_factory=list)
    sent_bytes: int = 0
    open_connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def has(self, data: bytes, name: str = "foo.bin") -> "DtfcPeer":
        """Have a file; returns the peer itself."""
        hashed = hashlib.sha512(data).hexdigest()
        self.files[hashed], self.names[hashed] = data, name
        return self

    def asked(self, method: str) -> list[str]:
        """The paths of the requests of a method so far."""
        return [each.path for each in self.seen if each.method == method]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, in a task of its own."""
        task = asyncio.ensure_future(self._converse(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            while True:
                request = await _read(reader)
                self.seen.append(request)
                await asyncio.sleep(self.faults.answers_after_seconds)
                await self._send(writer, request, self._answer(request))
                if request.method == "HEAD":
                    break
        except _HangsError:
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until the other side has had enough
        except (_StoppedError, asyncio.IncompleteReadError, ConnectionError):
            pass  # it broke off, as was planned here or decided there
        finally:
            self.open_connections -= 1
            writer.close()

    def _answer(self, request: Request) -> _Answer:
        if self.faults.answers_500:
            return _text(500, "Internal server error.")
        if request.path == "/health.html" and request.method == "GET":
            return _Answer(200, b"All systems go.")
        if request.path == "/refreshpeers.html" and request.method == "PUT":
            return _Answer(200, b"")
        if request.method == "GET" and _is_redirected(request):
            address = f"https://{request.headers['host']}{request.path}"
            return _Answer(301, b"", (("Location", address),))
        first, _, option = request.path.removeprefix("/").partition("/")
        hashed = "".join(re.findall("[0-9a-f]{2}", first))
        if request.method == "PUT" and not option:
            return self._put(first, request.body)
        if request.method == "DELETE" and not option:
            return self._delete(first, hashed)
        if request.method == "HEAD" and not option:
            return _Answer(200 if hashed in self.files else 404, b"")
        if request.method != "GET" or "/" in option or not hashed or hashed in self.deleted:
            return _text(404, _MISSING)
        if self.faults.is_loading:
            return _text(503, _LOADING, ("Retry-After", "120"))
        if hashed not in self.files:
            return _text(404, _MISSING)
        return self._get(hashed, request.headers.get("range"))

    def _put(self, name: str, data: bytes) -> _Answer:
        self.has(data, name)
        content = {
            "sha512": hashlib.sha512(data).hexdigest(),
            "filename": name,
            "length": len(data),
            "content_type": "application/octet-stream",
            "stub": True,
        }
        return _Answer(200, json.dumps(content, separators=(",", ":")).encode())

    def _delete(self, named: str, hashed: str) -> _Answer:
        self.deleted.add(hashed)
        if hashed not in self.files:
            return _text(404, _MISSING)
        content = {
            "deleted": True,
            "sha512": named,
            "filename": self.names[hashed],
            "length": len(self.files[hashed]),
            "content_type": "application/octet-stream",
            "stub": True,
        }
        return _Answer(200, json.dumps(content, separators=(",", ":")).encode())

    def _get(self, hashed: str, asked: str | None) -> _Answer:
        data = self.files[hashed]
        if self.faults.gives_wrong_bytes:
            data = data[: len(data) // 2] + bytes(each ^ 255 for each in data[len(data) // 2 :])
        data += b"x" * self.faults.pads_with
        headers = [
            ("Content-Disposition", f'attachment; filename="{self.names[hashed]}"'),
            ("Content-Type", "application/octet-stream"),
            ("Last-Modified", _DATE),
        ]
        if self.faults.has_no_ranges:
            return _Answer(200, data, tuple(headers), True)
        headers.append(("Accept-Ranges", "bytes"))
        found = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", asked or "")
        if found is None:
            return _Answer(200, data, tuple(headers), True)
        start, stop = int(found[1]), min(int(found[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return _Answer(416, b"", (*headers, ("Content-Range", f"bytes */{len(data)}")))
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}"))
        return _Answer(206, data[start:stop], tuple(headers), True)

    async def _send(self, writer: asyncio.StreamWriter, request: Request, answer: _Answer) -> None:
        if self.faults.hangs:
            raise _HangsError
        status, body, headers, is_file = answer
        faults = self.faults if is_file else Faults()
        is_chunked = faults.tells_no_length or faults.never_ends
        told = max(0, len(body) + faults.claims_more)
        lines = [f"HTTP/1.1 {status} It", *(f"{name}: {value}" for name, value in headers)]
        if request.method == "HEAD":
            lines.append("Connection: close")
        else:
            lines.append("Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {told}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        body = body[:told]
        if faults.stops_after is not None:
            await self._send_body(writer, body[: faults.stops_after], is_chunked)
            if faults.stops_once:
                self.faults.stops_after = None
            raise _StoppedError
        if faults.hangs_after is not None:
            await self._send_body(writer, body[: faults.hangs_after], is_chunked)
            raise _HangsError
        await self._send_body(writer, body, is_chunked)
        while faults.never_ends:
            await self._send_body(writer, bytes(_PIECE_BYTES), is_chunked)
        if is_chunked:
            writer.write(b"0\r\n\r\n")
        if told > len(body):
            raise _StoppedError
        await writer.drain()

    async def _send_body(self, writer: asyncio.StreamWriter, body: bytes, chunked: bool) -> None:
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.sent_bytes += len(piece)
            await writer.drain()
            await asyncio.sleep(self.faults.pause_seconds)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers: dict[str, str] = {}
    for line in filter(None, head[1:]):
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), value.strip())
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def _is_redirected(request: Request) -> bool:
    """Only one name of this machine counts as local: the brackets and ``localhost`` do not."""
    is_local = request.headers["host"].rpartition(":")[0] in ("127.0.0.1", "::1")
    return not is_local and request.headers.get("x-forwarded-proto") != "https"


def _text(status: int, text: str, *headers: tuple[str, str]) -> _Answer:
    kind = ("Content-Type", "text/plain; charset=utf-8")
    return _Answer(
        status, f"{text}\n".encode(), (kind, ("X-Content-Type-Options", "nosniff"), *headers)
    )


@asynccontextmanager
async def serving_dtfc(*peers: DtfcPeer) -> AsyncIterator[None]:
    """Serve them all, each on a free port of the running loop."""
    running = []
    for peer in peers:
        listening = await asyncio.start_server(peer.connected, "127.0.0.1", 0)
        peer.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        running.append(listening)
    try:
        yield
    finally:
        for listening in running:
            listening.close()
        left = [task for peer in peers for task in peer.tasks]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)  # closes the sockets


@contextmanager
def serving_dtfc_in_thread(*peers: DtfcPeer) -> Iterator[None]:
    """Serve from another thread, for nodes that are processes of their own."""
    with held_in_thread(lambda: serving_dtfc(*peers)):
        yield
