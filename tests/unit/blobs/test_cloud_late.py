"""A bucket that lists late: what was just put is not in the listing yet, what was deleted still is."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.unit.blobs.test_cloud import Node, failing

from tierce.blobs import cloud_listing
from tierce.blobs.cloud_listing import Compared
from tierce.blobs.cloud_names import path_of
from tierce.cloud.bucket import Bucket, Entry, open_bucket
from tierce.cloud.retrying import Patience
from tierce.cloud.writing import Content
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import CHUNK_BYTES, CLOUD_LISTED_SECONDS
from tierce.testing.blob_contract import body

SMALL = body(1000)
LARGE = body(3 * CHUNK_BYTES + 7, seed=1)
each_size = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


class LateBucket(Bucket):
    """A directory that lists objects late, and deleted ones still, as a test says."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        plain = open_bucket(f"file://{root}", patience=Patience(attempts=1))
        super().__init__(plain._operator, plain._address, patience=plain._retrying.patience)
        self.unlisted: set[str] = set()
        self.ghosts: set[str] = set()

    async def list(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async with aclosing(super().list(prefix)) as found:
            async for entry in found:
                if entry.path not in self.unlisted:
                    yield entry
        for path in sorted(self.ghosts):
            if path.rpartition("/")[0] + "/" == prefix:
                yield Entry(path, len(SMALL), "", "")


def late_node(tmp_path: Path, data: str) -> Node:
    (tmp_path / data).mkdir()
    return Node(tmp_path / data, bucket=LateBucket(tmp_path / "objects"))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = late_node(tmp_path, "first")
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


@pytest.fixture
async def rebuilt(tmp_path: Path, node: Node) -> AsyncIterator[Node]:
    """The node after it lost its data directory. It has seen no listing yet: call ``rebuild``."""
    rebuilt = late_node(tmp_path, "second")
    yield rebuilt
    await rebuilt.disk.close()


async def rebuild(rebuilt: Node, *unlisted: Digest) -> None:
    """Start it, while the listing lacks these."""
    bucket = bucket_of(rebuilt)
    bucket.unlisted = {path_of(each, "tierce") for each in unlisted}
    await rebuilt.disk.prepare("one")


def bucket_of(node: Node) -> LateBucket:
    bucket = node.store.bucket
    assert isinstance(bucket, LateBucket)
    return bucket


async def compare(node: Node, *, all_are_old: bool = False) -> Compared:
    old = node.now - int(CLOUD_LISTED_SECONDS * 1000)
    return await cloud_listing.compare(
        node.store, node.disk.environment, is_old=lambda row: all_are_old or row.put < old
    )


@each_size
@pytest.mark.parametrize("all_are_old", [False, True])
async def test_what_is_not_listed_yet_is_not_forgotten(
    node: Node, data: bytes, all_are_old: bool
) -> None:
    digest = await node.put(data)
    bucket_of(node).unlisted = {path_of(digest, "tierce")}
    done = await compare(node, all_are_old=all_are_old)
    assert (done.objects, done.missing) == (0, 0)
    assert await node.get(digest) == data


async def test_what_was_deleted_and_is_still_listed_is_not_revived(node: Node) -> None:
    kept = await node.put(LARGE)
    digest = await node.put(SMALL)
    assert await node.store.delete(digest)
    bucket_of(node).ghosts = {path_of(digest, "tierce")}
    done = await compare(node)
    assert (done.objects, done.adopted, done.strange) == (2, 0, 0)
    assert await node.digests() == {kept}
    with pytest.raises(NotFound):
        await node.store.open(digest)


async def test_what_was_put_and_deleted_while_it_was_adopted_is_not_revived(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Digest.of(SMALL)
    bucket_of(node)._operator.to_operator().write(path_of(digest, "tierce"), SMALL)
    is_good = node.store.checking.is_good

    async def meanwhile(digest: Digest, row: object, *, repair: bool) -> bool:
        found = await is_good(digest, row, repair=repair)  # type: ignore[arg-type]
        await node.put(SMALL)
        assert await node.store.delete(digest)
        assert node.leftovers() == []
        return found

    monkeypatch.setattr(node.store.checking, "is_good", meanwhile)
    done = await compare(node)
    assert done.adopted == 0
    assert await node.digests() == set()


@each_size
async def test_a_lost_catalogue_is_not_believed_before_the_listing_is_complete(
    node: Node, rebuilt: Node, data: bytes
) -> None:
    listed, digest = await node.put(b"listed"), await node.put(data)
    await rebuild(rebuilt, digest)
    assert await rebuilt.digests() == {listed}
    assert await rebuilt.get(digest, 10, 20) == data[10:20]
    assert await rebuilt.get(digest) == data
    assert await rebuilt.digests() == {listed, digest}


async def test_sizes_and_checks_ask_by_name_too(node: Node, rebuilt: Node) -> None:
    looked, verified = await node.put(SMALL), await node.put(LARGE)
    await rebuild(rebuilt, looked, verified)
    assert await rebuilt.store.stat(looked) == len(SMALL)
    assert await rebuilt.store.verify(verified, repair=True) == len(LARGE)


async def test_what_is_deleted_before_it_was_listed_does_not_come_back(
    node: Node, rebuilt: Node
) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)
    assert await rebuilt.store.delete(digest)
    bucket_of(rebuilt).unlisted.clear()
    await compare(rebuilt)
    assert await rebuilt.digests() == set()
    with pytest.raises(NotFound):
        await rebuilt.store.open(digest)
    assert not await rebuilt.store.delete(digest)


async def test_who_asks_for_a_few_sizes_is_told_of_what_is_not_listed(
    node: Node, rebuilt: Node
) -> None:
    digest, other = await node.put(SMALL), Digest.of(b"nowhere")
    await rebuild(rebuilt, digest)
    assert await rebuilt.store.sizes([other, digest]) == [None, len(SMALL)]


async def test_an_object_of_a_wrong_content_is_not_served(node: Node, rebuilt: Node) -> None:
    digest = await node.put(SMALL)
    bucket_of(node)._operator.to_operator().write(path_of(digest, "tierce"), SMALL[::-1])
    await rebuild(rebuilt, digest)
    with pytest.raises(NotFound):
        await rebuilt.store.open(digest)


async def test_while_the_bucket_can_not_be_asked_nothing_is_said_to_be_missing(
    node: Node, rebuilt: Node, tmp_path: Path
) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)
    (tmp_path / "objects").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        await rebuilt.store.open(digest)
    (tmp_path / "away").rename(tmp_path / "objects")
    assert await rebuilt.get(digest) == SMALL


async def looks(node: Node) -> int:
    """How many requests a miss takes."""
    before = node.store.bucket.requests["look"]
    with pytest.raises(NotFound):
        await node.store.open(Digest.of(b"nothing"))
    return node.store.bucket.requests["look"] - before


async def test_only_a_comparison_long_after_ends_the_asking(node: Node, rebuilt: Node) -> None:
    await rebuild(rebuilt)
    assert await looks(rebuilt) == 1
    rebuilt.now += int(CLOUD_LISTED_SECONDS * 1000) - 1
    await compare(rebuilt)
    assert await looks(rebuilt) == 1
    rebuilt.now += 1
    await compare(rebuilt)
    assert await looks(rebuilt) == 0


async def test_in_a_bucket_that_was_nobodys_a_miss_costs_nothing(node: Node) -> None:
    assert await looks(node) == 0


async def test_a_start_that_did_not_get_through_the_listing_asks_by_name_afterwards(
    node: Node, rebuilt: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    bucket = bucket_of(rebuilt)

    def broken(prefix: str) -> AsyncGenerator[Entry, None]:
        raise Unavailable("the listing broke off")

    monkeypatch.setattr(bucket, "list", broken)
    with pytest.raises(Unavailable):
        await rebuilt.disk.prepare("one")
    monkeypatch.undo()
    await rebuild(rebuilt, digest)
    assert await rebuilt.get(digest) == SMALL


async def test_what_was_deleted_does_not_come_back_by_its_name(
    node: Node, rebuilt: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)

    async def no_answer(path: str, *, attempts: int | None = None) -> None:
        raise Unavailable("the store failed")

    monkeypatch.setattr(rebuilt.store.bucket, "delete", no_answer)
    assert await rebuilt.store.delete(digest)
    with pytest.raises(NotFound):
        await rebuilt.store.open(digest)
    assert rebuilt.leftovers() == [digest]


async def test_an_upload_that_fails_does_not_take_away_what_was_not_listed(
    node: Node, rebuilt: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)
    with monkeypatch.context() as patched:
        patched.setattr(rebuilt.store.bucket, "write", failing(Unavailable("it is out")))
        with pytest.raises(Unavailable, match="it is out"):
            await rebuilt.put(SMALL)
    await rebuilt.store.tend()
    assert await rebuilt.get(digest) == SMALL


async def test_what_was_not_listed_can_be_read_while_it_is_put_again(
    node: Node, rebuilt: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)
    write, read = rebuilt.store.bucket.write, []

    async def reading(path: str, content: Content, *, is_new: bool = False) -> None:
        read.append(await rebuilt.get(digest))
        await write(path, content, is_new=is_new)

    monkeypatch.setattr(rebuilt.store.bucket, "write", reading)
    await rebuilt.put(SMALL)
    assert read == [SMALL]


async def test_what_was_not_listed_stays_claimed_when_it_is_put_for_records(
    node: Node, rebuilt: Node
) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)
    async with rebuilt.disk.spooler.holding(SMALL, digest.algorithm) as spool:
        assert not await rebuilt.store.put(spool, managed=True)
    assert rebuilt.store.managed([digest]) == [False]


async def test_a_proof_asks_by_name_too(node: Node, rebuilt: Node) -> None:
    digest = await node.put(SMALL)
    await rebuild(rebuilt, digest)
    assert await rebuilt.store.prove(digest) == len(SMALL)
