"""A node whose blobs are in a bucket, with several workers: some are killed, and some put the same."""

import contextlib
import http.client
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.blobs.cloud_names import digest_of
from tierce.blobs.cloud_parts import is_part
from tierce.core.digest import Digest
from tierce.testing.blob_contract import body
from tierce.testing.calls import call, connect, exchange, get, listing, metric, put, status
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.in_thread import held_in_thread
from tierce.testing.processes import PATIENCE_SECONDS, NodeProcess, wait_for
from tierce.testing.rclone import BUCKET, KEYS, RcloneServer, serve_s3, serve_webdav

pytestmark = pytest.mark.procs

CONNECTIONS = 8
SAME_BLOBS = 200


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with serve_s3(tmp_path_factory.mktemp("store") / "s3") as server:
        yield server


@pytest.fixture(scope="module")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with serve_webdav(tmp_path_factory.mktemp("store") / "webdav", is_cached=True) as server:
        yield server


def url_of(server: RcloneServer, service: str, prefix: str) -> str:
    place = BUCKET if service == "s3" else ""
    return f"{service}://{place}/{prefix}?endpoint={server.endpoint}"


def objects(server: RcloneServer, prefix: str) -> set[str]:
    """The paths of the objects below ``blobs/``."""
    root = server.directory / prefix
    return {
        each.relative_to(root).as_posix() for each in (root / "blobs").rglob("*") if each.is_file()
    }


class Writers:
    """Clients that put blobs without end, and go on with another one when a put fails."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(4)]
        self.acknowledged: dict[Digest, bytes] = {}

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        generator = random.Random(seed)
        while not self._ending.is_set():
            data = generator.randbytes(int(2_000_000 ** generator.random()))
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                self.acknowledged[put(self._node.address, data)] = data

    def wait_for_more(self, count: int) -> None:
        enough = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= enough, "some puts")


@pytest.mark.parametrize("service", ["s3", "webdav"])
def test_nothing_acknowledged_is_lost_when_workers_are_killed(
    request: pytest.FixtureRequest, tmp_path: Path, service: str
) -> None:
    server: RcloneServer = request.getfixturevalue(service)
    store = url_of(server, service, "kills")
    with NodeProcess(
        tmp_path / "data", environment=KEYS, store=store, node_id="one", workers=2
    ) as node:
        node.start()
        with Writers(node) as writers:
            for role in ("worker-1", "worker-2"):
                writers.wait_for_more(20)
                node.roles()[role].kill()
            writers.wait_for_more(20)
            node.kill()
        node.start()
        found = listing(node.address)
        assert found.keys() >= writers.acknowledged.keys()
        for digest, data in writers.acknowledged.items():
            assert get(node.address, digest).body == data

        def is_clear() -> bool:
            """Each object is a blob's, but for parts of uploads that were broken off."""
            whole = {each for each in objects(server, "kills") if not is_part(each, "tierce")}
            return {digest_of(each, "tierce") for each in whole} == listing(node.address).keys()

        wait_for(is_clear, "objects of uploads that were broken off to go")
        node.stop()


def test_the_same_blobs_may_be_put_by_many_at_once(webdav: RcloneServer, tmp_path: Path) -> None:
    """WebDAV answers 423 Locked to those who write to the same place at the same time."""
    bodies = [body(500 + seed, seed) for seed in range(SAME_BLOBS)]
    answers: list[int] = []
    together = threading.Barrier(CONNECTIONS)

    with NodeProcess(
        tmp_path / "data", store=url_of(webdav, "webdav", "same"), node_id="one", workers=2
    ) as node:
        node.start()

        def put_all() -> None:
            with contextlib.closing(connect(node.address)) as connection:
                for data in bodies:
                    path = f"/v1/blobs/{Digest.of(data)}"
                    together.wait(PATIENCE_SECONDS)
                    answers.append(exchange(connection, "PUT", path, data).status)

        threads = [threading.Thread(target=put_all) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == CONNECTIONS * SAME_BLOBS
        assert answers.count(201) == SAME_BLOBS
        assert set(answers) == {200, 201}
        # Each is two requests; most were spared, as another put was sending the same.
        written = metric(node.address, "tierce_store_requests_total", kind="write")
        assert 2 * SAME_BLOBS <= written < len(answers)
        digests = {Digest.of(data) for data in bodies}
        assert listing(node.address).keys() == digests
        assert {digest_of(each, "tierce") for each in objects(webdav, "same")} == digests
        node.stop()


def test_a_node_starts_without_its_service_and_is_well_when_that_returns(
    s3: RcloneServer, tmp_path: Path
) -> None:
    proxy = FaultProxy(s3.port)
    data = body(1000)
    with held_in_thread(proxy.running):
        store = f"s3://{BUCKET}/down?endpoint={proxy.endpoint}"
        with NodeProcess(
            tmp_path / "data", environment=KEYS, store=store, node_id="one", workers=1
        ) as node:
            node.start()
            digest = put(node.address, data)
            proxy.harm(Mode.REFUSE)
            reply = call(node.address, "PUT", f"/v1/blobs/{Digest.of(b'other')}", b"other")
            assert reply.status == 503
            assert "the store failed" in str(reply.json), reply
            node.stop()
            node.start()
            assert "the store can't be used now" in node.log
            proxy.harm(Mode.NONE)
            assert get(node.address, digest).body == data
            put(node.address, b"other")
            assert status(node.address)["agent"]["store"]["problem"] == ""
            node.stop()
