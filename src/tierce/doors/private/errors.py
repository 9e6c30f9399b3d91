"""How the private door words errors: a status, and the core error for the other node to raise.

An error that is not of the core travels as the class of the core that it is one of.
"""

from tierce.core import errors
from tierce.core.errors import TierceError, Unavailable
from tierce.doors.private import render
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.door import StatusTable, status_of
from tierce.doors.shared.errors import completed
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.doors.shared.sending import PreconditionFailed

STATUS: StatusTable = {
    errors.NotFound: 404,
    errors.BadRequest: 400,
    errors.TooLarge: 413,
    errors.DigestMismatch: 422,
    errors.TooSlow: 408,
    errors.Refused: 403,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.Conflict: 409,
    errors.Unavailable: 503,
    errors.TooManyRequests: 429,
    errors.ReadOnly: 503,
    errors.Corrupt: 500,
    errors.Full: 507,
    NoSuchPath: 404,
    MethodNotAllowed: 405,
    HeadersTooLarge: 431,
    PreconditionFailed: 412,
    UnsatisfiableRange: 416,
    UnsupportedEncoding: 415,
}


def render_error(error: TierceError | None) -> Answer:
    """The answer to an error; None stands for a mistake of ours, which is in the log."""
    if error is None:
        text = "the node failed to answer"
        return render.refusal(500, Unavailable.__name__, text, "This is a defect: see its log.")
    name = errors.name_of(error)
    answer = render.refusal(status_of(error, STATUS), name, error.message, error.hint)
    return completed(answer, error)
