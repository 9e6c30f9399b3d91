"""What a server says of named objects, read into values. Pure, as answers.py is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import unquote

import msgspec

from tierce.client.answers import decoded, foreign, parsed_digest
from tierce.core.digest import Digest

METADATA_PREFIX = "tierce-meta-"


class ObjectInfo(NamedTuple):
    """A named object: ``size`` in bytes, ``metadata`` by names in lower case.

    ``modified`` is when the content was written, in UTC; an answer to a read tells it to the second.
    """

    bucket: str
    key: str
    digest: Digest
    size: int
    content_type: str
    metadata: dict[str, str]
    modified: datetime


class FetchedObject(NamedTuple):
    """An object and all its bytes."""

    info: ObjectInfo
    data: bytes


class ObjectPage(NamedTuple):
    """A part of a listing: objects, and the common prefixes that others were folded into."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    next: str | None


class ObjectChange(NamedTuple):
    """The last change of a name. ``object`` is None if the object was removed.

    ``timestamp`` is in nanoseconds since 1970, ``node`` the node that took the write; of two writes
    of a name the one with the greater (timestamp, node) counts.
    """

    seq: int
    bucket: str
    key: str
    object: ObjectInfo | None
    timestamp: int
    node: str


class ChangesPage(NamedTuple):
    """A part of the feed. Keep ``next``, and pass it as ``since`` to go on behind these changes."""

    changes: tuple[ObjectChange, ...]
    next: str


class _ObjectAnswer(msgspec.Struct):
    bucket: str
    key: str
    size: int
    timestamp: str
    node: str
    modified: datetime
    digest: str | None = None
    content_type: str = ""
    metadata: dict[str, str] = {}


class _ChangeAnswer(_ObjectAnswer, kw_only=True):
    seq: int
    deleted: bool


class _PageAnswer(msgspec.Struct):
    objects: list[_ObjectAnswer]
    prefixes: list[str]
    next: str | None = None


class _ChangesAnswer(msgspec.Struct):
    changes: list[_ChangeAnswer]
    next: str


class _BucketsAnswer(msgspec.Struct):
    buckets: list[str]


def stored_object(body: bytes) -> ObjectInfo:
    """Read the answer to an upload. Raises Unavailable if a node can't have written it, as all do."""
    return _info(decoded(body, _ObjectAnswer))


def object_page(body: bytes) -> ObjectPage:
    """Read a page of a listing."""
    answer = decoded(body, _PageAnswer)
    return ObjectPage(tuple(map(_info, answer.objects)), tuple(answer.prefixes), answer.next)


def changes_page(body: bytes) -> ChangesPage:
    """Read a part of the feed."""
    answer = decoded(body, _ChangesAnswer)
    return ChangesPage(tuple(map(_change, answer.changes)), answer.next)


def bucket_names(body: bytes) -> list[str]:
    """Read the names of the buckets."""
    return decoded(body, _BucketsAnswer).buckets


def read_object(bucket: str, key: str, headers: Mapping[str, str], size: int | None) -> ObjectInfo:
    """What the headers of an answer to a read say of an object, whose size is known already."""
    if size is None:
        raise foreign("it tells no size")
    try:
        modified = parsedate_to_datetime(headers.get("Last-Modified", ""))
    except ValueError:
        raise foreign("it tells no date") from None
    return ObjectInfo(
        bucket,
        key,
        parsed_digest(headers.get("ETag", "").strip('"')),
        size,
        headers.get("Content-Type", ""),
        {
            unquote(name[len(METADATA_PREFIX) :].lower()): unquote(value)
            for name, value in headers.items()
            if name.lower().startswith(METADATA_PREFIX)
        },
        modified if modified.tzinfo is not None else modified.replace(tzinfo=UTC),
    )


def _change(answer: _ChangeAnswer) -> ObjectChange:
    if not answer.timestamp.isdecimal():
        raise foreign("a timestamp is no number")
    return ObjectChange(
        answer.seq,
        answer.bucket,
        answer.key,
        None if answer.deleted else _info(answer),
        int(answer.timestamp),
        answer.node,
    )


def _info(answer: _ObjectAnswer) -> ObjectInfo:
    return ObjectInfo(
        answer.bucket,
        answer.key,
        parsed_digest(answer.digest or ""),
        answer.size,
        answer.content_type,
        answer.metadata,
        answer.modified,
    )
