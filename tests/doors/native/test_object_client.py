"""The client and the door together: objects go in and come out, lists and changes are whole."""

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.doors.native.object_node import EPOCH, ObjectNode

from tierce.client import BlockingClient, Client
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, NotFound

LARGE = bytes(range(256)) * 10_000
ODD_KEYS = ["..", "a/../b", "a//b", "ü ?#%2F+", "\x01"]


@pytest.fixture
async def client(objects: ObjectNode) -> AsyncIterator[Client]:
    async with Client(f"http://{objects.node.address}") as client:
        yield client


@pytest.fixture
def blocking(objects: ObjectNode) -> Iterator[BlockingClient]:
    with BlockingClient(f"http://{objects.node.address}") as client:
        yield client


async def test_an_object_goes_in_and_comes_out(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(LARGE)
    options = {"title": "Grüße 100%", "empty": ""}
    put = await client.put_object_file("files", "a", file, content_type="a/b", metadata=options)
    assert (put.digest, put.size) == (Digest.of(LARGE), len(LARGE))
    found = await client.get_object("files", "a")
    assert found.data == LARGE
    assert found.info.content_type == "a/b"
    assert found.info.metadata == options
    assert found.info.modified == put.modified.replace(microsecond=0)
    pieces = [piece async for piece in client.stream_object("files", "a")]
    assert b"".join(pieces) == LARGE


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
async def test_any_key_will_do(client: Client, key: str) -> None:
    await client.put_object("odd", key, key.encode())
    assert (await client.get_object("odd", key)).data == key.encode()
    await client.delete_object("odd", key)
    with pytest.raises(NotFound):
        await client.head_object("odd", key)


async def test_conditions_hold(client: Client) -> None:
    first = await client.put_object("cas", "k", b"1", if_absent=True)
    with pytest.raises(Conflict):
        await client.put_object("cas", "k", b"2", if_absent=True)
    await client.put_object("cas", "k", b"2", if_match=first.digest)
    with pytest.raises(Conflict):
        await client.delete_object("cas", "k", if_match=first.digest)


async def test_a_refusal_comes_with_its_reason(client: Client) -> None:
    with pytest.raises(BadRequest, match="not the name of a bucket"):
        await client.put_object("X", "k", b"")


async def test_lists_are_whole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierce.client.objects.PAGE_OBJECTS", 2)
    keys = ["a/1", "a/2", "b", "c/1", "d", "ü"]
    for key in keys:
        await client.put_object("lists", key, b"")
    pages = [page async for page in client.list_objects("lists")]
    assert [each.key for page in pages for each in page.objects] == keys
    assert len(pages) == 3
    folded = [page async for page in client.list_objects("lists", delimiter="/", after="a/1")]
    assert [each for page in folded for each in page.prefixes] == ["c/"]
    assert [each.key for page in folded for each in page.objects] == ["b", "d", "ü"]
    assert "lists" in await client.list_buckets()


async def test_a_position_of_another_history_is_a_conflict(client: Client) -> None:
    with pytest.raises(Conflict, match="another history"):
        await anext(client.changes("Other-1"))


def test_the_blocking_client_does_the_same(
    blocking: BlockingClient, objects: ObjectNode, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    info = blocking.put_object_file("block", "a", file, content_type="a/b")
    blocking.put_object("block", "b", b"2", if_absent=True)
    assert blocking.head_object("block", "a").digest == info.digest
    assert blocking.get_object("block", "b").data == b"2"
    assert b"".join(blocking.stream_object("block", "b")) == b"2"
    assert [each.key for page in blocking.list_objects("block") for each in page.objects] == [
        "a",
        "b",
    ]
    assert "block" in blocking.list_buckets()
    since = f"{EPOCH}-{objects.index.last_seq()}"
    blocking.delete_object("block", "a", if_match=info.digest)
    assert [
        (each.key, each.object)
        for page in blocking.changes(since, follow=False)
        for each in page.changes
    ] == [("a", None)]


def test_the_blocking_client_waits_for_changes(
    blocking: BlockingClient, objects: ObjectNode
) -> None:
    since = f"{EPOCH}-{objects.index.last_seq()}"
    later = threading.Timer(0.1, objects.node.put_object, ("block", "later"))
    later.start()
    pages = blocking.changes(since)
    assert [each.key for each in next(pages).changes] == ["later"]
    pages.close()
    later.join()
