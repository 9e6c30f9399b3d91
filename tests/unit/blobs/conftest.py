"""Fixtures for the tests of stores."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.blobs.caches import Caches

from tierce.blobs import read_cache


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caches]:
    """The read caches of a node's processes, which tell of themselves at once."""
    monkeypatch.setattr(read_cache, "STORE_CACHE_TELL_SECONDS", 0.0)
    with ThreadPoolExecutor(2) as pool:
        yield Caches(tmp_path, pool)
