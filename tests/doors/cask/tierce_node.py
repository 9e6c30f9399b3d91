"""A Tierce node's Cask door among Cask nodes, without the rest of the node.

The door, the membership and the peers are the real ones, over real connections; blobs are a
dictionary, and gossip is a list of the addresses that it was told to join.
"""

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from tierce.blobs.packed import SmallBlob
from tierce.cluster.member import Member, View
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, ReadOnly, Unavailable
from tierce.core.listen import Listen
from tierce.core.rights import ALL_RIGHTS
from tierce.core.settings import Settings
from tierce.doors.cask.calls import CaskCalls
from tierce.doors.cask.membership import CaskMembership
from tierce.doors.cask.neighbors import Neighbors
from tierce.doors.cask.peers import CaskPeers
from tierce.doors.cask.routes import cask_door
from tierce.doors.shared.connection import Pace
from tierce.node import sockets
from tierce.service.access import Access
from tierce.service.blobs import Stored


class Received(NamedTuple):
    """A body that was received, and what it is."""

    digest: Digest
    data: bytes


class LocalBlobs:
    """Blobs of this node only, in memory. ``asked_elsewhere`` counts what went to the cluster."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.asked_elsewhere = 0
        self.space: Any = self
        self.read_only = False
        self.too_few_nodes = False

    def why_not(self) -> ReadOnly | None:
        return ReadOnly("this node is read-only") if self.read_only else None

    def check_writable(
        self, announced: int | None = None, *, algorithm: str = "", here_only: bool = False
    ) -> None:
        if self.read_only:
            raise ReadOnly("this node is read-only")

    @asynccontextmanager
    async def spooling(
        self, body: AsyncIterable[bytes], algorithm: str, *, here_only: bool = False
    ) -> AsyncIterator[Received]:
        self.asked_elsewhere += not here_only
        data = b"".join([piece async for piece in body])
        yield Received(Digest.of(data, algorithm), data)

    async def keep(self, spool: Received, *, here_only: bool = False) -> Stored:
        if self.too_few_nodes and not here_only:
            raise Unavailable("3 copies are asked for, and 2 could be stored")
        self.content[str(spool.digest)] = spool.data
        return Stored(spool.digest, len(spool.data), True)

    async def open(self, digest: Digest, *, here_only: bool = False) -> SmallBlob:
        await self.size(digest, here_only=here_only)
        return SmallBlob(digest, self.content[str(digest)])

    async def size(self, digest: Digest, *, here_only: bool = False) -> int:
        self.asked_elsewhere += not here_only
        if str(digest) not in self.content:
            raise NotFound(f"{digest} is not here")
        return len(self.content[str(digest)])


class TierceNode:
    """What a test sees of it. ``members`` are the Cask members, ``gossip`` who is joined by it."""

    def __init__(self, uuid: str, port: int) -> None:
        self.uuid = uuid
        self.url = f"http://127.0.0.1:{port}"
        self.blobs = LocalBlobs()
        self.members: list[Member] = []
        self.tierce: list[Member] = []
        self.gossip: list[str] = []
        self.neighbors: Neighbors
        self.membership: CaskMembership
        self.peers: CaskPeers

    def view(self) -> View:
        me = Member(self.uuid, cask=self.url, writable=not self.blobs.read_only)
        return View.of(self.uuid, [me, *self.members, *self.tierce])

    def knows(self, *uuids: str) -> bool:
        return [each.node_id for each in self.members] == sorted(uuids)

    def member(self, uuid: str) -> Member:
        return next(each for each in self.members if each.node_id == uuid)

    async def join_tierce(self, address: str) -> None:
        self.gossip.append(address)

    def take(self, members: list[Member]) -> None:
        self.members = members


async def until(condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def tierce_node(
    uuid: str,
    *,
    secret: str,
    interval_seconds: float = 60.0,
    seeds: tuple[str, ...] = (),
    private: str = "",
    alone: bool = False,
) -> AsyncIterator[TierceNode]:
    """Run one on a free port of loopback. It joins the seeds after up to a second, as in service.

    The door of one that is ``alone`` has no membership behind it.
    """
    listen, reserved = sockets.reserve(Listen("cask", "127.0.0.1", 0))
    node = TierceNode(uuid, listen.port)
    node.neighbors = Neighbors(secret, interval_seconds)
    async with AsyncExitStack() as stack:
        for sock in reserved:
            stack.callback(sock.close)
        calls = await stack.enter_async_context(CaskCalls(secret))
        node.membership = CaskMembership(
            node.neighbors,
            calls,
            seeds=seeds,
            random=random.Random(uuid),
            join_tierce=node.join_tierce,
            view=node.view,
            on_change=node.take,
        )
        node.peers = CaskPeers(calls, node.membership.copied)
        identity: Any = SimpleNamespace(identity=SimpleNamespace(node_id=uuid))
        blobs: Any = node.blobs
        settings = Settings(cluster_secret=secret, cask_base_url=node.url, listen=(listen,))
        access = Access((), ALL_RIGHTS)
        control = None if alone else node.membership
        door = cask_door(settings, listen, blobs, access, identity, control, private)
        server = door.server(Pace(1024, 20.0, 20.0, 20.0))
        for address in sockets.resolve(listen):
            await server.listen(sockets.bind(address, shared=True), None)
        stack.push_async_callback(server.drain, 0.1)
        running = asyncio.create_task(node.membership.run())
        try:
            yield node
        finally:
            running.cancel()
            await asyncio.wait([running])
