"""What the objstore door's answers look like: texts, JSON, and the metadata of a file in headers.

JSON is compact and its keys stand in objstore's order. Names of headers are written as Go writes
them. A file's name and user metadata go out as UTF-8, as they came in; nothing in them can end a line.
"""

from tierce.blobs.space import Space
from tierce.core.errors import Corrupt, NotFound
from tierce.core.limits import SNIFFED_BYTES
from tierce.doors.objstore import gojson
from tierce.doors.shared import dates, media_types
from tierce.doors.shared.answers import Answer, header_value
from tierce.doors.shared.sending import Presented
from tierce.names.record import LOCAL, Record
from tierce.service.near_cache import Found

PLAIN_TEXT = "text/plain; charset=utf-8"
JSON_TYPE = "application/json; charset=utf-8"
_NO_SNIFF = ("X-Content-Type-Options", "nosniff")
_NO_CACHE = ("Cache-Control", "no-store")
# Headers of files that were asked for lately, by all that they are made of.
_PRESENTED: dict[tuple[object, ...], Presented] = {}
_PRESENTED_COUNT = 2048
_PRESENTED_CHARACTERS = 2048
_UNITS = (("bytes", 1), ("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30))


def text(content: str) -> Answer:
    """Plain text, to the letter."""
    return Answer(200, content.encode(), [("Content-Type", PLAIN_TEXT), _NO_CACHE])


def error(status: int, content: str) -> Answer:
    """An error as objstore words one. What was sent may be in it, bytes that are no UTF-8 too."""
    body = content.encode("utf-8", "surrogateescape")
    return Answer(status, body, [("Content-Type", PLAIN_TEXT), _NO_SNIFF])


def json_answer(content: str) -> Answer:
    """JSON that is encoded already."""
    return Answer(200, content.encode(), [("Content-Type", JSON_TYPE), _NO_CACHE])


def redirect(status: int, target: str) -> Answer:
    """Send the client to the address without its end slash. ``target`` is path and query, as sent."""
    path, question, query = target.partition("?")
    return Answer(status, headers=[("Location", f"{path.removesuffix('/')}{question}{query}")])


def stored(*, is_queued: bool) -> Answer:
    """The answer to a put. One whose upload to the upstream is still to come says so."""
    return Answer(200, headers=[("X-Meta-Upstream", "queued")] if is_queued else ())


def deleted(tombstone: Record) -> Answer:
    """The answer to a delete: no body, and what the file was."""
    return Answer(200, block=metadata_block(tombstone))


def metadata_block(record: Record, *, is_symlink: bool = False, is_fetched: bool = False) -> str:
    """The X-Meta-* headers, in the form that Answer takes. Flags are there only when set."""
    # Written out, as this is a good part of what a small answer takes.
    block = f"X-Meta-Consistencylevel: {level(record)}\r\n"
    if record.deleted:
        block += "X-Meta-Deleted: true\r\n"
    if is_fetched:
        block += "X-Meta-Fetched: true\r\n"
    block += f"X-Meta-Id: {header_value(record.key)}\r\n"
    if record.name:
        block += f"X-Meta-Name: {header_value(record.name)}\r\n"
    if is_symlink:
        block += "X-Meta-Symlink: true\r\n"
    if record.metadata:
        block += f"X-Meta-Usermeta: {user_metadata(record)}\r\n"
    return block


def user_metadata(record: Record) -> str:
    """The user metadata as a header: a JSON object, its keys in order."""
    content = gojson.encode(dict(sorted(record.metadata.items())))
    return header_value(content.replace("\x7f", "\\u007f"))


def level(record: Record) -> int:
    """The consistency level. A record without one was not put through this door."""
    return max(LOCAL, record.level)


async def presented(found: Found, seconds: int, whole: str) -> Presented:
    """The headers of a file. Raises NotFound if its only copy here turns out to be bad.

    ``seconds`` are its modified_seconds; ``whole`` header lines that go only with all of its content.
    """
    record = found.record
    # To write the headers out takes a good part of a small answer's time, and files are asked for again.
    shown = (
        record.key, record.rank, record.digest, record.level, record.name, record.modified,
        found.is_symlink, found.is_fetched, whole, *record.metadata.items(),
    )  # fmt: skip
    known = _PRESENTED.get(shown)
    if known is not None:
        return known
    kind = media_types.by_name(record.name)
    if not kind:
        data = found.blob.data
        kind = media_types.by_content(await _start(found) if data is None else data)
    block = metadata_block(record, is_symlink=found.is_symlink, is_fetched=found.is_fetched)
    etag = record.etag
    block = (
        f"Accept-Ranges: bytes\r\nETag: {etag}\r\nLast-Modified: {dates.http_date(seconds)}\r\n"
        f"X-Content-Type-Options: nosniff\r\n{block}"
    )
    made = Presented(etag, kind, block, whole)
    if len(block) <= _PRESENTED_CHARACTERS:
        if len(_PRESENTED) >= _PRESENTED_COUNT:
            _PRESENTED.clear()
        _PRESENTED[shown] = made
    return made


def modified_seconds(record: Record) -> int:
    """When the content was written, in whole seconds since 1970, as far as a date can say that."""
    return dates.whole_seconds(record.modified_at)


def file_meta(record: Record, *, is_symlink: bool, timestamp: int) -> dict[str, object]:
    """The shape of FileMeta; ``timestamp`` is in nanoseconds since 1970."""
    return {
        "id": record.key,
        "name": record.name,
        "size": record.size,
        "timestamp": timestamp,
        "user_meta": dict(sorted(record.metadata.items())) or None,
        "is_symlink": is_symlink,
        "consistency": level(record),
        "is_deleted": record.deleted,
        "is_fetched": False,
    }


def metadata(record: Record, *, is_symlink: bool) -> Answer:
    """The answer that tells what is known of a file."""
    timestamp = record.timestamp if record.deleted else record.modified_at
    return json_answer(gojson.encode(file_meta(record, is_symlink=is_symlink, timestamp=timestamp)))


def stats(space: Space | None) -> Answer:
    """The figures of the file system with the data; None if it does not tell them."""
    if space is None:
        return json_answer('{"disk_stats":null}')
    figures = {"all": space.total, "used": space.total - space.free, "free": space.free}
    fields = [
        f'"{unit}_{name}":{gojson.number(size / per_unit) if per_unit > 1 else size}'
        for unit, per_unit in _UNITS
        for name, size in figures.items()
    ]
    return json_answer(f'{{"disk_stats":{{{",".join(fields)}}}}}')


async def _start(found: Found) -> bytes:
    """The first bytes of a file that is not in memory, as many as tell its type."""
    blob = found.blob
    wanted = min(blob.size, SNIFFED_BYTES)
    start = bytearray()
    pieces = blob.stream(0, wanted)
    try:
        async for piece in pieces:
            start += piece
    except Corrupt as error:
        raise NotFound("the only copy here is bad", hint=error.hint) from error
    finally:
        await pieces.aclose()
    return bytes(start)
