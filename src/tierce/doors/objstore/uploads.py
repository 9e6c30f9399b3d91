"""What a put says of its file, in headers. Made before the body is asked for."""

import re

import msgspec
from aiohttp import web

from tierce.core import ulids
from tierce.core.errors import BadRequest, NotFound
from tierce.doors.objstore.errors import BadLevel, NoId, NoUlid
from tierce.names.record import LEVELS, LOCAL, Record
from tierce.service.objects import NEAR_CACHE_BUCKET, check_metadata

NAME = "objstore"

_INTEGER = re.compile(r"[+-]?0*([0-9]{1,9})", re.ASCII)


def known_key(text: str) -> str:
    """The key of an object that is asked for. Raises NotFound for what can't be one."""
    try:
        return ulids.parse(text)
    except BadRequest as error:
        raise NotFound(error.message, hint=error.hint) from None


def new_key(text: str | None) -> str:
    """The key of an object that is put. Raises NoId or NoUlid."""
    if not text:
        raise NoId("the header X-Meta-ID is missing")
    try:
        return ulids.parse(text)
    except BadRequest:
        raise NoUlid(f"objstore: not a valid ULID: {text}") from None


def draft_of(request: web.BaseRequest) -> Record:
    """The record that a put asks for. Raises BadRequest, or TooLarge for long names or metadata."""
    headers = request.headers
    draft = Record(
        bucket=NEAR_CACHE_BUCKET,
        key=new_key(headers.get("X-Meta-ID")),
        name=_utf8(headers.get("X-Meta-Name", ""), "X-Meta-Name"),
        metadata=user_metadata(_utf8(headers.get("X-Meta-UserMeta", ""), "X-Meta-UserMeta")),
        level=consistency_level(headers.get("X-Meta-ConsistencyLevel", "")),
    )
    check_metadata(draft)
    return draft


def consistency_level(text: str) -> int:
    """The level that a header names; the lowest without one. Raises BadLevel."""
    if not text:
        return LOCAL
    found = _INTEGER.fullmatch(text)
    if found is None or (text[0] == "-" and int(found[1])) or int(found[1]) not in LEVELS:
        raise BadLevel(f"{text[:40]!a} is not a consistency level")
    return int(found[1])


def user_metadata(text: str) -> dict[str, str]:
    """The entries of a JSON object. Raises BadRequest for anything else, but for nothing and null.

    A value that is no text is kept as its JSON, for what was sent must not be lost; null is empty.
    """
    if not text:
        return {}
    try:
        values = msgspec.json.decode(text, type=dict[str, msgspec.Raw] | None) or {}
        return {name: _value(bytes(raw)) for name, raw in values.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest(
            "the header X-Meta-UserMeta is not a JSON object",
            hint='Send it as in {"color": "red"}, or leave it out.',
        ) from None


def _value(raw: bytes) -> str:
    if raw.startswith(b'"'):
        return msgspec.json.decode(raw, type=str)
    return "" if raw == b"null" else raw.decode()


def _utf8(text: str, header: str) -> str:
    """A header's value, which could not be stored if it had bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"the header {header} is not UTF-8", hint="Encode it as UTF-8.") from None
    return text
