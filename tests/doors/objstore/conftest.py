"""A public objstore door, open to all."""

from collections.abc import AsyncIterator

import pytest
from tests.doors.objstore.near_cache import Node, objstore_node


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with objstore_node() as running:
        yield running
