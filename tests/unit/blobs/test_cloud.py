"""A store in the cloud: what becomes of objects and rows in crashes, failures and races."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tierce.blobs import catalogue, cloud_listing
from tierce.blobs.cloud_names import OWNER_PATH, Layout, path_of
from tierce.cloud.bucket import Bucket, open_bucket
from tierce.cloud.retrying import Patience
from tierce.cloud.writing import Content
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt, NotFound, Unavailable
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES
from tierce.testing.blob_contract import body
from tierce.testing.cloud_nodes import CloudNode

SMALL = b"small"
LARGE = body(3 * PIECE_BYTES + 5)


class Node(CloudNode):
    """A cloud node whose bucket is a directory beside its data, if it is not another one."""

    def __init__(self, root: Path, *, layout: Layout = "tierce", bucket: Bucket | None = None):
        self.root = root / "bucket"
        self.root.mkdir(exist_ok=True)
        super().__init__(
            root / "data",
            bucket or open_bucket(f"file://{self.root}", patience=Patience(attempts=1)),
            layout=layout,
            whole_bytes=CHUNK_BYTES,
            range_bytes=PIECE_BYTES,
        )

    def path(self, digest: Digest) -> Path:
        return self.root / path_of(digest, self.store.layout)

    def objects(self) -> set[str]:
        """The names of the blobs' objects."""
        return {each.name for each in (self.root / "blobs").rglob("*") if each.is_file()}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


def failing(error: Exception) -> Callable[..., Awaitable[None]]:
    async def fail(*args: object, **options: object) -> None:
        raise error

    return fail


async def test_an_object_of_a_process_that_died_before_its_row_goes(node: Node) -> None:
    digest = Digest.of(SMALL)
    gone = 1 << 30  # no process can have this number
    name = catalogue.token(gone, 1)
    await node.disk.environment.write(lambda batch: catalogue.begin_in(batch, digest, name))
    node.path(digest).parent.mkdir(parents=True)
    node.path(digest).write_bytes(SMALL)
    assert await node.digests() == set()
    await node.store.tend()
    assert node.objects() == set()
    node.path(digest).write_bytes(SMALL)  # its last request came late
    node.now += 61_000
    await node.store.tend()
    assert node.objects() == set()
    assert node.leftovers() == []


async def test_an_upload_under_way_keeps_its_object(node: Node) -> None:
    digest = await node.put(SMALL)
    name = catalogue.token(os.getpid(), 1 << 40)
    await node.disk.environment.write(lambda batch: catalogue.begin_in(batch, digest, name))
    assert await node.store.delete(digest)
    await node.store.tend()
    assert node.objects() == {digest.hex}
    await node.disk.environment.write(lambda batch: catalogue.abandon_in(batch, digest, name, 0))
    await node.store.tend()
    assert node.objects() == set()


async def test_an_upload_that_fails_leaves_no_blob(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(node.store.bucket, "write", failing(Unavailable("down")))
        with pytest.raises(Unavailable):
            await node.put(SMALL)
    assert await node.digests() == set()
    digest = await node.put(SMALL)
    await node.store.tend()
    assert await node.get(digest) == SMALL
    assert node.leftovers() == []


async def test_a_deletion_without_an_answer_holds_up_those_who_put_the_blob_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierce.blobs.cloud_uploading.CLOUD_WAIT_SECONDS", 0.05)
    digest = await node.put(SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(node.store.bucket, "delete", failing(Unavailable("no answer")))
        assert await node.store.delete(digest)
    with pytest.raises(NotFound):
        await node.store.open(digest)
    await node.store.tend()
    assert node.objects() == set()
    with pytest.raises(Unavailable, match="not confirmed yet"):
        await node.put(SMALL)  # the first deletion may still be on its way
    node.now += 61_000
    await node.store.tend()
    assert await node.put(SMALL) == digest
    assert await node.get(digest) == SMALL


async def test_an_object_that_is_read_goes_when_it_is_closed(node: Node) -> None:
    digest = await node.put(LARGE)
    blob = await node.store.open(digest)
    assert await node.store.delete(digest)
    await node.store.tend()
    assert node.objects() == {digest.hex}
    assert b"".join([piece async for piece in blob.stream()]) == LARGE
    await blob.aclose()
    assert node.objects() == set()
    assert [path.name for path in (node.data / "holds").iterdir()] == ["uploads"]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_missing_object_is_no_blob(node: Node, data: bytes) -> None:
    digest = await node.put(data)
    node.path(digest).unlink()
    with pytest.raises((NotFound, Corrupt)):
        await node.get(digest)
    assert await node.digests() == set()
    assert await node.put(data) == digest
    assert await node.get(digest) == data


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_another_bucket_is_not_believed_to_be_empty(node: Node, data: bytes) -> None:
    digest = await node.put(data)
    for name in ("blobs", OWNER_PATH):
        (node.root / name).rename(node.data / name)
    with pytest.raises(Unavailable, match=r"tierce-node\.json"):
        await node.get(digest)
    with pytest.raises(Unavailable):
        await node.store.verify(digest, repair=True)
    for name in ("blobs", OWNER_PATH):
        (node.data / name).rename(node.root / name)
    assert await node.get(digest) == data


async def test_a_vanished_directory_is_not_made_again(node: Node) -> None:
    digest = await node.put(SMALL)
    node.root.rename(node.data / "elsewhere")
    for request in (node.get(digest), node.put(b"other"), node.store.verify(digest, repair=True)):
        with pytest.raises(Unavailable, match="is not there"):
            await request
    assert not node.root.exists()
    assert "is not there" in str(node.store.bucket.status()["problem"])
    (node.data / "elsewhere").rename(node.root)
    assert await node.get(digest) == SMALL
    assert node.store.bucket.status()["problem"] == ""


async def test_wrong_checksums_do_not_condemn_a_good_object(node: Node) -> None:
    digest = await node.put(LARGE)
    with node.disk.environment.snapshot() as batch:
        right = catalogue.sums_in(batch, digest)
    assert right is not None
    wrong = bytes(len(right))
    await node.store.checking.keep_sums(digest, wrong)
    assert await node.get(digest, 5, 10) == LARGE[5:10]
    assert await node.get(digest) == LARGE
    with node.disk.environment.snapshot() as batch:
        assert catalogue.sums_in(batch, digest) == right


async def test_a_bad_large_object_is_set_aside_in_the_bucket(node: Node) -> None:
    digest = await node.put(LARGE)
    node.path(digest).write_bytes(bytes(len(LARGE)))
    with pytest.raises(Corrupt):
        await node.get(digest)
    assert node.objects() == set()
    (kept,) = (node.root / "quarantine").iterdir()
    assert kept.read_bytes() == bytes(len(LARGE))


async def test_a_catalogue_that_was_lost_is_made_from_the_listing(tmp_path: Path) -> None:
    first = Node(tmp_path)
    await first.disk.prepare("one")
    put = {
        await first.put(body(size), kind) for size in (0, 7, 400_000) for kind in ("blake3", "sha1")
    }
    put.add(await first.put(LARGE))
    counts = await first.store.counts()
    await first.disk.close()
    (tmp_path / "data").rename(tmp_path / "lost")
    (tmp_path / "bucket" / "blobs" / "notes.txt").write_text("of somebody else")
    second = Node(tmp_path)
    with pytest.raises(BadRequest, match="one"):
        await second.disk.prepare("two")
    await second.disk.prepare("one")
    assert await second.digests() == put
    assert await second.store.counts() == counts
    assert await second.get(Digest.of(LARGE), 7, 9) == LARGE[7:9]
    assert await second.get(Digest.of(LARGE)) == LARGE
    await second.disk.close()


async def test_what_is_not_in_the_catalogue_is_adopted_if_it_is_right(node: Node) -> None:
    kept = await node.put(SMALL)
    found, wrong = Digest.of(b"found"), Digest.of(b"wrong")
    for digest, data in ((found, b"found"), (wrong, b"other")):
        node.path(digest).parent.mkdir(parents=True, exist_ok=True)
        node.path(digest).write_bytes(data)
    done = await cloud_listing.compare(node.store, node.disk.environment, is_old=lambda row: True)
    assert (done.objects, done.adopted, done.missing, done.strange) == (3, 1, 0, 1)
    assert await node.digests() == {kept, found}
    assert await node.get(found) == b"found"
    assert node.path(wrong).read_bytes() == b"other"


async def test_a_blob_whose_object_is_missing_is_told_of_once_it_should_be_listed(
    node: Node,
) -> None:
    digest = await node.put(SMALL)
    node.path(digest).unlink()
    missing: list[Digest] = []
    for is_old in (False, True, True):
        await cloud_listing.compare(
            node.store,
            node.disk.environment,
            is_old=lambda row, is_old=is_old: is_old,  # type: ignore[misc]
            on_missing=missing.append,
        )
    assert missing == [digest]
    assert await node.digests() == set()


async def test_the_bucket_of_a_cask_node_is_read_as_it_is(tmp_path: Path) -> None:
    digest = Digest.of(b"of cask", "sha1")
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / str(digest)).write_bytes(b"of cask")
    node = Node(tmp_path, layout="cask")
    await node.disk.prepare("one")
    assert await node.get(digest) == b"of cask"
    mine = await node.put(b"mine", "sha1")
    assert (tmp_path / "bucket" / str(mine)).read_bytes() == b"mine"
    other = await node.put(b"other", "blake3")
    assert await node.digests() == {digest, mine, other}
    await node.disk.close()


class ErraticBucket(Bucket):
    """Does what it is asked late, or not at all; and does not always say so."""

    def __init__(self, random: random.Random, failures: float) -> None:
        plain = open_bucket("memory:///", patience=Patience(attempts=1, circuit_failures=1 << 30))
        super().__init__(plain._operator, plain._address, patience=plain._retrying.patience)
        self._random = random
        self.failures = failures

    async def write(self, path: str, content: Content, *, is_new: bool = False) -> None:
        async with self._erratic():
            await super().write(path, content, is_new=is_new)

    async def delete(self, path: str, *, attempts: int | None = None) -> None:
        async with self._erratic():
            await super().delete(path, attempts=attempts)

    @contextlib.asynccontextmanager
    async def _erratic(self) -> AsyncIterator[None]:
        for _ in range(self._random.randrange(20)):
            await asyncio.sleep(0)
        if self._random.random() < self.failures / 2:
            raise Unavailable("never got there")
        yield
        if self._random.random() < self.failures / 2:
            raise Unavailable("the answer was lost")

    def names(self) -> set[str]:
        found = self._operator.to_operator().list("blobs/", recursive=True)
        return {each.path for each in found if not each.path.endswith("/")}


@pytest.mark.parametrize("seed", range(8))
async def test_rows_and_objects_agree_in_the_end(tmp_path: Path, seed: int) -> None:
    """Many who put, delete and read a few blobs at the same time, while requests fail."""
    generator = random.Random(seed)
    bucket = ErraticBucket(generator, 0.2)
    node = Node(tmp_path, bucket=bucket)
    while True:
        with contextlib.suppress(Unavailable):
            await node.disk.prepare("one")
            break
    bodies = {Digest.of(data): data for data in (b"a", b"b", body(CHUNK_BYTES + 1, 1))}

    async def act() -> None:
        for _ in range(12):
            digest = generator.choice(list(bodies))
            deed = generator.choice([node.store.delete, node.get, None, None])
            node.now += generator.choice([0, 0, 70_000])
            try:
                if deed is None:
                    await node.put(bodies[digest])
                elif (found := await deed(digest)) and isinstance(found, bytes):
                    assert found == bodies[digest]
            except Unavailable:
                pass  # as requests fail
            except NotFound as error:
                assert not error.found_bad, "there was a row without an object"
            if generator.random() < 0.1:
                await node.store.tend()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tierce.blobs.cloud_uploading.CLOUD_WAIT_SECONDS", 0.05)
        await asyncio.gather(*(act() for _ in range(6)))
    bucket.failures = 0.0
    for _ in range(2):
        node.now += 70_000
        await node.store.tend()
    assert node.leftovers() == []
    there = await node.digests()
    assert bucket.names() == {path_of(each, "tierce") for each in there}
    for digest in there:
        assert await node.get(digest) == bodies[digest]
    await node.disk.close()


async def test_of_two_nodes_that_come_at_once_one_has_the_bucket(tmp_path: Path) -> None:
    bucket = open_bucket("memory:///")
    nodes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nodes.append(Node(tmp_path / name, bucket=bucket))
    results = await asyncio.gather(
        *(node.disk.prepare(name) for node, name in zip(nodes, ("one", "two"), strict=True)),
        return_exceptions=True,
    )
    assert sorted(map(type, results), key=str) == [type(None), BadRequest]
    for node in nodes:
        await node.disk.close()


async def test_content_that_is_right_the_third_time_is_not_set_aside(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    read = node.store.bucket.read
    answers = [b"wrong", b"wrong"]

    async def damaged(path: str, start: int, length: int) -> bytes:
        return answers.pop() if answers else await read(path, start, length)

    monkeypatch.setattr(node.store.bucket, "read", damaged)
    assert await node.get(digest) == SMALL
    assert list((node.data / "quarantine").iterdir()) == []
