"""A large blob read from this node's store, whose rest comes from peers if the copy here proves bad.

So it does if the store fails, or is late (late_store.py). What the local copy has yielded was checked,
so a reader notices nothing but a pause. To read on elsewhere asks for the blob there, by which healing
learns that it is to be put right here. It does not know how peers are asked.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.node.late_store import LateStore


class ReplacedBlob:
    """An open blob (blobs/store.py). ``open_elsewhere`` finds it on peers, as Fetcher.open does."""

    def __init__(
        self,
        local: OpenBlob,
        open_elsewhere: Callable[[Digest], Awaitable[OpenBlob]],
        late: LateStore | None = None,
    ) -> None:
        self.digest = local.digest
        self.size = local.size
        self.data: bytes | None = None
        self._local: OpenBlob | None = local
        self._open_elsewhere = open_elsewhere
        self._late = late

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See OpenBlob. Raises Corrupt if no peer has the blob, Unavailable if that can't be said."""
        position = start
        found: OpenBlob | None = None
        failure: TierceError = Unavailable(f"{self.digest} comes too late here", hint="Ask again.")
        if (local := self._local) is not None:
            pieces = local.stream(start, stop)
            try:
                while found is None:
                    piece, found = await self._next(local, pieces)
                    if piece is not None:
                        position += len(piece)
                        yield piece
                    elif found is None:
                        return
            except (Corrupt, Unavailable) as error:
                failure = error
            finally:
                if self._local is not None:
                    await pieces.aclose()
        if found is None:
            try:
                found = await self._elsewhere()
            except NotFound:
                raise failure from None
        rest = _rest(found, start, position, stop)
        try:
            async for piece in rest:
                yield piece
        finally:
            await rest.aclose()

    async def aclose(self) -> None:
        if self._local is not None:
            await self._local.aclose()

    async def _next(
        self, local: OpenBlob, pieces: AsyncGenerator[bytes, None]
    ) -> tuple[bytes | None, OpenBlob | None]:
        """The next piece, None at the end; or the blob from elsewhere, if the store is late with it."""
        if self._late is None:
            return await anext(pieces, None), None
        coming = asyncio.create_task(_one(pieces))
        try:
            found = await self._late.sooner(coming, self._elsewhere)
        except BaseException:
            await asyncio.wait({coming})  # a generator that runs can't be closed
            raise
        if found is None:
            return await coming, None
        self._local = None
        self._late.leave(coming, _end(coming, pieces, local))
        return None, found

    async def _elsewhere(self) -> OpenBlob:
        """The same blob on a peer. Raises NotFound, Unavailable."""
        blob = await self._open_elsewhere(self.digest)
        if blob.size != self.size:
            # The copy here was cut short, and its size was announced already.
            await blob.aclose()
            raise NotFound(f"{self.digest} has another size elsewhere")
        return blob


async def _one(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(pieces, None)


async def _end(
    coming: "asyncio.Task[bytes | None]", pieces: AsyncGenerator[bytes, None], blob: OpenBlob
) -> None:
    """Wait for a piece that nobody reads any more, and close the blob."""
    await asyncio.gather(coming, return_exceptions=True)
    await pieces.aclose()
    await blob.aclose()


async def _rest(
    blob: OpenBlob, start: int, position: int, stop: int | None
) -> AsyncGenerator[bytes, None]:
    """The bytes from ``position`` on, of a reading that began at ``start``. Closes the blob."""
    is_whole = start == 0 and (stop is None or stop >= blob.size)
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
