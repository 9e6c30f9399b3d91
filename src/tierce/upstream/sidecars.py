"""Metadata beside the content, for services that can't keep it with the content.

The metadata of the object KEY is then an object of its own, KEY.tierce-meta, written after the
content. It names what it belongs to by what the service tells of the content: size, entity tag and
time of change. If they differ (another program wrote the content, or a crash came between the two
writes) it does not count, and the object is as one without metadata: never with a wrong one.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from opendal.types import Metadata

SUFFIX = ".tierce-meta"


class Mark(NamedTuple):
    """What a service tells of a content, to know it again; ``modified`` in ns since 1970."""

    size: int
    etag: str
    modified: int


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def mark_of(told: Metadata) -> Mark:
    """The mark of a content, of which a service told."""
    at = told.last_modified
    microseconds = 0 if at is None else (at - _EPOCH) // timedelta(microseconds=1)
    return Mark(told.content_length, told.etag or "", microseconds * 1000)


class _Sidecar(msgspec.Struct):
    version: int
    mark: Mark
    entries: dict[str, str]


_VERSION = 1
_decoder = msgspec.json.Decoder(_Sidecar)


def pack(mark: Mark, entries: dict[str, str]) -> bytes:
    """The content of a sidecar."""
    return msgspec.json.encode(_Sidecar(_VERSION, mark, entries))


def unpack(data: bytes, mark: Mark) -> dict[str, str]:
    """The entries in a sidecar; none if it is of another content or can't be read."""
    try:
        sidecar = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return sidecar.entries if sidecar.version == _VERSION and sidecar.mark == mark else {}
