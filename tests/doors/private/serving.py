"""A private door before a stand-in of the peer service, and a transport to it, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tierce.cluster.signing import NO_BODY, Signed, Verifier, digest_of, sign
from tierce.core.digest import Digest
from tierce.core.limits import MIB
from tierce.doors.private.routes import private_door
from tierce.doors.shared.connection import DoorServer, Pace
from tierce.node.http_transport import HttpTransport
from tierce.node.peers import Incoming

SECRET = "the secret of this cluster"
PATIENCE_SECONDS = 20.0
PACE = Pace(0, 20.0, 20.0, 75.0)

Answerer = Callable[[str, bytes], Awaitable[bytes]]


class Service:
    """Answers each message with path and body, takes uploads, and gives what ``blobs`` has.

    Tests set ``refusal`` to have it raised, clear ``hold`` to keep everything waiting, and set
    ``fails_at`` to have downloads raise ``failure`` after so many bytes.
    """

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.calls: list[str] = []
        self.uploads: list[tuple[str, int, Digest, bytes]] = []
        self.blobs: dict[str, bytes] = {}
        self.fails_at: int | None = None
        self.failure: Exception = RuntimeError("a piece went bad")
        self.given_bytes = 0
        self.open_downloads = 0

    async def exchange(self, path: str, body: bytes) -> bytes:
        self.calls.append(path)
        await self.hold.wait()
        if self.refusal is not None:
            raise self.refusal
        return path.encode() + b" " + body

    async def upload(
        self, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        self.calls.append(path)
        await self.hold.wait()
        if self.refusal is not None:
            raise self.refusal
        body = b"".join([piece async for piece in pieces])
        self.uploads.append((path, size, digest, body))
        return b"taken"

    @asynccontextmanager
    async def download(
        self, path: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        self.calls.append(path)
        await self.hold.wait()
        if self.refusal is not None:
            raise self.refusal
        blob = self.blobs[path]
        self.open_downloads += 1
        try:
            yield Incoming(len(blob), self._pieces(blob[start:stop]))
        finally:
            self.open_downloads -= 1

    async def _pieces(self, part: bytes) -> AsyncIterator[bytes]:
        for offset in range(0, len(part), MIB):
            if self.fails_at is not None and offset >= self.fails_at:
                raise self.failure
            self.given_bytes += len(part[offset : offset + MIB])
            yield part[offset : offset + MIB]


class Served(NamedTuple):
    """A private door, where it answers, and a transport that is right for it."""

    service: Service
    address: str
    transport: HttpTransport
    server: DoorServer

    async def all_gone(self) -> None:
        """Wait until no connection is left; handlers may still be at work for those that were."""
        await until(lambda: not any(each.transport for each in self.server.connections))


@asynccontextmanager
async def door(service: Service, verifier: Verifier) -> AsyncIterator[tuple[str, DoorServer]]:
    """Serve a private door on a free port."""
    server = private_door(service, verifier, log_requests=False).server(PACE)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    await server.listen(sock, None)
    try:
        yield f"127.0.0.1:{sock.getsockname()[1]}", server
    finally:
        service.hold.set()
        await server.drain(1.0)


@asynccontextmanager
async def transport(secret: str = SECRET, **options: Any) -> AsyncIterator[HttpTransport]:
    """A transport that is closed at the end; keyword arguments are its limits in seconds."""
    made = HttpTransport(secret, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    """Both ends."""
    service = Service()
    async with (
        door(service, Verifier(SECRET)) as (address, server),
        transport(**options) as sender,
    ):
        yield Served(service, address, sender, server)


@asynccontextmanager
async def stand_in(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Something that accepts connections and is no private door; gives its address."""
    tasks: list[asyncio.Task[None]] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except ConnectionError:
            pass  # the transport has given up, which is what is tested
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.get_running_loop().create_task(one(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def signed_header(
    method: str, path: str, time: float, nonce: str, body: bytes | None = None
) -> str:
    """The header of a request, made by hand."""
    digest = NO_BODY if body is None else digest_of(body)
    time_ms = int(time * 1000)
    mac = sign(SECRET, method, path, time_ms, nonce, digest)
    return str(Signed(time_ms, nonce, digest, mac))


async def pieces_of(data: bytes, step: int = MIB) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for offset in range(0, len(data), step):
        yield data[offset : offset + step]
