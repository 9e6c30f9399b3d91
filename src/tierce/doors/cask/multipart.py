"""The file in a multipart body (RFC 7578, RFC 2046 section 5.1), found while the body comes in.

A machine without I/O: bytes of the body go in, bytes of the file come out, and no more is held back
than could be the start of a delimiter, or the headers of one part. The file is the content of the
first part with the name asked for and a file name; other parts are passed over. Its content comes
out to the letter: like Go's reader, which Cask uses, only a whole delimiter line ends it, and a
line that merely begins as one is content.

The body is complete only when :meth:`FileReader.end` does not complain: a body without its closing
delimiter was cut off somewhere, and its file must not be kept.
"""

import enum
import re
from collections.abc import Iterator

from tierce.core.errors import BadRequest
from tierce.core.limits import MULTIPART_PREAMBLE_BYTES
from tierce.core.wording import quoted
from tierce.doors.shared.bodies import UnsupportedEncoding

MEDIA_TYPE = "multipart/form-data"
PLAIN_ENCODINGS = ("", "binary", "8bit", "7bit")

_BOUNDARY = re.compile(r"[ -~]{0,69}[!-~]")
# Possessive, so that hostile text is not tried in ever more ways.
_PARAMETER = re.compile(
    r""";[ \t]*+([^\s;="]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^\s;"]*+)[ \t]*+""", re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_FOLD = re.compile(rb"\r\n[ \t]+")
# What may follow a delimiter on its line. The white space is bounded, as it is held back.
_LINE_REST = re.compile(rb"(--)?[ \t]{0,256}+(?=\r\n)")
_LINE_REST_SO_FAR = re.compile(rb"(?:-|(?:--)?[ \t]{0,256}+\r?)\Z")
_LAST_LINE_REST = re.compile(rb"--[ \t]{0,256}+\r?\Z")


class _Place(enum.Enum):
    """Where in the body the reader is."""

    PREAMBLE = enum.auto()
    HEADERS = enum.auto()
    FILE = enum.auto()
    OTHER_PART = enum.auto()
    EPILOGUE = enum.auto()


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises BadRequest if it is no multipart form."""
    media_type, parameters = _parse(content_type)
    if media_type != MEDIA_TYPE:
        raise BadRequest(
            f"the body is not {MEDIA_TYPE}",
            hint="Send a form with a file in the field `file`, such as `curl -F file=@PATH` makes.",
        )
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(
            f"{quoted(boundary)} is not a boundary of a multipart body",
            hint="Name 1 to 70 ASCII characters in the Content-Type's parameter `boundary`.",
        )
    return boundary.encode("ascii")


class FileReader:
    """Takes a body by :meth:`feed` and yields the file in the form's field ``field``.

    ``skip_limit_bytes`` bounds what may come in beside the file.
    """

    def __init__(self, boundary: bytes, field: str, skip_limit_bytes: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._field = field
        self._skip_limit_bytes = skip_limit_bytes
        self._place = _Place.PREAMBLE
        self._skipped = 0
        self._found = False
        self._without_file_name = False
        # A delimiter begins with a line end, and the first may be the body's first line. This line
        # end is put before it, and is surplus: no byte of the content.
        self._held = b"\r\n"
        self._surplus = 2

    @property
    def held_bytes(self) -> int:
        """How much is held back until more comes."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the body and yield what they hold of the file; exhaust it.

        Raises BadRequest for a body that is malformed, or has more beside the file than it may.
        """
        data = self._held + data
        position = 0
        more = True
        while more:
            if self._place is _Place.HEADERS:
                position, more = self._read_headers(data, position)
                continue
            place, start = self._place, position
            stop, position, more = self._read_content(data, start)
            surplus = min(self._surplus, stop - start)
            self._surplus -= surplus
            if place is not _Place.FILE:
                self._skip(stop - start - surplus, place)
            elif stop - start > surplus:
                yield data[start + surplus : stop]
        self._held = data[position:]

    def end(self) -> None:
        """The body has ended. Raises BadRequest if it is not complete, or held no such file."""
        if self._place is not _Place.EPILOGUE and not self._ends_with_last_delimiter():
            raise BadRequest(
                "the multipart body ends without its closing delimiter",
                hint="Send the whole body, with the boundary that the Content-Type names.",
            )
        if not self._found:
            wrong = "has no file name" if self._without_file_name else "is not there"
            raise BadRequest(
                f"the form's field `{self._field}` {wrong}",
                hint=f"Send a file in it, as `curl -F {self._field}=@PATH` does.",
            )

    def _ends_with_last_delimiter(self) -> bool:
        """Whether what is held back is the closing delimiter, without a line end behind it."""
        if self._place is _Place.HEADERS or not self._held.startswith(self._delimiter):
            return False
        return _LAST_LINE_REST.match(self._held, len(self._delimiter)) is not None

    def _read_content(self, data: bytes, start: int) -> tuple[int, int, bool]:
        """Read up to the next delimiter line, and past it.

        Returns where the content stops for now, where to read on, and whether there is more to do
        with what is at hand.
        """
        if self._place is _Place.EPILOGUE:
            return len(data), len(data), False
        position = start
        while (found := data.find(self._delimiter, position)) >= 0:
            behind = found + len(self._delimiter)
            rest = _LINE_REST.match(data, behind)
            if rest is not None:
                self._place = _Place.EPILOGUE if rest[1] else _Place.HEADERS
                return found, rest.end(), True
            if _LINE_REST_SO_FAR.match(data, behind):
                return found, found, False
            position = behind
        stop = max(position, len(data) - len(self._delimiter) + 1)
        return stop, stop, False

    def _read_headers(self, data: bytes, start: int) -> tuple[int, bool]:
        """Read a part's headers, which begin at the line end of the delimiter line."""
        stop = data.find(b"\r\n\r\n", start)
        if (len(data) if stop < 0 else stop) - start > MULTIPART_PREAMBLE_BYTES:
            raise BadRequest(
                f"the headers of a part have more than {MULTIPART_PREAMBLE_BYTES} bytes",
                hint="Send the file with a short name and few headers.",
            )
        if stop < 0:
            return start, False
        self._skip(stop - start, self._place)
        self._place = self._place_of(_headers(data[start:stop]))
        # The empty line's own end may begin the next delimiter, where a part has no content.
        self._surplus = 2
        return stop + 2, True

    def _place_of(self, headers: dict[str, str]) -> _Place:
        """Whether a part is the file. Raises UnsupportedEncoding if it is, and is encoded."""
        disposition, parameters = _parse(headers.get("content-disposition", ""))
        if self._found or disposition != "form-data" or parameters.get("name") != self._field:
            return _Place.OTHER_PART
        if not (parameters.get("filename") or parameters.get("filename*")):
            self._without_file_name = True
            return _Place.OTHER_PART
        encoding = headers.get("content-transfer-encoding", "").lower()
        if encoding not in PLAIN_ENCODINGS:
            raise UnsupportedEncoding(
                f"the Content-Transfer-Encoding {quoted(encoding)} is not taken",
                hint="Send the bytes as they are to be stored (RFC 7578, section 4.7).",
            )
        self._found = True
        return _Place.FILE

    def _skip(self, count: int, place: _Place) -> None:
        self._skipped += count
        limit = self._skip_limit_bytes
        if place is _Place.PREAMBLE:
            limit = min(limit, MULTIPART_PREAMBLE_BYTES)
        if self._skipped > limit:
            raise BadRequest(
                f"more than {limit} bytes of the multipart body belong to no file",
                hint=f"Send a form with a file in the field `{self._field}`, and little else.",
            )


def _headers(block: bytes) -> dict[str, str]:
    """Headers of a part by their names in lower case, the first of each. Raises BadRequest."""
    headers: dict[str, str] = {}
    for line in _FOLD.sub(b" ", block).split(b"\r\n"):
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if line and not colon:
            raise BadRequest(
                f"{quoted(name)} is not a header of a part", hint="Write it as in NAME: VALUE."
            )
        headers.setdefault(name.strip().lower(), value.strip())
    return headers


def _parse(value: str) -> tuple[str, dict[str, str]]:
    """A header's value, in lower case, and its parameters, up to the first that is malformed."""
    bare = value.partition(";")[0]
    parameters: dict[str, str] = {}
    position = len(bare)
    while (found := _PARAMETER.match(value, position)) is not None:
        name, text = found.groups()
        if text.startswith('"'):
            text = _ESCAPED.sub(r"\1", text[1:-1])
        parameters.setdefault(name.lower(), text)
        position = found.end()
    return bare.strip().lower(), parameters
