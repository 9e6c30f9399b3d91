"""A simulated node: the production's ClusterNode over a simulated disk, network and clock.

The disk, and what a node writes down beside its blobs (the members it knows, whether it is being
drained), outlive its processes.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import OpenBlob
from tierce.cluster.member import Member, View
from tierce.core.digest import DEFAULT_ALGORITHM, Digest
from tierce.core.errors import TierceError, Unavailable
from tierce.core.limits import BLOB_LIMIT_BYTES, TOMBSTONE_DAYS
from tierce.node.cluster_node import ClusterNode, Pacing
from tierce.node.level_path import Mode
from tierce.node.names_parts import Names
from tierce.node.record_sync import SyncPacing
from tierce.testing.network import SimNetwork
from tierce.testing.sim_disk import SimDisk, SimSpace, SimStore
from tierce.testing.sim_names import SimIndex, SimObjects
from tierce.testing.sim_process import Process
from tierce.testing.sim_transport import SimTransport
from tierce.upstream.tier import Upstream

T = TypeVar("T")

EPOCH_SECONDS = 1_750_000_000.0
"""What a right wall clock shows at the simulated time 0."""

# The virtual loop runs in place what it is given; a pool without work starts no thread.
_NO_POOL = ThreadPoolExecutor(1)


@dataclass(frozen=True)
class Setup:
    """What a node's operator set. ``skew_seconds`` is how far its wall clock is ahead."""

    node_id: str
    replication: int = 1
    zone: str = ""
    weight: float = 1.0
    skew_seconds: float = 0.0
    pacing: Pacing = field(default_factory=lambda: Pacing(grace_seconds=20.0))
    upstream: Upstream | None = None
    mode: Mode = "through"
    collect_grace_seconds: float = 60.0
    cache_limit_bytes: int = 0
    names_poll_seconds: float = 2.0
    tombstone_days: float = TOMBSTONE_DAYS


class GaveUp(Exception):
    """A client waited for as long as it wanted, and left."""


class SimNode:
    """A node, running or not, and its operator's commands. Its host is named as it is."""

    def __init__(
        self, setup: Setup, network: SimNetwork, random: Random, spool_directory: Path
    ) -> None:
        self.setup = setup
        self.network = network
        self.random = random
        self.spool_directory = spool_directory
        self.disk = SimDisk(Random(random.random()))  # noqa: S311
        self.address = f"{setup.node_id}:7071"
        self.skew_seconds = setup.skew_seconds
        self.known: list[Member] = []
        self.is_draining = False
        self.process: Process | None = None
        self.core: ClusterNode | None = None
        self.conflict: TierceError | None = None
        self._main: asyncio.Task[None] | None = None
        self._ending: tuple[Process, asyncio.Task[None]] | None = None

    def wall_clock(self) -> float:
        """What the node's clock shows, in seconds since 1970."""
        return EPOCH_SECONDS + asyncio.get_running_loop().time() + self.skew_seconds

    @property
    def is_running(self) -> bool:
        """Whether it has a process, paused or not."""
        return self.process is not None

    @property
    def running(self) -> ClusterNode:
        """The node's part in the cluster, while it runs."""
        assert self.core is not None, f"{self.setup.node_id} does not run"
        return self.core

    async def start(self, join: Sequence[str] = ()) -> None:
        """Start a process."""
        assert not self.is_running
        self.network.dark.pop(self.setup.node_id, None)
        self.process = process = Process(self.setup.node_id)
        self.core = core = await process.spawn(self._wired(process, join))
        self.network.listen(self.address, core.service, process)
        self._main = process.spawn(core.run())

    async def _wired(self, process: Process, join: Sequence[str]) -> ClusterNode:
        milliseconds = int(1000 * self.wall_clock())
        space = SimSpace(self.disk)

        def now() -> int:
            return int(1000 * self.wall_clock())

        store = SimStore(self.disk, process, now)
        index = SimIndex(self.disk, process, self.setup.node_id, now)
        await index.begin_epoch(f"{milliseconds:015d}")
        names = Names(
            index=index,
            objects=SimObjects(self.disk, store, index, now),
            upstream=self.setup.upstream,
            mode=self.setup.mode,
            grace_seconds=self.setup.collect_grace_seconds,
            cache_limit_bytes=self.setup.cache_limit_bytes,
            tombstone_days=self.setup.tombstone_days,
            # Slower than in earnest: most of what a simulation takes is looking for news.
            sync_pacing=SyncPacing(poll_seconds=self.setup.names_poll_seconds),
            poll_seconds=self.setup.names_poll_seconds,
        )
        return ClusterNode(
            Member(
                self.setup.node_id,
                incarnation=milliseconds,
                boot=f"{milliseconds:015d}",
                private=self.address,
                zone=self.setup.zone,
                weight=self.setup.weight,
                draining=self.is_draining,
                replication=self.setup.replication,
            ),
            store,
            self._spooler(space),
            space,
            SimTransport(self.network, self.address, process),
            pacing=self.setup.pacing,
            names=names,
            random=self.random,
            on_view=lambda view: self._write_down(process, view),
            on_conflict=self._conflicted,
            join=join,
            known=self.known,
            wall_clock=self.wall_clock,
        )

    def spooler(self) -> Spooler:
        """A door's spooler on this node's disk."""
        return self._spooler(SimSpace(self.disk))

    def _spooler(self, space: SimSpace) -> Spooler:
        return Spooler(
            self.spool_directory,
            pool=_NO_POOL,
            space=space,
            memory_limit_bytes=self.disk.pack_limit_bytes,
            blob_limit_bytes=BLOB_LIMIT_BYTES,
        )

    def _write_down(self, process: Process, view: View) -> None:
        if process.is_alive:
            self.known = [each for each in view.members if each.node_id != view.me]
            self.is_draining = view.by_id[view.me].draining

    def _conflicted(self, error: TierceError) -> None:
        self.conflict = error

    def crash(self, *, power: bool = False) -> None:
        """Kill the process; with ``power``, by taking the host's away, so that it refuses nobody."""
        if self.process is None:
            return
        self.network.close(self.address)
        if power:
            self.network.dark[self.setup.node_id] = None
        self.disk.crash()
        self.process.kill()
        self.process = self.core = self._main = self._ending = None

    async def stop(self) -> None:
        """Stop in order: say so, end what is under way, close. Goes on if this is cancelled."""
        process, core, main = self.process, self.running, self._main
        assert process is not None
        assert main is not None

        async def shut_down() -> None:
            await core.leave()
            main.cancel()
            await asyncio.wait([main])
            await core.close()

        if self._ending is None:
            self._ending = process, process.spawn(shut_down())
        await self.stopped()

    async def stopped(self) -> None:
        """Wait for a stop that is under way, if one is."""
        if self._ending is None:
            return
        process, ending = self._ending
        await asyncio.wait([ending])
        if self.process is process:
            self.network.close(self.address)
            process.kill()
            self.process = self.core = self._main = self._ending = None

    def pause(self) -> None:
        """Stop the process as SIGSTOP does."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """Let a paused process go on."""
        if self.process is not None:
            self.process.resume()

    def wipe(self) -> None:
        """Put an empty disk in. The node must not run."""
        assert not self.is_running
        self.disk.wipe()
        self.known = []

    def failure(self) -> str | None:
        """What ended the node's work though nobody had told it to stop."""
        if self.conflict is not None:
            return f"{self.setup.node_id} found a conflict: {self.conflict.message}"
        if self._main is not None and self._main.done() and not self._main.cancelled():
            return f"{self.setup.node_id} ended: {self._main.exception()!r}"
        return None

    # What clients and operators do

    async def put(self, data: bytes, algorithm: str, *, patience_seconds: float) -> Digest:
        """Upload through this node, as a client.

        Raises what a door would tell, Unavailable for a broken connection, or GaveUp.
        """
        return await self.do(self._put(data, algorithm), patience_seconds)

    async def get(self, digest: Digest, received: bytearray, *, patience_seconds: float) -> None:
        """Download a blob through this node, as a client; ``received`` gets what comes.

        Raises as :meth:`put` does.
        """
        await self.do(self._get(digest, received), patience_seconds)

    async def delete(self, digest: Digest, *, patience_seconds: float) -> bool:
        """Delete a blob from all nodes, as a client. Raises as :meth:`put` does."""
        if self.core is None:
            raise Unavailable(f"{self.setup.node_id} does not run")
        return await self.do(self.core.path.delete(digest), patience_seconds)

    async def drain(self, node_id: str) -> None:
        """Have this node, or another one, emptied. Raises as an operator's command does."""
        if self.core is None:
            raise Unavailable(f"{self.setup.node_id} does not run")
        order = self.core.call("drain", {"node_id": node_id, "cancel": False})
        await self.do(order, patience_seconds=30.0)

    async def do(
        self,
        work: Coroutine[Any, Any, T],
        patience_seconds: float,
        on_end: Callable[[], None] | None = None,
    ) -> T:
        """Do someone's work in the node's process, for as long as they wait for it.

        ``on_end`` is called when nothing of it is left to happen, which may be later.
        """
        if self.process is None:
            work.close()
            if on_end is not None:
                on_end()
            raise Unavailable(f"{self.setup.node_id} does not run")
        task = self.process.spawn(work)
        task.add_done_callback(_look_away)
        if on_end is not None:
            task.add_done_callback(lambda _: on_end())
        await asyncio.wait([task], timeout=patience_seconds)
        if not task.done():
            task.cancel()
            raise GaveUp
        if task.cancelled():
            raise Unavailable("the connection broke off")
        return task.result()

    async def _put(self, data: bytes, algorithm: str) -> Digest:
        core = self.running
        core.path.check_writable(algorithm)
        spool = self.spooler().new(algorithm, passing=True)
        try:
            await spool.write(data)
            digest = await spool.finish()
            await core.path.store(spool)
            return digest
        finally:
            await spool.discard()

    async def _get(self, digest: Digest, received: bytearray) -> None:
        await receive(await self.running.path.open(digest), received)


async def spooled(node: SimNode, data: bytes) -> Spool:
    """A finished spool of a body that a node is sent, for the caller to discard."""
    spool = node.spooler().new(DEFAULT_ALGORITHM, passing=True)
    try:
        await spool.write(data)
        await spool.finish()
    except BaseException:
        await spool.discard()
        raise
    return spool


async def receive(blob: OpenBlob, received: bytearray) -> None:
    """Read all of an open blob into ``received``, and close it."""
    try:
        pieces = blob.stream()
        try:
            async for piece in pieces:
                received += piece
        finally:
            await pieces.aclose()
    finally:
        await blob.aclose()


def _look_away(task: "asyncio.Task[Any]") -> None:
    """Its end is a defect for nobody, not even if whoever waited for it has left."""
    if not task.cancelled():
        task.exception()
