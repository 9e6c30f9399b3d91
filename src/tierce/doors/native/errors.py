"""How the native door words errors: problem details (RFC 9457) with a stable type and a hint."""

from tierce.core import errors
from tierce.core.errors import TierceError
from tierce.doors.native import render
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

# The last part of each problem's type: a name that never changes once it is published.
NAMES = {
    errors.NotFound: "not-found",
    errors.BadRequest: "bad-request",
    errors.TooLarge: "too-large",
    errors.DigestMismatch: "digest-mismatch",
    errors.TooSlow: "too-slow",
    errors.Refused: "refused",
    errors.Unauthenticated: "unauthenticated",
    errors.Forbidden: "forbidden",
    errors.Conflict: "conflict",
    errors.Unavailable: "unavailable",
    errors.TooManyRequests: "too-many-requests",
    errors.ReadOnly: "read-only",
    errors.Corrupt: "corrupt",
    errors.Full: "full",
    NoSuchPath: "no-such-path",
    MethodNotAllowed: "method-not-allowed",
    HeadersTooLarge: "headers-too-large",
    PreconditionFailed: "precondition-failed",
    UnsatisfiableRange: "unsatisfiable-range",
    UnsupportedEncoding: "unsupported-encoding",
}
OUR_MISTAKE = "internal"


def render_error(error: TierceError | None) -> Answer:
    """The answer to an error; None stands for a mistake of ours, which is in the log."""
    if error is None:
        return render.problem(
            500, OUR_MISTAKE, "the node failed to answer", "This is a defect: see the node's log."
        )
    status = status_of(error, STATUS)
    name = next(NAMES[kind] for kind in type(error).__mro__ if kind in NAMES)
    return completed(render.problem(status, name, error.message, error.hint), error)
