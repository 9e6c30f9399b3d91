"""The names of blobs: an algorithm and the bytes of its digest.

Written ``algorithm:hex``, in lower case, and nothing else is accepted: paths on disk are made
from parsed digests only, so what this module lets through can never leave a directory.
Digests sort by algorithm name, then by bytes, which is also the order of their text.
"""

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from blake3 import blake3

from tierce.core.errors import BadRequest


class Hasher(Protocol):
    """What hashlib and blake3 objects have in common. Large updates run without the GIL."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


class Algorithm(NamedTuple):
    """A digest algorithm: its name, the length of its digest in bytes, and a new hasher.

    ``new(data)`` has hashed ``data`` already.
    """

    name: str
    size_bytes: int
    new: Callable[..., Hasher]


ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("blake3", 32, blake3),
        Algorithm("sha1", 20, hashlib.sha1),
        Algorithm("sha256", 32, hashlib.sha256),
        Algorithm("sha512", 64, hashlib.sha512),
    )
}
DEFAULT_ALGORITHM = "blake3"

_LOWER_HEX = re.compile(r"[0-9a-f]+").fullmatch


class Digest(NamedTuple):
    """The name of a blob. Build one with :meth:`parse` or :meth:`of`, never from unchecked parts."""

    algorithm: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read ``algorithm:hex``. Raises BadRequest, with a hint, for anything else."""
        name, colon, digits = text.partition(":")
        algorithm = ALGORITHMS.get(name)
        if not colon or algorithm is None:
            raise BadRequest(
                f"{_shown(text)} is not a digest",
                hint=f"Write ALGORITHM:HEX, where ALGORITHM is one of {', '.join(ALGORITHMS)}.",
            )
        if len(digits) != 2 * algorithm.size_bytes or not _LOWER_HEX(digits):
            raise BadRequest(
                f"{_shown(text)} is not a {name} digest",
                hint=f"Write {name}: and {2 * algorithm.size_bytes} lower-case hex digits.",
            )
        return cls(name, bytes.fromhex(digits))

    @classmethod
    def of(
        cls, data: bytes | bytearray | memoryview, algorithm: str = DEFAULT_ALGORITHM
    ) -> "Digest":
        """Hash bytes held in memory. Raises BadRequest for an unknown algorithm."""
        return cls(algorithm, new_hasher(algorithm, data).digest())

    def fits(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether these bytes, held in memory, have this digest."""
        return ALGORITHMS[self.algorithm].new(data).digest() == self.raw

    @property
    def hex(self) -> str:
        """The digest in lower-case hex, without the algorithm."""
        return self.raw.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.raw.hex()}"

    def __repr__(self) -> str:
        return f"Digest.parse({str(self)!r})"


def new_hasher(algorithm: str, data: bytes | bytearray | memoryview = b"") -> Hasher:
    """Start a digest, with ``data`` hashed already. Raises BadRequest for an unknown algorithm."""
    known = ALGORITHMS.get(algorithm)
    if known is None:
        raise BadRequest(
            f"{_shown(algorithm)} is not a digest algorithm",
            hint=f"Use one of {', '.join(ALGORITHMS)}.",
        )
    return known.new(data)


def _shown(text: str) -> str:
    """Hostile text made fit for a message: quoted, escaped, cut."""
    return ascii(text if len(text) <= 160 else text[:160] + "...")
