"""The ways of objects of one node, a, over peers, records and an upstream in memory, with faults."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.unit.node.fakes import (
    NAMES,
    FakeObjects,
    FakePeers,
    Room,
    left_running,
    members,
    spooler,
)

from tierce.blobs.memory import MemoryStore
from tierce.blobs.spool import Spool
from tierce.blobs.store import OpenBlob
from tierce.cluster.member import Member, View
from tierce.core.digest import Digest
from tierce.core.errors import TierceError
from tierce.core.limits import GIB
from tierce.names.index import Check
from tierce.names.memory import MemoryIndex
from tierce.names.record import NEAR_CACHE_BUCKET, NO_LEVEL, Record
from tierce.node.data_path import DataPath, PlacementCell
from tierce.node.filling import Filler
from tierce.node.level_path import LevelPath, Mode
from tierce.node.object_path import ObjectPath
from tierce.node.peers import Source
from tierce.testing import virtual_time
from tierce.testing.memory_upstream import MemoryUpstream

STARTED = 1_000_000 * 10**9
GRACE_SECONDS = 60.0


def now() -> float:
    return asyncio.get_running_loop().time()


def now_ns() -> int:
    return STARTED + int(now() * 1e9)


class MarkingPeers(FakePeers):
    """Peers that note what they were given as managed. ``when_stored`` is told of each copy."""

    def __init__(self) -> None:
        super().__init__()
        self.managed: set[tuple[str, Digest]] = set()
        self.when_stored: Callable[[str], Awaitable[object]] | None = None

    async def store(
        self, member: Member, source: Source, *, healing: bool = False, managed: bool = False
    ) -> bool:
        created = await super().store(member, source, healing=healing, managed=managed)
        if managed:
            self.managed.add((member.node_id, source.digest))
        if self.when_stored is not None:
            await self.when_stored(member.node_id)
        return created


class Records:
    """The records that other nodes were given, and who fails to take them, or takes long."""

    def __init__(self) -> None:
        self.of = {name: MemoryIndex(name) for name in NAMES}
        self.errors: dict[str, TierceError] = {}
        self.seconds: dict[str, float] = {}

    async def push(self, member: Member, records: Sequence[Record]) -> int:
        await asyncio.sleep(self.seconds.get(member.node_id, 0.0))
        if member.node_id in self.errors:
            raise self.errors[member.node_id]
        return sum(await self.of[member.node_id].merge(records))

    def having(self, bucket: str, key: str) -> list[str]:
        return [name for name, index in self.of.items() if index.get(bucket, key) is not None]


class TurningObjects(FakeObjects):
    """As on a disk: others have a turn before blob and record are there, and before it is told."""

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        await asyncio.sleep(0)
        record = await super().put(spool, draft, now=now, check=check)
        await asyncio.sleep(0)
        return record

    async def restore(self, spool: Spool, record: Record, **more: Any) -> bool:
        await asyncio.sleep(0)
        changed = await super().restore(spool, record, **more)
        await asyncio.sleep(0)
        return changed


class Bench:
    """Node a among ``given``."""

    def __init__(
        self,
        directory: Path,
        given: Iterable[Member],
        *,
        mode: Mode = "through",
        has_upstream: bool = True,
        is_seeking: bool = False,
    ) -> None:
        self.room = Room()
        self.spools = spooler(directory, self.room, memory_limit_bytes=GIB)
        self.store = MemoryStore()
        self.index = MemoryIndex("a", epoch="first")
        self.store_objects = TurningObjects(self.store, self.index)
        self.peers = MarkingPeers()
        self.records = Records()
        self.cell = PlacementCell(View.of("a", given, is_seeking=is_seeking))
        self.missing: list[Digest] = []
        self.blobs = DataPath(
            self.store, self.spools, self.room, self.peers, self.cell, self.missing.append
        )
        self.objects = ObjectPath(
            self.store_objects,
            self.index,
            self.blobs,
            self.records,
            self.cell,
            grace_seconds=GRACE_SECONDS,
            wall_clock=now_ns,
        )
        self.upstream = MemoryUpstream(Random(1), seconds=0.0)
        self.filler = Filler(
            self.store,
            self.spools,
            self.store_objects,
            self.index,
            self.upstream if has_upstream else None,
            bucket=NEAR_CACHE_BUCKET,
            wall_clock=now_ns,
        )
        self.levels = LevelPath(
            "a",
            self.store,
            self.spools,
            self.store_objects,
            self.index,
            self.blobs,
            self.peers,
            self.records,
            self.cell,
            bucket=NEAR_CACHE_BUCKET,
            upstream=self.upstream if has_upstream else None,
            mode=mode,
            fill=self.filler.fill,
            grace_seconds=GRACE_SECONDS,
            wall_clock=now_ns,
        )

    def look(self, given: Iterable[Member]) -> None:
        self.cell.update(View.of("a", given))

    async def put(self, data: bytes, key: str = "key", check: Check | None = None) -> Record:
        async with self.spools.holding(data, "blake3") as spool:
            return await self.objects.put(spool, Record(bucket="bucket", key=key), check)

    async def put_level(self, data: bytes, level: int, key: str = "id") -> Record:
        async with self.spools.holding(data, "blake3") as spool:
            draft = Record(bucket="", key=key, level=level)
            return (await self.levels.put(spool, draft))[0]

    def known(self, key: str = "id") -> Record | None:
        return self.index.get(NEAR_CACHE_BUCKET, key)

    def holders(self, digest: Digest) -> list[str]:
        found = [name for name, peer in self.peers.of.items() if digest in peer.blobs]
        return sorted(found + ["a"] * (digest in self.store.blobs))

    async def close(self) -> None:
        await self.filler.close()
        await self.blobs.close()


async def content_of(blob: OpenBlob) -> bytes:
    try:
        return b"".join([piece async for piece in blob.stream()])
    finally:
        await blob.aclose()


def level_record(data: bytes, level: int, **fields: object) -> Record:
    """The record of an object of node b."""
    given: dict[str, object] = {
        "bucket": "bucket" if level == NO_LEVEL else NEAR_CACHE_BUCKET,
        "key": "id",
        "timestamp": STARTED,
        "node": "b",
        "digest": Digest.of(data),
        "size": len(data),
        "level": level,
        **fields,
    }
    return Record(**given)  # type: ignore[arg-type]


def on_bench(
    directory: Path,
    test: Callable[[Bench], Awaitable[None]],
    given: Iterable[Member] | None = None,
    *,
    mode: Mode = "through",
    has_upstream: bool = True,
    is_seeking: bool = False,
) -> None:
    """Run a test on virtual time, and see that it leaves nothing running."""

    async def main() -> None:
        bench = Bench(
            directory,
            members(3) if given is None else given,
            mode=mode,
            has_upstream=has_upstream,
            is_seeking=is_seeking,
        )
        try:
            await test(bench)
        finally:
            await bench.close()
        assert await left_running() == []

    virtual_time.run(main())
