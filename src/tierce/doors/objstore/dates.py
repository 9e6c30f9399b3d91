"""Conditions with dates beside those with tags (RFC 9110, section 13.2.2).

The doors for blobs have no dates (doors/shared/conditions.py); a file here has one, to the second. A
condition with a tag leaves the one with a date unread.
"""

from collections.abc import Callable
from datetime import datetime

from aiohttp import web
from aiohttp.helpers import parse_http_date

from tierce.doors.shared.answers import Answer
from tierce.doors.shared.sending import Check, PreconditionFailed, check_conditions


def dated(modified_seconds: int) -> Check:
    """The check of a request for a file that was modified then, in seconds since 1970."""

    def check(request: web.BaseRequest, etag: str) -> Answer | None:
        answer = check_conditions(request, etag)
        if "If-Match" not in request.headers and _holds(
            request, "If-Unmodified-Since", lambda date: modified_seconds > date.timestamp()
        ):
            raise PreconditionFailed(
                "the file was modified since the time in If-Unmodified-Since",
                hint="Leave the header out, or send the time in Last-Modified.",
            )
        if "If-None-Match" not in request.headers and _holds(
            request, "If-Modified-Since", lambda date: modified_seconds <= date.timestamp()
        ):
            return Answer(304)
        return answer

    return check


def _holds(request: web.BaseRequest, header: str, test: Callable[[datetime], bool]) -> bool:
    """Whether a header has a date, and the date passes the test. What is no date is ignored."""
    if header not in request.headers:
        return False
    try:
        date = parse_http_date(request.headers.get(header))
    except (OverflowError, ValueError):
        return False
    return date is not None and test(date)
