"""Dropping a cached blob: which ones may go, and what stays; and the rows of the cache."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.files import FilesStore
from tierce.blobs.local import Disk, make_directories
from tierce.blobs.marked import MarkedStore
from tierce.blobs.space import SpaceGuard
from tierce.cloud.bucket import open_bucket
from tierce.core.digest import Digest
from tierce.core.limits import PACK_LIMIT_BYTES
from tierce.names.cached import CACHE, Evicted, LmdbRows, Look, Row, Standing
from tierce.names.lmdb_index import DATABASES, LmdbIndex
from tierce.names.record import LOCAL, NO_LEVEL, UPSTREAM, Record
from tierce.names.store import LocalObjects, releasing

SMALL = b"small"
LARGE = b"large" * PACK_LIMIT_BYTES
SAFE = Record(bucket="objstore", key="safe", level=UPSTREAM, is_upstream=True, timestamp=1)
NEEDING = {
    "level 0": Record(bucket="objstore", key="other", level=LOCAL, timestamp=1),
    "ring": Record(bucket="bucket", key="other", level=NO_LEVEL, timestamp=1),
    "not uploaded": Record(bucket="objstore", key="other", level=UPSTREAM, timestamp=1),
}


class Node:
    """A disk with blobs, records, and the rows of a cache."""

    def __init__(self, directory: Path, *, is_cloud: bool = False) -> None:
        make_directories(directory)
        environment = Environment(
            directory / "lmdb", databases=(*DATABASES, CACHE, *CLOUD_DATABASES)
        )
        space = SpaceGuard(directory, reserve_bytes=0)
        self.disk: Disk | CloudDisk = (
            CloudDisk(directory, open_bucket("memory:///"), space=space, environment=environment)
            if is_cloud
            else Disk(directory, space=space, environment=environment)
        )
        self.store: MarkedStore = self.disk.store
        on_change = releasing(self.store, is_limited=True)
        self.index = LmdbIndex(self.disk.environment, "n", on_change=on_change)
        self.objects = LocalObjects(self.store, self.index)
        self.rows = LmdbRows(self.disk.environment)

    async def put(self, record: Record, data: bytes) -> Digest:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await self.objects.restore(spool, record)
            return spool.digest

    async def claim(self, data: bytes) -> None:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await self.store.put(spool)

    async def has(self, digest: Digest) -> bool:
        return (await self.store.sizes([digest])) != [None]


def files_of(node: Node) -> FilesStore:
    """Where a disk has large blobs."""
    assert isinstance(node.disk, Disk)
    return node.disk.store.files


@pytest.fixture(params=["disk", "cloud"])
async def node(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    node = Node(tmp_path, is_cloud=request.param == "cloud")
    if isinstance(node.disk, CloudDisk):
        await node.disk.prepare("n")
    yield node
    await node.disk.close()


only_disk = pytest.mark.parametrize("node", ["disk"], indirect=True)
both_sizes = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
each_need = pytest.mark.parametrize("other", NEEDING.values(), ids=NEEDING)


@both_sizes
async def test_a_cached_blob_goes_with_its_mark_and_its_record_stays(
    node: Node, data: bytes
) -> None:
    digest = await node.put(SAFE, data)
    assert await node.objects.look([digest]) == [Look(Standing.CACHED, len(data))]
    assert await node.objects.evict(digest) == Evicted(Standing.CACHED, len(data), True)
    assert not await node.has(digest)
    assert node.store.managed([digest]) == [False]
    assert (await node.store.counts()).bytes == 0
    kept = node.index.get("objstore", "safe")
    assert kept is not None
    assert kept.digest == digest
    assert await node.objects.evict(digest) == Evicted(Standing.ABSENT, 0, False)


@both_sizes
@each_need
async def test_what_another_record_needs_here_stays(node: Node, data: bytes, other: Record) -> None:
    digest = await node.put(SAFE, data)
    await node.put(other, data)
    assert await node.objects.evict(digest) == Evicted(Standing.SHARED, len(data), False)
    assert await node.has(digest)


@both_sizes
@each_need
async def test_what_the_upstream_never_got_stays(node: Node, data: bytes, other: Record) -> None:
    digest = await node.put(other, data)
    assert await node.objects.evict(digest) == Evicted(Standing.OTHER, len(data), False)
    assert await node.has(digest)


@both_sizes
async def test_what_somebody_claims_stays(node: Node, data: bytes) -> None:
    digest = await node.put(SAFE, data)
    await node.claim(data)
    assert await node.objects.evict(digest) == Evicted(Standing.OTHER, len(data), False)
    assert await node.has(digest)


@both_sizes
async def test_what_is_open_is_read_to_its_end(node: Node, data: bytes) -> None:
    digest = await node.put(SAFE, data)
    blob = await node.store.open(digest)
    assert (await node.objects.evict(digest)).is_dropped
    assert b"".join([piece async for piece in blob.stream()]) == data
    await blob.aclose()


@both_sizes
async def test_records_that_are_heard_count_as_merged(node: Node, data: bytes) -> None:
    waiting = Record(bucket="objstore", key="safe", level=UPSTREAM, timestamp=1)
    digest = await node.put(waiting, data)
    stored = node.index.get("objstore", "safe")
    assert stored is not None
    heard = Record(
        bucket="objstore",
        key="safe",
        level=UPSTREAM,
        timestamp=1,
        digest=digest,
        size=len(data),
        is_upstream=True,
    )
    assert not (await node.objects.evict(digest)).is_dropped
    assert (await node.objects.evict(digest, [heard])).is_dropped
    assert node.index.get("objstore", "safe") == stored


@each_need
async def test_a_small_blob_stays_if_a_record_comes_in_the_same_commit(
    node: Node, other: Record
) -> None:
    """The write of the record is in line before that of the eviction: both share a transaction."""
    digest = await node.put(SAFE, SMALL)
    whole = msgspec.structs.replace(other, digest=digest, size=len(SMALL))

    def late(batch: WriteBatch) -> None:
        node.index.merge_in(batch, whole)

    written = node.disk.environment.submit(late)
    assert not (await node.objects.evict(digest)).is_dropped
    await written


@only_disk
@each_need
async def test_a_large_blob_stays_if_a_record_comes_before_the_second_look(
    node: Node, other: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SAFE, LARGE)
    whole = msgspec.structs.replace(other, digest=digest, size=len(LARGE))
    remove_if = files_of(node).remove_if

    async def after_it_came(
        digest: Digest, may_go: Callable[[], bool], finish: Callable[[WriteBatch, int | None], None]
    ) -> int | None:
        await node.index.merge([whole])
        return await remove_if(digest, may_go, finish)

    with monkeypatch.context() as patched:
        patched.setattr(files_of(node), "remove_if", after_it_came)
        assert not (await node.objects.evict(digest)).is_dropped
    assert await node.has(digest)
    assert node.store.managed([digest]) == [True]


@only_disk
async def test_a_file_that_is_put_while_the_old_one_is_dropped_has_its_mark(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who puts it has set the mark, and who drops it takes that along, before the file appears."""
    digest = await node.put(SAFE, LARGE)
    loop = asyncio.get_running_loop()
    take_over = files_of(node)._take_over
    dropped: list[Evicted] = []

    def after_a_drop(spooled: Path, digest: Digest, is_marked: bool) -> bool | None:
        if not dropped:
            evicting = asyncio.run_coroutine_threadsafe(node.objects.evict(digest), loop)
            dropped.append(evicting.result(10))
        return take_over(spooled, digest, is_marked)

    monkeypatch.setattr(files_of(node), "_take_over", after_a_drop)
    await node.put(SAFE, LARGE)
    assert dropped[0].is_dropped
    assert await node.has(digest)
    assert node.store.managed([digest]) == [True]
    assert (await node.objects.look([digest]))[0].standing is Standing.CACHED


@both_sizes
async def test_a_blob_is_watched_that_is_cached_since_a_record_went(
    node: Node, data: bytes
) -> None:
    digest = await node.put(SAFE, data)
    await node.put(NEEDING["ring"], data)
    assert await node.rows.watched(10) == []
    gone = Record(bucket="bucket", key="other", deleted=True)
    await node.index.write(gone, now=2)
    assert await node.rows.watched(10) == [digest]
    await node.rows.unwatch([digest])
    assert await node.rows.watched(10) == []


async def test_rows_come_back_in_their_order_and_replace_each_other(node: Node) -> None:
    rows = [Row(Digest.of(str(each).encode()), each, each % 32) for each in range(5000)]
    assert await node.rows.load() == []
    await node.rows.save(rows)
    assert await node.rows.load() == rows
    await node.rows.save(rows[::-1])
    await node.rows.save(rows[7:3000])
    assert await node.rows.load() == rows[7:3000]


async def test_a_save_that_was_broken_off_leaves_the_rows_before_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Row(Digest.of(str(each).encode()), each, 0) for each in range(10)]
    await node.rows.save(rows)
    put = WriteBatch.put

    def killed(self: WriteBatch, database: str, key: bytes, value: bytes) -> None:
        if key == b"m/generation":
            raise RuntimeError("killed")
        put(self, database, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(WriteBatch, "put", killed)
        with pytest.raises(Exception, match="killed"):
            await node.rows.save(rows[:5])
    assert await node.rows.load() == rows
    await node.rows.save(rows[:3])
    assert await node.rows.load() == rows[:3]


async def test_a_run_is_known_to_the_next_one(node: Node) -> None:
    assert node.rows.run() == ""
    await node.rows.begin("first")
    assert node.rows.run() == "first"


async def test_within_a_transaction_the_run_is_the_one_that_was_committed(node: Node) -> None:
    await node.rows.begin("first")
    assert await node.disk.environment.write(lambda _: node.rows.run()) == "first"
