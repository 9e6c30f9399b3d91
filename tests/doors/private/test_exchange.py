"""Messages between nodes: answered whole, refused as themselves, or given up in time."""

import asyncio
import socket
import time

import pytest
from tests.doors.private.serving import Served, door, serving, stand_in, transport, until

from tierce.cluster.signing import Verifier
from tierce.core import errors
from tierce.core.errors import (
    Conflict,
    Forbidden,
    NotFound,
    TierceError,
    TooLarge,
    Unavailable,
)
from tierce.core.limits import MIB
from tierce.doors.private.routes import MESSAGES, PrivateDoor
from tierce.doors.shared.ranges import UnsatisfiableRange

CORE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TierceError) and kind is not TierceError
]


async def ask(served: Served, body: bytes = b"hello", seconds: float = 10.0) -> bytes:
    return await served.transport.exchange(served.address, "/gossip", body, timeout_seconds=seconds)


@pytest.mark.parametrize("path", MESSAGES)
async def test_a_message_is_answered(path: str) -> None:
    async with serving() as served:
        body = bytes(range(256))
        answer = await served.transport.exchange(served.address, path, body, timeout_seconds=10)
        assert answer == path.encode() + b" " + body


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 20 * MIB])
async def test_a_message_of_any_size_goes_both_ways(size: int) -> None:
    async with serving() as served:
        body = b"m" * size
        assert await ask(served, body) == b"/gossip " + body


async def test_one_connection_serves_message_after_message() -> None:
    async with serving() as served:
        for _ in range(20):
            await ask(served)
        assert len(served.server.connections) == 1


async def test_many_messages_at_once_each_get_their_own_answer() -> None:
    async with serving() as served:
        bodies = [b"%d" % number for number in range(200)]
        answers = await asyncio.gather(*(ask(served, body) for body in bodies))
        assert answers == [b"/gossip " + body for body in bodies]


@pytest.mark.parametrize("kind", CORE, ids=lambda kind: kind.__name__)
async def test_a_refusal_is_raised_again_as_what_it_was(kind: type[TierceError]) -> None:
    async with serving() as served:
        served.service.refusal = kind("what happened: ä", hint="Do this.")
        with pytest.raises(TierceError) as refused:
            await ask(served)
        assert type(refused.value) is kind
        assert (refused.value.message, refused.value.hint) == ("what happened: ä", "Do this.")


async def test_an_error_that_the_core_does_not_know_is_raised_as_what_it_is_one_of() -> None:
    async with serving() as served:
        served.service.refusal = UnsatisfiableRange(5)
        with pytest.raises(errors.BadRequest):
            await ask(served)


async def test_a_connection_survives_a_refusal() -> None:
    async with serving() as served:
        for _ in range(3):
            served.service.refusal = NotFound("x")
            with pytest.raises(NotFound):
                await ask(served)
            served.service.refusal = None
            await ask(served)
        assert len(served.server.connections) == 1


async def test_a_mistake_of_the_peer_is_unavailable_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as served:
        served.service.refusal = RuntimeError("a defect")
        with pytest.raises(Unavailable, match=served.address):
            await ask(served)
    assert "a defect" in caplog.text


async def test_a_path_that_is_not_there_is_no_answer() -> None:
    async with serving() as served:
        with pytest.raises(Unavailable, match=served.address):
            await served.transport.exchange(served.address, "/x", b"", timeout_seconds=10)


async def test_a_message_over_the_limit_is_not_even_sent() -> None:
    async with serving(message_bytes=1000) as served:
        with pytest.raises(TooLarge):
            await ask(served, b"x" * 1001)
        assert served.service.calls == []


async def test_a_message_over_the_peer_s_limit_is_refused_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PrivateDoor.__init__, "__kwdefaults__", {
        **(PrivateDoor.__init__.__kwdefaults__ or {}), "message_bytes": 1000,
    })  # fmt: skip
    async with serving() as served:
        with pytest.raises(TooLarge):
            await ask(served, b"x" * 1001)
        assert served.service.calls == []
        assert await ask(served, b"x" * 1000) == b"/gossip " + b"x" * 1000


async def test_an_answer_over_the_limit_is_not_read() -> None:
    async with serving() as served, transport(message_bytes=1000) as sender:
        body = b"x" * 999
        with pytest.raises(Unavailable, match=served.address):
            await sender.exchange(served.address, "/gossip", body, timeout_seconds=10)


async def test_another_secret_is_forbidden_in_both_directions() -> None:
    async with (
        serving() as served,
        door(served.service, Verifier("other")) as (other, _),
        transport("other") as stranger,
    ):
        for sender, address in ((stranger, served.address), (served.transport, other)):
            with pytest.raises(Forbidden, match=address) as refused:
                await sender.exchange(address, "/gossip", b"", timeout_seconds=10)
            assert "TIERCE_CLUSTER_SECRET" in refused.value.hint
        assert served.service.calls == []


async def test_a_wrong_clock_is_told() -> None:
    async with serving() as served:
        late = served.transport
        late._wall_clock = lambda: time.time() - 93
        with pytest.raises(Forbidden, match="differ by about 93 s") as refused:
            await ask(served)
        assert "time" in refused.value.hint


async def test_a_dead_port_is_unavailable_at_once() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    async with transport() as sender:
        started = time.monotonic()
        with pytest.raises(Unavailable, match=f"can't connect to {address}"):
            await sender.exchange(address, "/gossip", b"", timeout_seconds=30)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("address", ["", "no port", "a:b:c", "[::1", "127.0.0.1:99999", "é:1"])
async def test_an_address_that_can_not_be_is_unavailable(address: str) -> None:
    async with transport() as sender:
        with pytest.raises(Unavailable):
            await sender.exchange(address, "/gossip", b"", timeout_seconds=10)


async def test_a_peer_that_never_answers_is_given_up_in_time() -> None:
    async with serving() as served:
        served.service.hold.clear()
        with pytest.raises(Unavailable, match=f"{served.address} did not answer"):
            await ask(served, seconds=0.1)
        await served.all_gone()


async def test_a_peer_that_ends_the_connection_is_unavailable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with stand_in(hang_up) as address, transport() as sender:
        with pytest.raises(Unavailable, match=address):
            await sender.exchange(address, "/gossip", b"", timeout_seconds=10)


async def test_a_request_is_never_sent_twice() -> None:
    heads: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            heads.append(head)
            if len(heads) > 1:
                return
            writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    async with stand_in(hang_up) as address, transport() as sender:
        for _ in range(2):  # the second one by the connection of the first, which breaks then
            with pytest.raises(Unavailable):
                async with sender.download(address, "/blobs/x"):
                    pass
    assert len(heads) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 307 Over There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!",
    ],
)
async def test_what_is_no_answer_of_a_peer_is_unavailable(answer: bytes) -> None:
    async def misanswer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with stand_in(misanswer) as address, transport() as sender:
        with pytest.raises((Unavailable, Forbidden), match=address):
            await sender.exchange(address, "/gossip", b"", timeout_seconds=10)


async def relayed(
    served: Served, change: tuple[bytes, bytes], asked: int = 1
) -> list[TierceError | bytes]:
    """What messages come to, when an answer's bytes are changed on the way."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = served.address.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                far_writer.write(head + await reader.readexactly(5))
                answer = await far_reader.readuntil(b"\r\n\r\n")
                answer += await far_reader.read(1000) if b"ength: 0" not in answer else b""
                writer.write(answer.replace(*change))
        except asyncio.IncompleteReadError:
            pass
        finally:
            far_writer.close()

    results: list[TierceError | bytes] = []
    async with stand_in(relay) as address:
        for _ in range(asked):
            try:
                results.append(
                    await served.transport.exchange(
                        address, "/gossip", b"hello", timeout_seconds=10
                    )
                )
            except TierceError as error:
                results.append(error)
    return results


async def test_an_answer_that_was_left_alone_is_believed() -> None:
    async with serving() as served:
        assert await relayed(served, (b"x", b"x")) == [b"/gossip hello"]


@pytest.mark.parametrize(
    "change",
    [
        (b"hello", b"jello"), (b"200 OK", b"201 Created"), (b"Signature: v1 ", b"Signature: v1 0"),
        (b"Tierce-Signature", b"Other-Signature"),
    ],
)  # fmt: skip
async def test_a_changed_answer_is_not_believed(change: tuple[bytes, bytes]) -> None:
    async with serving() as served:
        (result,) = await relayed(served, change)
        assert isinstance(result, Unavailable)
        assert "is not signed by the cluster's secret" in result.message


async def test_a_forged_refusal_is_not_believed() -> None:
    async with serving() as served:
        served.service.refusal = Conflict("it is there already")
        (result,) = await relayed(served, (b"Conflict", b"NotFound"))
        assert isinstance(result, Unavailable)


async def test_an_answer_to_another_request_is_not_believed() -> None:
    kept: list[bytes] = []

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = served.address.split(":")
        head = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(5)
        if not kept:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            far_writer.write(head)
            kept.append(await far_reader.readuntil(b"hello"))
            far_writer.close()
        writer.write(kept[0])

    async with serving() as served, stand_in(repeat) as address:
        send = served.transport.exchange
        assert await send(address, "/gossip", b"hello", timeout_seconds=10) == b"/gossip hello"
        with pytest.raises(Unavailable):
            await send(address, "/gossip", b"hello", timeout_seconds=10)


async def test_a_cancelled_call_leaves_no_connection_behind() -> None:
    async with serving() as served:
        served.service.hold.clear()
        call = asyncio.create_task(ask(served, seconds=60))
        await until(lambda: bool(served.service.calls))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await served.all_gone()


async def test_a_transport_that_was_not_started_says_so() -> None:
    async with serving() as served:
        await served.transport.close()
        with pytest.raises(RuntimeError, match="not started"):
            await ask(served)
