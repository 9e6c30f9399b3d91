"""Blobs that came for records' sake: when they are kept, and when they are collected."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path

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
from tierce.core.errors import Conflict, NotFound
from tierce.core.limits import PACK_LIMIT_BYTES
from tierce.names.cached import Standing
from tierce.names.index import Check
from tierce.names.keys import whole_key
from tierce.names.lmdb_index import DATABASES, RECORDS, LmdbIndex
from tierce.names.record import Record
from tierce.names.store import LocalObjects, releasing
from tierce.testing.blob_contract import write_now

SMALL = b"small"
LARGE = b"large" * PACK_LIMIT_BYTES


class Node:
    """A disk with blobs and records, and a clock that a test sets, in milliseconds."""

    def __init__(self, directory: Path, *, is_cloud: bool = False) -> None:
        make_directories(directory)
        environment = Environment(directory / "lmdb", databases=(*DATABASES, *CLOUD_DATABASES))
        space = SpaceGuard(directory, reserve_bytes=0)
        self.disk: Disk | CloudDisk = (
            CloudDisk(directory, open_bucket("memory:///"), space=space, environment=environment)
            if is_cloud
            else Disk(directory, space=space, environment=environment)
        )
        self.store: MarkedStore = self.disk.store
        self.now = 1_000
        self.store.marking.now = lambda: self.now
        self.index = LmdbIndex(self.disk.environment, "n", on_change=releasing(self.store))
        self.objects = LocalObjects(self.store, self.index)

    async def put(self, key: str, data: bytes, check: Check | None = None) -> Digest:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            draft = Record(bucket="bucket", key=key)
            record = await self.objects.put(spool, draft, now=self.now * 1_000_000, check=check)
            return record.content

    async def put_blob(self, data: bytes, managed: bool | None = False) -> Digest:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await self.store.put(spool, managed=managed)
            return spool.digest

    async def delete(self, key: str) -> None:
        draft = Record(bucket="bucket", key=key, deleted=True)
        await self.index.write(draft, now=self.now * 1_000_000)

    async def collect(self, before: int) -> list[Digest]:
        return (await self.objects.collect(before, 100)).removed

    async def has(self, digest: Digest) -> bool:
        try:
            await self.store.verify(digest, repair=False)
        except NotFound:
            return False
        return True


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


def damage(node: Node, key: str) -> None:
    """Put bytes that are no record in the place of one."""
    name = whole_key("bucket", key)
    write_now(node.disk.environment, lambda batch: batch.put(RECORDS, name, b"\x01\xc1"))


only_disk = pytest.mark.parametrize("node", ["disk"], indirect=True)
both_sizes = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


@both_sizes
async def test_the_content_of_an_object_stays(node: Node, data: bytes) -> None:
    digest = await node.put("key", data)
    assert node.store.managed([digest]) == [True]
    assert await node.collect(before=10_000) == []
    assert await node.has(digest)


@both_sizes
async def test_what_no_record_names_any_more_goes_after_a_while(node: Node, data: bytes) -> None:
    digest = await node.put("key", data)
    node.now = 5_000
    await node.delete("key")
    assert await node.collect(before=5_000) == []
    assert await node.has(digest)
    assert await node.collect(before=5_001) == [digest]
    assert not await node.has(digest)
    assert node.store.managed([digest]) == [False]
    assert (await node.store.counts()).blobs == 0


@both_sizes
async def test_replaced_content_goes_too(node: Node, data: bytes) -> None:
    old = await node.put("key", data)
    node.now = 5_000
    new = await node.put("key", data + b"!")
    assert await node.collect(before=9_000) == [old]
    assert await node.has(new)


@both_sizes
async def test_content_that_another_object_has_stays(node: Node, data: bytes) -> None:
    digest = await node.put("one", data)
    assert await node.put("two", data) == digest
    await node.delete("one")
    assert await node.collect(before=9_000) == []
    await node.delete("two")
    assert await node.collect(before=9_000) == [digest]


@both_sizes
async def test_a_copy_whose_record_never_came_goes(node: Node, data: bytes) -> None:
    digest = await node.put_blob(data, managed=True)
    assert await node.collect(before=1_000) == []
    assert await node.collect(before=1_001) == [digest]


@both_sizes
async def test_a_copy_that_is_put_again_has_time_again(node: Node, data: bytes) -> None:
    digest = await node.put_blob(data, managed=True)
    node.now = 3_000
    await node.put_blob(data, managed=True)
    assert await node.collect(before=2_000) == []
    assert await node.has(digest)
    assert await node.collect(before=4_000) == [digest]


@both_sizes
@pytest.mark.parametrize("managed_first", [True, False])
async def test_what_was_put_without_a_name_is_never_collected(
    node: Node, data: bytes, managed_first: bool
) -> None:
    digest = await node.put_blob(data, managed=managed_first)
    await node.put_blob(data, managed=not managed_first)
    await node.put("key", data)
    await node.delete("key")
    assert node.store.managed([digest]) == [False]
    assert await node.collect(before=9_000) == []
    assert await node.has(digest)


@both_sizes
async def test_a_claim_outlives_the_record(node: Node, data: bytes) -> None:
    digest = await node.put("key", data)
    await node.store.claim([digest])
    await node.delete("key")
    assert await node.collect(before=9_000) == []
    assert await node.has(digest)


async def test_a_copy_made_again_stays_what_it_was(node: Node) -> None:
    digest = await node.put("key", LARGE)
    await node.put_blob(LARGE, managed=None)
    assert node.store.managed([digest]) == [True]
    claimed = await node.put_blob(SMALL, managed=None)
    assert node.store.managed([claimed]) == [False]


@both_sizes
async def test_a_refused_write_leaves_a_copy_to_be_collected_and_no_record(
    node: Node, data: bytes
) -> None:
    def refuse(record: Record | None) -> None:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await node.put("key", data, check=refuse)
    assert node.index.get("bucket", "key") is None
    await node.collect(before=9_000)
    assert not await node.has(Digest.of(data))


@only_disk
async def test_a_blob_on_both_sides_of_the_border_goes_whole(node: Node) -> None:
    """The limit for packed blobs was changed between two puts."""
    digest = await node.put("key", SMALL)
    async with node.disk.spooler.holding(SMALL, "blake3") as spool:
        await files_of(node).put(spool, managed=True)
    await node.delete("key")
    assert await node.collect(before=9_000) == [digest]
    assert not await node.has(digest)


@both_sizes
async def test_collecting_beside_puts_of_the_same_content_loses_nothing(
    node: Node, data: bytes
) -> None:
    """Collection with no grace at all, against puts that refer to what is just being collected."""
    done = asyncio.Event()

    async def collect() -> None:
        while not done.is_set():
            await node.collect(before=1 << 50)

    collecting = asyncio.create_task(collect())
    try:
        for number in range(60):
            digest = await node.put(f"key {number}", data)
            assert await node.has(digest), number
            await node.delete(f"key {number}")
    finally:
        done.set()
        await collecting


@both_sizes
async def test_collecting_beside_plain_puts_of_the_same_content_loses_nothing(
    node: Node, data: bytes
) -> None:
    done = asyncio.Event()

    async def collect() -> None:
        while not done.is_set():
            await node.collect(before=1 << 50)

    collecting = asyncio.create_task(collect())
    try:
        for number in range(60):
            body = data + bytes([number])
            await asyncio.gather(node.put_blob(body, managed=True), node.put_blob(body))
            assert await node.has(Digest.of(body)), number
    finally:
        done.set()
        await collecting


# Damaged records


@both_sizes
async def test_the_content_of_a_damaged_record_stays_until_the_record_is_mended(
    node: Node, data: bytes
) -> None:
    digest = await node.put("key", data)
    await node.put_blob(data, managed=True)  # an entry for whoever collects
    damage(node, "key")
    assert await node.collect(before=9_000) == []
    with pytest.raises(Conflict, match="content of an object"):
        await node.objects.delete_blob(digest)
    assert (await node.objects.evict(digest)).standing is Standing.OTHER
    assert await node.has(digest)
    mended = Record(bucket="bucket", key="key", digest=digest, timestamp=1, node="z")
    assert await node.index.merge([mended]) == [True]
    assert await node.collect(before=9_000) == []
    assert await node.has(digest)
    await node.delete("key")
    assert await node.collect(before=9_000) == [digest]


async def test_a_content_that_a_damaged_record_shares_with_a_sound_one_stays(node: Node) -> None:
    digest = await node.put("one", SMALL)
    await node.put("two", SMALL)
    damage(node, "one")
    await node.delete("two")
    assert await node.collect(before=9_000) == []
    assert await node.has(digest)


# Deleting a blob by its digest


@both_sizes
async def test_the_content_of_an_object_can_not_be_deleted(node: Node, data: bytes) -> None:
    digest = await node.put("key", data)
    with pytest.raises(Conflict, match="content of an object"):
        await node.objects.delete_blob(digest)
    assert await node.has(digest)
    assert node.store.managed([digest]) == [True]


@both_sizes
@pytest.mark.parametrize("managed", [True, False])
async def test_a_blob_without_a_record_is_deleted_with_its_mark(
    node: Node, data: bytes, managed: bool
) -> None:
    digest = await node.put_blob(data, managed=managed)
    assert await node.objects.delete_blob(digest)
    assert not await node.has(digest)
    assert node.store.managed([digest]) == [False]
    assert (await node.store.counts()).blobs == 0
    assert not await node.objects.delete_blob(digest)


@only_disk
async def test_both_copies_of_a_blob_are_deleted(node: Node) -> None:
    """The limit for packed blobs was changed between two puts."""
    digest = await node.put_blob(SMALL)
    async with node.disk.spooler.holding(SMALL, "blake3") as spool:
        await files_of(node).put(spool)
    assert await node.objects.delete_blob(digest)
    assert not await node.has(digest)


@both_sizes
async def test_deleting_beside_puts_of_the_same_content_leaves_no_record_without_its_blob(
    node: Node, data: bytes
) -> None:
    refused = gone = 0
    done = asyncio.Event()

    async def delete(digest: Digest) -> None:
        nonlocal refused, gone
        while not done.is_set():
            try:
                gone += await node.objects.delete_blob(digest)
            except Conflict:
                refused += 1
            await asyncio.sleep(0)

    deleting = asyncio.create_task(delete(Digest.of(data)))
    try:
        for number in range(60):
            digest = await node.put(f"key {number}", data)
            assert await node.has(digest), number
            await node.delete(f"key {number}")
    finally:
        done.set()
        await deleting
    assert refused
    assert gone


@only_disk
@pytest.mark.parametrize("managed", [True, False])
async def test_a_large_blob_put_anew_while_it_is_deleted_stays_what_it_was_put_as(
    node: Node, managed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the removal of the file and that of its mark."""
    digest = await node.put_blob(LARGE, managed=True)
    loop = asyncio.get_running_loop()
    environment = node.disk.environment
    write_here = environment.write_here
    putting: list[Future[Digest]] = []

    def then_it_comes(change: Callable[[WriteBatch], None]) -> None:
        coming = node.put_blob(LARGE, managed=managed)
        putting.append(asyncio.run_coroutine_threadsafe(coming, loop))
        write_here(change)

    with monkeypatch.context() as patched:
        patched.setattr(environment, "write_here", then_it_comes)
        assert await node.objects.delete_blob(digest)
    await asyncio.wrap_future(putting[0])
    assert await node.has(digest)
    assert node.store.managed([digest]) == [managed]
    assert (await node.store.counts()).blobs == 1


@only_disk
@pytest.mark.parametrize("was_there", [True, False], ids=["again", "first"])
@pytest.mark.parametrize("how", ["delete_blob", "delete", "collect"])
async def test_a_managed_file_has_its_mark_whoever_removes_it_as_it_comes(
    node: Node, how: str, was_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who puts a file sets its mark first; with that of the old file, the new one's mark may go."""
    digest = Digest.of(LARGE)
    if was_there:
        await node.put_blob(LARGE, managed=True)
    loop = asyncio.get_running_loop()
    take_over = files_of(node)._take_over
    calls = 0

    async def remove() -> None:
        if how == "delete_blob":
            await node.objects.delete_blob(digest)
        elif how == "delete":
            await node.store.delete(digest)
        else:
            await node.collect(before=1 << 50)

    def after_a_removal(spooled: Path, digest: Digest, is_marked: bool) -> bool | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            asyncio.run_coroutine_threadsafe(remove(), loop).result(10)
        return take_over(spooled, digest, is_marked)

    monkeypatch.setattr(files_of(node), "_take_over", after_a_removal)
    await node.put_blob(LARGE, managed=True)
    assert await node.has(digest)
    assert node.store.managed([digest]) == [True]
    assert await node.collect(before=1 << 50) == [digest]
    assert not await node.has(digest)


@only_disk
async def test_a_claim_is_not_undone_by_a_managed_put_that_looks_for_its_mark(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    take_over = files_of(node)._take_over
    calls = 0

    def after_a_plain_put(spooled: Path, digest: Digest, is_marked: bool) -> bool | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            asyncio.run_coroutine_threadsafe(node.put_blob(LARGE, managed=False), loop).result(10)
        return take_over(spooled, digest, is_marked)

    monkeypatch.setattr(files_of(node), "_take_over", after_a_plain_put)
    digest = await node.put_blob(LARGE, managed=True)
    assert node.store.managed([digest]) == [False]
    assert await node.collect(before=1 << 50) == []
    assert await node.has(digest)
