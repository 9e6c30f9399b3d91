"""A simulated cluster works as a real one does, and its observers keep within what is promised."""

from asyncio import sleep as pass_time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.testing.checkers import Violation
from tierce.testing.sim_cluster import SimCluster
from tierce.testing.sim_node import Setup, SimNode
from tierce.testing.sim_process import run

DATA = b"some bytes"
BLOB = Digest.of(DATA)
LARGE = bytes(range(256)) * 200


def simulated(
    tmp_path: Path, size: int, replication: int, story: Callable[[SimCluster], Awaitable[None]]
) -> None:
    """Run a story with a cluster that has formed."""

    async def main() -> None:
        cluster = SimCluster(1, replication, tmp_path)
        for _ in range(size):
            await cluster.add(Setup(cluster.new_name(), replication=replication))
        await cluster.form()
        await story(cluster)

    run(main())


def holding(cluster: SimCluster, digest: Digest = BLOB) -> list[SimNode]:
    return [node for node in cluster.nodes.values() if digest in node.disk.blobs]


@pytest.mark.parametrize("data", [b"", DATA, LARGE])
def test_what_one_node_takes_all_nodes_give_back(tmp_path: Path, data: bytes) -> None:
    async def story(cluster: SimCluster) -> None:
        nodes = list(cluster.nodes.values())
        digest = await cluster.put(nodes[0], data, "sha256", 60)
        assert digest is not None
        assert len(holding(cluster, digest)) == 2
        for node in nodes:
            assert await cluster.get(node, digest, 60)

    simulated(tmp_path, 4, 2, story)


def test_a_node_that_is_killed_answers_no_more_and_comes_back(tmp_path: Path) -> None:
    async def story(cluster: SimCluster) -> None:
        first, second = cluster.nodes.values()
        cluster.crash(first)
        assert not first.is_running
        assert await cluster.put(first, DATA, "blake3", 60) is None
        await pass_time(20)
        assert second.running.placement().view.members[0].state.name == "DOWN"
        await cluster.start(first)
        await cluster.form()

    simulated(tmp_path, 2, 1, story)


def test_a_client_of_a_paused_node_gives_up(tmp_path: Path) -> None:
    async def story(cluster: SimCluster) -> None:
        (node,) = cluster.nodes.values()
        node.pause()
        assert await cluster.put(node, DATA, "blake3", 5) is None
        assert cluster.counts == {"puts failed: GaveUp": 1}
        node.resume()
        assert await cluster.put(node, DATA, "blake3", 5) == BLOB

    simulated(tmp_path, 1, 1, story)


def test_the_last_copy_that_is_promised_is_not_destroyed(tmp_path: Path) -> None:
    async def story(cluster: SimCluster) -> None:
        await cluster.put(next(iter(cluster.nodes.values())), DATA, "blake3", 60)
        one, other = holding(cluster)
        assert cluster.rot(one, BLOB)
        assert not cluster.rot(other, BLOB)
        cluster.crash(other)
        assert not cluster.wipe(other)
        assert not cluster.lose(other)

    simulated(tmp_path, 2, 2, story)


def test_a_lost_node_is_forgotten_and_its_copies_are_made_again(tmp_path: Path) -> None:
    async def story(cluster: SimCluster) -> None:
        await cluster.put(cluster.nodes["node1"], DATA, "blake3", 60)
        lost = holding(cluster)[0]
        cluster.crash(lost, power=True)
        assert cluster.lose(lost)
        await cluster.settle(600)
        assert len(cluster.nodes) == 3
        assert len(holding(cluster)) == 2

    simulated(tmp_path, 4, 2, story)


def test_a_drained_node_leaves_empty(tmp_path: Path) -> None:
    async def story(cluster: SimCluster) -> None:
        await cluster.put(cluster.nodes["node1"], DATA, "blake3", 60)
        drained = holding(cluster)[0]
        await cluster.drain(drained, cluster.nodes["node1"])
        await cluster.settle(600)
        assert drained not in cluster.nodes.values()
        assert len(holding(cluster)) == 2

    simulated(tmp_path, 4, 2, story)


def test_a_cluster_that_can_not_converge_is_found_out(tmp_path: Path) -> None:
    async def story(cluster: SimCluster) -> None:
        cluster.network.cut("node1", "node2")
        cluster.network.cut("node2", "node1")
        with pytest.raises(Violation, match="knows"):
            await cluster.settle(100)

    simulated(tmp_path, 2, 1, story)
