"""The transport of a simulated node: node/peers.py's Transport over a SimNetwork."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from tierce.core.digest import Digest
from tierce.core.errors import TierceError, Unavailable
from tierce.core.limits import PEER_ANSWER_SECONDS, PEER_STALL_SECONDS
from tierce.node.peers import Incoming, PeerService
from tierce.testing.channel import Channel
from tierce.testing.network import SimNetwork, broken, host_of
from tierce.testing.sim_process import Process


class SimTransport:
    """What a process on the host of ``own_address`` sends. A killed process sends nothing."""

    def __init__(self, network: SimNetwork, own_address: str, process: Process) -> None:
        self._network = network
        self._host = host_of(own_address)
        self._process = process

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        """See Transport."""
        self._check_alive()
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._network.ask(self._host, address, path, body)
        except TimeoutError:
            raise Unavailable(
                f"{address} did not answer within {timeout_seconds:g} s", hint="Try again."
            ) from None
        if isinstance(answer, TierceError):
            raise answer
        return answer

    async def upload(
        self, address: str, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        """See Transport."""
        self._check_alive()

        async def serve(service: PeerService, up: Channel, down: Channel) -> None:
            answer = await service.upload(path, size, up.pieces(size, PEER_STALL_SECONDS), digest)
            await down.send(answer)
            down.end()

        up, down = self._network.connect(self._host, address, path, serve)
        feeding = asyncio.create_task(_feed(up, pieces))
        answering = asyncio.create_task(down.receive(float("inf")))
        try:
            return await _watch(address, up, feeding, answering)
        finally:
            feeding.cancel()
            answering.cancel()
            await asyncio.gather(feeding, answering, return_exceptions=True)
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
            up.fail(broken("the connection broke off"))
            down.close()

    @asynccontextmanager
    async def download(
        self, address: str, path: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        """See Transport."""
        self._check_alive()

        async def serve(service: PeerService, up: Channel, down: Channel) -> None:
            async with service.download(path, start=start, stop=stop) as incoming:
                await down.send(str(incoming.size).encode())
                async for piece in incoming.pieces:
                    await down.send(piece)
                down.end()

        _, down = self._network.connect(self._host, address, path, serve)
        try:
            size = int(await down.receive(PEER_ANSWER_SECONDS))
            length = (size if stop is None else min(stop, size)) - start
            yield Incoming(size, down.pieces(length, PEER_STALL_SECONDS))
        finally:
            down.close()

    def _check_alive(self) -> None:
        if not self._process.is_alive:
            raise Unavailable("this process was killed")


async def _feed(up: Channel, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        try:
            await up.send(piece)
        except Unavailable:
            return  # the peer takes no more; its answer says why
    up.end()


async def _watch(
    address: str, up: Channel, feeding: "asyncio.Task[None]", answering: "asyncio.Task[bytes]"
) -> bytes:
    """Wait for the answer for as long as the peer takes bytes."""
    loop = asyncio.get_running_loop()
    fed_at = None
    while not answering.done():
        since = max(up.progressed_at, fed_at or 0.0)
        patience = since + PEER_STALL_SECONDS - loop.time()
        if patience <= 0:
            raise Unavailable(f"{address} took no bytes for {PEER_STALL_SECONDS:g} s")
        waiting = [answering] if feeding.done() else [answering, feeding]
        await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if feeding.done() and fed_at is None:
            feeding.result()
            fed_at = loop.time()
    return answering.result()
