"""The simulated network delivers, delays, loses, doubles and cuts; and peers' errors arrive as such."""

import asyncio
import random
from asyncio import sleep as pass_time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, DigestMismatch, NotFound, Unavailable
from tierce.core.limits import PEER_ANSWER_SECONDS, PEER_STALL_SECONDS
from tierce.node.peers import Incoming
from tierce.testing.network import Conditions, SimNetwork
from tierce.testing.sim_process import Process, run
from tierce.testing.sim_transport import SimTransport
from tierce.testing.trace import Trace

HERE = "one:7071"
THERE = "two:7071"
BLOB = bytes(range(250)) * 40
PIECES = [BLOB[at : at + 1000] for at in range(0, len(BLOB), 1000)]


class Echo:
    """A peer that says what it was told, and keeps count."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.let_go = 0
        self.fails_at = len(PIECES)

    async def exchange(self, path: str, body: bytes) -> bytes:
        self.heard.append(body)
        if path == "/slow":
            await pass_time(1)
        if path == "/missing":
            raise DigestMismatch("no such luck", hint="Try something else.")
        if path == "/bug":
            raise ZeroDivisionError
        return path.encode() + body

    async def upload(
        self, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        if path == "/refused":
            raise NotFound("not here")
        self.heard += [piece async for piece in pieces]
        return b"thanks"

    @asynccontextmanager
    async def download(
        self, path: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        if path == "/missing":
            raise NotFound("not here")

        async def pieces() -> AsyncIterator[bytes]:
            for number, piece in enumerate(PIECES):
                if number == self.fails_at:
                    raise Corrupt("bad")
                yield piece

        try:
            yield Incoming(len(BLOB), pieces())
        finally:
            self.let_go += 1


class Net:
    """Two hosts: one asks, the other is an Echo."""

    def __init__(self, seed: int = 1) -> None:
        self.network = SimNetwork(random.Random(seed), Trace())
        self.one, self.two = Process("one"), Process("two")
        self.echo = Echo()
        self.network.listen(THERE, self.echo, self.two)
        self.transport = SimTransport(self.network, HERE, self.one)

    async def exchange(self, path: str = "/", body: bytes = b"hello") -> bytes:
        return await self.one.spawn(self.transport.exchange(THERE, path, body, timeout_seconds=5))

    async def upload(self, path: str = "/") -> bytes:
        return await self.one.spawn(
            self.transport.upload(THERE, path, len(BLOB), source(), Digest.of(BLOB))
        )

    async def download(self, path: str = "/", at_most: int = 1000) -> bytes:
        async with self.transport.download(THERE, path) as incoming:
            assert incoming.size == len(BLOB)
            found = []
            async for piece in incoming.pieces:
                found.append(piece)
                if len(found) == at_most:
                    break
            return b"".join(found)

    def set_all(self, **conditions: float) -> None:
        self.network.conditions = Conditions(**conditions)  # type: ignore[arg-type]


async def source() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


def simulated(test: Callable[[Net], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in simulated time, with a network of its own."""

    async def main() -> None:
        await test(Net())

    def wrapped() -> None:
        run(main())

    wrapped.__name__ = test.__name__
    return wrapped


def now() -> float:
    return asyncio.get_running_loop().time()


@simulated
async def test_a_message_is_answered_after_the_latency_both_ways(net: Net) -> None:
    net.set_all(latency_seconds=0.25, jitter_seconds=0)
    assert await net.exchange() == b"/hello"
    assert now() == 0.5


@simulated
async def test_a_refusal_arrives_as_the_error_that_was_raised(net: Net) -> None:
    with pytest.raises(DigestMismatch) as caught:
        await net.exchange("/missing")
    assert (caught.value.message, caught.value.hint) == ("no such luck", "Try something else.")
    assert not net.network.defects


@simulated
async def test_a_handlers_bug_is_kept_and_seen_as_unavailable(net: Net) -> None:
    with pytest.raises(Unavailable):
        await net.exchange("/bug")
    assert "ZeroDivisionError" in net.network.defects[0]


@simulated
async def test_a_lost_request_is_waited_for_in_vain(net: Net) -> None:
    net.network.cut("one", "two")
    with pytest.raises(Unavailable):
        await net.exchange()
    assert now() == 5
    assert not net.echo.heard


@simulated
async def test_of_a_one_way_cut_the_request_is_handled_and_the_answer_lost(net: Net) -> None:
    net.network.cut("two", "one")
    with pytest.raises(Unavailable):
        await net.exchange()
    assert net.echo.heard == [b"hello"]


@simulated
async def test_a_duplicate_is_handled_twice_and_answered_once(net: Net) -> None:
    net.set_all(duplication=1.0)
    assert await net.exchange() == b"/hello"
    await pass_time(1)
    assert net.echo.heard == [b"hello", b"hello"]


@simulated
async def test_messages_overtake_each_other(net: Net) -> None:
    net.set_all(latency_seconds=0.1, jitter_seconds=1)
    sent = [bytes([number]) for number in range(20)]
    await asyncio.gather(*(net.exchange("/", body) for body in sent))
    assert net.echo.heard != sent
    assert sorted(net.echo.heard) == sent


@simulated
async def test_a_slow_link_sends_one_after_another(net: Net) -> None:
    net.network.change("one", "two", bytes_per_second=1200.0, latency_seconds=0, jitter_seconds=0)
    await asyncio.gather(net.exchange("/", bytes(1000)), net.exchange("/", bytes(1000)))
    assert now() == pytest.approx(2, abs=0.1)


@simulated
async def test_an_address_where_nothing_listens_refuses_at_once(net: Net) -> None:
    net.network.close(THERE)
    for call in (net.exchange, net.upload, net.download):
        with pytest.raises(Unavailable, match="refused"):
            await call()
    assert now() < 1


@simulated
async def test_a_dark_host_says_nothing(net: Net) -> None:
    net.network.close(THERE)
    net.network.dark["two"] = None
    with pytest.raises(Unavailable, match="did not answer"):
        await net.exchange()
    assert now() == 5


@simulated
async def test_a_paused_peer_answers_when_it_goes_on(net: Net) -> None:
    net.two.pause()
    asking = asyncio.create_task(net.exchange())
    await pass_time(2)
    assert not net.echo.heard
    net.two.resume()
    assert await asking == b"/hello"
    assert now() < 2.1


@simulated
async def test_a_killed_peer_resets_its_connections(net: Net) -> None:
    asking = asyncio.create_task(net.exchange("/slow"))
    loading = asyncio.create_task(net.download(at_most=10**6))
    await pass_time(0.003)
    net.two.kill()
    for each in (asking, loading):
        with pytest.raises(Unavailable, match=r"ended|broke off"):
            await each
    assert now() < 1


@simulated
async def test_a_killed_process_sends_nothing(net: Net) -> None:
    net.one.kill()
    with pytest.raises(Unavailable):
        await net.transport.exchange(THERE, "/", b"", timeout_seconds=1)
    assert not net.echo.heard


@simulated
async def test_an_upload_arrives_in_order(net: Net) -> None:
    net.set_all(latency_seconds=0.01, jitter_seconds=0.1)
    assert await net.upload() == b"thanks"
    assert net.echo.heard == PIECES


@simulated
async def test_a_refused_upload_raises_the_refusal(net: Net) -> None:
    with pytest.raises(NotFound):
        await net.upload("/refused")


@simulated
async def test_an_upload_into_a_cut_link_ends_after_the_stall_limit(net: Net) -> None:
    net.network.cut("one", "two")
    with pytest.raises(Unavailable):
        await net.upload()
    assert now() == PEER_STALL_SECONDS


@simulated
async def test_a_slow_upload_goes_on_for_as_long_as_bytes_are_taken(net: Net) -> None:
    net.network.change("one", "two", bytes_per_second=200.0)
    assert await net.upload() == b"thanks"
    assert now() > 5 * PEER_STALL_SECONDS


@simulated
async def test_a_download_arrives_in_order(net: Net) -> None:
    net.set_all(latency_seconds=0.01, jitter_seconds=0.1)
    assert await net.download() == BLOB
    assert net.echo.let_go == 1


@simulated
async def test_a_missing_blob_is_known_before_the_first_byte(net: Net) -> None:
    with pytest.raises(NotFound):
        await net.download("/missing")


@simulated
async def test_a_download_that_fails_half_way_breaks_off(net: Net) -> None:
    net.echo.fails_at = 3
    with pytest.raises(Unavailable):
        await net.download()


@simulated
async def test_a_download_from_a_cut_link_ends_after_the_answer_limit(net: Net) -> None:
    net.network.cut("two", "one")
    with pytest.raises(Unavailable):
        await net.download()
    assert now() == PEER_ANSWER_SECONDS


@simulated
async def test_a_reader_that_lets_go_ends_the_senders_work(net: Net) -> None:
    assert await net.download(at_most=1) == PIECES[0]
    await pass_time(1)
    assert net.echo.let_go == 1
    assert not net.two.tasks


@simulated
async def test_messages_and_bytes_are_counted_for_their_sender(net: Net) -> None:
    await net.exchange("/", bytes(1000))
    hosts = {key.host: tally for key, tally in net.network.sent.items()}
    assert (hosts["one"].messages, hosts["two"].messages) == (1, 1)
    assert 1000 < hosts["one"].bytes < 1500


def test_the_same_seed_makes_the_same_trace() -> None:
    async def main(seed: int) -> str:
        net = Net(seed)
        net.set_all(loss=0.2, duplication=0.2, jitter_seconds=1.0)
        await asyncio.gather(*(net.exchange() for _ in range(20)), return_exceptions=True)
        return net.network.trace.digest

    digests = [run(main(seed)) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]
