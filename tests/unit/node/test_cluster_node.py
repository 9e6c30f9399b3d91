"""Whole nodes over a network in memory: they find each other, heal, and take orders."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.fakes import (
    FakeTransport,
    Room,
    content,
    left_running,
    member,
    names_of,
    spooler,
)

from tierce.blobs.memory import MemoryStore
from tierce.cluster.member import Member, State, View
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, NotFound, TierceError, Unavailable
from tierce.core.limits import GIB, WRITABLE_CHECK_SECONDS
from tierce.node.cluster_node import ClusterNode, Pacing
from tierce.testing import virtual_time


class Node:
    """A node, and what it is made of."""

    def __init__(self, me: Member, transport: FakeTransport, directory: Path) -> None:
        self.store = MemoryStore()
        self.room = Room()
        self.views: list[View] = []
        self.conflicts: list[TierceError] = []
        self.core = ClusterNode(
            me,
            self.store,
            spooler(directory, self.room, memory_limit_bytes=GIB),
            self.room,
            transport,
            pacing=Pacing(grace_seconds=20.0),
            names=names_of(self.store, me.node_id),
            random=random.Random(me.node_id),
            on_view=self.views.append,
            on_conflict=self.conflicts.append,
            join=["a:7071"],
            wall_clock=lambda: 0.0,
        )
        transport.services[me.private] = self.core.service
        self.running = asyncio.create_task(self.core.run())

    async def overview(self) -> dict[str, Any]:
        return await self.core.call("cluster", {})

    async def drain(self, node_id: str, *, cancel: bool = False) -> None:
        await self.core.call("drain", {"node_id": node_id, "cancel": cancel})


class Nodes:
    """Some nodes that have found each other."""

    def __init__(self, directory: Path, count: int) -> None:
        self.transport = FakeTransport()
        self.by_name = {
            name: Node(
                member(name, incarnation=1, boot=f"boot {name}", replication=min(2, count)),
                self.transport,
                directory,
            )
            for name in "abcd"[:count]
        }

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait in simulated time."""
        for _ in range(int(seconds * 10)):
            if condition():
                return
            await asyncio.sleep(0.1)
        raise AssertionError("it did not come to pass")

    async def stop(self, name: str) -> None:
        self.transport.services.pop(f"{name}:7071", None)
        node = self.by_name.pop(name)
        node.running.cancel()
        await asyncio.gather(node.running, return_exceptions=True)
        await node.core.close()

    def members_at(self, name: str) -> dict[str, State]:
        return {each.node_id: each.state for each in self[name].core.placement().view.members}

    def holders(self, digest: Digest) -> list[str]:
        return [name for name, node in self.by_name.items() if digest in node.store.blobs]


def on_nodes(directory: Path, count: int, test: Callable[[Nodes], Awaitable[None]]) -> None:
    async def main() -> None:
        nodes = Nodes(directory, count)
        await nodes.until(
            lambda: all(len(nodes.members_at(name)) == count for name in nodes.by_name)
        )
        await test(nodes)
        for name in list(nodes.by_name):
            assert not nodes[name].conflicts
            await nodes.stop(name)
        assert await left_running() == []

    virtual_time.run(main())


def test_a_node_by_itself_gives_its_view_and_is_alone(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        node = nodes["a"]
        await nodes.until(lambda: bool(node.views))
        assert node.views[-1] == node.core.placement().view
        assert node.core.path.is_alone
        found = await node.overview()
        assert [each["node_id"] for each in found["nodes"]] == ["a"]

    on_nodes(tmp_path, 1, check)


def test_what_one_node_is_given_all_owners_have_and_any_can_read(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        async with spooler(tmp_path).holding(content(1), "blake3") as spool:
            assert await nodes["a"].core.path.store(spool)
        digest = Digest.of(content(1))
        assert len(nodes.holders(digest)) == 2
        for node in nodes.by_name.values():
            assert (await node.core.path.open(digest)).data == content(1)

    on_nodes(tmp_path, 3, check)


def test_views_are_told_as_they_change(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        views = nodes["a"].views
        assert len(views[0].members) == 1
        assert views[-1] == nodes["a"].core.placement().view
        assert all(one != other for one, other in pairwise(views))

    on_nodes(tmp_path, 3, check)


def test_a_blob_on_one_node_only_gets_to_its_owners(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        digest = Digest.of(content(3))
        nodes["c"].store.blobs[digest] = content(3)
        await nodes["c"].core.call("heal", {"digest": str(digest)})
        owners = sorted(each.node_id for each in nodes["a"].core.placement().owners(digest))
        await nodes.until(lambda: nodes.holders(digest) == owners, 120)

    on_nodes(tmp_path, 3, check)


def test_the_overview_has_every_nodes_account(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        nodes["b"].store.blobs[Digest.of(content(1))] = content(1)
        found = await nodes["a"].overview()
        assert [each["status"]["blobs"] for each in found["nodes"]] == [0, 1, 0]
        disk = found["nodes"][2]["status"]["disk"]
        assert disk["free_bytes"] == GIB
        assert json.loads(json.dumps(found)) == found

    on_nodes(tmp_path, 3, check)


def test_the_overview_tells_of_a_node_that_does_not_answer(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.stop("c")
        found = await nodes["a"].overview()
        assert [each["status"] is None for each in found["nodes"]] == [False, False, True]
        await nodes.until(lambda: nodes.members_at("a")["c"] is State.DOWN)
        await asyncio.sleep(1 / 8)
        third = (await nodes["a"].overview())["nodes"][2]
        assert (third["state"], third["down_seconds"] > 0) == ("down", True)

    on_nodes(tmp_path, 3, check)


def test_a_node_is_drained_by_way_of_another_and_leaves_for_good(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        digests = []
        for number in range(12):
            async with spooler(tmp_path).holding(content(number), "blake3") as spool:
                await nodes["b"].core.path.store(spool)
                digests.append(spool.digest)
        assert nodes["c"].store.blobs
        await nodes["a"].drain("c")
        assert nodes["c"].core.placement().me.draining
        await nodes.until(lambda: nodes["c"].core.healer.is_drained, 300)
        assert nodes["c"].store.blobs == {}
        assert all(nodes.holders(digest) == ["a", "b"] for digest in digests)
        found = await nodes["a"].overview()
        assert [each["drained"] for each in found["nodes"]] == [False, False, True]
        await nodes["c"].core.leave()
        await nodes.stop("c")
        await nodes.until(lambda: "c" not in nodes.members_at("a"))

    on_nodes(tmp_path, 3, check)


def test_draining_can_be_called_off(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        await nodes["a"].drain("c")
        await nodes["a"].drain("c", cancel=True)
        assert not nodes["c"].core.placement().me.draining

    on_nodes(tmp_path, 3, check)


def test_a_node_can_be_drained_by_itself(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        await nodes["c"].drain("c")
        await nodes.until(lambda: nodes["a"].core.placement().view.by_id["c"].draining)

    on_nodes(tmp_path, 3, check)


def test_a_drain_that_leaves_too_few_nodes_is_refused(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        with pytest.raises(
            Conflict, match="copies asked for: 2; other nodes that can hold them now: 1"
        ):
            await nodes["a"].drain("b")
        assert not nodes["b"].core.placement().me.draining

    on_nodes(tmp_path, 2, check)


def test_an_unknown_node_can_not_be_drained(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        with pytest.raises(NotFound, match="x is not a member"):
            await nodes["a"].drain("x")

    on_nodes(tmp_path, 3, check)


def test_a_cask_node_can_not_be_drained(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        nodes["a"].core.set_others([member("x", dialect="cask", cask="http://x")])
        with pytest.raises(Conflict, match="x is a Cask node"):
            await nodes["a"].drain("x")

    on_nodes(tmp_path, 3, check)


def test_a_node_that_is_down_can_not_be_drained_but_be_forgotten(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.stop("d")
        await nodes.until(lambda: nodes.members_at("a")["d"] is State.DOWN)
        with pytest.raises(Unavailable, match="d is down") as caught:
            await nodes["a"].drain("d")
        assert "Forget" in caught.value.hint
        await nodes["a"].core.call("forget", {"node_id": "d"})
        assert "d" not in nodes.members_at("a")
        await nodes.until(lambda: "d" not in nodes.members_at("b"))

    on_nodes(tmp_path, 4, check)


def test_members_of_other_dialects_are_part_of_the_view(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        cask = member("x", dialect="cask", cask="http://x")
        nodes["a"].core.set_others([cask])
        assert nodes["a"].core.placement().view.by_id["x"] == cask
        assert nodes["a"].views[-1].by_id["x"] == cask
        nodes["a"].core.set_others([])
        assert "x" not in nodes.members_at("a")

    on_nodes(tmp_path, 2, check)


def test_a_full_disk_is_announced_and_room_too(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        def writable() -> bool:
            return nodes["a"].core.placement().view.by_id["b"].writable

        nodes["b"].room.is_full = True
        await asyncio.sleep(1.1 * WRITABLE_CHECK_SECONDS)
        assert not nodes["b"].core.placement().me.writable
        await nodes.until(lambda: not writable())
        nodes["b"].room.is_full = False
        await nodes.until(writable)

    on_nodes(tmp_path, 3, check)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("drain", b'{"node_id": "b", "cancel": false}', "for another node"),
        ("drain", b"{}", "for another node"),
        ("drain", b"[]", "no JSON object"),
        ("status", b"{", "no JSON"),
        ("format", b"{}", "is no order"),
    ],
)
def test_an_odd_order_of_a_peer_is_refused(
    tmp_path: Path, name: str, arguments: bytes, message: str
) -> None:
    async def check(nodes: Nodes) -> None:
        peers, view = nodes["b"].core._tierce, nodes["b"].core.placement().view
        with pytest.raises((BadRequest, Conflict), match=message):
            await peers.control(view.by_id["a"], name, arguments)
        assert not nodes["a"].core.placement().me.draining

    on_nodes(tmp_path, 3, check)


def test_an_unknown_order_is_refused(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        with pytest.raises(BadRequest, match="is no order"):
            await nodes["a"].core.call("format", {})

    on_nodes(tmp_path, 1, check)


def test_the_status_has_healing_scrub_and_members(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        found = await nodes["a"].core.call("status", {})
        assert set(found) >= {"scrub", "healing", "members"}
        assert [each["node_id"] for each in found["members"]] == ["a", "b"]

    on_nodes(tmp_path, 2, check)


def test_a_node_that_is_not_emptied_leaves_as_down(tmp_path: Path) -> None:
    async def check(nodes: Nodes) -> None:
        await nodes["b"].core.leave()
        await nodes.stop("b")
        assert nodes.members_at("a")["b"] is State.DOWN

    on_nodes(tmp_path, 3, check)
