"""A simulated node with its store in the cloud: several processes, one data directory, one bucket.

The store, its requests' retries, the index with its rows and the locks of the kernel are the
production's. Simulated are the service, time, and processes: each has a store and a bucket of its own
over the one environment, as LMDB can't be opened twice in one process of ours. A commit of a process
takes a moment, in which it may die; what it had not committed by then is lost.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from tierce.blobs import cloud_owner
from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud import CloudStore
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.holds import Holds
from tierce.blobs.local import make_directories
from tierce.blobs.marks import Marking
from tierce.blobs.processes import Host
from tierce.blobs.quarantine import Quarantine
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spooler
from tierce.blobs.turns import Turns
from tierce.core.digest import Digest
from tierce.core.errors import TierceError, Unavailable
from tierce.core.limits import BLOB_LIMIT_BYTES, CHUNK_BYTES, CLOUD_SETTLE_SECONDS, MIB
from tierce.node.scrub_cost import ScrubPace
from tierce.node.store_tending import StoreTending
from tierce.testing.sim_bucket import SimBucket, SimService
from tierce.testing.sim_process import Process, current

T = TypeVar("T")

EPOCH_SECONDS = 1_750_000_000.0
WHOLE_BYTES = 1000
"""Blobs up to this size are read at once."""
SPOOL_BYTES = 3000
"""Bodies up to this size are held in memory."""
PART_BYTES = 6000
"""Blobs up to this size are put in one request."""
RECORDS = "records"
"""A database that says which blobs a record refers to, by their digests."""

# The virtual loop runs in place what it is given; a pool without work starts no thread.
_NO_POOL = ThreadPoolExecutor(1)


class SimHost(Host):
    """The machine: which of its processes live. Each run of a process has another number."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    def new(self, name: str) -> Process:
        """Begin a process."""
        process = Process(f"{name} {1 + len(self._processes)}")
        self._processes.append(process)
        return process

    def pid(self) -> int:
        """The number of the process that asks."""
        process = current()
        assert process is not None
        return 1 + self._processes.index(process)

    def is_dead(self, pid: int) -> bool:
        """Whether there is no such process."""
        return not self._processes[pid - 1].is_alive

    def seconds(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()


class SimEnvironment(Environment):
    """A process's handle on an environment that is open once for all."""

    def __init__(self, shared: Environment, process: Process, random: Random) -> None:
        self._directory = shared._directory
        self._lmdb = shared._lmdb
        self._databases = shared._databases
        self._process = process
        self._random = random
        self._queue: deque[tuple[Callable[[WriteBatch], Any], asyncio.Future[Any]]] = deque()

    def submit(self, change: Callable[[WriteBatch], T], size: int = 0) -> "asyncio.Future[T]":
        """As in earnest, but the dead change nothing."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._process.is_alive:
            done.cancel()
            return done
        self._queue.append((change, done))
        if len(self._queue) == 1:
            self._after_a_moment(self._commit_first)
        return done

    def _after_a_moment(self, work: Callable[[], None]) -> None:
        seconds = self._random.choice([0.0, 0.001, 0.01, 0.1])
        asyncio.get_running_loop().call_later(seconds, work)

    def _commit_first(self) -> None:
        if not self._process.is_alive:
            return
        change, done = self._queue[0]
        failure: TierceError | None = None
        result = None
        try:
            result = self.write_here(change)
        except TierceError as error:
            failure = error

        def deliver() -> None:
            self._queue.popleft()
            if self._queue:
                self._after_a_moment(self._commit_first)
            if not done.done():
                done.set_result(result) if failure is None else done.set_exception(failure)

        self._after_a_moment(deliver)


class SimHolds(Holds):
    """Locks that a process loses when it dies."""

    def __init__(self, directory: Path, process: Process) -> None:
        super().__init__(directory)
        self._process = process
        self._held: dict[int, Digest] = {}

    def _take(self, digest: Digest, operation: int) -> int | None:
        _check_alive(self._process)
        hold = super()._take(digest, operation)
        if hold is not None:
            self._held[hold] = digest
        return hold

    def release(self, digest: Digest, hold: int) -> None:
        """The dead hold nothing any more."""
        if self._held.pop(hold, None) is not None:
            super().release(digest, hold)

    def die(self) -> None:
        """Let go of all, as the kernel does: files stay."""
        for hold in self._held:
            os.close(hold)
        self._held.clear()


class SimTurns(Turns):
    """Turns that a process loses when it dies."""

    def __init__(self, path: Path, process: Process) -> None:
        super().__init__(path)
        self._process = process

    def take(self, digest: Digest) -> int | None:
        """As in earnest; the dead take none."""
        _check_alive(self._process)
        return super().take(digest)


class SimStorage(CloudDisk):
    """All that a process has of the store: the production's parts over simulated ones."""

    def __init__(self, node: "SimStoreNode", process: Process) -> None:
        directory, random = node.directory, node.random
        self.process = process
        self.pool = _NO_POOL
        self.space = SpaceGuard(directory, reserve_bytes=0)
        self.environment = SimEnvironment(node.environment, process, random)
        self.spooler = Spooler(
            directory / "tmp",
            pool=self.pool,
            space=self.space,
            memory_limit_bytes=SPOOL_BYTES,
            blob_limit_bytes=BLOB_LIMIT_BYTES,
        )
        marking = Marking(_milliseconds)
        self.bucket = SimBucket(node.service, random, PART_BYTES)
        ground = Ground(
            bucket=self.bucket,
            environment=self.environment,
            layout="tierce",
            pool=self.pool,
            now=_milliseconds,
            whole_bytes=WHOLE_BYTES,
            range_bytes=CHUNK_BYTES,
            settle_seconds=CLOUD_SETTLE_SECONDS,
            host=node.host,
        )
        self.holds = SimHolds(directory / "holds", process)
        self.turns = SimTurns(directory / "holds" / "uploads", process)
        self.store = CloudStore(
            ground,
            marking=marking,
            quarantine=Quarantine(directory / "quarantine"),
            holds=self.holds,
            turns=self.turns,
            cache=None,
            by_tags=node.by_tags,
        )

    def kill(self) -> None:
        """As SIGKILL does, and what the kernel does then."""
        self.process.kill()
        self.holds.die()
        self.turns.close()


class SimStoreNode:
    """A node: its data directory, which outlives its processes, and those that run.

    ``main`` prepares the data directory, and runs only then; ``agent`` tends it.
    """

    def __init__(
        self, node_id: str, service: SimService, random: Random, directory: Path, *, by_tags: bool
    ) -> None:
        self.node_id = node_id
        self.service = service
        self.random = random
        self.by_tags = by_tags
        self.host = SimHost()
        self.workers: list[SimStorage] = []
        self.agent: SimStorage | None = None
        self.tending: StoreTending | None = None
        self.missing: list[Digest] = []
        self.taken: TierceError | None = None
        self._root = directory
        self._environments: list[Environment] = []
        self.new_directory()

    def new_directory(self) -> None:
        """The data directory is lost. The node must not run."""
        self.directory = self._root / f"{self.node_id}-{len(self._environments)}"
        make_directories(self.directory)
        self.environment = Environment(
            self.directory / "lmdb", databases=(*CLOUD_DATABASES, RECORDS), map_bytes=64 * MIB
        )
        self._environments.append(self.environment)

    async def start(self, workers: int) -> None:
        """Start all processes, however often it takes."""
        assert not self.is_running
        while not await self._prepared():
            await asyncio.sleep(5.0)
        for _ in range(workers):
            self.start_worker()
        self.start_agent()

    async def _prepared(self) -> bool:
        main = self._storage("main")
        self.agent = main
        try:
            await run_in(main.process, main.prepare(self.node_id))
        except Unavailable:
            return False
        finally:
            main.kill()
            self.agent = None
        return True

    async def took_over(self, former: str) -> bool:
        """Make the bucket of another node this one's; False if that may be tried again."""
        main = self._storage("main")
        work = cloud_owner.take_over(main.bucket, main.environment, self.node_id, former)
        try:
            await run_in(main.process, work)
        except Unavailable:
            return False
        finally:
            main.kill()
        return True

    def start_worker(self) -> None:
        """Start another worker."""
        self.workers.append(self._storage("worker"))

    def start_agent(self) -> None:
        """Start the process that tends the store."""
        agent = self._storage("agent")
        self.agent = agent
        self.tending = StoreTending(
            agent,
            scrub=ScrubPace(1.0, 1.0, 1.0, CHUNK_BYTES),
            on_missing=self.missing.append,
            on_taken=self._was_taken,
        )
        agent.process.spawn(self.tending.run())

    def _storage(self, name: str) -> SimStorage:
        process = self.host.new(name)
        return SimStorage(self, process)

    def _was_taken(self, error: TierceError) -> None:
        self.taken = error

    @property
    def is_running(self) -> bool:
        """Whether any process runs."""
        return bool(self.workers) or self.agent is not None

    def kill_worker(self) -> None:
        """Kill one of the workers."""
        if self.workers:
            self.workers.pop(self.random.randrange(len(self.workers))).kill()

    def kill_agent(self) -> None:
        """Kill the process that tends the store."""
        if self.agent is not None:
            self.agent.kill()
            self.agent = self.tending = None

    def kill(self) -> None:
        """Kill all processes."""
        self.kill_agent()
        while self.workers:
            self.kill_worker()

    async def close(self) -> None:
        """Let go of all data directories, of which the dead may have had a last look at some."""
        self.kill()
        await asyncio.sleep(1.0)
        for environment in self._environments:
            await environment.close()


async def run_in(process: Process, work: Coroutine[Any, Any, T]) -> T:
    """Do some work in a process. Raises Unavailable if that dies meanwhile."""
    task = process.spawn(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        raise Unavailable("the process died")
    return task.result()


def _check_alive(process: Process) -> None:
    if not process.is_alive:
        raise asyncio.CancelledError


def _milliseconds() -> int:
    return int(1000 * (EPOCH_SECONDS + asyncio.get_running_loop().time()))
