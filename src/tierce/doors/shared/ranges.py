"""Range requests (RFC 9110, section 14): from a header's text to byte ranges, and to their answer.

Three outcomes, and a door answers each with one status: no ranges (serve the whole, 200), some
ranges (206), or :class:`UnsatisfiableRange` (416). Whatever the text, nothing else comes out: a
client may always be served the whole, so a header that makes no sense is ignored, as the RFC says.

The invariant: the ranges that come out lie within the representation, are never empty, and no byte
is in two of them. So an answer can't be larger than the blob and its part heads, however the
request was crafted (section 17.15), and together the ranges hold the bytes asked for, no others.

This module knows neither HTTP messages nor blobs. It works with one size, in bytes.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from tierce.core.errors import BadRequest
from tierce.core.limits import RANGES_COUNT

_OPTIONAL_SPACE = " \t"
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")

# Part of what RFC 2046 allows: these need no quotes in a Content-Type.
_BOUNDARY = re.compile(r"[0-9A-Za-z_-]{1,70}")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]+")


class ByteRange(NamedTuple):
    """Bytes ``start`` up to, not including, ``stop``. HTTP instead names the last byte."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of bytes in the range."""
        return self.stop - self.start


class UnsatisfiableRange(BadRequest):
    """None of the ranges asked for holds a byte of the representation (RFC 9110, 15.5.17: 416)."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"the range asked for lies outside of the {size} bytes that there are",
            hint="Ask for a range that starts before the end, or leave the Range header out.",
        )
        self.size = size

    @property
    def content_range(self) -> str:
        """The Content-Range that goes with a 416 (RFC 9110, section 14.4)."""
        return f"bytes */{self.size}"


def parse_range(header: str | None, size: int) -> list[ByteRange] | None:
    """The ranges to serve of a representation of ``size`` bytes (RFC 9110, section 14.2).

    ``header`` is the value of Range. None means to serve the whole: there is no header, its unit
    isn't bytes, its syntax is wrong, or it lists more than ``RANGES_COUNT`` ranges. It also means
    that when the last bytes of an empty representation are asked for: this can be satisfied, with
    nothing, but no Content-Range can say so. A list is never empty. Ranges that overlap or touch
    are merged, at the place of the one that was named first; the others keep their order.

    Raises UnsatisfiableRange when the syntax is right and no range holds a byte.
    """
    if header is None:
        return None
    unit, equals, listed = header.strip(_OPTIONAL_SPACE).partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    specs = [spec for part in listed.split(",") if (spec := part.strip(_OPTIONAL_SPACE))]
    if not 0 < len(specs) <= RANGES_COUNT:
        return None
    satisfiable = []
    for spec in specs:
        asked = _resolve(spec, size)
        if asked is None:
            return None
        if asked.length:
            satisfiable.append(asked)
        elif size == 0 and _is_suffix_of_some_length(spec):
            return None
    if not satisfiable:
        raise UnsatisfiableRange(size)
    return _merge(satisfiable)


def content_range(part: ByteRange, size: int) -> str:
    """The Content-Range of a non-empty part of ``size`` bytes (RFC 9110, section 14.4)."""
    assert 0 <= part.start < part.stop <= size
    return f"bytes {part.start}-{part.stop - 1}/{size}"


@dataclass(frozen=True, slots=True)
class Multipart:
    """The frame of a multipart/byteranges body (RFC 9110, section 14.6).

    The body is, for each of ``parts``, its head and then the bytes of its range, and at last
    ``closing``. ``length_bytes`` is the length of all this together, for Content-Length.
    """

    content_type: str
    length_bytes: int
    parts: list[tuple[bytes, ByteRange]]
    closing: bytes


def multipart_parts(
    ranges: list[ByteRange], size: int, content_type: str, boundary: str
) -> Multipart:
    """Frame several ranges of one representation as multipart/byteranges (RFC 9110, section 14.6).

    ``content_type`` is the type of the representation, already fit for a header. ``boundary`` is up
    to 70 letters, digits, ``-`` and ``_``; it must be drawn at random for each answer, so that no
    stored bytes can be made to contain it. A single range is sent without this frame.
    """
    assert ranges, "no ranges: the whole is sent without a frame"
    assert _BOUNDARY.fullmatch(boundary), "a boundary that would need quotes"
    assert _FIELD_VALUE.fullmatch(content_type), "a content type that is no header value"
    parts: list[tuple[bytes, ByteRange]] = []
    for part in ranges:
        line_end = "\r\n" if parts else ""
        head = (
            f"{line_end}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(part, size)}\r\n\r\n"
        )
        parts.append((head.encode("ascii"), part))
    closing = f"\r\n--{boundary}--\r\n".encode("ascii")
    return Multipart(
        content_type=f"multipart/byteranges; boundary={boundary}",
        length_bytes=sum(len(head) + part.length for head, part in parts) + len(closing),
        parts=parts,
        closing=closing,
    )


def _resolve(spec: str, size: int) -> ByteRange | None:
    """One range-spec clamped to the size, so perhaps empty; None when the spec is invalid."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        return None
    first, last = (digits.lstrip("0") or digits[:1] for digits in match.groups())
    if first and last:
        # Compared as text, because either may be too long to become an int.
        if (len(first), first) > (len(last), last):
            return None
        return ByteRange(_clamp(first, size), min(_clamp(last, size) + 1, size))
    if first:
        return ByteRange(_clamp(first, size), size)
    if last:
        return ByteRange(size - _clamp(last, size), size)
    return None


def _clamp(digits: str, size: int) -> int:
    """The lesser of the number and ``size``. int() refuses thousands of digits, or takes long."""
    return min(int(digits), size) if len(digits) <= len(str(size)) else size


def _is_suffix_of_some_length(spec: str) -> bool:
    return spec.startswith("-") and spec.strip("-0") != ""


def _merge(ranges: list[ByteRange]) -> list[ByteRange]:
    """Join ranges that overlap or touch, so that no byte is sent twice (RFC 9110, 15.3.7.2).

    Gaps are left alone, although the RFC would let small ones be filled: bytes that were not asked
    for could surprise a client, and the part heads that this would save are short.
    """
    merged: list[tuple[int, ByteRange]] = []
    for order, part in sorted(enumerate(ranges), key=lambda numbered: numbered[1]):
        if merged and part.start <= merged[-1][1].stop:
            first_order, before = merged[-1]
            joined = ByteRange(before.start, max(before.stop, part.stop))
            merged[-1] = (min(first_order, order), joined)
        else:
            merged.append((order, part))
    return [part for _, part in sorted(merged)]
