"""How messages quote what someone wrote, and how they guess what was meant.

What comes from outside may be hostile or huge: it is escaped to ASCII and cut before it is shown.
"""

import difflib
from collections.abc import Iterable

_SHOWN_LIMIT_CHARACTERS = 160


def quoted(value: object) -> str:
    """A value made fit for a message: text in quotes, escaped and cut; anything else as Python."""
    if isinstance(value, str) and len(value) > _SHOWN_LIMIT_CHARACTERS:
        return ascii(value[:_SHOWN_LIMIT_CHARACTERS] + "...")
    text = ascii(value)
    if not isinstance(value, str) and len(text) > _SHOWN_LIMIT_CHARACTERS:
        return text[:_SHOWN_LIMIT_CHARACTERS] + "..."
    return text


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """``Did you mean X?`` with the known word nearest to ``word``, or else the sentence given."""
    # Long words are cut: the comparison takes quadratic time, and no name is that long.
    nearest = difflib.get_close_matches(word[:_SHOWN_LIMIT_CHARACTERS], list(known), n=1)
    return f"Did you mean {nearest[0]}?" if nearest else otherwise
