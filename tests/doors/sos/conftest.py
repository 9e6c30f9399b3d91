"""The SOS doors, open to all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.doors.sos.node import SosNode, sos_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SosNode]:
    async with sos_node(tmp_path) as running:
        yield running
