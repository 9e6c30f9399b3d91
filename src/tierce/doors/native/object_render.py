"""What the native door's answers about named objects look like."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from tierce.doors.native.render import BLOB_TYPE, json_answer
from tierce.doors.native.requests import CONTENT_TYPE, NANOSECONDS_PER_SECOND
from tierce.doors.shared import digest_fields
from tierce.doors.shared.answers import Answer, lines
from tierce.doors.shared.dates import http_date
from tierce.doors.shared.sending import Presented
from tierce.names.index import Change
from tierce.names.listing import Listing
from tierce.names.record import Record
from tierce.service.objects import ChangesPage

# Whoever stores an object chooses its type. So a browser that is led to one must run no script of
# it: it would run as a page of this address.
SANDBOX = "sandbox"
_ALWAYS = lines(
    [
        ("Cache-Control", "no-cache"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", SANDBOX),
        ("Accept-Ranges", "bytes"),
    ]
)
# What stands for itself in the name of a metadata header, where upper case can't be told from lower,
# and in its value, which loses spaces at its ends. Everything else is percent-encoded.
_IN_NAMES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.~!#$&'*+^`|")
_IN_VALUES = frozenset(range(0x20, 0x7F)) - frozenset(b"%")


def presented(record: Record) -> Presented:
    """The headers of an object (RFC 9110, RFC 9530). It may change, so caches must ask."""
    assert record.digest is not None, "a tombstone has no content"
    field = digest_fields.render(record.digest)
    etag = record.etag
    # Written out, as this is a good part of what a small answer takes.
    block = f"{_ALWAYS}Repr-Digest: {field}\r\nETag: {etag}\r\nLast-Modified: {_date(record)}\r\n"
    if record.metadata:
        block += lines(
            (f"Tierce-Meta-{_escaped(name, _IN_NAMES)}", _value(value))
            for name, value in record.metadata.items()
        )
    return Presented(etag, content_type(record), block, f"Content-Digest: {field}\r\n")


def content_type(record: Record) -> str:
    """The type that an object is sent as. Another door may take what can be no header."""
    kind = record.content_type
    return kind if kind and CONTENT_TYPE.fullmatch(kind) else BLOB_TYPE


def location(record: Record) -> str:
    """The path of an object.

    Slashes stay readable, but for keys with parts that clients would resolve as in a file system.
    """
    has_dots = "." in record.key and any(part in (".", "..") for part in record.key.split("/"))
    return f"/v1/buckets/{record.bucket}/objects/{quote(record.key, safe='' if has_dots else '/')}"


def described(record: Record) -> dict[str, Any]:
    """An object, or a tombstone, in JSON. ``timestamp`` is text: it is beyond what floats hold."""
    return {
        "bucket": record.bucket,
        "key": record.key,
        "digest": None if record.deleted else str(record.digest),
        "size": record.size,
        "content_type": "" if record.deleted else content_type(record),
        "metadata": record.metadata,
        "modified": _instant(record.modified_at),
        "timestamp": str(record.timestamp),
        "node": record.node,
    }


def stored(record: Record, *, created: bool) -> Answer:
    """The answer to an upload: 201 where there was no object, 200 when it replaced one."""
    answer = json_answer(201 if created else 200, described(record))
    answer.add_block(f"ETag: {record.etag}\r\nLocation: {location(record)}\r\n")
    return answer


def listing(bucket: str, prefix: str, delimiter: str, page: Listing) -> Answer:
    """A page of a bucket; ``next`` is what to send as ``after``, or null at the end."""
    content = {
        "bucket": bucket,
        "prefix": prefix,
        "delimiter": delimiter,
        "objects": [described(record) for record in page.records],
        "prefixes": list(page.prefixes),
        "next": page.next_after or None,
    }
    return json_answer(200, content)


def buckets(names: Sequence[str]) -> Answer:
    """The names of all buckets."""
    return json_answer(200, {"buckets": list(names)})


def changes(page: ChangesPage) -> Answer:
    """A part of the feed."""
    return json_answer(
        200, {"changes": [_change(each) for each in page.changes], "next": page.next}
    )


def _change(change: Change) -> dict[str, Any]:
    return {"seq": change.seq, "deleted": change.record.deleted, **described(change.record)}


def _value(text: str) -> str:
    escaped = _escaped(text, _IN_VALUES)
    inner = escaped.strip(" ")
    before = len(escaped) - len(escaped.lstrip(" "))
    after = len(escaped) - len(inner) - before
    return "%20" * before + inner + "%20" * after


def _escaped(text: str, plain: frozenset[int]) -> str:
    raw = text.encode()
    if plain.issuperset(raw):
        return text
    return "".join(chr(each) if each in plain else f"%{each:02X}" for each in raw)


def _date(record: Record) -> str:
    """Last-Modified, which must not lie in the future (RFC 9110, section 8.8.2.1)."""
    return http_date(min(record.modified_at, time.time_ns()) // NANOSECONDS_PER_SECOND)


def _instant(nanoseconds: int) -> str:
    """A time in UTC as RFC 3339 writes it, with all its nanoseconds."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(1024)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
