"""Those who ask for the same thing at the same time share one request."""

import asyncio

import pytest

from tierce.blobs.flights import Flights


class Service:
    """Answers when it is let; counts requests, and those that were given up."""

    def __init__(self) -> None:
        self.flights: Flights[str, bytes] = Flights()
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.requests = 0
        self.given_up = 0

    async def answer(self) -> bytes:
        self.requests += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        return b"%d" % self.requests

    def ask(self, key: str = "key") -> "asyncio.Task[bytes]":
        return asyncio.create_task(self.flights.share(key, self.answer))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_come_meanwhile_share_a_request() -> None:
    service = Service()
    asking = [service.ask() for _ in range(3)]
    other = service.ask("other")
    await turns()
    service.go.set()
    assert set(await asyncio.gather(*asking)) == {b"2"}
    assert await other == b"2"
    assert service.requests == 2
    assert await service.ask() == b"3"


async def test_a_failure_is_that_of_all_and_the_next_asks_again() -> None:
    service = Service()
    service.error = OSError("broken")
    asking = [service.ask() for _ in range(2)]
    service.go.set()
    for each in asking:
        with pytest.raises(OSError, match="broken"):
            await each
    service.error = None
    assert await service.ask() == b"2"


async def test_who_leaves_takes_nothing_from_those_who_wait() -> None:
    service = Service()
    first, second = service.ask(), service.ask()
    await turns()
    first.cancel()
    await turns()
    service.go.set()
    assert await second == b"1"
    assert service.given_up == 0


async def test_a_request_that_nobody_waits_for_is_given_up() -> None:
    service = Service()
    asking = [service.ask() for _ in range(2)]
    await turns()
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    late = service.ask()
    await turns()
    assert (service.requests, service.given_up) == (2, 1)
    service.go.set()
    assert await late == b"2"
