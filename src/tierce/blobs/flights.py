"""Those who ask for the same thing at the same time share one request."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, task: "asyncio.Task[T]") -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[K, T]):
    """Requests under way, by key. One that nobody waits for any more is given up."""

    def __init__(self) -> None:
        self._under_way: dict[K, _Flight[T]] = {}

    async def share(self, key: K, make: Callable[[], Awaitable[T]]) -> T:
        """What ``make`` returns or raises, or that of another caller who is waiting for it now."""

        async def request() -> T:
            return await make()

        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = _Flight(asyncio.create_task(request()))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.task.done() or not flight.waiting:
                flight.task.cancel()  # without effect on one that is done
                if self._under_way.get(key) is flight:
                    del self._under_way[key]
