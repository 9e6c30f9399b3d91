"""Measurements of the index of names: its size, how it is listed and started on, and its exchange.

The records are those of files of level 0 on a node that isn't there: no node copies, heals or fetches
what they name, so that the figures are those of the records alone.
"""

import asyncio
import contextlib
import http.client
import json
import os
import random
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import msgspec
from blake3 import blake3

from bench import load, servers
from tierce.blobs.environment import Environment
from tierce.core.digest import Digest
from tierce.core.limits import SYNC_RECORDS_PER_SECOND
from tierce.names.lmdb_index import DATABASES, LmdbIndex
from tierce.names.record import LOCAL, NEAR_CACHE_BUCKET, Record

INDEXED_COUNT = 1_000_000
SYNCED_COUNT = 100_000
PAGE_COUNT = 1000
LOOKED_UP_COUNT = 10_000
PATIENCE_SECONDS = 600.0

_ABSENT_NODE = "01JZ8PGS0M0000000000000000"
_MIB = 1 << 20


class Fact(NamedTuple):
    """A line of the table: what, its figure, what to compare it with, and a note."""

    what: str
    figure: str
    reference: str = "-"
    note: str = ""


class _Page(msgspec.Struct):
    """What counts of a page of a listing."""

    objects: list[msgspec.Raw]
    next: str | None


def index_records(
    work: Path, pairs: int, seconds: int, count: int = INDEXED_COUNT
) -> Iterator[Fact]:
    """Size of an index of so many records, its listing, look-ups in it, and starts on it."""
    empty, full = work / "empty", work / "full"
    for data in (empty, full):
        with servers.node(data):
            pass
    before = _index_bytes(full)
    took = asyncio.run(_fill(full, count))
    yield Fact(
        f"writing {count:,} records, 2,000 in a transaction", f"{count / took:,.0f} records/s"
    )
    yield from _sizes(full, count, before)
    yield from _starts(empty, full, count, pairs)
    yield asyncio.run(_looked_up(full, count))
    with servers.node(full, workers=1, doors=("native", "objstore")) as addresses:
        yield _listed(addresses["native"], count)
        paths = [f"/api/v1/meta/{_key(each)}" for each in _some(count)]
        base = "http://" + addresses["objstore"]
        for connections in (1, 32):
            run = load.get(base, paths, work, connections=connections, seconds=seconds)
            assert not run.failed, run
            yield Fact(
                f"objstore meta of one record, {connections} connection(s)",
                f"{run.rate:,.0f}/s",
                note=f"p50 {run.p50_ms:.2f} ms, p99 {run.p99_ms:.2f} ms",
            )


def sync_records(work: Path, pairs: int, seconds: int, count: int = SYNCED_COUNT) -> Iterator[Fact]:
    """An empty node that joins one with so many records, until it has them all."""
    del seconds  # as long as it takes
    full = work / "full"
    with servers.node(full):
        pass
    alone = asyncio.run(_fill(full, count))
    spent: list[float] = []
    with servers.node(full, workers=1) as first:
        for number in range(pairs):
            started = time.perf_counter()
            with servers.node(
                work / f"new-{number}", "--join", first["private"], workers=1
            ) as second:
                _wait_for_records(second["native"], count)
                spent.append(time.perf_counter() - started)
                listed = sum(len(page.objects) for _, page in _pages(second["native"]))
                assert listed == count, f"{listed} of {count} records came"
    took = statistics.median(spent)
    yield Fact(
        f"sync of {count:,} records to an empty node",
        f"{took:.1f} s",
        f"writing them here: {alone:.1f} s",
        f"{count / took:,.0f} records/s, from its start; a node reads"
        f" {SYNC_RECORDS_PER_SECOND:,.0f} in a second at most",
    )


def line(fact: Fact) -> str:
    """A row of the table."""
    note = f" ({fact.note})" if fact.note else ""
    return f"| {fact.what}{note} | {fact.figure} | {fact.reference} |"


def report(facts: list[Fact]) -> list[str]:
    """The part of RESULTS.md about the index of names."""
    return [
        "",
        "# Measured speed of the index of names",
        "",
        "Records of files of the objstore door, each with a file name and one entry of user metadata.",
        "Starts are from the disk, not from the page cache. Listing is by one client, page after page.",
        "",
        "| measured | figure | reference in the same run |",
        "|---|---|---|",
        *map(line, facts),
        "",
    ]


def _key(number: int) -> str:
    """The key of a record: ids in the order of time, as clients make them."""
    return f"01JZ8PGS{number:08d}" + "0123456789"


def _record(number: int) -> Record:
    return Record(
        bucket=NEAR_CACHE_BUCKET,
        key=_key(number),
        timestamp=1_750_000_000_000_000_000 + number,
        node=_ABSENT_NODE,
        digest=Digest("blake3", blake3(number.to_bytes(8)).digest()),
        size=4096,
        name=f"photo-{number:08d}.jpg",
        metadata={"camera": "X100"},
        level=LOCAL,
    )


async def _fill(data: Path, count: int) -> float:
    """Write records into the index of a node that does not run; returns the seconds spent there."""
    environment = Environment(data / "lmdb", databases=DATABASES)
    index = LmdbIndex(environment, _ABSENT_NODE)
    spent = 0.0
    try:
        for start in range(0, count, 50_000):
            some = [_record(number) for number in range(start, min(count, start + 50_000))]
            started = time.perf_counter()
            assert all(await index.merge(some))
            spent += time.perf_counter() - started
    finally:
        await environment.close()
    return spent


async def _looked_up(data: Path, count: int) -> Fact:
    environment = Environment(data / "lmdb", databases=DATABASES)
    index = LmdbIndex(environment, _ABSENT_NODE)
    spent: list[float] = []
    try:
        for number in _some(count):
            key = _key(number)
            started = time.perf_counter()
            found = index.get(NEAR_CACHE_BUCKET, key)
            spent.append(time.perf_counter() - started)
            assert found is not None, key
    finally:
        await environment.close()
    spent.sort()
    return Fact(
        f"looking up one of {count:,} records in the process",
        f"{statistics.median(spent) * 1e6:.0f} µs",
        note=f"p99 {spent[len(spent) * 99 // 100] * 1e6:.0f} µs",
    )


def _sizes(data: Path, count: int, before: dict[str, int]) -> Iterator[Fact]:
    size = (data / "lmdb" / "data.mdb").stat().st_size
    after = _index_bytes(data)
    used = {name: after[name] - before[name] for name in after}
    parts = ", ".join(f"{name} {used[name] / count:.0f}" for name in DATABASES if used[name])
    yield Fact(f"index file with {count:,} records", f"{size / _MIB:,.0f} MiB")
    yield Fact(
        "bytes in use a record", f"{sum(used.values()) / count:.0f}", note=f"of them {parts}"
    )
    yield Fact("bytes of the encoded record", f"{len(msgspec.msgpack.encode(_record(1)))}")


def _index_bytes(data: Path) -> dict[str, int]:
    """Bytes of the pages in use, by database."""
    with lmdb.open(str(data / "lmdb"), max_dbs=16, readonly=True) as environment:
        used = {}
        for name in DATABASES:
            with environment.begin() as transaction:
                stat = transaction.stat(environment.open_db(name.encode(), transaction))
            pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            used[name] = pages * stat["psize"]
        return used


def _starts(empty: Path, full: Path, count: int, pairs: int) -> Iterator[Fact]:
    """Times from a node's start until it answers, with and without records, in turn."""
    spent: dict[Path, list[float]] = {empty: [], full: []}
    for _ in range(pairs):
        for data, found in spent.items():
            _forget(data / "lmdb" / "data.mdb")
            started = time.perf_counter()
            with servers.node(data) as addresses:
                _ask(addresses["native"], f"/v1/buckets/{NEAR_CACHE_BUCKET}/objects?limit=1")
                found.append(time.perf_counter() - started)
    yield Fact(
        f"start of a node with {count:,} records, until it lists the first",
        f"{statistics.median(spent[full]):.2f} s",
        f"without records: {statistics.median(spent[empty]):.2f} s",
    )


def _forget(file: Path) -> None:
    """Have the next reader of a file read it from the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _listed(native: str, count: int) -> Fact:
    spent: list[float] = []
    listed = 0
    for took, page in _pages(native):
        spent.append(took)
        listed += len(page.objects)
    assert listed == count, f"{listed} of {count} records listed"
    spent.sort()
    return Fact(
        f"listing {count:,} records, {PAGE_COUNT:,} a page",
        f"{count / sum(spent):,.0f} records/s",
        note=f"a page: p50 {statistics.median(spent) * 1000:.1f} ms,"
        f" p99 {spent[len(spent) * 99 // 100] * 1000:.1f} ms",
    )


def _pages(native: str) -> Iterator[tuple[float, _Page]]:
    """The pages of the whole bucket, each with the seconds until it was here."""
    connection = http.client.HTTPConnection(native)
    after: str | None = ""
    with contextlib.closing(connection):
        while after is not None:
            path = f"/v1/buckets/{NEAR_CACHE_BUCKET}/objects?limit={PAGE_COUNT}&after={after}"
            started = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
            took = time.perf_counter() - started
            assert answer.status == 200, content
            page = msgspec.json.decode(content, type=_Page)
            yield took, page
            after = page.next


def _wait_for_records(native: str, count: int) -> None:
    """Wait until a node's agent says that it has so many."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        agent = json.loads(_ask(native, "/v1/status"))["agent"]
        if agent and agent["names"]["objects"] >= count:
            return
        time.sleep(0.02)
    raise RuntimeError("waited in vain for the records")


def _ask(native: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{native}{path}") as answer:
        return answer.read()


def _some(count: int) -> list[int]:
    """Numbers of records, in no order, the same each time."""
    return random.Random(1).choices(range(count), k=LOOKED_UP_COUNT)
