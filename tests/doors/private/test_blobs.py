"""Blobs between nodes: whole or not at all, in bounded memory, and never waited for in vain."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
from tests.doors.private.serving import (
    Served,
    door,
    pieces_of,
    serving,
    stand_in,
    transport,
    until,
)

from tierce.cluster.signing import Verifier
from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Corrupt,
    DigestMismatch,
    Forbidden,
    Full,
    NotFound,
    TierceError,
    Unavailable,
)
from tierce.core.limits import MIB

DATA = random.Random(1).randbytes(8 * MIB + 12345)
DIGEST = Digest.of(DATA)
PATH = f"/blobs/{DIGEST}"
# What sockets and buffers on the way may hold of a body that nobody reads.
ON_THE_WAY_BYTES = 24 * MIB


async def upload(served: Served, pieces: AsyncIterator[bytes], size: int = len(DATA)) -> bytes:
    return await served.transport.upload(served.address, PATH, size, pieces, DIGEST)


async def download(served: Served, start: int = 0, stop: int | None = None) -> tuple[int, bytes]:
    async with served.transport.download(served.address, PATH, start=start, stop=stop) as incoming:
        return incoming.size, b"".join([piece async for piece in incoming.pieces])


async def settled(count: Callable[[], int]) -> int:
    """The value of a counter once it stands still."""
    before, same = count(), 0
    async with asyncio.timeout(20):
        while same < 5 or not before:
            await asyncio.sleep(0.05)
            same = same + 1 if count() == before else 0
            before = count()
    return before


def connections_to(address: str) -> int:
    """How many connections to an address this process still holds."""
    found = psutil.Process().net_connections("tcp")
    return sum(each.raddr[1:] == (int(address.split(":")[1]),) for each in found)


class Source:
    """An endless supply of pieces that counts what it gave, and knows if it was closed."""

    def __init__(self, total: int, failure: Exception | None = None) -> None:
        self.total = total
        self.given = 0
        self.closed = False
        self.failure = failure

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while self.given < self.total:
                piece = bytes(min(MIB, self.total - self.given))
                self.given += len(piece)
                yield piece
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed = True


async def test_an_upload_arrives_whole() -> None:
    async with serving() as served:
        assert await upload(served, pieces_of(DATA)) == b"taken"
        assert served.service.uploads == [(PATH, len(DATA), DIGEST, DATA)]


async def test_an_empty_upload_arrives() -> None:
    async with serving() as served:
        assert await upload(served, pieces_of(b""), 0) == b"taken"


async def test_uploads_follow_one_another_on_one_connection() -> None:
    async with serving() as served:
        for _ in range(3):
            await upload(served, pieces_of(DATA))
        assert len(served.server.connections) == 1


async def test_an_upload_that_nobody_reads_stops_being_made() -> None:
    async with serving() as served:
        source = Source(100 * MIB)
        served.service.hold.clear()
        sending = asyncio.create_task(upload(served, source.pieces(), source.total))
        assert await settled(lambda: source.given) < ON_THE_WAY_BYTES
        served.service.hold.set()
        assert await sending == b"taken"
        assert source.closed


@pytest.mark.parametrize("kind", [Full, DigestMismatch, NotFound, Forbidden, Unavailable])
async def test_an_early_refusal_is_what_an_upload_comes_to(kind: type[TierceError]) -> None:
    async with serving() as served:
        source = Source(500 * MIB)
        served.service.refusal = kind("no", hint="Do this.")
        with pytest.raises(kind, match=r"^no$"):
            await upload(served, source.pieces(), source.total)
        assert source.given < source.total
        assert source.closed
        await served.all_gone()


async def test_a_refusal_by_who_does_not_know_the_secret_is_heard_during_an_upload() -> None:
    async with serving() as served, transport("other") as stranger:
        source = Source(500 * MIB)
        with pytest.raises(Forbidden, match=served.address):
            await stranger.upload(served.address, PATH, source.total, source.pieces(), DIGEST)
        assert source.closed


async def test_a_body_of_another_digest_than_signed_is_refused_before_it_comes() -> None:
    async with serving() as served:
        source = Source(500 * MIB)
        with pytest.raises(Forbidden, match="not the one that was signed"):
            await served.transport.upload(
                served.address, PATH, source.total, source.pieces(), Digest.of(b"other")
            )
        assert served.service.calls == []


async def test_what_the_pieces_raise_is_raised() -> None:
    async with serving() as served:
        for failure in (Corrupt("a bad piece"), TimeoutError("mine"), RuntimeError("a defect")):
            source = Source(3 * MIB, failure)
            with pytest.raises(type(failure)) as raised:
                await upload(served, source.pieces(), 4 * MIB)
            assert raised.value is failure
        assert served.service.uploads == []


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
async def test_a_body_of_another_size_is_our_mistake(size: int) -> None:
    async with serving() as served:
        with pytest.raises(AssertionError):
            await upload(served, pieces_of(DATA), size)
        await served.all_gone()


async def test_a_peer_that_takes_nothing_is_given_up() -> None:
    async with serving(stall_seconds=0.1) as served:
        source = Source(100 * MIB)
        served.service.hold.clear()
        with pytest.raises(Unavailable, match=served.address):
            await upload(served, source.pieces(), source.total)
        assert source.closed
        # Reading nothing, the peer would never notice; what matters is that this end let go.
        await until(lambda: not connections_to(served.address))


async def test_pieces_may_take_their_time() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            await asyncio.sleep(0.15)
            yield piece

    async with serving(stall_seconds=0.05) as served:
        assert await upload(served, slowly(), 3) == b"taken"


async def test_a_peer_may_take_longer_for_its_last_word_but_not_for_ever() -> None:
    async with serving(stall_seconds=0.05) as served:
        served.service.hold.clear()
        sending = asyncio.create_task(upload(served, pieces_of(b"abc"), 3))
        await until(lambda: bool(served.service.calls))
        await asyncio.sleep(0.12)
        served.service.hold.set()
        assert await sending == b"taken"
        served.service.hold.clear()
        with pytest.raises(Unavailable, match=served.address):
            await upload(served, pieces_of(b"abc"), 3)


async def test_a_cancelled_upload_closes_its_pieces_and_its_connection() -> None:
    closed = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with serving() as served:
        sending = asyncio.create_task(upload(served, stuck()))
        await until(lambda: bool(served.service.calls))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert closed.is_set()
        await served.all_gone()


async def test_an_upload_to_a_dead_port_closes_its_pieces() -> None:
    async with serving() as served:
        address = served.address
    source = Source(MIB)
    async with transport() as sender:
        pieces = source.pieces()
        with pytest.raises(Unavailable, match=f"can't connect to {address}"):
            await sender.upload(address, PATH, MIB, pieces, DIGEST)
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_a_peer_that_is_killed_during_an_upload_is_unavailable() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.transport.abort()

    async with stand_in(die) as address, transport() as sender:
        source = Source(100 * MIB)
        with pytest.raises(Unavailable, match=address):
            await sender.upload(address, PATH, source.total, source.pieces(), DIGEST)
        assert source.closed


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 10), (5, 5), (1, MIB + 1), (len(DATA) - 1, None), (7, 2 * len(DATA))],
)
async def test_a_download_has_the_bytes_asked_for(start: int, stop: int | None) -> None:
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        assert await download(served, start, stop) == (len(DATA), DATA[start:stop])
        assert served.service.open_downloads == 0


async def test_downloads_follow_one_another_on_one_connection() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        for _ in range(3):
            await download(served)
        assert len(served.server.connections) == 1


async def test_a_start_beyond_the_end_is_refused() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        with pytest.raises(BadRequest):
            await download(served, len(DATA) + 1)


@pytest.mark.parametrize("kind", [NotFound, Corrupt, Unavailable])
async def test_a_blob_that_can_not_be_opened_is_refused_as_it_was(kind: type[TierceError]) -> None:
    async with serving() as served:
        served.service.refusal = kind("no", hint="Do this.")
        with pytest.raises(kind, match=r"^no$"):
            await download(served)


async def test_a_first_piece_that_is_bad_is_a_refusal() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        served.service.fails_at, served.service.failure = 0, Corrupt("it is bad")
        with pytest.raises(Corrupt, match="it is bad"):
            await download(served)


@pytest.mark.parametrize("failure", [Corrupt("it is bad"), RuntimeError("a defect")])
async def test_a_later_piece_that_is_bad_breaks_the_connection(failure: Exception) -> None:
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        served.service.fails_at, served.service.failure = 3 * MIB, failure
        got = b""
        async with served.transport.download(served.address, PATH) as incoming:
            with pytest.raises(Unavailable, match=served.address):
                async for piece in incoming.pieces:
                    got += piece
        assert DATA.startswith(got)
        assert len(got) <= 3 * MIB
        await until(lambda: served.service.open_downloads == 0)


async def test_a_download_that_nobody_reads_stops_being_sent() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = bytes(100 * MIB)
        async with served.transport.download(served.address, PATH) as incoming:
            assert await settled(lambda: served.service.given_bytes) < ON_THE_WAY_BYTES
            assert sum([len(piece) async for piece in incoming.pieces]) == 100 * MIB


async def test_a_download_that_is_left_early_leaves_no_connection_behind() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = bytes(100 * MIB)
        async with served.transport.download(served.address, PATH) as incoming:
            await anext(incoming.pieces)
        await served.all_gone()
        await until(lambda: served.service.open_downloads == 0)


async def test_what_is_raised_inside_a_download_is_left_alone() -> None:
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        with pytest.raises(TimeoutError, match="mine"):
            async with served.transport.download(served.address, PATH):
                raise TimeoutError("mine")
        await served.all_gone()


async def test_a_peer_that_does_not_begin_a_download_is_given_up() -> None:
    async with serving(answer_seconds=0.1) as served:
        served.service.hold.clear()
        with pytest.raises(Unavailable, match=served.address):
            await download(served)
        await served.all_gone()


async def half_of_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer rightly, but for half of the body; then go on doing nothing."""
    head = await reader.readuntil(b"\r\n\r\n")
    async with serving() as served:
        served.service.blobs[PATH] = DATA
        host, port = served.address.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        far_writer.write(head)
        writer.write(await far_reader.readexactly(4 * MIB))
        await writer.drain()
        far_writer.close()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_download_that_stops_midway_is_unavailable(ends: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await half_of_it(reader, writer)
        if not ends:
            await asyncio.Event().wait()

    async with stand_in(answer) as address, transport(stall_seconds=0.2) as sender:
        got = b""
        async with sender.download(address, PATH) as incoming:
            assert incoming.size == len(DATA)
            with pytest.raises(Unavailable, match=address):
                async for piece in incoming.pieces:
                    got += piece
        assert DATA.startswith(got)
        assert len(got) < len(DATA)


@pytest.mark.parametrize(
    "change", [(b"Blob-Size: 8", b"Blob-Size: 9"), (b"Blob-Size", b"No-Size"), (b"v1 ", b"v1 0")]
)
async def test_the_head_of_a_download_can_not_be_changed(change: tuple[bytes, bytes]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = served.address.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        far_writer.write(await reader.readuntil(b"\r\n\r\n"))
        writer.write((await far_reader.readuntil(b"\r\n\r\n")).replace(*change))
        far_writer.close()

    async with serving() as served, stand_in(answer) as address:
        served.service.blobs[PATH] = DATA
        with pytest.raises(Unavailable, match="is not signed"):
            async with served.transport.download(address, PATH):
                pass


async def test_a_forged_absence_is_not_believed() -> None:
    async def deny(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with stand_in(deny) as address, transport() as sender:
        with pytest.raises(Unavailable, match="is not signed"):
            async with sender.download(address, PATH):
                pass


async def test_a_download_under_another_secret_is_forbidden_in_both_directions() -> None:
    async with (
        serving() as served,
        door(served.service, Verifier("other")) as (other, _),
        transport("other") as stranger,
    ):
        for sender, address in ((stranger, served.address), (served.transport, other)):
            with pytest.raises(Forbidden, match=address):
                async with sender.download(address, PATH):
                    pass
        assert served.service.calls == []
