"""The scrub finds what is bad, sets it aside, and says how it went."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tierce.blobs.local import Disk, make_directories
from tierce.blobs.memory import MemoryStore
from tierce.blobs.space import SpaceGuard
from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.core.limits import SCRUB_PAGE_BLOBS
from tierce.node.scrub import IsDue, Scrub


def scrub_of(
    store: BlobStore, bad: list[Digest] | None = None, is_due: IsDue | None = None
) -> Scrub:
    found = [] if bad is None else bad
    return Scrub(
        store, interval_seconds=0, bytes_per_second=1e12, on_bad=found.append, is_due=is_due
    )


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


async def test_a_pass_that_was_interrupted_goes_on_behind_what_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = store_of(2 * SCRUB_PAGE_BLOBS)
    order = sorted(store.blobs)
    down_at, verify = order[SCRUB_PAGE_BLOBS + 3], store.verify
    seen: list[Digest] = []

    async def verify_all_but_one(digest: Digest, *, repair: bool) -> int:
        seen.append(digest)
        if digest == down_at:
            raise Unavailable("the store failed")
        return await verify(digest, repair=repair)

    monkeypatch.setattr(store, "verify", verify_all_but_one)
    scrub = scrub_of(store)
    with pytest.raises(Unavailable):
        await scrub.scrub_once()
    assert scrub.status()["passes"] == 0
    await scrub.scrub_once()
    assert seen == order
    assert scrub.status()["passes"] == 1
    monkeypatch.undo()
    await scrub.scrub_once()
    assert scrub.status()["checked_blobs"] == 2 * len(order) - 1


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


async def test_only_what_is_due_is_verified() -> None:
    store = store_of(2 * SCRUB_PAGE_BLOBS)
    due = set(sorted(store.blobs)[:3])
    for digest in due:
        store.blobs[digest] = b"something else"

    async def is_due(digests: Sequence[Digest]) -> list[bool]:
        return [digest in due for digest in digests]

    told: list[Digest] = []
    scrub = scrub_of(store, told, is_due)
    await scrub.scrub_once()
    status = scrub.status()
    assert told == sorted(due)
    assert (status["checked_blobs"], status["vouched_blobs"], status["bad_blobs"]) == (
        3, 2 * SCRUB_PAGE_BLOBS - 3, 3,
    )  # fmt: skip


async def test_a_page_of_which_nothing_is_due_costs_one_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def is_due(digests: Sequence[Digest]) -> list[bool]:
        return [False] * len(digests)

    monkeypatch.setattr("tierce.node.scrub.asyncio.sleep", sleep)
    told: list[Digest] = []
    scrub = Scrub(
        store_of(2 * SCRUB_PAGE_BLOBS),
        interval_seconds=2.0,
        bytes_per_second=1,
        on_bad=told.append,
        is_due=is_due,
    )
    await scrub.scrub_once()
    assert pauses == [2.0, 2.0]
