"""What the dtfc door answers: texts, JSON with dtfc's keys in their order, and the headers of files."""

import json
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from tierce.core.digest import Digest
from tierce.doors.shared import dates, media_types
from tierce.doors.shared.answers import Answer, header_value
from tierce.doors.shared.sending import Presented
from tierce.service.dtfc import DeletedFile

JSON = "application/json"
PLAIN_TEXT = "text/plain; charset=utf-8"
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
# What dtfc has other types for than most.
_OWN_TYPES = {".md": "text/x-markdown; charset=utf-8", ".mkv": "video/webm"}
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def text(line: str, status: int = 200) -> Answer:
    """A line of text."""
    headers = [("Content-Type", PLAIN_TEXT), _NO_SNIFFING]
    return Answer(status, f"{line}\n".encode("utf-8", "replace"), headers)


def healthy() -> Answer:
    """The answer to a question for health."""
    return Answer(200, b"All systems go.", [("Content-Type", PLAIN_TEXT)])


def redirect(location: str) -> Answer:
    """Send a client elsewhere for good."""
    return Answer(301, headers=[("Location", header_value(location))])


def content_type(name: str) -> str:
    """The type that a name stands for; of a text, with its encoding."""
    extension = name[name.rfind(".") :].lower() if "." in name else ""
    return _OWN_TYPES.get(extension) or media_types.by_name(name) or media_types.UNKNOWN


def stored(digest_hex: str, name: str, size: int) -> Answer:
    """The answer to an upload."""
    return _json(_file(digest_hex, name, size))


def deleted(digest_hex: str, found: DeletedFile) -> Answer:
    """The answer to a deletion here."""
    return _json(_deleted(digest_hex, found))


def deleted_everywhere(digest_hex: str, found: DeletedFile) -> Answer:
    """The answer to a deletion here and on peers."""
    return _json(_deleted(digest_hex, found) | {"peers": found.peers})


def described(found: dict[str, Any]) -> Answer:
    """What is in a media file."""
    return _json(found)


@lru_cache(4096)  # to write them out takes as long as finding the file
def presented(digest: Digest, name: str, modified: int) -> Presented:
    """The headers of a file. ``modified`` is in nanoseconds since 1970, 0 if it is not known."""
    etag = f'"{digest}"'
    # Kept names are plain, and those of other doors' objects are made so.
    plain = name
    if not (name.isascii() and name.isprintable()):
        plain = "".join(each if each.isascii() and each.isprintable() else "-" for each in name)
    shown = plain.replace("\\", "-").replace('"', "-")
    block = f'Content-Disposition: attachment; filename="{shown}"'
    if shown != name:
        block += f"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    block += f"\r\nAccept-Ranges: bytes\r\nETag: {etag}\r\n"
    if modified:
        block += f"Last-Modified: {dates.http_date(dates.whole_seconds(modified))}\r\n"
    block += "X-Content-Type-Options: nosniff\r\n"
    return Presented(etag=etag, content_type=content_type(name), block=block)


def _deleted(digest_hex: str, found: DeletedFile) -> dict[str, Any]:
    content = {"deleted": found.is_deleted} | _file(digest_hex, found.name, found.size)
    # dtfc tells the type without its encoding here.
    return content | {"content_type": content_type(found.name).partition(";")[0]}


def _file(digest_hex: str, name: str, size: int) -> dict[str, Any]:
    return {
        "sha512": digest_hex,
        "filename": name,
        "length": size,
        "content_type": content_type(name),
        "stub": True,
    }


def _json(content: dict[str, Any]) -> Answer:
    body = _ENCODER.encode(content).encode("utf-8", "replace")
    return Answer(200, body, [("Content-Type", JSON), _NO_SNIFFING])
