"""What the SOS doors' answers look like: compact JSON with sorted keys, lists, headers of an object.

The X- headers that were sent with an object come back with it. Those that would mean something to a
server or browser on the way were never taken from a client (uploads.py); here they are left out once
more, as a record may have come another way.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from tierce.core.limits import SOS_IDS_AT_ONCE
from tierce.core.sos import SosStored
from tierce.doors.shared import dates
from tierce.doors.shared.answers import Answer, header_value, lines
from tierce.doors.shared.sending import Presented
from tierce.doors.sos.uploads import canonical, is_kept
from tierce.service.sos_blobs import media_type

JSON_TYPE = "application/json"
PLAIN_TEXT = "text/plain; charset=utf-8"
UNKNOWN_TYPE = "application/octet-stream"
_NO_SNIFF = ("X-Content-Type-Options", "nosniff")
_NO_CACHE = ("Cache-Control", "no-store")
# What a request's tags are compared with where there is none: it is never sent, so nobody means it.
_NO_TAG = '"none"'
_JSON_BLOCK = lines([("Content-Type", JSON_TYPE), _NO_SNIFF, _NO_CACHE])


def stored(done: SosStored) -> Answer:
    """The answer to what was posted."""
    # Written out, as nothing of it needs escapes: ids least of all.
    body = f'{{"id":"{done.id}","size":{done.size},"status":"OK"}}'.encode("ascii")
    return Answer(200, body, block=_JSON_BLOCK)


def failed(status: int, error: str) -> Answer:
    """The answer to a post that failed."""
    content = {"error": error, "status": "FAILED"}
    body = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    return Answer(status, body, block=_JSON_BLOCK)


def text(status: int, content: str) -> Answer:
    """Plain text, to the letter. What was sent may be in it, bytes that are no UTF-8 too."""
    body = content.encode("utf-8", "backslashreplace")
    return Answer(status, body, [("Content-Type", PLAIN_TEXT), _NO_SNIFF, _NO_CACHE])


LIST_HEADERS = [("Content-Type", JSON_TYPE), _NO_SNIFF, _NO_CACHE]


async def id_list(ids: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
    """A JSON array of ids, in pieces. Ids need no escapes."""
    async with aclosing(ids) as source:
        start, page = "[", list[str]()
        async for sos_id in source:
            page.append(f'"{sos_id}"')
            if len(page) == SOS_IDS_AT_ONCE:
                yield (start + ",".join(page)).encode()
                start, page = ",", []
        if start == "," and not page:
            yield b"]"
        else:
            yield (start + ",".join(page) + "]").encode()


def presented(metadata: Mapping[str, str], modified: int, etag: str) -> Presented:
    """The headers of an object. ``modified`` is in nanoseconds since 1970, 0 if it is not known."""
    block = "Accept-Ranges: bytes\r\n"
    if etag:
        block += f"ETag: {etag}\r\n"
    if modified:
        block += f"Last-Modified: {dates.http_date(dates.whole_seconds(modified))}\r\n"
    block += "X-Content-Type-Options: nosniff\r\n"
    for name, value in sorted(metadata.items()):
        if is_kept(name):
            block += f"{canonical(name)}: {header_value(value)}\r\n"
    return Presented(
        etag=etag or _NO_TAG, content_type=media_type(metadata) or UNKNOWN_TYPE, block=block
    )
