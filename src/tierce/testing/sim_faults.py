"""What goes wrong in a simulated cluster. Each fault begins, lasts for a while, and ends again.

Faults are in four families (links, processes, disks, operators). A scenario has up to two of each
going on at a time. What destroys copies asks the cluster first, which keeps within what the promise
of durability allows.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from tierce.testing.network import Conditions
from tierce.testing.sim_cluster import SimCluster
from tierce.testing.sim_node import Setup, SimNode

Fault = Callable[[SimCluster, Random], Awaitable[None]]

LARGEST_SKEW_SECONDS = 1200.0


async def last(random: Random, longest_seconds: float) -> None:
    """Wait for as long as a fault lasts: mostly short."""
    await asyncio.sleep(random.uniform(0.1, 1.0) ** 2 * longest_seconds)


def any_running(cluster: SimCluster, random: Random) -> SimNode | None:
    """A node that runs and is not paused, if there is one."""
    able = [each for each in cluster.running if each.process and not each.process.is_paused]
    return random.choice(able) if able else None


# Links


async def bad_weather(cluster: SimCluster, random: Random) -> None:
    """Messages get lost, arrive twice and overtake each other, everywhere."""
    cluster.network.mend(
        Conditions(
            jitter_seconds=random.choice([0.01, 0.3, 1.0]),
            loss=random.choice([0.0, 0.02, 0.2]),
            duplication=random.choice([0.0, 0.05, 0.3]),
        )
    )
    await last(random, 60)
    cluster.network.mend()


async def partition(cluster: SimCluster, random: Random) -> None:
    """Some nodes can't reach the others; perhaps the others reach them."""
    names = list(cluster.nodes)
    random.shuffle(names)
    border = random.randrange(1, len(names))
    one_way = random.random() < 0.4
    cluster.note(f"cut {names[:border]} from {names[border:]} {'one way' if one_way else ''}")
    for here in names[:border]:
        for there in names[border:]:
            cluster.network.cut(here, there)
            if not one_way:
                cluster.network.cut(there, here)
    await last(random, 90)
    cluster.network.mend()


async def broken_links(cluster: SimCluster, random: Random) -> None:
    """Some pairs of nodes can't reach each other, though others reach both."""
    names = list(cluster.nodes)
    for _ in range(random.randrange(1, 4)):
        here, there = random.sample(names, 2)
        cluster.note(f"cut {here} from {there}")
        cluster.network.cut(here, there)
    await last(random, 90)
    cluster.network.mend()


async def slow_host(cluster: SimCluster, random: Random) -> None:
    """One host is far away, or behind a thin line."""
    slow = random.choice(list(cluster.nodes))
    rate = random.choice([0.0, 2_000.0, 50_000.0])
    latency = random.choice([0.05, 0.4, 2.0])
    cluster.note(f"slow {slow} {rate} {latency}")
    for other in list(cluster.nodes):
        for source, target in ((slow, other), (other, slow)):
            cluster.network.change(source, target, bytes_per_second=rate, latency_seconds=latency)
    await last(random, 60)
    cluster.network.mend()


# Processes


async def crash(cluster: SimCluster, random: Random) -> None:
    """Some nodes are killed, one as a rule, and started again."""
    count = random.choice([1, 1, 1, 2, len(cluster.nodes)])
    power = random.random() < 0.4
    crashed = random.sample(cluster.running, min(count, len(cluster.running)))
    for node in crashed:
        cluster.crash(node, power=power)
    await last(random, 60)
    await start_all(cluster, crashed)


async def wiped_disk(cluster: SimCluster, random: Random) -> None:
    """A node is killed, and gets an empty disk."""
    node = any_running(cluster, random)
    if node is not None:
        cluster.crash(node)
        cluster.wipe(node)
        await last(random, 30)
        await start_all(cluster, [node])


async def pause(cluster: SimCluster, random: Random) -> None:
    """A process stands still for a while."""
    node = any_running(cluster, random)
    if node is not None:
        cluster.note(f"pause {node.setup.node_id}")
        node.pause()
        await last(random, 60)
        cluster.note(f"resume {node.setup.node_id}")
        node.resume()


async def restart(cluster: SimCluster, random: Random) -> None:
    """A node is stopped in order and started again."""
    node = any_running(cluster, random)
    if node is not None:
        cluster.note(f"stop {node.setup.node_id}")
        await node.stop()
        await last(random, 40)
        await start_all(cluster, [node])


async def wrong_clock(cluster: SimCluster, random: Random) -> None:
    """Somebody sets a clock, wrongly."""
    node = random.choice(list(cluster.nodes.values()))
    node.skew_seconds = random.uniform(-LARGEST_SKEW_SECONDS, LARGEST_SKEW_SECONDS)
    cluster.note(f"clock {node.setup.node_id} {node.skew_seconds:.3f}")


async def start_all(cluster: SimCluster, nodes: list[SimNode]) -> None:
    """Start those that do not run, and were not lost for ever."""
    for node in nodes:
        if not node.is_running and node.setup.node_id in cluster.nodes:
            await cluster.start(node)


# Disks


async def failing_disk(cluster: SimCluster, random: Random) -> None:
    """A disk fails now and then, or is slow."""
    disk = random.choice(list(cluster.nodes.values())).disk
    disk.write_errors = random.choice([0.0, 0.1, 0.5, 1.0])
    disk.read_errors = random.choice([0.0, 0.1, 0.5])
    disk.write_seconds = random.choice([0.004, 0.5, 4.0])
    await last(random, 60)
    disk.write_errors = disk.read_errors = 0.0
    disk.write_seconds = 0.004


async def full_disk(cluster: SimCluster, random: Random) -> None:
    """A disk is full for a while."""
    disk = random.choice(list(cluster.nodes.values())).disk
    disk.is_full = True
    await last(random, 60)
    disk.is_full = False


async def bit_rot(cluster: SimCluster, random: Random) -> None:
    """Some copies on a disk lose a bit."""
    node = random.choice(list(cluster.nodes.values()))
    blobs = list(node.disk.blobs)
    for digest in random.sample(blobs, min(len(blobs), random.choice([1, 3, 20]))):
        cluster.counts["bits flipped"] += cluster.rot(node, digest)


# Operators


async def added_node(cluster: SimCluster, random: Random) -> None:
    """The cluster grows."""
    if len(cluster.nodes) >= 8:
        return
    model = random.choice(list(cluster.nodes.values())).setup
    await cluster.add(
        Setup(
            cluster.new_name(),
            replication=model.replication,
            zone=model.zone,
            weight=random.choice([0.5, 1.0, 2.0]),
            pacing=model.pacing,
            upstream=model.upstream,
            mode=model.mode,
            collect_grace_seconds=model.collect_grace_seconds,
            cache_limit_bytes=model.cache_limit_bytes,
            tombstone_days=model.tombstone_days,
            names_poll_seconds=model.names_poll_seconds,
        )
    )


async def drained_node(cluster: SimCluster, random: Random) -> None:
    """An operator has a node emptied."""
    staying = [each for each in cluster.nodes.values() if not each.is_draining]
    if len(staying) <= cluster.replication + 1:
        return
    node = random.choice(staying)
    asked = any_running(cluster, random)
    if asked is not None:
        await cluster.drain(node, asked)


async def looking_operator(cluster: SimCluster, random: Random) -> None:
    """An operator forgets nodes that are lost, where they are known to be down."""
    await cluster.forget_lost()


async def lost_node(cluster: SimCluster, random: Random) -> None:
    """A node burns down; an operator will see, and say that it won't come back."""
    staying = [each for each in cluster.nodes.values() if not each.is_draining]
    node = any_running(cluster, random)
    if node is None or len(staying) <= cluster.replication + 1:
        return
    cluster.crash(node, power=True)
    if not cluster.lose(node):
        await cluster.start(node)
        return


FAMILIES: dict[str, list[Fault]] = {
    "links": [bad_weather, partition, broken_links, slow_host],
    "processes": [crash, crash, wiped_disk, pause, restart, wrong_clock],
    "disks": [failing_disk, full_disk, bit_rot, bit_rot],
    "operators": [added_node, drained_node, lost_node, looking_operator],
}
