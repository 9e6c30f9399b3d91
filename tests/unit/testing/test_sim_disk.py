"""The simulated disk keeps the contract while it is well, and breaks as disks do."""

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tierce.blobs.spool import Spooler
from tierce.core.digest import Digest
from tierce.core.errors import Full, NotFound, ReadOnly, Unavailable
from tierce.core.limits import BLOB_LIMIT_BYTES, PIECE_BYTES
from tierce.testing.blob_contract import BlobStoreContract, Workbench, body
from tierce.testing.sim_disk import SimDisk, SimSpace, SimStore
from tierce.testing.sim_process import Process


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    disk = SimDisk(random.Random(1))
    with ThreadPoolExecutor(1) as pool:
        spooler = Spooler(
            tmp_path,
            pool=pool,
            space=SimSpace(disk),
            memory_limit_bytes=disk.pack_limit_bytes,
            blob_limit_bytes=BLOB_LIMIT_BYTES,
        )

        def harm(digest: Digest, at: int) -> None:
            data = bytearray(disk.blobs[digest])
            data[at] ^= 1
            disk.blobs[digest] = bytes(data)

        yield DiskBench(
            SimStore(disk, Process("one")),
            spooler,
            harm,
            lambda: len(disk.quarantined),
            [0, 1, 4096, 16384, 16385, PIECE_BYTES + 7],
            disk,
        )


class DiskBench(Workbench):
    """A bench that tells its disk."""

    def __init__(self, *parts: object) -> None:
        *rest, disk = parts
        super().__init__(*rest)  # type: ignore[arg-type]
        assert isinstance(disk, SimDisk)
        self.disk = disk


class TestSimStore(BlobStoreContract):
    """The contract, with small and large blobs."""


async def test_what_a_put_acknowledged_survives_a_crash(bench: DiskBench) -> None:
    digest, _ = await bench.put(body(100))
    bench.disk.crash()
    assert bench.disk.blobs == {digest: body(100)}


async def test_an_interrupted_put_is_there_whole_or_not_at_all(bench: DiskBench) -> None:
    survived = set()
    for number in range(40):
        data = body(50, seed=number)
        task = asyncio.create_task(bench.put(data))
        while not bench.disk._under_way:
            await asyncio.sleep(0)
        bench.disk.crash()
        with pytest.raises(Unavailable):
            await task
        found = bench.disk.blobs.get(Digest.of(data))
        assert found in (None, data)
        survived.add(found is not None)
    assert survived == {True, False}


async def test_a_write_error_leaves_it_open_whether_the_blob_is_there(bench: DiskBench) -> None:
    bench.disk.write_errors = 1.0
    for number in range(20):
        with pytest.raises(Unavailable):
            await bench.put(body(50, seed=number))
    assert 0 < len(bench.disk.blobs) < 20


async def test_a_full_disk_takes_nothing(bench: DiskBench) -> None:
    bench.disk.is_full = True
    with pytest.raises(Full):
        await bench.put(body(50))
    assert not bench.disk.blobs
    with pytest.raises(Full):
        SimSpace(bench.disk).check(1)


async def test_a_read_only_space_takes_only_what_passes(bench: DiskBench) -> None:
    space = SimSpace(bench.disk, read_only=True)
    space.check(1, passing=True)
    with pytest.raises(ReadOnly):
        space.check(1)


async def test_a_rotten_blob_is_noticed_and_set_aside(bench: DiskBench) -> None:
    digest, _ = await bench.put(body(50))
    bench.disk.rot(digest)
    with pytest.raises(NotFound):
        await bench.get(digest)
    assert [each for each, _ in bench.disk.quarantined] == [digest]


async def test_a_wiped_disk_is_empty(bench: DiskBench) -> None:
    digest, _ = await bench.put(body(50))
    bench.disk.wipe()
    with pytest.raises(NotFound):
        await bench.store.open(digest)


async def test_a_dead_process_changes_nothing(bench: DiskBench, tmp_path: Path) -> None:
    process = Process("dead")
    store = SimStore(bench.disk, process)
    process.is_alive = False
    async with bench.spooler.holding(body(50), "blake3") as spool:
        with pytest.raises(Unavailable):
            await store.put(spool)
    assert not bench.disk.blobs
