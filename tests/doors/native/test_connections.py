"""HTTP as a wire: pipelining, keep-alive, versions, bodies that break off, slow clients."""

import logging
from collections.abc import Iterator

import pytest
from tests.doors.native.node import Node, node_in_thread, problem

from tierce.core.digest import Digest
from tierce.testing.calls import Wire, listing
from tierce.testing.processes import wait_for

LIVE = "/v1/health/live"


def request(method: str, path: str, body: bytes = b"", version: str = "1.1", *lines: str) -> bytes:
    head = [f"{method} {path} HTTP/{version}", "Host: node", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def ended(wire: Wire) -> bool:
    """Wait for the end of the connection; False if something else comes."""
    try:
        return wire.rest(1) == b""
    except ConnectionResetError:
        return True


def tmp_is_empty(node: Node) -> bool:
    return not any((node.data / "tmp").iterdir())


def test_pipelined_requests_are_answered_in_order(node: Node) -> None:
    data = [f"pipelined {number}".encode() * 50 * number for number in range(1, 6)]
    paths = [f"/v1/blobs/{Digest.of(each)}" for each in data]
    puts = [request("PUT", path, each) for path, each in zip(paths, data, strict=True)]
    gets = [request("GET", path) for path in paths]
    with node.wire() as wire:
        wire.send(b"".join([*puts, request("GET", "/nowhere"), *gets]))
        assert [wire.reply().status for _ in paths] == [201] * 5
        assert wire.reply().status == 404
        assert [wire.reply().body for _ in paths] == data


def test_many_pipelined_requests_are_all_answered(node: Node) -> None:
    with node.wire() as wire:
        wire.send(request("GET", LIVE) * 500)
        assert {wire.reply().status for _ in range(500)} == {200}
        wire.send(request("GET", LIVE))
        assert wire.reply().status == 200


def test_a_request_may_come_byte_by_byte(node: Node) -> None:
    with node.wire() as wire:
        for byte in request("POST", "/v1/blobs", b"drop by drop"):
            wire.send(bytes([byte]))
        assert wire.reply().json["digest"] == str(Digest.of(b"drop by drop"))


def test_a_connection_is_kept_unless_it_is_to_be_closed(node: Node) -> None:
    with node.wire() as wire:
        for _ in range(3):
            wire.send(request("GET", LIVE))
            assert "connection" not in wire.reply().headers
        wire.send(request("GET", LIVE, b"", "1.1", "Connection: close"))
        assert wire.reply().headers["connection"] == "close"
        assert ended(wire)


def test_an_error_does_not_end_the_connection(node: Node) -> None:
    with node.wire() as wire:
        for path, status in (("/nowhere", 404), ("/v1/blobs/x", 400), (LIVE, 200)):
            wire.send(request("GET", path))
            assert wire.reply().status == status


def test_a_refused_body_is_passed_over(node: Node) -> None:
    """The next request on the connection starts where the body that nobody wanted ends."""
    with node.wire() as wire:
        body = b"GET /nowhere HTTP/1.1\r\n\r\n" * 1000
        wire.send(request("PUT", "/v1/blobs/nonsense", body) + request("GET", LIVE))
        assert wire.reply().status == 400
        assert wire.reply().json == {"live": True}


def test_http_1_0_closes_unless_told_otherwise(node: Node) -> None:
    digest = node.put(b"old style")
    with node.wire() as wire:
        wire.send(f"GET /v1/blobs/{digest} HTTP/1.0\r\n\r\n".encode())
        reply = wire.reply()
        assert (reply.body, reply.headers["connection"]) == (b"old style", "close")
        assert ended(wire)
    with node.wire() as wire:
        for _ in range(2):
            wire.send(request("GET", LIVE, b"", "1.0", "Connection: keep-alive"))
            assert wire.reply().headers["connection"] == "keep-alive"


def test_http_1_0_can_upload_and_is_not_asked_to_go_on(node: Node) -> None:
    with node.wire() as wire:
        wire.send(request("POST", "/v1/blobs", b"1.0", "1.0"))
        assert wire.reply().status == 201


def test_http_1_1_asks_for_a_host(node: Node) -> None:
    with node.wire() as wire:
        wire.send(f"GET {LIVE} HTTP/1.1\r\n\r\n".encode())
        reply = wire.reply()
        assert (reply.status, problem(reply)) == (400, "bad-request")
        assert ended(wire)


def test_an_absolute_target_is_taken(node: Node) -> None:
    with node.wire() as wire:
        wire.send(request("GET", f"http://node{LIVE}"))
        assert wire.reply().json == {"live": True}


def test_an_upgrade_is_declined(node: Node) -> None:
    with node.wire() as wire:
        upgrade = ("Connection: upgrade", "Upgrade: websocket")
        wire.send(request("GET", LIVE, b"", "1.1", *upgrade) + request("GET", "/nowhere"))
        assert [wire.reply().status for _ in range(2)] == [200, 404]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_body_that_breaks_off_stores_nothing(node: Node, size: int) -> None:
    body = b"b" * size
    with node.wire() as wire:
        wire.request("PUT", f"/v1/blobs/{Digest.of(body)}", Content_Length=size + 1)
        wire.send(body)
    wait_for(lambda: tmp_is_empty(node), "the spool to be removed")
    assert not node.has(Digest.of(body))


def test_a_body_that_is_longer_than_it_said_does_not_become_a_request(node: Node) -> None:
    with node.wire() as wire:
        wire.request("POST", "/v1/blobs", Content_Length=5)
        wire.send(b"right")
        assert wire.reply().status == 201
        wire.send(b"and more\r\n" + request("GET", LIVE))
        reply = wire.reply()
        assert (reply.status, problem(reply)) == (400, "bad-request")
        assert ended(wire)
    assert node.get(Digest.of(b"right")).body == b"right"


@pytest.mark.parametrize("garbage", [b"zz\r\n", b"3\r\nabcdef\r\n", b"-1\r\n", b"\0\0\0\0\r\n"])
@pytest.mark.parametrize("size", [3, 5000])
def test_a_chunked_body_that_stops_being_one_is_refused_at_once(
    node: Node, garbage: bytes, size: int
) -> None:
    """It gets one answer, and the connection ends, as what follows could be anything."""
    body = b"c" * size
    with node.wire() as wire:
        wire.request("POST", "/v1/blobs", Transfer_Encoding="chunked", Expect="100-continue")
        assert wire.head() == (100, {})
        wire.send(b"%x\r\n%b\r\n" % (size, body))
        wire.send(garbage)
        reply = wire.reply()
        assert (reply.status, problem(reply)) == (400, "bad-request")
        assert reply.headers["connection"] == "close"
        assert ended(wire)
    wait_for(lambda: tmp_is_empty(node), "the spool to be removed")
    assert not node.has(Digest.of(body))


def test_garbage_in_the_rest_of_a_refused_body_ends_the_connection(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with node.wire() as wire:
        wire.request("POST", "/v1/blobs?algorithm=no", Transfer_Encoding="chunked")
        assert wire.reply().status == 400
        wire.send(b"zz\r\n" + request("GET", LIVE))
        assert ended(wire)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("lines", [["x: y"] * 101, ["x: " + "y" * 8200], ["y" * 8200 + ": x"]])
def test_headers_over_the_limits_are_431(node: Node, lines: list[str]) -> None:
    with node.wire() as wire:
        wire.send(request("GET", LIVE, b"", "1.1", *lines))
        reply = wire.reply()
        assert (reply.status, problem(reply)) == (431, "headers-too-large")
        assert "100 headers of at most 8190 bytes" in reply.json["hint"]
        assert ended(wire)


def test_a_request_line_over_the_limit_is_431(node: Node) -> None:
    with node.wire() as wire:
        wire.send(request("GET", "/v1/blobs/" + "x" * 8200))
        assert wire.reply().status == 431


def test_headers_within_the_limits_are_taken(node: Node) -> None:
    with node.wire() as wire:
        wire.send(request("GET", LIVE, b"", "1.1", *(f"x-{n}: {'y' * 500}" for n in range(98))))
        assert wire.reply().status == 200


@pytest.fixture
def strict_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("strict") / "data"
    with node_in_thread(
        data, progress_window_seconds=0.1, header_timeout_seconds=0.1, idle_timeout_seconds=0.2
    ) as running:
        yield running


def test_a_body_that_does_not_come_is_408(
    strict_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with strict_node.wire() as wire:
        wire.request("POST", "/v1/blobs", Content_Length=100)
        wire.send(b"a start")
        reply = wire.reply()
        assert (reply.status, problem(reply)) == (408, "too-slow")
        assert reply.headers["connection"] == "close"
        assert ended(wire)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_headers_that_do_not_come_and_idle_connections_are_ended(strict_node: Node) -> None:
    with strict_node.wire() as wire:
        wire.send(b"GET / HTT")
        assert ended(wire)
    with strict_node.wire() as wire:
        wire.send(request("GET", LIVE))
        assert wire.reply().status == 200
        assert ended(wire)


def test_what_came_of_a_broken_body_is_never_taken_for_the_whole(node: Node) -> None:
    """The break may come at any moment, also before the handler has begun to read."""
    bodies = [b"broken %04d" % number for number in range(300)]
    for body in bodies:
        with node.wire() as wire:
            wire.request("POST", "/v1/blobs", Transfer_Encoding="chunked")
            wire.send(b"%x\r\n%b\r\n" % (len(body), body))
            wire.send(b"zz\r\n")
            assert wire.reply().status == 400
    assert not listing(node.address).keys() & {Digest.of(body) for body in bodies}


def test_what_came_before_the_client_left_is_never_taken_for_the_whole(node: Node) -> None:
    bodies = [b"left %04d" % number for number in range(300)]
    for body in bodies:
        with node.wire() as wire:
            wire.request("POST", "/v1/blobs", Content_Length=len(body) + 1)
            wire.send(body)
    assert not listing(node.address).keys() & {Digest.of(body) for body in bodies}
