"""The list of a blob server's ids, a JSON array of any length, read in bounded memory.

Pure: pieces of bytes in, ids out. A list that ends before its bracket is an error, never a short
list: who believed it would copy what is there already, or think complete what is not.
"""

import re

import msgspec

from tierce.core.errors import Unavailable

# An id and the punctuation that go with it; any more is no list of ids.
ID_LIMIT_BYTES = 4096

_BLANK = b" \t\r\n"
_ENTRY = re.compile(rb'[ \t\r\n]*("(?:[^"\\\x00-\x1f]|\\.)*+")[ \t\r\n]*([,\]])', re.DOTALL)


class ListReader:
    """Feed it the pieces in order, then :meth:`finish`. Both generations' spacing is read."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._any = False
        self._ended = False

    def feed(self, piece: bytes) -> list[str]:
        """The ids that are complete with this piece. Raises Unavailable if it is no list of texts."""
        found = []
        data = self._rest + piece
        position = 0
        if not self._begun:
            data = data.lstrip(_BLANK)
            self._begun = data.startswith(b"[")
            if data and not self._begun:
                raise foreign_list("it does not begin as a list")
            position = len(data[:1])
        while not self._ended and (entry := _ENTRY.match(data, position)) is not None:
            if len(entry[1]) > ID_LIMIT_BYTES:
                break
            position, self._any = entry.end(), True
            self._ended = entry[2] == b"]"
            found.append(_text(entry[1]))
        self._rest = data[position:].lstrip(_BLANK)
        if self._begun and not self._any and self._rest.startswith(b"]"):
            self._ended, self._rest = True, self._rest[1:].lstrip(_BLANK)
        if self._ended and self._rest:
            raise foreign_list("something follows it")
        if len(self._rest) > ID_LIMIT_BYTES or not (self._rest or b'"').startswith(b'"'):
            raise foreign_list("it holds something else than ids")
        return found

    def finish(self) -> None:
        """Nothing follows. Raises Unavailable if the list is not complete."""
        if not self._ended:
            raise foreign_list("it breaks off")


def foreign_list(reason: str) -> Unavailable:
    """The error for a list that isn't one of ids."""
    return Unavailable(
        f"the list of ids can't be read: {reason}",
        hint="Check that the address is that of a blob server.",
    )


def _text(entry: bytes) -> str:
    try:
        return msgspec.json.decode(entry, type=str)
    except msgspec.DecodeError as problem:
        raise foreign_list(str(problem)) from problem
