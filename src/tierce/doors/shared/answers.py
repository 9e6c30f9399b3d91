"""Answers whose body is in memory, written with their head in one piece.

aiohttp's Response keeps its headers in a case-insensitive multi-dict and renders them in steps. For
small blobs that is most of the work of a request: with this class a worker answers a third more
requests (docs/decisions/0003-http-stack.md). Long bodies use aiohttp's StreamResponse.
"""

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion10

from tierce.doors.shared.connection import connection_of

REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 304: "Not Modified", 307: "Temporary Redirect",
    308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 411: "Length Required", 412: "Precondition Failed",
    413: "Content Too Large", 415: "Unsupported Media Type", 416: "Range Not Satisfiable",
    422: "Unprocessable Content", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 507: "Insufficient Storage",
}  # fmt: skip

Headers = Iterable[tuple[str, str]]
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_STATUS_LINES = {status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in REASONS.items()}


def lines(headers: Headers) -> str:
    """Headers as they are sent, each line with its end."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


def header_value(content: str) -> str:
    """Text for a header, so that it goes out in UTF-8, in one line and without control characters.

    Heads are sent in Latin-1, where each character is one byte.
    """
    if content.isascii() and content.isprintable():
        return content.strip()
    one_line = _CONTROLS.sub(" ", content).strip()
    return one_line.encode("utf-8", "replace").decode("latin-1")


class Answer(web.StreamResponse):
    """A status, headers and a body in memory.

    A handler may :meth:`prepare` an answer itself, without a body but with a ``length``, and then
    send that many bytes by the connection; otherwise aiohttp prepares what the handler returns.

    ``block`` are headers in the form that :func:`lines` gives, for who can make them cheaply.
    ``length`` overrides the Content-Length, for answers to HEAD; None leaves the header to the
    body. Header values must be free of line ends: they come from our own code or checked input.
    """

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: Headers = (),
        *,
        block: str = "",
        length: int | None = None,
        close: bool = False,
    ) -> None:
        # The base class's own state would cost more than all that is done here, and is not used.
        self._status_code = status
        self.body = body
        self.head = block + lines(headers) if headers else block
        self._length = length
        self._close = close
        self._kept_alive = False
        self._written = False

    @property
    def status(self) -> int:
        return self._status_code

    @property
    def keep_alive(self) -> bool | None:
        return self._kept_alive

    def add_headers(self, headers: Headers) -> None:
        """Put more headers behind those that there are."""
        self.head += lines(headers)

    def add_block(self, block: str) -> None:
        """Put more headers, in the form of :func:`lines`, behind those that there are."""
        self.head += block

    def close(self) -> None:
        """End the connection after this answer."""
        self._close = True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write head and body, once. Raises ConnectionResetError when the client is gone."""
        if self._written:
            return
        self._written = True
        connection = connection_of(request)
        connection.answering = True
        self._kept_alive = request.keep_alive and not self._close and not connection.ending
        status = self._status_code
        end = "\r\n"
        if not self._kept_alive:
            end = "Connection: close\r\n\r\n"
        elif request.version == HttpVersion10:
            end = "Connection: keep-alive\r\n\r\n"
        date = rfc822_formatted_time()
        text = f"{_STATUS_LINES[status]}{self.head}{self.framing()}Date: {date}\r\n{end}"
        head = text.encode("latin-1", "replace")
        with_body = self.body and request.method != "HEAD"
        await connection.send(head + self.body if with_body else head)

    def framing(self) -> str:
        """The header that says where the body ends; "" if there is none."""
        if self._status_code in (204, 304):
            return ""
        size = len(self.body) if self._length is None else self._length
        return f"Content-Length: {size}\r\n"

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was written by :meth:`prepare`."""
