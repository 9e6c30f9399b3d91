"""Where a file of dtfc may be had from that is not here: a peer, or the tree of the program itself."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from tierce.core.digest import Digest


class Head(NamedTuple):
    """A file on its way here: the size of the whole in bytes (None if it is not told), the position
    from which on the pieces are, the name that the source has for it, and the pieces. None of it is
    to be trusted.
    """

    size: int | None
    start: int
    name: str
    pieces: AsyncIterator[bytes]


class Source(Protocol):
    """One place to ask. ``label`` is what the log calls it."""

    label: str

    def open(self, digest: Digest, start: int = 0) -> AbstractAsyncContextManager[Head]:
        """Ask for a file, from ``start`` on; a source that can't do that gives the whole.

        Raises NotFound, or another error of the family for what keeps it from answering; so may the
        pieces, midway.
        """
        ...
