"""Marks and collection on a real disk: what a crash leaves at each step, and what two at once do."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.local import Disk, make_directories
from tierce.blobs.marks import blob_of, is_due, key_of, loose_before, mark_of
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import PACK_LIMIT_BYTES
from tierce.names.lmdb_index import DATABASES, LmdbIndex
from tierce.names.record import Record
from tierce.names.store import LocalObjects, releasing

SMALL = b"small"
LARGE = b"large" * PACK_LIMIT_BYTES
EVER = 1 << 50

both_sizes = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


class Node:
    """One process on a data directory. ``now`` is its clock, in milliseconds."""

    def __init__(self, directory: Path) -> None:
        environment = Environment(directory / "lmdb", databases=(*DATABASES, "cache"))
        self.disk = Disk(
            directory, space=SpaceGuard(directory, reserve_bytes=0), environment=environment
        )
        self.store = self.disk.store
        self.now = 1_000
        self.store.marking.now = lambda: self.now
        self.index = LmdbIndex(environment, "n", on_change=releasing(self.store))
        self.objects = LocalObjects(self.store, self.index)

    async def put(self, data: bytes, managed: bool | None) -> Digest:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await self.store.put(spool, managed=managed)
            return spool.digest

    async def put_object(self, key: str, data: bytes) -> Digest:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            draft = Record(bucket="bucket", key=key)
            return (await self.objects.put(spool, draft, now=self.now)).content

    async def restore(self, record: Record, data: bytes) -> bool:
        async with self.disk.spooler.holding(data, "blake3") as spool:
            return await self.objects.restore(spool, record)

    async def delete_object(self, key: str) -> None:
        await self.index.write(Record(bucket="bucket", key=key, deleted=True), now=self.now)

    async def collect(self, before: int = EVER) -> list[Digest]:
        return (await self.objects.collect(before, 100)).removed

    async def has(self, digest: Digest) -> bool:
        try:
            await self.store.verify(digest, repair=False)
        except NotFound:
            return False
        return True

    def loose(self, digest: Digest) -> list[bytes]:
        """The entries that would have a blob collected."""
        with self.disk.environment.snapshot() as batch:
            found = loose_before(batch, EVER, 1000)
            return [
                each for each in found if is_due(batch, each) and blob_of(each) == key_of(digest)
            ]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    make_directories(tmp_path)
    node = Node(tmp_path)
    yield node
    await node.disk.close()


def path_of(node: Node, digest: Digest) -> Path:
    return node.store.files._path(digest)


# A put that is broken off


async def test_a_managed_file_that_was_never_linked_leaves_a_mark_that_goes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> bool:
        raise OSError(5, "killed here")

    monkeypatch.setattr(node.store.files, "_take_over", kill)
    with pytest.raises(TierceError):
        await node.put(LARGE, True)
    digest = Digest.of(LARGE)
    assert node.loose(digest)
    assert await node.collect() == []
    assert not node.loose(digest)
    assert node.store.managed([digest]) == [False]


async def test_a_managed_file_whose_record_was_never_written_is_collected(node: Node) -> None:
    def fail(batch: WriteBatch) -> None:
        raise Unavailable("killed here")

    async with node.disk.spooler.holding(LARGE, "blake3") as spool:
        with pytest.raises(Unavailable):
            await node.store.put_along(spool, fail)
    digest = Digest.of(LARGE)
    assert await node.has(digest)
    assert await node.collect() == [digest]


async def test_a_collection_broken_off_after_the_file_went_is_finished_by_the_next(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(LARGE, True)
    os.unlink(path_of(node, digest))
    assert node.loose(digest)
    assert await node.collect() == []
    assert not node.loose(digest)


# Two at once


@pytest.mark.parametrize("is_there", [False, True], ids=["gone", "put by the other"])
async def test_a_claim_outlives_a_collection_and_a_managed_put_in_its_midst(
    node: Node, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """A plain put's file is collected; before it looks for it, a managed put marks and puts it."""
    files = node.store.files
    stays = files._stays
    looks = 0

    async def collected_then_managed(digest: Digest, *, as_claimed: bool = False) -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            os.unlink(path_of(node, digest))
            async with node.disk.spooler.holding(LARGE, "blake3") as spool:
                await files.put(spool, managed=True)
            if not is_there:
                os.unlink(path_of(node, digest))
        return await stays(digest, as_claimed=as_claimed)

    monkeypatch.setattr(files, "_stays", collected_then_managed)
    digest = await node.put(LARGE, False)
    assert await node.has(digest)
    assert node.store.managed([digest]) == [False]


async def test_a_file_collected_just_before_its_record_came_is_there_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(LARGE)

    def collected(batch: WriteBatch) -> None:
        os.unlink(path_of(node, digest))

    async with node.disk.spooler.holding(LARGE, "blake3") as spool:
        await node.store.put_along(spool, collected)
    assert await node.has(digest)


async def test_what_stands_beside_blobs_is_not_listed(node: Node) -> None:
    put = {await node.put(b"%d" % number, None) for number in range(3)}
    for number in range(20):
        put.add(await node.put_object(f"key {number}", b"%d" % (number % 4)))
        put.add(await node.put_object(f"large {number}", LARGE + b"%d" % (number % 4)))
    for limit in (1, 2, 3, 100):
        listed: list[Digest] = []
        while page := await node.store.list_after(listed[-1] if listed else None, limit):
            listed += [info.digest for info in page]
            assert len(page) == limit or len(listed) == len(put)
        assert listed == sorted(put)


@both_sizes
async def test_what_is_put_again_before_it_is_collected_stays_for_the_grace_time(
    node: Node, data: bytes
) -> None:
    digest = await node.put_object("key", data)
    node.now = 2_000
    await node.delete_object("key")
    node.now = 5_000
    await node.put(data, True)
    assert await node.collect(before=4_000) == []
    await node.put_object("key", data)
    assert await node.collect() == []
    assert await node.has(digest)


@both_sizes
async def test_overwriting_back_and_forth_keeps_what_is_in_force(node: Node, data: bytes) -> None:
    bodies = [data, data + b"!"]
    for number in range(7):
        node.now += 1_000
        digest = await node.put_object("key", bodies[number % 2])
        await node.collect(before=node.now)
        assert await node.has(digest)
    assert await node.collect() in ([], [Digest.of(bodies[1])])
    assert await node.has(Digest.of(bodies[0]))
    assert not await node.has(Digest.of(bodies[1]))


@both_sizes
async def test_a_merge_leaves_content_that_another_record_names(node: Node, data: bytes) -> None:
    digest = await node.put_object("one", data)
    await node.put_object("two", data)
    tombstone = Record(bucket="bucket", key="one", timestamp=1 << 60, node="z", deleted=True)
    await node.index.merge([tombstone])
    assert await node.collect() == []
    await node.index.merge([Record(bucket="bucket", key="two", timestamp=1 << 60, deleted=True)])
    assert await node.collect() == [digest]


@both_sizes
async def test_a_record_that_comes_before_its_content_keeps_it(node: Node, data: bytes) -> None:
    digest = Digest.of(data)
    record = Record(bucket="bucket", key="key", timestamp=5, node="z", digest=digest)
    await node.index.merge([record])
    await node.put(data, True)
    assert await node.collect() == []
    assert await node.has(digest)
    await node.delete_object("key")
    assert await node.collect() == [digest]


def losing(data: bytes) -> Record:
    """A record that is older than any here."""
    return Record(bucket="bucket", key="key", timestamp=1, node="z", digest=Digest.of(data))


async def test_large_content_whose_record_came_too_late_is_collected(node: Node) -> None:
    await node.put_object("key", b"newer")
    assert not await node.restore(losing(LARGE), LARGE)
    assert await node.collect() == [Digest.of(LARGE)]


async def test_small_content_whose_record_came_too_late_is_collected(node: Node) -> None:
    await node.put_object("key", b"newer")
    assert not await node.restore(losing(SMALL), SMALL)
    assert await node.collect() == [Digest.of(SMALL)]


async def test_a_file_that_can_not_be_removed_keeps_no_other_from_being_collected(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = await node.put(LARGE, True)
    node.now += 1
    others = [await node.put(LARGE + bytes([number]), True) for number in range(3)]
    unlink: Callable[[Digest], int | None] = node.store.files._unlink

    def failing(digest: Digest) -> int | None:
        if digest == stuck:
            raise OSError(5, "input/output error")
        return unlink(digest)

    monkeypatch.setattr(node.store.files, "_unlink", failing)
    assert sorted(await node.collect()) == sorted(others)
    monkeypatch.undo()
    assert await node.collect() == [stuck]


@both_sizes
async def test_every_managed_blob_without_a_record_has_an_entry(node: Node, data: bytes) -> None:
    """The law of marks.py, after each kind of change."""
    digest = Digest.of(data)

    def holds() -> bool:
        named = bool(node.index.refers(digest))
        return named or not node.store.managed([digest])[0] or bool(node.loose(digest))

    await node.put_object("key", data)
    assert holds()
    await node.delete_object("key")
    assert holds()
    await node.put(data, True)
    assert holds()
    await node.put_object("key", data)
    await node.collect()
    await node.put_object("key", b"other")
    assert holds()
    await node.put_object("key", data)
    await node.store.claim([digest])
    await node.delete_object("key")
    assert not node.loose(digest)
    with node.disk.environment.snapshot() as batch:
        assert mark_of(batch, key_of(digest)) == b""
    assert await node.collect() in ([], [Digest.of(b"other")])
    assert await node.has(digest)
