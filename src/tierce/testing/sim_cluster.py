"""A simulated cluster under observation: nodes, clients and operators, and the checkers that watch.

Whatever clients are told and whatever is destroyed goes through here, so that the checkers hear of it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tierce.cluster.member import Member, State, View
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError
from tierce.testing.checkers import (
    Bounded,
    Converged,
    Durable,
    NeverWrong,
    Violation,
    holders,
    is_good,
)
from tierce.testing.network import SimNetwork
from tierce.testing.sim_node import GaveUp, Setup, SimNode
from tierce.testing.trace import Trace

POLL_SECONDS = 5.0
FORMING_SECONDS = 60.0
QUIET_SECONDS = 60
GOSSIP_MESSAGES_PER_SECOND = 6.0
GOSSIP_BYTES_PER_SECOND = 6000.0


@dataclass
class SimCluster:
    """``replication`` is what all nodes are set to. Everything random comes from ``seed``."""

    seed: int
    replication: int
    spool_directory: Path
    trace: Trace = field(default_factory=Trace)
    nodes: dict[str, SimNode] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.network = SimNetwork(self.random("network"), self.trace)
        self.durable = Durable(self.replication)
        self.never_wrong = NeverWrong()
        self._destroyed: list[Digest] = []
        self._deleted: dict[Digest, None] = {}
        self._lost: list[str] = []
        self._named = 0

    def random(self, purpose: str) -> Random:
        """Random numbers of their own for each purpose, so that one use does not disturb another."""
        return Random(f"{self.seed} {purpose}")  # noqa: S311

    # Nodes

    def new_name(self) -> str:
        """An id that no node had yet."""
        self._named += 1
        return f"node{self._named}"

    async def add(self, setup: Setup) -> SimNode:
        """Add a node, which joins by the addresses of all others."""
        node = SimNode(setup, self.network, self.random(setup.node_id), self.spool_directory)
        self.nodes[setup.node_id] = node
        await self.start(node)
        return node

    async def start(self, node: SimNode) -> None:
        """Start a node that does not run."""
        self.note(f"start {node.setup.node_id}")
        await node.start([each.address for each in self.nodes.values()])

    def crash(self, node: SimNode, *, power: bool = False) -> None:
        """Kill a node, or cut its power."""
        self.note(f"crash {node.setup.node_id} {'power' if power else 'kill'}")
        node.crash(power=power)

    async def leave(self, node: SimNode) -> None:
        """Stop a node that is empty, for good."""
        self.note(f"leave {node.setup.node_id}")
        await node.stop()
        del self.nodes[node.setup.node_id]

    @property
    def running(self) -> list[SimNode]:
        """The nodes that have a process, paused or not."""
        return [each for each in self.nodes.values() if each.is_running]

    @property
    def disks(self) -> dict[str, dict[Digest, bytes]]:
        """What lies on each disk."""
        return {name: node.disk.blobs for name, node in self.nodes.items()}

    # Destruction, as far as the promise allows

    def wipe(self, node: SimNode) -> bool:
        """Empty the disk of a node that does not run; False if too much would be destroyed."""
        held = self._good_copies(node)
        if not self.durable.may_destroy(held):
            return False
        self.note(f"wipe {node.setup.node_id} {len(held)}")
        self._destroy(held)
        node.wipe()
        self.check()
        return True

    def rot(self, node: SimNode, digest: Digest) -> bool:
        """Flip a bit of a copy; False if too much would be destroyed."""
        if not node.disk.blobs[digest] or digest not in self._good_copies(node):
            return False
        if not self.durable.may_destroy([digest]):
            return False
        self.note(f"rot {node.setup.node_id} {digest}")
        self._destroy([digest])
        node.disk.rot(digest)
        self.check()
        return True

    def lose(self, node: SimNode) -> bool:
        """Take a node that does not run away for ever; False if too much would be destroyed."""
        if not self.wipe(node):
            return False
        self.note(f"lose {node.setup.node_id}")
        self.network.dark[node.setup.node_id] = None
        del self.nodes[node.setup.node_id]
        self._lost.append(node.setup.node_id)
        return True

    def _good_copies(self, node: SimNode) -> list[Digest]:
        return [digest for digest, data in node.disk.blobs.items() if is_good(digest, data)]

    def _destroy(self, copies: list[Digest]) -> None:
        self._destroyed += copies
        self.durable.destroy(copies)

    # Clients

    async def put(
        self, node: SimNode, data: bytes, algorithm: str, patience_seconds: float
    ) -> Digest | None:
        """Upload as a client; None if that failed."""
        digest = Digest.of(data, algorithm)
        self.never_wrong.put(digest, data)
        self._deleted.pop(digest, None)
        before = len(self._destroyed)
        try:
            answer = await node.put(data, algorithm, patience_seconds=patience_seconds)
        except (TierceError, GaveUp) as error:
            self._failed(f"put {digest} to {node.setup.node_id}", error)
            return None
        self.note(f"acknowledged {digest}")
        self.counts["puts acknowledged"] += 1
        self.never_wrong.stored(data, answer)
        meanwhile = self._destroyed[before:].count(digest)
        self.durable.acknowledge(digest, self.disks, meanwhile)
        return digest

    async def get(self, node: SimNode, digest: Digest, patience_seconds: float) -> bool:
        """Download as a client; False if that failed."""
        received = bytearray()
        try:
            await node.get(digest, received, patience_seconds=patience_seconds)
        except (TierceError, GaveUp) as error:
            self._failed(f"get {digest} from {node.setup.node_id}", error)
            if isinstance(error, NotFound) and digest in self.durable.acknowledged:
                alone = node.core is None or node.core.path.is_alone
                self.counts[f"false not found{' alone' if alone else ''}"] += 1
                self.note(f"though it is on {holders(self.disks, digest)}")
            if received:
                self.never_wrong.read(digest, bytes(received), whole=False)
            return False
        self.note(f"read {digest}")
        self.counts["gets answered"] += 1
        self.never_wrong.read(digest, bytes(received))
        return True

    async def delete(self, node: SimNode, digest: Digest, patience_seconds: float) -> None:
        """Delete a blob as a client."""
        self.durable.release(digest)
        try:
            await node.delete(digest, patience_seconds=patience_seconds)
        except (TierceError, GaveUp) as error:
            self._failed(f"delete {digest} by {node.setup.node_id}", error)
            return
        self.note(f"deleted {digest}")
        self.counts["deletes acknowledged"] += 1
        self._deleted[digest] = None

    def _failed(self, what: str, error: Exception) -> None:
        kind = type(error).__name__
        self.note(f"{what} failed: {kind} {error}")
        self.counts[f"{what.partition(' ')[0]}s failed: {kind}"] += 1

    # Operators

    async def drain(self, node: SimNode, asked: SimNode) -> None:
        """Have a node emptied, by a command to another one, or to the same."""
        self.note(f"drain {node.setup.node_id} by {asked.setup.node_id}")
        try:
            await asked.drain(node.setup.node_id)
        except (TierceError, GaveUp) as error:
            self._failed("drain", error)

    async def forget_lost(self) -> list[str]:
        """Say of lost nodes that they won't come back; what it still has to wait for."""
        reasons = []
        for lost in self._lost:
            for node in self.running:
                if not node.is_running:  # it was stopped while another one was asked
                    continue
                if node.running.placement().view.find(lost) is None:
                    continue
                reasons.append(f"{node.setup.node_id} still knows {lost}")
                try:
                    await node.do(node.running.call("forget", {"node_id": lost}), 5.0)
                except (TierceError, GaveUp) as error:
                    self._failed("forget", error)
        return reasons

    # The end, and what must be true

    def note(self, event: str) -> None:
        """Write into the trace."""
        self.trace.note(event)

    def check(self) -> None:
        """Raise Violation for what must not be at any time."""
        self.durable.check(self.disks)
        found = [failure for node in self.nodes.values() if (failure := node.failure())]
        if found + self.network.defects:
            raise Violation("; ".join(found + self.network.defects))

    @property
    def truth(self) -> View:
        """The cluster as it should be known: all its nodes, and all of them well."""
        members = [
            Member(
                name,
                state=State.ALIVE,
                private=node.address,
                zone=node.setup.zone,
                weight=node.setup.weight,
                draining=node.is_draining,
                replication=self.replication,
            )
            for name, node in self.nodes.items()
        ]
        return View.of(members[0].node_id, members)

    async def form(self) -> None:
        """Wait until all know each other."""
        await self._wait_for(lambda: self._reasons(blobs=False), FORMING_SECONDS)

    async def calm(self) -> None:
        """End every fault: all nodes run, on good disks and a good network, and scrub at once."""
        self.note("calm")
        self.network.mend()
        for node in list(self.nodes.values()):
            disk = node.disk
            disk.is_full = False
            disk.write_errors = disk.read_errors = 0.0
            disk.write_seconds = 0.004
            node.resume()
            await node.stopped()
            if not node.is_running:
                await self.start(node)
        scrubs = [
            process.spawn(node.running.scrub.scrub_once())
            for node in self.nodes.values()
            if (process := node.process) is not None
        ]
        await asyncio.gather(*scrubs)

    async def settle(self, limit_seconds: float) -> None:
        """Wait until the cluster has converged, and see that it stays so, and keeps quiet."""
        await self._wait_for(self.forget_lost, limit_seconds)
        await self._wait_for(self._drained_leave, limit_seconds)
        await self._wait_for(self._reasons, limit_seconds)
        loop = asyncio.get_running_loop()
        began = int(loop.time()) + 1
        while loop.time() < began + QUIET_SECONDS:
            await asyncio.sleep(POLL_SECONDS)
            self.check()
        if reasons := self._reasons():
            raise Violation("converged, but did not stay so: " + "; ".join(reasons[:8]))
        Bounded(messages=GOSSIP_MESSAGES_PER_SECOND, bytes=GOSSIP_BYTES_PER_SECOND).check(
            self.network.sent, ["/gossip"], began, began + QUIET_SECONDS
        )

    async def read_everything(self) -> None:
        """Every acknowledged blob can be read, through any node."""
        nodes = list(self.nodes.values())
        for number, digest in enumerate(self.durable.acknowledged):
            node = nodes[number % len(nodes)]
            if not await self.get(node, digest, 60.0):
                raise Violation(f"{digest} can't be read through {node.setup.node_id} at the end")

    def count_returned(self) -> None:
        """Count the deleted blobs that are there again, though nobody put them."""
        held = {digest for blobs in self.disks.values() for digest in blobs}
        self.counts["deleted blobs that returned"] += sum(each in held for each in self._deleted)

    async def _drained_leave(self) -> list[str]:
        waiting = []
        for node in [each for each in self.nodes.values() if each.is_draining]:
            if node.running.healer.is_drained and not node.disk.blobs:
                await self.leave(node)
            else:
                waiting.append(f"{node.setup.node_id} holds {len(node.disk.blobs)} blobs")
        return waiting

    def _reasons(self, *, blobs: bool = True) -> list[str]:
        views = {name: node.running.placement().view for name, node in self.nodes.items()}
        return Converged(self.truth).reasons(views, self.disks if blobs else {})

    async def _wait_for(
        self,
        reasons: "Callable[[], list[str]] | Callable[[], Coroutine[None, None, list[str]]]",
        limit_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_seconds
        while True:
            self.check()
            found = reasons()
            left = found if isinstance(found, list) else await found
            if not left:
                return
            if loop.time() >= deadline:
                more = f" (and {len(left) - 12} more)" if len(left) > 12 else ""
                raise Violation(f"after {limit_seconds:g} s: " + "; ".join(left[:12]) + more)
            await asyncio.sleep(POLL_SECONDS)
