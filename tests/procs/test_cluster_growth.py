"""A cluster gets a node, loses one in order, and has too few or only some that take new blobs."""

import random
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import MIB
from tierce.testing.calls import get, listing, status
from tierce.testing.cluster_processes import ClusterProcesses
from tierce.testing.processes import wait_for

pytestmark = pytest.mark.procs


def test_a_node_added_during_uploads_gets_its_share_and_surplus_copies_go(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        with cluster.writing():
            cluster.wait_acknowledged(100)
            added = cluster.make()
            added.start()
            cluster.wait_known()
            cluster.wait_acknowledged(60)
        cluster.check_reads()
        cluster.check_converged()
        total = len(cluster.holders())
        for node in cluster.nodes:
            assert total / 2 < len(listing(node.address)) < total
        trimmed = [
            status(node.address)["agent"]["healing"]["trimmed_blobs"] for node in cluster.nodes
        ]
        assert sum(trimmed) >= 20
        cluster.check_reads()


def test_a_drained_node_is_emptied_and_leaves_when_it_stops(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 4) as cluster:
        leaving, *others = cluster.nodes
        cluster.fill(100)
        with cluster.writing(others, clients=1), cluster.reading(others):
            said = cluster.order("drain", leaving.node_id, "--yes")
            assert "is drained" in said
            assert listing(leaving.address) == {}
            assert cluster.entry(leaving, others[0])["drained"]
        leaving.stop()
        for node in others:
            wait_for(lambda each=node: not cluster.entry(leaving, each), "the node to be struck")  # type: ignore[misc]
        cluster.check_converged()
        cluster.check_reads()


def test_too_few_nodes_refuse_an_upload_and_nothing_of_it_can_be_seen(tmp_path: Path) -> None:
    contents = [random.Random(size).randbytes(size) for size in (4000, 2 * MIB)]
    with ClusterProcesses(tmp_path, 2) as cluster:
        for data in contents:
            for node in cluster.nodes:
                reply = cluster.ledger.put(node.address, data)
                assert reply.status == 503
                assert reply.headers["retry-after"]
                assert "3 copies are asked for, and 2 nodes take new blobs" in reply.json["detail"]
                assert "tierce cluster status" in reply.json["hint"]
        for node in cluster.nodes:
            assert listing(node.address) == {}
            assert node.spools() == []
            for data in contents:
                assert get(node.address, Digest.of(data)).status == 404
        third = cluster.make()
        third.start()
        cluster.wait_known()
        for data in contents:
            assert cluster.ledger.put(third.address, data).status == 201
        assert {len(nodes) for nodes in cluster.holders().values()} == {3}
        cluster.check_reads()


def test_a_read_only_node_serves_and_is_healed_from_and_takes_no_new_blobs(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, replication=2, down_grace_seconds=300) as cluster:
        keeper, lost, _ = cluster.nodes
        cluster.fill(60)
        kept = listing(keeper.address)
        assert kept
        keeper.stop()
        keeper.settings["read_only"] = True
        cluster.start()
        for node in cluster.nodes:
            wait_for(
                lambda each=node: not cluster.entry(keeper, each)["writable"],  # type: ignore[misc]
                "the node to be known as read-only",
            )
        cluster.fill(40, "more")
        assert listing(keeper.address) == kept
        cluster.check_reads()

        lost.stop()
        lost.empty()
        cluster.wait_below_target()
        lost.start()
        cluster.check_converged()
        assert listing(keeper.address) == kept
        assert status(keeper.address)["agent"]["healing"]["pushed_blobs"] > 0
        cluster.check_reads()
