"""What the native door reads of a request beside its body: limits, digests, names, conditions.

Names of objects are any text, so they are read from the address as it was sent, and unescaped
exactly once: a slash or a dot that was escaped is the same as one that was not, and what can't be
unescaped is refused, because two spellings must never lead a client to the same object by mistake.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import web

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, TooLarge
from tierce.core.limits import CHANGES_WAIT_MAX_SECONDS, OBJECT_KEY_BYTES
from tierce.core.wording import quoted
from tierce.doors.shared import conditions, digest_fields
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.conditions import Outcome
from tierce.doors.shared.router import NoSuchPath
from tierce.doors.shared.sending import PreconditionFailed, check_conditions, joined
from tierce.names.record import Record

NAME = "native"
"""The name of the door."""
METADATA_PREFIX = "tierce-meta-"
NANOSECONDS_PER_SECOND = 1_000_000_000

_OBJECT_PATH = re.compile(r"/v1/buckets/([^/]*)/objects/(.*)", re.DOTALL)
_WRITE_CONDITIONS = ("If-Match", "If-None-Match", "If-Unmodified-Since")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What can be sent as a header as it stands; RFC 9110, section 8.3.1 asks for more than this.
CONTENT_TYPE = re.compile(r"[\x21-\x7e]+/[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def limit_in(text: str | None, default: int, maximum: int) -> int:
    """The most entries that a page may have. Raises BadRequest."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10) or not 0 < int(text) <= maximum:
        raise BadRequest(
            f"{text[:40]!a} is not a limit", hint=f"Write a number from 1 to {maximum}."
        )
    return int(text)


def wait_in(text: str | None) -> float:
    """For how long an answer may be held back, in seconds. Raises BadRequest."""
    most = int(CHANGES_WAIT_MAX_SECONDS)
    if text is None:
        return 0.0
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) > most:
        raise BadRequest(
            f"{text[:40]!a} is no time to wait",
            hint=f"Write a whole number of seconds, from 0 to {most}.",
        )
    return float(text)


def announced_digests(request: web.BaseRequest) -> list[Digest]:
    """What the client says of its body in Content-Digest and Repr-Digest (RFC 9530)."""
    fields = (joined(request, name) for name in ("Content-Digest", "Repr-Digest"))
    return [each for field in fields if field for each in digest_fields.parse(field).values()]


def object_name(request: web.BaseRequest) -> tuple[str, str]:
    """Bucket and key that an address names. Raises BadRequest if its escapes are not right."""
    found = _OBJECT_PATH.fullmatch(request.rel_url.raw_path)
    if found is None:
        raise NoSuchPath(
            "a slash in front of the key is escaped",
            hint="Write /v1/buckets/BUCKET/objects/KEY, and escape only what the key has in it.",
        )
    return unescaped(found[1], "bucket"), unescaped(found[2], "key")


def texts_in_query(request: web.BaseRequest) -> Mapping[str, str]:
    """The parameters of a query that names objects. Raises BadRequest for what is no UTF-8."""
    try:
        found = dict(
            reversed(
                parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="strict")
            )
        )
        "".join(found.values()).encode()
    except ValueError:
        raise BadRequest(
            "the query is no UTF-8, or has too many parts",
            hint="Encode each value as UTF-8, then escape it.",
        ) from None
    return found


def part_of_key(query: Mapping[str, str], name: str) -> str:
    """A parameter that is compared with keys, "" if it is not there. Raises TooLarge."""
    text = query.get(name, "")
    if len(text.encode()) > OBJECT_KEY_BYTES:
        raise TooLarge(
            f"{name} has more than {OBJECT_KEY_BYTES} bytes, as no key has", hint="Shorten it."
        )
    return text


def content_type_in(request: web.BaseRequest) -> str:
    """The type of the body, "" if none is said. Raises BadRequest for what is no type."""
    text = request.headers.get("Content-Type", "").strip(" \t")
    if text and not CONTENT_TYPE.fullmatch(text):
        raise BadRequest(
            f"{quoted(text)} is no content type", hint="Write TYPE/SUBTYPE, or leave it out."
        )
    return text


def metadata_in(request: web.BaseRequest) -> dict[str, str]:
    """User metadata: the headers ``Tierce-Meta-NAME``, by their names in lower case.

    Names and values are unescaped once. Raises BadRequest.
    """
    found: dict[str, str] = {}
    for header, value in request.headers.items():
        if not header.lower().startswith(METADATA_PREFIX):
            continue
        name = unescaped(header[len(METADATA_PREFIX) :].lower(), "name of a metadata header")
        if not name or name in found:
            raise BadRequest(
                f"the metadata header {quoted(header)} has no name, or is there twice",
                hint="Send Tierce-Meta-NAME once for each name; the case makes no difference.",
            )
        found[name] = unescaped(value, f"metadata {name}")
    return found


def unescaped(text: str, what: str) -> str:
    """Undo the percent-encoding of a text. Raises BadRequest, naming ``what`` it is."""
    if "%" not in text and text.isascii():
        return text
    wrong = BadRequest(
        f"the {what[:80]} is not percent-encoded UTF-8: {quoted(text)}",
        hint="Encode it as UTF-8, and write what is no plain ASCII, and %, as %XX.",
    )
    if _BROKEN_ESCAPE.search(text):
        raise wrong
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise wrong from None


def write_check(request: web.BaseRequest) -> Callable[[Record | None], None] | None:
    """What is asked of the record in force when a write takes place (RFC 9110, section 13.2.2).

    It raises PreconditionFailed. It may be called from another thread, and more than once. None if
    the request has no condition.
    """
    if not any(name in request.headers for name in _WRITE_CONDITIONS):
        return None
    tags = {
        name: value
        for name in ("If-Match", "If-None-Match")
        if (value := joined(request, name)) is not None
    }
    unmodified_since = request.if_unmodified_since

    def check(record: Record | None) -> None:
        if record is None or record.deleted:
            holds = "If-Match" not in tags
        else:
            holds = conditions.evaluate(tags, record.etag, safe=False) is Outcome.PROCEED and not (
                "If-Match" not in tags and _is_later(record, unmodified_since)
            )
        if not holds:
            raise _failed()

    return check


def unmodified(request: web.BaseRequest, record: Record) -> Answer | None:
    """The 304 that a GET or HEAD asks for, or None to go on. Raises PreconditionFailed.

    Conditions on dates count where there are none on tags.
    """
    headers = request.headers
    if (
        "If-Match" not in headers
        and "If-None-Match" not in headers
        and "If-Modified-Since" not in headers
        and "If-Unmodified-Since" not in headers
    ):
        return None
    if "If-Match" not in headers and _is_later(record, request.if_unmodified_since):
        raise _failed()
    since = request.if_modified_since
    answer = check_conditions(request, record.etag)
    if (
        answer is None
        and since is not None
        and "If-None-Match" not in headers
        and not _is_later(record, since)
    ):
        return Answer(304)
    return answer


def _is_later(record: Record, date: datetime | None) -> bool:
    """Whether the content is newer than a date of HTTP, which has no parts of a second."""
    return date is not None and record.modified_at // NANOSECONDS_PER_SECOND > date.timestamp()


def _failed() -> PreconditionFailed:
    return PreconditionFailed(
        "the precondition in the request's headers does not hold",
        hint="Look at what is there now, then send the condition that fits it, or none.",
    )
