"""What a node asks others about records: pushes travel together, and nonsense is seen as such."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.node.fakes import FakeTransport, left_running, members

from tierce.cluster.member import Member
from tierce.cluster.sync import Summary, mark_of, summarize
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Unavailable
from tierce.core.limits import PEER_BATCH_BLOBS, PEER_STALL_SECONDS
from tierce.names.changes import Position
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import names_messages as messages
from tierce.node.names_peers import NamesPeers
from tierce.node.names_service import NamesService
from tierce.testing import virtual_time

A, B = members(2)
ELSEWHERE = Member("c", private=B.private)
E1 = Position("e1", 0)


def record(key: str = "k", **fields: object) -> Record:
    fields = {"digest": Digest.of(b"content"), "node": "a", "timestamp": 5, **fields}
    return Record(bucket="bucket", key=key, **fields)  # type: ignore[arg-type]


class Fixture:
    """Node a asks node b."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.index = MemoryIndex("b", epoch="e1")
        service = NamesService(self.index, node_id="b", now_ns=lambda: 0)
        self.service = service
        self.transport.services["b:7071"] = service  # type: ignore[assignment]
        self.peers = NamesPeers(self.transport, me="a")


def between_nodes(test: Callable[[Fixture], Awaitable[None]]) -> None:
    async def main() -> None:
        made = Fixture()
        await test(made)
        await made.peers.close()
        assert await left_running() == []

    virtual_time.run(main())


def answering(answer: object, ask: Callable[[NamesPeers], Awaitable[object]]) -> None:
    """What is asked is answered with this, and must be taken for nonsense."""

    class Odd(FakeTransport):
        async def exchange(
            self, address: str, path: str, body: bytes, *, timeout_seconds: float
        ) -> bytes:
            return encode(answer)

    async def main() -> None:
        peers = NamesPeers(Odd(), me="a")
        with pytest.raises(Unavailable):
            await ask(peers)
        await peers.close()

    virtual_time.run(main())


def test_pushed_records_are_there_when_it_returns() -> None:
    async def check(made: Fixture) -> None:
        assert await made.peers.push(B, [record("k"), record("m")]) == 2
        assert await made.peers.push(B, [record("k"), record("p")]) == 1
        assert await made.peers.push(B, []) == 0
        assert [change.record.key for change in await made.index.changes(0, 9)] == ["k", "m", "p"]

    between_nodes(check)


def test_many_pushes_at_once_share_a_few_messages() -> None:
    async def check(made: Fixture) -> None:
        pushes = [made.peers.push(B, [record(f"{number}")]) for number in range(300)]
        assert await asyncio.gather(*pushes) == [1] * 300
        assert len(made.transport.sent) <= 3

    between_nodes(check)


def test_no_message_has_more_records_than_a_batch_or_more_bytes_than_fit() -> None:
    async def check(made: Fixture) -> None:
        sizes: list[tuple[int, int]] = []
        service = made.service

        class Watching:
            async def exchange(self, path: str, body: bytes) -> bytes:
                request = decode(body, messages.PushRequest, "message")
                sizes.append((len(request.records), len(body)))
                return await service.exchange(path, body)

        made.transport.services["b:7071"] = Watching()  # type: ignore[assignment]
        large = {"x": "y" * 60_000}
        some = [record(f"{number}", metadata=large) for number in range(300)]
        await made.peers.push(B, [record(f"small{number}") for number in range(1500)] + some)
        assert sum(count for count, _ in sizes) == 1800
        assert max(count for count, _ in sizes) <= PEER_BATCH_BLOBS
        assert max(size for _, size in sizes) < 9 * 1024 * 1024

    between_nodes(check)


def test_a_refused_record_raises_the_refusal() -> None:
    async def check(made: Fixture) -> None:
        with pytest.raises(BadRequest):
            await made.peers.push(B, [record(""), record("k")])
        assert made.index.last_seq() == 0

    between_nodes(check)


def test_a_silent_member_is_given_up_after_a_while() -> None:
    async def check(made: Fixture) -> None:
        made.transport.silent = ["b:7071"]
        loop = asyncio.get_running_loop()
        for work in (made.peers.push(B, [record()]), made.peers.pull(B, None, 10)):
            began = loop.time()
            with pytest.raises(Unavailable):
                await work
            assert loop.time() - began == pytest.approx(PEER_STALL_SECONDS)

    between_nodes(check)


def test_another_node_at_the_address_is_not_taken_for_the_member() -> None:
    async def check(made: Fixture) -> None:
        for work in (
            made.peers.push(ELSEWHERE, [record()]),
            made.peers.pull(ELSEWHERE, None, 10),
            made.peers.ranges(ELSEWHERE, None, [None], 0),
            made.peers.range(ELSEWHERE, None, None, [], 0),
        ):
            with pytest.raises(Unavailable, match="c is meant"):
                await work
        assert made.index.last_seq() == 0

    between_nodes(check)


def test_who_pulls_tells_its_name_and_how_far_it_is() -> None:
    async def check(made: Fixture) -> None:
        await made.index.merge([record("k"), record("m")])
        answer = await made.peers.pull(B, None, 1)
        assert (answer.records, answer.position) == ([record("k")], Position("e1", 1))
        assert made.service.readers == {}
        await made.peers.pull(B, answer.position, 1)
        assert made.service.readers == {"a": Position("e1", 1)}

    between_nodes(check)


def test_ranges_and_what_is_in_them_are_asked_for() -> None:
    async def check(made: Fixture) -> None:
        some = [record("k"), record("m")]
        await made.index.merge(some)
        told = await made.peers.ranges(B, None, [("bucket", "l"), None], 0)
        assert told == [summarize([mark_of(each)], 0) for each in some]
        answer = await made.peers.range(B, None, None, [mark_of(some[0])], 0)
        assert (answer.records, answer.looked_to) == ([some[1]], None)

    between_nodes(check)


@pytest.mark.parametrize(
    "answer",
    [
        ["no answer"],
        messages.PullAnswer([record()] * 3, Position("e1", 3), 3),
        messages.PullAnswer([], Position("e1", 3), 9, more=True),
        messages.PullAnswer([], Position("../e1", 3), 9),
        messages.PullAnswer([], Position("e1", -3), 9),
        messages.PullAnswer([], Position("e1", 5), 3),
    ],
)
def test_an_answer_that_does_not_lead_on_is_no_page_of_a_feed(answer: object) -> None:
    answering(answer, lambda peers: peers.pull(B, E1, 2))


def test_answers_for_fewer_than_were_asked_are_none() -> None:
    answering(messages.PushAnswer([]), lambda peers: peers.push(B, [record()]))
    told = messages.RangesAnswer([Summary(0, b"")])
    answering(told, lambda peers: peers.ranges(B, None, [("b", "k"), None], 0))


@pytest.mark.parametrize("reached", [("bucket", "c"), ("bucket", "b"), ("bucket", "n")])
def test_a_part_of_a_range_must_end_inside_it(reached: tuple[str, str]) -> None:
    answer = messages.RangeAnswer([], reached)
    answering(answer, lambda peers: peers.range(B, ("bucket", "c"), ("bucket", "m"), [], 0))


def test_a_range_has_a_bounded_number_of_records() -> None:
    answer = messages.RangeAnswer([record()] * 6000)
    answering(answer, lambda peers: peers.range(B, None, None, [], 0))


def test_closing_gives_up_what_is_under_way() -> None:
    async def check(made: Fixture) -> None:
        made.transport.silent = ["b:7071"]
        push = asyncio.create_task(made.peers.push(B, [record()]))
        await asyncio.sleep(0.1)
        await made.peers.close()
        with pytest.raises(asyncio.CancelledError):
            await push

    between_nodes(check)
