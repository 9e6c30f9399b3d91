"""A large blob read from this node's disk, whose rest comes from peers if the copy here proves bad.

What the local copy has yielded was checked, so a reader notices nothing but a pause. To read on
elsewhere asks for the blob there, by which healing learns that it is to be put right here. It does
not know how peers are asked.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable

from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound


class ReplacedBlob:
    """An open blob (blobs/store.py). ``open_elsewhere`` finds it on peers, as Fetcher.open does."""

    def __init__(
        self, local: OpenBlob, open_elsewhere: Callable[[Digest], Awaitable[OpenBlob]]
    ) -> None:
        self.digest = local.digest
        self.size = local.size
        self.data: bytes | None = None
        self._local = local
        self._open_elsewhere = open_elsewhere

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See OpenBlob. Raises Corrupt if no peer has the blob, Unavailable if that can't be said."""
        position = start
        pieces = self._local.stream(start, stop)
        try:
            async for piece in pieces:
                position += len(piece)
                yield piece
            return
        except Corrupt as error:
            bad = error
        finally:
            await pieces.aclose()
        pieces = self._stream_elsewhere(bad, start, position, stop)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    async def aclose(self) -> None:
        await self._local.aclose()

    async def _stream_elsewhere(
        self, bad: Corrupt, start: int, position: int, stop: int | None
    ) -> AsyncGenerator[bytes, None]:
        try:
            blob = await self._open_elsewhere(self.digest)
        except NotFound:
            raise bad from None
        if blob.size != self.size:
            # The copy here was cut short, and its size was announced already.
            await blob.aclose()
            raise bad
        is_whole = start == 0 and (stop is None or stop >= self.size)
        # Only a whole blob can be held against its digest, so it is fetched from its beginning.
        skipped = position if is_whole else 0
        pieces = blob.stream() if is_whole else blob.stream(position, stop)
        try:
            async for piece in pieces:
                rest = piece[skipped:]
                skipped = max(0, skipped - len(piece))
                if rest:
                    yield rest
        finally:
            await pieces.aclose()
            await blob.aclose()
