"""Group commit: many writes, few syncs, each writer told of its own."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tierce.blobs.environment import BLOBS, Environment, WriteBatch
from tierce.blobs.store import Counts
from tierce.core.errors import BadRequest, Full
from tierce.core.limits import BATCH_LIMIT_WRITES
from tierce.core.metrics import COMMITS


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    environment = Environment(tmp_path)
    yield environment
    await environment.close()


def commits() -> float:
    return float(COMMITS._value.get())


def put(key: bytes, value: bytes = b"value") -> Callable[[WriteBatch], None]:
    return lambda batch: batch.put(BLOBS, key, value)


def value_of(environment: Environment, key: bytes) -> bytes | None:
    with environment.read() as transaction:
        value = transaction.get(key, db=environment.database(BLOBS))
        return None if value is None else bytes(value)


async def test_writes_that_come_together_share_a_commit(environment: Environment) -> None:
    before = commits()
    await asyncio.gather(*(environment.write(put(b"%d" % n)) for n in range(200)))
    assert commits() - before <= 2
    assert value_of(environment, b"199") == b"value"


async def test_a_batch_is_bounded_in_writes(environment: Environment) -> None:
    before = commits()
    count = 2 * BATCH_LIMIT_WRITES + 1
    await asyncio.gather(*(environment.write(put(b"%d" % n)) for n in range(count)))
    assert commits() - before >= 3


async def test_what_changes_share_is_loaded_and_written_once_in_a_batch(
    environment: Environment,
) -> None:
    shared: list[list[int]] = []
    written: list[int] = []

    def load() -> list[int]:
        shared.append([])
        return shared[-1]

    def change(batch: WriteBatch, number: int) -> bool:
        numbers = batch.once("numbers", load)
        numbers.append(number)
        return batch.at_end("numbers", lambda: written.extend(numbers))

    before = commits()
    changes = [functools.partial(change, number=number) for number in range(20)]
    firsts = await asyncio.gather(*map(environment.write, changes))
    assert written == list(range(20))
    assert sum(firsts) == len(shared) == commits() - before


async def test_a_refused_change_leaves_its_neighbours_alone(environment: Environment) -> None:
    def refuse(batch: WriteBatch) -> None:
        raise BadRequest("no")

    results = await asyncio.gather(
        environment.write(put(b"a")),
        environment.write(refuse),
        environment.write(put(b"b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], BadRequest)
    assert value_of(environment, b"a") == value_of(environment, b"b") == b"value"


async def test_a_change_is_visible_once_its_writer_is_told(environment: Environment) -> None:
    for number in range(20):
        key = b"%d" % number
        await environment.write(put(key))
        assert value_of(environment, key) == b"value"


async def test_a_writer_that_gives_up_does_not_harm_the_batch(environment: Environment) -> None:
    first = asyncio.ensure_future(environment.write(put(b"first")))
    second = asyncio.ensure_future(environment.write(put(b"second")))
    await asyncio.sleep(0)
    second.cancel()
    await first
    await environment.write(put(b"third"))
    assert value_of(environment, b"third") == b"value"


async def test_counts_add_up_over_batches(environment: Environment) -> None:
    for _ in range(3):
        await asyncio.gather(
            *(environment.write(lambda batch: batch.count("kind", 1, 10)) for _ in range(5))
        )
    assert environment.counts("kind") == Counts(15, 150)
    assert environment.counts("other") == Counts(0, 0)


async def test_counts_can_be_set_anew(environment: Environment) -> None:
    await environment.write(lambda batch: batch.count("kind", 1, 10))
    await environment.write(lambda batch: batch.set_counts("kind", Counts(7, 70)))
    assert environment.counts("kind") == Counts(7, 70)


async def test_an_index_at_its_largest_size_is_full_and_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    environment = Environment(tmp_path / "small", map_bytes=1 << 20)
    await environment.write(put(b"kept"))
    with pytest.raises(Full):
        for number in range(100):
            await environment.write(put(b"%d" % number, b"x" * 60_000))
    assert value_of(environment, b"kept") == b"value"
    await environment.close()


async def test_pages_that_were_freed_count_as_room(environment: Environment) -> None:
    before = environment.free_bytes()
    await asyncio.gather(*(environment.write(put(b"%d" % n, b"x" * 50_000)) for n in range(100)))
    assert environment.free_bytes() < before + 1_000_000

    def remove(batch: WriteBatch) -> None:
        for number in range(100):
            batch.delete(BLOBS, b"%d" % number)

    await environment.write(remove)
    assert environment.free_bytes() > 4_000_000


async def test_the_index_never_gives_up_its_syncs(environment: Environment) -> None:
    flags = environment._lmdb.flags()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["writemap"]
    assert not flags["map_async"]
