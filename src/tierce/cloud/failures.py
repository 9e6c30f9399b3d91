"""What OpenDAL's exceptions mean: the one place where they become errors of ours.

``what`` in messages is the setting that names the service: the upstream, or the store.

Its Python exceptions tell the kind by their class, but only their text says whether the error may
pass: ``Unexpected (temporary) at read, context: {...} => reason``. Errors of an open file come as
OSError, with the same text. The context (URLs, headers) stays out of our messages.
"""

import re

from opendal import exceptions

from tierce.core.errors import BadRequest, NotFound, Refused, TierceError, TooLarge, Unavailable

MESSAGE_CHARACTERS = 300

OPENDAL_ERRORS: tuple[type[Exception], ...] = (
    exceptions.Error, exceptions.Unexpected, exceptions.Unsupported, exceptions.ConfigInvalid,
    exceptions.NotFound, exceptions.PermissionDenied, exceptions.IsADirectory,
    exceptions.NotADirectory, exceptions.AlreadyExists, exceptions.IsSameFile,
    exceptions.ConditionNotMatch, exceptions.RateLimited, exceptions.RangeNotSatisfied,
    exceptions.Conflict, OSError,
)  # fmt: skip
"""Every exception that an operation of OpenDAL can end with."""

_HEAD = re.compile(r"(\w+) \((temporary|permanent|persistent)\) at")
_SERVICE_ERROR = re.compile(r'[cC]ode: "?(\w+)"?, message: "((?:[^"\\]|\\.)*)"')
_HTTP_STATUS = re.compile(r"\bstatus: (\d{3})")
_SOURCE = re.compile(r"\n(?:Source|Caused by):\n\s+([^\n]+)")
_TOO_LARGE = ("EntityTooLarge", "MetadataTooLarge", "RequestBodyTooLarge")

UPSTREAM = "upstream"


class Passing(Unavailable):
    """One attempt failed in a way that the next may not."""


def translate(error: Exception, doing: str, what: str = UPSTREAM) -> TierceError:
    """An error of OpenDAL as one of ours. ``doing`` names the attempt."""
    text = str(error)
    head = _HEAD.match(text)
    if head is None:
        return Passing(_message(doing, text, what), hint=_later(what))
    kind, lasting = head.groups()
    reason = _reason(text)
    message = _message(doing, reason or kind, what)
    code = _SERVICE_ERROR.search(text)
    if (code is not None and code[1] in _TOO_LARGE) or reason == "HTTP status 413":
        return TooLarge(message, hint=f"The {what}'s service has a limit that this exceeds.")
    if kind == "NotFound":
        return NotFound(message)
    if kind == "PermissionDenied":
        return Refused(
            message,
            hint=f"Give the {what}'s credentials the rights to read, write, delete and list in the "
            "bucket.",
        )
    if kind == "Unsupported":
        return BadRequest(message, hint=f"Put the {what} on a service that can do it.")
    if lasting == "temporary":
        return Passing(message, hint=_later(what))
    return Unavailable(message, hint=_hint(kind, text, what))


def timed_out(doing: str, seconds: float, what: str = UPSTREAM) -> Passing:
    """No progress was made in time."""
    return Passing(_message(doing, f"no progress in {seconds:g} s", what), hint=_later(what))


def _later(what: str) -> str:
    return f"Look at the {what}'s status; it is asked again later."


def _hint(kind: str, text: str, what: str) -> str:
    if kind == "ConfigInvalid":
        return f"Check the {what}'s URL: the bucket, the region and the endpoint."
    if "credential" in text:
        return (
            "Give credentials: for S3 in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a "
            "role; for other services see docs/upstream.md."
        )
    return _later(what)


def _message(doing: str, reason: str, what: str) -> str:
    return f"the {what} failed while {doing}: {reason}"[:MESSAGE_CHARACTERS]


def _reason(text: str) -> str:
    """The part of OpenDAL's text that tells people something."""
    if told := _SERVICE_ERROR.search(text):
        return f"{told[2] or told[1]} ({told[1]})"
    if source := _SOURCE.search(text):
        return source[1].strip()
    line = text.partition("\n")[0]
    if " => " in line:
        return line.rpartition(" => ")[2].strip()
    status = _HTTP_STATUS.search(text)
    return f"HTTP status {status[1]}" if status else ""
