"""Comparing range by range: all that is missing comes, in bounded parts, and nothing else."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from tests.unit.node.fakes import FakeTransport, members

from tierce.blobs.environment import Environment
from tierce.core.digest import Digest
from tierce.names.index import NameCounts
from tierce.names.keys import whole_key
from tierce.names.lmdb_index import DATABASES, RECORDS, LmdbIndex
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


# Damage


@asynccontextmanager
async def damaged_index(
    directory: Path, records: Sequence[Record], bad: Record
) -> AsyncIterator[LmdbIndex]:
    """An index on disk that has these records, and bytes that are none in the place of ``bad``."""
    environment = Environment(directory, databases=DATABASES)
    try:
        index = LmdbIndex(environment, "a")
        await index.merge(records)
        key = whole_key(bad.bucket, bad.key)
        await environment.write(lambda batch: batch.put(RECORDS, key, b"\x01\xc1"))
        yield index
    finally:
        await environment.close()


async def test_what_is_damaged_here_comes_from_the_peer(tmp_path: Path) -> None:
    records = [record(number) for number in range(5)]
    async with damaged_index(tmp_path, records, records[2]) as mine:
        other = MemoryIndex("b")
        await other.merge(records)
        transport = FakeTransport()
        transport.services["b:7071"] = NamesService(other, node_id="b", now_ns=lambda: 0)  # type: ignore[assignment]
        peers = NamesPeers(transport, me="a")

        async def take(records: Sequence[Record]) -> int:
            return sum(await merge_heard(mine, records, 0))

        assert await compare(mine, peers, B, take, horizon=0, pace=Pace(0)) == 1
        assert await mine.scan_after(None, 9) == records
        assert mine.get("bucket", records[2].key) == records[2]
        assert mine.counts() == NameCounts(5, 0)
        assert await compare(mine, peers, B, take, horizon=0, pace=Pace(0)) == 0
        await peers.close()


async def test_what_is_damaged_there_keeps_no_other_record_from_coming(tmp_path: Path) -> None:
    records = [record(number) for number in range(5)]
    async with damaged_index(tmp_path, records, records[2]) as other:
        mine = MemoryIndex("a")
        await mine.merge(records[2:4])
        transport = FakeTransport()
        transport.services["b:7071"] = NamesService(other, node_id="b", now_ns=lambda: 0)  # type: ignore[assignment]
        peers = NamesPeers(transport, me="a")
        answer = await peers.pull(B, None, 100)
        assert ([each.key for each in answer.records], answer.more) == (
            ["000", "001", "003", "004"],
            False,
        )

        async def take(records: Sequence[Record]) -> int:
            return sum(await merge_heard(mine, records, 0))

        assert await compare(mine, peers, B, take, horizon=0, pace=Pace(0)) == 3
        assert await mine.scan_after(None, 9) == records
        await peers.push(B, records[2:3])
        assert other.get("bucket", records[2].key) == records[2]
        await peers.close()
