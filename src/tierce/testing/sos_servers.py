"""Blob servers as the two generations of SOS have them, and which fail on demand.

Written from wire/sos.md alone, with sockets of its own and none of Tierce's code, so that what the
client and the gateway believe of those servers is checked by something that doesn't share it.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from tierce.testing.in_thread import held_in_thread

PERL = "perl"
GO = "go"

_GO_ID = re.compile(r"[a-z0-9]+").fullmatch


@dataclass
class Faults:
    """What goes wrong, until it is set back. Counts are in bytes of the body.

    ``truncates_to``: a shorter body with its own length, as if the rest was lost on the disk.
    ``is_cut_unseen``: with ``dies_after_sending``, no length is told, so the end looks right.
    ``answers_early``: an upload is answered before it was read.
    ``claims_size``: uploads are answered with ``claims_status`` and this size, and nothing is kept.
    ``range_limit``: a part of a body has no more bytes than this.
    """

    dies_after_taking: int | None = None
    dies_after_sending: int | None = None
    dies_once: bool = False
    truncates_to: int | None = None
    is_cut_unseen: bool = False
    gives_wrong_bytes: bool = False
    answers_500: bool = False
    is_full: bool = False
    answers_early: bool = False
    loses_uploads: bool = False
    claims_size: int | None = None
    claims_status: str = "OK"
    range_limit: int | None = None
    refuses_lists: bool = False
    cuts_lists: bool = False
    slow_seconds: float = 0.0


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


class _DiesError(Exception):
    """The server is gone in the middle of something."""


@dataclass
class SosServer:
    """One blob server. ``url`` is set while it serves; ``objects`` and ``metadata`` are what it has.

    ``has_ranges`` makes it a third kind, which gives parts.
    """

    dialect: str
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    has_ranges: bool = False
    seen: list[Request] = field(default_factory=list)
    # Replaces what its list gives, in that order.
    listed: list[str] | None = None

    def methods(self) -> list[str]:
        """The methods of the requests for single objects so far."""
        return [each.method for each in self.seen if each.path.startswith("/blob/")]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection: one request of HTTP/1.0, or many of HTTP/1.1."""
        try:
            while True:
                request = await self._read(reader)
                await asyncio.sleep(self.faults.slow_seconds)
                await self._send(writer, request, self._answer(request))
                if self.dialect == PERL or self.faults.answers_early:
                    break
            writer.close()
            await writer.wait_closed()
        except (_DiesError, asyncio.IncompleteReadError, ConnectionError):
            pass  # it broke off, as was planned here or decided there
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers: dict[str, str] = {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), value.strip())
        # A body without a length is none to these servers.
        length = int(headers.get("content-length", "0"))
        request = Request(method, path, headers)
        dies_after = self.faults.dies_after_taking
        if dies_after is not None and method == "POST":
            self._died("dies_after_taking")
            taken = await reader.readexactly(min(length, dies_after))
            self.seen.append(request._replace(body=taken))
            raise _DiesError
        if not self.faults.answers_early:
            request = request._replace(body=await reader.readexactly(length))
        self.seen.append(request)
        return request

    def _answer(self, request: Request) -> _Answer:
        if request.path == "/alive" and self.dialect == GO:
            return _Answer(200, b"alive")
        if request.path in (["/blob", "/blob/"] if self.dialect == PERL else ["/blobs"]):
            return self._list()
        piece = request.path.removeprefix("/blob/")
        if piece == request.path or not piece or "/" in unquote(piece):
            return self._missing()
        sos_id = unquote(piece)
        if self.faults.answers_500:
            return _Answer(500, b"failed to read from storage\n")
        if self.dialect == GO and not _GO_ID(sos_id):
            return _Answer(500, b"alphanumeric IDs only\n", (("Content-Type", "text/plain"),))
        if request.method == "POST":
            return self._post(sos_id, request)
        if request.method in ("GET", "HEAD") and sos_id in self.objects:
            return self._get(sos_id, request)
        return self._missing()

    def _missing(self) -> _Answer:
        return _Answer(404, b"404" if self.dialect == PERL else b"404 page not found\n")

    def _list(self) -> _Answer:
        if self.faults.refuses_lists:
            return _Answer(500, b"no\n")
        names = sorted(self.objects) if self.listed is None else self.listed
        if self.dialect == GO:
            return _Answer(200, json.dumps(names, separators=(",", ":")).encode())
        text = json.dumps(names, indent=3) if names else "[]"
        return _Answer(200, f"{text}\n".encode(), (("Content-Type", "text/html"),))

    def _post(self, sos_id: str, request: Request) -> _Answer:
        form = "application/x-www-form-urlencoded"
        if self.dialect == PERL and request.headers.get("content-type", form) == form:
            given = re.search(rb"(?:^|&)id=([^&]*)", request.body)
            sos_id = unquote(given[1].decode("latin-1")) if given else sos_id
        if self.faults.is_full:
            return _Answer(500, b"failed to write to storage\n", (("Content-Type", "text/plain"),))
        if self.faults.loses_uploads:
            return self._ok({"id": sos_id, "size": None, "status": "OK"})
        if self.faults.claims_size is not None:
            status = self.faults.claims_status
            return self._ok({"id": sos_id, "size": self.faults.claims_size, "status": status})
        self.objects[sos_id] = request.body
        sent = {name.title(): value for name, value in request.headers.items() if name[:2] == "x-"}
        if sent and self.dialect == GO:
            self.metadata[sos_id] = sent
        return self._ok({"id": sos_id, "size": len(request.body), "status": "OK"})

    def _ok(self, content: dict[str, object]) -> _Answer:
        if self.dialect == PERL:
            return _Answer(200, f"{json.dumps(content, indent=3)}\n".encode())
        return _Answer(200, json.dumps(content, separators=(",", ":")).encode())

    def _get(self, sos_id: str, request: Request) -> _Answer:
        data = self.objects[sos_id]
        if self.faults.gives_wrong_bytes:
            data = bytes([data[0] ^ 1]) + data[1:] if data else b"x"
        if self.faults.truncates_to is not None:
            data = data[: self.faults.truncates_to]
        headers: list[tuple[str, str]] = []
        if self.dialect == PERL:
            headers = [("Content-Type", "application/data"), ("X-Powered-By", "Perl Dancer")]
            headers.append(("Last-Modified", "Sat, 21 Nov 2015 05:17:23 GMT"))
        elif request.method == "GET":
            headers = list(self.metadata.get(sos_id, {}).items())
        wanted = request.headers.get("range")
        if not self.has_ranges or wanted is None:
            return _Answer(200, data, tuple(headers))
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers.append(("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
        return _Answer(206, data[start:][: self.faults.range_limit], tuple(headers))

    async def _send(self, writer: asyncio.StreamWriter, request: Request, answer: _Answer) -> None:
        status, body, headers = answer
        is_object = request.path.startswith("/blob/") and status in (200, 206)
        lines = [f"HTTP/1.{int(self.dialect == GO)} {status} It"]
        lines += [f"{name}: {value}" for name, value in headers]
        # Go tells no length of what is larger than its buffer, nor in answers to HEAD.
        chunked = self.dialect == GO and is_object and len(body) > 2048
        if request.method == "HEAD" and self.dialect == GO:
            lines.append("Connection: close")
        elif self.faults.is_cut_unseen and is_object:
            chunked = False
            lines.append("Connection: close")
        elif chunked:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {len(body)}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if request.method == "HEAD":
            body = b""
        elif request.method == "GET" and is_object and self.faults.dies_after_sending is not None:
            await self._send_a_part(writer, body[: self._died("dies_after_sending")], chunked)
            return
        elif self.faults.cuts_lists and request.path.startswith("/blob"):
            body = body[: len(body) // 2]
        writer.write(_chunk(body) + b"0\r\n\r\n" if chunked and body else body)
        await writer.drain()
        if self.faults.cuts_lists or (request.method == "HEAD" and self.dialect == GO):
            writer.close()
            await writer.wait_closed()
            raise _DiesError

    async def _send_a_part(self, writer: asyncio.StreamWriter, part: bytes, chunked: bool) -> None:
        writer.write(_chunk(part) if chunked else part)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        raise _DiesError

    def _died(self, fault: str) -> int:
        """How far it gets before it dies; only this once if so asked."""
        count = getattr(self.faults, fault)
        if self.faults.dies_once:
            setattr(self.faults, fault, None)
        assert isinstance(count, int)
        return count


@asynccontextmanager
async def serving_sos(*servers: SosServer) -> AsyncIterator[None]:
    """Serve them all, each on a free port of the running loop."""
    running = []
    tasks: set[asyncio.Task[None]] = set()
    for server in servers:
        listening = await asyncio.start_server(_tracked(server, tasks), "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        running.append(listening)
    try:
        yield
    finally:
        for listening in running:
            listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closes the sockets that were aborted


@contextmanager
def serving_sos_in_thread(*servers: SosServer) -> Iterator[None]:
    """Serve from another thread, for code that runs a loop of its own."""
    with held_in_thread(lambda: serving_sos(*servers)):
        yield


def _tracked(
    server: SosServer, tasks: set[asyncio.Task[None]]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(server.converse(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return connected


def _chunk(data: bytes) -> bytes:
    # An empty chunk would end the body.
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""
