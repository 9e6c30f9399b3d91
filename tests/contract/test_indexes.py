"""Every index of records keeps the one contract (tierce.testing.index_contract)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs.environment import Environment
from tierce.names.index import Index
from tierce.names.lmdb_index import DATABASES, LmdbIndex
from tierce.names.memory import MemoryIndex
from tierce.testing.index_contract import NODE, IndexContract


class TestMemory(IndexContract):
    @pytest.fixture
    def index(self) -> Index:
        return MemoryIndex(NODE)


class TestLmdb(IndexContract):
    @pytest.fixture
    async def index(self, tmp_path: Path) -> AsyncIterator[Index]:
        environment = Environment(tmp_path, databases=DATABASES)
        yield LmdbIndex(environment, NODE)
        await environment.close()
