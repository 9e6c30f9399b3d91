"""Clients that move nothing are let go; those that move slowly but steadily are not."""

import contextlib
import random
import socket
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tierce.core.digest import Digest
from tierce.core.limits import KIB, MIB
from tierce.testing.calls import Wire, call, get, metric, put, status, steadily
from tierce.testing.processes import NodeProcess, wait_for

pytestmark = pytest.mark.procs

LIMIT_BYTES_PER_SECOND = 10_000
WINDOW_SECONDS = 1.0
HEADER_SECONDS = 1.0
IDLE_SECONDS = 2.0
LARGE = random.Random(64).randbytes(MIB) * 64


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A strict node, for all tests here."""
    with NodeProcess(
        tmp_path_factory.mktemp("slow") / "data",
        min_progress_bytes_per_second=LIMIT_BYTES_PER_SECOND,
        progress_window_seconds=WINDOW_SECONDS,
        header_timeout_seconds=HEADER_SECONDS,
        idle_timeout_seconds=IDLE_SECONDS,
    ) as node:
        yield node.start()
        assert node.spools() == []
        node.stop()


@pytest.fixture(scope="module")
def large(node: NodeProcess) -> Digest:
    """A blob that no socket's buffers can hold."""
    return put(node.address, LARGE)


def _ended(wire: Wire, within: Callable[[], object] = lambda: None) -> float:
    """Wait until the node ends the connection; returns how long that took."""
    started = time.monotonic()

    def ended() -> bool:
        within()
        return wire.ended()

    wait_for(ended, "the node to end the connection")
    return time.monotonic() - started


def _slow(node: NodeProcess, phase: str) -> float:
    return metric(node.address, "tierce_slow_clients_total", phase=phase)


def test_headers_that_trickle_in_are_cut_off(node: NodeProcess) -> None:
    before = _slow(node, "headers")
    with Wire(node.address) as wire:
        wire.send(b"GET /v1/status HTTP/1.1\r\nHost: node\r\n")
        sent = iter(range(10**6))

        def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                wire.send(b"X-%d: 1\r\n" % next(sent))
            time.sleep(0.1)

        took = _ended(wire, trickle)
    assert took > HEADER_SECONDS / 2
    assert _slow(node, "headers") == before + 1


def test_a_connection_that_never_says_anything_is_closed(node: NodeProcess) -> None:
    with Wire(node.address) as wire:
        assert _ended(wire) > IDLE_SECONDS / 2


def test_a_kept_connection_is_closed_after_the_idle_timeout_and_not_before(
    node: NodeProcess,
) -> None:
    with Wire(node.address) as wire:
        wire.request("GET", "/v1/health/live")
        assert wire.reply().status == 200
        time.sleep(IDLE_SECONDS * 0.6)  # the time itself is what is tested
        wire.request("GET", "/v1/health/live")
        assert wire.reply().status == 200
        assert _ended(wire) > IDLE_SECONDS / 2


def test_the_rest_of_a_refused_body_is_not_taken_for_slow_headers(node: NodeProcess) -> None:
    before = _slow(node, "headers")
    with Wire(node.address) as wire:
        wire.request("PUT", "/v1/blobs/nonsense", Content_Length=1000)
        assert wire.reply().status == 400
        wire.send(bytes(1000))
        assert _ended(wire) > (HEADER_SECONDS + IDLE_SECONDS) / 2
    assert _slow(node, "headers") == before


def test_a_body_that_comes_too_slowly_is_answered_408_and_nothing_is_stored(
    node: NodeProcess,
) -> None:
    before, blobs = _slow(node, "receiving"), status(node.address)["blobs"]
    with Wire(node.address) as wire:
        wire.request("POST", "/v1/blobs", Content_Length=MIB)
        wire.send(bytes(100 * KIB))
        wait_for(node.spools, "the upload's file")
        reply = wire.reply()
        assert reply.status == 408
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["hint"]
        assert reply.headers["connection"] == "close"
        _ended(wire)
    wait_for(lambda: not node.spools(), "the upload's file to go")
    assert _slow(node, "receiving") == before + 1
    assert status(node.address)["blobs"] == blobs


def test_a_body_below_the_limit_is_cut_off_although_it_moves(node: NodeProcess) -> None:
    before = _slow(node, "receiving")
    with Wire(node.address) as wire:
        wire.request("POST", "/v1/blobs", Content_Length=MIB)

        def trickle() -> bool:
            wire.send(bytes(LIMIT_BYTES_PER_SECOND // 40))
            return _slow(node, "receiving") > before

        wait_for(trickle, "the node to lose patience", pause=0.1)
        assert wire.reply().status == 408


def test_a_slow_but_steady_upload_goes_through(node: NodeProcess) -> None:
    data = random.Random(1).randbytes(int(4 * WINDOW_SECONDS * 3 * LIMIT_BYTES_PER_SECOND))
    digest = Digest.of(data)
    step, pause = 3 * LIMIT_BYTES_PER_SECOND // 10, 0.1
    started = time.monotonic()
    body = steadily(data, step, pause)
    headers = {"Content-Length": str(len(data))}
    reply = call(node.address, "PUT", f"/v1/blobs/{digest}", body, headers)
    assert reply.status == 201
    assert time.monotonic() - started > 3 * WINDOW_SECONDS
    assert get(node.address, digest).body == data


def test_a_reader_that_stops_reading_is_disconnected(node: NodeProcess, large: Digest) -> None:
    before = _slow(node, "sending")
    with Wire(node.address) as wire:
        wire.request("GET", f"/v1/blobs/{large}")
        assert wire.head()[0] == 200
        wait_for(lambda: _slow(node, "sending") == before + 1, "the reader to be given up")
        received = wire.rest(len(LARGE))
    assert len(received) < len(LARGE)
    assert LARGE.startswith(received)


@pytest.mark.parametrize("buffer_bytes", [0, 32 * KIB], ids=["usual-buffers", "small-buffers"])
def test_a_slow_but_steady_reader_is_kept(
    node: NodeProcess, large: Digest, buffer_bytes: int
) -> None:
    """The kernel takes megabytes for a reader at once, and then nothing for long."""
    before = _slow(node, "sending")
    # Over loopback the reader's side tells of its progress in steps of 64 KiB, so this has to be
    # well above the limit for a window of a second.
    step, pause = 20 * LIMIT_BYTES_PER_SECOND // 20, 0.05
    with Wire(node.address, buffer_bytes=buffer_bytes) as wire:
        wire.request("GET", f"/v1/blobs/{large}")
        assert wire.head()[0] == 200
        received = 0
        until = time.monotonic() + 4 * WINDOW_SECONDS
        while time.monotonic() < until:
            received += len(wire.rest(step))
            time.sleep(pause)
        assert _slow(node, "sending") == before
        rest = wire.rest(len(LARGE) - received)
        assert received + len(rest) == len(LARGE)


def test_a_reader_that_stops_near_the_end_is_disconnected(node: NodeProcess) -> None:
    """The last bytes of an answer lie in buffers when its request is done, and must not stay there.

    Where that is depends on the kernel, so each of many readers stops at another place.
    """
    size = 4 * MIB
    digest = put(node.address, LARGE[:size])
    with contextlib.ExitStack() as held:
        for number in range(40):
            wire = held.enter_context(Wire(node.address, buffer_bytes=8 * KIB))
            ending = {"Connection": "close"} if number % 2 else {}
            wire.request("GET", f"/v1/blobs/{digest}", **ending)
            assert wire.head()[0] == 200
            wire.rest(size - number * 70 * KIB)
        wait_for(lambda: _connections_of(node) == 0, "all connections to be given up")


def test_answers_that_nobody_takes_are_given_up(node: NodeProcess) -> None:
    digest = put(node.address, LARGE[: 60 * KIB])
    request = f"GET /v1/blobs/{digest} HTTP/1.1\r\nHost: node\r\n\r\n".encode()
    with Wire(node.address) as wire:
        wire.socket.settimeout(1.0)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(2000):
                wire.send(request * 100)
        wait_for(lambda: _connections_of(node) == 0, "the connection to be given up")


def _connections_of(node: NodeProcess) -> int:
    """How many connections the node holds."""
    (process,) = node.family()
    return sum(each.status != psutil.CONN_LISTEN for each in process.net_connections("tcp"))


def test_a_client_that_drops_in_the_middle_of_an_upload_leaves_nothing(node: NodeProcess) -> None:
    blobs = status(node.address)["blobs"]
    for abruptly in (False, True):
        with Wire(node.address) as wire:
            wire.request("POST", "/v1/blobs", Content_Length=8 * MIB)
            wire.send(bytes(3 * MIB))
            wait_for(node.spools, "the upload's file")
            if abruptly:
                linger = b"\1\0\0\0\0\0\0\0"  # a reset in place of an orderly end
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_for(lambda: not node.spools(), "the upload's file to go")
    assert status(node.address)["blobs"] == blobs


def test_a_client_that_ends_a_chunked_body_early_leaves_nothing(node: NodeProcess) -> None:
    blobs = status(node.address)["blobs"]
    with Wire(node.address) as wire:
        wire.request("POST", "/v1/blobs", Transfer_Encoding="chunked")
        wire.send(b"20000\r\n" + bytes(0x20000) + b"\r\n")
        wait_for(node.spools, "the upload's file")
        wire.socket.shutdown(socket.SHUT_WR)
        wait_for(lambda: not node.spools(), "the upload's file to go")
    assert status(node.address)["blobs"] == blobs
