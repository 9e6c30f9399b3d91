"""A record as the user metadata of an object in the upstream, and back. Pure.

The plain entries are those of objstore, whose buckets can so be shared with it: ``id``, ``name``,
``size``, ``timestamp``, ``consistency`` and ``usermeta-KEY``. Services lower-case the names of entries,
and carry as values no more than printable ASCII without spaces at the ends or side by side. So what
plain entries can't hold exactly stands in one more entry, ``tierce``, as JSON in ASCII.

What comes back may be from another program, or from none: nothing in it is trusted to be there or well
formed.
"""

import json
import mimetypes
import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any, NamedTuple

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, TooLarge
from tierce.names.record import LEVELS, UPSTREAM, Record

UPSTREAM_METADATA_BYTES = 2048
"""What S3 allows for the names and values of an object's user metadata."""

EXTRA = "tierce"
USER = "usermeta-"
_EXTRA_VERSION = 1
_TIMESTAMP_MAX = 1 << 63

_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_PLAIN_VALUE = re.compile(r"[!-~]+(?: [!-~]+)*", re.ASCII)
_UNTOLD_TYPES = ("application/octet-stream", "binary/octet-stream")
# The table that Python has built in: the same on every machine.
_TYPES = mimetypes.MimeTypes().types_map[True]


class Held(NamedTuple):
    """What a service tells of an object: its size in bytes, entries of user metadata (names in lower
    case), content type, and time of the last change in nanoseconds since 1970 (0: not told)."""

    size: int
    entries: dict[str, str]
    content_type: str = ""
    modified: int = 0


def entries_of(
    record: Record,
    digest: Digest,
    size: int,
    *,
    limit_bytes: int | None = UPSTREAM_METADATA_BYTES,
    has_user_entries: bool = True,
) -> dict[str, str]:
    """The user metadata of a record's object. Raises TooLarge if it is over ``limit_bytes``.

    ``has_user_entries``: whether the service takes names with a dash in them; else the user metadata
    stands in the extra entry only. BadRequest is raised for text that is no Unicode.
    """
    entries = {
        "id": record.key,
        "name": record.name,
        "size": str(size),
        "timestamp": str(record.timestamp),
        "consistency": str(max(record.level, UPSTREAM)),
    }
    entries = {name: value for name, value in entries.items() if _PLAIN_VALUE.fullmatch(value)}
    plain, rest = _split(record.metadata) if has_user_entries else ({}, record.metadata)
    extra: dict[str, Any] = {"v": _EXTRA_VERSION, "digest": str(digest), "node": record.node}
    if record.name and "name" not in entries:
        extra["name"] = record.name
    if rest:
        extra["metadata"] = rest
    if record.content_type and record.content_type != type_by_name(record.name):
        extra["type"] = record.content_type
    if record.modified:
        extra["modified"] = record.modified
    entries |= {EXTRA: _json(extra)} | plain
    # For other programs also what they get changed, as long as there is room for it.
    doubled = {USER + name.lower(): value for name, value in rest.items() if _is_plain(name, value)}
    whole = entries | doubled
    if has_user_entries and (limit_bytes is None or _bytes(whole) <= limit_bytes):
        return whole
    if limit_bytes is not None and (found := _bytes(entries)) > limit_bytes:
        raise TooLarge(
            f"name and user metadata take {found} bytes in the upstream, which allows {limit_bytes}",
            hint="Shorten the user metadata, or put what is long into the object itself. What is not "
            "ASCII takes six bytes a character.",
        )
    return entries


def restored(key: str, held: Held) -> Record:
    """The record of an object that the upstream has, whoever wrote it."""
    entries = held.entries
    extra = _extra(entries.get(EXTRA, ""))
    user = {
        name.removeprefix(USER): value for name, value in entries.items() if name.startswith(USER)
    }
    if not extra:
        user = {name: _decoded(value) for name, value in user.items()}
    exact = extra.get("metadata", {})
    superseded = {name.lower() for name in exact}
    level = _number(entries.get("consistency", ""), 2)
    return Record(
        bucket="",
        key=key,
        timestamp=_number(entries.get("timestamp", ""), _TIMESTAMP_MAX - 1) or held.modified,
        node=extra.get("node", ""),
        # A digest holds for the content that it was written with; a program may have put another.
        digest=_digest(extra) if entries.get("size") == str(held.size) else None,
        size=held.size,
        name=extra.get("name", "") or _decoded(entries.get("name", "")),
        content_type=_content_type(held, extra),
        metadata={name: value for name, value in user.items() if name not in superseded} | exact,
        level=level if level in LEVELS and level > UPSTREAM else UPSTREAM,
        is_upstream=True,
        modified=extra.get("modified", 0),
    )


def content_type_of(record: Record) -> str:
    """What to tell the service as the content's type: that of the record, else by the name's end."""
    told = record.content_type
    return told if _PLAIN_VALUE.fullmatch(told) else type_by_name(record.name)


def type_by_name(name: str) -> str:
    """The type that the extension of a file's name stands for, as Go words it; else empty."""
    base = name.rpartition("/")[2]
    _, dot, extension = base.rpartition(".")
    kind = _TYPES.get(f".{extension.lower()}", "") if dot else ""
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def is_same(found: Record, record: Record, digest: Digest, size: int) -> bool:
    """Whether the upstream has this content already, from this very write."""
    return (found.digest, found.size, found.timestamp, found.node) == (
        digest,
        size,
        record.timestamp,
        record.node,
    )


def _split(metadata: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """User metadata as plain entries, and that part of it which these can't hold exactly."""
    lowered = [name.lower() for name in metadata]
    plain: dict[str, str] = {}
    rest: dict[str, str] = {}
    for name, value in metadata.items():
        is_exact = name == name.lower() and lowered.count(name) == 1
        if is_exact and _is_plain(name, value):
            plain[USER + name] = value
        else:
            rest[name] = value
    return plain, rest


def _is_plain(name: str, value: str) -> bool:
    return bool(_PLAIN_NAME.fullmatch(name) and _PLAIN_VALUE.fullmatch(value))


def _json(extra: dict[str, Any]) -> str:
    try:
        json.dumps(extra, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest(
            "name or user metadata are no Unicode text", hint="Encode them as UTF-8."
        ) from None
    text = json.dumps(extra, ensure_ascii=True, separators=(",", ":"))
    # Signatures are made over values in which runs of spaces are one space.
    return text.replace("  ", " \\u0020").replace("  ", " \\u0020")


def _extra(text: str) -> dict[str, Any]:
    """The extra entry, as far as it has the right shape; empty if it is not there or not readable."""
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(extra, dict) or extra.get("v") != _EXTRA_VERSION:
        return {}
    shapes = {"digest": str, "node": str, "name": str, "type": str}
    good = {name: value for name, value in extra.items() if isinstance(value, shapes.get(name, ()))}
    metadata = extra.get("metadata")
    if isinstance(metadata, dict):
        good["metadata"] = {
            name: value for name, value in metadata.items() if isinstance(value, str)
        }
    modified = extra.get("modified")
    if isinstance(modified, int) and 0 < modified < _TIMESTAMP_MAX:
        good["modified"] = modified
    return good


def _digest(extra: dict[str, Any]) -> Digest | None:
    try:
        return Digest.parse(extra["digest"])
    except (KeyError, BadRequest):
        return None


def _content_type(held: Held, extra: dict[str, Any]) -> str:
    """Of our own objects only what was given to them: what the name tells is not told twice."""
    if extra or "id" in held.entries:
        return str(extra.get("type", ""))
    return "" if held.content_type in _UNTOLD_TYPES else held.content_type


def _decoded(value: str) -> str:
    """Text that a service has encoded by RFC 2047, as S3 does with what is not ASCII."""
    if not value.startswith("=?"):
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, UnicodeError, ValueError):
        return value


def _number(text: str, most: int) -> int:
    """A number of ASCII digits up to ``most``; 0 for anything else."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return 0
    return int(text) if int(text) <= most else 0


def _bytes(entries: dict[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in entries.items())
