"""Every blob store keeps the one contract (tierce.testing.blob_contract)."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs.environment import BLOBS, WriteBatch
from tierce.blobs.local import Disk, make_directories
from tierce.blobs.memory import MemoryStore
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.testing.blob_contract import LARGE, SMALL, BlobStoreContract, Workbench, write_now


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    make_directories(tmp_path)
    disk = Disk(tmp_path, space=SpaceGuard(tmp_path, reserve_bytes=0))
    yield disk
    await disk.close()


def harm_file(disk: Disk, digest: Digest, at: int) -> None:
    root = disk.spooler.directory.parent / "files"
    path = root / digest.algorithm / digest.hex[:2] / digest.hex[2:4] / digest.hex
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def harm_packed(disk: Disk, digest: Digest, at: int) -> None:
    key = digest.algorithm.encode() + b":" + digest.raw

    def change(batch: WriteBatch) -> None:
        value = bytearray(batch.get(BLOBS, key) or b"")
        value[1 + at] ^= 1
        batch.put(BLOBS, key, bytes(value))

    write_now(disk.environment, change)


def quarantined(disk: Disk) -> int:
    return len(os.listdir(disk.spooler.directory.parent / "quarantine"))


class TestMemory(BlobStoreContract):
    @pytest.fixture
    def bench(self, disk: Disk) -> Workbench:
        store = MemoryStore()

        def harm(digest: Digest, at: int) -> None:
            data = bytearray(store.blobs[digest])
            data[at] ^= 1
            store.blobs[digest] = bytes(data)

        return Workbench(store, disk.spooler, harm, lambda: len(store.quarantined), SMALL)


class TestPacked(BlobStoreContract):
    @pytest.fixture
    def bench(self, disk: Disk) -> Workbench:
        return Workbench(
            disk.store.packed,
            disk.spooler,
            lambda digest, at: harm_packed(disk, digest, at),
            lambda: quarantined(disk),
            SMALL,
        )


class TestFiles(BlobStoreContract):
    @pytest.fixture
    def bench(self, disk: Disk) -> Workbench:
        return Workbench(
            disk.store.files,
            disk.spooler,
            lambda digest, at: harm_file(disk, digest, at),
            lambda: quarantined(disk),
            LARGE,
        )


class TestLocal(BlobStoreContract):
    @pytest.fixture
    def bench(self, disk: Disk) -> Workbench:
        def harm(digest: Digest, at: int) -> None:
            try:
                harm_file(disk, digest, at)
            except FileNotFoundError:
                harm_packed(disk, digest, at)

        return Workbench(
            disk.store,
            disk.spooler,
            harm,
            lambda: quarantined(disk),
            sorted({*SMALL, *LARGE}),
        )
