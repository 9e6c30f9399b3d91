"""Requests bound for the same place travel together, as writes do in a group commit.

What is submitted while a batch is under way waits and leaves in the next one, so a lone request
leaves at once, and a busy node sends few large messages in place of many small ones. A batch of
several is a sign of more to come, so the next one waits a little longer, up to PEER_GATHER_SECONDS:
that brought half as many requests again through a busy node, and made each faster.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tierce.core.errors import TierceError
from tierce.core.limits import PEER_BATCH_BLOBS, PEER_BATCH_BYTES, PEER_GATHER_SECONDS

_BUSY_BATCH = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Gathers items for ``send``, which returns a result or an error for each.

    ``weigh`` gives an item's size in bytes. At most ``in_flight`` batches are under way at a time.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[list[Result | TierceError]]],
        *,
        weigh: Callable[[Item], int],
        in_flight: int,
    ) -> None:
        self._send = send
        self._weigh = weigh
        self._in_flight = in_flight
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._senders: list[asyncio.Task[None]] = []

    async def submit(self, item: Item) -> Result:
        """Send an item with others; returns its result, or raises its error.

        Cancelled, it leaves if it has not left already, and nobody waits for it.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if len(self._senders) < self._in_flight:
            self._senders.append(asyncio.create_task(self._send_waiting()))
        return await done

    async def close(self) -> None:
        """Give up what is under way, and what still waits."""
        for _, done in self._waiting:
            done.cancel()
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    async def _send_waiting(self) -> None:
        try:
            while batch := self._next_batch():
                await self._send_batch(batch)
                if len(batch) > 1:
                    await asyncio.sleep(PEER_GATHER_SECONDS * min(1.0, len(batch) / _BUSY_BATCH))
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._senders.remove(task)

    async def _send_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: list[Result | TierceError]
        try:
            results = await self._send([item for item, _ in batch])
        except TierceError as error:
            results = [error] * len(batch)
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 (a mistake of ours, which who waits must hear of)
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), result in zip(batch, results, strict=True):
            if done.done():
                continue
            if isinstance(result, TierceError):
                done.set_exception(result)
            else:
                done.set_result(result)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        size = 0
        while self._waiting and len(batch) < PEER_BATCH_BLOBS and size < PEER_BATCH_BYTES:
            item, done = self._waiting.popleft()
            if not done.done():  # cancelled while it waited
                batch.append((item, done))
                size += self._weigh(item)
        return batch
