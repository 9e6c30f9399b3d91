"""Answering with a blob: conditions, then ranges, then bytes, each verified before it goes out.

A large blob is sent as it is read. Where a bad piece turns up midway, the status is long gone, so
the connection is broken off: the client sees fewer bytes than the Content-Length said, never a
complete answer with wrong bytes.
"""

import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple, Protocol

from aiohttp import web

from tierce.core.errors import Conflict, Corrupt, NotFound, TierceError
from tierce.core.limits import RANGES_COUNT
from tierce.core.metrics import SENT_BYTES
from tierce.core.tallies import CounterTallies
from tierce.doors.shared import conditions
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.conditions import Outcome
from tierce.doors.shared.connection import connection_of
from tierce.doors.shared.ranges import content_range, multipart_parts, parse_range

log = logging.getLogger(__name__)

SENT = CounterTallies(SENT_BYTES)


class PreconditionFailed(Conflict):
    """If-Match or If-None-Match does not hold."""


class Content(Protocol):
    """What is sent: an open blob (blobs/store.py), or what a store of SOS opens (core/sos.py)."""

    size: int

    @property
    def data(self) -> bytes | None: ...

    def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]: ...

    async def aclose(self) -> None: ...


class Presented(NamedTuple):
    """How a door presents a blob: its strong entity tag, quoted, its type, and further headers.

    ``block`` are header lines that go with every answer, the entity tag among them; ``whole`` are
    lines that go only with an answer that holds the whole blob. Both in the form of answers.lines.
    """

    etag: str
    content_type: str
    block: str
    whole: str = ""


def joined(request: web.BaseRequest, name: str) -> str | None:
    """The value of a header that may come in several lines (RFC 9110, section 5.3)."""
    values = request.headers.getall(name, None)
    return None if values is None else ", ".join(values)


def check_conditions(
    request: web.BaseRequest, etag: str | None, *, safe: bool = True
) -> Answer | None:
    """The 304 that If-None-Match asks for, or None to go on. Raises PreconditionFailed.

    An ``etag`` of None stands for nothing being there: If-Match fails, If-None-Match holds.
    """
    headers = request.headers
    if "If-None-Match" not in headers and "If-Match" not in headers:
        return None
    found = {
        name: value
        for name in ("If-Match", "If-None-Match")
        if (value := joined(request, name)) is not None
    }
    if etag is None:
        outcome = Outcome.PRECONDITION_FAILED if "If-Match" in found else Outcome.PROCEED
    else:
        outcome = conditions.evaluate(found, etag, safe=safe)
    if outcome is Outcome.PRECONDITION_FAILED:
        raise PreconditionFailed(
            "the precondition in the request's headers does not hold",
            hint="Leave out If-Match or If-None-Match, or send the entity tag that is in force.",
        )
    if outcome is Outcome.NOT_MODIFIED and etag is not None:
        return Answer(304)
    return None


# Gives the 304 that a request asks for, knowing the entity tag, or None to go on.
Check = Callable[[web.BaseRequest, str], Answer | None]


def head_answer(
    request: web.BaseRequest, size: int, how: Presented, check: Check = check_conditions
) -> Answer:
    """The answer to HEAD: what GET would say, without reading the blob."""
    unmodified = check(request, how.etag)
    if unmodified is not None:
        return _unmodified(unmodified, how)
    return Answer(200, block=_whole_block(how), length=size)


async def send_blob(
    request: web.BaseRequest,
    blob: Content,
    how: Presented,
    door: str,
    check: Check = check_conditions,
    *,
    ranges_limit: int = RANGES_COUNT,
) -> web.StreamResponse:
    """Answer GET with an open blob, and close it. Who asks for too many ranges gets the whole."""
    try:
        unmodified = check(request, how.etag)
        if unmodified is not None:
            return _unmodified(unmodified, how)
        asked = request.headers.get("Range")
        if asked is not None and not conditions.range_applies(
            request.headers.get("If-Range"), how.etag
        ):
            asked = None
        ranges = parse_range(asked, blob.size)
        if ranges is None or len(ranges) > ranges_limit:
            if blob.data is not None:
                SENT[door].add(blob.size)
                return Answer(200, blob.data, block=_whole_block(how))
            answer = Answer(200, block=_whole_block(how), length=blob.size)
            return await _stream(request, answer, blob.stream(), blob.size, door)
        if len(ranges) == 1:
            (only,) = ranges
            headers = [
                ("Content-Range", content_range(only, blob.size)),
                ("Content-Type", how.content_type),
            ]
            answer = Answer(206, headers=headers, block=how.block, length=only.length)
            return await _stream(request, answer, blob.stream(*only), only.length, door)
        frame = multipart_parts(ranges, blob.size, how.content_type, secrets.token_hex(16))

        async def parts() -> AsyncGenerator[bytes, None]:
            for head, part in frame.parts:
                yield head
                async for piece in blob.stream(*part):
                    yield piece
            yield frame.closing

        headers = [("Content-Type", frame.content_type)]
        answer = Answer(206, headers=headers, block=how.block, length=frame.length_bytes)
        return await _stream(request, answer, parts(), frame.length_bytes, door)
    finally:
        await blob.aclose()


async def _stream(
    request: web.BaseRequest,
    answer: Answer,
    pieces: AsyncGenerator[bytes, None],
    length: int,
    door: str,
) -> Answer:
    """Send head and pieces. The first piece is read before the head is sent: it may be bad."""
    connection = connection_of(request)
    try:
        first = await anext(pieces, b"")
    except Corrupt as error:
        raise NotFound("the only copy here is bad", hint=error.hint) from error
    await answer.prepare(request)
    sent = 0
    try:
        await connection.send(first)
        sent += len(first)
        async for piece in pieces:
            assert sent + len(piece) <= length, f"more than the {length} bytes announced"
            await connection.send(piece)
            sent += len(piece)
        assert sent == length, f"{sent} bytes sent, {length} announced"
    except ConnectionError:
        raise
    except Exception as error:
        # Whatever it was, another answer can't follow: it would be taken for bytes of the blob.
        if isinstance(error, TierceError):
            log.error("an answer was broken off: %s", error)
        else:
            log.exception("an answer was broken off")
        connection.abort()
        raise ConnectionResetError("the answer was broken off") from error
    finally:
        SENT[door].add(sent)
        await pieces.aclose()
    return answer


def _unmodified(answer: Answer, how: Presented) -> Answer:
    answer.add_block(how.block)
    return answer


def _whole_block(how: Presented) -> str:
    return f"{how.block}{how.whole}Content-Type: {how.content_type}\r\n"
