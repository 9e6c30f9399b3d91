"""The errors that cross layers: few, and split by what the caller does next.

Each carries a message (what happened) and a hint (what to do about it). None knows a status code:
every door owns one table from these classes to its answers, and a test proves that it covers all.
"""

import errno


class TierceError(Exception):
    """Base of the family. ``hint`` is a sentence that says what to do; it may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(TierceError):
    """The thing asked for is not here. Asking again changes nothing.

    ``found_bad``: it was here until just now, when the copy was found bad and set aside.
    """

    def __init__(self, message: str, *, hint: str = "", found_bad: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.found_bad = found_bad


class BadRequest(TierceError):
    """The request can't be carried out as it stands: correct it."""


class TooLarge(BadRequest):
    """A body, header or name is over its limit."""


class DigestMismatch(BadRequest):
    """The bytes that came are not the bytes that were announced. Nothing was stored."""


class TooSlow(BadRequest):
    """The client sent or took bytes more slowly than the limit. Nothing was stored."""


class Refused(TierceError):
    """The caller lacks a right."""


class Unauthenticated(Refused):
    """No token, or an unknown one, where one is needed."""


class Forbidden(Refused):
    """A valid token, without the right that this needs."""


class Conflict(TierceError):
    """The state of the store forbids it now, for instance a failed precondition."""


class Unavailable(TierceError):
    """It may work later or on another node: try again. ``retry_after_seconds``: if it is known when."""

    def __init__(
        self, message: str, *, hint: str = "", retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class TooManyRequests(Unavailable):
    """The caller sent more requests than it may in that time: send this one again later."""


class ReadOnly(Unavailable):
    """The node was set read-only by its operator."""


class Corrupt(TierceError):
    """Bytes on disk are not what they should be. They were not served."""


class Full(TierceError):
    """No room: the disk, or the reserve that is kept free, leaves no space for this."""


def named(name: str, message: str, hint: str) -> TierceError:
    """The error of this family whose class has a name, for those that come from another node.

    A class that is not known here (the other node may be newer) becomes Unavailable.
    """
    return _BY_NAME.get(name, Unavailable)(message, hint=hint)


def name_of(error: TierceError) -> str:
    """The name of the nearest class in this family, for another node's :func:`named`."""
    return next(each.__name__ for each in type(error).__mro__ if each.__name__ in _BY_NAME)


_BY_NAME: dict[str, type[TierceError]] = {
    each.__name__: each
    for each in (
        TierceError, NotFound, BadRequest, TooLarge, DigestMismatch, TooSlow, Refused,
        Unauthenticated, Forbidden, Conflict, Unavailable, TooManyRequests, ReadOnly, Corrupt, Full,
    )
}  # fmt: skip


def from_os_error(error: OSError, doing: str) -> TierceError:
    """The one place where the operating system's errors become ours. ``doing`` names the attempt."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Full(
            f"no space left while {doing}",
            hint="Free some space or add a disk; the node accepts writes again by itself.",
        )
    if error.errno == errno.EIO:
        return Corrupt(
            f"the disk reported an input/output error while {doing}",
            hint="Look at the kernel log, and replace the disk if it is failing.",
        )
    return Unavailable(
        f"{error.strerror or error} while {doing}",
        hint="Look at the node's log, then try again.",
    )
