"""The network between real nodes is cut: each node has a network of its own, on one bridge.

Packets are lost without a word, as behind a broken switch: the sender's table of neighbours is given
a hardware address that nobody has. Clients reach all nodes all the time.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.testing.calls import call, get, listing
from tierce.testing.cluster_processes import ClusterNode, ClusterProcesses
from tierce.testing.processes import wait_for

pytestmark = pytest.mark.procs

NOBODY = "02:00:00:00:00:99"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """A bridge with a network namespace for each of ``count`` nodes. Removed on exit."""

    def __init__(self, count: int) -> None:
        self._name = f"tct{secrets.token_hex(3)}"
        self._net = f"10.213.{secrets.randbelow(254)}"
        self._undo = ExitStack()
        try:
            _ip("link", "add", self._name, "type", "bridge")
            self._undo.callback(_ip, "link", "del", self._name)
            _ip("address", "add", f"{self._net}.254/24", "dev", self._name)
            _ip("link", "set", self._name, "up")
            for number in range(1, count + 1):
                self._add(number)
        except BaseException:
            self.close()
            raise

    def _add(self, number: int) -> None:
        space = self.space(number)
        outside = f"{self._name}{number}"
        _ip("netns", "add", space)
        self._undo.callback(_ip, "netns", "del", space)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", outside, "master", self._name, "up")
        _ip("-n", space, "address", "add", f"{self.host(number)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")

    def space(self, number: int) -> str:
        return f"{self._name}-{number}"

    def host(self, number: int) -> str:
        return f"{self._net}.{number}"

    def cut(self, sender: int, receiver: int) -> None:
        """Lose everything on its way from one node to another."""
        _ip(
            "-n", self.space(sender), "neighbour", "replace", self.host(receiver),
            "lladdr", NOBODY, "dev", "eth0", "nud", "permanent",
        )  # fmt: skip

    def mend(self, sender: int, receiver: int) -> None:
        _ip("-n", self.space(sender), "neighbour", "del", self.host(receiver), "dev", "eth0")

    def close(self) -> None:
        self._undo.close()


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    try:
        made = Network(3)
    except FileNotFoundError:
        pytest.skip("needs the command ip, of iproute2")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"can't make network namespaces here: {error.stderr.strip()}")
    yield made
    made.close()


class PartedCluster(ClusterProcesses):
    """Nodes in namespaces of their own, numbered from 1."""

    def __init__(self, root: Path, network: Network, count: int, **settings: object) -> None:
        self._network = network
        super().__init__(root, count, **settings)

    def make_node(self, data: Path, settings: dict[str, object]) -> ClusterNode:
        number = len(self.nodes) + 1
        host = self._network.host(number)
        settings |= {
            "private": f"{host}:7071",
            "listen": [f"native={host}:7070"],
            "anonymous_rights": "read+write",
        }
        return ClusterNode(
            data,
            wrapper=["ip", "netns", "exec", self._network.space(number)],
            environment={"TIERCE_CLUSTER_SECRET": "a secret of thirty-two characters"},
            **settings,  # type: ignore[arg-type]
        )


def test_a_node_cut_off_acknowledges_nothing_alone_and_heals_when_the_network_is_whole(
    tmp_path: Path, network: Network
) -> None:
    pairs = [(1, 3), (3, 1), (2, 3), (3, 2)]
    with PartedCluster(
        tmp_path, network, 3, replication=2, max_replication=3, down_grace_seconds=300
    ) as cluster:
        *others, lonely = cluster.nodes
        with cluster.writing(others):
            cluster.wait_acknowledged(60)
            for pair in pairs:
                network.cut(*pair)
            with cluster.reading(others):
                cluster.wait_acknowledged(30)
                cluster.wait_state(lonely, "down", seen_by=others)
                for other in others:
                    cluster.wait_state(other, "down", seen_by=[lonely])
                cluster.wait_acknowledged(30)

            reply = cluster.ledger.put(lonely.address, b"of which nobody else can have a copy")
            assert reply.status == 503
            assert "2 copies are asked for, and 1 nodes take new blobs" in reply.json["detail"]
            here = listing(lonely.address)
            elsewhere = [each for each in cluster.ledger.acknowledged if each not in here]
            assert get(lonely.address, elsewhere[0]).status == 503  # not 404: it can't know
            for digest in list(here)[:20]:
                assert Digest.of(get(lonely.address, digest).body) == digest
        for pair in pairs:
            network.mend(*pair)
        cluster.wait_known()
        cluster.check_reads()
        cluster.check_converged()


def test_a_node_that_hears_and_is_not_heard_keeps_nobody_waiting(
    tmp_path: Path, network: Network
) -> None:
    with PartedCluster(
        tmp_path, network, 3, replication=2, max_replication=3, down_grace_seconds=300
    ) as cluster:
        *others, mute = cluster.nodes
        cluster.fill(40)
        network.cut(3, 1)
        network.cut(3, 2)
        with cluster.writing(others), cluster.reading(others):
            cluster.wait_acknowledged(20)
            cluster.wait_state(mute, "down", seen_by=others)
        network.mend(3, 1)
        network.mend(3, 2)
        cluster.wait_known()
        cluster.check_reads()
        cluster.check_converged()
        assert call(mute.address, "GET", "/v1/health/ready").status == 200
        wait_for(lambda: not mute.spools(), "unfinished copies to be removed")
