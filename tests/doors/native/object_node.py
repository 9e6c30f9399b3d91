"""A native door with named objects, over a disk and an index in memory: one node without a cluster.

The parts can be reached from the test, to look at the index or to make the way of objects fail.
"""

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.doors.native.node import Node, in_thread

from tierce.blobs.local import Disk, make_directories
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spool
from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError
from tierce.core.rights import ALL_RIGHTS, Right, Token
from tierce.doors.native.routes import native_door
from tierce.doors.shared.connection import DoorServer, Pace
from tierce.names.index import Check
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.cluster import Cluster
from tierce.service.objects import Objects
from tierce.service.status import Identity, StatusReporter
from tierce.testing.processes import Address

NODE_ID = "01JZ8PGS0M5Q4V5YB2Q1X8ZK3C"
EPOCH = "01JZ8PH2Q3"


class AlonePath:
    """The way of blobs and of objects on a node that is all there is."""

    is_alone = True

    def __init__(self, disk: Disk, index: MemoryIndex) -> None:
        self._disk = disk
        self._index = index
        # Raised by the next write, before it takes place.
        self.trouble: TierceError | None = None
        # Called just before a write takes place, when its body has come.
        self.before_write: Callable[[], None] = lambda: None

    def check_writable(self, algorithm: str) -> None:
        self._disk.space.check(0, in_file=False)

    async def store(self, spool: Spool) -> bool:
        return await self._disk.store.put(spool)

    async def open(self, name: Digest) -> OpenBlob:
        return await self._disk.store.open(name)

    async def size(self, digest: Digest) -> int:
        return await self._disk.store.stat(digest)

    async def delete(self, digest: Digest) -> bool:
        return await self._disk.store.delete(digest)

    async def put(self, spool: Spool, draft: Record, check: Check | None) -> Record:
        await self._disk.store.put(spool)
        draft = msgspec.structs.replace(draft, digest=spool.digest, size=spool.size)
        return await self.write(draft, check)

    async def write(self, draft: Record, check: Check | None) -> Record:
        self.before_write()
        if self.trouble is not None:
            raise self.trouble
        return await self._index.write(draft, now=time.time_ns(), check=check)


class AloneObjects:
    """The same way, as objects see it."""

    def __init__(self, path: AlonePath) -> None:
        self._path = path

    async def put(self, spool: Spool, draft: Record, check: Check | None) -> Record:
        return await self._path.put(spool, draft, check)

    async def write(self, draft: Record, check: Check | None) -> Record:
        return await self._path.write(draft, check)

    async def delete(self, bucket: str, key: str, check: Check | None) -> Record:
        return await self._path.write(Record(bucket=bucket, key=key, deleted=True), check)

    async def open(self, record: Record) -> OpenBlob:
        if record.digest is None:
            raise NotFound(f"{record.key} was deleted")
        return await self._path.open(record.digest)


@dataclasses.dataclass
class ObjectNode:
    """A running door and what is behind it. ``loop`` is the loop that it runs on."""

    node: Node
    index: MemoryIndex
    path: AlonePath
    server: DoorServer
    loop: asyncio.AbstractEventLoop

    def write(self, draft: Record) -> Record:
        """Write a record, as if another door had."""
        write = self.index.write(draft, now=time.time_ns())
        return asyncio.run_coroutine_threadsafe(write, self.loop).result()


def object_node_in_thread(
    data: Path, *, with_tokens: bool = False, **limits: Any
) -> AbstractContextManager[ObjectNode]:
    """Run such a door; keyword arguments are those of Disk."""
    return in_thread(_object_node(data, with_tokens=with_tokens, limits=limits))


@asynccontextmanager
async def _object_node(
    data: Path, *, with_tokens: bool, limits: dict[str, Any]
) -> AsyncIterator[ObjectNode]:
    make_directories(data)
    disk = Disk(data, space=SpaceGuard(data, reserve_bytes=0), **limits)
    index = MemoryIndex(NODE_ID, epoch=EPOCH)
    path = AlonePath(disk, index)
    blobs = Blobs(disk.store, disk.spooler, disk.space, path)
    tokens = [Token.of(each, frozenset({each}), each) for each in Right] if with_tokens else []
    access = Access(tokens, frozenset() if with_tokens else ALL_RIGHTS)
    reporter = StatusReporter(Identity(NODE_ID, "0", (), 1, 0.0), blobs, _no_agent)
    nothing: Any = None
    objects = Objects(blobs, index, AloneObjects(path))
    door = native_door(blobs, access, reporter, Cluster(nothing), objects, log_requests=False)
    server = door.server(Pace(1, 20.0, 20.0, 20.0))
    sock = socket.create_server(("127.0.0.1", 0))
    await server.listen(sock, None)
    node = Node(data, Address(f"127.0.0.1:{sock.getsockname()[1]}"))
    try:
        yield ObjectNode(node, index, path, server, asyncio.get_running_loop())
    finally:
        await server.drain(5.0)
        await disk.close()


async def _no_agent() -> dict[str, Any] | None:
    return None
