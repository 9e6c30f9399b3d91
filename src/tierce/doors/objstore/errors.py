"""How the objstore door words errors: plain text that begins with ``error: ``, without a line end.

What objstore answers without a body has none here: a file that is not known, and our own mistakes.
Where objstore has no words of its own, the text is the message, and the hint in a second line.
"""

from collections.abc import Mapping

from tierce.core import errors
from tierce.core.errors import BadRequest, TierceError
from tierce.doors.objstore import render
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.errors import completed
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.doors.shared.sending import PreconditionFailed
from tierce.service.near_cache import Deleted


class NoId(BadRequest):
    """A put without an id."""


class NoUlid(BadRequest):
    """A put whose id is no ULID; the message is what was sent."""


class BadLevel(BadRequest):
    """A consistency level that there is not."""


class NotJson(BadRequest):
    """A message of another node that is not JSON, or of another shape."""


NO_PAGE = "404 page not found"

# Status and body. None stands for ``error: `` with the error's own message.
TEXTS: Mapping[type[TierceError], tuple[int, str | None]] = {
    errors.NotFound: (404, ""),
    errors.BadRequest: (400, None),
    errors.TooLarge: (413, None),
    errors.DigestMismatch: (400, None),
    errors.TooSlow: (408, None),
    errors.Refused: (403, None),
    errors.Unauthenticated: (401, None),
    errors.Forbidden: (403, None),
    errors.Conflict: (409, None),
    errors.Unavailable: (503, None),
    errors.TooManyRequests: (429, None),
    errors.ReadOnly: (503, None),
    errors.Corrupt: (500, None),
    errors.Full: (507, None),
    Deleted: (404, ""),
    NoSuchPath: (404, NO_PAGE),
    MethodNotAllowed: (404, NO_PAGE),
    HeadersTooLarge: (431, None),
    PreconditionFailed: (412, None),
    UnsatisfiableRange: (416, None),
    UnsupportedEncoding: (415, None),
    NoId: (400, "error: ID not specified, use /id to get one"),
    NoUlid: (400, None),
    BadLevel: (400, "error: objstore: invalid consistency level"),
    NotJson: (400, ""),
}


def render_error(error: TierceError | None) -> Answer:
    """The answer to an error; None stands for a mistake of ours, which is in the log."""
    if error is None:
        return Answer(500)
    status, text = next(TEXTS[kind] for kind in type(error).__mro__ if kind in TEXTS)
    if isinstance(error, MethodNotAllowed):
        return render.error(status, NO_PAGE)
    if isinstance(error, Deleted):
        return Answer(status, block=render.metadata_block(error.record))
    if text == "":
        return completed(Answer(status), error)
    if text is None:
        text = "error: " + "\n".join(filter(None, (error.message, error.hint)))
    return completed(render.error(status, text), error)
