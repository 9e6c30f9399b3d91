"""How the dtfc door words errors: a line of plain text, in dtfc's own words wherever it has some.

Where dtfc has no words of its own, the line is followed by the message and the hint.
"""

from collections.abc import Mapping

from tierce.core import errors
from tierce.core.errors import Forbidden, TierceError
from tierce.core.limits import DTFC_RETRY_AFTER_SECONDS
from tierce.doors.dtfc import render
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.errors import completed
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.doors.shared.sending import PreconditionFailed
from tierce.node.media_probe import NoProber, NotMedia
from tierce.node.peer_loading import Busy
from tierce.node.source_race import Nowhere
from tierce.service.dtfc import Marked


class Denied(Forbidden):
    """The operator has switched a method off by a file; the message is dtfc's own."""


NOT_FOUND = "404 Not Found."
FAILED = "Internal server error."

# Status and the first line. None stands for the error's own message and hint.
TEXTS: Mapping[type[TierceError], tuple[int, str | None]] = {
    errors.NotFound: (404, NOT_FOUND),
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
    NoSuchPath: (404, NOT_FOUND),
    MethodNotAllowed: (404, NOT_FOUND),
    HeadersTooLarge: (431, None),
    PreconditionFailed: (412, None),
    UnsatisfiableRange: (416, None),
    UnsupportedEncoding: (415, None),
    Marked: (403, "403 Forbidden."),
    Denied: (403, None),
    NotMedia: (415, None),
    NoProber: (501, None),
    Busy: (503, "Service Unavailable. Try again in 2 minutes."),
    Nowhere: (502, "Could not retrieve file."),
}


def render_error(error: TierceError | None) -> Answer:
    """The answer to an error; None stands for a mistake of ours, which is in the log."""
    if error is None:
        return render.text(FAILED, 500)
    status, text = next(TEXTS[kind] for kind in type(error).__mro__ if kind in TEXTS)
    if text is None:
        text = "\n".join(filter(None, (error.message, error.hint)))
    answer = render.text(text, status)
    if isinstance(error, MethodNotAllowed):
        return answer
    if isinstance(error, Busy):
        answer.add_headers([("Retry-After", str(DTFC_RETRY_AFTER_SECONDS))])
        return answer
    if isinstance(error, (NoProber, Nowhere)):  # to ask again changes nothing by itself
        return answer
    return completed(answer, error)
