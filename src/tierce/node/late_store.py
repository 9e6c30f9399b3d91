"""Reading from a store that may be late: peers are asked beside it, and who comes first is taken.

A store in the cloud that does not answer is known to be dead only after several attempts, and a reader
need not wait for these where other nodes have the blob. What the store was asked for goes on all the
same: how that ends tells the store's circuit how the service fares.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tierce.blobs.store import OpenBlob
from tierce.core.errors import TierceError


class LateStore:
    """After ``patience_seconds`` the store is late. Belongs to one event loop."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._left: dict[asyncio.Task[None], asyncio.Task[Any]] = {}

    async def sooner(
        self, asked: "asyncio.Task[Any]", elsewhere: Callable[[], Awaitable[OpenBlob]]
    ) -> OpenBlob | None:
        """The blob from elsewhere, if the store is late with what it was asked, and others are not.

        None: it is done with that, well or not. If this is cancelled, so is that.
        """
        instead: asyncio.Task[OpenBlob] | None = None
        try:
            await asyncio.wait({asked}, timeout=self._patience_seconds)
            if asked.done():
                return None
            instead = asyncio.create_task(_awaited(elsewhere))
            await asyncio.wait({asked, instead}, return_when=asyncio.FIRST_COMPLETED)
            if instead.done() and isinstance(instead.exception(), TierceError):
                await asyncio.wait({asked})
            if asked.done():
                return None
            found, instead = instead.result(), None
            return found
        except BaseException:
            asked.cancel()
            raise
        finally:
            if instead is not None:
                instead.cancel()
                self.leave(instead, opened(instead))

    def leave(self, asked: "asyncio.Task[Any]", work: Coroutine[Any, Any, None]) -> None:
        """Let ``work`` go on that nobody waits for, which ends when ``asked`` does."""
        task = asyncio.create_task(work)
        self._left[task] = asked
        task.add_done_callback(self._left.pop)

    async def close(self) -> None:
        """Give up what is under way."""
        for asked in self._left.values():
            asked.cancel()
        await asyncio.gather(*self._left)


async def _awaited(open_blob: Callable[[], Awaitable[OpenBlob]]) -> OpenBlob:
    return await open_blob()


async def opened(opening: "asyncio.Task[OpenBlob]") -> None:
    """Wait until a blob is open that nobody needs any more, and close it."""
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().aclose()
