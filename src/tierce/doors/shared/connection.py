"""Connections that must keep a pace, and the server that holds them.

A client that holds a connection and moves nothing costs a descriptor and memory for as long as it
likes. So each server looks at its connections now and then, and ends those that make too little
progress while it is the client that is waited for: whose headers do not get complete, whose body
comes in too slowly, or who takes the answer too slowly. Only progress counts, never total time: a
transfer may take days if it moves. Between requests a connection may idle for a while.

What comes may stop being HTTP in the midst of a body. The body's reader learns of it at once, the
request gets its one answer, and the connection ends: what follows could be taken for anything.

This costs next to nothing per request beyond adding up bytes. Of the private state of aiohttp's
protocol it uses the queue of parsed requests, and whether a request is in progress.
"""

import asyncio
import fcntl
import logging
import socket
import ssl
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from tierce.core.errors import BadRequest, TierceError, TooSlow
from tierce.core.limits import CHUNK_BYTES, HEADER_LINE_BYTES, HEADERS_COUNT, KIB
from tierce.core.metrics import SLOW_CLIENTS
from tierce.core.tallies import hand_over_all

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_BUFFER_BYTES = CHUNK_BYTES
_READ_BYTES = 64 * KIB
_ACCEPTING_STEPS = 4
"""How many turns of the loop a connection needs from its acceptance until it is one of the server's."""


class HeadersTooLarge(BadRequest):
    """A request line or header over HEADER_LINE_BYTES, or more than HEADERS_COUNT of them."""


class Pace(NamedTuple):
    """What is asked of clients: bytes per second over a window of seconds, and two time limits."""

    min_bytes_per_second: int
    window_seconds: float
    header_timeout_seconds: float
    idle_timeout_seconds: float


class Connection(RequestHandler):
    """One client's connection: aiohttp's protocol, and a count of what it moves."""

    __slots__ = (
        "_incoming", "_receiving", "_seen_bytes", "_waited_since", "answering", "partial_since",
        "received_bytes", "sent_bytes",
    )  # fmt: skip

    def __init__(self, server: "DoorServer", **options: Any) -> None:
        super().__init__(server, **options)
        self.received_bytes = 0
        self.sent_bytes = 0
        self.partial_since = 0.0
        self.answering = False
        self._incoming: StreamReader | None = None
        self._receiving: StreamReader | None = None
        self._waited_since = 0.0
        self._seen_bytes = 0

    @property
    def ending(self) -> bool:
        """This connection ends with the answer under way; the server may be stopping."""
        return self._close or self._manager is None or cast("DoorServer", self._manager).draining

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        # The rest of a body whose request was refused early is no part of the next one's head.
        in_body = self._incoming is not None and not self._incoming.is_eof()
        if not self.partial_since and not self._request_in_progress and not in_body:
            self.partial_since = self._loop.time()
        super().data_received(data)
        if self._messages:
            message, body = self._messages[-1]
            if not isinstance(message, _ErrInfo):
                self._incoming = body
            elif self._incoming is not None and not self._incoming.is_eof():
                self._break_body(message.exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # The base class parses anew and resumes the transport after every read of a body, which
        # was a tenth of a small upload's cost; there is something to resume only after a pause.
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._end_body(exc or ConnectionResetError("the client is gone"))

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client is far behind. Raises ConnectionResetError."""
        transport = self.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self.sent_bytes += len(data)
        transport.write(data)
        if transport.get_write_buffer_size() > _BUFFER_BYTES:
            await self._drain_helper()

    def abort(self) -> None:
        """Break the connection off, so that an answer under way can't look complete."""
        if self.transport is not None:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """End the connection if no request is under way; what is still to be sent goes out first."""
        if self._request_in_progress or self._messages:
            return
        waiting = self._waiter is not None
        self.close()
        # The base class ends its task only; where that reads the rest of a refused body, it goes on.
        if waiting and self.transport is not None:
            self.transport.close()

    async def read(self, content: StreamReader) -> bytes:
        """What has come of a body, at least a byte; nothing at its end. The pace is watched."""
        self._receiving = content
        try:
            return await content.readany()
        finally:
            self._receiving = None

    def check_pace(self, transport: asyncio.Transport, pace: Pace, now: float) -> None:
        """End the connection if its client has kept us waiting for too long.

        The end of an answer may still be unsent when its request is done, and when the protocol has
        let go of its transport.
        """
        if (
            self.partial_since
            and not self._request_in_progress
            and now - self.partial_since > pace.header_timeout_seconds
        ):
            SLOW_CLIENTS.labels("headers").inc()
            transport.abort()
            return
        unsent = transport.get_write_buffer_size()
        if not pace.min_bytes_per_second or (self._receiving is None and not unsent):
            self._waited_since = 0.0
            return
        moved = self.received_bytes + self.sent_bytes - unsent - _unacknowledged(transport)
        wanted = pace.min_bytes_per_second * pace.window_seconds
        if not self._waited_since or moved - self._seen_bytes >= wanted:
            self._waited_since, self._seen_bytes = now, moved
        elif now - self._waited_since > pace.window_seconds:
            self._end_slow(transport, pace)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is no HTTP in the door's own words, without a traceback in the log."""
        if isinstance(exc, ConnectionError) or self._manager is None:
            raise ConnectionResetError("nobody is left to answer") from exc
        server = cast("DoorServer", self._manager)
        if isinstance(exc, HttpProcessingError):
            return server.render_error(_no_http(exc))
        log.error("a request failed", exc_info=exc)
        return server.render_error(None)

    def _break_body(self, error: BaseException) -> None:
        """End a body in which something came that is no HTTP. Its request gets the only answer."""
        self._messages.pop()
        self._lingering_time = 0.0
        self._end_body(error)
        self.close()

    def _end_body(self, error: BaseException) -> None:
        """Tell whoever waits for more of a body that none will come.

        A handler must never take what came for the whole, even if it has yet to start: it gets the
        error. Once the answer is on its way, only the base class still reads, to be rid of the rest.
        """
        body = self._incoming
        if body is None or body.is_eof():
            return
        if self.answering and not self._messages:
            body.feed_eof()
        elif body.exception() is None:
            body.set_exception(error)

    def _end_slow(self, transport: asyncio.Transport, pace: Pace) -> None:
        phase = "receiving" if self._receiving is not None else "sending"
        SLOW_CLIENTS.labels(phase).inc()
        log.info("a client of %s was too slow in %s", self.peername, phase)
        if self._receiving is None:
            transport.abort()
            return
        self._waited_since = 0.0
        self._lingering_time = 0.0  # the rest of the body has had its time
        self._receiving.set_exception(
            TooSlow(
                f"less than {pace.min_bytes_per_second} bytes per second came in"
                f" over {pace.window_seconds:g} seconds",
                hint="Send the body again over a better connection.",
            )
        )


class DoorServer(web.Server):
    """Accepts connections for one door. ``render_error`` answers what never becomes a request."""

    def __init__(
        self,
        handler: Handler,
        render_error: Callable[[TierceError | None], web.StreamResponse],
        pace: Pace,
    ) -> None:
        super().__init__(
            handler,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=pace.idle_timeout_seconds,
            max_line_size=HEADER_LINE_BYTES,
            max_field_size=HEADER_LINE_BYTES,
            max_headers=HEADERS_COUNT,
            read_bufsize=_READ_BYTES,
        )
        self.render_error = render_error
        self.draining = False
        self._pace = pace
        self._listeners: list[asyncio.Server] = []
        self._watcher: asyncio.Task[None] | None = None

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def _make_request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> Any:
        protocol.partial_since = 0.0
        protocol.answering = False
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept on a bound socket."""
        self._listeners.append(
            await self._loop.create_server(self, sock=sock, ssl=tls, backlog=4096)
        )
        if self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())

    async def drain(self, timeout_seconds: float) -> bool:
        """Stop accepting, let requests under way finish, end the rest. True if all finished.

        The base class's own shutdown drops the rest of bodies that are still coming in, so it is
        used only for what is left when the time is up.
        """
        self.draining = True
        await self._accept_no_more()
        deadline = self._loop.time() + timeout_seconds
        while self._connections and self._loop.time() < deadline:
            for connection in self.connections:
                cast(Connection, connection).close_if_idle()
            await asyncio.sleep(0.02)
        finished = not self._connections
        if self._watcher is not None:
            self._watcher.cancel()
        await self.shutdown(0.0 if finished else 0.1)
        return finished

    async def _accept_no_more(self) -> None:
        """Close the listening sockets, once what they have accepted has become a connection.

        In between, closing them makes asyncio forget it: it would stay open, and its client wait.
        """
        for listener in self._listeners:
            for sock in listener.sockets:
                self._loop.remove_reader(sock.fileno())
        for _ in range(_ACCEPTING_STEPS):
            await asyncio.sleep(0)
        for listener in self._listeners:
            listener.close()

    async def _watch(self) -> None:
        pace = self._pace
        shortest = min(pace.window_seconds, pace.header_timeout_seconds)
        while True:
            await asyncio.sleep(max(0.05, min(1.0, shortest / 4)))
            hand_over_all()
            now = self._loop.time()
            for connection, transport in list(self._connections.items()):
                cast(Connection, connection).check_pace(transport, pace, now)


def _no_http(error: HttpProcessingError) -> TierceError:
    """The parser's complaint in our words, where they are clearer, or in its own, made fit to show."""
    limits = f"{HEADERS_COUNT} headers of at most {HEADER_LINE_BYTES} bytes"
    hint = f"Send HTTP/1.1 with at most {limits}."
    if isinstance(error, LineTooLong):
        return HeadersTooLarge("the request line or a header is too long", hint=hint)
    if error.message.startswith("Too many headers"):
        return HeadersTooLarge("there are too many headers", hint=hint)
    text = " ".join((error.message or "the request is not valid HTTP").split())[:200]
    return BadRequest(ascii(text)[1:-1], hint=hint)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel still holds for the client. It takes more of us only by large steps."""
    sock = transport.get_extra_info("socket")
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def connection_of(request: web.BaseRequest) -> Connection:
    """The connection that a request came by."""
    return cast(Connection, request.protocol)
