"""A node whose store says that it is asked too much: clients are told when to come again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.testing.blob_contract import body
from tierce.testing.calls import call, get, metric, put, status
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.in_thread import held_in_thread
from tierce.testing.processes import NodeProcess, wait_for
from tierce.testing.rclone import BUCKET, KEYS, serve_s3

pytestmark = pytest.mark.procs

SMALL, OTHER = body(1000), body(1000, seed=1)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[FaultProxy]:
    with serve_s3(tmp_path / "s3") as server:
        proxy = FaultProxy(server.port)
        with held_in_thread(proxy.running):
            yield proxy


def test_a_store_that_is_asked_too_much_holds_no_client_up_and_is_told_of(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    store = f"s3://{BUCKET}/paced?endpoint={proxy.endpoint}"
    with NodeProcess(
        tmp_path / "data",
        environment=KEYS,
        store=store,
        store_cache_bytes=0,
        store_background_requests_per_second=7,
        workers=2,
    ) as node:
        node.start()
        digest = put(node.address, SMALL)
        assert metric(node.address, "tierce_store_requests_total", kind="write", result="ok") > 0
        assert metric(node.address, "tierce_store_written_bytes_total") == len(SMALL)
        proxy.status, proxy.code, proxy.retry_after_seconds = 503, "SlowDown", 90
        proxy.harm(Mode.ERROR)
        answer = get(node.address, digest)
        assert answer.status == 503
        assert 90 <= int(answer.headers["retry-after"]) <= 120
        assert b"rate limit" in answer.body
        assert call(node.address, "PUT", f"/v1/blobs/{Digest.of(OTHER)}", OTHER).status == 503
        assert metric(node.address, "tierce_slow_downs_total", service="store") >= 1
        assert metric(node.address, "tierce_store_requests_total", result="slow_down") >= 1
        assert metric(node.address, "tierce_circuit_opened_total") == 0
        told = status(node.address)["agent"]["store"]
        assert told["circuit"] == "closed"
        assert told["pace"]["background_per_second"] == 7
        proxy.harm(Mode.NONE)
        node.stop()
        node.start()
        assert get(node.address, digest).body == SMALL


def test_a_store_that_says_it_for_a_moment_only_delays(proxy: FaultProxy, tmp_path: Path) -> None:
    store = f"s3://{BUCKET}/paced?endpoint={proxy.endpoint}"
    with NodeProcess(
        tmp_path / "data", environment=KEYS, store=store, store_cache_bytes=0, workers=1
    ) as node:
        node.start()
        digest = put(node.address, SMALL)
        proxy.status, proxy.code = 503, "SlowDown"
        proxy.harm(Mode.ERROR, only="GET", times=1)
        assert get(node.address, digest).body == SMALL
        assert proxy.harmed == 1
        pace = status(node.address)["agent"]["store"]["pace"]
        assert pace["slow_downs"] == 1
        assert pace["allowed_per_second"] >= 1
        wait_for(
            lambda: status(node.address)["agent"]["store"]["pace"]["waiting"] == 0, "nobody to wait"
        )
