"""Listing, status, health, metrics, and paths and methods that there are not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from tests.doors.native.node import Node, node_in_thread, problem

from tierce import __version__
from tierce.blobs.space import Space
from tierce.blobs.store import Counts
from tierce.core import metrics
from tierce.core.digest import ALGORITHMS, Digest
from tierce.doors.native.gauges import StatusGauges
from tierce.service.status import Identity, Status
from tierce.testing.calls import connect, exchange, metric
from tierce.testing.processes import wait_for

STATUS_OF_NOTHING = Status(
    Identity("", "", (), 1, 0.0), 0.0, Counts(0, 0), Space(0, 0, 0), "", None
)
BLOBS = [f"listed {number}".encode() * (1 + 200 * (number % 2)) for number in range(12)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, list[Digest]]]:
    """A node with some blobs, half of them packed and half in files, and their digests in order."""
    data = tmp_path_factory.mktemp("filled") / "data"
    with node_in_thread(data, pack_limit_bytes=1024) as running:
        names = list(ALGORITHMS)
        digests = [running.put(blob, names[at % 4]) for at, blob in enumerate(BLOBS)]
        yield running, sorted(digests)


def page(node: Node, query: str = "") -> tuple[list[str], str | None]:
    reply = node.call("GET", f"/v1/blobs{query}")
    assert reply.status == 200
    content = json.loads(reply.body)
    return [entry["digest"] for entry in content["blobs"]], content["next"]


def test_the_listing_is_in_digest_order_and_has_sizes(filled: tuple[Node, list[Digest]]) -> None:
    node, digests = filled
    sizes = {str(Digest.of(blob, name)): len(blob) for blob in BLOBS for name in ALGORITHMS}
    assert node.call("GET", "/v1/blobs").json == {
        "blobs": [{"digest": str(each), "size": sizes[str(each)]} for each in digests],
        "next": None,
    }
    assert [str(each) for each in digests] == sorted(map(str, digests))


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 12, 13, 10_000])
def test_pages_hold_every_blob_once(filled: tuple[Node, list[Digest]], limit: int) -> None:
    node, digests = filled
    found, after = page(node, f"?limit={limit}")
    while after is not None:
        assert len(found) % limit == 0
        assert after == found[-1]
        more, after = page(node, f"?limit={limit}&after={after}")
        found += more
    assert found == [str(each) for each in digests]


def test_after_may_name_a_blob_that_is_not_here(filled: tuple[Node, list[Digest]]) -> None:
    node, digests = filled
    for algorithm, known in ALGORITHMS.items():
        for byte in (b"\0", b"\x80", b"\xff"):
            mark = Digest(algorithm, byte * known.size_bytes)
            assert page(node, f"?after={mark}")[0] == [str(each) for each in digests if each > mark]


def test_an_empty_after_is_the_start(filled: tuple[Node, list[Digest]]) -> None:
    node, _ = filled
    assert page(node, "?after=") == page(node)


@pytest.mark.parametrize(
    "limit", ["0", "-1", "10001", "x", "", "1.5", "1e3", "+1", "%201", "9" * 99, "%D9%A1", "0x1"]
)
def test_a_bad_limit_is_refused(node: Node, limit: str) -> None:
    reply = node.call("GET", f"/v1/blobs?limit={limit}")
    assert (reply.status, problem(reply)) == (400, "bad-request")
    assert "from 1 to 10000" in reply.json["hint"]


@pytest.mark.parametrize("after", ["x", "sha1:0", "blake3:", "%00", "%ff", "../x"])
def test_a_bad_after_is_refused(node: Node, after: str) -> None:
    reply = node.call("GET", f"/v1/blobs?after={after}")
    assert (reply.status, problem(reply)) == (400, "bad-request")


def test_status_counts_what_is_stored(filled: tuple[Node, list[Digest]]) -> None:
    node, _ = filled
    expected = (len(BLOBS), sum(map(len, BLOBS)))

    def counted() -> bool:
        status = node.call("GET", "/v1/status").json
        return (status["blobs"], status["blob_bytes"]) == expected

    wait_for(counted, "the counts of files, which follow with a later commit")


def test_status_tells_how_the_node_is(node: Node) -> None:
    status = node.call("GET", "/v1/status").json
    assert status["version"] == __version__
    assert status["node_id"] in (node.data / "node.toml").read_text()
    assert status["listen"] == [f"native={node.address}"]
    assert (status["workers"], status["writable"], status["read_only_reason"]) == (1, True, None)
    assert 0 < status["disk"]["free_bytes"] <= status["disk"]["total_bytes"]
    assert status["uptime_seconds"] >= 0
    assert set(status["agent"]["scrub"]) == {
        "checked_blobs", "vouched_blobs", "bad_blobs", "passes", "last_pass"
    }  # fmt: skip


def test_health(node: Node) -> None:
    assert node.call("GET", "/v1/health/live").json == {"live": True}
    assert node.call("GET", "/v1/health/ready").json == {"ready": True, "writable": True}


def test_the_root_tells_what_this_is(node: Node) -> None:
    assert node.call("GET", "/").json == {
        "name": "tierce", "version": __version__, "openapi": "/v1/openapi.json",
    }  # fmt: skip


def test_every_metric_appears_after_use(tmp_path: Path) -> None:
    with node_in_thread(tmp_path / "data") as node:
        node.get(node.put(b"measured"))
        reply = node.call("GET", "/metrics")
        again = node.call("GET", "/metrics").body.decode()
    assert reply.headers["content-type"].startswith("text/plain; version=")
    families = {each.name: each for each in text_string_to_metric_families(again)}
    ours = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    known = {family.name for each in ours for family in each.collect()}
    gauges = {each.name for each in StatusGauges(STATUS_OF_NOTHING).collect()}
    assert len(known) >= 12
    assert known | gauges <= set(families)
    for name in known | gauges:
        assert families[name].documentation
    for name in ("requests", "received_bytes", "sent_bytes", "commits", "blobs", "blob_bytes"):
        assert sum(sample.value for sample in families[f"tierce_{name}"].samples) > 0, name
    routes = {sample.labels["route"] for sample in families["tierce_requests"].samples}
    assert {"/v1/blobs/{digest}", "/metrics"} <= routes


def test_requests_are_counted_by_route_method_and_status(node: Node) -> None:
    labels = {"door": "native", "route": "/v1/blobs/{digest}", "method": "GET", "status": "404"}

    def counted() -> float:
        return metric(node.address, "tierce_requests_total", **labels)

    before = counted()
    node.get(Digest.of(b"not counted before"))
    assert counted() == before + 1


def test_invented_paths_and_methods_make_no_new_series(node: Node) -> None:
    node.call("GET", "/an/invented/path")
    with node.wire() as wire:
        wire.request("MKCOL", "/v1/blobs")
        assert wire.reply().status == 405
    series = [sample.labels for sample in node.samples()]
    assert {"none", "/v1/blobs"} >= {
        each["route"] for each in series if each.get("method") == "other"
    }
    assert not any("invented" in str(each) for each in series)
    assert not any("MKCOL" in str(each) for each in series)


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v2/blobs", "/v1/blobs/", "//v1/status", "/v1/blobs/a/b", "/v1/x%0Ay"]
)
def test_a_path_that_there_is_not_is_404(node: Node, path: str) -> None:
    reply = node.call("GET", path)
    assert (reply.status, problem(reply)) == (404, "no-such-path")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/blobs/sha1:0", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/v1/blobs", "GET, HEAD, POST"),
        ("TRACE", "/v1/status", "GET, HEAD"),
        ("PATCH", "/metrics", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_has_not_is_405(
    node: Node, method: str, path: str, allow: str
) -> None:
    reply = node.call(method, path)
    assert (reply.status, problem(reply)) == (405, "method-not-allowed")
    assert reply.headers["allow"] == allow


@pytest.mark.parametrize(
    "path", ["/", "/v1/blobs", "/v1/status", "/v1/health/live", "/v1/openapi.json", "/metrics"]
)
def test_every_page_answers_head_without_a_body(node: Node, path: str) -> None:
    with node.wire() as wire:
        wire.request("HEAD", path)
        status, headers = wire.head()
        assert (status, int(headers["content-length"]) > 0) == (200, True)
        # Had a body come, it would be taken for the next answer.
        wire.request("GET", "/v1/health/live")
        assert wire.reply().json == {"live": True}


def test_one_connection_serves_all_methods(node: Node) -> None:
    connection = connect(node.address)
    target = f"/v1/blobs/{Digest.of(b'all methods')}"
    calls = [("PUT", 201), ("PUT", 200), ("GET", 200), ("HEAD", 200), ("DELETE", 204), ("GET", 404)]
    for method, status in calls:
        body = b"all methods" if method == "PUT" else None
        assert exchange(connection, method, target, body).status == status
    connection.close()
