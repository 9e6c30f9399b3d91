"""The scrub finds what is bad, sets it aside, and says how it went."""

from pathlib import Path

import pytest

from tierce.blobs.local import Disk, make_directories
from tierce.blobs.memory import MemoryStore
from tierce.blobs.space import SpaceGuard
from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest
from tierce.core.limits import SCRUB_PAGE_BLOBS
from tierce.node.scrub import Scrub


def scrub_of(store: BlobStore, bad: list[Digest] | None = None) -> Scrub:
    found = [] if bad is None else bad
    return Scrub(store, interval_seconds=0, bytes_per_second=1e12, on_bad=found.append)


def store_of(count: int) -> MemoryStore:
    store = MemoryStore()
    for number in range(count):
        content = b"%d" % number
        store.blobs[Digest.of(content)] = content
    return store


async def test_a_pass_goes_through_all_blobs_page_by_page() -> None:
    count = 2 * SCRUB_PAGE_BLOBS + 1
    scrub = scrub_of(store_of(count))
    assert scrub.status()["last_pass"] is None
    await scrub.scrub_once()
    status = scrub.status()
    assert (status["checked_blobs"], status["bad_blobs"], status["passes"]) == (count, 0, 1)
    assert status["last_pass"].endswith("Z")


async def test_a_bad_blob_is_set_aside_and_counted_and_the_rest_is_gone_through() -> None:
    store = store_of(10)
    bad = sorted(store.blobs)[4]
    store.blobs[bad] = b"something else"
    told: list[Digest] = []
    scrub = scrub_of(store, told)
    await scrub.scrub_once()
    assert scrub.status()["bad_blobs"] == 1
    assert scrub.status()["checked_blobs"] == 10
    assert [digest for digest, _ in store.quarantined] == [bad]
    assert told == [bad]


@pytest.mark.parametrize("size", [100, 300_000])
async def test_a_bad_copy_on_disk_goes_to_quarantine(tmp_path: Path, size: int) -> None:
    make_directories(tmp_path)
    disk = Disk(tmp_path, pack_limit_bytes=-1, space=SpaceGuard(tmp_path, reserve_bytes=0))
    async with disk.spooler.holding(bytes(size), "sha256") as spool:
        await disk.store.put(spool)
    (file,) = (path for path in (tmp_path / "files").rglob("*") if path.is_file())
    content = bytearray(file.read_bytes())
    content[size // 2] ^= 1
    file.write_bytes(content)
    scrub = scrub_of(disk.store)
    await scrub.scrub_once()
    assert scrub.status()["bad_blobs"] == 1
    assert not file.exists()
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    await disk.close()
