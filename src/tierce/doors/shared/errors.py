"""What HTTP itself asks of an answer to an error, in whatever words a door puts it (RFC 9110)."""

import math

from tierce.core.errors import TierceError, TooSlow, Unauthenticated, Unavailable
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed

RETRY_AFTER_SECONDS = 1


def completed(answer: Answer, error: TierceError) -> Answer:
    """Add the headers that go with an error, and end the connection where it can't go on."""
    if isinstance(error, Unauthenticated):
        answer.add_headers([("WWW-Authenticate", 'Bearer realm="tierce"')])
    elif isinstance(error, MethodNotAllowed):
        answer.add_headers([("Allow", error.allowed)])
    elif isinstance(error, UnsatisfiableRange):
        answer.add_headers([("Content-Range", error.content_range)])
    elif isinstance(error, Unavailable):
        seconds = max(RETRY_AFTER_SECONDS, math.ceil(error.retry_after_seconds or 0))
        answer.add_headers([("Retry-After", str(seconds))])
    elif isinstance(error, (TooSlow, HeadersTooLarge)):
        answer.close()
    return answer
