"""An index that contradicts itself is told, and made anew from its records."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierce.blobs.environment import BLOBS, Environment, WriteBatch
from tierce.blobs.marks import is_managed, key_of, touch
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.names import checking
from tierce.names.keys import reference_key
from tierce.names.lmdb_index import (
    DATABASES,
    FEED,
    NAMES,
    RECORDS,
    REFERENCES,
    STATE_KEY,
    LmdbIndex,
)
from tierce.names.record import Record
from tierce.names.values import SUM_BYTES, State, with_sum
from tierce.testing.index_checks import check_whole, rows


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    """An index with five objects and two tombstones."""
    (tmp_path / "lmdb").mkdir()
    environment = Environment(tmp_path / "lmdb", databases=DATABASES)
    index = LmdbIndex(environment, "n")
    for number in range(5):
        content = Digest.of(bytes([number]))
        await index.write(Record(bucket="bucket", key=f"key {number}", digest=content), now=number)
    for number in range(2):
        await index.write(Record(bucket="bucket", key=f"gone {number}", deleted=True), now=9)
    yield environment
    await environment.close()


def first_key(environment: Environment, database: str) -> bytes:
    return min(rows(environment, database))


async def test_a_sound_index_has_no_problem(environment: Environment) -> None:
    assert checking.examine(environment) == checking.Found(7, [])


@pytest.mark.parametrize("database", [FEED, REFERENCES])
async def test_an_entry_that_is_missing_is_told_and_made_again(
    environment: Environment, database: str
) -> None:
    key = first_key(environment, database)
    await environment.write(lambda batch: batch.delete(database, key))
    assert len(checking.examine(environment).problems) == 1
    assert await environment.write(checking.rebuild) == 0
    check_whole(environment)


@pytest.mark.parametrize(
    ("database", "key"),
    [(FEED, bytes(8) + b"more"), (REFERENCES, reference_key(Digest.of(b"surplus"), 1))],
    ids=[FEED, "references"],
)
async def test_an_entry_too_many_is_told_and_removed(
    environment: Environment, database: str, key: bytes
) -> None:
    await environment.write(lambda batch: batch.put(database, key, b"x"))
    assert len(checking.examine(environment).problems) == 1
    await environment.write(checking.rebuild)
    check_whole(environment)


async def test_marks_and_blobs_are_no_references_and_stay(environment: Environment) -> None:
    key = key_of(Digest.of(bytes([1])))

    def put(batch: WriteBatch) -> None:
        batch.put(BLOBS, key, b"\x01\x01")
        touch(batch, key, 1)

    await environment.write(put)
    assert checking.examine(environment) == checking.Found(7, [])
    await environment.write(checking.rebuild)
    check_whole(environment)
    with environment.snapshot() as batch:
        assert batch.get(BLOBS, key) is not None
        assert is_managed(batch, key)


@pytest.mark.parametrize("state", [encode(State(clock=1)), b"\xffnonsense"], ids=["low", "damaged"])
async def test_wrong_counts_are_told_and_made_right(environment: Environment, state: bytes) -> None:
    await environment.write(lambda batch: batch.put(NAMES, STATE_KEY, state))
    assert checking.examine(environment).problems
    await environment.write(checking.rebuild)
    check_whole(environment)


async def test_a_record_that_can_not_be_read_is_dropped(environment: Environment) -> None:
    key = first_key(environment, RECORDS)
    await environment.write(lambda batch: batch.put(RECORDS, key, b"\x01damaged"))
    assert checking.examine(environment).problems
    assert await environment.write(checking.rebuild) == 1
    assert checking.examine(environment) == checking.Found(6, [])
    check_whole(environment)


async def test_two_records_with_one_number_get_one_each(environment: Environment) -> None:
    keys = sorted(rows(environment, RECORDS))

    def change(batch: WriteBatch) -> None:
        twin = bytes(batch.get(RECORDS, keys[0]) or b"")
        # The last byte of a short number in the encoding: version, array head, number.
        other = bytearray(batch.get(RECORDS, keys[1]) or b"")
        other[2] = twin[2]
        batch.put(RECORDS, keys[1], with_sum(bytes(other[:-SUM_BYTES])))

    await environment.write(change)
    assert checking.examine(environment).problems
    assert await environment.write(checking.rebuild) == 0
    check_whole(environment)
