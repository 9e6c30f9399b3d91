"""What has no room and can't be dropped, as the upstream did not say that it has it, goes later."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from tests.unit.node.test_evicting import LIMIT_BYTES, Node, safe, settled

from tierce.core.digest import Digest
from tierce.names.record import LOCAL, NEAR_CACHE_BUCKET, UPSTREAM, Record
from tierce.node import uncounted
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.upstream_contract import BytesSource

LARGE = b"!" * (LIMIT_BYTES + 1)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncounted, "REST_SECONDS", 0.0)


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream(Random(1), seconds=0.0)


@pytest.fixture
async def node(tmp_path: Path, upstream: MemoryUpstream) -> AsyncIterator[Node]:
    node = Node(tmp_path, upstream=upstream)
    await node.cache.rebuild()
    yield node
    await close(node)


async def close(node: Node) -> None:
    assert node.parts.checked is not None
    await node.cache.close()
    await node.parts.checked.close()
    await node.disk.close()


def heard(key: str, data: bytes) -> Record:
    return safe(key, timestamp=9, digest=Digest.of(data), size=len(data))


async def put_there(upstream: MemoryUpstream, key: str, data: bytes) -> None:
    await upstream.upload(heard(key, data), BytesSource(data))


async def stuck(node: Node, upstream: MemoryUpstream, key: str, data: bytes) -> Digest:
    """Bytes come, then their record, for which there is no room, while the upstream is down."""
    await put_there(upstream, key, data)
    await node.give(data)
    upstream.is_down = True
    assert await node.parts.index.merge([heard(key, data)]) == [True]
    return Digest.of(data)


async def test_what_was_too_large_goes_once_the_upstream_answers(
    node: Node, upstream: MemoryUpstream
) -> None:
    digest = await stuck(node, upstream, "k", LARGE)
    await settled(node)
    assert await node.has(digest)
    assert node.cache.status()["undropped_bytes"] == len(LARGE)
    upstream.is_down = False
    await node.cache.tick()
    assert not await node.has(digest)
    assert node.index.get(NEAR_CACHE_BUCKET, "k") is not None
    assert node.cache.status()["undropped_bytes"] == node.cached_bytes() == 0


async def test_it_is_counted_once_there_is_room(node: Node, upstream: MemoryUpstream) -> None:
    await put_there(upstream, "first", b"?" * 60_000)
    await node.put("first", b"?" * 60_000)
    await settled(node)
    digest = await stuck(node, upstream, "k", b"!" * 50_000)
    assert node.cached_bytes() == 110_000
    assert node.cache.status()["bytes"] == 60_000
    assert node.cache.status()["undropped_bytes"] == 50_000
    await node.parts.index.merge([safe("first", timestamp=100, deleted=True)])
    await settled(node)
    assert await node.has(digest)
    assert node.cached_bytes() == node.cache.status()["bytes"] == 50_000
    assert node.cache.status()["undropped_bytes"] == 0


async def test_what_the_upstream_lacks_keeps_no_other_from_being_dropped(
    node: Node, upstream: MemoryUpstream
) -> None:
    never = await stuck(node, upstream, "never", LARGE)
    upstream.is_down = False
    newer = safe("never", timestamp=10, digest=Digest.of(b"newer"), size=5)
    await upstream.upload(newer, BytesSource(b"newer"))
    digest = await stuck(node, upstream, "k", LARGE + b"!")
    upstream.is_down = False
    await node.cache.tick()
    await node.cache.tick()
    assert await node.has(never)
    assert not await node.has(digest)
    assert node.cache.status()["undropped_bytes"] == len(LARGE)


async def test_after_a_kill_it_is_found_again(tmp_path: Path, upstream: MemoryUpstream) -> None:
    node = Node(tmp_path, upstream=upstream)
    await node.cache.rebuild()
    digest = await stuck(node, upstream, "k", LARGE)
    await node.disk.close()
    node = Node(tmp_path, upstream=upstream)
    await node.cache.rebuild()
    assert await node.has(digest)
    assert node.cache.status()["undropped_bytes"] == len(LARGE)
    upstream.is_down = False
    await node.cache.tick()
    assert not await node.has(digest)
    await close(node)


async def test_what_is_deleted_meanwhile_is_forgotten(node: Node, upstream: MemoryUpstream) -> None:
    digest = await stuck(node, upstream, "k", LARGE)
    gone = safe("k", timestamp=10, deleted=True)
    await node.parts.index.merge([gone])
    await node.cache.tick()
    assert await node.has(digest)  # collection takes it
    assert node.cache.status()["undropped_bytes"] == 0


@pytest.mark.parametrize("has_it", [True, False])
async def test_a_put_that_loses_drops_a_content_only_if_the_upstream_has_it(
    node: Node, upstream: MemoryUpstream, has_it: bool
) -> None:
    await node.index.merge([heard("k", LARGE)])
    if has_it:
        await put_there(upstream, "k", LARGE)
    newer = Record(
        bucket=NEAR_CACHE_BUCKET, key="o", level=LOCAL, timestamp=8, digest=Digest.of(b"")
    )
    await node.index.merge([newer])
    queued = Record(bucket=NEAR_CACHE_BUCKET, key="o", level=UPSTREAM, timestamp=7)
    async with node.disk.spooler.holding(LARGE, "blake3") as spool:
        await node.parts.objects.restore(spool, queued)
    assert await node.has(Digest.of(LARGE)) is not has_it


async def test_an_upstream_that_does_not_answer_is_left_in_peace_for_a_while(
    node: Node, upstream: MemoryUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncounted, "REST_SECONDS", 1000.0)
    digest = await stuck(node, upstream, "k", LARGE)
    await node.cache.tick()
    upstream.is_down = False
    await node.cache.tick()
    assert await node.has(digest)
    node.cache.uncounted._rests_until = 0.0
    await node.cache.tick()
    assert not await node.has(digest)
