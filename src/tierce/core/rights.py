"""What a caller may do, and the tokens that say so.

A token's text is known only to who holds it: here are its name, its rights and its SHA-256. As the
text is long and random, a plain hash is enough, and a leaked settings file opens nothing.
"""

import enum
import hashlib
import re
from typing import NamedTuple

from tierce.core.errors import BadRequest
from tierce.core.wording import did_you_mean, quoted


class Right(enum.StrEnum):
    """One kind of request. No right includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


ALL_RIGHTS = frozenset(Right)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_HASH = re.compile(r"sha256-[0-9a-f]{64}", re.ASCII)
_TOKEN_HINT = "Write NAME:RIGHTS:sha256-HEX; `tierce token new` prints such a line."  # noqa: S105


def parse_rights(text: str) -> frozenset[Right]:
    """Read rights joined by ``+``, at least one. Raises BadRequest for anything else."""
    known = [str(right) for right in Right]
    names = [name.strip() for name in text.split("+")]
    for name in names:
        if name not in known:
            form = f"Join with +, as in read+write; the rights are {', '.join(known)}."
            raise BadRequest(f"{quoted(name)} is not a right", hint=did_you_mean(name, known, form))
    return frozenset(Right(name) for name in names)


def format_rights(rights: frozenset[Right]) -> str:
    """The rights joined by ``+``, always in the same order."""
    return "+".join(right for right in Right if right in rights)


def hash_token(text: str) -> bytes:
    """The SHA-256 under which the token with this text is kept. Any text has one.

    Headers may hold bytes that are no UTF-8, which arrive here as lone surrogates.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Token(NamedTuple):
    """A token as the settings hold it, written ``NAME:RIGHTS:sha256-HEX``."""

    name: str
    rights: frozenset[Right]
    sha256: bytes

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Read the written form. Raises BadRequest, which never shows more than the name.

        Someone may have written the token itself where its hash belongs.
        """
        name, _, rest = text.strip().partition(":")
        rights, colon, digest = rest.partition(":")
        if not colon:
            raise BadRequest("it does not have the three parts of a token", hint=_TOKEN_HINT)
        _check_name(name)
        if not _HASH.fullmatch(digest):
            raise BadRequest(
                f"the third part of the token {name} is not a SHA-256",
                hint=f"{_TOKEN_HINT} The token itself does not belong in the settings.",
            )
        try:
            granted = parse_rights(rights)
        except BadRequest as error:
            raise BadRequest(f"the token {name} has a wrong right", hint=error.hint) from None
        return cls(name, granted, bytes.fromhex(digest.removeprefix("sha256-")))

    @classmethod
    def of(cls, name: str, rights: frozenset[Right], text: str) -> "Token":
        """The entry for a token with this text. Raises BadRequest if the name can't be written."""
        _check_name(name)
        return cls(name, rights, hash_token(text))

    def __str__(self) -> str:
        return f"{self.name}:{format_rights(self.rights)}:sha256-{self.sha256.hex()}"

    @property
    def masked(self) -> str:
        """The same text with the hash cut short: enough to recognize it."""
        return f"{self.name}:{format_rights(self.rights)}:sha256-{self.sha256.hex()[:8]}…"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            "the name of a token is not right",
            hint="Use 1 to 64 letters, digits, dots, dashes or underscores.",
        )
