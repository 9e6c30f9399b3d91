"""A store in the cloud, against what loses data: answers that pass, races, and other buckets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.blobs.cloud_nodes import BODIES, Nodes, TellingBucket
from tests.unit.blobs.test_cloud import LARGE, SMALL, Node

from tierce.blobs import catalogue, cloud_listing
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_names import OWNER_PATH, path_of
from tierce.blobs.environment import WriteBatch
from tierce.cloud.failures import Passing
from tierce.cloud.retrying import Patience
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt, NotFound, Unavailable

BOTH = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


def once(
    monkeypatch: pytest.MonkeyPatch, node: Node, method: str, error: Exception, times: int = 1
) -> None:
    """Let the bucket's next requests of a kind fail."""
    plain = getattr(node.store.bucket, method)
    errors = [error] * times

    async def faulty(*args: object, **options: object) -> object:
        if errors:
            raise errors.pop()
        return await plain(*args, **options)

    monkeypatch.setattr(node.store.bucket, method, faulty)


async def forget_sums(node: Node, digest: Digest) -> None:
    """As a catalogue knows a large blob that was made from the listing."""

    def change(batch: WriteBatch) -> None:
        row = catalogue.row_in(batch, digest)
        assert row is not None
        catalogue.put_in(batch, digest, row, None, None)

    await node.disk.environment.write(change)


async def get_part(node: Node, digest: Digest) -> object:
    await forget_sums(node, digest)
    return await node.get(digest, 5, 9)


READERS: dict[str, Callable[[Node, Digest], Awaitable[object]]] = {
    "get": lambda node, digest: node.get(digest),
    "a part": get_part,
    "verify": lambda node, digest: node.store.verify(digest, repair=True),
}


@BOTH
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
async def test_an_object_that_was_missing_for_one_request_is_kept(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    read: Callable[[Node, Digest], Awaitable[object]],
) -> None:
    digest = await node.put(data)
    once(monkeypatch, node, "read", NotFound("just now"))
    with contextlib.suppress(Unavailable):  # it may be asked for again
        await read(node, digest)
    assert node.objects() == {digest.hex}
    assert await node.get(digest) == data
    assert node.quarantined() == 0


@BOTH
async def test_an_object_that_is_believed_to_be_missing_is_not_deleted(
    node: Node, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    digest = await node.put(data)
    with monkeypatch.context() as patched:
        path = path_of(digest, "tierce")
        for method in ("read", "look"):
            plain = getattr(node.store.bucket, method)

            async def hiding(
                asked: str,
                *args: int,
                plain: Callable[..., Awaitable[object]] = plain,
            ) -> object:
                if asked == path:
                    raise NotFound("not yet")
                return await plain(asked, *args)

            patched.setattr(node.store.bucket, method, hiding)
        with pytest.raises((NotFound, Corrupt)):
            await node.get(digest)
    await node.store.tend()
    assert node.objects() == {digest.hex}
    done = await cloud_listing.compare(node.store, node.disk.environment, is_old=lambda row: True)
    assert done.adopted == 1
    assert await node.get(digest) == data


async def test_a_bad_copy_that_can_not_be_set_aside_is_an_error_and_no_endless_loop(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    node.path(digest).write_bytes(SMALL[::-1])

    def full(*args: object) -> None:
        raise OSError(28, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(node.store.checking._quarantine, "take_bytes", full)
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await node.get(digest)
    assert node.objects() == {digest.hex}
    with pytest.raises(NotFound):
        await node.get(digest)
    assert node.quarantined() == 1


async def test_a_large_put_that_is_spared_is_sent_if_the_object_is_found_bad_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = TellingBucket()
    nodes = Nodes(tmp_path)
    node = await nodes.new(bucket)
    data = BODIES[-1]
    digest = await node.put(data)
    row = node.row(digest)
    assert row is not None
    look = bucket.look
    is_first = True

    async def meanwhile(path: str) -> object:
        nonlocal is_first
        told = await look(path)
        if is_first and path == path_of(digest, "tierce"):
            is_first = False
            bucket.rot(path, bytes(len(data)))
            assert await node.store.bad(digest, row)
        return told

    monkeypatch.setattr(bucket, "look", meanwhile)
    await node.put(data)
    assert await node.get(digest) == data
    await node.disk.close()


def is_uploaded(node: Node, digest: Digest) -> bool:
    with node.disk.environment.snapshot() as batch:
        return catalogue.is_uploaded_in(batch, digest)


async def test_an_object_that_nobody_has_verified_spares_no_upload(node: Node) -> None:
    digest = Digest.of(SMALL)
    turn = node.store._uploads._turns
    other = type(turn)(node.data / "holds" / "uploads")
    place = other.take(digest)
    assert place is not None
    task = asyncio.create_task(node.put(SMALL))
    async with asyncio.timeout(5):
        while not is_uploaded(node, digest):
            await asyncio.sleep(0.001)
    # What was asked for by its name before that comes into the catalogue only now.
    node.path(digest).parent.mkdir(parents=True)
    node.path(digest).write_bytes(SMALL[::-1])
    row = Row(len(SMALL), 1, "", 0)
    await node.disk.environment.write(
        lambda batch: catalogue.put_in(batch, digest, row, None, None)
    )
    other.end(place)
    await task
    assert node.path(digest).read_bytes() == SMALL


async def test_a_reader_that_is_cancelled_while_it_closes_lets_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(LARGE)
    read = node.store.bucket.read
    go_on = asyncio.Event()

    async def stubborn(path: str, start: int, length: int) -> bytes:
        try:
            return await read(path, start, length)
        finally:
            if start:
                await go_on.wait()

    monkeypatch.setattr(node.store.bucket, "read", stubborn)
    blob = await node.store.open(digest)
    pieces = blob.stream()
    await anext(pieces)
    await pieces.aclose()
    closing = asyncio.create_task(blob.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    go_on.set()
    assert await node.store.delete(digest)
    assert node.objects() == set()


async def test_a_disk_error_of_a_share_is_unavailable(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(116, "stale file handle")

    monkeypatch.setattr("tierce.cloud.bucket._sync_file", fail)
    with pytest.raises(Unavailable, match="stale"):
        await node.put(SMALL)
    monkeypatch.setattr("tierce.cloud.bucket._sync_parent", fail)
    with pytest.raises(Unavailable, match="stale"):
        await node.store.bucket.delete("blobs/other")


async def test_a_store_that_is_not_mounted_is_not_taken_for_an_emptied_one(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    digest = await node.put(SMALL)
    await node.disk.close()
    node.root.rename(tmp_path / "unmounted")
    again = Node(tmp_path)
    with pytest.raises(BadRequest, match="belongs to no node"):
        await again.disk.prepare("one")
    assert await again.digests() == {digest}
    node.root.rmdir()
    (tmp_path / "unmounted").rename(node.root)
    (node.root / OWNER_PATH).unlink()  # by somebody who tidied up
    await again.disk.prepare("one")
    assert await again.get(digest) == SMALL
    await again.disk.close()


async def test_no_byte_of_a_bad_object_leaves_though_there_are_no_checksums(node: Node) -> None:
    digest = await node.put(LARGE)
    await forget_sums(node, digest)
    node.path(digest).write_bytes(b"x" + LARGE[1:])
    blob = await node.store.open(digest)
    received = []
    with pytest.raises(Corrupt):
        async for piece in blob.stream():
            received.append(piece)
    await blob.aclose()
    assert received == []


async def test_nothing_is_put_where_the_store_is_not_mounted_any_more(
    node: Node, tmp_path: Path
) -> None:
    digest = await node.put(SMALL)
    node.root.rename(tmp_path / "unmounted")
    node.root.mkdir()
    with pytest.raises(Unavailable, match=r"tierce-node\.json is missing"):
        await node.put(b"other")
    with pytest.raises(Unavailable, match=r"tierce-node\.json is missing"):
        await node.get(digest)
    assert list(node.root.iterdir()) == []
    node.root.rmdir()
    (tmp_path / "unmounted").rename(node.root)
    assert await node.get(digest) == SMALL
    assert await node.put(b"other")


async def test_a_page_of_a_listing_that_fails_is_asked_for_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.put(SMALL)
    bucket = node.store.bucket
    bucket._retrying.patience = Patience(attempts=2, backoff_min_seconds=0.001)
    once = bucket._retrying.once
    errors = [Passing("a page failed")]

    async def faulty(doing: str, *args: Any, **options: Any) -> object:
        if doing.endswith("/b0/") and options.get("kind") == "" and errors:
            raise errors.pop()
        return await once(doing, *args, **options)

    monkeypatch.setattr(bucket._retrying, "once", faulty)
    done = await cloud_listing.compare(node.store, node.disk.environment, is_old=lambda row: True)
    assert (done.objects, done.missing, errors) == (1, 0, [])


async def test_an_unknown_object_that_can_not_be_read_keeps_no_comparison_from_its_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, archived = Digest.of(b"found"), Digest.of(b"archived")
    for digest, data in ((found, b"found"), (archived, b"archived")):
        node.path(digest).parent.mkdir(parents=True, exist_ok=True)
        node.path(digest).write_bytes(data)
    await node.store.recall.made()
    node.now += 10 * 3_600_000
    read = node.store.bucket.read

    async def refused(path: str, start: int, length: int) -> bytes:
        if path == path_of(archived, "tierce"):
            raise Unavailable("it is in an archive")
        return await read(path, start, length)

    with monkeypatch.context() as patched:
        patched.setattr(node.store.bucket, "read", refused)
        done = await cloud_listing.compare(
            node.store, node.disk.environment, is_old=lambda row: True
        )
        assert (done.adopted, done.strange, done.unread) == (1, 0, 1)
        with pytest.raises(Unavailable):
            await node.get(archived)
    assert await node.get(archived) == b"archived"
