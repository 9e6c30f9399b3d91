"""What OpenDAL's exceptions mean: the one place where they become errors of ours.

``what`` in messages is the setting that names the service: the upstream, or the store.

Its Python exceptions tell the kind by their class, but only their text says whether the error may
pass: ``Unexpected (temporary) at read, context: {...} => reason``. Errors of an open file come as
OSError, with the same text. The context (URLs, headers) stays out of our messages, and so does all
that hiding.py knows for a secret. Never raise one of ours ``from`` one of OpenDAL's: a traceback in the
log would show that one as it is.
"""

import re

from opendal import exceptions

from tierce.cloud.hiding import without_secrets
from tierce.cloud.refusals import refusal
from tierce.core.errors import (
    BadRequest,
    Full,
    NotFound,
    Refused,
    TierceError,
    TooLarge,
    Unavailable,
)

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
_CONTENDED = (409, 423)
"""Conflict and Locked: WebDAV while another client changes the same place, S3 in races."""
_RETRY_AFTER = re.compile(r'"retry-after": "(\d{1,9})"', re.IGNORECASE)
_SLOW_DOWN = re.compile(
    r"SlowDown|TooManyRequests|(?:Request|Bandwidth|[rR]ate)Limit|Throttl|ServerBusy|too_many_requests"
)
"""In the codes of services that are asked too much."""
_TOLD = re.compile(r'error_summary: "([^"]*)"|"error_description": ?"([^"]*)"')
_FULL = re.compile(
    r"insufficient_space|[qQ]uotaExceeded|quotaLimitReached|storage quota has been exc"
)
_NO_JSON = "=> deserialize json"
"""An answer that is none of the service's: of a proxy, or of a service that is down."""
_NO_TLS = "received corrupt message of type InvalidContentType"
_TOO_LARGE = ("EntityTooLarge", "MetadataTooLarge", "RequestBodyTooLarge")

UPSTREAM = "upstream"
STORE = "store"
"""What ``what`` may be."""


class Passing(Unavailable):
    """One attempt failed in a way that the next may not."""


class Lasting(Unavailable):
    """It fails until somebody puts something right, as a bucket that is not there."""


class Taken(Lasting):
    """The bucket belongs to another node now."""


class Contended(Passing):
    """The service answered that somebody else is at the same object: nothing was done."""


class SlowDown(Passing):
    """The service answered that it is asked too much: by all that is sent, not by this attempt."""


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
    if _is_slow_down(kind, text, code and code[1]):
        return SlowDown(
            message,
            hint=f"The {what}'s rate limit is reached; it is asked less for a while.",
            retry_after_seconds=_retry_after(text),
        )
    if kind == "NotFound":
        return NotFound(message)
    told = text.partition("\nContext:\n")[0]  # before what holds names of objects
    if _FULL.search(told) or reason == "HTTP status 507":
        return Full(message, hint=f"Make room at the {what}'s service, or get more there.")
    if refused := refusal(text, store=what != UPSTREAM):
        why = f"its credentials are refused: {refused.reason or reason or kind}"
        return Refused(_message(doing, why, what), hint=refused.hint)
    if kind == "PermissionDenied":
        return Refused(
            message,
            hint=f"Check that the {what}'s credentials are right and still hold, and give them the "
            "rights to read, write, delete and list in the bucket.",
        )
    if kind == "Unsupported":
        return BadRequest(message, hint=f"Put the {what} on a service that can do it.")
    status = _HTTP_STATUS.search(text)
    if kind == "Unexpected" and status is not None and int(status[1]) in _CONTENDED:
        return Contended(message, hint=_later(what))
    if _NO_TLS in text:
        return Passing(
            message,
            hint="What answers there speaks no TLS: write endpoint=http://HOST:PORT in the URL of "
            f"the {what}.",
        )
    if lasting == "temporary" or _NO_JSON in told:
        return Passing(message, hint=_later(what))
    is_lasting = kind in ("ConfigInvalid", "Unexpected") and lasting == "permanent"
    return (Lasting if is_lasting else Unavailable)(message, hint=_hint(kind, text, what))


def timed_out(doing: str, seconds: float, what: str = UPSTREAM) -> Passing:
    """No progress was made in time."""
    return Passing(_message(doing, f"no progress in {seconds:g} s", what), hint=_later(what))


def _is_slow_down(kind: str, text: str, code: str | None) -> bool:
    status = _HTTP_STATUS.search(text)
    number = status[1] if status else ""
    # There are answers without a code, as to HEAD: a 503 is taken so if it says until when.
    return (
        kind == "RateLimited"
        or number == "429"
        or (number == "503" and _retry_after(text) is not None)
        or (code is not None and _SLOW_DOWN.match(code) is not None)
    )


def _retry_after(text: str) -> float | None:
    found = _RETRY_AFTER.search(text)
    return float(found[1]) if found else None


def _later(what: str) -> str:
    return (
        f"Try again later. If it stays so, check the endpoint in the {what}'s URL, its service and "
        "the network."
    )


def _hint(kind: str, text: str, what: str) -> str:
    if kind == "ConfigInvalid":
        return f"Check the {what}'s URL: the bucket, the region and the endpoint."
    if "credential" in text:
        page = "storage" if what == STORE else "upstream"
        return (
            "Give credentials: for S3 in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (to `tierce cask` "
            "in CASK_S3_ACCESS_KEY and CASK_S3_SECRET_KEY), a profile or a role; for other services "
            f"see docs/{page}.md."
        )
    return _later(what)


def _message(doing: str, reason: str, what: str) -> str:
    return without_secrets(f"the {what} failed while {doing}: {reason}")[:MESSAGE_CHARACTERS]


def _reason(text: str) -> str:
    """The part of OpenDAL's text that tells people something."""
    if told := _SERVICE_ERROR.search(text):
        return f"{told[2] or told[1]} ({told[1]})"
    if found := _TOLD.search(text):
        return str(found[1] or found[2])
    if source := _SOURCE.search(text):
        return source[1].strip()
    line = text.partition("\n")[0]
    if " => " in line:
        return line.rpartition(" => ")[2].strip()
    status = _HTTP_STATUS.search(text)
    return f"HTTP status {status[1]}" if status else ""
