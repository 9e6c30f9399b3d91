"""Comparing range by range: all that is missing comes, in bounded parts, and nothing else."""

from collections.abc import Callable, Iterable, Sequence
from random import Random

import pytest
from tests.unit.node.fakes import FakeTransport, members

from tierce.core.digest import Digest
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import comparing, names_service
from tierce.node import names_messages as messages
from tierce.node.comparing import compare
from tierce.node.names_peers import NamesPeers
from tierce.node.names_service import NamesService, merge_heard
from tierce.node.pacing import Pace
from tierce.testing import virtual_time

A, B = members(2)


def record(number: int, timestamp: int = 5) -> Record:
    key, digest = f"{number:03}", Digest.of(b"content")
    return Record(bucket="bucket", key=key, timestamp=timestamp, node="z", digest=digest)


def compared(
    here: Iterable[Record],
    there: Iterable[Record],
    *,
    on_take: Callable[[MemoryIndex], None] = lambda _: None,
) -> tuple[MemoryIndex, MemoryIndex, int, list[str]]:
    """Let node a compare with b: both indexes, how many records were news, and what was asked."""

    async def main() -> tuple[MemoryIndex, MemoryIndex, int, list[str]]:
        mine, other = MemoryIndex("a"), MemoryIndex("b")
        await mine.merge(list(here))
        await other.merge(list(there))
        transport = FakeTransport()
        transport.services["b:7071"] = NamesService(other, node_id="b", now_ns=lambda: 0)  # type: ignore[assignment]
        peers = NamesPeers(transport, me="a")

        async def take(records: Sequence[Record]) -> int:
            on_take(other)
            return sum(await merge_heard(mine, records, 0))

        news = await compare(mine, peers, B, take, horizon=0, pace=Pace(0))
        await peers.close()
        return mine, other, news, [path for _, path in transport.sent]

    return virtual_time.run(main())


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "RANGE_RECORDS", 10)
    monkeypatch.setattr(names_service, "RANGE_READ_RECORDS", 25)
    monkeypatch.setattr(names_service, "SYNC_MESSAGE_BYTES", 4000)


def keys(index: MemoryIndex) -> set[str]:
    return {key for _, key in index.changed}


@pytest.mark.usefixtures("_small")
def test_a_node_without_records_gets_all_part_by_part() -> None:
    mine, other, news, asked = compared([], map(record, range(200)))
    assert keys(mine) == keys(other)
    assert news == 200
    assert asked.count(messages.RANGES) == 1
    assert 200 / 25 <= asked.count(messages.RANGE) <= 20


@pytest.mark.usefixtures("_small")
def test_equal_records_are_not_sent() -> None:
    _, _, news, asked = compared(map(record, range(200)), map(record, range(200)))
    assert news == 0
    assert asked == [messages.RANGES] * 3


@pytest.mark.usefixtures("_small")
def test_one_difference_costs_one_range() -> None:
    there = [record(number, 6 if number == 77 else 5) for number in range(200)]
    mine, _, news, asked = compared(map(record, range(200)), there)
    assert news == 1
    assert mine.get("bucket", "077") == record(77, 6)
    assert asked.count(messages.RANGE) == 1


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("seed", range(5))
def test_this_node_has_the_newer_of_everything_and_the_other_one_is_left_alone(seed: int) -> None:
    random = Random(seed)
    sides = [
        [record(number, random.randrange(3)) for number in range(300) if random.random() < share]
        for share in (random.random(), random.random())
    ]
    mine, other, _, _ = compared(*sides)
    expected = {each.key: each for each in sides[0]}
    for each in sides[1]:
        known = expected.get(each.key)
        expected[each.key] = each if known is None or each.rank > known.rank else known
    assert {key: change.record for (_, key), change in mine.changed.items()} == expected
    assert other.last_seq() == len(sides[1])


@pytest.mark.usefixtures("_small")
def test_names_that_come_in_the_meantime_do_not_disturb() -> None:
    numbers = iter(range(300, 900))

    def write(other: MemoryIndex) -> None:
        other._accept(record(next(numbers)))

    mine, _, _, _ = compared([], map(record, range(200)), on_take=write)
    assert keys(mine) >= {f"{number:03}" for number in range(200)}
