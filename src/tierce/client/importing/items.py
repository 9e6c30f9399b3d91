"""What a source finds, and the body that is sent of it: verified before its last byte goes out.

A body whose digest is wrong, or that ended early, never comes whole to the node, so nothing of it is
kept there, whatever the node itself would check. A source is only ever read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import NamedTuple, Protocol

from tierce.client.uploads import Progress, bytes_body
from tierce.client.wire import SEND_PIECE_BYTES, Body
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import TierceError

_NO_METADATA: Mapping[str, str] = {}


class Item(NamedTuple):
    """Something to import. ``place`` is where it is, as its owner knows it (a path, a key).

    ``digest`` is what its name says, None if it says nothing; ``name`` and ``metadata`` are what a
    source has besides, ``key`` the id where that need not be a digest.
    """

    place: str
    digest: Digest | None
    key: str = ""
    name: str = ""
    metadata: Mapping[str, str] = _NO_METADATA


class Passed(NamedTuple):
    """Something that is not imported, and why. ``is_failure``: it should have been."""

    place: str
    reason: str
    is_failure: bool = False


Met = Item | Passed


class SourceTrouble(TierceError):
    """An item can't be read now: it is gone, was changed meanwhile, or its store has failed.

    ``is_remote``: the whole store may be out of reach.
    """

    def __init__(self, message: str, *, hint: str = "", is_remote: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_remote = is_remote


class Damaged(TierceError):
    """The bytes of an item are not those that its name says."""


class Content(Protocol):
    """An open item of ``size`` bytes. ``data`` is all of it where that is little."""

    size: int
    data: bytes | None

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes from the beginning, at each call. Raises SourceTrouble."""
        ...

    async def has_changed(self) -> bool:
        """Whether the item is another by now than the one that was opened."""
        ...


class Source(Protocol):
    """A store whose files are imported. ``label`` says which."""

    label: str

    def items(self) -> AsyncGenerator[Met, None]:
        """All that is there, found as it is asked for; memory does not depend on how much it is.

        Raises TierceError if the source as a whole can't be read.
        """
        ...

    def open(self, item: Item) -> AbstractAsyncContextManager[Content]:
        """Open an item. Raises SourceTrouble."""
        ...


async def verified(content: Content, item: Item, progress: Progress | None) -> Body:
    """A body that is whole only if it has the item's digest.

    Raises Damaged and SourceTrouble, for little content at once, else while it is sent.
    """
    if content.data is None:
        return Body(content.size, lambda: _checked(content, item, progress))
    if item.digest is not None and not item.digest.fits(content.data):
        raise await _mismatch(content, item, Digest.of(content.data, item.digest.algorithm))
    return bytes_body(content.data, progress)


async def digest_of(content: Content, algorithm: str) -> Digest:
    """The digest of an open item's bytes. Raises SourceTrouble."""
    if content.data is not None:
        return Digest.of(content.data, algorithm)
    hasher = new_hasher(algorithm)
    async with aclosing(content.pieces()) as pieces:
        async for piece in pieces:
            await asyncio.to_thread(hasher.update, piece)
    return Digest(algorithm, hasher.digest())


async def _checked(content: Content, item: Item, progress: Progress | None) -> AsyncIterator[bytes]:
    hasher = None if item.digest is None else new_hasher(item.digest.algorithm)
    held, sent = b"", 0
    async with aclosing(content.pieces()) as pieces:
        async for piece in pieces:
            if hasher is not None:
                await asyncio.to_thread(hasher.update, piece)
            for offset in range(0, len(piece), SEND_PIECE_BYTES):
                if held:
                    yield held
                    sent += len(held)
                    if progress is not None:
                        progress(sent, content.size)
                held = piece[offset : offset + SEND_PIECE_BYTES]
    if sent + len(held) != content.size:
        raise _changed()
    if hasher is not None and item.digest is not None and hasher.digest() != item.digest.raw:
        raise await _mismatch(content, item, Digest(item.digest.algorithm, hasher.digest()))
    yield held


async def _mismatch(content: Content, item: Item, actual: Digest) -> TierceError:
    if await content.has_changed():
        return _changed()
    return Damaged(f"it is corrupt: its bytes have the digest {actual}")


def _changed() -> SourceTrouble:
    return SourceTrouble(
        "it was changed while it was read", hint="Import again when nothing writes to it."
    )
