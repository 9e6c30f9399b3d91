"""The index of nodes: as the one in memory, whole after a kill, right with several writers."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierce.blobs.environment import LOOSE, Environment, WriteBatch
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt
from tierce.core.limits import INDEX_KEY_BYTES, OBJECT_KEY_BYTES
from tierce.core.metrics import DAMAGED_RECORDS
from tierce.names import checking
from tierce.names.changes import Position, resume
from tierce.names.index import NameCounts
from tierce.names.keys import index_key, reference_key, whole_key
from tierce.names.lmdb_index import DATABASES, FEED, NAMES, RECORDS, REFERENCES, LmdbIndex
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.names.values import SUM_BYTES, Entry, read_entry, with_sum
from tierce.testing.blob_contract import write_now
from tierce.testing.index_checks import check_whole, rows
from tierce.testing.index_contract import (
    CONTENT,
    KEYS,
    LONG,
    NODE,
    OTHER,
    keys_of,
    record,
    tombstone,
)


def open_environment(directory: Path) -> Environment:
    return Environment(directory, databases=DATABASES)


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    environment = open_environment(tmp_path)
    yield environment
    await environment.close()


# As the index in memory

some_records = st.builds(
    Record,
    bucket=st.sampled_from(["bucket", "bucket-2"]),
    key=st.sampled_from([KEYS[0], KEYS[3], "é", LONG, *[key for key in KEYS if LONG in key]]),
    timestamp=st.integers(0, 3),
    node=st.sampled_from(["a", "b"]),
    digest=st.sampled_from([None, CONTENT, OTHER]),
    size=st.integers(0, 1),
    deleted=st.booleans(),
    is_upstream=st.booleans(),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), some_records, st.integers(0, 9)),
        st.tuples(st.just("merge"), st.lists(some_records, max_size=8)),
        st.tuples(st.just("merge"), st.lists(some_records, max_size=8)),
        st.tuples(st.just("drop"), some_records),
        st.tuples(st.just("epoch"), st.sampled_from("ABC")),
    ),
    max_size=8,
)


async def apply(index: MemoryIndex | LmdbIndex, step: tuple[Any, ...]) -> object:
    if step[0] == "write":
        return await index.write(step[1], now=step[2], check=forbid_odd)
    if step[0] == "merge":
        return await index.merge(step[1])
    if step[0] == "epoch":
        await index.begin_epoch(step[1])
        return None
    known = index.get(step[1].bucket, step[1].key)
    return await index.drop(step[1].bucket, step[1].key, known.timestamp if known else 0)


def forbid_odd(known: Record | None) -> None:
    if known is not None and known.size:
        raise Conflict(f"{known.key} has the size {known.size}")


async def seen(index: MemoryIndex | LmdbIndex) -> list[object]:
    """All that can be read of an index."""
    told: list[object] = [index.last_seq(), index.counts(), index.epochs()[1:]]
    told += [await index.changes(0, 100), await index.changes(2, 3)]
    told += [await index.scan_after(None, 100), await index.scan_after(("bucket", LONG + "b"), 3)]
    for prefix in ("", LONG, LONG + "a", LONG + "é"):
        for after in ("", "a", LONG, LONG + "a", LONG + "é0"):
            told.append(await index.list_after("bucket", prefix, after, 4, deleted=not after))
    told += [
        sorted(index.refers(digest), key=lambda each: (each.bucket, each.key))
        for digest in (CONTENT, OTHER)
    ]
    told += [index.get("bucket", key) for key in KEYS]
    return told


@settings(max_examples=60, deadline=None)
@given(steps)
def test_it_is_as_the_index_in_memory(steps: list[tuple[Any, ...]]) -> None:
    async def run(directory: Path) -> None:
        environment = open_environment(directory)
        try:
            index, memory = LmdbIndex(environment, NODE), MemoryIndex(NODE)
            for step in [("epoch", "FIRST"), *steps]:
                results = []
                for each in (memory, index):
                    try:
                        results.append(await apply(each, step))
                    except Conflict as error:
                        results.append(error.message)
                assert results[0] == results[1]
            assert await seen(index) == await seen(memory)
            check_whole(environment)
        finally:
            await environment.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


async def test_names_that_share_all_that_is_kept_of_them_list_in_order(
    environment: Environment,
) -> None:
    index = LmdbIndex(environment, NODE)
    same = "x" * INDEX_KEY_BYTES
    keys = sorted([same, *(f"{same}{number}" for number in range(300)), same + "\U0010ffff" * 156])
    assert len(keys[-1].encode()) == OBJECT_KEY_BYTES
    await index.merge([record(key) for key in [*keys, same[:-1], same[:-1] + "y"]])
    listed: list[str] = []
    while page := await index.list_after("bucket", same, listed[-1] if listed else "", 7):
        listed += [each.key for each in page]
    assert listed == keys
    check_whole(environment)


# In somebody's transaction


async def test_a_blob_and_its_record_are_one_change(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)

    def put(batch: WriteBatch) -> Record:
        written = index.write_in(batch, record("key"), now=5, check=forbid_odd)
        batch.put(LOOSE, b"blob", b"bytes")
        return written

    await index.merge([record("key", size=1)])
    with pytest.raises(Conflict):
        await environment.write(put)
    assert rows(environment, LOOSE) == {}
    await index.merge([record("key", 2, size=0)])
    written = await environment.write(put)
    assert rows(environment, LOOSE) == {b"blob": b"bytes"}
    assert index.get("bucket", "key") == written
    assert await environment.write(lambda batch: index.get_in(batch, "bucket", "key")) == written


async def test_one_record_is_merged_in_a_change(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    for expected in (True, False):
        changed = await environment.write(lambda batch: index.merge_in(batch, record("key")))
        assert changed is expected


async def test_a_change_can_ask_whether_a_blob_is_referred_to(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("key")])

    def ask(batch: WriteBatch) -> list[bool]:
        return [index.refers_in(batch, digest) for digest in (CONTENT, OTHER)]

    assert await environment.write(ask) == [True, False]
    await index.write(tombstone("key"), now=1)
    assert await environment.write(ask) == [False, False]


async def test_every_accepted_change_is_told_in_its_transaction(environment: Environment) -> None:
    told: list[tuple[Record | None, Record]] = []

    def on_change(batch: WriteBatch, old: Record | None, new: Record) -> None:
        assert index.get_in(batch, new.bucket, new.key) == new
        told.append((old, new))
        batch.put(LOOSE, new.key.encode(), b"told")

    index = LmdbIndex(environment, NODE, on_change=on_change)
    first, flagged = record("key", 5), record("key", 5, is_upstream=True)
    assert await index.merge([first, flagged, first, record("key", 4)]) == [
        True,
        True,
        False,
        False,
    ]
    gone = await index.write(tombstone("key"), now=9)
    with pytest.raises(Conflict):
        await index.write(record("forbidden"), now=10, check=refuse)
    assert told == [(None, first), (first, flagged), (flagged, gone)]
    assert rows(environment, LOOSE) == {b"key": b"told"}


def refuse(known: Record | None) -> None:
    raise Conflict("never")


# Epochs


async def test_all_handles_agree_on_the_first_epoch(environment: Environment) -> None:
    first, second = LmdbIndex(environment, NODE), LmdbIndex(environment, NODE)
    assert first.epochs() == second.epochs()
    await second.write(record("key"), now=1)
    assert first.epochs() == second.epochs()
    await first.begin_epoch("NEXT")
    assert second.epochs()[-1] == ("NEXT", 1)


async def test_numbers_of_another_disk_are_not_taken_for_those_of_this(tmp_path: Path) -> None:
    positions: list[Position] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        environment = open_environment(tmp_path / name)
        index = LmdbIndex(environment, NODE)
        await index.write(record("key"), now=1)
        positions.append(Position(index.epochs()[-1].name, 1))
        told = [resume(index.epochs(), index.last_seq(), each) for each in positions]
        await environment.close()
    assert told == [None, 1]


# Several processes, and none that ends well

WRITER = """
import asyncio, sys
from pathlib import Path
from tierce.blobs.environment import Environment
from tierce.core.digest import Digest
from tierce.names.lmdb_index import DATABASES, LmdbIndex
from tierce.names.record import Record

async def main(directory, node, count):
    environment = Environment(Path(directory), databases=DATABASES)
    index = LmdbIndex(environment, node)
    async def write(number):
        digest = Digest.of(b"%d" % (number % 50))
        draft = Record(bucket="bucket", key=f"key-{number % 70}", digest=digest, size=number)
        record = await index.write(draft, now=1000 + number)
        print(record.timestamp, record.key, flush=True)
    number = 0
    while number < count:
        await asyncio.gather(*(write(number + more) for more in range(20)))
        number += 20
    await environment.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(directory: Path, node: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), node, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def test_writes_of_two_processes_all_count(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, node, 400) for node in ("node-1", "node-2")]
    printed = [writer.communicate(timeout=30)[0].split("\n") for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    stamps = [line.split()[0] for lines in printed for line in lines if line]
    assert len(stamps) == len(set(stamps)) == 800
    environment = open_environment(tmp_path)
    index = LmdbIndex(environment, NODE)
    assert (index.last_seq(), index.counts()) == (800, NameCounts(70, 0))
    assert len(index.epochs()) == 2
    check_whole(environment)
    await environment.close()


async def test_after_a_kill_all_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)  # one that stays, as another worker does
    index = LmdbIndex(environment, NODE)
    for lines in (3, 50, 131):
        writer = start_writer(tmp_path, "node-1", 1_000_000)
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().split() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=10)
        acknowledged += [
            line.split() for line in writer.stdout.read().split("\n") if " key-" in line
        ]
        writer.stdout.close()
        for timestamp, key in acknowledged:
            known = index.get("bucket", key)
            assert known is not None
            assert known.timestamp >= int(timestamp)
        check_whole(environment)
    await environment.close()


# Damage


def harm(environment: Environment, database: str, key: bytes, value: bytes) -> None:
    write_now(environment, lambda batch: batch.put(database, key, value))


NAME = whole_key("bucket", "bad")


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01", b"\x07\x00", b"\x01\xc1", b"\x01\x92\x01", b"\x01" + b"\x91" * 3000,
     encode(Entry(1, record("another"))), encode(Entry(1, record("bad")))[:-9]],
    ids=["empty", "version only", "version", "type", "cut", "deep", "misplaced", "cut late"],
)  # fmt: skip
async def test_a_damaged_record_is_told_and_harms_no_other(
    environment: Environment, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("bad"), record("good", digest=OTHER), record("late", digest=OTHER)])
    harm(environment, RECORDS, NAME, value)
    before = {database: rows(environment, database) for database in DATABASES}
    counted = DAMAGED_RECORDS._value.get()
    for _ in range(2):
        assert keys_of(await index.list_after("bucket", "", "", 5)) == ["good", "late"]
        assert keys_of(await index.scan_after(None, 5)) == ["good", "late"]
        changes = await index.changes(0, 5)
        assert [each.record.key for each in changes] == ["good", "late"]
        with pytest.raises(Corrupt) as caught:
            index.get("bucket", "bad")
        assert "tierce doctor --repair" in caught.value.hint
    for changing in (index.write(record("bad"), now=5), index.drop("bucket", "bad", 1)):
        with pytest.raises(Corrupt):
            await changing
    assert len([each for each in caplog.records if "can't be used" in each.message]) == 1
    assert DAMAGED_RECORDS._value.get() == counted + 1
    assert index.counts() == NameCounts(3, 0, damaged=1)
    assert {database: rows(environment, database) for database in DATABASES} == before
    assert index.get("bucket", "good") == record("good", digest=OTHER)
    assert await index.list_after("bucket", "", "good", 5) == [record("late", digest=OTHER)]
    assert len(index.refers(OTHER)) == 2
    await index.write(record("good"), now=6)


async def test_damaged_records_with_long_names_are_passed_over(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    long = [LONG + each for each in "abc"]
    await index.merge([record(key) for key in ["a", *long, "zz"]])
    harm(environment, RECORDS, index_key(whole_key("bucket", long[1])), b"\x01\xc1")
    expected = ["a", long[0], long[2], "zz"]
    assert keys_of(await index.scan_after(None, 9)) == sorted(expected)
    listed = await index.list_after("bucket", LONG, long[0], 1)
    assert keys_of(listed) == [long[2]]


async def test_a_key_that_names_nothing_is_passed_over(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("a"), record("b")])
    harm(environment, RECORDS, b"bucket-without-a-key", encode(Entry(1, record("a"))))
    assert keys_of(await index.scan_after(None, 9)) == ["a", "b"]


async def test_a_page_is_full_though_damaged_records_are_in_its_way(
    environment: Environment,
) -> None:
    """A short page would mean the end, and a reader would stop there."""
    index = LmdbIndex(environment, NODE)
    await index.merge([record(f"{number:02}") for number in range(9)])
    for number in (0, 1, 4):
        harm(environment, RECORDS, whole_key("bucket", f"{number:02}"), b"")
    assert keys_of(await index.list_after("bucket", "", "", 3)) == ["02", "03", "05"]
    assert keys_of(await index.scan_after(None, 3)) == ["02", "03", "05"]
    assert [each.seq for each in await index.changes(0, 3)] == [3, 4, 6]


@pytest.mark.parametrize("digest", [CONTENT, OTHER], ids=["same content", "another content"])
@pytest.mark.parametrize("merged", [1, 2], ids=["same version", "a later one"])
async def test_a_merge_replaces_a_damaged_record(
    environment: Environment, merged: int, digest: Digest
) -> None:
    told: list[tuple[Record | None, Record]] = []
    index = LmdbIndex(environment, NODE, on_change=lambda batch, old, new: told.append((old, new)))
    await index.merge([record("bad", 1), record("good")])
    harm(environment, RECORDS, NAME, encode(Entry(1, record("bad")))[:-9])
    mended = record("bad", merged, digest=digest)
    assert await index.merge([mended, mended, record("new")]) == [True, False, True]
    assert told[2:] == [(None, mended), (None, record("new"))]
    assert index.get("bucket", "bad") == mended
    assert keys_of(await index.scan_after(None, 9)) == ["bad", "good", "new"]
    assert [each.seq for each in await index.changes(0, 9)] == [2, 3, 4]
    assert index.counts() == NameCounts(3, 0)
    assert mended in index.refers(digest)
    await index.merge([record("bad", 3, digest=OTHER)])
    assert "bad" not in keys_of(index.refers(CONTENT))
    await environment.write(checking.rebuild)
    check_whole(environment)
    assert checking.examine(environment) == checking.Found(3, [])


async def test_a_content_that_a_damaged_record_may_have_is_referred_to(
    environment: Environment,
) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("bad")])
    harm(environment, RECORDS, NAME, b"")

    def ask(batch: WriteBatch) -> bool:
        return index.refers_in(batch, CONTENT)

    assert await environment.write(ask)
    with pytest.raises(Corrupt):
        index.refers(CONTENT)
    await index.merge([record("bad", 2)])
    assert await environment.write(ask)
    assert keys_of(index.refers(CONTENT)) == ["bad"]
    await index.merge([tombstone("bad", 3)])
    assert not await environment.write(ask)
    assert index.refers(CONTENT) == []
    assert await index.drop("bucket", "bad", 3)
    assert not await environment.write(ask)
    assert await index.changes(0, 5) == []


async def test_a_row_of_a_record_that_was_never_mended_is_not_stale(
    environment: Environment,
) -> None:
    """A reference may lead to another record because its row in the feed is damaged."""
    index = LmdbIndex(environment, NODE)
    await index.merge([record("a"), record("b", digest=OTHER)])
    harm(environment, FEED, (1).to_bytes(8), whole_key("bucket", "b"))
    assert await environment.write(lambda batch: index.refers_in(batch, CONTENT))


async def test_a_feed_that_leads_nowhere_is_passed_over(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("a"), record("b")])
    harm(environment, FEED, (1).to_bytes(8), whole_key("bucket", "b"))
    assert [each.seq for each in await index.changes(0, 5)] == [2]
    with pytest.raises(Corrupt, match="change 1"):
        index.refers(CONTENT)
    for leads_to in (whole_key("bucket", "gone"), b"", b"x" * 600):
        harm(environment, FEED, (1).to_bytes(8), leads_to)
        assert [each.seq for each in await index.changes(0, 5)] == [2]
    assert index.counts().damaged == 0
    assert [each.record for each in await index.changes(1, 5)] == [record("b")]


async def test_a_reference_to_another_content_is_told(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("a")])
    missing = Digest.of(b"missing")
    harm(environment, REFERENCES, reference_key(missing, 1), b"")
    with pytest.raises(Corrupt, match="another content"):
        index.refers(missing)


@pytest.mark.parametrize("key", [b"state", b"epochs"])
async def test_a_damaged_state_is_told(environment: Environment, key: bytes) -> None:
    index = LmdbIndex(environment, NODE)
    await index.write(record("a"), now=1)
    harm(environment, NAMES, key, b"\x01\xc1")
    with pytest.raises(Corrupt):
        (index.counts if key == b"state" else index.epochs)()


async def test_a_flipped_bit_anywhere_in_a_record_is_found(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("bad")])
    with environment.snapshot() as batch:
        whole = bytes(batch.get(RECORDS, NAME) or b"")
    assert len(whole) > 2 * SUM_BYTES
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            read_entry(memoryview(flipped))
    harm(environment, RECORDS, NAME, bytes(flipped))
    with pytest.raises(Corrupt, match="checksum"):
        index.get("bucket", "bad")


async def test_a_longer_record_of_a_later_version_is_read(environment: Environment) -> None:
    index = LmdbIndex(environment, NODE)
    await index.merge([record("bad")])
    fields = [*msgspec.structs.astuple(record("bad")), "a field of a later version"]
    harm(environment, RECORDS, NAME, with_sum(encode([1, fields])))
    assert index.get("bucket", "bad") == record("bad")


async def test_a_reserved_time_outlives_a_restart(tmp_path: Path) -> None:
    environment = open_environment(tmp_path)
    reserved = await LmdbIndex(environment, NODE).reserve(1000)
    await environment.close()
    environment = open_environment(tmp_path)
    try:
        index = LmdbIndex(environment, NODE)
        assert index.latest() == reserved
        assert await index.reserve(10) == reserved + 1
        assert (await index.write(record("key"), now=10)).timestamp == reserved + 2
    finally:
        await environment.close()
