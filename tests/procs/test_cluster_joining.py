"""Who may join a cluster, who may not, and what is said about it."""

import subprocess
from pathlib import Path

import pytest

from tierce.node.runtime import FATAL_CODE
from tierce.testing.calls import call, metric
from tierce.testing.cluster_processes import ClusterNode, ClusterProcesses, free_port
from tierce.testing.processes import NodeProcess, wait_for

pytestmark = pytest.mark.procs


def test_of_two_nodes_with_one_id_the_later_one_stops_and_says_why(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 2, replication=2) as cluster:
        first, other = cluster.nodes
        copy = cluster.make()
        copy.data.mkdir()
        (copy.data / "node.toml").write_bytes((first.data / "node.toml").read_bytes())
        copy.launch()
        assert copy.wait() == FATAL_CODE
        assert f"another node with the id {first.node_id} runs at" in copy.log
        assert "its own node_id, then start it again" in copy.log
        assert cluster.entry(first, other)["private"] == first.settings["private"]
        assert cluster.entry(first, other)["state"] == "alive"
        cluster.fill(10)
        cluster.check_reads()


def test_a_node_with_another_secret_never_joins_and_both_sides_say_so(tmp_path: Path) -> None:
    private = f"127.0.0.1:{free_port()}"
    with (
        ClusterNode(
            tmp_path / "ours", private=private, environment={"TIERCE_CLUSTER_SECRET": "a" * 32}
        ) as ours,
        ClusterNode(
            tmp_path / "theirs", join=[private], environment={"TIERCE_CLUSTER_SECRET": "b" * 32}
        ) as theirs,
        ClusterNode(tmp_path / "nobody", join=[private]) as nobody,
    ):
        ours.start()
        theirs.launch()
        nobody.launch()
        for node in (theirs, nobody):
            node.wait_ready()
            wait_for(lambda each=node: "refuses this node's signature" in each.log, "the log")  # type: ignore[misc]
            assert "Set the same TIERCE_CLUSTER_SECRET" in node.log
        wait_for(
            lambda: metric(ours.address, "tierce_refused_requests_total", reason="wrong") >= 4,
            "refusals to be counted",
        )
        for node in (ours, theirs, nobody):
            (only,) = call(node.address, "GET", "/v1/cluster").json["nodes"]
            assert only["node_id"] == node.node_id


def test_a_node_goes_on_trying_until_the_address_it_joins_appears(tmp_path: Path) -> None:
    private = f"127.0.0.1:{free_port()}"
    with (
        ClusterNode(tmp_path / "first", join=[private]) as first,
        ClusterNode(tmp_path / "second", private=private) as second,
    ):
        first.start()
        assert len(call(first.address, "GET", "/v1/cluster").json["nodes"]) == 1
        second.start()
        for node in (first, second):
            wait_for(
                lambda each=node: len(call(each.address, "GET", "/v1/cluster").json["nodes"]) == 2,  # type: ignore[misc]
                "both to know each other",
                seconds=60,
            )
        assert f"joined the node {second.node_id} at {private}" in first.log


def test_a_node_beyond_loopback_without_a_secret_is_refused_at_its_start(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "data", private="0.0.0.0:0", advertise="192.0.2.1:7071")
    done = subprocess.run(node.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "can be reached from other machines, and no cluster secret is set" in done.stderr
    assert "TIERCE_CLUSTER_SECRET" in done.stderr
    assert not node.data.exists()
