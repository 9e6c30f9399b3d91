"""The power cut: every process killed at once, over and over, while clients write.

What was acknowledged is there and right after each restart, nothing half-written is visible, and
nothing is left lying around. SIGKILL leaves the page cache, so this says nothing of what a disk
forgets; it is about the order of our own steps.
"""

import asyncio
import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tierce.blobs.environment import Environment
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.limits import KIB, PACK_LIMIT_BYTES
from tierce.testing.calls import connect, exchange, listing, status
from tierce.testing.processes import NodeProcess

pytestmark = pytest.mark.procs

CONNECTIONS = 32
READERS = 4
SAMPLE = 100
PUTS_PER_ROUND = 40


def _content(generator: random.Random) -> bytes:
    """Empty, small, just small enough to be packed, or large."""
    kind = generator.random()
    if kind < 0.04:
        return b""
    if kind < 0.54:
        return generator.randbytes(4 * KIB)
    if kind < 0.80:
        return generator.randbytes(60 * KIB)
    # Most of the large ones are not so large, to keep the rounds short.
    return generator.randbytes(int(100 * KIB * 20 ** (generator.random() ** 2)))


class Writers:
    """Clients that put blobs over connections of their own, until the node is gone."""

    def __init__(self, node: NodeProcess, seed: int) -> None:
        self._node = node
        self.acknowledged: dict[Digest, int] = {}
        self.unexpected: list[Any] = []
        self._threads = [
            threading.Thread(target=self._write, args=(random.Random(f"{seed}-{number}"),))
            for number in range(CONNECTIONS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def _write(self, generator: random.Random) -> None:
        with (
            contextlib.closing(connect(self._node.address)) as connection,
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            for _ in range(PUTS_PER_ROUND):
                data = _content(generator)
                digest = Digest.of(data, generator.choice(sorted(ALGORITHMS)))
                reply = exchange(connection, "PUT", f"/v1/blobs/{digest}", data)
                if reply.status in (200, 201):
                    self.acknowledged[digest] = len(data)
                else:
                    self.unexpected.append(reply)


def _wrong(node: NodeProcess, digests: Iterable[Digest]) -> list[Digest]:
    """Fetch blobs; returns those that are not there, or not right."""

    def check(some: list[Digest]) -> list[Digest]:
        with contextlib.closing(connect(node.address)) as connection:
            replies = ((each, exchange(connection, "GET", f"/v1/blobs/{each}")) for each in some)
            return [
                digest
                for digest, reply in replies
                if reply.status != 200
                or not reply.complete
                or Digest.of(reply.body, digest.algorithm) != digest
            ]

    every = list(digests)
    with ThreadPoolExecutor(READERS) as pool:
        shares = pool.map(check, (every[number::READERS] for number in range(READERS)))
        return [digest for share in shares for digest in share]


def _assert_counts(node: NodeProcess, listed: dict[Digest, int], rounds: int) -> None:
    """The counts of a stopped node against its listing, just taken.

    Counts of packed blobs are committed with them, so they are exact. Those of files follow in a
    later commit, so each crash may lose the counts of files stored within the last commit or two.
    """
    environment = Environment(node.data / "lmdb")
    try:
        packed, files = environment.counts("packed"), environment.counts("files")
    finally:
        asyncio.run(environment.close())
    small = [size for size in listed.values() if size <= PACK_LIMIT_BYTES]
    assert packed == (len(small), sum(small))
    large = len(listed) - len(small)
    assert large - 2 * CONNECTIONS * rounds <= files.blobs <= large


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [8, pytest.param(40, marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_or_wrong_after_power_cuts(
    tmp_path: Path, rounds: int
) -> None:
    seed = 20240
    generator = random.Random(seed)
    acknowledged: dict[Digest, int] = {}
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        for number in range(rounds):
            writers = Writers(node, seed + number)
            writers.start()
            time.sleep(generator.uniform(0.02, 0.35))
            node.kill()
            writers.wait()
            assert writers.unexpected == []
            if number % 4 == 3:
                # Some cuts come while the node is still on its way up.
                node.launch()
                time.sleep(generator.uniform(0, 1))
                node.kill()

            node.start()
            assert node.spools() == []
            assert _wrong(node, writers.acknowledged) == []
            older = sorted(acknowledged)
            assert _wrong(node, generator.sample(older, min(SAMPLE, len(older)))) == []
            acknowledged |= writers.acknowledged

        listed = listing(node.address)
        assert acknowledged.items() <= listed.items()
        assert _wrong(node, listed) == []
        told = status(node.address)
        node.stop()  # which also looks for tracebacks in the log of all rounds
        assert told["blobs"] <= len(listed)
        _assert_counts(node, listed, rounds)
        assert node.spools() == []
        assert list((node.data / "quarantine").iterdir()) == []
    assert len(acknowledged) > 10 * CONNECTIONS
    assert {each.algorithm for each in acknowledged} == set(ALGORITHMS)
