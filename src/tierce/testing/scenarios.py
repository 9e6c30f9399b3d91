"""Scenarios: from a seed a cluster, its clients and its misfortunes; then calm, and the reckoning.

While faults go on, nothing acknowledged may be lost and no wrong byte be read. When they have ended,
the cluster must converge within SETTLE_SECONDS, keep quiet, and give back every blob. Nothing but the
seed decides what happens.
"""

import asyncio
import gc
import logging
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple, TextIO

from tierce.core.digest import Digest
from tierce.node.cluster_node import Pacing
from tierce.testing.checkers import is_good
from tierce.testing.sim_cluster import SimCluster
from tierce.testing.sim_faults import FAMILIES, LARGEST_SKEW_SECONDS, Fault
from tierce.testing.sim_node import Setup
from tierce.testing.sim_process import run
from tierce.testing.trace import Trace

SETTLE_SECONDS = 900.0
_FAST_FILES = Path("/dev/shm")  # noqa: S108 (any directory would do, this one is not on a disk)


class Report(NamedTuple):
    """What a seed came to. Two runs of a seed have the same ``trace_digest``."""

    seed: int
    trace_digest: str
    simulated_seconds: float
    counts: dict[str, int]


class Failed(AssertionError):
    """A seed that found something."""


Scenario = Callable[[int, Trace, Path], Coroutine[None, None, Report]]


def command(seed: int) -> str:
    """How to run a seed alone."""
    return f"python -m tierce.testing.soak --seed {seed}"


def run_seed(seed: int, echo: TextIO | None = None) -> Report:
    """Run the scenario of a seed. Raises Failed, with the command that runs it alone.

    ``echo`` gets the trace while it happens.
    """
    return run_scenario(_scenario, seed, echo, command(seed))


def run_scenario(scenario: Scenario, seed: int, echo: TextIO | None, alone: str) -> Report:
    """Run one of the kinds of scenarios; ``alone`` is the command to run this seed of it."""
    trace = Trace(echo)
    where = _FAST_FILES if _FAST_FILES.is_dir() else None
    try:
        with (
            tempfile.TemporaryDirectory(dir=where, prefix="tierce-simulation-") as directory,
            _quiet(echo is None),
        ):
            return run(scenario(seed, trace, Path(directory)))
    except Exception as error:
        raise Failed(
            f"seed {seed}: {type(error).__name__}: {error}\nTo run it alone: {alone}"
        ) from error
    finally:
        is_good.cache_clear()
        gc.collect()


async def _scenario(seed: int, trace: Trace, directory: Path) -> Report:
    random = Random(f"{seed} scenario")  # noqa: S311
    size = random.randint(3, 7)
    cluster = SimCluster(seed, random.randint(1, min(3, size - 1)), directory, trace)
    for setup in _setups(cluster, random, size):
        await cluster.add(setup)
        await asyncio.sleep(random.uniform(0, 1))
    await cluster.form()
    clients = [
        asyncio.create_task(_client(cluster, cluster.random(f"client {number}")))
        for number in range(random.randint(2, 5))
    ]
    troubles = [
        asyncio.create_task(_trouble(cluster, cluster.random(f"{family} {number}"), faults))
        for family, faults in FAMILIES.items()
        for number in range(random.choice([0, 1, 1, 1, 2]))
    ]
    ends = asyncio.get_running_loop().time() + random.uniform(40, 200)
    while asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(1.0)
        cluster.check()
        raise_first([*clients, *troubles])
    for client in clients:
        client.cancel()
    for trouble in troubles:
        trouble.cancel()
    await asyncio.gather(*clients, *troubles, return_exceptions=True)
    raise_first([*clients, *troubles])
    await cluster.calm()
    await cluster.settle(SETTLE_SECONDS)
    await cluster.read_everything()
    cluster.count_returned()
    cluster.check()
    cluster.counts += cluster.network.outcomes
    simulated = asyncio.get_running_loop().time()
    return Report(seed, trace.digest, simulated, dict(sorted(cluster.counts.items())))


def _setups(cluster: SimCluster, random: Random, size: int) -> Iterator[Setup]:
    zones = random.choice([[""], [""], ["a", "b"], ["a", "b", "c"]])
    uneven = random.random() < 0.4
    grace_seconds = random.choice([0.0, 10.0, 30.0])
    for number in range(size):
        yield Setup(
            cluster.new_name(),
            replication=cluster.replication,
            zone=zones[number % len(zones)],
            weight=random.choice([0.5, 1.0, 3.0]) if uneven else 1.0,
            skew_seconds=random.uniform(-1, 1) * random.choice([0.0, LARGEST_SKEW_SECONDS]),
            pacing=Pacing(
                grace_seconds=grace_seconds,
                heal_bytes_per_second=random.choice([0, 1_000_000]),
            ),
        )


async def _client(cluster: SimCluster, random: Random) -> None:
    """Uploads and downloads, in a random order, through any node that runs."""
    mine: list[tuple[bytes, str]] = []
    known: list[Digest] = []
    while True:
        await asyncio.sleep(random.expovariate(1.0))
        if not cluster.running:
            continue
        node = random.choice(cluster.running)
        patience_seconds = random.choice([0.5, 5.0, 60.0])
        if known and random.random() < 0.03:
            doomed = known.pop(random.randrange(len(known)))
            mine = [(data, name) for data, name in mine if Digest.of(data, name) != doomed]
            await cluster.delete(node, doomed, patience_seconds)
        elif random.random() < 0.55 or not known:
            if not mine or random.random() < 0.8:
                mine.append((body(random), random.choice(["blake3", "sha1", "sha256", "sha512"])))
            data, algorithm = random.choice(mine[-3:])
            others = [node, *random.sample(cluster.running, random.choice([0, 0, 0, 1]))]
            await asyncio.gather(
                *(cluster.put(each, data, algorithm, patience_seconds) for each in others)
            )
            known.append(Digest.of(data, algorithm))
        else:
            digest = random.choice(known)
            others = [node] * random.choice([1, 1, 3])
            await asyncio.gather(*(cluster.get(each, digest, patience_seconds) for each in others))


def body(random: Random) -> bytes:
    """Mostly small; some that are streamed as large ones are; few of more than one piece."""
    largest = random.choices([100, 4_000, 16_000, 64_000, 2_500_000], [20, 50, 18, 11, 1])[0]
    return random.randbytes(random.randint(0, largest))


async def _trouble(cluster: SimCluster, random: Random, faults: list[Fault]) -> None:
    """One fault of a family after another, with peace in between."""
    while True:
        await asyncio.sleep(random.expovariate(1 / random.choice([2.0, 15.0, 40.0])))
        fault = random.choice(faults)
        cluster.note(f"fault {fault.__name__}")
        cluster.counts[f"fault {fault.__name__}"] += 1
        await fault(cluster, random)


def raise_first(tasks: "list[asyncio.Task[None]]") -> None:
    """Raise what ended any of these tasks, if something did."""
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Keep the production's log to itself: it tells of each fault."""
    log = logging.getLogger("tierce")
    before = log.disabled, log.level
    if wanted:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.disabled, log.level = before
