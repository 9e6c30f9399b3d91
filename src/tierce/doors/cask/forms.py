"""What nodes and people post beside files: the fields of a form, and a heartbeat."""

from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from tierce.core.errors import BadRequest
from tierce.core.limits import FORM_LIMIT_BYTES
from tierce.doors.cask.neighbors import Heartbeat
from tierce.doors.cask.uploads import NAME
from tierce.doors.shared.bodies import announced_bytes, body_of

FORM_TYPE = "application/x-www-form-urlencoded"

_WHITE_SPACE = b" \t\r\n"
_JSON_STARTS = b'{["-0123456789tfn'


class NotJson(BadRequest):
    """A heartbeat that is not JSON, or of another shape."""


async def small_body(request: web.BaseRequest) -> bytes:
    """The body, which may have FORM_LIMIT_BYTES. Raises BadRequest if it has more."""
    body = bytearray()
    too_large = BadRequest(f"the body is larger than {FORM_LIMIT_BYTES} bytes")
    if (announced_bytes(request) or 0) > FORM_LIMIT_BYTES:
        raise too_large
    async for data in body_of(request, NAME):
        body += data
        if len(body) > FORM_LIMIT_BYTES:
            raise too_large
    return bytes(body)


async def form_fields(request: web.BaseRequest) -> dict[str, str]:
    """The fields of a posted form; those in the query count where the body has none of the name."""
    fields = dict(reversed(list(request.rel_url.query.items())))
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    if media_type.strip().lower() == FORM_TYPE:
        text = (await small_body(request)).decode("utf-8", "replace")
        fields |= dict(reversed(parse_qsl(text, keep_blank_values=True, errors="replace")))
    return fields


def parse_heartbeat(body: bytes) -> Heartbeat:
    """Raises NotJson, in the words of Go's decoder where they are known."""
    text = body.lstrip(_WHITE_SPACE)
    if not text:
        raise NotJson("EOF")
    if text[0] not in _JSON_STARTS:
        raise NotJson(f"invalid character {chr(text[0])!a} looking for beginning of value")
    try:
        return msgspec.json.decode(text, type=Heartbeat | None) or Heartbeat()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(str(error)) from None
