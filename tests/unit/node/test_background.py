"""What a node asks its store for in the background, behind its clients."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.blobs.cloud_nodes import Nodes, TellingBucket
from tests.unit.node.fakes import FakeCluster, content, running
from tests.unit.node.test_healer import on_cluster, spread
from tests.unit.node.test_peer_service import DATA, DIGEST, Bench
from tests.unit.node.test_scrub import scrub_of
from tests.unit.node.test_store_tending import tending_of

from tierce.blobs.memory import MemoryStore
from tierce.blobs.spool import Spool
from tierce.cloud.failures import Taken
from tierce.cloud.pacing import is_background
from tierce.core.digest import Digest
from tierce.core.limits import DISK_THREADS, PEER_ANSWER_SECONDS
from tierce.testing import virtual_time

SECONDS_FOR_A_PROOF = 1.0


class Watched(MemoryStore):
    """Notes for what is put and verified whether that is background work."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[bool] = []
        self.checks: list[bool] = []

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        self.puts.append(is_background())
        return await super().put(spool, managed=managed)

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        self.checks.append(is_background())
        return await super().verify(digest, repair=repair)

    async def prove(self, digest: Digest) -> int:
        self.checks.append(is_background())
        return await super().verify(digest, repair=True)


class Slow(MemoryStore):
    async def prove(self, digest: Digest) -> int:
        await asyncio.sleep(SECONDS_FOR_A_PROOF)
        return await super().verify(digest, repair=True)


def bench_of(directory: Path, store: MemoryStore) -> Bench:
    bench = Bench(directory)
    bench.store = store
    bench.service._store = store
    return bench


@pytest.mark.parametrize("healing", [False, True])
def test_copies_that_come_for_healing_are_put_in_the_background(
    tmp_path: Path, healing: bool
) -> None:
    async def check() -> None:
        store = Watched()
        await bench_of(tmp_path, store).give((DIGEST, DATA), healing=healing)
        assert store.puts == [healing]

    virtual_time.run(check())


def test_proofs_are_given_in_the_background(tmp_path: Path) -> None:
    async def check() -> None:
        store = Watched()
        bench = bench_of(tmp_path, store)
        await bench.give((DIGEST, DATA))
        assert await bench.find(DIGEST, prove=True) == [len(DATA)]
        assert store.checks == [True]
        assert not is_background()

    virtual_time.run(check())


async def test_the_scrub_is_background_work() -> None:
    store = Watched()
    store.blobs[DIGEST] = DATA
    running = asyncio.create_task(scrub_of(store).run())
    while not store.checks:
        await asyncio.sleep(0)
    running.cancel()
    assert store.checks == [True]


def test_healing_is_background_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(made: FakeCluster) -> None:
        (digest,) = spread(made, 1)
        store = made.nodes["b"].store
        found: list[bool] = []

        async def verify(digest: Digest, *, repair: bool) -> int:
            found.append(is_background())
            return len(store.blobs[digest])

        monkeypatch.setattr(store, "verify", verify)
        async with running(made.nodes["b"].healer.run()):
            made.nodes["b"].healer.hint(digest)
            await asyncio.sleep(0.1)
        assert found == [True]

    on_cluster(tmp_path, 3, check)


async def test_tending_is_background_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(tmp_path)
    node = await nodes.new(TellingBucket())
    found: list[bool] = []

    async def tend() -> None:
        found.append(is_background())
        raise Taken("enough")

    monkeypatch.setattr(node.store, "tend", tend)
    await tending_of(node.disk).run()
    assert found == [True]
    await node.disk.close()


def test_what_a_slow_store_can_not_prove_in_time_is_not_proved_rather_than_nothing(
    tmp_path: Path,
) -> None:
    async def check() -> None:
        bench = bench_of(tmp_path, Slow())
        blobs = [content(number) for number in range(20 * DISK_THREADS)]
        for data in blobs:
            bench.store.blobs[Digest.of(data)] = data
        loop = asyncio.get_running_loop()
        began = loop.time()
        sizes = await bench.find(*map(Digest.of, blobs), prove=True)
        assert loop.time() - began < PEER_ANSWER_SECONDS
        proved = [size for size in sizes if size is not None]
        assert DISK_THREADS <= len(proved) < len(blobs)

    virtual_time.run(check())
