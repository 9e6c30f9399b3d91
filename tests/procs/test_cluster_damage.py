"""Copies in a cluster go bad or are gone: none of it is served, and healing puts good ones there."""

import mmap
import os
import shutil
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import PACK_LIMIT_BYTES
from tierce.testing.calls import get, listing, metric
from tierce.testing.cluster_processes import ClusterNode, ClusterProcesses
from tierce.testing.processes import wait_for

pytestmark = pytest.mark.procs

# A scrub that sleeps through a test, and one that is soon done.
NEVER_SECONDS = 3600
AT_ONCE_SECONDS = 0.001


def _damage(node: ClusterNode, digest: Digest, data: bytes) -> None:
    """Change one bit of a blob's copy on a node that is stopped."""
    if len(data) > PACK_LIMIT_BYTES:
        name = digest.hex
        path = node.data / "files" / digest.algorithm / name[:2] / name[2:4] / name
        with path.open("r+b") as file:
            file.seek(len(data) // 2)
            (byte,) = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        return
    path = node.data / "lmdb" / "data.mdb"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        place = view.find(data[:64])
        assert place >= 0, "the blob is in the index"
        while place >= 0:
            view[place + 40] ^= 1
            place = view.find(data[:64], place + 64)
        view.flush()


def _quarantined(node: ClusterNode, digest: Digest) -> list[bytes]:
    places = (node.data / "quarantine").glob(f"{digest.algorithm}-{digest.hex}.*")
    return [place.read_bytes() for place in places]


def _damage_some(
    cluster: ClusterProcesses, nodes: list[ClusterNode], *, small: int, large: int
) -> dict[Digest, bytes]:
    """Stop nodes, flip a bit in their copies of some blobs, start them again; returns those blobs."""
    blobs = list(cluster.ledger.acknowledged.items())
    packed = [(digest, data) for digest, data in blobs if len(data) <= PACK_LIMIT_BYTES]
    filed = [(digest, data) for digest, data in blobs if len(data) > PACK_LIMIT_BYTES]
    chosen = dict(packed[:small] + filed[:large])
    assert len(chosen) == small + large
    for node in nodes:
        node.stop()
    for node in nodes:
        for digest, data in chosen.items():
            _damage(node, digest, data)
    cluster.start()
    return chosen


def _check_set_aside(nodes: list[ClusterNode], chosen: dict[Digest, bytes]) -> None:
    for node in nodes:
        assert metric(node.address, "tierce_verify_failures_total") == len(chosen)
        for digest, data in chosen.items():
            (bad,) = _quarantined(node, digest)
            assert not bad.startswith(data)


def test_a_bit_flipped_on_one_node_is_mended_by_reading(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, scrub_interval_seconds=NEVER_SECONDS) as cluster:
        cluster.fill(80)
        node = cluster.nodes[1]
        chosen = _damage_some(cluster, [node], small=6, large=2)
        for number, (digest, data) in enumerate(chosen.items()):
            reply = get(node.address, digest, f"10-{len(data)}" if number % 2 else "")
            assert reply.complete
            assert reply.body == data[10 * (number % 2) :]
        cluster.check_converged()
        _check_set_aside([node], chosen)
        for digest in chosen:
            assert digest in listing(node.address)
        cluster.check_reads()


def test_a_bit_flipped_on_two_of_three_nodes_is_found_and_mended_by_the_scrub(
    tmp_path: Path,
) -> None:
    with ClusterProcesses(
        tmp_path, 3, scrub_interval_seconds=AT_ONCE_SECONDS, scrub_bytes_per_second=1 << 30
    ) as cluster:
        cluster.fill(80)
        nodes = cluster.nodes[:2]
        chosen = _damage_some(cluster, nodes, small=6, large=2)

        def mended() -> bool:
            return all(_quarantined(node, digest) for node in nodes for digest in chosen) and all(
                listing(node.address).keys() >= chosen.keys() for node in nodes
            )

        wait_for(mended, "the scrub to find and heal what is bad", seconds=60, pause=0.1)
        cluster.check_converged()
        _check_set_aside(nodes, chosen)
        cluster.check_reads()


def test_a_node_whose_disk_was_emptied_is_filled_again(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, down_grace_seconds=300) as cluster:
        cluster.fill(100)
        node, *others = cluster.nodes
        with cluster.reading(others, clients=2):
            node.stop()
            node.empty()
            assert cluster.wait_below_target() == 100
            node.start()
            cluster.check_reads()
            cluster.check_converged()
        assert len(listing(node.address)) == 100


def test_a_node_on_a_new_disk_takes_the_place_of_the_forgotten_one(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, down_grace_seconds=300) as cluster:
        cluster.fill(60)
        node = cluster.nodes[0]
        lost_id = node.node_id
        node.stop()
        shutil.rmtree(node.data)
        assert cluster.wait_below_target() == 60
        assert not cluster.overview()["settled"]
        node.start()
        assert node.node_id != lost_id
        cluster.order("forget", lost_id)
        cluster.check_converged()
        for each in cluster.nodes:
            assert lost_id not in {one["node_id"] for one in cluster.overview(each)["nodes"]}
        cluster.check_reads()
