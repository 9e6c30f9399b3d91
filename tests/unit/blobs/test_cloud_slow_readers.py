"""Many who read large blobs slowly: what they hold at once is bounded, and all get the right bytes."""

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from tests.unit.blobs.test_cloud import Node

from tierce.blobs.cloud_reading import Room
from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.limits import CLOUD_TIGHT_BYTES, MIB, PIECE_BYTES
from tierce.testing.blob_contract import body

LARGE = body(3 * PIECE_BYTES + 5)
READERS_COUNT = 12
LIMIT_BYTES = 4 * MIB


class Asked:
    """Notes the sizes of pieces that were asked for."""

    def __init__(self, node: Node) -> None:
        self.sizes: list[int] = []
        cached = node.store._cached
        self._piece = cached.piece
        cached.room = self.room = Room(LIMIT_BYTES)
        cached.piece = self.piece  # type: ignore[method-assign]

    async def piece(self, found: object, start: int, stop: int) -> bytes:
        data = await self._piece(found, start, stop)  # type: ignore[arg-type]
        self.sizes.append(len(data))
        return data


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


async def begun(
    node: Node, digest: Digest, start: int
) -> tuple[OpenBlob, AsyncGenerator[bytes, None], bytes]:
    """A reader that has got its first piece, and waits."""
    blob = await node.store.open(digest)
    pieces = blob.stream(start)
    return blob, pieces, await anext(pieces)


async def test_what_slow_readers_hold_is_bounded(node: Node) -> None:
    digest = await node.put(LARGE)
    asked = Asked(node)
    readers = [await begun(node, digest, number % 2) for number in range(READERS_COUNT)]
    assert 0 <= asked.room.free_bytes < PIECE_BYTES
    assert sum(asked.sizes) <= LIMIT_BYTES + READERS_COUNT * CLOUD_TIGHT_BYTES
    for number, (blob, pieces, first) in enumerate(readers):
        rest = [piece async for piece in pieces]
        assert b"".join([first, *rest]) == LARGE[number % 2 :]
        await blob.aclose()
    assert asked.room.free_bytes == LIMIT_BYTES


async def test_a_reader_who_leaves_gives_its_room_back(node: Node) -> None:
    digest = await node.put(LARGE)
    asked = Asked(node)
    blob, pieces, _ = await begun(node, digest, 0)
    assert asked.room.free_bytes == LIMIT_BYTES - 2 * PIECE_BYTES
    await pieces.aclose()
    pieces = blob.stream(5)  # the next part that it was asked for
    assert await anext(pieces)
    assert asked.room.free_bytes == LIMIT_BYTES - 2 * PIECE_BYTES
    await pieces.aclose()
    await blob.aclose()
    assert asked.room.free_bytes == LIMIT_BYTES


async def test_who_reads_alone_gets_whole_ranges(node: Node) -> None:
    digest = await node.put(LARGE)
    asked = Asked(node)
    blob, pieces, first = await begun(node, digest, 0)
    assert b"".join([first, *[piece async for piece in pieces]]) == LARGE
    await blob.aclose()
    assert asked.sizes == [PIECE_BYTES] * 3 + [5]
