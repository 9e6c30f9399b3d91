"""Scenarios of a store in the cloud: from a seed a node, its clients, misfortunes; then the reckoning.

While faults go on, nothing acknowledged may be missing and no wrong byte be read. When they have ended,
and listing and catalogue were compared, the two must be the same, with nothing left over.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, TextIO

from tierce.blobs import catalogue
from tierce.blobs.cloud_names import path_of
from tierce.core.errors import TierceError
from tierce.core.limits import CLOUD_LISTED_SECONDS, CLOUD_OWNER_SECONDS, CLOUD_SETTLE_SECONDS
from tierce.node.scrub import Scrub
from tierce.testing.checkers import Violation
from tierce.testing.scenarios import Report, raise_first, run_scenario
from tierce.testing.sim_bucket import LATEST_SECONDS, SimService, Weather, flipped
from tierce.testing.sim_store import PART_BYTES, SimStorage, SimStoreNode, run_in
from tierce.testing.store_checkers import Kept, disorder
from tierce.testing.store_clients import Clients, client, read
from tierce.testing.trace import Trace

LEASE_SECONDS = CLOUD_OWNER_SECONDS + CLOUD_SETTLE_SECONDS
"""How long `tierce store take-over` waits."""


def command(seed: int) -> str:
    """How to run a seed alone."""
    return f"python -m tierce.testing.soak --stores --seed {seed}"


def run_store_seed(seed: int, echo: TextIO | None = None) -> Report:
    """Run the scenario of a seed, as scenarios.run_seed does."""
    return run_scenario(_scenario, seed, echo, command(seed))


async def _scenario(seed: int, trace: Trace, directory: Path) -> Report:
    world = StoreWorld(seed, trace, directory)
    try:
        return await _played(world, seed, trace)
    finally:
        for node in world.nodes:
            await node.close()


async def _played(world: "StoreWorld", seed: int, trace: Trace) -> Report:
    random = world.random
    await world.node.start(workers=random.randint(1, 3))
    clients = [
        asyncio.create_task(client(world, Random(f"{seed} client {number}")))  # noqa: S311
        for number in range(random.randint(2, 5))
    ]
    troubles = [
        asyncio.create_task(trouble(world, Random(f"{seed} {each.__name__}"), each))  # noqa: S311
        for each in TROUBLES
        if random.random() < 0.7
    ]
    ends = world.now() + random.uniform(100, 1500)
    while world.now() < ends:
        await asyncio.sleep(1.0)
        raise_first([*clients, *troubles])
    for task in [*clients, *troubles]:
        task.cancel()
    await asyncio.gather(*clients, *troubles, return_exceptions=True)
    raise_first([*clients, *troubles])
    await world.settle()
    await world.reckon()
    return Report(seed, trace.digest, world.now(), dict(sorted(world.counts.items())))


class StoreWorld(Clients):
    """A node, its service, and what the checkers know of both."""

    def __init__(self, seed: int, trace: Trace, directory: Path) -> None:
        self.random = Random(f"{seed} stores")  # noqa: S311
        by_tags = self.random.random() < 0.4
        self.service = SimService(
            Random(f"{seed} service"),  # noqa: S311
            has_tags=by_tags or self.random.random() < 0.5,
            note=trace.note,
        )
        node = SimStoreNode(
            "one",
            self.service,
            Random(f"{seed} node"),  # noqa: S311
            directory,
            by_tags=by_tags,
        )
        super().__init__(node, Kept(self.service), trace)
        self.nodes = [node]
        self.directory = directory
        self.is_restarting = False
        self.restarts = 0
        self.starting: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """All faults end; then time passes until everything can be put in order."""
        self.service.weather = Weather()
        if self.starting is not None:
            await self.starting
        if not self.node.is_running:
            await self.node.start(1)
        elif not self.node.workers:
            self.node.start_worker()
        if self.node.tending is None:
            self.node.start_agent()
        await asyncio.sleep(2 * CLOUD_LISTED_SECONDS)
        await self._compared()
        worker = self.node.workers[0]
        scrub = Scrub(
            worker.store, interval_seconds=0, bytes_per_second=1e12, on_bad=lambda digest: None
        )
        await run_in(worker.process, scrub.scrub_once())
        await asyncio.sleep(3 * LATEST_SECONDS)
        await self._compared()
        await asyncio.sleep(LATEST_SECONDS)

    async def _compared(self) -> None:
        tending = self.node.tending
        assert tending is not None
        number = tending.order_comparison()
        deadline = self.now() + 600.0
        while tending.status()["comparisons"] < number:
            if self.now() > deadline:
                raise Violation("a comparison does not end")
            await asyncio.sleep(1.0)
        if error := tending.status()["compare_error"]:
            raise Violation(f"a comparison failed: {error}")

    async def reckon(self) -> None:
        """In the end all that must be there is, and all is in order."""
        if reasons := disorder(self.service, self.node.environment, self.node.directory):
            raise Violation("not in order: " + "; ".join(reasons[:12]))
        for digest in list(self.kept.kept(self.now())):
            await read(self, self.node.workers[0], digest, 0, None)


# What goes wrong


async def trouble(world: StoreWorld, random: Random, fault: "Fault") -> None:
    """One misfortune of a kind after another, with peace in between."""
    while True:
        await asyncio.sleep(random.expovariate(1 / TROUBLES[fault]))
        world.tell(f"fault {fault.__name__}")
        await fault(world, random)


async def weather(world: StoreWorld, random: Random) -> None:
    """Between the processes and the service much goes wrong, or nothing does."""
    names = ["refused", "lost", "silent", "late", "slow", "slow_down", "cut", "flipped"]
    found = Weather()
    for name in random.sample(names, random.randint(0, 4)):
        setattr(found, name, random.choice([0.02, 0.1, 0.2]))
    found.denied = random.choice([0.0, 0.0, 0.02])
    found.late_listing_seconds = random.choice([0.0, 10.0, 600.0])
    found.is_out = random.random() < 0.1
    world.service.weather = found


async def crash(world: StoreWorld, random: Random) -> None:
    """A worker or the agent dies, and another is started after a while."""
    node = world.node
    if world.is_restarting:
        return
    began = world.restarts
    is_agent = random.random() < 0.4
    if is_agent:
        node.kill_agent()
    else:
        node.kill_worker()
    await asyncio.sleep(random.choice([0.0, 1.0, 30.0]))
    if world.restarts != began:
        return  # it was started as a whole
    if not is_agent:
        node.start_worker()
    elif node.agent is None:
        node.start_agent()


async def restart(world: StoreWorld, random: Random) -> None:
    """All processes die, and are started again."""
    await _restarted(world, random.choice([0.0, 5.0, 100.0]), random.randint(1, 3))


async def lose(world: StoreWorld, random: Random) -> None:
    """All processes die, and the data directory is lost. Nobody replaces it within a minute."""
    if world.is_restarting:
        return
    world.node.kill()
    world.kept.lost_directory()
    world.node.new_directory()
    await _restarted(world, LATEST_SECONDS, random.randint(1, 3))


async def take_over(world: StoreWorld, random: Random) -> None:
    """Another node gets the bucket, while the first one still runs: for two minutes it is asked too."""
    if world.is_restarting:
        return
    world.is_restarting = True
    world.restarts += 1
    world.starting = asyncio.create_task(_taken_over(world, random))
    await asyncio.shield(world.starting)


async def _taken_over(world: StoreWorld, random: Random) -> None:
    former = world.node
    name = f"node-{1 + len(world.nodes)}"
    node = SimStoreNode(name, world.service, former.random, world.directory, by_tags=former.by_tags)
    world.nodes.append(node)
    while not await node.took_over(former.node_id):
        await asyncio.sleep(5.0)
    await asyncio.sleep(LEASE_SECONDS)
    while former.workers:
        former.kill_worker()  # its agent goes on, until it notices
    world.kept.lost_directory()
    world.node = node
    await node.start(random.randint(1, 3))
    world.is_restarting = False


async def _restarted(world: StoreWorld, pause: float, workers: int) -> None:
    if world.is_restarting:
        return

    async def start() -> None:
        await asyncio.sleep(pause)
        await world.node.start(workers)
        world.is_restarting = False

    world.node.kill()
    world.is_restarting = True
    world.restarts += 1
    # Whoever is tired of trouble must not break it off.
    world.starting = asyncio.create_task(start())
    await asyncio.shield(world.starting)


async def harm(world: StoreWorld, random: Random) -> None:
    """An object has other bytes, or less, or is gone, and nobody asked for that."""
    found = [each for each in world.kept.digests if not world.kept.is_harmed(each)]
    if not found:
        return
    digest = random.choice(found)
    with world.node.environment.snapshot() as batch:
        if catalogue.is_uploaded_in(batch, digest):
            return
    path = path_of(digest, "tierce")
    data = world.service.objects[path].data
    kind = random.choice(["vanish", "flip", "cut"]) if data else "vanish"
    if kind == "vanish":
        world.service.vanish(path)
    else:
        world.service.rot(path, flipped(data, random) if kind == "flip" else data[:-1])
    # What has its tag still, and is large, is not sent again: no put promises that it is there.
    is_believed = kind != "vanish" and world.service.has_tags and len(data) > PART_BYTES
    world.kept.harmed(digest, math.inf if is_believed else world.now())


async def see(world: StoreWorld, random: Random) -> None:
    """Somebody orders a comparison, or the scrub comes by."""
    tending, workers = world.node.tending, world.node.workers
    if random.random() < 0.5 and tending is not None:
        tending.order_comparison()
    elif workers:
        worker = random.choice(workers)
        worker.process.spawn(_scrubbed(worker))


async def _scrubbed(worker: SimStorage) -> None:
    scrub = Scrub(
        worker.store,
        interval_seconds=0.5,
        bytes_per_second=1e12,
        on_bad=lambda digest: None,
        is_due=worker.store.proving.are_due,
    )
    with contextlib.suppress(TierceError):
        await scrub.scrub_once()


Fault = Callable[[StoreWorld, Random], Coroutine[Any, Any, None]]
TROUBLES: dict[Fault, float] = {
    weather: 60.0, crash: 60.0, restart: 200.0, lose: 600.0, take_over: 600.0, harm: 60.0, see: 100.0,
}  # fmt: skip
"""And how often they come about: so many seconds lie in between."""
