"""Reading a store in the cloud: through the read cache, and once for all who ask at once."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs import cache_shelves, catalogue
from tierce.blobs.cache_shelves import Shelf
from tierce.blobs.cloud_names import path_of
from tierce.blobs.read_cache import CachePlan, ReadCache
from tierce.cloud.bucket import open_bucket
from tierce.cloud.pacing import background
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound
from tierce.core.limits import CHUNK_BYTES, MIB
from tierce.testing.blob_contract import body
from tierce.testing.cloud_nodes import CloudNode
from tierce.upstream.eviction import S3Fifo

RANGE_BYTES = 4 * CHUNK_BYTES
LARGE = body(2 * RANGE_BYTES + CHUNK_BYTES + 5)


class Node(CloudNode):
    """A cloud node with a read cache, on a bucket in memory. Requests to read are counted."""

    def __init__(self, data: Path, limit_bytes: int | None) -> None:
        super().__init__(
            data,
            open_bucket("memory:///"),
            range_bytes=RANGE_BYTES,
            cached=None if limit_bytes is None else CachePlan(1, lambda: S3Fifo(limit_bytes)),
        )

    @property
    def cache(self) -> ReadCache:
        assert self.store.cache is not None
        return self.store.cache

    def take_requests(self) -> int:
        """How many requests to read there were since this was asked last."""
        requests = self.store.bucket.requests
        taken, requests["read"] = requests["read"], 0
        return taken

    async def put(self, data: bytes, algorithm: str = "blake3") -> Digest:
        digest = await super().put(data, algorithm)
        self.take_requests()
        return digest

    async def get(self, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
        data = await super().get(digest, start, stop)
        await self.settled()
        return data

    async def settled(self) -> None:
        if self.store.cache is not None:
            async with asyncio.timeout(5):
                while not self.store.cache.is_idle:
                    await asyncio.sleep(0)

    def files(self) -> list[Path]:
        found = (self.data / "cache").rglob("*")
        return sorted(each for each in found if each.is_file() and each.name != cache_shelves.LOCK)


async def opened(tmp_path: Path, limit_bytes: int | None) -> Node:
    node = Node(tmp_path, limit_bytes)
    await node.disk.prepare("one")
    await node.settled()
    return node


@pytest.fixture
async def node(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    node = await opened(tmp_path, getattr(request, "param", 16 * MIB))
    yield node
    await node.disk.close()


cached_or_not = pytest.mark.parametrize(
    "node", [16 * MIB, None], ids=["cached", "not"], indirect=True
)


# Small blobs


async def test_what_was_read_is_not_asked_for_again(node: Node) -> None:
    digest = await node.put(b"small")
    for _ in range(3):
        assert await node.get(digest) == b"small"
    assert node.take_requests() == 1
    assert (node.cache.hits, node.cache.misses) == (2, 1)


async def test_a_damaged_file_is_not_served(node: Node) -> None:
    digest = await node.put(b"small")
    await node.get(digest)
    (file,) = node.files()
    file.write_bytes(b"wrong")
    assert await node.get(digest) == b"small"
    assert node.take_requests() == 2
    assert await node.get(digest) == b"small"
    assert node.take_requests() == 0


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_what_was_deleted_is_not_found_in_the_cache(node: Node, data: bytes) -> None:
    digest = await node.put(data)
    await node.get(digest)
    assert node.files()
    await node.store.delete(digest)
    assert node.files() == []
    with pytest.raises(NotFound):
        await node.get(digest)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_what_is_found_bad_goes_from_the_cache(node: Node, data: bytes) -> None:
    digest = await node.put(data)
    await node.get(digest)
    await node.store.bucket.delete(path_of(digest, "tierce"))
    with pytest.raises(Corrupt):
        await node.store.verify(digest, repair=True)
    assert node.files() == []


async def test_verifying_reads_the_object_itself(node: Node) -> None:
    digest = await node.put(b"small")
    await node.get(digest)
    node.take_requests()
    await node.store.verify(digest, repair=True)
    assert node.take_requests() == 1


@cached_or_not
async def test_many_readers_of_a_small_blob_send_one_request(node: Node) -> None:
    digest = await node.put(b"small")
    blobs = await asyncio.gather(*(node.store.open(digest) for _ in range(10)))
    assert {blob.data for blob in blobs} == {b"small"}
    assert node.take_requests() == 1


async def test_a_client_does_not_wait_for_a_request_of_the_background(node: Node) -> None:
    digest = await node.put(b"small")
    with background():
        asking = asyncio.create_task(node.store.open(digest))
    await asyncio.gather(asking, node.store.open(digest))
    assert node.take_requests() == 2


# Large blobs


async def test_a_large_blob_is_read_from_the_cache_range_by_range(node: Node) -> None:
    digest = await node.put(LARGE)
    assert await node.get(digest) == LARGE
    assert node.take_requests() == 3
    assert [each.name for each in node.files()] == ["0-4", "4-8", "8-10"]
    assert await node.get(digest) == LARGE
    assert await node.get(digest, RANGE_BYTES - 3, RANGE_BYTES + 3) == LARGE[RANGE_BYTES - 3 :][:6]
    assert await node.get(digest, len(LARGE) - 9) == LARGE[-9:]
    assert node.take_requests() == 0


async def test_who_asks_for_a_part_is_not_made_to_fetch_more_and_finds_it_again(node: Node) -> None:
    digest = await node.put(LARGE)
    read = node.store.bucket.read_bytes
    for _ in range(2):
        assert (
            await node.get(digest, CHUNK_BYTES + 9, CHUNK_BYTES + 19)
            == LARGE[CHUNK_BYTES + 9 :][:10]
        )
    assert node.take_requests() == 1
    assert node.store.bucket.read_bytes - read == CHUNK_BYTES
    assert [each.name for each in node.files()] == ["1-2"]


async def test_a_reader_from_the_middle_on_gets_the_same_ranges_as_others(node: Node) -> None:
    digest = await node.put(LARGE)
    assert await node.get(digest, CHUNK_BYTES) == LARGE[CHUNK_BYTES:]
    assert [each.name for each in node.files()] == ["1-4", "4-8", "8-10"]
    node.take_requests()
    assert await node.get(digest) == LARGE
    assert node.take_requests() == 1


async def test_a_damaged_piece_is_asked_for_again(node: Node) -> None:
    digest = await node.put(LARGE)
    await node.get(digest)
    first, second, third = node.files()
    first.write_bytes(b"\0" * RANGE_BYTES)
    second.write_bytes(second.read_bytes()[:-1])
    third.write_bytes(b"")
    node.take_requests()
    assert await node.get(digest) == LARGE
    assert node.take_requests() == 3
    assert await node.get(digest) == LARGE
    assert node.take_requests() == 0


async def test_without_checksums_the_whole_is_read_before_it_is_passed_on(node: Node) -> None:
    digest = await node.put(LARGE)
    await node.disk.environment.write(lambda batch: catalogue.set_sums_in(batch, digest, b""))
    node.take_requests()
    assert await node.get(digest) == LARGE
    assert node.take_requests() == 6
    assert len(node.files()) == 3


async def test_a_piece_that_wrong_checksums_have_let_in_goes_with_them(node: Node) -> None:
    digest = await node.put(LARGE)
    await node.get(digest)
    with node.disk.environment.snapshot() as batch:
        sums = catalogue.sums_in(batch, digest)
    assert sums is not None
    wrong = bytes([sums[0] ^ 1]) + sums[1:]
    await node.disk.environment.write(lambda batch: catalogue.set_sums_in(batch, digest, wrong))
    assert await node.get(digest) == LARGE
    assert await node.get(digest) == LARGE
    node.take_requests()
    assert await node.get(digest) == LARGE
    assert node.take_requests() == 0


@cached_or_not
async def test_many_readers_of_a_large_blob_share_requests(node: Node) -> None:
    digest = await node.put(LARGE)
    found = await asyncio.gather(*(node.get(digest, 0, 100) for _ in range(10)))
    assert set(found) == {LARGE[:100]}
    assert node.take_requests() == 1


async def test_one_reader_who_leaves_does_not_disturb_another(node: Node) -> None:
    digest = await node.put(LARGE)
    leaving = await node.store.open(digest)
    stream = leaving.stream()
    staying = asyncio.create_task(node.get(digest))
    assert await anext(stream) == LARGE[:MIB]
    await stream.aclose()
    await leaving.aclose()
    assert await staying == LARGE


async def test_reading_a_huge_blob_leaves_small_ones_in_the_cache(tmp_path: Path) -> None:
    node = await opened(tmp_path, 5 * RANGE_BYTES)
    digests = [await node.put(body(1000, seed=number)) for number in range(10)]
    for _ in range(3):
        for digest in digests:
            await node.get(digest)
    huge = await node.put(body(40 * RANGE_BYTES))
    await node.get(huge)
    node.take_requests()
    for digest in digests:
        await node.get(digest)
    assert node.take_requests() == 0
    await node.disk.close()


async def test_a_disk_that_hangs_keeps_no_reader_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = Shelf.write

    def hang(shelf: Shelf, name: str, data: bytes) -> bool:
        go.wait()
        return real(shelf, name, data)

    monkeypatch.setattr(Shelf, "write", hang)
    digest = await node.put(LARGE)
    try:
        async with asyncio.timeout(5):
            blob = await node.store.open(digest)
            assert b"".join([piece async for piece in blob.stream()]) == LARGE
            await blob.aclose()
        assert node.files() == []
    finally:
        go.set()
    await node.settled()
    assert len(node.files()) == 3
