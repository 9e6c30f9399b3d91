"""Scenarios of named objects: few names, many writers, the usual misfortunes, and an upstream's.

As scenarios.py, which has what is common. The same contents are put under several names, and without
one. The cluster ends with the same records everywhere, and with what these say.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import TextIO

from tierce.core.errors import TierceError
from tierce.core.limits import TOMBSTONE_DAYS
from tierce.node.cluster_node import Pacing
from tierce.testing import sim_faults
from tierce.testing.disk_copies import copy_of
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.scenarios import Report, body, raise_first, run_scenario
from tierce.testing.sim_faults import LARGEST_SKEW_SECONDS
from tierce.testing.sim_node import GaveUp, Setup, SimNode
from tierce.testing.sim_objects import NameCluster
from tierce.testing.trace import Trace

NameFault = Callable[[NameCluster, Random], Awaitable[None]]

LARGEST_SET_BACK_SECONDS = 300.0
# What was put before a clock was set back is collected that much later.
SETTLE_SECONDS = 3000.0


def command(seed: int) -> str:
    """How to run a seed alone."""
    return f"python -m tierce.testing.soak --names --seed {seed}"


def run_name_seed(seed: int, echo: TextIO | None = None) -> Report:
    """Run the scenario of a seed. Raises Failed, as scenarios.run_seed does."""
    return run_scenario(_scenario, seed, echo, command(seed))


async def _scenario(seed: int, trace: Trace, directory: Path) -> Report:
    random = Random(f"{seed} names")  # noqa: S311
    size = random.randint(2, 5)
    cluster = NameCluster(
        seed,
        random.randint(1, min(3, size)),
        directory,
        trace,
        is_behind=random.random() < 0.3,
        cache_limit_bytes=random.choice([0, 0, 30_000, 200_000]),
        tombstone_days=random.choice([TOMBSTONE_DAYS, TOMBSTONE_DAYS, 20 / 86_400]),
    )
    if random.random() < 0.85:
        cluster.upstream = MemoryUpstream(cluster.random("upstream"))
    for setup in _setups(cluster, random, size):
        await cluster.add(setup)
        await asyncio.sleep(random.uniform(0, 1))
    await cluster.form()
    contents = [body(random) for _ in range(4)]
    clients = [
        asyncio.create_task(
            _client(cluster, cluster.random(f"client {number}"), f"client{number}", contents)
        )
        for number in range(random.randint(2, 5))
    ]
    troubles = [
        asyncio.create_task(_trouble(cluster, cluster.random(f"{family} {number}"), faults))
        for family, faults in FAMILIES.items()
        for number in range(random.choice([0, 1, 1, 2]))
    ]
    ends = asyncio.get_running_loop().time() + random.uniform(30, 120)
    while asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(1.0)
        cluster.check()
        raise_first([*clients, *troubles])
    for task in [*clients, *troubles]:
        task.cancel()
    await asyncio.gather(*clients, *troubles, return_exceptions=True)
    raise_first([*clients, *troubles])
    if cluster.upstream is not None:
        _heal_upstream(cluster.upstream)
    await cluster.calm()
    await cluster.settle(SETTLE_SECONDS)
    cluster.check_lasting()
    await cluster.read_everything()
    await cluster.read_all_names()
    cluster.check()
    cluster.counts += cluster.network.outcomes
    simulated = asyncio.get_running_loop().time()
    return Report(seed, trace.digest, simulated, dict(sorted(cluster.counts.items())))


def _setups(cluster: NameCluster, random: Random, size: int) -> Iterator[Setup]:
    down_grace_seconds = random.choice([0.0, 10.0, 30.0])
    collect_grace_seconds = random.choice([30.0, 120.0, 300.0])
    for _ in range(size):
        yield Setup(
            cluster.new_name(),
            replication=cluster.replication,
            skew_seconds=random.uniform(-1, 1) * random.choice([0.0, LARGEST_SKEW_SECONDS]),
            pacing=Pacing(grace_seconds=down_grace_seconds),
            upstream=cluster.upstream,
            mode="behind" if cluster.is_behind else "through",
            collect_grace_seconds=collect_grace_seconds,
            cache_limit_bytes=cluster.cache_limit_bytes,
            tombstone_days=cluster.tombstone_days,
            names_poll_seconds=0.5,
        )


# Clients


async def _client(cluster: NameCluster, random: Random, me: str, contents: list[bytes]) -> None:
    """One thing after another, or a few at a time, through any node that runs."""
    while True:
        await asyncio.sleep(random.expovariate(2.0))
        if cluster.running:
            many = random.choice([1, 1, 1, 2])
            await asyncio.gather(*(_one(cluster, random, me, contents) for _ in range(many)))


async def _one(cluster: NameCluster, random: Random, me: str, contents: list[bytes]) -> None:
    node = random.choice(cluster.running)
    patience_seconds = random.choice([0.5, 5.0, 60.0])
    data = random.choice(contents) if random.random() < 0.25 else body(random)
    chance = random.random()
    if chance < 0.05:
        await cluster.put(node, data, "blake3", patience_seconds)
    elif chance < 0.5:
        await _one_of_ring(cluster, random, me, node, data, patience_seconds)
    else:
        await _one_of_cache(cluster, random, me, node, data, patience_seconds)


async def _one_of_ring(
    cluster: NameCluster,
    random: Random,
    me: str,
    node: SimNode,
    data: bytes,
    patience_seconds: float,
) -> None:
    key = f"key{random.randrange(6)}"
    chance = random.random()
    if chance < 0.5:
        await cluster.put_object(node, me, key, data, patience_seconds)
    elif chance < 0.65:
        await cluster.delete_object(node, me, key, patience_seconds)
    else:
        await cluster.get_object(node, key, patience_seconds)


async def _one_of_cache(
    cluster: NameCluster,
    random: Random,
    me: str,
    node: SimNode,
    data: bytes,
    patience_seconds: float,
) -> None:
    key = f"id{random.randrange(8)}"
    chance = random.random()
    if chance < 0.45:
        level = random.randrange(3) if cluster.upstream is not None else 0
        await cluster.put_levelled(node, me, key, data, level, patience_seconds)
    elif chance < 0.55 and cluster.upstream is not None:
        await cluster.raise_level(node, me, key, patience_seconds)
    elif chance < 0.65:
        await cluster.delete_levelled(node, me, key, patience_seconds)
    else:
        fetch = random.random() < 0.6
        await cluster.get_levelled(node, key, patience_seconds, fetch=fetch)


# Faults


async def _trouble(cluster: NameCluster, random: Random, faults: list[NameFault]) -> None:
    while True:
        await asyncio.sleep(random.expovariate(1 / random.choice([2.0, 15.0, 40.0])))
        fault = random.choice(faults)
        cluster.note(f"fault {fault.__name__}")
        cluster.counts[f"fault {fault.__name__}"] += 1
        await fault(cluster, random)


async def upstream_trouble(cluster: NameCluster, random: Random) -> None:
    """The upstream is down, or fails now and then, before or after it did something, or is slow."""
    upstream = cluster.upstream
    if upstream is None:
        return
    upstream.is_down = random.random() < 0.3
    upstream.failures = random.choice([0.0, 0.1, 0.5])
    upstream.lost_answers = random.choice([0.0, 0.1, 0.5])
    upstream.cuts = random.choice([0.0, 0.3])
    upstream.seconds = random.choice([0.1, 2.0, 10.0])
    await sim_faults.last(random, 60)
    _heal_upstream(upstream)


def _heal_upstream(upstream: MemoryUpstream) -> None:
    upstream.is_down = False
    upstream.failures = upstream.lost_answers = upstream.cuts = 0.0
    upstream.seconds = 0.1


async def copied_disk(cluster: NameCluster, random: Random) -> None:
    """A node is killed, and a copy is made of its disk before it starts again."""
    node = sim_faults.any_running(cluster, random)
    if node is not None:
        cluster.crash(node)
        cluster.copies[node.setup.node_id] = copy_of(node.disk)
        cluster.note(f"copied {node.setup.node_id}")
        await sim_faults.last(random, 20)
        await sim_faults.start_all(cluster, [node])


async def disk_set_back(cluster: NameCluster, random: Random) -> None:
    """A node is killed, and gets an older copy of its disk, if there is one."""
    if cluster.forgets:
        return  # not promised (cluster/sync.py): the copy may be older than tombstones are kept
    able = [each for each in cluster.running if each.setup.node_id in cluster.copies]
    if not able:
        await copied_disk(cluster, random)
        return
    node = random.choice(able)
    cluster.crash(node)
    cluster.set_back(node, cluster.copies[node.setup.node_id])
    await sim_faults.last(random, 30)
    await sim_faults.start_all(cluster, [node])


async def away(cluster: NameCluster, random: Random) -> None:
    """A node is switched off for long."""
    node = sim_faults.any_running(cluster, random)
    if node is not None:
        cluster.crash(node, power=True)
        await asyncio.sleep(random.uniform(60, 300))
        await sim_faults.start_all(cluster, [node])


async def forgotten_tombstones(cluster: NameCluster, random: Random) -> None:
    """It is time for a node to forget its tombstones."""
    node = sim_faults.any_running(cluster, random)
    if node is not None and node.core is not None:
        purge = node.core.names.sync.purge(int(1e9 * node.wall_clock()))
        try:
            cluster.counts["tombstones forgotten"] += await node.do(purge, 10.0)
        except (TierceError, GaveUp) as error:
            cluster.note(f"no tombstones forgotten: {error}")


async def wrong_clock(cluster: NameCluster, random: Random) -> None:
    """Somebody sets a clock, wrongly, but not by more than collection leaves time for."""
    node = random.choice(list(cluster.nodes.values()))
    most_seconds = node.setup.collect_grace_seconds / 3
    node.skew_seconds += random.uniform(-LARGEST_SET_BACK_SECONDS, most_seconds)
    cluster.note(f"clock {node.setup.node_id} {node.skew_seconds:.3f}")


FAMILIES: dict[str, list[NameFault]] = {
    "links": [*sim_faults.FAMILIES["links"]],
    "processes": [
        *(each for each in sim_faults.FAMILIES["processes"] if each.__name__ != "wrong_clock"),
        wrong_clock,
    ],
    "disks": [*sim_faults.FAMILIES["disks"], copied_disk, disk_set_back],
    "upstream": [upstream_trouble],
    "others": [away, sim_faults.added_node],
    "tombstones": [forgotten_tombstones],
}
