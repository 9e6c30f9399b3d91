"""Bodies that are on this node while they pass between a client of SOS and a blob server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing

from tierce.blobs.spool import SpoolSource
from tierce.client.wire import SEND_PIECE_BYTES
from tierce.core.limits import KIB

# What is sent without waiting for its reader.
AT_ONCE_BYTES = 64 * KIB


class Sending(AsyncIterator[bytes]):
    """A source's content in pieces for one attempt to send it.

    An attempt that is given up may leave its sender in the middle of a piece: closing waits for it.
    ``moved_at`` is when a piece was last asked for, by the event loop's clock.
    """

    def __init__(self, source: SpoolSource) -> None:
        self._stream = source.stream()
        self._turn = asyncio.Lock()
        self._piece = memoryview(b"")
        self.moved_at = asyncio.get_running_loop().time()

    async def __anext__(self) -> bytes:
        self.moved_at = asyncio.get_running_loop().time()
        async with self._turn:
            if not self._piece:
                self._piece = memoryview(await anext(self._stream))
            part, self._piece = self._piece[:SEND_PIECE_BYTES], self._piece[SEND_PIECE_BYTES:]
            return bytes(part)

    async def aclose(self) -> None:
        """Let go of the source, once nobody is reading from it."""
        async with self._turn:
            await self._stream.aclose()


class Memory:
    """The memory that bodies may take up together, in bytes. Belongs to one event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self._free = limit_bytes

    def hold(self, size: int, stack: ExitStack) -> bool:
        """Whether ``size`` bytes fit in; then they are held until ``stack`` is closed."""
        if size > self._free:
            return False
        self._free -= size
        stack.callback(self._release, size)
        return True

    def _release(self, size: int) -> None:
        self._free += size


class Taken:
    """A SosContent (core/sos.py) that is here, verified; ``held`` is closed with it."""

    def __init__(self, source: SpoolSource, held: ExitStack) -> None:
        self._source = source
        self._held = held
        self.size = source.size

    @property
    def data(self) -> bytes | None:
        """The whole body, if it is in memory and small.

        Who sends it at once closes this before it is all sent, so larger ones are only streamed.
        """
        return self._source.data if self.size <= AT_ONCE_BYTES else None

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of [start, stop)."""
        stop = self.size if stop is None else stop
        position = 0
        async with aclosing(self._source.stream()) as pieces:
            async for piece in pieces:
                part = memoryview(piece)[max(0, start - position) : max(0, stop - position)]
                position += len(piece)
                for begin in range(0, len(part), SEND_PIECE_BYTES):
                    yield bytes(part[begin : begin + SEND_PIECE_BYTES])
                if position >= stop:
                    return

    async def aclose(self) -> None:
        """Let go of memory and file. No one may be reading any more."""
        self._source.close()
        self._held.close()
