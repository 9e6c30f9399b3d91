"""Records on three nodes of which one is killed, loses its disk, or gets an old one: all converge."""

import contextlib
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException

import pytest

from tierce.testing.calls import Reply, call
from tierce.testing.cluster_clients import Clients
from tierce.testing.cluster_processes import ClusterNode
from tierce.testing.objstore_processes import (
    Attempts,
    NearCaches,
    file_meta,
    get_file,
    new_id,
    put_file,
    records,
)
from tierce.testing.processes import wait_for

pytestmark = pytest.mark.procs

CLIENTS = 3
BUCKET = "names"


class Writers:
    """Clients that put and delete objects through all nodes, each its own, until they are stopped.

    ``wanted`` is what each object must be in the end: its content, or None if it is deleted.
    """

    def __init__(self, cluster: NearCaches) -> None:
        self._cluster = cluster
        self.wanted: dict[str, bytes | None] = {}
        self.done = 0

    def writing(self) -> Clients:
        return Clients(CLIENTS, self._work)

    def wait_done(self, more: int) -> None:
        goal = self.done + more
        wait_for(lambda: self.done >= goal, f"{more} more writes to be acknowledged")

    def _work(self, number: int, over: threading.Event) -> None:
        chance = random.Random(f"{number} {self.done}")
        while not over.wait(0.002):
            key = f"{number}/{chance.randrange(40)}"
            if self.wanted.get(key) is not None and chance.random() < 0.4:
                reply = self._try(chance, _delete, key)
                if reply is not None and reply.status == 204:
                    self.wanted[key] = None
                    self.done += 1
                    continue
            # Also after a delete of which nobody knows what became of it.
            data = f"{key} {chance.random()}".encode() * chance.choice([1, 100, 4000])
            while (reply := self._try(chance, _put, key, data)) is None or reply.status >= 300:
                over.wait(0.01)
            self.wanted[key] = data
            self.done += 1

    def _try(
        self, chance: random.Random, write: Callable[..., Reply], *arguments: str | bytes
    ) -> Reply | None:
        """The answer of some node to a write; None if none comes."""
        node = chance.choice([each for each in self._cluster.nodes if each.addresses])
        with contextlib.suppress(OSError, HTTPException):
            return write(node, *arguments)
        return None


def _path(key: str) -> str:
    return f"/v1/buckets/{BUCKET}/objects/{key}"


def _put(node: ClusterNode, key: str, data: bytes) -> Reply:
    return call(node.address, "PUT", _path(key), data)


def _delete(node: ClusterNode, key: str) -> Reply:
    return call(node.address, "DELETE", _path(key))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NearCaches]:
    with NearCaches(tmp_path_factory.mktemp("names"), 3, replication=2) as found:
        yield found


@pytest.fixture(scope="module")
def writers(cluster: NearCaches) -> Writers:
    return Writers(cluster)


def check_converged(cluster: NearCaches, writers: Writers) -> None:
    """Wait until all nodes know the same; then that must be what clients were promised."""

    def are_alike() -> bool:
        first, *others = (records(node) for node in cluster.nodes)
        return all(each == first for each in others)

    wait_for(are_alike, "all nodes to know the same records", pause=0.1)
    known = {key: each for (bucket, key), each in records(cluster.nodes[0]).items()
             if bucket == BUCKET}  # fmt: skip
    assert known.keys() == writers.wanted.keys()
    wrong = [key for key, data in writers.wanted.items() if known[key]["deleted"] != (data is None)]
    assert not wrong, f"deleted and should not be, or the other way round: {wrong}"
    for key, data in writers.wanted.items():
        for node in cluster.nodes:
            reply = call(node.address, "GET", _path(key))
            assert reply.status == (404 if data is None else 200), (node.data.name, key, reply)
            assert data is None or reply.body == data, (node.data.name, key)
    page = call(cluster.nodes[0].address, "GET", f"/v1/buckets/{BUCKET}/objects").json
    listed = [each["key"] for each in page["objects"]]
    assert listed == sorted(key for key, data in writers.wanted.items() if data is not None)


def test_a_node_that_was_killed_converges(cluster: NearCaches, writers: Writers) -> None:
    first, second, _ = cluster.nodes
    files = [new_id() for _ in range(9)]
    for number, key in enumerate(files):  # one of each node is deleted while the second one is down
        assert put_file(cluster.nodes[number % 3], key, key.encode(), 0).status == 200
    gone, kept = files[:3], files[3:]
    for key in gone:
        wait_for(lambda key=key: file_meta(first, key).status == 200, "the record")  # type: ignore[misc]
    with writers.writing():
        writers.wait_done(60)
        second.kill()
        with Attempts() as attempts:
            for key in gone:
                attempts.begin(call, first.addresses["objstore"], "POST", f"/api/v1/delete/{key}")
            assert [each and each.status for each in attempts.replies()] == [200, 200, 200]
        writers.wait_done(60)
        cluster.start()
        writers.wait_done(60)
    check_converged(cluster, writers)
    for node in cluster.nodes:
        for key in gone:
            reply = get_file(node, key)
            assert (reply.status, reply.headers.get("x-meta-deleted")) == (404, "true")
            assert file_meta(node, key).json["is_deleted"] is True
        for key in kept:
            assert get_file(node, key).body == key.encode()


@pytest.mark.long
def test_a_node_whose_disk_was_emptied_converges(cluster: NearCaches, writers: Writers) -> None:
    with writers.writing():
        writers.wait_done(60)
        cluster.nodes[2].kill()
        cluster.nodes[2].empty()
        writers.wait_done(30)
        cluster.start()
        writers.wait_done(60)
    check_converged(cluster, writers)


@pytest.mark.long
def test_a_node_with_an_old_copy_of_its_disk_converges(
    cluster: NearCaches, writers: Writers
) -> None:
    node = cluster.nodes[0]
    copy = node.data.with_name("copy")
    with writers.writing():
        writers.wait_done(30)
    check_converged(cluster, writers)
    node.stop()
    shutil.copytree(node.data, copy)
    cluster.start()
    with writers.writing():
        writers.wait_done(90)  # by that node too, which gives the same numbers again later
        node.kill()
        shutil.rmtree(node.data)
        copy.rename(node.data)
        writers.wait_done(30)
        cluster.start()
        writers.wait_done(60)
    check_converged(cluster, writers)
