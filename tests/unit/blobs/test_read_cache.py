"""The read cache of a store in the cloud: it saves requests, and is never believed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.environment import Environment
from tierce.blobs.local import make_directories
from tierce.blobs.space import SpaceGuard
from tierce.cloud.bucket import open_bucket
from tierce.core.digest import Digest
from tierce.core.errors import NotFound
from tierce.testing.blob_contract import body
from tierce.upstream.eviction import S3Fifo

LIMIT_BYTES = 10_000


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[CloudDisk]:
    make_directories(tmp_path)
    (tmp_path / "cache" / str(1 << 30)).mkdir(parents=True)  # no process can have this number
    disk = CloudDisk(
        tmp_path,
        open_bucket("memory:///"),
        space=SpaceGuard(tmp_path, reserve_bytes=0),
        environment=Environment(tmp_path / "lmdb", databases=CLOUD_DATABASES),
        cached=S3Fifo(LIMIT_BYTES),
    )
    await disk.prepare("one")
    disk.store.bucket.requests["read"] = 0
    yield disk
    await disk.close()


async def put(disk: CloudDisk, data: bytes) -> Digest:
    async with disk.spooler.holding(data, "blake3") as spool:
        await disk.store.put(spool)
        return spool.digest


async def get(disk: CloudDisk, digest: Digest) -> bytes | None:
    return (await disk.store.open(digest)).data


def files(directory: Path) -> list[Path]:
    return [each for each in (directory / "cache").rglob("*") if each.is_file()]


async def test_what_was_read_is_not_asked_for_again(disk: CloudDisk, tmp_path: Path) -> None:
    digest = await put(disk, b"small")
    for _ in range(3):
        assert await get(disk, digest) == b"small"
    assert disk.store.bucket.requests["read"] == 1
    assert disk.store.cache is not None
    assert (disk.store.cache.hits, disk.store.cache.misses) == (2, 1)
    assert not (tmp_path / "cache" / str(1 << 30)).exists()


@pytest.mark.parametrize("left", [b"wrong", b"", None])
async def test_a_damaged_file_is_not_served(
    disk: CloudDisk, tmp_path: Path, left: bytes | None
) -> None:
    digest = await put(disk, b"small")
    await get(disk, digest)
    (file,) = files(tmp_path)
    file.unlink()
    if left is not None:
        file.write_bytes(left)
    assert await get(disk, digest) == b"small"
    assert disk.store.bucket.requests["read"] == 2
    assert await get(disk, digest) == b"small"
    assert disk.store.bucket.requests["read"] == 2


async def test_what_was_deleted_is_not_found_in_the_cache(disk: CloudDisk, tmp_path: Path) -> None:
    digest = await put(disk, b"small")
    await get(disk, digest)
    await disk.store.delete(digest)
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        await get(disk, digest)


async def test_it_stays_within_its_bound(disk: CloudDisk, tmp_path: Path) -> None:
    for number in range(30):
        data = body(1000, seed=number)
        assert await get(disk, await put(disk, data)) == data
        assert sum(each.stat().st_size for each in files(tmp_path)) <= LIMIT_BYTES
    assert len(files(tmp_path)) == LIMIT_BYTES // 1000


async def test_verifying_reads_the_object_itself(disk: CloudDisk) -> None:
    digest = await put(disk, b"small")
    await get(disk, digest)
    before = disk.store.bucket.requests["read"]
    await disk.store.verify(digest, repair=True)
    assert disk.store.bucket.requests["read"] == before + 1
