"""A store in the cloud, and its deletions: late ones, unanswered ones, and those of bad copies."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import opendal
import pytest
from tests.unit.blobs.test_cloud import LARGE, SMALL, Node, failing

from tierce.blobs import catalogue
from tierce.cloud.failures import Lasting, Passing
from tierce.core.errors import Corrupt, Unavailable
from tierce.core.limits import CLOUD_OWNER_SECONDS, CLOUD_SETTLE_SECONDS

SETTLE = int(CLOUD_SETTLE_SECONDS * 1000)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


async def test_a_deleted_blob_does_not_come_back_by_an_upload_that_failed_meanwhile(
    node: Node,
) -> None:
    digest = await node.put(SMALL)
    name = catalogue.token(os.getpid(), 1 << 40)
    write = node.disk.environment.write
    await write(lambda batch: catalogue.begin_in(batch, digest, name))
    assert await node.store.delete(digest)
    until = node.now + SETTLE
    await write(lambda batch: catalogue.abandon_in(batch, digest, name, until))
    await node.store.tend()
    assert node.objects() == set()
    node.path(digest).write_bytes(SMALL)  # the upload's request was carried out late
    await node.store.tend()
    assert node.objects() == set()
    node.path(digest).write_bytes(SMALL)
    node.now = until
    await node.store.tend()
    assert node.objects() == set()
    assert node.leftovers() == []


def waiting(node: Node, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Let each request that follows wait so long for its turn; returns a clock, in seconds."""
    clock = [0.0]
    node.store.ownership._clock = lambda: clock[0]

    async def turn(patience: float) -> None:
        clock[0] += seconds
        node.now += int(seconds * 1000)

    monkeypatch.setattr(node.store.bucket._retrying.pace, "turn", turn)
    return clock


async def test_a_deletion_that_waited_for_its_turn_holds_up_puts_as_long_after_it_was_sent(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierce.blobs.cloud_uploading.CLOUD_WAIT_SECONDS", 0.01)
    digest = await node.put(SMALL)
    sent_at = 0

    async def unanswered(path: str) -> None:
        nonlocal sent_at
        sent_at = node.now
        raise OSError("no answer")

    class Operator:
        def __init__(self, plain: opendal.AsyncOperator) -> None:
            self._plain = plain
            self.delete = unanswered

        def __getattr__(self, name: str) -> object:
            return getattr(self._plain, name)

    with monkeypatch.context() as patched:
        waiting(node, patched, 25)
        patched.setattr(node.store.bucket, "_operator", Operator(node.store.bucket._operator))
        assert await node.store.delete(digest)
    node.now = sent_at + SETTLE - 1
    await node.store.tend()
    with pytest.raises(Unavailable):
        await node.put(SMALL)
    node.now = sent_at + 2 * SETTLE
    await node.store.tend()
    assert await node.put(SMALL) == digest


async def test_nothing_is_deleted_later_than_a_minute_after_the_bucket_was_seen_to_be_ours(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, other = await node.put(SMALL), await node.put(LARGE)
    clock = [0.0]
    node.store.ownership._clock = lambda: clock[0]
    assert await node.store.delete(other)
    clock[0] = CLOUD_OWNER_SECONDS - 1  # it would do for a request that is sent at once
    read, seen = node.store.bucket.read, []

    async def reading(path: str, start: int, length: int) -> bytes:
        seen.append(path)
        return await read(path, start, length)

    monkeypatch.setattr(node.store.bucket, "read", reading)
    assert await node.store.delete(digest)
    assert seen == ["tierce-node.json"]


async def test_a_clock_that_was_set_back_bars_no_blob_for_long(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(SMALL)
    right, node.now = node.now, node.now + 365 * 24 * 3_600_000
    with monkeypatch.context() as patched:
        patched.setattr(node.store.bucket, "delete", failing(Unavailable("no answer")))
        assert await node.store.delete(digest)
    for _ in range(3):
        node.now = right
        await node.store.tend()
        right += 2 * SETTLE
    assert await node.put(SMALL) == digest


@pytest.mark.parametrize("error", [Lasting("too large to copy"), Passing("no answer")])
async def test_a_bad_copy_that_can_not_be_copied_is_replaced_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("tierce.blobs.cloud_uploading.CLOUD_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(node.store.bucket, "copy", failing(error))
    digest = await node.put(LARGE)
    node.path(digest).write_bytes(bytes(len(LARGE)))
    with pytest.raises(Corrupt):
        await node.get(digest)
    assert node.objects() == (set() if isinstance(error, Lasting) else {digest.hex})
    assert await node.put(LARGE) == digest
    await node.store.tend()
    assert await node.get(digest) == LARGE
    assert node.leftovers() == []


async def test_a_copy_of_a_bad_object_that_got_no_answer_is_made_over_the_first(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await node.put(LARGE)
    node.path(digest).write_bytes(bytes(len(LARGE)))
    copy = node.store.bucket.copy
    answers = [Passing("no answer")] * 3

    async def unanswered(path: str, to: str) -> None:
        await copy(path, to)
        if answers:
            raise answers.pop()

    monkeypatch.setattr(node.store.bucket, "copy", unanswered)
    with pytest.raises(Corrupt):
        await node.get(digest)
    for _ in range(3):
        node.now += 5_000
        await node.store.tend()
    assert node.objects() == set()
    assert len(list((node.root / "quarantine").iterdir())) == 1
