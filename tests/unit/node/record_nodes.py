"""Nodes that exchange records over a network in memory, whose cuts and losses a test chooses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from random import Random

import msgspec
from tests.unit.node.fakes import FakeTransport, left_running, member

from tierce.cluster.member import Member, State, View
from tierce.core.codec import decode
from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.core.limits import DAY_NANOSECONDS
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import names_messages as messages
from tierce.node.names_peers import NamesPeers
from tierce.node.names_service import NamesService
from tierce.node.record_sync import RecordSync, SyncPacing

DAY_SECONDS = 24 * 3600.0
STARTED = 1_000 * DAY_NANOSECONDS
CALM = SyncPacing(check_seconds=1e9, purge_seconds=1e9)
"""Only pushes and pulls; ranges are compared soon after the start, and not again."""


def now_ns() -> int:
    return STARTED + int(asyncio.get_running_loop().time() * 1e9)


class Link(FakeTransport):
    """What one node sends. ``cut_off`` are addresses that nothing reaches; ``loss`` is a chance."""

    def __init__(self, cluster: "RecordCluster", name: str) -> None:
        super().__init__()
        self.services = cluster.services  # type: ignore[assignment]
        self.cut_off: list[str] = []
        self._cluster = cluster
        self._name = name

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        cluster = self._cluster
        cluster.messages[path] += 1
        if path == messages.PUSH:
            cluster.pushed += decode(body, messages.PushRequest, "message").records
        lost = cluster.random.random() < cluster.loss
        if address in self.cut_off or lost or path in cluster.lost_paths:
            await asyncio.sleep(timeout_seconds)
            raise Unavailable(f"{address} did not answer in time")
        answer = await super().exchange(address, path, body, timeout_seconds=timeout_seconds)
        if path == messages.PULL:
            cluster.carried += len(decode(answer, messages.PullAnswer, "answer").records)
        if path == messages.RANGE:
            cluster.carried += len(decode(answer, messages.RangeAnswer, "answer").records)
        if cluster.random.random() < cluster.loss:
            await asyncio.sleep(timeout_seconds)
            raise Unavailable(f"{address} did not answer in time")
        return answer


class RecordNode:
    """One run of a node."""

    def __init__(self, cluster: "RecordCluster", name: str, index: MemoryIndex) -> None:
        self.name = name
        self.index = index
        self.link = Link(cluster, name)
        self.service = NamesService(index, node_id=name, now_ns=now_ns)
        self.peers = NamesPeers(self.link, me=name)
        self.view = View.of(name, [member(name)])
        self.sync = RecordSync(
            index,
            self.peers,
            lambda: self.view,
            readers=self.service.readers,
            random=Random(name),
            pacing=cluster.pacing,
            now_ns=now_ns,
        )
        self.task = asyncio.create_task(self.sync.run())

    async def write(self, key: str, text: str = "") -> Record:
        draft = Record(bucket="bucket", key=key, digest=Digest.of(text.encode()))
        return await self.index.write(draft, now=now_ns())

    async def delete(self, key: str) -> Record:
        draft = Record(bucket="bucket", key=key, deleted=True)
        return await self.index.write(draft, now=now_ns())

    def has(self, key: str) -> bool:
        record = self.index.get("bucket", key)
        return record is not None and not record.deleted

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        await self.peers.close()


class RecordCluster:
    """Nodes that know each other. ``messages`` counts them by path, ``pushed`` are pushed records.

    ``carried`` counts the records in answers.
    """

    def __init__(self, pacing: SyncPacing, seed: int = 0) -> None:
        self.pacing = pacing
        self.random = Random(seed)
        self.loss = 0.0
        self.lost_paths: list[str] = []
        self.services: dict[str, NamesService] = {}
        self.nodes: dict[str, RecordNode] = {}
        self.members: dict[str, Member] = {}
        self.messages: Counter[str] = Counter()
        self.pushed: list[Record] = []
        self.carried = 0
        self._boots = 0

    def __getitem__(self, name: str) -> RecordNode:
        return self.nodes[name]

    async def start(self, name: str, index: MemoryIndex | None = None) -> RecordNode:
        """Start a node, on the index that it had, or on another one."""
        self._boots += 1
        old = self.nodes.get(name)
        index = index or (old.index if old else MemoryIndex(name))
        await index.begin_epoch(f"{name}{self._boots}")
        node = self.nodes[name] = RecordNode(self, name, index)
        self.members[name] = member(name, boot=str(self._boots))
        self.services[self.members[name].private] = node.service
        self.look()
        return node

    async def stop(self, name: str) -> None:
        """End a node's run, and let the others know."""
        await self.nodes[name].stop()
        self.services.pop(self.members[name].private)
        self.members[name] = self.members[name].in_state(State.DOWN)
        self.look()

    def look(self) -> None:
        """Let every node see who is there, but for those that it is cut off from."""
        for node in self.nodes.values():
            node.view = View.of(
                node.name,
                [
                    each.in_state(State.DOWN) if each.private in node.link.cut_off else each
                    for each in self.members.values()
                ],
            )

    def cut(self, one: str, other: str, *, is_seen: bool = True) -> None:
        """Let two nodes not reach each other. ``is_seen``: they notice."""
        self[one].link.cut_off.append(self.members[other].private)
        self[other].link.cut_off.append(self.members[one].private)
        if is_seen:
            self.look()

    def mend(self) -> None:
        """Let all reach each other again."""
        for node in self.nodes.values():
            node.link.cut_off.clear()
        self.look()

    def forget_counts(self) -> None:
        self.messages.clear()
        self.pushed.clear()
        self.carried = 0

    def contents(self, name: str) -> list[Record]:
        changed = self[name].index.changed
        return [changed[each].record for each in sorted(changed)]

    @property
    def agree(self) -> bool:
        """Whether all nodes have the same records."""
        first, *others = (self.contents(name) for name in self.nodes)
        return all(each == first for each in others)

    async def until_agreed(self, seconds: float) -> float:
        """Wait until all nodes have the same records; how many seconds that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self.agree:
            assert loop.time() - began < seconds, {
                each: len(self.contents(each)) for each in self.nodes
            }
            await asyncio.sleep(max(0.05, seconds / 1000))
        return loop.time() - began

    async def until_caught_up(self) -> None:
        for node in self.nodes.values():
            if not node.task.done():
                assert await node.sync.catch_up(120.0), node.sync.status()


@asynccontextmanager
async def record_cluster(
    names: Iterable[str], *, seed: int = 0, **changed: float
) -> AsyncIterator[RecordCluster]:
    """A cluster of these nodes, all caught up. ``changed`` are fields of CALM."""
    cluster = RecordCluster(replace(CALM, **changed), seed)
    try:
        for name in names:
            await cluster.start(name)
        await cluster.until_caught_up()
        await asyncio.sleep(0.2)  # from here on they push
        yield cluster
    finally:
        for node in cluster.nodes.values():
            await node.stop()
    assert await left_running() == []


def flagged(record: Record) -> Record:
    """The same record, once the upstream has it."""
    return msgspec.structs.replace(record, is_upstream=True)


async def passes(seconds: float) -> None:
    """Let so much of the virtual time go by: it takes none."""
    await asyncio.sleep(seconds)
