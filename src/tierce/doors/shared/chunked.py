"""Answers whose length is not known when they begin: sent in chunks, with bounded memory.

HTTP/1.0 has no chunks, so there the end of the connection is the end of the body. An answer that fails
midway is broken off: its last chunk is missing then. Without chunks only the content can tell, so send
what shows its own end, as JSON does.
"""

import logging
from collections.abc import AsyncGenerator

from aiohttp import web
from aiohttp.http import HttpVersion11

from tierce.core.errors import TierceError
from tierce.doors.shared.answers import Answer, Headers
from tierce.doors.shared.connection import connection_of
from tierce.doors.shared.sending import SENT

log = logging.getLogger(__name__)


class _Chunked(Answer):
    """The head of such an answer."""

    def __init__(self, headers: Headers, *, has_chunks: bool) -> None:
        super().__init__(200, headers=headers, close=not has_chunks)
        self._has_chunks = has_chunks

    def framing(self) -> str:
        return "Transfer-Encoding: chunked\r\n" if self._has_chunks else ""


async def send_pieces(
    request: web.BaseRequest, headers: Headers, pieces: AsyncGenerator[bytes, None], door: str
) -> Answer:
    """Answer with 200 and the pieces, none of them empty; to HEAD without reading them.

    What the first piece raises is raised here, before anything was sent.
    """
    has_chunks = request.version >= HttpVersion11
    answer = _Chunked(headers, has_chunks=has_chunks)
    connection = connection_of(request)
    try:
        if request.method == "HEAD":
            await answer.prepare(request)
            return answer
        piece = await anext(pieces, b"")
        await answer.prepare(request)
        try:
            while piece:
                SENT[door].add(len(piece))
                await connection.send(_chunk(piece) if has_chunks else piece)
                piece = await anext(pieces, b"")
            if has_chunks:
                await connection.send(_chunk(b""))
        except ConnectionError:
            raise
        except Exception as error:
            # Whatever it was, another answer can't follow: it would be taken for a part of this one.
            if isinstance(error, TierceError):
                log.error("an answer was broken off: %s", error)
            else:
                log.exception("an answer was broken off")
            connection.abort()
            raise ConnectionResetError("the answer was broken off") from error
    finally:
        await pieces.aclose()
    return answer


def _chunk(data: bytes) -> bytes:
    """A chunk (RFC 9112, section 7.1); the one without data is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)
