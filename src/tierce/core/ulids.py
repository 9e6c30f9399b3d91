"""ULIDs as names of objects: read strictly, and made from a time and random bytes. Pure.

A ULID is 26 characters of Crockford's base 32: 10 for the milliseconds since 1970, 16 for 80 random
bits. Whoever makes one chooses both, so nothing is believed of an id but its form. Ids become keys
and names of objects in buckets, so one form only comes out: capitals, without the letters I, L, O
and U, which Crockford's decoder would take for digits.
"""

import re
from datetime import UTC, datetime

from ulid import ULID

from tierce.core.errors import BadRequest
from tierce.core.wording import quoted

RANDOM_BYTES = 10
TIME_CHARACTERS = 10

# Years that an id may be of, both ends included, in seconds since 1970: as objstore has them.
EARLIEST_SECONDS = int(datetime(2009, 11, 30, tzinfo=UTC).timestamp())
LATEST_SECONDS = int(datetime(2099, 11, 30, tzinfo=UTC).timestamp())

_TIME_CHARACTERS = 10
_FORM = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)


def parse(text: str) -> str:
    """The ULID in capitals. Raises BadRequest for any other text, or a time out of the window."""
    # Some letters beyond ASCII have capitals within it.
    folded = text.upper() if text.isascii() else text
    if not _FORM.fullmatch(folded):
        raise BadRequest(
            f"{quoted(text)} is not a ULID",
            hint="Write 26 characters of Crockford's base 32, as in 01BRNMMS1DK3CBD4ZZM2TQ8C5B.",
        )
    # The alphabet is in the order of ASCII, so that times compare as texts do.
    if not _EARLIEST <= folded[:_TIME_CHARACTERS] <= _LATEST:
        raise BadRequest(
            f"the time in the ULID {folded} is not between 2009-11-30 and 2099-11-30",
            hint="Look at the clock of the program that made it.",
        )
    return folded


def milliseconds(ulid: str) -> int:
    """The time in a ULID that was parsed, in milliseconds since 1970."""
    return ULID.from_str(ulid).milliseconds


def make(now_milliseconds: int, randomness: bytes) -> str:
    """A ULID of a time since 1970 and RANDOM_BYTES random bytes."""
    assert len(randomness) == RANDOM_BYTES, f"{len(randomness)} random bytes"
    return str(ULID.from_bytes(now_milliseconds.to_bytes(6, "big") + randomness))


def _time(now_milliseconds: int) -> str:
    return make(now_milliseconds, bytes(RANDOM_BYTES))[:_TIME_CHARACTERS]


_EARLIEST = _time(EARLIEST_SECONDS * 1000)
_LATEST = _time(LATEST_SECONDS * 1000 + 999)
