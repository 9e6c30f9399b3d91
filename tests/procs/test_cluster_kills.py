"""Nodes of a cluster are killed, frozen and started again while clients write and read."""

import random
import signal
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import MIB
from tierce.testing.calls import Wire, call, get, status
from tierce.testing.cluster_processes import ClusterNode, ClusterProcesses
from tierce.testing.processes import wait_for

pytestmark = pytest.mark.procs

LARGE_BYTES = 24 * MIB


def test_a_node_killed_during_uploads_loses_nothing_and_heals_when_it_is_back(
    tmp_path: Path,
) -> None:
    with ClusterProcesses(
        tmp_path, 3, replication=2, max_replication=3, down_grace_seconds=300
    ) as cluster:
        victim, *others = cluster.nodes
        with cluster.writing():
            cluster.wait_acknowledged(60)
            with cluster.reading(others):
                victim.kill()
                cluster.wait_acknowledged(60)
                cluster.wait_state(victim, "down")
                cluster.wait_acknowledged(60)
        cluster.check_reads()
        cluster.wait_below_target()
        victim.start()
        cluster.check_converged()
        cluster.check_reads()


def test_a_node_that_stays_away_is_replaced_by_the_others_after_the_grace_time(
    tmp_path: Path,
) -> None:
    with ClusterProcesses(tmp_path, 4) as cluster:
        victim = cluster.nodes[0]
        cluster.fill(100)
        victim.kill()
        cluster.wait_state(victim, "down")
        wait_for(lambda: not cluster.overview()["below_target"], "healing", seconds=75, pause=0.1)
        held = cluster.holders()
        assert held.keys() == cluster.ledger.acknowledged.keys()
        assert {len(nodes) for nodes in held.values()} == {3}
        told = cluster.overview()
        assert (told["blobs"], told["at_target"], told["settled"]) == (100, 100, False)
        cluster.check_reads()
        victim.start()
        cluster.check_converged()
        cluster.check_reads()


def test_a_node_frozen_during_uploads_and_continued_loses_nothing(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(MIB)
    digest = Digest.of(data)
    with ClusterProcesses(
        tmp_path, 3, replication=2, max_replication=3, down_grace_seconds=300
    ) as cluster:
        frozen, *others = cluster.nodes
        with Wire(frozen.address) as upload:
            with cluster.writing(others):
                cluster.wait_acknowledged(60)
                upload.request("PUT", f"/v1/blobs/{digest}", Content_Length=len(data))
                upload.send(data[: len(data) // 2])
                frozen.signal_all(signal.SIGSTOP)
                with cluster.reading(others):
                    cluster.wait_acknowledged(20)
                    cluster.wait_state(frozen, "down", seen_by=others)
                    cluster.wait_acknowledged(20)
            cluster.wait_below_target(others)
            frozen.signal_all(signal.SIGCONT)
            cluster.wait_known()
            cluster.check_reads()
            cluster.check_converged()
            upload.send(data[len(data) // 2 :])
            assert upload.reply().status == 201
        for node in cluster.nodes:
            assert get(node.address, digest).body == data
        assert "Traceback" not in frozen.log


def test_all_nodes_killed_at_once_during_uploads_have_all_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    with ClusterProcesses(tmp_path, 3) as cluster:
        with cluster.writing(clients=4):
            cluster.wait_acknowledged(150)
            for node in cluster.nodes:
                node.signal_all(signal.SIGKILL)
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        cluster.check_reads()
        cluster.check_converged()


def test_a_restart_in_order_within_the_grace_time_moves_no_data(tmp_path: Path) -> None:
    def pushed() -> list[int]:
        return [status(each.address)["agent"]["healing"]["pushed_blobs"] for each in others]

    with ClusterProcesses(tmp_path, 3, replication=2, down_grace_seconds=300) as cluster:
        leaving, *others = cluster.nodes
        cluster.fill(80)
        held, before = cluster.holders(), pushed()
        leaving.stop()
        cluster.wait_state(leaving, "down")
        assert cluster.wait_below_target() == sum(leaving in nodes for nodes in held.values())
        leaving.start()
        cluster.check_converged()
        assert pushed() == before
        assert status(leaving.address)["agent"]["healing"]["pushed_blobs"] == 0
        assert cluster.holders() == held


def test_a_node_whose_agent_was_killed_serves_on_and_gets_a_new_one(tmp_path: Path) -> None:
    def agent_answers(node: ClusterNode) -> bool:
        return call(node.address, "GET", "/v1/cluster").status == 200

    with ClusterProcesses(
        tmp_path, 3, replication=2, max_replication=3, down_grace_seconds=300
    ) as cluster:
        node = cluster.nodes[0]
        node.stop()
        node.settings["workers"] = 2
        cluster.start()
        wait_for(
            lambda: cluster.ledger.put(node.address, b"first").status == 201, "workers to know"
        )
        cluster.fill(60)
        workers = {role: process.pid for role, process in node.roles().items() if role != "agent"}
        agent = node.roles()["agent"]
        with cluster.writing(clients=2), cluster.reading([node]):
            agent.kill()
            wait_for(lambda: not agent.is_running() or not agent_answers(node), "the agent's end")
            cluster.check_reads()
            wait_for(lambda: agent_answers(node), "a new agent")
            cluster.wait_acknowledged(20)
        assert {role: process.pid for role, process in node.roles().items() if role != "agent"} == (
            workers
        )
        cluster.check_copies()
        cluster.check_reads()


def test_a_large_blob_read_through_another_node_survives_the_death_of_an_owner(
    tmp_path: Path,
) -> None:
    data = random.Random(1).randbytes(LARGE_BYTES)
    digest = Digest.of(data)
    with ClusterProcesses(tmp_path, 3, replication=2, down_grace_seconds=300) as cluster:
        assert cluster.ledger.put(cluster.nodes[0].address, data).status == 201
        owners = cluster.holders()[digest]
        (reader,) = (node for node in cluster.nodes if node not in owners)
        for victim in owners:
            with Wire(reader.address, buffer_bytes=MIB) as wire:
                wire.request("GET", f"/v1/blobs/{digest}")
                assert wire.head()[0] == 200
                victim.kill()
                assert wire.rest(LARGE_BYTES) == data
            victim.start()
            cluster.wait_known()

        with Wire(reader.address, buffer_bytes=MIB) as wire:
            wire.request("GET", f"/v1/blobs/{digest}")
            wire.head()
            for victim in owners:
                victim.signal_all(signal.SIGKILL)
            received = wire.rest(LARGE_BYTES)
            assert data.startswith(received)
        wait_for(lambda: not reader.spools(), "the unfinished copy to be removed")
        if len(received) < LARGE_BYTES:
            assert "could send" in reader.log
        assert get(reader.address, digest).status == 503
