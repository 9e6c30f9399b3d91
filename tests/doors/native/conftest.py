"""One node for all tests of a file: each test uses bytes of its own, so none sees another."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doors.native.node import Node, node_in_thread
from tests.doors.native.object_node import ObjectNode, object_node_in_thread

# Small enough that a blob of a few pieces is quick to send, and lies in a file.
PACK_LIMIT_BYTES = 1024


@pytest.fixture(scope="module")
def node(module_path: Path) -> Iterator[Node]:
    with node_in_thread(module_path / "node", pack_limit_bytes=PACK_LIMIT_BYTES) as running:
        yield running


@pytest.fixture(scope="module")
def plain_node(module_path: Path) -> Iterator[Node]:
    """A node with the default settings."""
    with node_in_thread(module_path / "plain") as running:
        yield running


@pytest.fixture
def small_node(tmp_path: Path) -> Iterator[Node]:
    with node_in_thread(tmp_path / "data", blob_limit_bytes=4096, pack_limit_bytes=1024) as running:
        yield running


@pytest.fixture
def frozen_node(tmp_path: Path) -> Iterator[Node]:
    with node_in_thread(tmp_path / "data", read_only=True) as running:
        yield running


@pytest.fixture
def full_node(tmp_path: Path) -> Iterator[Node]:
    with node_in_thread(tmp_path / "data", reserve_bytes=1 << 60) as running:
        yield running


@pytest.fixture
def lonely_node(tmp_path: Path) -> Iterator[Node]:
    with node_in_thread(tmp_path / "data", replication=2) as running:
        yield running


@pytest.fixture(scope="module")
def objects(module_path: Path) -> Iterator[ObjectNode]:
    with object_node_in_thread(
        module_path / "objects", pack_limit_bytes=PACK_LIMIT_BYTES
    ) as running:
        yield running


@pytest.fixture
def fresh_objects(tmp_path: Path) -> Iterator[ObjectNode]:
    """One for each test, without any objects."""
    with object_node_in_thread(tmp_path / "data", blob_limit_bytes=4096) as running:
        yield running


@pytest.fixture
def guarded_objects(tmp_path: Path) -> Iterator[ObjectNode]:
    """One that asks for tokens. The text of each is the right that it gives."""
    with object_node_in_thread(tmp_path / "data", with_tokens=True) as running:
        yield running
