"""A node with a dtfc door and a native one, open to all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.doors.dtfc.wire import Dtfc

from tierce.testing.serving import Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path / "data", ("dtfc", "native")) as running:
        yield running


@pytest.fixture
def node(served: Served) -> Dtfc:
    return Dtfc(served.urls["dtfc"])
