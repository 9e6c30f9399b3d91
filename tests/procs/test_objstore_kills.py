"""SIGKILL of a node at each step of a put: nothing acknowledged is lost, nothing half is ever seen."""

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tierce.testing.calls import Wire, call
from tierce.testing.cluster_processes import ClusterNode
from tierce.testing.objstore_processes import (
    Attempts,
    Bucket,
    GateProxy,
    NearCaches,
    file_door,
    file_meta,
    gate_proxy,
    get_file,
    has_own_copy,
    new_id,
    put_file,
)
from tierce.testing.processes import wait_for
from tierce.testing.rclone import serve_s3

pytestmark = pytest.mark.procs

SMALL, LARGE = 2_000, 200_000


class Step(NamedTuple):
    """Where puts are held: at a gate, to requests or to their answers; and what is so by then.

    Of four puts at once, two of them of large files, ``held`` requests come to the gate at least:
    small copies go together, and so do records.
    """

    gate: str
    request: str
    held: int
    at_answer: bool
    is_in_bucket: bool
    is_known: bool


_COPY = "(POST /blobs/store|PUT /blobs/)"
STEPS = {
    "the upload begins": Step("s3", "PUT /bucket/", 4, False, False, False),
    "the upload was done": Step("s3", "PUT /bucket/", 4, True, True, False),
    "the copy begins": Step("peer", _COPY, 3, False, True, False),
    "the copy was made": Step("peer", _COPY, 3, True, True, False),
    "the record is told": Step("peer", "POST /names/push", 1, False, True, True),
    "the record was told": Step("peer", "POST /names/push", 1, True, True, True),
}


@dataclass
class Cluster:
    """Two nodes; the first one is killed. All of its requests to others pass a gate."""

    nodes: NearCaches
    s3: GateProxy
    bucket: Bucket
    acknowledged: dict[str, bytes] = field(default_factory=dict)

    @property
    def first(self) -> ClusterNode:
        return self.nodes.nodes[0]

    @property
    def second(self) -> ClusterNode:
        return self.nodes.nodes[1]

    @property
    def both(self) -> tuple[ClusterNode, ClusterNode]:
        return self.first, self.second

    def gate(self, step: Step) -> GateProxy:
        return self.s3 if step.gate == "s3" else self.nodes.gates[1]

    def put(self, size: int) -> str:
        """Put a new file of level 2, and see it acknowledged."""
        key = new_id()
        self.retry({key: content(key, size)})
        return key

    def retry(self, files: Mapping[str, bytes]) -> None:
        """Put files, and see them acknowledged and on both nodes."""
        for key, data in files.items():
            reply = put_file(self.first, key, data, 2)
            assert reply.status == 200, reply
            self.acknowledged[key] = data
            assert all(has_own_copy(node, key, data) for node in self.both)

    @contextmanager
    def held(self, step: Step, files: Mapping[str, bytes]) -> Iterator[Attempts]:
        """Begin to put files through the first node, and hold them all at a step."""
        with (
            Attempts() as attempts,
            self.gate(step).shut(step.request, at_answer=step.at_answer) as gate,
        ):
            for key, data in files.items():
                attempts.begin(put_file, self.first, key, data, 2)
            gate.wait_held(min(step.held, len(files)))
            for key, data in files.items():
                if step.is_in_bucket:
                    wait_for(lambda key=key: key in self.bucket.keys(), "the upload")  # type: ignore[misc]  # noqa: SIM118
                if step.is_known:
                    wait_there(self.first, key, data)
            assert attempts.are_open
            yield attempts

    def restart(self) -> None:
        """Start what does not run, and wait until the nodes know each other."""
        self.nodes.start()

    def check_acknowledged(self, keys: Iterable[str] = ()) -> None:
        """These files, by default all that were acknowledged, are on both nodes and in the bucket.

        The bucket has nothing beside what was acknowledged.
        """
        for key in keys or self.acknowledged:
            data = self.acknowledged[key]
            for node in self.both:
                wait_there(node, key, data)
            stored = self.bucket.get(key)
            assert stored.body == data
            assert int(stored.metadata["timestamp"]) == file_meta(self.first, key).json["timestamp"]
        assert self.bucket.keys() == sorted(self.acknowledged)

    def check_tidy(self) -> None:
        """No node has a spool left."""
        for node in self.both:
            wait_for(lambda node=node: not node.spools(), "no spools to be left")  # type: ignore[misc]


@contextmanager
def running(root: Path, workers: int) -> Iterator[Cluster]:
    """Two nodes; at the end, all that was ever acknowledged must be there."""
    with ExitStack() as stack:
        server = stack.enter_context(serve_s3(root / "s3"))
        s3 = stack.enter_context(gate_proxy(server.port))
        bucket = stack.enter_context(closing(Bucket(server.endpoint)))
        nodes = NearCaches(root, 2, upstreams=[s3.endpoint], gated=[1])
        nodes.nodes[0].settings["workers"] = workers
        found = Cluster(stack.enter_context(nodes), s3, bucket)
        yield found
        found.check_acknowledged()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("kills"), 1) as found:
        yield found


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The first node has two workers and an agent, each a process."""
    with running(tmp_path_factory.mktemp("processes"), 2) as found:
        yield found


def content(key: str, size: int) -> bytes:
    return (key.encode() * (size // len(key) + 1))[:size]


def whole_or_nothing(node: ClusterNode, key: str, data: bytes) -> bool:
    """Whether a file is there; with wrong or too few bytes, it must not be."""
    reply = get_file(node, key)
    assert reply.status in (200, 404, 503), reply
    if reply.status == 200:
        assert (reply.body, reply.complete) == (data, True)
    return reply.status == 200


def wait_there(node: ClusterNode, key: str, data: bytes) -> None:
    wait_for(lambda: has_own_copy(node, key, data), f"{key} to be on {node.data.name}")


@pytest.mark.parametrize("name", STEPS)
def test_a_node_is_killed_at_a_step_of_a_put(cluster: Cluster, name: str) -> None:
    step = STEPS[name]
    before = {key: cluster.acknowledged[key] for key in map(cluster.put, (SMALL, LARGE))}
    new = {key: content(key, size) for key, size in ((new_id(), SMALL), (new_id(), LARGE))}
    after = new | {key: data[::-1] for key, data in before.items()}
    with cluster.held(step, after) as attempts:
        for key, data in new.items():
            assert whole_or_nothing(cluster.first, key, data) == step.is_known
            assert (key in cluster.bucket.keys()) == step.is_in_bucket  # noqa: SIM118
        cluster.first.kill()
        assert attempts.replies() == [None] * len(after)
    for key, data in new.items():
        whole_or_nothing(cluster.second, key, data)
    cluster.restart()
    for node in cluster.both:
        for key, data in (after if step.is_known else before).items():
            wait_there(node, key, data)
        for key, data in new.items():
            assert whole_or_nothing(node, key, data) == step.is_known
    cluster.check_tidy()
    cluster.retry(after)
    cluster.check_acknowledged(after)
    cluster.check_tidy()


@pytest.mark.parametrize("victim", ["node", "worker"])
def test_a_kill_while_a_body_is_received_leaves_nothing(processes: Cluster, victim: str) -> None:
    cluster, key = processes, new_id()
    data = content(key, 4 * LARGE)
    headers: dict[str, str | int] = {"X-Meta-ID": key, "X-Meta-ConsistencyLevel": 2}
    headers["Content-Length"] = len(data)
    with Wire(file_door(cluster.first)) as wire:
        wire.request("POST", "/api/v1/put", **headers)
        wire.send(data[: 3 * LARGE])
        spool = wait_for(cluster.first.spools, "the spool")[0]
        if victim == "worker":
            psutil.Process(int(spool.partition("-")[0].partition(".")[0])).kill()
        else:
            cluster.first.kill()
        wait_for(wire.ended, "the connection to end")
    cluster.restart()
    cluster.check_tidy()
    for node in cluster.both:
        assert (get_file(node, key).status, file_meta(node, key).status) == (404, 404)
    cluster.retry({key: data})
    cluster.check_acknowledged([key])


def test_a_node_is_killed_when_it_has_answered(cluster: Cluster) -> None:
    keys = [cluster.put(SMALL), cluster.put(LARGE)]
    cluster.first.kill()
    for key in keys:  # the other node has all of it
        assert has_own_copy(cluster.second, key, cluster.acknowledged[key])
        assert cluster.bucket.get(key).body == cluster.acknowledged[key]
    cluster.restart()
    cluster.check_acknowledged(keys)


def test_a_node_is_killed_while_the_one_that_gets_the_copy_is_paused(cluster: Cluster) -> None:
    key = new_id()
    data = content(key, LARGE)
    with Attempts() as attempts:
        cluster.second.signal_all(signal.SIGSTOP)
        try:
            attempts.begin(put_file, cluster.first, key, data, 2)
            wait_for(lambda: key in cluster.bucket.keys(), "the upload")  # noqa: SIM118
            assert not whole_or_nothing(cluster.first, key, data)
            assert attempts.are_open
            cluster.first.kill()
        finally:
            cluster.second.signal_all(signal.SIGCONT)
        assert attempts.replies() == [None]
    cluster.restart()
    for node in cluster.both:
        assert file_meta(node, key).status == 404
    cluster.retry({key: data})
    cluster.check_acknowledged([key])
    cluster.check_tidy()


@pytest.mark.parametrize("name", ["the upload was done", "the copy was made"])
def test_a_worker_is_killed_in_the_midst_of_a_put(processes: Cluster, name: str) -> None:
    cluster, key = processes, new_id()
    data = content(key, LARGE)
    with cluster.held(STEPS[name], {key: data}) as attempts:
        for role, process in cluster.first.roles().items():
            if role.startswith("worker"):
                process.kill()
        assert attempts.replies() == [None]
    wait_for(lambda: _answers(cluster.first), "a new worker")
    cluster.check_tidy()
    assert not whole_or_nothing(cluster.first, key, data)
    cluster.retry({key: data})
    cluster.check_acknowledged([key])


def test_a_put_outlives_the_agent(processes: Cluster) -> None:
    check_outlived(processes, processes.first.roles()["agent"])


def test_a_put_outlives_the_other_node(processes: Cluster) -> None:
    check_outlived(processes, processes.second.family()[0])


def check_outlived(cluster: Cluster, process: psutil.Process) -> None:
    """A put succeeds, or claims nothing, when a process ends that is not the one it is served by."""
    key = new_id()
    data = content(key, LARGE)
    with Attempts() as attempts:
        with cluster.s3.shut("PUT /bucket/", at_answer=True) as gate:
            attempts.begin(put_file, cluster.first, key, data, 2)
            gate.wait_held()
            process.kill()
        (reply,) = attempts.replies()
    assert reply is not None
    assert reply.status in (200, 503)
    if reply.status == 503:
        assert not whole_or_nothing(cluster.first, key, data)
    cluster.restart()
    if reply.status == 503:
        cluster.retry({key: data})
    cluster.acknowledged[key] = data
    cluster.check_acknowledged([key])


def _answers(node: ClusterNode) -> bool:
    try:
        return call(file_door(node), "GET", "/api/v1/ping").status == 200
    except (OSError, HTTPException):
        return False
