"""What is dtfc's own in the names of things: hashes in paths, and the names of files.

The rules for names are the program's, so that a file has the same name here and there.
"""

import re

from tierce.core.digest import Digest

ALGORITHM = "sha512"
BUCKET = "dtfc"
"""Where the files' records are: the key is the hash, the name that of the file."""
DELETES = "dtfc-deletes"
"""Where it stands what peers are still to delete: the key is the hash, a slash, and the peer."""

_HASH = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)
_DASHED = re.compile(r"[ &_=+:]")
_DROPPED = re.compile(r"[^A-Za-z0-9~.\-]", re.ASCII)
_DASHES = re.compile(r"-{2,}")
_LETTERS = str.maketrans({
    "à": "a", "á": "a", "â": "a", "ã": "a", "ä": "a", "å": "aa", "æ": "ae", "ç": "c", "è": "e",
    "é": "e", "ê": "e", "ë": "e", "ì": "i", "í": "i", "î": "i", "ï": "i", "ð": "d", "ł": "l",
    "ñ": "n", "ń": "n", "ò": "o", "ó": "o", "ô": "o", "õ": "o", "ō": "o", "ö": "o", "ø": "oe",
    "ś": "s", "ù": "u", "ú": "u", "û": "u", "ū": "u", "ü": "u", "ý": "y", "þ": "th", "ÿ": "y",
    "ż": "z", "ß": "ss", "œ": "oe",
})  # fmt: skip
NAME_CHARACTERS = 255
"""Of longer names the end counts, as their extension is there."""


def digest_in(text: str) -> Digest | None:
    """The digest that a part of a path names, or None for what is no SHA-512 in hex."""
    return Digest(ALGORITHM, bytes.fromhex(text)) if _HASH.fullmatch(text) else None


def cleaned_name(text: str) -> str:
    """The name under which a file is kept; may be empty. In the order of the program's own steps.

    The end is ours: two dots that only met as what was between them went are removed too. So a name
    that was cleaned stays as it is, whichever nodes it passes.
    """
    name = text.rpartition("/")[2].lower().replace("..", "").strip(" ")
    name = _DASHED.sub("-", name.translate(_LETTERS))
    name = _DROPPED.sub("", name).replace("..", "")
    name = _DASHES.sub("-", name)[-NAME_CHARACTERS:]
    return "" if name == "." else name
