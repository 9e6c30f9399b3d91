"""When one process of a node dies, the others serve on, and it comes back; none is left alone."""

import asyncio
import contextlib
import http.client
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tierce.core.digest import Digest
from tierce.node.runtime import Stop
from tierce.node.workers import Supervisor
from tierce.testing.calls import Reply, Wire, call, connect, exchange, get, metric, put, status
from tierce.testing.processes import PATIENCE_SECONDS, Ended, NodeProcess, wait_for

pytestmark = pytest.mark.procs

MIB = 1 << 20


def _patiently(node: NodeProcess, method: str, path: str) -> tuple[Reply, int]:
    """Call on a new connection, again if it was on its way to a process that died."""
    for failures in range(50):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return call(node.address, method, path), failures
    raise AssertionError("nobody answers")


def _restarts(node: NodeProcess, role: str) -> float:
    return metric(node.address, "tierce_worker_restarts_total", role=role)


def _uploading(node: NodeProcess, data: bytes) -> list[tuple[Wire, str]]:
    """Begin uploads until each of two workers has one; each with the file that it fills."""
    uploads: list[tuple[Wire, str]] = []
    while len({name.partition("-")[0] for _, name in uploads}) < 2:
        before = set(node.spools())
        wire = Wire(node.address)
        wire.request("POST", "/v1/blobs", Content_Length=len(data))
        wire.send(data[:MIB])
        (name,) = wait_for(lambda before=before: set(node.spools()) - before, "an upload's file")  # type: ignore[misc]
        uploads.append((wire, name))
    return uploads


def test_a_killed_worker_is_replaced_while_the_other_serves_on(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(2 * MIB)
    with NodeProcess(tmp_path / "data", workers=2) as node, contextlib.ExitStack() as held:
        node.start()
        digest = put(node.address, data)
        uploads = _uploading(node, data)
        for wire, _ in uploads:
            held.enter_context(wire)
        victim = node.roles()["worker-1"]
        victim.kill()

        failures = []

        def replaced() -> bool:
            reply, failed = _patiently(node, "GET", f"/v1/blobs/{digest}")
            assert reply.body == data
            failures.append(failed)
            with contextlib.suppress(OSError, http.client.HTTPException):
                return _restarts(node, "worker") == 1
            return False

        wait_for(replaced, "the restart to be counted")
        assert sum(failures) < 20

        def swept() -> bool:
            return not any(name.startswith(f"{victim.pid}-") for name in node.spools())

        wait_for(swept, "the dead worker's unfinished uploads to be swept")
        for wire, name in uploads:
            if name.startswith(f"{victim.pid}-"):
                continue
            wire.send(data[MIB:])
            assert wire.reply().status == 201
        wait_for(lambda: _both_listen(node), "the worker to come back")
        node.stop()


def _both_listen(node: NodeProcess) -> bool:
    roles = node.roles()
    workers = [roles.get("worker-1"), roles.get("worker-2")]
    return all(worker is not None and _listens(worker) for worker in workers)


def _listens(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(each.status == psutil.CONN_LISTEN for each in process.net_connections())
    return False


def test_doors_serve_on_without_the_agent_and_it_comes_back(tmp_path: Path) -> None:
    data = bytes(100)
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        digest = put(node.address, data)
        assert status(node.address)["agent"] is not None
        assert metric(node.address, "tierce_agent_up") == 1
        agent = node.roles()["agent"]
        # One that hangs is as good as one that is gone; and this holds it still for the test.
        agent.suspend()
        assert status(node.address)["agent"] is None
        assert metric(node.address, "tierce_agent_up") == 0
        assert get(node.address, digest).body == data
        put(node.address, b"another")
        agent.kill()
        wait_for(lambda: status(node.address)["agent"] is not None, "the agent to come back")
        assert _restarts(node, "agent") == 1
        assert _restarts(node, "worker") == 0
        node.stop()


def test_when_the_supervisor_is_killed_its_children_end_and_a_new_node_can_start(
    tmp_path: Path,
) -> None:
    data = random.Random(2).randbytes(2 * MIB)
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        digest = put(node.address, data)
        assert len(node.family()) == 4
        with Wire(node.address) as idle, Wire(node.address) as stuck:
            idle.request("GET", "/v1/health/live")
            assert idle.reply().status == 200
            stuck.request("POST", "/v1/blobs", Content_Length=10 * MIB)
            stuck.send(data)
            wait_for(node.spools, "the upload to be under way")
            psutil.Process(node.pid).kill()
            wait_for(lambda: not node.family(), "the children to end", seconds=15)
        node.start()
        assert node.spools() == []
        assert get(node.address, digest).body == data
        node.stop()


def test_a_worker_that_can_not_start_ends_the_node_with_its_error(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        node.stop()
        (node.data / "lmdb" / "data.mdb").write_bytes(b"no index" * 2000)
        with pytest.raises(Ended):
            node.start()
        assert node.wait() != 0
        assert "before it was ready" in node.log
        assert "index is damaged" in node.log
        assert "tierce doctor" in node.log
        assert "Traceback" not in node.log


def test_a_blob_of_a_dead_worker_is_seen_by_all(tmp_path: Path) -> None:
    """What one worker acknowledged before it died is served by the others at once."""
    generator = random.Random(3)
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        digests = [put(node.address, generator.randbytes(size)) for size in [0, 4096, 65536, MIB]]
        node.roles()["worker-2"].kill()
        for digest in digests:
            reply, _ = _patiently(node, "GET", f"/v1/blobs/{digest}")
            assert reply.status == 200
            assert Digest.of(reply.body) == digest
        node.stop()


def test_workers_killed_while_they_write_lose_nothing_and_stop_nobody(tmp_path: Path) -> None:
    """One of them may die holding the lock of the index, in the middle of a commit."""
    over = threading.Event()
    acknowledged: list[Digest] = []

    def write(node: NodeProcess, generator: random.Random) -> None:
        while not over.is_set():
            with (
                contextlib.closing(connect(node.address)) as connection,
                contextlib.suppress(OSError, http.client.HTTPException),
            ):
                while not over.is_set():
                    data = generator.randbytes(generator.choice([10, 4096, 60_000, 100_000]))
                    digest = Digest.of(data)
                    reply = exchange(connection, "PUT", f"/v1/blobs/{digest}", data)
                    assert reply.status == 201, reply
                    acknowledged.append(digest)

    generator = random.Random(4)
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        with ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write, node, random.Random(number)) for number in range(8)]
            try:
                for number in range(4):
                    wait_for(lambda: _both_listen(node), "both workers to be there")
                    seen = len(acknowledged)
                    wait_for(lambda seen=seen: len(acknowledged) > seen + 50, "some writes")  # type: ignore[misc]
                    time.sleep(generator.uniform(0, 0.05))
                    victim = node.roles()[f"worker-{1 + number % 2}"]
                    victim.kill()
                    victim.wait(PATIENCE_SECONDS)
            finally:
                over.set()
            for writer in writers:
                writer.result()
        assert len(acknowledged) > 200
        wait_for(lambda: _both_listen(node), "both workers to be there")
        with contextlib.closing(connect(node.address)) as connection:
            for digest in acknowledged:
                reply = exchange(connection, "GET", f"/v1/blobs/{digest}")
                assert reply.status == 200, reply
                assert Digest.of(reply.body) == digest
        wait_for(lambda: not node.spools(), "the unfinished uploads to be swept")
        node.stop()


async def test_a_stop_that_comes_while_a_process_is_being_started_reaches_it(
    tmp_path: Path,
) -> None:
    stop = Stop()

    def command(role: str) -> list[str]:
        if (tmp_path / "started").exists():
            stop.now("the test says so")
            return ["sleep", "600"]
        (tmp_path / "started").touch()
        return ["echo", "ready"]

    with (tmp_path / "lock").open("w") as lock:
        supervisor = Supervisor(
            ["worker-1"],
            command=command,
            handover=b"\n",
            lock_fd=lock.fileno(),
            drain_timeout_seconds=600,
            on_death=lambda pid: None,
        )
        await asyncio.wait_for(supervisor.run(stop, lambda: None), PATIENCE_SECONDS)
    assert stop.reason == "the test says so"
