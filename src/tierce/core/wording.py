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


def did_you_mean(word: str, known: Iterable[str], otherwise: str, *, prefix: str = "") -> str:
    """``Did you mean X?`` with the known word nearest to ``word``, or else the sentence given.

    A ``prefix`` that all of them have is not compared: it would make any two look alike.
    """
    # Long words are cut: the comparison takes quadratic time, and no name is that long.
    start = word.removeprefix(prefix)[:_SHOWN_LIMIT_CHARACTERS]
    endings = [each.removeprefix(prefix) for each in known]
    nearest = difflib.get_close_matches(start, endings, n=1)
    return f"Did you mean {prefix}{nearest[0]}?" if nearest else otherwise
