"""Whole Tierce nodes in one cluster with Cask nodes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.doors.cask.stand_in import CaskNode, key_of, ring_order
from tests.doors.cask.wire import HELLO, HELLO_KEY, KNOCK, SECRET, ask, failure, post, success

from tierce.testing.serving import Served, serving

TIERCE = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
OTHER_TIERCE = "53a5e5f2-9de4-4e72-a71e-fcc8c4e4a03e"
A = "ead52d6c-f423-4c0a-a762-37bacac88d4f"
B = "f864ab85-2cd1-4cc7-a541-3e34ec6fc18f"
INTERVAL_SECONDS = 1.0


def cask(uuid: str) -> CaskNode:
    return CaskNode(uuid, secret=SECRET, interval_seconds=INTERVAL_SECONDS)


async def tierce(
    stack: AsyncExitStack, path: Path, uuid: str, *join: str, replication: int = 2
) -> Served:
    """A Tierce node with a Cask door, until the stack ends."""
    node = serving(
        path / uuid,
        doors=("cask",),
        node_id=uuid,
        cluster_secret=SECRET,
        join=join,
        ring_points=16,
        replication=replication,
        max_replication=replication,
        heartbeat_interval_seconds=INTERVAL_SECONDS,
    )
    return await stack.enter_async_context(node)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


async def neighbors(node: Served) -> set[str]:
    status = json.loads((await ask(node.cask, "GET", "/status/")).body)
    return {each["uuid"] for each in status["neighbors"]}


async def met(node: Served, *uuids: str) -> None:
    async def complete() -> bool:
        return await neighbors(node) == set(uuids)

    await until(complete, f"the neighbors {uuids}")


async def has(node: Served, key: str) -> bool:
    return (await ask(node.cask, "HEAD", f"/local/{key}/", KNOCK)).status == 200


async def test_a_file_from_either_side_is_read_on_the_other(tmp_path: Path) -> None:
    async with cask(A) as a, AsyncExitStack() as stack:
        node = await tierce(stack, tmp_path, TIERCE, a.base_url)
        await met(node, A)
        assert (await post(node.cask, HELLO)).body == success(HELLO_KEY)
        assert a.files == {HELLO_KEY: HELLO}
        large = bytes(3_000_000)
        a.files[key_of(large)] = large
        for method, body in (("HEAD", b""), ("GET", large)):
            answer = await ask(node.cask, method, f"/file/{key_of(large)}/")
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["content-length"] == "3000000"
        assert await a.write(b"from cask")
        answer = await ask(node.cask, "GET", f"/file/{key_of(b'from cask')}/")
        assert answer.body == b"from cask"


async def test_copies_lie_where_the_ring_of_cask_wants_them(tmp_path: Path) -> None:
    async with cask(A) as a, cask(B) as b, AsyncExitStack() as stack:
        await a.join(b.base_url)
        node = await tierce(stack, tmp_path, TIERCE, a.base_url)
        await met(node, A, B)
        for number in range(20):
            content = f"file {number}".encode()
            key = key_of(content)
            assert (await post(node.cask, content)).body == success(key)
            wanted = set(ring_order(key, [A, B, TIERCE])[:2])
            holders = {each.uuid for each in (a, b) if key in each.files}
            assert holders | ({TIERCE} if await has(node, key) else set()) == wanted


async def test_a_cask_node_that_is_gone_leaves_too_few(tmp_path: Path) -> None:
    async with cask(A) as a, AsyncExitStack() as stack:
        node = await tierce(stack, tmp_path, TIERCE, a.base_url)
        await met(node, A)
        await a.stop()
        answer = await post(node.cask, HELLO)
        assert (answer.status, answer.body) == (503, failure(HELLO_KEY))
        await met(node)
        await a.start()
        await met(node, A)
        assert (await post(node.cask, HELLO)).body == success(HELLO_KEY)


async def test_tierce_nodes_gossip_and_cask_nodes_know_both(tmp_path: Path) -> None:
    async with cask(A) as a, AsyncExitStack() as stack:
        first = await tierce(stack, tmp_path, TIERCE, a.base_url)
        await met(first, A)
        second = await tierce(stack, tmp_path, OTHER_TIERCE, first.cask)
        await met(first, A, OTHER_TIERCE)
        await met(second, A, TIERCE)
        assert set(a.known) == {TIERCE, OTHER_TIERCE}


async def test_a_cluster_of_tierce_alone_sends_nothing_in_casks_way(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first = await tierce(stack, tmp_path, TIERCE)
        second = await tierce(stack, tmp_path, OTHER_TIERCE, first.cask)
        await met(first, OTHER_TIERCE)
        await met(second, TIERCE)
        status = json.loads((await ask(first.cask, "GET", "/status/")).body)
        assert [each["dialect"] for each in status["neighbors"]] == ["tierce"]
        assert (await post(first.cask, HELLO)).body == success(HELLO_KEY)
        assert await has(second, HELLO_KEY)


async def test_a_node_whose_join_finds_nobody_says_so_in_casks_words(tmp_path: Path) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    async with AsyncExitStack() as stack:
        node = await tierce(stack, tmp_path, TIERCE)
        body = f"url=http%3A%2F%2F127.0.0.1%3A1&secret={SECRET}".encode()
        answer = await ask(node.cask, "POST", "/join/", form, body=body)
        assert (answer.status, answer.body) == (200, b"error retrieving config")
        body = f'{{"uuid":"ead5ffff","base_url":"http://x:1","secret":"{SECRET}"}}'.encode()
        answer = await ask(node.cask, "POST", "/heartbeat/", body=body)
        assert (answer.status, answer.body) == (200, b"")
        config = await ask(node.cask, "GET", "/config/")
        assert config.headers["tierce-private"] == node.private
