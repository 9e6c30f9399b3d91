"""Which of the sources of a file is asked: the fastest of late first, and the next ones before long."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import PEER_AVOIDED_SECONDS
from tierce.node.dtfc_source import Head, Source

_SPEED_MEMORY = 0.7


class Nowhere(Unavailable):
    """No source could be asked, or went on to the end, so nobody knows whether there is such a file."""


class Given(NamedTuple):
    """A source that answered, what it gave, and how to let go of it."""

    source: Source
    head: Head
    held: AsyncExitStack


class Race:
    """Who is asked first: the fastest of late, then the next ones, each a short delay later."""

    def __init__(self, hedge_seconds: float) -> None:
        self._hedge_seconds = hedge_seconds
        self._seconds: dict[str, float] = {}
        self._avoided_until: dict[str, float] = {}

    async def first(
        self, digest: Digest, sources: Sequence[Source], start: int, *, in_turn: bool = False
    ) -> Given:
        """The first source that answers with the file. Close what ``held`` holds.

        ``in_turn``: the sources are asked as they stand, each only after the one before has failed.
        Raises NotFound if one said so and none has it, Nowhere if none could be asked.
        """
        order = list(sources) if in_turn else sorted(sources, key=self._place)
        hedge_seconds = None if in_turn else self._hedge_seconds
        tasks: set[asyncio.Task[Given]] = set()
        try:
            winner = await self._winner(digest, order, start, hedge_seconds, tasks)
            tasks.discard(winner)
        finally:
            await _drop(tasks)
        return winner.result()

    def failed(self, source: Source) -> None:
        """Note that a source is not to be asked soon, if there are others."""
        now = asyncio.get_running_loop().time()
        self._avoided_until[source.label] = now + PEER_AVOIDED_SECONDS

    async def _winner(
        self,
        digest: Digest,
        waiting: list[Source],
        start: int,
        hedge_seconds: float | None,
        tasks: set[asyncio.Task[Given]],
    ) -> asyncio.Task[Given]:
        """The task of the first that has it. All that were started are in ``tasks``."""
        failures: list[TierceError] = []
        running: set[asyncio.Task[Given]] = set()
        while waiting or running:
            if waiting:
                task = asyncio.create_task(self._ask(waiting.pop(0), digest, start))
                tasks.add(task)
                running.add(task)
            done, running = await asyncio.wait(
                running,
                timeout=hedge_seconds if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if error is None:
                    return task
                if not isinstance(error, TierceError):
                    raise error
                failures.append(error)
        if any(isinstance(each, NotFound) for each in failures):
            raise NotFound(f"no peer that answers has {digest}")
        raise Nowhere(
            f"no peer could be asked for {digest}"
            + (f"; the last failure: {failures[-1].message}" if failures else ""),
            hint="Look at the peers, and at the peer list.",
        )

    async def _ask(self, source: Source, digest: Digest, start: int) -> Given:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with AsyncExitStack() as stack:
            try:
                head = await stack.enter_async_context(source.open(digest, start))
            except asyncio.CancelledError:
                # Another one was faster. How long this one would have taken is not known, but that
                # it is no faster than this is: one that never answers must not stay the first.
                took = loop.time() - began
                if took > self._seconds.get(source.label, 0.0):
                    self._took(source, took)
                raise
            except NotFound:
                self._took(source, loop.time() - began)
                raise
            except TierceError:
                self.failed(source)
                raise
            self._avoided_until.pop(source.label, None)
            self._took(source, loop.time() - began)
            return Given(source, head, stack.pop_all())
        raise AssertionError("unreachable")

    def _took(self, source: Source, seconds: float) -> None:
        before = self._seconds.get(source.label, seconds)
        self._seconds[source.label] = _SPEED_MEMORY * before + (1 - _SPEED_MEMORY) * seconds

    def _place(self, source: Source) -> tuple[bool, float]:
        """Where a source comes in the order; those equal stay in the order of the list."""
        is_avoided = self._avoided_until.get(source.label, 0.0) > asyncio.get_running_loop().time()
        return is_avoided, self._seconds.get(source.label, 0.0)


async def _drop(tasks: Iterable[asyncio.Task[Given]]) -> None:
    """Let go of those that lost, also of one that answered at the last moment."""
    for task in tasks:
        task.cancel()
    for late in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(late, Given):
            await late.held.aclose()
