"""A node whose blobs are in a bucket: killed, restarted, without its data directory, beside a disk."""

import asyncio
import functools
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import opendal
import pytest
from tests.procs.test_cask_command import CaskProcess

from tierce.blobs import catalogue
from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud_names import path_of
from tierce.blobs.environment import Environment, WriteBatch
from tierce.core.digest import Digest
from tierce.testing.blob_contract import body
from tierce.testing.calls import call, get, listing, metric, put, status
from tierce.testing.cluster_processes import ClusterNode, free_port
from tierce.testing.processes import NodeProcess, wait_for
from tierce.testing.rclone import ACCESS_KEY, BUCKET, KEYS, SECRET_KEY, RcloneServer, serve_s3

pytestmark = pytest.mark.procs

BODIES = [b"", body(1000, seed=1), body(3_000_000, seed=2), body(9_000_000, seed=3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with serve_s3(tmp_path_factory.mktemp("store") / "s3") as server:
        yield server


def node_on(
    server: RcloneServer, data: Path, prefix: str, node_id: str, workers: int = 1
) -> NodeProcess:
    store = f"s3://{BUCKET}/{prefix}?endpoint={server.endpoint}"
    return NodeProcess(data, environment=KEYS, store=store, node_id=node_id, workers=workers)


def bucket_of(server: RcloneServer) -> opendal.Operator:
    """The bucket behind the nodes' backs, but through the server, which remembers what it has."""
    return opendal.Operator(
        "s3",
        bucket=BUCKET,
        region="us-east-1",
        endpoint=server.endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
    )


def empty(server: RcloneServer, prefix: str) -> None:
    """Delete all objects below a prefix."""
    bucket = bucket_of(server)
    for entry in list(bucket.list(f"{prefix}/", recursive=True)):
        bucket.delete(entry.path)


def has(acknowledged: dict[Digest, bytes], count: int) -> bool:
    """Whether so many puts were acknowledged."""
    return len(acknowledged) >= count


def objects(server: RcloneServer, prefix: str) -> set[str]:
    """The names of the blobs' objects in the bucket."""
    return {
        each.name for each in (server.directory / prefix / "blobs").rglob("*") if each.is_file()
    }


def cached(data: Path) -> list[Path]:
    """The files of the read cache."""
    shelves = [each for each in (data / "cache").iterdir() if each.is_dir()]
    found = [each for shelf in shelves for each in shelf.rglob("*")]
    return [each for each in found if each.is_file() and each.name not in ("lock", "incoming")]


def cached_bytes(node: NodeProcess) -> int:
    """What the node says that its read cache takes."""
    found: int = status(node.address)["agent"]["store"]["cache"]["bytes"]
    return found


def test_what_was_put_outlives_kills_and_the_data_directory(
    server: RcloneServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with node_on(server, data, "kept", node_id="one", workers=2) as node:
        node.start()
        digests = [put(node.address, each) for each in BODIES]
        assert objects(server, "kept") == {each.hex for each in digests}
        assert not any((data / "files").rglob("*"))
        for digest, expected in zip(digests, BODIES, strict=True):
            assert get(node.address, digest).body == expected
        pieces = 5  # none of the empty blob, and three of the largest
        wait_for(lambda: len(cached(data)) >= pieces, "what was read to be cached")
        node.kill()
        node.start()
        for digest, expected in zip(digests, BODIES, strict=True):
            assert get(node.address, digest).body == expected
        assert metric(node.address, "tierce_store_cache_hits_total") >= pieces
        assert len(cached(data)) == pieces  # in one place each, for both workers
        wait_for(lambda: cached_bytes(node) >= 12_000_000, "all processes to tell of their shelves")
        told = status(node.address)["agent"]["store"]
        assert told["circuit"] == "closed"
        assert ACCESS_KEY not in str(told)
        node.stop()
        shutil.rmtree(data)
        node.start()
        assert listing(node.address) == {
            digest: len(each) for digest, each in zip(digests, BODIES, strict=True)
        }
        for digest, expected in zip(digests, BODIES, strict=True):
            assert get(node.address, digest, "0-99").body == expected[:100] or not expected
            assert get(node.address, digest).body == expected
        assert call(node.address, "DELETE", f"/v1/blobs/{digests[1]}").status == 204
        wait_for(lambda: digests[1].hex not in objects(server, "kept"), "the object to go")
        assert get(node.address, digests[1]).status == 404


def test_another_node_does_not_take_the_bucket(server: RcloneServer, tmp_path: Path) -> None:
    with node_on(server, tmp_path / "one", "owned", node_id="one") as one:
        one.start()
        one.stop()
    with node_on(server, tmp_path / "two", "owned", node_id="two") as two:
        two.launch()
        assert two.wait() == 2
        assert "belongs to the node one" in two.log
        assert "--node-id one" in two.log
        assert "Traceback" not in two.log


@pytest.mark.parametrize("service", ["dropbox", "gdrive"])
def test_without_a_token_it_is_said_how_to_get_one(tmp_path: Path, service: str) -> None:
    with NodeProcess(tmp_path / "data", store=f"{service}:///blobs", workers=1) as node:
        node.launch()
        assert node.wait() == 2
        assert f"{service}: there is no token" in node.log
        assert f"Run `tierce auth {service} --data" in node.log


def test_nothing_acknowledged_is_lost_by_kills_while_clients_write(
    server: RcloneServer, tmp_path: Path
) -> None:
    acknowledged: dict[Digest, bytes] = {}
    with node_on(server, tmp_path / "data", "kills", node_id="one") as node:
        for number in range(3):
            node.start()

            def write(seed: str) -> None:
                generator = random.Random(seed)
                while True:
                    data = generator.randbytes(int(2_000_000 ** generator.random()))
                    try:
                        acknowledged[put(node.address, data)] = data
                    except (OSError, AssertionError, EOFError):
                        return

            threads = [
                threading.Thread(target=write, args=(f"{number}-{each}",)) for each in range(4)
            ]
            enough = len(acknowledged) + 30
            for thread in threads:
                thread.start()
            wait_for(functools.partial(has, acknowledged, enough), "some puts")
            node.kill()
            for thread in threads:
                thread.join()
        node.start()
        found = listing(node.address)
        assert found.keys() >= acknowledged.keys()
        for digest, data in acknowledged.items():
            assert get(node.address, digest).body == data
        wait_for(
            lambda: objects(server, "kills") == {each.hex for each in listing(node.address)},
            "objects of uploads that were broken off to go",
        )
        node.stop()


@pytest.fixture(scope="module")
def ring(
    server: RcloneServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ClusterNode, ClusterNode]]:
    """A node with a disk and one with a bucket, which keep the same blobs."""
    tmp_path = tmp_path_factory.mktemp("ring")
    environment = {**KEYS, "TIERCE_CLUSTER_SECRET": "not-a-real-secret"}
    common = {
        "replication": 2,
        "down_grace_seconds": 1,
        "private": f"127.0.0.1:{free_port()}",
        "heal_bytes_per_second": 0,
    }
    disk = ClusterNode(tmp_path / "disk", environment=environment, node_id="disk", **common)  # type: ignore[arg-type]
    common["private"] = f"127.0.0.1:{free_port()}"
    cloud = ClusterNode(
        tmp_path / "cloud",
        environment=environment,
        node_id="cloud",
        store=f"s3://{BUCKET}/ring?endpoint={server.endpoint}",
        join=[disk.settings["private"]],
        **common,  # type: ignore[arg-type]
    )
    with disk, cloud:
        disk.start()
        cloud.start()
        wait_for(
            lambda: all(members(each) == 2 for each in (disk, cloud)),
            "the nodes to find each other",
        )
        yield disk, cloud


def test_a_disk_and_a_bucket_in_one_ring_each_outlive_the_other(
    server: RcloneServer, ring: tuple[ClusterNode, ClusterNode]
) -> None:
    disk, cloud = ring
    digests = {put(ring[number % 2].address, data): data for number, data in enumerate(BODIES)}
    wait_for(
        lambda: objects(server, "ring") == {each.hex for each in digests},
        "copies in the bucket",
    )
    wait_for(lambda: listing(disk.address).keys() == digests.keys(), "copies on the disk")
    for lost, left in ((disk, cloud), (cloud, disk)):
        lost.kill()
        for digest, data in digests.items():
            assert get(left.address, digest).body == data
        shutil.rmtree(lost.data)
        if lost is cloud:
            empty(server, "ring")
        lost.start()
        wait_for(lambda lost=lost: len(listing(lost.address)) == len(digests), "copies again")  # type: ignore[misc]
    for digest, data in digests.items():
        assert get(cloud.address, digest).body == data


def test_a_comparison_finds_what_was_changed_behind_the_nodes_back(
    server: RcloneServer, ring: tuple[ClusterNode, ClusterNode]
) -> None:
    disk, cloud = ring
    digest = put(disk.address, b"will be deleted")
    path = path_of(digest, "tierce")
    wait_for(lambda: digest in listing(cloud.address), "the copy in the bucket")
    cloud.stop()
    age(cloud.data)
    bucket = bucket_of(server)
    bucket.delete(f"ring/{path}")
    unknown = Digest.of(b"came by itself")
    bucket.write(f"ring/{path_of(unknown, 'tierce')}", b"came by itself")
    cloud.start()
    assert call(cloud.address, "POST", "/v1/store/compare").status == 202

    def compared() -> dict[str, int]:
        store: dict[str, Any] = status(cloud.address)["agent"]["store"]
        return dict(store["compared"]) if store["comparisons"] else {}

    found = wait_for(compared, "the comparison")
    assert (found["missing"], found["adopted"]) == (1, 1)
    assert unknown in listing(cloud.address)
    assert get(disk.address, unknown).body == b"came by itself"
    wait_for(lambda: digest.hex in objects(server, "ring"), "the missing object to come back")
    assert get(cloud.address, digest).body == b"will be deleted"
    assert call(disk.address, "POST", "/v1/store/compare").status == 409


def age(data: Path) -> None:
    """Have the rows of a stopped node's catalogue say that its objects were put two hours ago."""

    async def change() -> None:
        environment = Environment(data / "lmdb", databases=CLOUD_DATABASES)

        def rewrite(batch: WriteBatch) -> None:
            for digest, _ in found:
                row = catalogue.row_in(batch, digest)
                assert row is not None
                older = row._replace(put=row.put - 2 * 3600 * 1000)
                catalogue.put_in(batch, digest, older, None, None)

        found = catalogue.listed(environment, None, 1000)
        assert found
        await environment.write(rewrite)
        await environment.close()

    asyncio.run(change())


def members(node: NodeProcess) -> int:
    """How many nodes are up, in the eyes of one."""
    found = (status(node.address)["agent"] or {}).get("members", [])
    return sum(each["state"] == "alive" for each in found)


def test_the_bucket_of_a_cask_node_is_served_as_it_is(tmp_path: Path) -> None:
    with serve_s3(tmp_path / "s3") as server:
        digest = Digest.of(BODIES[2], "sha1")
        (server.directory / str(digest)).write_bytes(BODIES[2])
        cask = {
            "CASK_BACKEND": "s3",
            "CASK_S3_BUCKET": BUCKET,
            "CASK_S3_ENDPOINT": server.endpoint,
            "CASK_S3_REGION": "us-east-1",
            "CASK_S3_ACCESS_KEY": ACCESS_KEY,
            "CASK_S3_SECRET_KEY": SECRET_KEY,
        }
        with CaskProcess(tmp_path / "data", **cask) as node:
            node.start()
            assert call(node.address, "GET", f"/file/{digest}/").body == BODIES[2]
            assert SECRET_KEY not in node.log
            node.stop()
