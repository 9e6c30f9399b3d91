"""A near-cache whose upstream fails, is slow, or lies: nothing is claimed, and it recovers by itself."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tierce.testing.calls import Reply
from tierce.testing.cluster_processes import ClusterNode
from tierce.testing.fault_proxy import Mode
from tierce.testing.objstore_processes import (
    Attempts,
    Bucket,
    GateProxy,
    NearCaches,
    file_meta,
    gate_proxy,
    get_file,
    has_own_copy,
    new_id,
    put_file,
    waiting_uploads,
)
from tierce.testing.processes import wait_for
from tierce.testing.rclone import serve_s3

pytestmark = pytest.mark.procs

# Five attempts, with pauses of at most 0.2, 0.4, 0.8 and 1.6 seconds; and a busy machine.
BOUND_SECONDS = 15.0
DATA = bytes(number * 7 % 251 for number in range(200_000))


@dataclass(frozen=True)
class Cluster:
    """Nodes, each with a way of its own to the bucket."""

    nodes: list[ClusterNode]
    proxies: list[GateProxy]
    bucket: Bucket

    def count(self, method: str, key: str) -> int:
        """How many requests of a method for an object came from all nodes."""
        return sum(proxy.count(method, key) for proxy in self.proxies)

    def is_unknown(self, key: str) -> bool:
        """Whether no node claims to have a file."""
        return all(
            (get_file(node, key).status, file_meta(node, key).status) == (404, 404)
            for node in self.nodes
        )

    def wait_put(self, node: ClusterNode, key: str, data: bytes, level: int) -> None:
        """Put a file, as often as it takes."""
        wait_for(lambda: put_file(node, key, data, level).status == 200, "a put", pause=0.2)

    def wait_fetched(self, node: ClusterNode, key: str, data: bytes) -> None:
        """Fetch a file, as often as it takes."""
        wait_for(lambda: get_file(node, key, fetch=True).status == 200, "a fetch", pause=0.2)
        assert get_file(node, key).body == data


def started(stack: ExitStack, root: Path, count: int, mode: str = "through") -> Cluster:
    """Nodes that run until the stack is closed."""
    server = stack.enter_context(serve_s3(root / "s3"))
    bucket = stack.enter_context(closing(Bucket(server.endpoint)))
    proxies = [stack.enter_context(gate_proxy(server.port)) for _ in range(count)]
    upstreams = [proxy.endpoint for proxy in proxies]
    nodes = stack.enter_context(NearCaches(root, count, upstreams=upstreams, upstream_mode=mode))
    return Cluster(nodes.nodes, proxies, bucket)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield started(stack, tmp_path_factory.mktemp("upstream"), 3)


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """Three nodes whose upstream is well again, before the test and after it."""
    yield running
    for node, proxy in zip(running.nodes, running.proxies, strict=True):
        proxy.harm(Mode.NONE)
        running.wait_put(node, new_id(), b"well again", 1)


def is_unavailable(reply: Reply | None) -> bool:
    """Whether an answer is 503, in objstore's words, with a hint in a second line."""
    assert reply is not None
    assert reply.status == 503, reply
    first, second = reply.body.decode().split("\n")
    return first.startswith("error: ") and len(second) > 10 and "retry-after" in reply.headers


def test_an_upstream_that_fails_is_told_at_once_and_used_again_when_it_is_back(
    cluster: Cluster,
) -> None:
    one, two, three = cluster.nodes
    cached = {1: new_id(), 2: new_id()}
    for level, key in cached.items():
        assert put_file(one, key, DATA, level).status == 200
    wait_for(lambda: file_meta(two, cached[1]).status == 200, "the record")
    for proxy, mode in zip(
        cluster.proxies, [Mode.REFUSE, Mode.ERROR, Mode.LATE_ERROR], strict=True
    ):
        proxy.status = 500
        proxy.harm(mode)
    files = [(node, level, new_id()) for node in cluster.nodes for level in (1, 2)]
    missing = new_id()
    began = time.monotonic()
    with Attempts() as attempts:
        for node, level, key in files:
            attempts.begin(put_file, node, key, key.encode(), level)
        attempts.begin(get_file, two, missing, fetch=True)
        assert all(map(is_unavailable, attempts.replies()))
    assert time.monotonic() - began < BOUND_SECONDS
    assert all(cluster.is_unknown(key) for _, _, key in files)
    for node in cluster.nodes:  # stale while it is down
        for key in cached.values():
            assert get_file(node, key).body == DATA
        assert file_meta(node, missing).status == 404
    for proxy in cluster.proxies:
        proxy.harm(Mode.NONE)
    for node, level, key in files:
        cluster.wait_put(node, key, key.encode(), level)
        assert get_file(node, key).body == key.encode()
        assert cluster.bucket.get(key).body == key.encode()
    assert get_file(two, missing, fetch=True).status == 404
    assert all(has_own_copy(three, key, key.encode()) for _, level, key in files if level == 2)


CUTS = [(Mode.CUT, 0), (Mode.CUT, 100_000), (Mode.WRONG_LENGTH, 100_000)]


@pytest.mark.parametrize(("mode", "cut_bytes"), CUTS)
def test_a_fetch_that_is_cut_short_once_is_whole_in_the_end(
    cluster: Cluster, mode: Mode, cut_bytes: int
) -> None:
    for node in cluster.nodes:
        key = new_id()
        cluster.bucket.put(key, DATA)
        harmed = sum(proxy.harmed for proxy in cluster.proxies)
        for proxy in cluster.proxies:
            proxy.cut_bytes = cut_bytes
            proxy.harm(mode, only="GET", times=1)
        reply = get_file(node, key, fetch=True)
        assert sum(proxy.harmed for proxy in cluster.proxies) > harmed
        assert reply.status in (200, 503)
        if reply.status == 200:
            assert (reply.body, reply.complete) == (DATA, True)
        else:
            assert is_unavailable(reply)
            assert cluster.is_unknown(key)
            cluster.wait_fetched(node, key, DATA)


@pytest.mark.long
def test_a_fetch_that_is_always_cut_short_is_never_served(cluster: Cluster) -> None:
    keys = [new_id() for _ in cluster.nodes]
    for proxy in cluster.proxies:
        proxy.cut_bytes = 0
        proxy.harm(Mode.CUT, only="GET")
    began = time.monotonic()
    with Attempts() as attempts:
        for node, key in zip(cluster.nodes, keys, strict=True):
            cluster.bucket.put(key, DATA)
            attempts.begin(get_file, node, key, fetch=True)
        assert all(map(is_unavailable, attempts.replies()))
    assert time.monotonic() - began < BOUND_SECONDS
    assert all(map(cluster.is_unknown, keys))
    for proxy in cluster.proxies:
        proxy.harm(Mode.NONE)
    for key in keys:
        cluster.wait_fetched(cluster.nodes[0], key, DATA)


def test_content_that_is_not_what_was_put_is_never_served(cluster: Cluster) -> None:
    key, changed = new_id(), new_id()
    assert put_file(cluster.nodes[0], key, DATA, 1).status == 200
    metadata = cluster.bucket.get(key).metadata
    cluster.bucket.put(changed, DATA[:-1] + b"!", metadata | {"id": changed})
    for node in cluster.nodes:
        assert is_unavailable(get_file(node, changed, fetch=True))
    assert cluster.is_unknown(changed)
    cluster.bucket.put(changed, DATA, metadata | {"id": changed})
    cluster.wait_fetched(cluster.nodes[1], changed, DATA)


def test_a_hundred_misses_on_three_nodes_are_one_fetch(cluster: Cluster) -> None:
    key = new_id()
    cluster.bucket.put(key, DATA)
    with Attempts() as attempts:
        for number in range(100):
            attempts.begin(get_file, cluster.nodes[number % 3], key, fetch=True)
        for reply in attempts.replies():
            assert reply is not None
            assert (reply.status, reply.body) == (200, DATA)
    assert cluster.count("GET", key) == 1


def test_a_hundred_misses_of_nothing_are_all_not_found(cluster: Cluster) -> None:
    key = new_id()
    with Attempts() as attempts:
        for number in range(100):
            attempts.begin(get_file, cluster.nodes[number % 3], key, fetch=True)
        assert all(reply is not None and reply.status == 404 for reply in attempts.replies())
    assert cluster.count("GET", key) == 0


@pytest.mark.long
def test_a_slow_upstream_is_waited_for(cluster: Cluster) -> None:
    for proxy in cluster.proxies:
        proxy.bytes_per_second = 150_000
        proxy.harm(Mode.SLOW, only="GET")
    cluster.proxies[0].harm(Mode.STALL, only="PUT", times=1)
    slow, stalled = new_id(), new_id()
    cluster.bucket.put(slow, DATA)
    with Attempts() as attempts:
        attempts.begin(put_file, cluster.nodes[0], stalled, DATA, 2)
        attempts.begin(get_file, cluster.nodes[1], slow, fetch=True)
        stored, fetched = attempts.replies()
    assert stored is not None
    assert stored.status == 200, stored
    assert fetched is not None
    assert (fetched.status, fetched.body) == (200, DATA)
    assert all(has_own_copy(node, stalled, DATA) for node in cluster.nodes)
    assert cluster.bucket.get(stalled).body == DATA


# upstream_mode = behind


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        root = tmp_path_factory.mktemp("behind")
        yield started(stack, root, 2, mode="behind")


def put_queued(cluster: Cluster) -> dict[str, bytes]:
    """Put a file of each level with an upstream, small and large; all are acknowledged."""
    files = {}
    for level in (1, 2):
        for size in (1_000, len(DATA)):
            key = new_id()
            reply = put_file(cluster.nodes[0], key, DATA[:size], level)
            assert (reply.status, reply.headers.get("x-meta-upstream")) == (200, "queued")
            assert has_own_copy(cluster.nodes[0], key, DATA[:size])
            files[key] = DATA[:size]
    return files


@pytest.mark.parametrize("at_answer", [False, True])
def test_what_is_queued_reaches_the_upstream_after_a_kill(behind: Cluster, at_answer: bool) -> None:
    first, proxy = behind.nodes[0], behind.proxies[0]
    with proxy.shut("PUT /bucket/", at_answer=at_answer) as gate:
        files = put_queued(behind)
        gate.wait_held()
        assert bool(set(files) & set(behind.bucket.keys())) == at_answer
        first.kill()
    before = {key: behind.count("PUT", key) for key in files}
    there = set(files) & set(behind.bucket.keys())
    first.start()
    for key in files:
        wait_for(lambda key=key: key in behind.bucket.keys(), "the upload")  # type: ignore[misc]  # noqa: SIM118
    wait_for(lambda: waiting_uploads(first) == 0, "the queue to be empty")
    check_uploaded(behind, files)
    first.kill()
    first.start()
    wait_for(lambda: waiting_uploads(first) == 0, "the queue to be empty")
    check_uploaded(behind, files)
    # What the upstream had already is not sent again, even if nobody had been told that it has it.
    sent = {key: behind.count("PUT", key) - before[key] for key in files}
    assert sent == {key: 0 if key in there else 1 for key in files}


@pytest.mark.long
def test_a_queue_outlives_an_upstream_that_is_away(behind: Cluster) -> None:
    for proxy in behind.proxies:
        proxy.status = 503
        proxy.harm(Mode.ERROR)
    files = put_queued(behind)
    wait_for(lambda: behind.proxies[0].harmed >= 5, "uploads to be tried")
    assert not set(files) & set(behind.bucket.keys())
    for key, data in files.items():
        assert get_file(behind.nodes[1], key).body == data
    for proxy in behind.proxies:
        proxy.harm(Mode.NONE)
    for key in files:
        wait_for(lambda key=key: key in behind.bucket.keys(), "the upload")  # type: ignore[misc]  # noqa: SIM118
    check_uploaded(behind, files)


def check_uploaded(cluster: Cluster, files: dict[str, bytes]) -> None:
    """All files are in the bucket, each as it was put, and nothing of them waits any more."""
    marker = new_id()
    cluster.wait_put(cluster.nodes[0], marker, b"last in the queue", 1)
    wait_for(lambda: marker in cluster.bucket.keys(), "the end of the queue")  # noqa: SIM118
    for key, data in files.items():
        stored = cluster.bucket.get(key)
        assert stored.body == data
        timestamp = file_meta(cluster.nodes[0], key).json["timestamp"]
        assert int(stored.metadata["timestamp"]) == timestamp
        assert get_file(cluster.nodes[1], key).body == data
