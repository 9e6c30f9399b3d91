"""A near-cache in memory, with an upstream that is a dictionary, and objstore doors before it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec

from tierce.blobs.packed import SmallBlob
from tierce.blobs.space import Space
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt, NotFound
from tierce.core.listen import Listen
from tierce.core.rights import ALL_RIGHTS, Right, Token
from tierce.doors.objstore.private import FileMeta, NodeInfo
from tierce.doors.objstore.routes import objstore_door
from tierce.doors.shared.connection import Pace
from tierce.doors.shared.door import Door
from tierce.names.record import LOCAL, Record
from tierce.node import sockets
from tierce.service.access import Access
from tierce.service.near_cache import Deleted, Found, Kept, Known

ID = "01BRNMMS1DK3CBD4ZZM2TQ8C5B"
OTHER_ID = "01BRNMMS1DK3CBD4ZZM2TQ8C5C"
NODE_ID = "01BRNEKEZGKFSPAT10KZM5A141"
CONTENT = b"It works!"
DATE = "Tue, 29 Aug 2017 00:11:35 GMT"
TIMESTAMP = 1_503_965_495_000_000_000
ETAG = f'"{Digest.of(CONTENT, "blake3")}"'
PACE = Pace(0, 20.0, 20.0, 75.0)


class StreamedBlob:
    """An open blob that is read piece by piece. With ``bad_at`` the piece there turns out bad."""

    def __init__(self, digest: Digest, content: bytes, bad_at: int | None) -> None:
        self.digest = digest
        self.size = len(content)
        self.data = None
        self._content = content
        self._bad_at = bad_at

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        part = self._content[start:stop]
        for offset in range(0, len(part), 1000):
            if self._bad_at is not None and start + offset >= self._bad_at:
                raise Corrupt("a piece is bad")
            await asyncio.sleep(0)
            yield part[offset : offset + 1000]

    async def aclose(self) -> None:
        pass


class FakeCache:
    """A NearCache and a Journal. Tests look into it, and set what it is to do.

    ``elsewhere`` are keys whose bytes other nodes have, ``refusal`` is raised by every call, and
    ``lasting`` counts the blobs that were opened and not closed.
    """

    def __init__(self) -> None:
        self.now = TIMESTAMP
        self.records: dict[str, Record] = {}
        self.contents: dict[str, bytes] = {}
        self.upstream: dict[str, tuple[Record, bytes]] = {}
        self.elsewhere: set[str] = set()
        self.refusal: Exception | None = None
        self.has_upstream = True
        self.is_queued = False
        self.streamed = False
        self.bad_at: int | None = None
        self.lasting = 0
        self.announced_sizes: list[int | None] = []
        self.metas: list[FileMeta] = []
        self.messages: list[bytes] = []
        self.cluster: list[NodeInfo] = []

    async def put(
        self, draft: Record, body: AsyncIterable[bytes], *, announced_bytes: int | None = None
    ) -> Kept:
        self._refuse()
        if draft.level > LOCAL and not self.has_upstream:
            raise Conflict("there is no upstream")
        self.announced_sizes.append(announced_bytes)
        content = b"".join([piece async for piece in body])
        record = msgspec.structs.replace(
            draft,
            timestamp=self.now,
            node=NODE_ID,
            digest=Digest.of(content, "blake3"),
            size=len(content),
        )
        self.records[draft.key] = record
        self.contents[draft.key] = content
        if draft.level > LOCAL:
            self.upstream[draft.key] = record, content
        return Kept(record, self.is_queued)

    async def open(self, key: str, *, fetch: bool) -> Found:
        self._refuse()
        record = self.records.get(key)
        if record is None and fetch and key in self.upstream:
            record, self.contents[key] = self.upstream[key]
            record = msgspec.structs.replace(record, timestamp=self.now)
            self.records[key] = record
            return Found(record, self._open(key), is_symlink=False, is_fetched=True)
        if record is None:
            raise NotFound(f"{key} is not known")
        if record.deleted:
            raise Deleted(record)
        return Found(record, self._open(key), key in self.elsewhere, is_fetched=False)

    async def know(self, key: str) -> Known:
        self._refuse()
        if key not in self.records:
            raise NotFound(f"{key} is not known")
        return Known(self.records[key], key in self.elsewhere)

    async def delete(self, key: str) -> Record:
        known = await self.know(key)
        tombstone = msgspec.structs.replace(
            known.record,
            timestamp=self.now,
            digest=None,
            deleted=True,
            modified=known.record.modified_at,
        )
        self.records[key] = tombstone
        return tombstone

    async def nodes(self) -> list[NodeInfo]:
        return self.cluster

    async def records_after(self, key: str, limit: int) -> list[Known]:
        keys = sorted(each for each in self.records if each > key)
        return [await self.know(each) for each in keys[:limit]]

    async def open_here(self, key: str) -> Found:
        if key in self.elsewhere:
            raise NotFound(f"{key} is on another node")
        return await self.open(key, fetch=False)

    async def announced(self, meta: FileMeta) -> None:
        self.metas.append(meta)

    async def tell(self, message: bytes) -> None:
        self.messages.append(message)

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _open(self, key: str) -> Any:
        content = self.contents[key]
        digest = Digest.of(content, "blake3")
        blob: Any = SmallBlob(digest, content)
        if self.streamed:
            blob = StreamedBlob(digest, content, self.bad_at)
        self.lasting += 1
        is_open = True

        async def aclose() -> None:
            nonlocal is_open
            self.lasting -= is_open
            is_open = False

        blob.aclose = aclose
        return blob


class Reporter:
    """What the door asks of a StatusReporter. A ``space`` of None stands for a disk that fails."""

    def __init__(self) -> None:
        self.identity = SimpleNamespace(node_id=NODE_ID, version="0.1.0")
        self.space: Space | None = Space(1 << 40, 1 << 39, 0)

    async def status(self) -> SimpleNamespace:
        if self.space is None:
            raise OSError("the disk is gone")
        return SimpleNamespace(space=self.space)


class Node:
    """What a test sees: where the door answers, and what is behind it."""

    def __init__(self) -> None:
        self.cache = FakeCache()
        self.reporter = Reporter()
        self.url = ""


@asynccontextmanager
async def listening(door: Door) -> AsyncIterator[str]:
    """Serve a door on a free port; gives its base URL."""
    listen, reserved = sockets.reserve(Listen("native", "127.0.0.1", 0))
    server = door.server(PACE)
    try:
        for address in sockets.resolve(listen):
            await server.listen(sockets.bind(address, shared=True), None)
        yield f"http://{listen.address}"
    finally:
        await server.drain(1.0)
        for sock in reserved:
            sock.close()


@asynccontextmanager
async def objstore_node(
    anonymous: frozenset[Right] = ALL_RIGHTS, tokens: tuple[Token, ...] = ()
) -> AsyncIterator[Node]:
    """A public door. Every blob that it opened must be closed in the end."""
    node = Node()
    reporter: Any = node.reporter
    door = objstore_door(node.cache, Access(tokens, anonymous), reporter, log_requests=False)
    async with listening(door) as node.url:
        yield node
    assert node.cache.lasting == 0
