"""How the SOS doors word errors: JSON with ``status`` FAILED for those who upload, text for others.

What is not there, and what no door has a path or method for, is 404 with the body ``404``, as in SOS;
from the upload door with JSON, as all else there.
"""

from tierce.core import errors
from tierce.core.errors import TierceError
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.door import StatusTable, status_of
from tierce.doors.shared.errors import completed
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.doors.shared.sending import PreconditionFailed
from tierce.doors.sos import render

STATUS: StatusTable = {
    errors.NotFound: 404,
    errors.BadRequest: 400,
    errors.TooLarge: 413,
    errors.DigestMismatch: 400,
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
    MethodNotAllowed: 404,
    HeadersTooLarge: 431,
    PreconditionFailed: 412,
    UnsatisfiableRange: 416,
    UnsupportedEncoding: 415,
}
OUR_MISTAKE = "the node failed to answer: see its log"


def upload_error(error: TierceError | None) -> Answer:
    """The upload door's answer; None stands for a mistake of ours, which is in the log."""
    return _completed(render.failed(_status(error), _text(error)), error)


def download_error(error: TierceError | None) -> Answer:
    """The download door's answer, as :func:`upload_error`."""
    status = _status(error)
    return _completed(render.text(status, "404" if status == 404 else _text(error)), error)


def blob_error(error: TierceError | None) -> Answer:
    """The blob door's answer, as :func:`upload_error`."""
    status = _status(error)
    answer = render.text(404, "404") if status == 404 else render.failed(status, _text(error))
    return _completed(answer, error)


def _status(error: TierceError | None) -> int:
    return 500 if error is None else status_of(error, STATUS)


def _text(error: TierceError | None) -> str:
    """Message and hint in one line."""
    if error is None:
        return OUR_MISTAKE
    return f"{error.message}. {error.hint}" if error.hint else error.message


def _completed(answer: Answer, error: TierceError | None) -> Answer:
    # A wrong method is 404 here, so nothing is said of those that are right.
    if error is None or isinstance(error, MethodNotAllowed):
        return answer
    return completed(answer, error)
