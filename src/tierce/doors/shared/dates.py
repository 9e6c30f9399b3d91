"""Dates of what is served, and conditions with dates beside those with tags (RFC 9110, 13.2.2).

Blobs have no dates (conditions.py); what was put under a name has one, to the second. A condition with
a tag leaves the one with a date unread.
"""

from collections.abc import Callable
from datetime import datetime
from email.utils import formatdate
from functools import lru_cache

from aiohttp import web
from aiohttp.helpers import parse_http_date

from tierce.doors.shared.answers import Answer
from tierce.doors.shared.sending import Check, PreconditionFailed, check_conditions

_NANOSECONDS = 1_000_000_000
_LAST_DATE_SECONDS = 253_402_300_799  # the end of the year 9999


def whole_seconds(nanoseconds: int) -> int:
    """A time in whole seconds since 1970, as far as a date can say that."""
    return min(max(0, nanoseconds // _NANOSECONDS), _LAST_DATE_SECONDS)


@lru_cache(1024)
def http_date(seconds: int) -> str:
    """The same as a header has it."""
    return formatdate(seconds, usegmt=True)


def dated(modified_seconds: int) -> Check:
    """The check of a request for a file that was modified then, in seconds since 1970."""

    def check(request: web.BaseRequest, etag: str) -> Answer | None:
        answer = check_conditions(request, etag)
        headers = request.headers
        if "If-Unmodified-Since" not in headers and "If-Modified-Since" not in headers:
            return answer
        check_unmodified(request, modified_seconds)
        if "If-None-Match" not in request.headers and _holds(
            request, "If-Modified-Since", lambda date: modified_seconds <= date.timestamp()
        ):
            return Answer(304)
        return answer

    return check


def check_unmodified(request: web.BaseRequest, modified_seconds: int) -> None:
    """Raise PreconditionFailed if a file was modified, in seconds since 1970, after the time that
    If-Unmodified-Since names.
    """
    if "If-Match" not in request.headers and _holds(
        request, "If-Unmodified-Since", lambda date: modified_seconds > date.timestamp()
    ):
        raise PreconditionFailed(
            "the file was modified since the time in If-Unmodified-Since",
            hint="Leave the header out, or send the time in Last-Modified.",
        )


def _holds(request: web.BaseRequest, header: str, test: Callable[[datetime], bool]) -> bool:
    """Whether a header has a date, and the date passes the test. What is no date is ignored."""
    if header not in request.headers:
        return False
    try:
        date = parse_http_date(request.headers.get(header))
    except (OverflowError, ValueError):
        return False
    return date is not None and test(date)
