"""Stopping in order: what is under way may finish, nothing new comes in, and it ends in time."""

import random
import signal
import socket
import time
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.testing.calls import Wire, call, connect, exchange, get, put
from tierce.testing.processes import Address, NodeProcess, wait_for

pytestmark = pytest.mark.procs

STEP = 64 << 10


def _refused(address: Address) -> bool:
    try:
        socket.create_connection((address.host, address.port), 1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_upload_under_way_finishes_and_new_connections_are_refused(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    data = random.Random(workers).randbytes(20 * STEP)
    digest = Digest.of(data)
    with NodeProcess(tmp_path / "data", workers=workers) as node:
        node.start()
        with Wire(node.address) as wire:
            wire.request("PUT", f"/v1/blobs/{digest}", Content_Length=len(data))
            refused = False
            for count, start in enumerate(range(0, len(data), STEP)):
                if count == 4:
                    wait_for(node.spools, "the upload to be under way")
                    node.signal(number)
                if count > 4:
                    refused = refused or _refused(node.address)
                wire.send(data[start : start + STEP])
                time.sleep(0.05)
            reply = wire.reply()
        assert reply.status == 201
        assert refused
        assert node.wait() == 0
        assert "Traceback" not in node.log
        assert node.spools() == []
        node.start()
        assert get(node.address, digest).body == data
        node.stop()


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_stuck_upload_is_cut_off_when_the_time_to_drain_is_up(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    with NodeProcess(tmp_path / "data", workers=workers, drain_timeout_seconds=0.5) as node:
        node.start()
        with Wire(node.address) as wire:
            wire.request("POST", "/v1/blobs", Content_Length=10 << 20)
            wire.send(bytes(1 << 20))
            wait_for(node.spools, "the upload to be under way")
            started = time.monotonic()
            node.signal(number)
            assert node.wait() == 0
            assert time.monotonic() - started < 5
            assert node.spools() == []
        assert "Traceback" not in node.log


def test_idle_connections_do_not_delay_the_end(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", workers=2, drain_timeout_seconds=60) as node:
        node.start()
        connections = [connect(node.address) for _ in range(20)]
        try:
            for connection in connections[:10]:
                assert exchange(connection, "GET", "/v1/health/live").status == 200
            for connection in connections[10:]:
                connection.connect()
            started = time.monotonic()
            node.stop()
            assert time.monotonic() - started < 20
        finally:
            for connection in connections:
                connection.close()


def test_a_download_under_way_finishes(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(16 << 20)
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        digest = put(node.address, data)
        with Wire(node.address) as wire:
            wire.request("GET", f"/v1/blobs/{digest}")
            assert wire.head()[0] == 200
            node.signal(signal.SIGTERM)
            wait_for(lambda: _refused(node.address), "new connections to be refused")
            received = wire.rest(len(data))
        assert Digest.of(received) == digest
        assert node.wait() == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data", drain_timeout_seconds=60) as node:
        node.start()
        with Wire(node.address) as wire:
            wire.request("POST", "/v1/blobs", Content_Length=10 << 20)
            wire.send(bytes(1 << 20))
            wait_for(node.spools, "the upload to be under way")
            node.signal(signal.SIGTERM)
            wait_for(lambda: _refused(node.address), "the node to be stopping")
            node.signal(signal.SIGTERM)
            assert node.wait() == 1
        node.start()
        assert node.spools() == []
        assert call(node.address, "GET", "/v1/health/ready").status == 200
        node.stop()
