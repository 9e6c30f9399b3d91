"""What stands in a document of CouchDB about its attachments, and about files that were such. Pure.

The map of files is that of dtfc's README, in the field ``dtfc``: a file's name, and in its entry its
``sha512``, to which ``length`` in bytes and ``content_type`` are added here.
"""

from collections.abc import Mapping
from typing import Any

from tierce.core.dtfc import digest_in
from tierce.core.errors import BadRequest, Unavailable
from tierce.core.wording import quoted

Json = dict[str, Any]

FIELD = "dtfc"
UNKNOWN_TYPE = "application/octet-stream"
ASIDE_DIGITS = 32


def checked(document: Any) -> Json:
    """A document, if it is one as far as it concerns us. Raises Unavailable."""
    if not isinstance(document, dict):
        raise foreign()
    if not isinstance(document.get("_id"), str) or not isinstance(document.get("_rev"), str):
        raise foreign()
    stubs = document.get("_attachments", {})
    if not isinstance(stubs, dict):
        raise foreign()
    for stub in stubs.values():
        if not isinstance(stub, dict) or not isinstance(stub.get("length"), int):
            raise foreign()
    return document


def stubs_of(document: Json) -> dict[str, Json]:
    """What a document says of its attachments, by name. Each has a ``length`` in bytes."""
    return dict(document.get("_attachments", {}))


def map_of(document: Json) -> Json:
    """A copy of a document's map of files. Raises BadRequest for something else in its place."""
    kept = document.get(FIELD, {})
    if not isinstance(kept, Mapping):
        raise BadRequest(
            f"there is something else in the document's field {FIELD}",
            hint="Rename that field in the document.",
        )
    return dict(kept)


def enter(kept: Json, name: str, entry: Json) -> list[str]:
    """Put an entry into a map. A file that has the name already gets another: the one returned.

    Raises BadRequest if what has the name is no file.
    """
    former = kept.get(name)
    aside: list[str] = []
    if former is not None:
        sha512 = sha512_in(former, name)
        if sha512 == entry["sha512"]:
            entry = {**former, **entry}
        else:
            other = f"{name}@{sha512[:ASIDE_DIGITS]}"
            if other in kept and sha512_in(kept[other], other) != sha512:
                raise BadRequest(f"there is another file {quoted(other)} in {FIELD}")
            kept[other] = former
            aside.append(other)
    kept[name] = entry
    return aside


def sha512_in(entry: object, name: str) -> str:
    """The hash that an entry of a map has, in lower-case hex. Raises BadRequest without any."""
    sha512 = entry.get("sha512") if isinstance(entry, Mapping) else None
    if not isinstance(sha512, str) or digest_in(sha512) is None:
        raise BadRequest(
            f"the entry {quoted(name)} in {FIELD} names no SHA-512",
            hint='It is to be as in {"photo.jpg": {"sha512": "..."}}.',
        )
    return sha512.lower()


def type_in(entry: object) -> str:
    """The media type that an entry of a map has; empty without one that fits a header."""
    kind = entry.get("content_type") if isinstance(entry, Mapping) else None
    return kind if isinstance(kind, str) and kind.isascii() and kind.isprintable() else ""


def foreign() -> Unavailable:
    """The error for an answer that CouchDB can't have given."""
    return Unavailable("the database does not answer as CouchDB does", hint="Check its URL.")
