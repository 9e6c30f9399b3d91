"""Peers, transports and whole nodes in memory, whose latency, silence and lies a test chooses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tierce.blobs.marked import Collected
from tierce.blobs.memory import MemoryStore
from tierce.blobs.space import Space, SpaceGuard
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobStore
from tierce.cluster.member import Member, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.core.limits import BLOB_LIMIT_BYTES, GIB, PACK_LIMIT_BYTES, PIECE_BYTES
from tierce.names.cached import Evicted, Look, Standing
from tierce.names.index import Check, Index
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.names.store import named_by, named_by_objects
from tierce.node.avoiding import Avoiding
from tierce.node.data_path import PlacementCell
from tierce.node.fetcher import Fetcher
from tierce.node.healer import Healer
from tierce.node.names_parts import Names
from tierce.node.peer_service import BlobService
from tierce.node.peers import Incoming, Source
from tierce.node.tierce_peers import TiercePeers

NAMES = ("a", "b", "c", "d", "e")

# A virtual loop does in place what it is given; a pool without work starts no thread.
NO_POOL = ThreadPoolExecutor(1)


def member(node_id: str, **fields: object) -> Member:
    """A member whose private address tells its name."""
    fields.setdefault("is_whole", True)
    return Member(node_id, private=f"{node_id}:7071", **fields)  # type: ignore[arg-type]


def members(count: int, **fields: object) -> list[Member]:
    return [member(name, **fields) for name in NAMES[:count]]


def placed(me: str, given: Iterable[Member], gone: Iterable[str] = ()) -> Placement:
    return Placement(View.of(me, given, gone))


def content(number: int, size: int = 20) -> bytes:
    word = b"%d." % number
    return (word * (size // len(word) + 1))[:size]


def ids(found: Iterable[Member]) -> list[str]:
    return [each.node_id for each in found]


def blob_with_order(placement: Placement, *wanted: str, size: int = 20) -> tuple[Digest, bytes]:
    """A blob for which the order of placement begins with these members."""
    for number in range(100_000):
        data = content(number, size)
        digest = Digest.of(data)
        if ids(placement.order(digest, len(wanted))) == list(wanted):
            return digest, data
    raise AssertionError(f"no blob found for {wanted}")


class Room(SpaceGuard):
    """Room on a disk that is full or has plenty, as the test says."""

    def __init__(self, *, read_only: bool = False) -> None:
        super().__init__(Path("/"), read_only=read_only)
        self.is_full = False

    def look(self) -> Space:
        return Space(total=GIB, free=0 if self.is_full else GIB, reserve=0)


def spooler(
    directory: Path,
    room: Room | None = None,
    *,
    memory_limit_bytes: int = PACK_LIMIT_BYTES,
    pool: Executor = NO_POOL,
) -> Spooler:
    return Spooler(
        directory,
        pool=pool,
        space=room or Room(),
        memory_limit_bytes=memory_limit_bytes,
        blob_limit_bytes=BLOB_LIMIT_BYTES,
    )


@dataclass
class FakePeer:
    """What one member has, and how it behaves. Requests to it are noted in ``asked``.

    ``sends`` replaces what is sent for a blob; ``breaks_after`` is how many bytes of a stream come
    before it breaks off. ``holds_back`` makes it wait after the first piece of a stream.
    """

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    latency_seconds: float = 0.0
    is_silent: bool = False
    error: TierceError | None = None
    sends: dict[Digest, bytes] = field(default_factory=dict)
    breaks_after: int | None = None
    holds_back: asyncio.Event | None = None
    large_bytes: int = PACK_LIMIT_BYTES
    asked: list[str] = field(default_factory=list)
    cancelled: int = 0

    async def reached(self, question: str) -> None:
        self.asked.append(question)
        try:
            await asyncio.sleep(self.latency_seconds)
            if self.is_silent:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error


class FakePeers:
    """The protocol Peers over :class:`FakePeer`, by node id."""

    def __init__(self, names: Iterable[str] = NAMES) -> None:
        self.of = {name: FakePeer() for name in names}
        self.streaming = 0

    def put(self, data: bytes, *names: str) -> Digest:
        digest = Digest.of(data)
        for name in names:
            self.of[name].blobs[digest] = data
        return digest

    def asked(self) -> list[str]:
        """Who was asked anything."""
        return [name for name, peer in self.of.items() for _ in peer.asked]

    async def store(
        self, member: Member, source: Source, *, healing: bool = False, managed: bool = False
    ) -> bool:
        peer = self.of[member.node_id]
        await peer.reached("store")
        data = source.data
        if data is None:
            data = b"".join([piece async for piece in source.stream()])
        assert source.digest.fits(data)
        created = source.digest not in peer.blobs
        peer.blobs[source.digest] = data
        return created

    async def find(
        self,
        member: Member,
        digests: Sequence[Digest],
        *,
        prove: bool = False,
        proof_bytes: int = 0,
        managed: Sequence[bool] | None = None,
    ) -> list[int | None]:
        peer = self.of[member.node_id]
        await peer.reached("prove" if prove else "find")
        return [len(peer.blobs[each]) if each in peer.blobs else None for each in digests]

    async def read(self, member: Member, digest: Digest) -> bytes | int:
        peer = self.of[member.node_id]
        await peer.reached("read")
        if digest not in peer.blobs:
            raise NotFound(f"{digest} is not on {member.node_id}")
        if len(peer.blobs[digest]) > peer.large_bytes:
            return len(peer.blobs[digest])
        data = peer.sends.get(digest, peer.blobs[digest])
        if not digest.fits(data):
            raise Corrupt(f"what {member.node_id} sent as {digest} has another digest")
        return data

    @asynccontextmanager
    async def open(
        self, member: Member, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        peer = self.of[member.node_id]
        await peer.reached(f"open {start}-{stop}")
        if digest not in peer.blobs:
            raise NotFound(f"{digest} is not on {member.node_id}")
        data = peer.sends.get(digest, peer.blobs[digest])
        pieces = self._pieces(peer, data[start:stop])
        self.streaming += 1
        try:
            yield Incoming(len(data), pieces)
        finally:
            self.streaming -= 1
            await pieces.aclose()  # type: ignore[attr-defined]

    async def _pieces(self, peer: FakePeer, data: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(data), PIECE_BYTES // 4):
            if peer.breaks_after is not None and at >= peer.breaks_after:
                raise Unavailable("the connection broke")
            await asyncio.sleep(0)
            yield data[at : at + PIECE_BYTES // 4]
            if peer.holds_back is not None:
                await peer.holds_back.wait()

    async def delete(self, member: Member, digest: Digest) -> bool:
        peer = self.of[member.node_id]
        await peer.reached("delete")
        return peer.blobs.pop(digest, None) is not None


class FakeTransport:
    """Carries messages between the services of nodes in memory. ``before`` sees each one first."""

    def __init__(self) -> None:
        self.services: dict[str, BlobService] = {}
        self.silent: list[str] = []
        self.latency: Callable[[], float] = lambda: 0.001
        self.sent: list[tuple[str, str]] = []
        self.before: Callable[[str, str], Awaitable[None]] | None = None

    async def _reached(self, address: str, path: str) -> BlobService:
        self.sent.append((address, path))
        if self.before is not None:
            await self.before(address, path)
        await asyncio.sleep(self.latency())
        if address in self.silent:
            await asyncio.Event().wait()
        if address not in self.services:
            raise Unavailable(f"{address} does not answer")
        return self.services[address]

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        try:
            async with asyncio.timeout(timeout_seconds):
                service = await self._reached(address, path)
                answer = await service.exchange(path, body)
                await asyncio.sleep(self.latency())
                return answer
        except TimeoutError:
            raise Unavailable(f"{address} did not answer in time") from None

    async def upload(
        self, address: str, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        try:
            return await (await self._reached(address, path)).upload(path, size, pieces, digest)
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    @asynccontextmanager
    async def download(
        self, address: str, path: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        service = await self._reached(address, path)
        async with service.download(path, start=start, stop=stop) as incoming:
            yield incoming


async def _unasked(*_: object) -> bytes:
    raise AssertionError("nobody asks that here")


class FakeNode:
    """A node's healing and answers over a memory store, without gossip: views are given to it."""

    def __init__(
        self,
        node_id: str,
        given: Iterable[Member],
        transport: FakeTransport,
        directory: Path,
        *,
        bytes_per_second: int = 0,
    ) -> None:
        self.name = node_id
        self.store = MemoryStore()
        self.placement = PlacementCell(View.of(node_id, given))
        self.room = Room()
        self.peers = TiercePeers(transport)
        spools = spooler(directory, self.room, memory_limit_bytes=GIB)
        self.hinted: list[Digest] = []
        self.fetcher = Fetcher(
            self.peers, self.placement, Avoiding(), spools, on_missing=self.hinted.append
        )
        self.healer = Healer(
            self.store,
            self.peers,
            self.placement,
            self.fetcher,
            spools,
            bytes_per_second=bytes_per_second,
            wall_clock=lambda: 0.0,
        )
        self.service = BlobService(
            self.store,
            spools,
            self.healer.condemned,
            node_id=node_id,
            is_draining=lambda: self.placement().me.draining,
            gossip=_unasked,
            control=_unasked,
        )
        transport.services[f"{node_id}:7071"] = self.service

    def look(self, given: Iterable[Member], gone: Iterable[str] = ()) -> None:
        """Take a new view, as the gossip would give it."""
        if self.placement.update(View.of(self.name, given, gone)):
            self.healer.changed()

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.store.blobs[digest] = data
        return digest


class FakeCluster:
    """Some such nodes that know each other."""

    def __init__(
        self,
        directory: Path,
        given: Iterable[Member],
        *,
        bytes_per_second: int = 0,
    ) -> None:
        self.transport = FakeTransport()
        self.members = list(given)
        self.nodes = {
            each.node_id: FakeNode(
                each.node_id,
                self.members,
                self.transport,
                directory,
                bytes_per_second=bytes_per_second,
            )
            for each in self.members
        }

    def look(self, given: Iterable[Member], gone: Iterable[str] = ()) -> None:
        """Let every node have a new view."""
        self.members = list(given)
        for each in self.members:
            self.nodes[each.node_id].look(self.members, gone)

    def stop(self, name: str) -> None:
        """Let a node answer nobody any more."""
        del self.transport.services[f"{name}:7071"]

    def holders(self, digest: Digest) -> list[str]:
        return [name for name, node in self.nodes.items() if digest in node.store.blobs]

    async def survey_all(self, *names: str) -> None:
        for name in names or list(self.nodes):
            await self.nodes[name].healer.survey()

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.fetcher.close()
            await node.peers.close()


@asynccontextmanager
async def cluster(
    directory: Path, given: Iterable[Member], *, bytes_per_second: int = 0
) -> AsyncIterator[FakeCluster]:
    made = FakeCluster(directory, given, bytes_per_second=bytes_per_second)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def running(main: Awaitable[None]) -> AsyncIterator["asyncio.Task[None]"]:
    """A loop that runs during a block, and is cancelled after it; its failure is the test's."""
    task = asyncio.ensure_future(main)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def left_running() -> list[str]:
    """The tasks beside the test's own, once what was cancelled has ended."""
    for _ in range(5):
        await asyncio.sleep(0)
    me = asyncio.current_task()
    return [str(task) for task in asyncio.all_tasks() if task is not me and not task.done()]


class FakeObjects:
    """Blobs and records together (names/store.py), one after the other. Nothing is ever collected."""

    def __init__(self, store: BlobStore, index: Index) -> None:
        self._store = store
        self._index = index

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        await self._store.put(spool, managed=True)
        return await self._index.write(named_by(spool, draft), now=now, check=check)

    async def restore(
        self, spool: Spool, record: Record, *, check: Callable[[], None] | None = None
    ) -> bool:
        await self._store.put(spool, managed=True)
        if check is not None:
            check()
        return (await self._index.merge([named_by(spool, record)]))[0]

    async def collect(self, before: int, limit: int) -> Collected:
        return Collected(0, [])

    async def delete_blob(self, digest: Digest) -> bool:
        if self._index.refers(digest):
            raise named_by_objects(digest)
        return await self._store.delete(digest)

    async def look(self, digests: Sequence[Digest]) -> list[Look]:
        sizes = await self._store.sizes(digests)
        return [
            Look(Standing.ABSENT, 0) if size is None else Look(Standing.OTHER, size)
            for size in sizes
        ]

    async def evict(self, digest: Digest, heard: Sequence[Record] = ()) -> Evicted:
        (look,) = await self.look([digest])
        return Evicted(*look, is_dropped=False)


def names_of(store: BlobStore, node_id: str) -> Names:
    """What a process without a disk knows of names."""
    index = MemoryIndex(node_id, epoch="first")
    return Names(index=index, objects=FakeObjects(store, index))
