"""Where a key stands in a request, and what is accepted as one.

Cask cuts the raw address, query included, at its slashes and counts the parts. So does this, but
what it finds must be a key to the letter before anything is looked up by it.
"""

from urllib.parse import unquote

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, NotFound
from tierce.core.wording import quoted
from tierce.doors.cask.uploads import ALGORITHM


class BadPath(BadRequest):
    """An address with too few or too many parts."""


class InvalidKey(BadRequest):
    """A text that is not ``sha1:`` and 40 lower-case hex digits."""


class NotHere(NotFound):
    """This node has no such blob; a peer asked, which knows other words than a client."""


def parse_key(text: str) -> Digest:
    """The digest that a key names. Raises InvalidKey."""
    try:
        digest = Digest.parse(text)
    except BadRequest as error:
        raise InvalidKey(error.message, hint=error.hint) from None
    if digest.algorithm != ALGORITHM:
        raise InvalidKey(f"{digest} is not a {ALGORITHM} digest")
    return digest


def key_in(target: str) -> str:
    """The text in the place of the key in ``/file/KEY/`` and its like.

    ``target`` is path and query, as sent. The end slash may be missing, and one part more may
    follow it, which means nothing. Raises BadPath.
    """
    parts = target.split("/")
    if len(parts) == 4:
        return unquote(parts[2], errors="replace")
    text = parts[2].partition("?")[0] if len(parts) == 3 else ""
    if not text:
        raise BadPath(f"{quoted(target)} has no key, or more than one part behind it")
    return unquote(text, errors="replace")
