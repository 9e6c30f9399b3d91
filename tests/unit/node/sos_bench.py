"""A SOS gateway over blob servers of both generations, and what its tests share."""

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.unit.node.fakes import spooler

from tierce.client.sos import SosClient
from tierce.core.limits import KIB
from tierce.core.sos import SosFound
from tierce.node.sos_gateway import SosGateway
from tierce.testing.sos_servers import SosServer, serving_sos

# What counts as large in these tests, so that they need few bytes.
LOW_LIMIT_BYTES = 256 * KIB
SMALL = b"hello sos\n"
LARGE = random.Random(1).randbytes(500_000)


def sha1(data: bytes) -> str:
    """The id of a body."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


class Bench(NamedTuple):
    """A gateway over three servers, a Perl one and a Go one among them."""

    gateway: SosGateway
    servers: list[SosServer]
    directory: Path

    def holders(self, data: bytes) -> list[int]:
        """Which servers have exactly these bytes under their SHA-1."""
        return [
            number
            for number, each in enumerate(self.servers)
            if each.objects.get(sha1(data)) == data
        ]

    def gets(self) -> list[int]:
        """How many times each server was asked for an object."""
        return [each.methods().count("GET") for each in self.servers]


@asynccontextmanager
async def running(
    directory: Path,
    dialects: Sequence[str],
    group: Callable[[list[str]], dict[str, list[str]]],
) -> AsyncIterator[Bench]:
    """Serve servers of these kinds, and a gateway over them, in the groups that are made of them."""
    servers = [SosServer(each) for each in dialects]
    async with serving_sos(*servers):
        gateway = SosGateway(
            group([each.url for each in servers]),
            spooler(directory),
            client=SosClient(stall_seconds=0.2),
            luck=random.Random(0),
        )
        await gateway.start()
        yield Bench(gateway, servers, directory)
        await gateway.close()
        assert list(directory.iterdir()) == []


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body as it comes."""
    for start in range(0, len(data), 70_000):
        yield data[start : start + 70_000]


async def read(found: SosFound, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of [start, stop) of what was found, which is closed then."""
    try:
        async with aclosing(found.content.stream(start, stop)) as stream:
            return b"".join([each async for each in stream])
    finally:
        await found.content.aclose()


async def fetch(gateway: SosGateway, sos_id: str) -> bytes:
    """All bytes of an id."""
    return await read(await gateway.open(sos_id))
