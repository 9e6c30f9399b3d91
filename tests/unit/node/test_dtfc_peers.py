"""Asking other dtfc nodes over real connections, and the list of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.node.dtfc_bench import LARGE, SMALL, LoadBench, sha512
from tests.unit.node.fakes import left_running

from tierce.core.errors import BadRequest, NotFound, TierceError, Unavailable
from tierce.core.limits import DTFC_PEER_LIST_BYTES, DTFC_PEERS_COUNT, KIB, MIB
from tierce.node.dtfc_peers import DtfcClient, Peer, PeerList, peers_in, read_peers
from tierce.testing.dtfc_peers import DtfcPeer, Faults, serving_dtfc

DIGEST = sha512(LARGE)
HEX = DIGEST.raw.hex()


@asynccontextmanager
async def asking(
    *servers: DtfcPeer, answer_seconds: float = 2.0, stall_seconds: float = 2.0
) -> AsyncIterator[list[Peer]]:
    """A client of these peers, that leaves no connection and no descriptor behind."""
    async with serving_dtfc(*servers):
        before = len(os.listdir("/proc/self/fd"))
        client = DtfcClient(answer_seconds=answer_seconds, stall_seconds=stall_seconds)
        await client.start()
        try:
            yield [Peer(each.url, client) for each in servers]
        finally:
            await client.close()
        for _ in range(100):
            if len(os.listdir("/proc/self/fd")) <= before:
                break
            await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before


async def received(peer: Peer, start: int = 0) -> tuple[int | None, int, str, bytes]:
    async with peer.open(DIGEST, start) as head:
        data = b"".join([each async for each in head.pieces])
    return head.size, head.start, head.name, data


async def test_a_file_is_asked_for_as_by_a_peer() -> None:
    server = DtfcPeer().has(LARGE, "big.mp4")
    async with asking(server) as (peer,):
        assert await received(peer) == (len(LARGE), 0, "big.mp4", LARGE)
    (request,) = server.seen
    assert (request.method, request.path) == ("GET", f"/{HEX}/nopeerload")
    assert request.headers["x-forwarded-proto"] == "https"
    assert request.headers["accept-encoding"] == "identity"
    assert "range" not in request.headers


async def test_a_base_url_with_a_path_or_an_end_slash_is_kept() -> None:
    server = DtfcPeer()
    async with asking(server) as (peer,):
        under = Peer(f"{server.url}/store/", peer._client)
        with pytest.raises(NotFound):
            await received(under)
    assert server.asked("GET") == [f"/store/{HEX}/nopeerload"]


async def test_a_peer_that_sends_others_to_https_answers_to_a_peer() -> None:
    server = DtfcPeer().has(LARGE)
    async with asking(server) as (peer,):
        named = Peer(server.url.replace("127.0.0.1", "localhost"), peer._client)
        assert (await received(named))[3] == LARGE


@pytest.mark.parametrize("start", [1, MIB + 5, len(LARGE) - 1])
async def test_the_rest_is_asked_for_by_a_range(start: int) -> None:
    server = DtfcPeer().has(LARGE)
    async with asking(server) as (peer,):
        size, begins, _, data = await received(peer, start)
    assert (size, begins, data) == (len(LARGE), start, LARGE[start:])
    assert server.sent_bytes == len(LARGE) - start


async def test_one_without_ranges_gives_the_whole() -> None:
    server = DtfcPeer(faults=Faults(has_no_ranges=True)).has(LARGE)
    async with asking(server) as (peer,):
        assert (await received(peer, MIB))[:2] == (len(LARGE), 0)


@pytest.mark.parametrize("beyond", [0, 9])
async def test_beyond_the_end_there_is_nothing(beyond: int) -> None:
    start = len(LARGE) + beyond
    async with asking(DtfcPeer().has(LARGE)) as (peer,):
        assert await received(peer, start) == (len(LARGE), start, "foo.bin", b"")


async def test_a_body_without_a_length_has_no_size() -> None:
    async with asking(DtfcPeer(faults=Faults(tells_no_length=True)).has(LARGE)) as (peer,):
        size, _, _, data = await received(peer)
        assert (size, data) == (None, LARGE)


async def test_what_a_peer_has_not_is_not_found() -> None:
    async with asking(DtfcPeer()) as (peer,):
        with pytest.raises(NotFound):
            await received(peer)


@pytest.mark.parametrize("fault", ["answers_500", "is_loading"])
async def test_any_other_answer_is_a_failure(fault: str) -> None:
    async with asking(DtfcPeer(faults=Faults(**{fault: True})).has(LARGE)) as (peer,):
        with pytest.raises(Unavailable, match="status"):
            await received(peer)


async def test_one_that_never_answers_is_given_up() -> None:
    server = DtfcPeer(faults=Faults(hangs=True)).has(LARGE)
    async with asking(server, answer_seconds=0.1) as (peer,):
        with pytest.raises(Unavailable, match="in time"):
            await received(peer)


async def test_one_that_is_not_there_can_not_be_asked() -> None:
    server = DtfcPeer()
    async with asking(server) as (peer,):
        async with serving_dtfc(gone := DtfcPeer()):
            pass
        with pytest.raises(Unavailable, match="can't be asked"):
            await received(Peer(gone.url, peer._client))


@pytest.mark.parametrize(
    "faults",
    [
        {"stops_after": MIB},
        {"hangs_after": MIB},
        {"claims_more": 9},
        {"tells_no_length": True, "stops_after": MIB},
    ],
    ids=str,
)
async def test_one_that_breaks_off_is_a_failure_midway(faults: dict[str, Any]) -> None:
    came = bytearray()
    server = DtfcPeer(faults=Faults(**faults)).has(LARGE)
    async with asking(server, stall_seconds=0.1) as (peer,):
        with pytest.raises(Unavailable):
            async with peer.open(DIGEST) as head:
                async for piece in head.pieces:
                    came += piece
    assert LARGE.startswith(came)
    assert len(came) >= MIB - 64 * KIB


async def test_one_that_trickles_is_a_failure_midway() -> None:
    server = DtfcPeer(faults=Faults(pause_seconds=0.02)).has(LARGE[:200])
    server.files[HEX], server.names[HEX] = b"", "x"

    async def trickle(writer: asyncio.StreamWriter, body: bytes, chunked: bool) -> None:
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    server.faults.tells_no_length = True
    server._send_body = trickle  # type: ignore[method-assign]
    async with asking(server, stall_seconds=0.2) as (peer,):
        with pytest.raises(Unavailable, match="bytes in"):
            await received(peer)


async def test_the_time_that_the_taker_needs_does_not_count() -> None:
    server = DtfcPeer().has(LARGE)
    async with asking(server, stall_seconds=0.05) as (peer,), peer.open(DIGEST) as head:
        came = bytearray()
        async for piece in head.pieces:
            if not came:
                await asyncio.sleep(0.2)
            came += piece
        assert came == LARGE


async def test_a_body_in_an_encoding_is_refused() -> None:
    server = DtfcPeer().has(LARGE)
    server.names[HEX] = 'x"\r\nContent-Encoding: gzip\r\nX-More: "'
    async with asking(server) as (peer,):
        with pytest.raises(Unavailable, match="encoding"):
            await received(peer)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("a b.txt", "a b.txt"),
        ("caf%C3%A9.md", "café.md"),
        ('q\\"q', 'q"q'),
        ("", ""),
        ("x" * 999, "x" * 255),
    ],
)
async def test_the_name_is_as_the_peer_gives_it(sent: str, name: str) -> None:
    server = DtfcPeer().has(LARGE, sent)
    async with asking(server) as (peer,), peer.open(DIGEST) as head:
        assert head.name == name


async def test_a_connection_is_used_again_and_one_that_ended_is_no_failure() -> None:
    server = DtfcPeer().has(LARGE)
    async with asking(server) as (peer,):
        for _ in range(3):
            assert (await received(peer))[3] == LARGE
        assert server.open_connections == 1
        for task in server.tasks:
            task.cancel()
        assert (await received(peer))[3] == LARGE


async def test_a_reader_that_leaves_closes_the_connection() -> None:
    server = DtfcPeer(faults=Faults(pause_seconds=0.01)).has(LARGE)
    async with asking(server) as (peer,):
        async with peer.open(DIGEST) as head:
            await anext(head.pieces)
        for _ in range(100):
            if not server.open_connections:
                break
            await asyncio.sleep(0.01)
        assert server.open_connections == 0
        assert server.sent_bytes < len(LARGE)


async def test_delete_tells_what_became_of_it() -> None:
    server = DtfcPeer().has(LARGE)
    async with asking(server) as (peer,):
        assert await peer.delete(DIGEST)
        assert not await peer.delete(sha512(SMALL))
        server.faults.answers_500 = True
        with pytest.raises(Unavailable):
            await peer.delete(DIGEST)
    assert server.asked("DELETE")[0] == f"/{HEX}"
    assert HEX in server.deleted


# The list


def listed(path: Path | None, *urls: str, me: str = "") -> PeerList:
    return PeerList(DtfcClient(), urls, path, me)


def urls_of(peers: PeerList) -> list[str]:
    return [each.url for each in peers.peers()]


def test_peers_are_those_that_are_set_and_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_text("http://b/\n\n  http://c:8001  \nhttp://a\n# a remark\nnonsense\n")
    assert urls_of(listed(path, "http://a/")) == ["http://a", "http://b", "http://c:8001"]


@pytest.mark.parametrize("me", ["http://b", "http://b/"])
def test_a_node_is_no_peer_of_itself(tmp_path: Path, me: str) -> None:
    path = tmp_path / "peers"
    path.write_text("http://a/\nhttp://b/\n")
    assert urls_of(listed(path, me=me)) == ["http://a"]
    assert urls_of(listed(None, "http://a", "http://b", me=me)) == ["http://a"]


def test_a_list_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_text("http://a\n")
    peers = listed(path)
    (before,) = peers.peers()
    path.write_text("http://a\nhttp://b\n")
    assert urls_of(peers) == ["http://a", "http://b"]
    assert peers.peers()[0] is before


def test_a_list_that_can_not_be_read_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_text("http://a\n")
    peers = listed(path)
    assert urls_of(peers) == ["http://a"]
    path.unlink()
    assert urls_of(peers) == ["http://a"]
    with pytest.raises(OSError, match="No such file"):
        peers.refresh()


def test_a_list_of_too_many_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_text("http://a\n")
    peers = listed(path)
    assert urls_of(peers) == ["http://a"]
    text = "".join(f"http://{number}\n" for number in range(DTFC_PEERS_COUNT + 1))
    path.write_text(text)
    assert urls_of(peers) == ["http://a"]
    with pytest.raises(BadRequest):
        peers_in(text)


def test_a_file_that_is_no_list_is_not_read_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "peers"
    path.write_text("http://a\n")
    peers = listed(path)
    assert urls_of(peers) == ["http://a"]
    path.write_bytes(b"x\n" * (DTFC_PEER_LIST_BYTES // 2) + b"x")
    with pytest.raises(BadRequest):
        read_peers(path)
    for _ in range(3):
        assert urls_of(peers) == ["http://a"]
    assert len(caplog.messages) == 1
    path.write_bytes(b"x\n" * 1000)
    assert urls_of(peers) == []
    assert len(caplog.messages) < 20


def test_a_list_may_be_made_by_any_editor(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    path.write_bytes(b"\xef\xbb\xbfhttp://a/\r\nHTTP://b\r\n")
    assert urls_of(listed(path)) == ["http://a", "HTTP://b"]


# Loads over real connections

FILE = LARGE[: MIB + 300 * KIB]
FAULTS: dict[str, dict[str, Any]] = {
    "wrong bytes": {"gives_wrong_bytes": True},
    "stops once": {"stops_after": 500_000, "stops_once": True},
    "stops": {"stops_after": 500_000},
    "stops at once": {"stops_after": 0},
    "hangs": {"hangs": True},
    "hangs midway": {"hangs_after": 300_000},
    "tells more": {"claims_more": 1000},
    "tells less": {"claims_more": -1000},
    "pads": {"pads_with": 1000},
    "no length": {"tells_no_length": True},
    "never ends": {"never_ends": True},
    "no ranges": {"has_no_ranges": True},
    "500": {"answers_500": True},
    "503": {"is_loading": True},
}
KINDS = st.sampled_from(sorted(FAULTS))
SOON = 0.3
"""Long enough for an honest peer on a busy machine, in seconds."""


@given(faults=st.lists(st.tuples(KINDS, KINDS), max_size=3), place=st.none() | st.integers(0, 3))
@settings(max_examples=10)
async def test_whatever_mixture_of_peers_there_is_the_bytes_are_right(
    tmp_path: Path, faults: list[tuple[str, str]], place: int | None
) -> None:
    servers = [DtfcPeer(faults=Faults(**{**FAULTS[a], **FAULTS[b]})).has(FILE) for a, b in faults]
    if place is not None:
        servers.insert(place, DtfcPeer().has(FILE))
    digest = sha512(FILE)
    async with asking(*servers, answer_seconds=SOON, stall_seconds=SOON) as peers:
        bench = LoadBench(tmp_path, hedge_seconds=0.01)
        bench.spools.blob_limit_bytes = 4 * MIB
        bench.sources = peers  # type: ignore[assignment]
        reader = asyncio.create_task(bench.read(digest))
        try:
            await bench.loaded(digest)
        except TierceError:
            assert place is None
        assert bench.store.blobs in ({}, {digest: FILE})
        assert place is None or bench.store.blobs
        (found,) = await asyncio.gather(reader, return_exceptions=True)
        assert found == FILE or isinstance(found, TierceError)
        await bench.loading.close()
    assert await left_running() == []
    assert bench.left() == []
