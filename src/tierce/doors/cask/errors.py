"""How the Cask door words errors: plain text, in Cask's own words wherever it has some.

Clients and peers compare statuses and texts to the byte, so here stands which text ends in two line
ends. Where Cask has no words of its own, the text is the message, and the hint in a second line.
"""

from collections.abc import Mapping

from tierce.core import errors
from tierce.core.errors import Corrupt, Forbidden, TierceError, Unavailable
from tierce.doors.cask import render
from tierce.doors.cask.forms import NotJson
from tierce.doors.cask.keys import BadPath, InvalidKey, NotHere
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.errors import completed
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.doors.shared.sending import PreconditionFailed


class WrongSecret(Forbidden):
    """A node without the cluster's secret."""


class JoinRefused(Forbidden):
    """Someone who wants to join a node, without the cluster's secret."""


class NoCluster(Unavailable):
    """What was asked for needs a cluster."""


class NotAHeartbeat(MethodNotAllowed):
    """Another method than POST on the heartbeat's path."""


class NotWritten(Corrupt):
    """The disk failed while a file was written."""


# Status and text, without its last line end; no text stands for the error's own message.
TEXTS: Mapping[type[TierceError], tuple[int, str | None]] = {
    errors.NotFound: (404, "not found"),
    errors.BadRequest: (400, None),
    errors.TooLarge: (413, "file too large"),
    errors.DigestMismatch: (400, None),
    errors.TooSlow: (408, None),
    errors.Refused: (403, None),
    errors.Unauthenticated: (401, None),
    errors.Forbidden: (403, None),
    errors.Conflict: (409, None),
    errors.Unavailable: (503, None),
    errors.TooManyRequests: (429, None),
    errors.ReadOnly: (503, "this node is read-only"),
    errors.Corrupt: (500, "error reading file"),
    errors.Full: (503, "this node is full"),
    NoSuchPath: (404, "not found"),
    MethodNotAllowed: (405, "method not supported"),
    HeadersTooLarge: (431, None),
    PreconditionFailed: (412, None),
    UnsatisfiableRange: (416, None),
    UnsupportedEncoding: (415, None),
    BadPath: (400, "bad request"),
    InvalidKey: (400, "invalid key\n"),
    NotHere: (404, "not found\n"),
    NotJson: (500, None),
    WrongSecret: (403, "sorry, need the secret knock"),
    JoinRefused: (403, "need to know the secret knock"),
    NoCluster: (503, None),
    NotAHeartbeat: (405, "method not allowed"),
    NotWritten: (500, "could not write file"),
}


def render_error(error: TierceError | None) -> Answer:
    """The answer to an error; None stands for a mistake of ours, which is in the log."""
    if error is None:
        return render.error(500, "internal server error")
    status, text = next(TEXTS[kind] for kind in type(error).__mro__ if kind in TEXTS)
    if text is None:
        text = "\n".join(filter(None, (error.message, error.hint)))
    return completed(render.error(status, text), error)
