"""Asking peers until enough of them have done something: the best first, others for those that fail.

One that is late is not given up, but another one is asked beside it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tierce.cluster.member import Member
from tierce.core.errors import TierceError, Unavailable


async def enough(
    wanted: int,
    candidates: Sequence[Member],
    ask: Callable[[Member], Awaitable[object]],
    *,
    patience_seconds: float,
    what: str,
) -> None:
    """Return when ``wanted`` candidates have done it. Raises Unavailable if too few could.

    ``what`` says what is done, for the message. Those still under way are given up at the end.
    """
    waiting = list(candidates)
    running: set[asyncio.Task[object]] = set()
    failures: list[TierceError] = []
    done_count = late = 0
    try:
        while done_count < wanted:
            while waiting and len(running) - late < wanted - done_count:
                running.add(asyncio.create_task(_asking(ask, waiting.pop(0))))
            if not running:
                reason = f"; the last failure: {failures[-1].message}" if failures else ""
                raise Unavailable(
                    f"{what} on {done_count} of {wanted} other nodes that must have it{reason}",
                    hint="Try again when more nodes answer; see `tierce cluster status`.",
                )
            done, running = await asyncio.wait(
                running,
                timeout=patience_seconds if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                try:
                    task.result()
                    done_count += 1
                except TierceError as error:
                    failures.append(error)
            late = min(len(running), late if done else len(running))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _asking(ask: Callable[[Member], Awaitable[object]], member: Member) -> object:
    return await ask(member)
