"""A cluster of real node processes on this machine.

What a cluster promises is checked here from outside, by HTTP only: nothing acknowledged is lost, no
wrong byte is served, every blob comes to exactly its copies, and what the cluster says of itself is
true. What breaks it is up to the tests.
"""

import contextlib
import http.client
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tierce.core.digest import Digest
from tierce.testing.calls import call, connect, exchange, listing, status
from tierce.testing.cluster_clients import Clients, Ledger, blob_bytes
from tierce.testing.processes import PATIENCE_SECONDS, Address, Ended, NodeProcess, wait_for

HEALING_SECONDS = 75.0

_ADDRESS = re.compile(r"^tierce: (\w+)=([\d.]+:\d+)$", re.MULTILINE)
_NODE_ID = re.compile(r"^tierce: node (\S+) is ready$", re.MULTILINE)
# Below the ports that the system gives to outgoing connections: a node that is down keeps its port.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of loopback that nobody uses, nor will by chance."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class ClusterNode(NodeProcess):
    """A node that is to be one of a cluster. ``addresses`` has that of the private door too."""

    node_id = ""

    def __enter__(self) -> "ClusterNode":
        return self

    def start(self) -> "ClusterNode":
        self.launch()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Wait until every door answers. Raises Ended if the node does not come up."""

        def ready() -> bool:
            if self.exit_code() is not None:
                raise Ended(f"the node ended with {self.exit_code()}:\n{self.log[-4000:]}")
            said = self.stdout.read_text()
            found = {door: Address(where) for door, where in _ADDRESS.findall(said)}
            if "private" not in found:  # it is named last
                return False
            self.addresses = found
            self.node_id = _NODE_ID.findall(said)[0]
            return True

        wait_for(ready, "the node to be ready")

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the node."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def empty(self) -> None:
        """Remove all blobs from the disk of a node that does not run; it stays the same node."""
        for name in ("lmdb", "files", "tmp"):
            shutil.rmtree(self.data / name)

    def kill(self) -> None:
        if self._supervisor is not None:
            super().kill()


class ClusterProcesses:
    """Nodes as processes, all of them told of each other. Use it as a context manager.

    Keyword arguments are settings of every node.
    """

    def __init__(self, root: Path, count: int, **settings: object) -> None:
        self._root = root
        self._settings = {
            "replication": 3,
            "down_grace_seconds": 1,
            "heal_bytes_per_second": 0,
            **settings,
        }
        self.nodes: list[ClusterNode] = []
        self.ledger = Ledger()
        for _ in range(count):
            self.make()

    def __enter__(self) -> "ClusterProcesses":
        try:
            self.start()
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill_all()

    # Nodes

    def make(self, **settings: object) -> ClusterNode:
        """One more node, that is not started yet."""
        node = self.make_node(
            self._root / f"node{len(self.nodes)}",
            {"private": f"127.0.0.1:{free_port()}", **self._settings, **settings},
        )
        self.nodes.append(node)
        addresses = [str(each.settings["private"]) for each in self.nodes]
        for each, own in zip(self.nodes, addresses, strict=True):
            each.settings["join"] = [address for address in addresses if address != own]
        return node

    def make_node(self, data: Path, settings: dict[str, object]) -> ClusterNode:
        """A node with these settings, as :meth:`make` needs it."""
        return ClusterNode(data, **settings)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start all that don't run, at once, and wait until each knows all."""
        starting = [node for node in self.nodes if not node.is_running]
        for node in starting:
            node.launch()
        for node in starting:
            node.wait_ready()
        self.wait_known()

    @property
    def running(self) -> list[ClusterNode]:
        """Those that run."""
        return [node for node in self.nodes if node.is_running]

    def wait_known(self, *, up: Sequence[ClusterNode] | None = None) -> None:
        """Wait until every running node (or each of ``up``) takes exactly these to be alive."""
        up = self.running if up is None else up
        expected = {node.node_id for node in up}

        def known() -> bool:
            return all(
                {
                    each["node_id"]
                    for each in (status(node.address)["agent"] or {"members": []})["members"]
                    if each["state"] == "alive"
                }
                == expected
                for node in up
            )

        wait_for(known, "every node to know who is up", pause=0.1)

    def _kill_all(self) -> None:
        for node in self.nodes:
            node.kill()

    # What the cluster says, and what is so

    def overview(self, node: ClusterNode | None = None) -> dict[str, Any]:
        """The account of the cluster that a node gives, by default the first one that runs."""
        reply = call((node or self.running[0]).address, "GET", "/v1/cluster")
        assert reply.status == 200, reply
        answer: dict[str, Any] = reply.json
        return answer

    def entry(self, node: ClusterNode, seen_by: ClusterNode | None = None) -> dict[str, Any]:
        """What an overview says of one node; empty if it is no member."""
        nodes = self.overview(seen_by)["nodes"]
        return next((each for each in nodes if each["node_id"] == node.node_id), {})

    def holders(self, among: Sequence[ClusterNode] = ()) -> dict[Digest, list[ClusterNode]]:
        """Where each blob is, by the lists of these nodes, or of all that run."""
        found: dict[Digest, list[ClusterNode]] = {}
        for node in among or self.running:
            for digest in listing(node.address):
                found.setdefault(digest, []).append(node)
        return found

    def check_copies(self) -> None:
        """Wait until each blob has its copies and no more.

        Nothing acknowledged may be missing then, and nothing be there that nobody sent.
        """
        _wait_until_right(self._wrong_copies)
        held = self.holders()
        assert self.ledger.acknowledged.keys() <= held.keys() <= self.ledger.attempted.keys()

    def check_converged(self) -> None:
        """The same, and every node gives a true account of it.

        Nodes look at what was written since the last change of the cluster only now and then, so
        this takes long after uploads.
        """
        _wait_until_right(lambda: self._wrong_copies() or self._wrong_accounts())
        self.check_copies()

    def _wrong_copies(self) -> str:
        fewest = int(str(self._settings["replication"]))
        most = int(str(self._settings.get("max_replication", fewest)))
        counts = Counter(map(len, self.holders().values()))
        wrong = set(counts) - set(range(fewest, most + 1))
        return f"numbers of copies: {dict(counts)}" if wrong else ""

    def _wrong_accounts(self) -> str:
        blobs = len(self.holders())
        expected = {
            "settled": True, "blobs": blobs, "at_target": blobs,
            "below_target": 0, "over_target": 0,
        }  # fmt: skip
        for node in self.running:
            told = self.overview(node)
            numbers = {name: told[name] for name in expected}
            if numbers != expected:
                return f"{node.data.name} says {numbers}, expected {expected}"
        return ""

    def wait_state(
        self, node: ClusterNode, state: str, *, seen_by: Sequence[ClusterNode] = ()
    ) -> None:
        """Wait until all other running nodes (or those of ``seen_by``) see a node in this state."""
        for other in seen_by or self.running:
            wait_for(
                lambda each=other: self.entry(node, each)["state"] == state,  # type: ignore[misc]
                f"{node.data.name} to be {state}",
                pause=0.1,
            )

    def order(self, *words: str) -> str:
        """Run ``tierce cluster`` against the last running node; returns what it prints."""
        command = [sys.executable, "-m", "tierce", "cluster", *words]
        command += ["--url", f"http://{self.running[-1].address}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=HEALING_SECONDS
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_below_target(self, up: Sequence[ClusterNode] = ()) -> int:
        """Wait until these nodes, by default all that run, say truly how many blobs lack copies.

        Returns that number, which is not 0. Only copies on these nodes count.
        """
        fewest = int(str(self._settings["replication"]))

        def lacking() -> int:
            held = self.holders(up)
            count = sum(len(nodes) < fewest for nodes in held.values())
            told = {self.overview(node)["below_target"] for node in up or self.running}
            return count if told == {count} else 0

        what = "the blobs with too few copies to be counted"
        return wait_for(lacking, what, seconds=HEALING_SECONDS, pause=0.1)

    # Clients

    def check_reads(self) -> None:
        """Read everything that was acknowledged from every running node."""

        def read(node: ClusterNode) -> None:
            blobs = list(self.ledger.acknowledged.items())
            random.Random(node.node_id).shuffle(blobs)  # noqa: S311
            with contextlib.closing(connect(node.address)) as connection:
                for digest, data in blobs:
                    reply = exchange(connection, "GET", f"/v1/blobs/{digest}")
                    assert reply.status == 200, (node.data.name, digest, reply.status, reply.body)
                    assert reply.complete, (node.data.name, digest)
                    assert reply.body == data, (node.data.name, digest)

        nodes = self.running
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(read, nodes))

    def fill(self, count: int, seed: str = "fill") -> None:
        """Store so many blobs through all nodes in turn, some of them large; each acknowledged."""
        nodes, chance = self.running, random.Random(seed)  # noqa: S311

        def work(number: int, node: ClusterNode) -> None:
            part = contents[number :: len(nodes)]
            with contextlib.closing(connect(node.address)) as connection:
                for data in part:
                    reply = self.ledger.put_on(connection, data)
                    assert reply.status == 201, reply

        contents = [chance.randbytes(blob_bytes(chance, number)) for number in range(count)]
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(work, range(len(nodes)), nodes))

    def writing(self, nodes: Sequence[ClusterNode] = (), clients: int = 3) -> Clients:
        """Clients that store new blobs without end, each through all of these nodes in turn.

        They put up with nodes that are away and with refusals, which the ledger notes. Without
        ``nodes``, they go to all of the cluster, those that are made later too.
        """

        def work(number: int, over: threading.Event) -> None:
            chance = random.Random(f"{number} {id(over)}")  # noqa: S311
            for turn in range(1 << 30):
                among = nodes or self.nodes
                node = among[(number + turn) % len(among)]
                if over.wait(0.005):
                    return
                if node.is_running and node.addresses:
                    data = chance.randbytes(blob_bytes(chance, turn))
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        self.ledger.put(node.address, data)

        return Clients(clients, work)

    def reading(self, nodes: Sequence[ClusterNode], clients: int = 1) -> Clients:
        """Clients that read what was acknowledged, through these nodes, and find nothing wrong."""

        def work(number: int, over: threading.Event) -> None:
            chance = random.Random(number)  # noqa: S311
            while not over.wait(0.005):
                blobs = list(self.ledger.acknowledged.items())
                if not blobs:
                    continue
                digest, data = chance.choice(blobs)
                node = chance.choice(nodes)
                reply = call(node.address, "GET", f"/v1/blobs/{digest}")
                assert (reply.status, reply.complete) == (200, True), (node.data.name, reply)
                assert reply.body == data, (node.data.name, digest)

        return Clients(clients, work)

    def wait_acknowledged(self, more: int) -> None:
        """Wait until clients got so many more blobs acknowledged."""
        goal = len(self.ledger.acknowledged) + more
        wait_for(
            lambda: len(self.ledger.acknowledged) >= goal,
            f"{more} more uploads to be acknowledged; refusals: {self.ledger.refused[-1:]}",
            seconds=2 * PATIENCE_SECONDS,
        )


def _wait_until_right(complaint: Callable[[], str]) -> None:
    """Wait until there is nothing to complain of; the last complaint is what the failure says."""
    deadline = time.monotonic() + HEALING_SECONDS
    while said := complaint():
        assert time.monotonic() < deadline, f"after {HEALING_SECONDS:g} s: {said}"
        time.sleep(0.1)
