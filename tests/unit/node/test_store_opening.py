"""A store as the settings have it: which limits a process gets, and what a start refuses."""

from pathlib import Path

import pytest
from tests.unit.blobs.test_cloud import SMALL, Node

from tierce.blobs.cloud_disk import CloudDisk
from tierce.core.errors import BadRequest
from tierce.core.limits import (
    DRIVE_REQUESTS_PER_SECOND,
    STORE_BACKGROUND_REQUESTS_PER_SECOND,
)
from tierce.core.settings import Settings
from tierce.node.runtime import Stop
from tierce.node.store_opening import pace_of
from tierce.wiring import open_disk, prepare_memory, prepare_store

CASES: list[tuple[str, float | None, int, float | None]] = [
    ("s3://bucket", None, 1, None),
    ("s3://bucket", 0.0, 4, None),
    ("s3://bucket", 30.0, 1, 30.0),
    ("s3://bucket", 30.0, 2, 10.0),  # the agent has a share
    ("dropbox:///blobs", None, 1, DRIVE_REQUESTS_PER_SECOND),
    ("gdrive:///blobs", None, 4, DRIVE_REQUESTS_PER_SECOND / 5),
    ("onedrive:///blobs", 0.0, 1, None),
]


@pytest.mark.parametrize(("store", "per_second", "workers", "share"), CASES)
async def test_a_process_has_its_share(
    store: str, per_second: float | None, workers: int, share: float | None
) -> None:
    settings = Settings(store=store, store_requests_per_second=per_second, workers=workers)
    told = pace_of(settings).status()
    assert told["limit_per_second"] == share
    assert told["background_per_second"] == STORE_BACKGROUND_REQUESTS_PER_SECOND


async def test_a_node_whose_store_is_not_named_any_more_is_not_started_empty(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    digest = await node.put(SMALL)
    await node.disk.close()
    without = Settings(data=node.data, node_id="one", workers=1)
    with pytest.raises(BadRequest, match=f"are in the store fs://{node.root}"):
        await prepare_store(without)
    again = Node(tmp_path)
    await again.store.delete(digest)
    await again.disk.close()
    await prepare_store(without)  # it has nothing to lose


async def test_a_store_in_memory_is_the_one_that_was_prepared(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, node_id="one", workers=1, store="memory:///")
    await prepare_store(settings)
    disk = open_disk(settings, Stop())
    assert isinstance(disk, CloudDisk)
    await prepare_memory(settings, disk)
    await disk.store.ownership.check()
    await disk.close()
