"""A node with a Cask door, as the recorded ones were set up."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.doors.cask.wire import SECRET

from tierce.testing.serving import Served, serving

NODE_ID = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
BASE_URL = "http://localhost:8080"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(
        tmp_path / "data",
        doors=("cask", "native"),
        node_id=NODE_ID,
        cluster_secret=SECRET,
        cask_base_url=BASE_URL,
    ) as served:
        yield served


@pytest.fixture
async def read_only(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(
        tmp_path / "read-only", doors=("cask",), cluster_secret=SECRET, read_only=True
    ) as served:
        yield served


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(
        tmp_path / "full", doors=("cask",), cluster_secret=SECRET, reserve_bytes=1 << 60
    ) as served:
        yield served
