"""The client's requests and answers, without files."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.unit.client.conftest import QUICK
from tests.unit.client.fake_server import FakeServer

from tierce.client import BlockingClient, Client, Entry, Stored
from tierce.client.wire import Body, Watch, Wire
from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    Corrupt,
    Full,
    NotFound,
    Unauthenticated,
    Unavailable,
)

DATA = b"tierce"
DIGEST = Digest.of(DATA)
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB


async def stream_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_put_tells_whether_the_blob_is_new(server: FakeServer, client: Client) -> None:
    assert await client.put_bytes(DATA) == Stored(DIGEST, len(DATA), True)
    assert await client.put_bytes(DATA) == Stored(DIGEST, len(DATA), False)
    assert server.blobs == {DIGEST: DATA}


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
async def test_put_uses_the_algorithm(server: FakeServer, client: Client, algorithm: str) -> None:
    assert (await client.put_bytes(DATA, algorithm)).digest == Digest.of(DATA, algorithm)


async def test_empty_bytes_are_a_blob(server: FakeServer, client: Client) -> None:
    stored = await client.put_bytes(b"")
    assert await client.get_bytes(stored.digest) == b""


async def test_large_bytes_are_asked_for_before_they_are_sent(
    server: FakeServer, client: Client
) -> None:
    assert (await client.put_bytes(LARGE)).created
    assert not (await client.put_bytes(LARGE)).created
    assert server.methods() == ["HEAD", "PUT", "HEAD"]


async def test_large_bytes_are_sent_when_the_question_is_forbidden(
    server: FakeServer, client: Client
) -> None:
    server.problems.append((403, {}))
    assert (await client.put_bytes(LARGE)).created


async def test_progress_reaches_the_size(client: Client) -> None:
    calls: list[tuple[int, int | None]] = []
    await client.put_bytes(LARGE, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (len(LARGE), len(LARGE))


async def test_a_wrong_acknowledgement_is_no_success(server: FakeServer, client: Client) -> None:
    server.acknowledged = Digest.of(b"other")
    with pytest.raises(Corrupt):
        await client.put_bytes(DATA)
    with pytest.raises(Corrupt):
        await client.put_stream(stream_of(DATA))


@pytest.mark.parametrize("trouble", [(503, {}), (503, {"Retry-After": "0"}), None])
async def test_what_may_work_later_is_tried_again(
    server: FakeServer, client: Client, trouble: tuple[int, dict[str, str]] | None
) -> None:
    server.problems.extend([trouble] * 3)
    assert (await client.put_bytes(DATA)).digest == DIGEST
    assert await client.get_bytes(DIGEST) == DATA


async def test_attempts_are_bounded(server: FakeServer, client: Client) -> None:
    server.problems.extend([(503, {})] * 10)
    with pytest.raises(Unavailable, match="tried 4 times"):
        await client.put_bytes(DATA)
    assert len(server.seen) == 4


async def test_a_server_that_asks_for_a_long_wait_is_left_alone(
    server: FakeServer, client: Client
) -> None:
    server.problems.append((503, {"Retry-After": "3600"}))
    with pytest.raises(Unavailable, match="3600 s"):
        await client.put_bytes(DATA)
    assert len(server.seen) == 1


async def test_a_full_server_is_not_asked_again(server: FakeServer, client: Client) -> None:
    server.problems.append((507, {}))
    with pytest.raises(Full):
        await client.put_bytes(DATA)
    assert len(server.seen) == 1


async def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with Client(f"http://127.0.0.1:{unused.getsockname()[1]}", retry=QUICK) as client:
            with pytest.raises(Unavailable, match="can't connect"):
                await client.stat(DIGEST)


async def test_a_token_is_sent(server: FakeServer) -> None:
    server.token = "secret"
    async with Client(server.url, "secret") as client:
        await client.put_bytes(DATA)
    async with Client(server.url) as client:
        with pytest.raises(Unauthenticated) as caught:
            await client.put_bytes(DATA)
    assert (caught.value.message, caught.value.hint) == ("a token is needed", "Do better.")


async def test_a_refusal_is_heard_while_the_body_is_sent(server: FakeServer) -> None:
    server.token = "secret"

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with Client(server.url, retry=QUICK) as client:
        with pytest.raises(Unauthenticated):
            await client.put_stream(endless())


@pytest.mark.parametrize("token", ["", "two words", "x\r\nHost: y", "\u00e9"])
def test_a_token_that_could_break_the_header_is_refused(token: str) -> None:
    with pytest.raises(BadRequest):
        Client("http://localhost:1", token)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:7070", "ftp://h/", "http://", "http://u:p@h", "http://h/?q", "http://h:x/"],
)
def test_an_address_that_can_not_be_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        Client(url)


async def test_a_redirect_is_not_followed(server: FakeServer, client: Client) -> None:
    server.problems.append((307, {"Location": "http://elsewhere/"}))
    with pytest.raises(BadRequest, match="elsewhere"):
        await client.put_bytes(DATA)


async def test_a_stream_is_stored_in_order(server: FakeServer, client: Client) -> None:
    stored = await client.put_stream(stream_of(b"ti", b"", b"er", LARGE, b"ce"), "sha256")
    whole = b"tier" + LARGE + b"ce"
    assert stored == Stored(Digest.of(whole, "sha256"), len(whole), True)
    assert server.blobs[stored.digest] == whole


async def test_an_empty_stream_is_a_blob(client: Client) -> None:
    assert (await client.put_stream(stream_of())).digest == Digest.of(b"")


async def test_a_stream_that_fails_raises_its_own_error_and_stores_nothing(
    server: FakeServer, client: Client
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise LookupError("source")

    with pytest.raises(LookupError, match="source"):
        await client.put_stream(broken())
    assert server.blobs == {}


async def test_a_stream_is_not_sent_twice(server: FakeServer, client: Client) -> None:
    server.problems.append(None)
    with pytest.raises(Unavailable, match="middle of a stream"):
        await client.put_stream(stream_of(DATA))
    assert len(server.seen) == 1


async def test_a_stream_that_has_not_begun_is_tried_again(client: Client) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with Client(f"http://127.0.0.1:{unused.getsockname()[1]}", retry=QUICK) as nobody:
            with pytest.raises(Unavailable, match="tried 4 times"):
                await nobody.put_stream(stream_of(DATA))


async def test_a_server_that_takes_no_bytes_is_given_up() -> None:
    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await done.wait()
        writer.close()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    done = asyncio.Event()
    server = await asyncio.start_server(stuck, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        wire = Wire(f"http://127.0.0.1:{port}", None, QUICK, stall_seconds=0.2)
        wire.open()
        with pytest.raises(Unavailable, match="too long"):
            await wire.exchange("POST", "/v1/blobs", "x", body=Body(None, endless))
        await wire.close()
        done.set()


async def test_only_the_taking_of_a_piece_is_timed_not_its_making() -> None:
    async with asyncio.timeout(None) as deadline:

        async def source() -> AsyncIterator[bytes]:
            for _ in range(2):
                assert deadline.when() is None
                yield DATA

        async for _ in Watch(source(), deadline, stall_seconds=60):
            assert deadline.when() is not None
        assert deadline.when() is None


@pytest.mark.parametrize("ranges", [True, False])
async def test_an_interrupted_download_goes_on_where_it_stopped(
    server: FakeServer, client: Client, ranges: bool
) -> None:
    digest = server.add(LARGE)
    server.ranges = ranges
    server.cuts.extend([1_000_000, 0, 1_500_000])
    assert await client.get_bytes(digest) == LARGE
    starts = server.starts()
    assert starts == sorted(starts)
    assert starts[0] == 0 < starts[1] <= 1_000_000
    assert server.seen[1].headers["if-range"] == f'"{digest}"'


async def test_interruptions_without_progress_are_bounded(
    server: FakeServer, client: Client
) -> None:
    digest = server.add(LARGE)
    server.cuts.extend([10] * 50)
    with pytest.raises(Unavailable):
        await client.get_bytes(digest)
    assert len(server.seen) == 4


async def test_interruptions_with_progress_are_not_counted(
    server: FakeServer, client: Client
) -> None:
    digest = server.add(LARGE)
    server.cuts.extend([200_000] * 10)
    assert await client.get_bytes(digest) == LARGE


async def test_wrong_bytes_are_never_a_success(server: FakeServer, client: Client) -> None:
    server.blobs[DIGEST] = b"Tierce"
    with pytest.raises(Corrupt):
        await client.get_bytes(DIGEST)


async def test_a_stream_can_begin_in_the_middle(server: FakeServer, client: Client) -> None:
    digest = server.add(LARGE)
    pieces = [piece async for piece in client.stream(digest, start=len(LARGE) - 7)]
    assert b"".join(pieces) == LARGE[-7:]


async def test_a_start_beyond_the_end_is_a_bad_request(server: FakeServer, client: Client) -> None:
    server.add(DATA)
    with pytest.raises(BadRequest):
        _ = [piece async for piece in client.stream(DIGEST, start=100)]


async def test_a_stream_can_be_left_early(server: FakeServer, client: Client) -> None:
    digest = server.add(LARGE)
    async with aclosing(client.stream(digest)) as pieces:
        async for _ in pieces:
            break
    assert await client.stat(digest) == len(LARGE)


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    for call in (client.get_bytes(DIGEST), client.stat(DIGEST), client.delete(DIGEST)):
        with pytest.raises(NotFound):
            await call


async def test_deleted_is_gone(server: FakeServer, client: Client) -> None:
    server.add(DATA)
    await client.delete(DIGEST)
    assert server.blobs == {}


async def test_a_delete_whose_answer_was_lost_is_a_success(
    server: FakeServer, client: Client
) -> None:
    server.problems.append(None)
    await client.delete(DIGEST)
    assert server.methods() == ["DELETE", "DELETE"]


async def test_a_listing_goes_through_all_pages(server: FakeServer, client: Client) -> None:
    server.page_limit = 3
    expected = sorted(Entry(server.add(b"%d" % n), 1) for n in range(8))
    assert [entry async for entry in client.iterate()] == expected
    assert [entry async for entry in client.iterate(expected[4].digest)] == expected[5:]
    page = await client.list(expected[0].digest, limit=2)
    assert (page.entries, page.next) == (tuple(expected[1:3]), expected[2].digest)


async def test_status_is_passed_through(server: FakeServer, client: Client) -> None:
    assert await client.status() == {"id": "n1"}


NODES: dict[str, Any] = {"nodes": [{"node_id": "n1"}]}


async def test_the_cluster_is_passed_through(server: FakeServer, client: Client) -> None:
    server.overviews = [NODES]
    assert await client.cluster() == NODES


@pytest.mark.parametrize("node_id", ["n1", "a b?#%&;+ü"])
async def test_orders_reach_the_node_that_is_named(
    server: FakeServer, client: Client, node_id: str
) -> None:
    server.overviews = [{"nodes": [{"node_id": node_id}]}]
    await client.drain(node_id)
    await client.drain(node_id, cancel=True)
    await client.forget(node_id)
    assert server.orders == [
        ("POST", "drain", node_id), ("DELETE", "drain", node_id), ("POST", "forget", node_id),
    ]  # fmt: skip


async def test_the_number_of_a_comparison_is_told(server: FakeServer, client: Client) -> None:
    server.comparisons = 4
    assert await client.compare_store() == 5


async def test_an_order_for_a_node_that_is_not_there_is_not_found(client: Client) -> None:
    for call in (client.drain("n9"), client.drain("n9", cancel=True), client.forget("n9")):
        with pytest.raises(NotFound, match="n9"):
            await call


async def test_an_order_that_the_state_forbids_is_a_conflict(
    server: FakeServer, client: Client
) -> None:
    server.problems.append((409, {}))
    with pytest.raises(Conflict):
        await client.forget("n1")
    assert len(server.seen) == 1


async def test_a_node_that_is_forgotten_when_asked_again_is_a_success(
    server: FakeServer, client: Client
) -> None:
    server.problems.extend([None, (404, {})])
    await client.forget("n1")
    assert server.methods() == ["POST", "POST"]


def test_the_blocking_client_does_the_same() -> None:
    with FakeServer().serving_in_thread() as server, BlockingClient(server.url) as client:
        stored = client.put_bytes(DATA)
        assert client.get_bytes(stored.digest) == DATA
        assert client.stat(stored.digest) == len(DATA)
        assert client.list().entries == (Entry(DIGEST, len(DATA)),)
        client.delete(stored.digest)
        assert client.status() == {"id": "n1"}
        server.overviews = [NODES]
        assert client.cluster() == NODES
        client.drain("n1")
        client.drain("n1", cancel=True)
        client.forget("n1")
        assert client.compare_store() == 1
        assert [order for _, order, _ in server.orders] == ["drain", "drain", "forget"]
