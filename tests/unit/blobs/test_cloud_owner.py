"""Whose a bucket is: one node's at a time, and a former owner does no harm."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.blobs.test_cloud import SMALL, Node

from tierce.blobs import cloud_owner
from tierce.blobs.cloud_names import OWNER_PATH
from tierce.blobs.cloud_owner import Ownership, place_of
from tierce.cloud.bucket import open_bucket
from tierce.cloud.failures import Taken
from tierce.core.errors import BadRequest, TierceError, Unavailable
from tierce.core.limits import CLOUD_OWNER_SECONDS
from tierce.node.scrub_cost import ScrubPace
from tierce.node.store_tending import StoreTending


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


@pytest.fixture
async def other(tmp_path: Path, node: Node) -> AsyncIterator[Node]:
    """A second node, on the bucket of the first, and not prepared."""
    (tmp_path / "other").mkdir()
    other = Node(tmp_path / "other", bucket=open_bucket(f"file://{node.root}"))
    yield other
    await other.disk.close()


async def take_over(other: Node, former: str) -> bool:
    return await cloud_owner.take_over(other.store.bucket, other.disk.environment, "two", former)


def aged(node: Node) -> Ownership:
    """The node's ownership with a clock of its own, which stands at 0 seconds."""
    ownership = node.store.ownership
    ownership._clock = lambda: 0.0
    return ownership


async def test_whoever_is_refused_is_told_how_to_take_over(other: Node) -> None:
    with pytest.raises(BadRequest, match="belongs to the node one") as refused:
        await other.disk.prepare("two")
    assert "tierce store take-over one" in refused.value.hint


async def test_who_takes_a_bucket_over_has_all_that_is_in_it(node: Node, other: Node) -> None:
    digest = await node.put(SMALL)
    assert await take_over(other, "one")
    await other.disk.prepare("two")
    assert await other.get(digest) == SMALL
    with pytest.raises(BadRequest, match="belongs to the node two"):
        await node.disk.prepare("one")


async def test_taking_over_twice_is_as_once(other: Node) -> None:
    assert await take_over(other, "one")
    assert not await take_over(other, "one")


async def test_a_node_s_id_may_have_a_space(other: Node) -> None:
    bucket, environment = other.store.bucket, other.disk.environment
    assert await cloud_owner.take_over(bucket, environment, "rack 2", "one")
    await other.disk.prepare("rack 2")
    await other.store.ownership.check(is_afresh=True)
    assert place_of(environment).node_id == "rack 2"


async def test_the_former_owner_must_be_named(other: Node) -> None:
    with pytest.raises(BadRequest, match="belongs to the node one, not to three"):
        await take_over(other, "three")
    assert await cloud_owner.owner_of(other.store.bucket) == "one"


async def test_nobodys_bucket_is_not_taken_over(node: Node, other: Node) -> None:
    (node.root / OWNER_PATH).unlink()
    with pytest.raises(BadRequest, match="belongs to no node"):
        await take_over(other, "one")


async def test_a_catalogue_of_another_bucket_takes_none_over(tmp_path: Path, node: Node) -> None:
    (tmp_path / "third").mkdir()
    third = Node(tmp_path / "third")
    await third.disk.prepare("three")
    try:
        bucket = open_bucket(f"file://{node.root}")
        with pytest.raises(BadRequest, match="has a catalogue of a store already"):
            await cloud_owner.take_over(bucket, third.disk.environment, "three", "one")
    finally:
        await third.disk.close()
    assert await cloud_owner.owner_of(node.store.bucket) == "one"


async def test_a_former_owner_deletes_nothing(node: Node, other: Node) -> None:
    digest = await node.put(SMALL)
    assert await take_over(other, "one")
    assert await node.store.delete(digest)
    assert node.path(digest).exists()
    await node.store.tend()
    assert node.path(digest).exists()


async def test_a_former_owner_condemns_no_copy(node: Node, other: Node) -> None:
    digest = await node.put(SMALL)
    assert await take_over(other, "one")
    node.path(digest).write_bytes(b"wrong")
    with pytest.raises(Taken):
        await node.store.open(digest)
    assert node.path(digest).read_bytes() == b"wrong"
    assert digest in await node.digests()


async def test_for_a_while_an_owner_need_not_ask_again(node: Node) -> None:
    ownership = aged(node)
    await ownership.check()
    asked = node.store.bucket.requests["read"]
    ownership._clock = lambda: CLOUD_OWNER_SECONDS - 1
    await asyncio.gather(*(ownership.check() for _ in range(10)))
    assert node.store.bucket.requests["read"] == asked


async def test_after_that_while_it_asks_once_for_all(node: Node, other: Node) -> None:
    ownership = aged(node)
    await ownership.check()
    asked = node.store.bucket.requests["read"]
    ownership._clock = lambda: CLOUD_OWNER_SECONDS
    await asyncio.gather(*(ownership.check() for _ in range(10)))
    assert node.store.bucket.requests["read"] == asked + 1
    assert await take_over(other, "one")
    ownership._clock = lambda: 2 * CLOUD_OWNER_SECONDS
    with pytest.raises(Taken, match="belongs to the node two now"):
        await ownership.check()


async def test_an_owner_that_can_not_be_asked_is_not_believed(node: Node) -> None:
    ownership = aged(node)
    await ownership.check()
    node.root.rename(node.root.with_name("unmounted"))
    ownership._clock = lambda: CLOUD_OWNER_SECONDS
    with pytest.raises(Unavailable):
        await ownership.check()
    node.root.with_name("unmounted").rename(node.root)


async def test_an_owner_written_in_another_form_is_the_same(node: Node) -> None:
    (node.root / OWNER_PATH).write_text('{ "node_id": "one",\n "version": 1 }')
    await node.store.ownership.check(is_afresh=True)


def tending(node: Node, taken: list[TierceError]) -> StoreTending:
    return StoreTending(
        node.disk,
        scrub=ScrubPace(2.0, 1000.0, 600.0, 1000),
        on_missing=lambda digest: None,
        on_taken=taken.append,
    )


async def test_the_tending_notices_that_the_bucket_was_taken(node: Node, other: Node) -> None:
    assert await take_over(other, "one")
    taken: list[TierceError] = []
    async with asyncio.timeout(10):
        await tending(node, taken).run()
    assert [type(each) for each in taken] == [Taken]


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_a_comparison_is_made_when_it_is_ordered(node: Node) -> None:
    found = tending(node, [])
    running = asyncio.create_task(found.run())
    try:
        for _ in range(2):
            number = found.order_comparison()
            await until(lambda number=number: found.status()["comparisons"] >= number)
            assert found.status()["compared"]["objects"] == 0
            assert found.status()["compare_error"] == ""
        node.root.rename(node.root.with_name("unmounted"))
        number = found.order_comparison()
        await until(lambda: found.status()["comparisons"] >= number)
        assert "is not there" in found.status()["compare_error"]
        node.root.with_name("unmounted").rename(node.root)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(("right", "wrong"), [(b"one", b"onf"), (b"{", b"z")])
async def test_an_owner_that_came_damaged_is_asked_for_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, right: bytes, wrong: bytes
) -> None:
    read = node.store.bucket.read
    damaged: list[bytes] = []

    async def damage(path: str, start: int, length: int) -> bytes:
        data = await read(path, start, length)
        if not damaged:
            damaged.append(data)
            return data.replace(right, wrong)
        return data

    monkeypatch.setattr(node.store.bucket, "read", damage)
    await node.disk.prepare("one")
    assert damaged
