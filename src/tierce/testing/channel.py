"""One direction of a simulated connection: pieces of bytes in order, then an end or an error.

A sender waits while WINDOW_PIECES of its pieces have not been read. A piece that the network loses
stops the connection for good, in silence: neither side is told, and both have limits for that.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from tierce.core.errors import TierceError, Unavailable

WINDOW_PIECES = 2
_END = b""


class Wire(Protocol):
    """What a channel needs of the network (network.py)."""

    def count(self, host: str, path: str, size: int) -> None: ...

    def draw_delay(self, source: str, target: str, size: int) -> float | None: ...

    def later(self, delay_seconds: float, arrive: Callable[[], object]) -> None: ...


class Channel:
    """From ``source`` to ``target`` (hosts). ``on_close`` is called when the receiver lets go."""

    def __init__(self, wire: Wire, source: str, target: str, what: str) -> None:
        self._wire = wire
        self._source = source
        self._target = target
        self._what = what
        self._under_way: deque[bytes | TierceError] = deque()
        self._arrived: deque[bytes | TierceError] = deque()
        self._unread = 0
        self._in_order_after = 0.0
        self._is_stuck = False
        self._is_closed = False
        self._changed = asyncio.Event()
        self.on_close: Callable[[], object] = lambda: None
        self.has_sent = False
        self.progressed_at = asyncio.get_running_loop().time()

    async def send(self, piece: bytes) -> None:
        """Send a piece, once there is room for it. Raises Unavailable if nobody reads any more."""
        while not self._is_closed and (self._is_stuck or self._unread >= WINDOW_PIECES):
            self._changed.clear()
            await self._changed.wait()
        if self._is_closed:
            raise Unavailable("the connection broke off", hint="Try again.")
        if piece:
            self._put(piece)

    def end(self) -> None:
        """Nothing comes after this."""
        self._put(_END)

    def fail(self, error: TierceError) -> None:
        """Break off; the receiver sees the error after what was sent before."""
        self._put(error)

    async def receive(self, limit_seconds: float) -> bytes:
        """The next piece, or empty bytes at the end. Raises the sender's error, or Unavailable."""
        try:
            async with asyncio.timeout(limit_seconds):
                while not self._arrived:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable(
                f"nothing came from {self._source} for {limit_seconds:g} s", hint="Try again."
            ) from None
        found = self._arrived[0]
        if isinstance(found, TierceError):
            raise found
        if found:
            self._arrived.popleft()
            self._unread -= 1
            self.progressed_at = asyncio.get_running_loop().time()
            self._changed.set()
        return found

    async def pieces(self, size: int, limit_seconds: float) -> AsyncGenerator[bytes, None]:
        """Exactly ``size`` bytes, piece by piece. Raises Unavailable if fewer or more come."""
        left = size
        while piece := await self.receive(limit_seconds):
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise Unavailable(f"{self._source} sent {size - left} bytes of {size}")

    def close(self) -> None:
        """The receiver reads no more; the sender finds out."""
        if not self._is_closed:
            self._is_closed = True
            delay = self._wire.draw_delay(self._target, self._source, 0)
            if delay is not None:
                self._wire.later(delay, self._closed)

    def _closed(self) -> None:
        self._changed.set()
        self.on_close()

    def _put(self, what: bytes | TierceError) -> None:
        if self._is_stuck or self._is_closed:
            return
        size = len(what) if isinstance(what, bytes) else 0
        self.has_sent = True
        self._unread += 1
        self._wire.count(self._source, self._what, size)
        delay = self._wire.draw_delay(self._source, self._target, size)
        if delay is None:
            self._is_stuck = True
            return
        self._under_way.append(what)
        now = asyncio.get_running_loop().time()
        self._in_order_after = max(self._in_order_after, now + delay)
        self._wire.later(self._in_order_after - now, self._arrive)

    def _arrive(self) -> None:
        self._arrived.append(self._under_way.popleft())
        self._changed.set()
