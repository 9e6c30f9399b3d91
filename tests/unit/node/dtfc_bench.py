"""Sources of files whose speed, faults and lies a test chooses, and loads over them on virtual time."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.node.fakes import NO_POOL, Room, left_running, spooler

from tierce.blobs.memory import MemoryStore
from tierce.blobs.spool import Spool
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import KIB, MIB
from tierce.node.dtfc_source import Head
from tierce.node.dtfc_source import Source as AnySource
from tierce.node.loads_reading import LoadsReading
from tierce.node.peer_loading import PeerLoading
from tierce.testing import virtual_time

SECOND = 1.0
"""Of virtual time, which costs nothing."""
STALL_SECONDS = 20.0
SMALL = b"hello dtfc\n"
LARGE = bytes(range(251)) * (5 * MIB // 251)


def sha512(data: bytes) -> Digest:
    return Digest.of(data, "sha512")


@dataclass
class FakeSource:
    """A place that has ``data`` under every digest, or nothing, with faults.

    Counts are in bytes of one answer. ``told`` is the size that it tells in place of the right one;
    None tells none. ``asked`` has the position of each request.
    """

    label: str
    data: bytes | None = None
    name: str = "file.bin"
    told: int | None = -1
    seconds: float = 0.001
    piece_bytes: int = 256 * KIB
    pause_seconds: float = 0.0
    error: TierceError | None = None
    stops_after: int | None = None
    stops_once: bool = False
    stops_with: TierceError = field(default_factory=lambda: Unavailable("the connection broke"))
    has_ranges: bool = True
    hangs: bool = False
    asked: list[int] = field(default_factory=list)
    open_now: int = 0
    gate: asyncio.Event | None = None

    @asynccontextmanager
    async def open(self, digest: Digest, start: int = 0) -> AsyncIterator[Head]:
        self.asked.append(start)
        await asyncio.sleep(self.seconds)
        if self.hangs:
            await asyncio.sleep(STALL_SECONDS)
            raise Unavailable("it did not answer in time")
        if self.error is not None:
            raise self.error
        if self.data is None:
            raise NotFound("it is not here")
        begins = start if self.has_ranges else 0
        size = len(self.data) if self.told == -1 else self.told
        pieces = self._pieces(memoryview(self.data)[begins:])
        self.open_now += 1
        try:
            yield Head(size, begins, self.name, pieces)
        finally:
            self.open_now -= 1
            await pieces.aclose()

    async def _pieces(self, data: memoryview) -> AsyncGenerator[bytes, None]:
        stops_after = self.stops_after
        for at in range(0, len(data), self.piece_bytes):
            piece = bytes(data[at : at + self.piece_bytes])
            if stops_after is not None:
                piece = piece[: max(0, stops_after - at)]
            await asyncio.sleep(self.pause_seconds)
            if piece:
                yield piece
            if self.gate is not None:
                await self.gate.wait()
            if stops_after is not None and at + len(piece) >= stops_after:
                if self.stops_once:
                    self.stops_after = None
                raise self.stops_with


class LoadBench:
    """The loads of one node over ``sources``; what they keep is in ``store``, its name in ``names``."""

    def __init__(self, directory: Path, *sources: FakeSource, **settings: Any) -> None:
        self.directory = directory
        self.room = Room()
        self.sources: list[FakeSource] = list(sources)
        self.spools = spooler(directory, self.room)
        self.store = MemoryStore()
        self.names: dict[Digest, str] = {}
        self.keep_error: TierceError | None = None
        self.keep_gate: asyncio.Event | None = None
        self.calls: list[str] = []
        self.is_down = False
        self.settings = settings
        self.loading = self.new_loading()
        self.reading = LoadsReading(self._call, self.store.open, NO_POOL)

    def new_loading(self) -> PeerLoading:
        """The loads of an agent that was started anew."""
        return PeerLoading(self._sources, self.spools, self._keep, **self.settings)

    def _sources(self, digest: Digest) -> Sequence[AnySource]:
        return self.sources

    async def _keep(self, spool: Spool, name: str) -> None:
        if self.keep_gate is not None:
            await self.keep_gate.wait()
        if self.keep_error is not None:
            raise self.keep_error
        data = spool.data
        if data is None:
            assert spool.path is not None
            data = spool.path.read_bytes()[: spool.size]
        self.store.blobs[spool.digest] = data
        self.names[spool.digest] = name

    async def _call(self, name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.calls.append(name)
        await asyncio.sleep(0.001)
        if self.is_down:
            raise Unavailable("the agent of this node does not answer")
        return await self.loading.call(name, arguments)

    async def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
        loaded = await self.reading.open(digest)
        try:
            return b"".join([each async for each in loaded.blob.stream(start, stop)])
        finally:
            await loaded.blob.aclose()

    async def loaded(self, digest: Digest) -> None:
        """Load a file, and wait for its end; raises its failure."""
        await self.loading.load(digest)
        while not (await self.loading.progress(digest, "", -1))["over"]:
            pass

    def left(self) -> list[str]:
        return os.listdir(self.directory)


def on_load_bench(
    directory: Path,
    test: Callable[[LoadBench], Awaitable[None]],
    *sources: FakeSource,
    **settings: Any,
) -> None:
    """Run a test on virtual time, and see that it leaves nothing running, open or on the disk."""

    async def main() -> None:
        bench = LoadBench(directory, *sources, **settings)
        before = len(os.listdir("/proc/self/fd"))
        try:
            await test(bench)
        finally:
            await bench.loading.close()
        await asyncio.sleep(0.1)
        assert await left_running() == []
        assert bench.left() == []
        assert bench.reading.readers == 0
        assert [each.open_now for each in bench.sources] == [0] * len(bench.sources)
        assert len(os.listdir("/proc/self/fd")) == before

    virtual_time.run(main())


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is so."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to pass")
