"""A fake server, and a client of it that doesn't wait long."""

from collections.abc import AsyncIterator

import pytest
from tests.unit.client.fake_server import FakeServer

from tierce.client import Client, Retry

QUICK = Retry(attempts=4, backoff_min_seconds=0.001, backoff_max_seconds=0.002)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer().serving() as server:
        yield server


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[Client]:
    async with Client(server.url, retry=QUICK) as client:
        yield client
