"""Of all uploads of a blob at a node one sends it; others wait, and need not send it themselves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_names import path_of
from tierce.blobs.turns import Turns
from tierce.cloud.bucket import open_bucket
from tierce.core.digest import Digest
from tierce.testing.cloud_nodes import cloud_disk

DATA = b"small"
DIGEST = Digest.of(DATA)


class Node:
    """A cloud node over a directory, and what another process of it does at the same time."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.bucket = root / "bucket"
        self.bucket.mkdir()
        self.disk = cloud_disk(self.data, open_bucket(f"file://{self.bucket}"))
        self.others = Turns(self.data / "holds" / "uploads")
        self.begun_bytes = 0

    async def put(self) -> bool:
        async with self.disk.spooler.holding(DATA, "blake3") as spool:
            return await self.disk.store.put(spool)

    def sent(self) -> int:
        """How often the blob was sent."""
        return (self.disk.store.bucket.written_bytes - self.begun_bytes) // len(DATA)

    async def others_finish(self, turn: int) -> None:
        """Another process ends its upload."""
        row = Row(len(DATA), 1, "", 1)
        path = self.bucket / path_of(DIGEST, "tierce")
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        await self.disk.environment.write(
            lambda batch: catalogue.put_in(batch, DIGEST, row, None, None)
        )
        self.others.end(turn)

    def row(self) -> Row | None:
        return self.disk.store.ground.row(DIGEST)

    def is_uploaded(self) -> bool:
        with self.disk.environment.snapshot() as batch:
            return catalogue.is_uploaded_in(batch, DIGEST)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    node.begun_bytes = node.disk.store.bucket.written_bytes
    yield node
    await node.disk.close()


async def waiting(node: Node) -> "asyncio.Task[bool]":
    """A put that waits for its turn."""
    task = asyncio.create_task(node.put())
    while not node.is_uploaded():
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert not task.done()
    assert node.sent() == 0
    return task


def turn_of_another(node: Node) -> int:
    turn = node.others.take(DIGEST)
    assert turn is not None
    return turn


async def test_of_many_puts_at_once_one_is_sent(node: Node) -> None:
    created = await asyncio.gather(*(node.put() for _ in range(20)))
    assert sorted(created) == [False] * 19 + [True]
    assert node.sent() == 1
    assert not node.is_uploaded()


async def test_a_put_after_another_is_sent_again(node: Node) -> None:
    assert await node.put()
    assert not await node.put()
    assert node.sent() == 2


async def test_what_another_process_sends_meanwhile_is_not_sent_again(node: Node) -> None:
    turn = turn_of_another(node)
    task = await waiting(node)
    await node.others_finish(turn)
    assert await task is False
    assert node.sent() == 0
    assert node.row() == Row(len(DATA), 1, "", 1)
    assert not node.is_uploaded()


async def test_what_another_process_gave_up_is_sent(node: Node) -> None:
    turn = turn_of_another(node)
    task = await waiting(node)
    node.others.end(turn)
    assert await task is True
    assert node.sent() == 1


async def test_what_another_process_sent_and_somebody_deleted_is_sent(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = turn_of_another(node)
    # Its row was there when it was looked at, and is not when this put is to be committed.
    rows = [None, *[Row(len(DATA), 1, "", 1)] * 2]
    known = node.disk.store.ground.row
    monkeypatch.setattr(
        Ground, "row", lambda ground, digest: rows.pop(0) if rows else known(digest)
    )
    assert await node.put() is True
    assert node.sent() == 1
    assert node.row() is not None
    node.others.end(turn)


async def test_who_waited_long_enough_sends_too(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierce.blobs.cloud_uploading.CLOUD_TURN_SECONDS", 0.02)
    turn = turn_of_another(node)
    assert await node.put() is True
    assert node.sent() == 1
    node.others.end(turn)


async def test_locks_of_processes_that_died_go_at_the_next_start(node: Node) -> None:
    (node.data / "holds" / f"blake3-{DIGEST.hex}").touch()
    await node.disk.prepare("one")
    assert list((node.data / "holds").iterdir()) == []
