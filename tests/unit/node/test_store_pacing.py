"""Which limits a process towards its store gets, by the node's settings."""

import pytest

from tierce.core.limits import (
    DRIVE_REQUESTS_PER_SECOND,
    STORE_BACKGROUND_REQUESTS_PER_SECOND,
)
from tierce.core.settings import Settings
from tierce.node.store_pacing import pace_of

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
