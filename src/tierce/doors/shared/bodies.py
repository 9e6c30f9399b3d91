"""Bodies of requests, as they come in.

A client that sent ``Expect: 100-continue`` is told to go on only when its body is first asked for.
So whatever a handler refuses before that is refused before the client has sent its bytes.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPException

from tierce.core.errors import BadRequest
from tierce.core.metrics import RECEIVED_BYTES
from tierce.core.tallies import CounterTallies
from tierce.doors.shared.connection import connection_of

RECEIVED = CounterTallies(RECEIVED_BYTES)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class UnsupportedEncoding(BadRequest):
    """The body is compressed or otherwise encoded, and would be stored as such."""


def announced_bytes(request: web.BaseRequest) -> int | None:
    """The Content-Length, in bytes, or None for a chunked body."""
    return request.content_length


def refuse_encoded(request: web.BaseRequest) -> None:
    """Raise UnsupportedEncoding for a coded body, as the digest names the bytes as sent.

    Content-Encoding may come in several lines. Of the transfer codings only chunked is undone.
    """
    encoding = ",".join(request.headers.getall("Content-Encoding", ())).lower()
    if any(each.strip() not in ("", "identity") for each in encoding.split(",")):
        raise UnsupportedEncoding(
            f"the Content-Encoding {encoding[:40]!a} is not taken",
            hint="Send the bytes as they are to be stored, without Content-Encoding.",
        )
    coding = request.headers.get("Transfer-Encoding", "chunked").strip().lower()
    if coding != "chunked":
        raise UnsupportedEncoding(
            f"the Transfer-Encoding {coding[:40]!a} is not taken",
            hint="Send the bytes with a Content-Length, or only chunked.",
        )


async def body_of(request: web.BaseRequest, door: str) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises BadRequest if it is malformed, TooSlow, ConnectionError."""
    connection = connection_of(request)
    content = request.content
    received = RECEIVED[door]
    if request.headers.get("Expect", "").lower() == "100-continue" and not content.is_eof():
        await connection.send(_CONTINUE)
    with translated():
        while data := await connection.read(content):
            received.add(len(data))
            yield data


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn aiohttp's complaints about a body into ours."""
    try:
        yield
    except (web.RequestPayloadError, HttpProcessingError, HTTPException, ValueError) as error:
        raise BadRequest(
            "the body is not well-formed, or ended early",
            hint="Send as many bytes as Content-Length says, or a valid chunked body.",
        ) from error
