"""A catalogue that says a wrong size, as a listing may have told it: the object decides."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.blobs.cloud_nodes import Node, TellingBucket

from tierce.blobs import catalogue
from tierce.blobs.cloud_names import path_of
from tierce.blobs.environment import WriteBatch
from tierce.blobs.store import Counts
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import CHUNK_BYTES
from tierce.testing.blob_contract import body

SMALL, LARGE = b"small", body(2 * CHUNK_BYTES + 5)


@pytest.fixture
def bucket() -> TellingBucket:
    return TellingBucket()


@pytest.fixture
async def node(tmp_path: Path, bucket: TellingBucket) -> AsyncIterator[Node]:
    node = Node(tmp_path, bucket)
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


async def resize(node: Node, digest: Digest, size: int) -> None:
    row = node.row(digest)
    assert row is not None

    def change(batch: WriteBatch) -> None:
        catalogue.put_in(batch, digest, row._replace(size=size), None, None)

    await node.disk.environment.write(change)


@pytest.mark.parametrize("wrong", [1, 4, 6, 5000])
async def test_a_small_blob_is_served_and_its_size_put_right(node: Node, wrong: int) -> None:
    digest = await node.put(SMALL)
    await resize(node, digest, wrong)
    assert await node.store.counts() == Counts(1, wrong)
    assert await node.get(digest) == SMALL
    assert await node.store.stat(digest) == len(SMALL)
    assert await node.store.counts() == Counts(1, len(SMALL))
    assert node.quarantined() == 0


@pytest.mark.parametrize("wrong", [CHUNK_BYTES + 1, len(LARGE) - 1, len(LARGE) + 1])
async def test_a_large_blob_is_not_set_aside_for_it(node: Node, wrong: int) -> None:
    digest = await node.put(LARGE)
    await resize(node, digest, wrong)
    with pytest.raises(Unavailable, match="replaced while it was read"):
        await node.get(digest)
    assert await node.get(digest) == LARGE
    assert await node.store.counts() == Counts(1, len(LARGE))
    assert node.quarantined() == 0


async def test_an_object_of_another_size_and_content_is_set_aside(
    node: Node, bucket: TellingBucket
) -> None:
    digest = await node.put(SMALL)
    bucket.plain().write(path_of(digest, "tierce"), b"something else")
    with pytest.raises(NotFound):
        await node.store.open(digest)
    assert await node.store.counts() == Counts(0, 0)
    assert node.quarantined() == 1


async def test_of_a_missing_object_nothing_is_left_to_set_aside(
    node: Node, bucket: TellingBucket
) -> None:
    digest = await node.put(SMALL)
    bucket.plain().delete(path_of(digest, "tierce"))
    with pytest.raises(NotFound):
        await node.store.open(digest)
    assert node.quarantined() == 0
