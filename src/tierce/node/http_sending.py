"""What aiohttp's client does not see to by itself when it sends to another node.

A body is watched as it is taken, a request is sent once, and one that failed lets go of its
connection at once, whatever the peer does. It knows no messages, no errors of ours and no addresses.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp

# To sync a large file may take the peer longer than it may pause in any other way.
LAST_ANSWER_STALLS = 6


class Sending(AsyncIterator[bytes]):
    """The pieces of an upload, with a deadline on their being taken, never on their being made.

    aiohttp asks for them in a task of its own, which may still be in the midst of one when the
    request has ended.
    """

    def __init__(self, pieces: AsyncIterator[bytes], size: int, stall_seconds: float) -> None:
        self._pieces = pieces
        self._missing = size
        self._stall_seconds = stall_seconds
        self._idle = asyncio.Event()
        self._idle.set()
        self._answered = False
        self.deadline: asyncio.Timeout | None = None
        self.failure: Exception | None = None

    async def __anext__(self) -> bytes:
        self._allow(None)
        self._idle.clear()
        try:
            piece = await anext(self._pieces, None)
            self._missing -= len(piece or b"")
            assert piece is not None or not self._missing, "a body of another size than announced"
            assert self._missing >= 0, "a body of another size than announced"
        except Exception as failure:
            # aiohttp wraps it in an error of its own; the caller wants this one.
            self.failure = failure
            raise
        finally:
            self._idle.set()
        if piece is None:
            self._allow(LAST_ANSWER_STALLS * self._stall_seconds)
            raise StopAsyncIteration
        self._allow(self._stall_seconds)
        return piece

    def stop(self) -> None:
        """The answer is coming: whether the rest of the body is taken no longer matters."""
        self._allow(self._stall_seconds)
        self._answered = True

    async def close(self) -> None:
        """Close the pieces, once nobody waits for one any more."""
        await self._idle.wait()
        if isinstance(self._pieces, AsyncGenerator):
            await self._pieces.aclose()

    def _allow(self, seconds: float | None) -> None:
        if self._answered or self.deadline is None or self.deadline.expired():
            return
        loop = asyncio.get_running_loop()
        self.deadline.reschedule(None if seconds is None else loop.time() + seconds)


class Request(aiohttp.ClientRequest):
    """A request that knows what it is sent by."""

    transport: asyncio.Transport | None = None

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        self.transport = conn.transport
        return await super().send(conn)


async def once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a request by itself: its nonce is good for one.

    What fails is broken off. To close is not enough: that waits until the peer takes what is unsent.
    """
    try:
        return await handler(request)
    except BaseException as problem:
        if isinstance(request, Request) and request.transport is not None:
            request.transport.abort()
        repeated = isinstance(problem, (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError))
        if repeated and not isinstance(problem, aiohttp.ClientConnectorError):
            raise aiohttp.ClientConnectionError(str(problem)) from problem
        raise
