"""The agent's background work for objects: copies of level 2, queued uploads, collection."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.node.fakes import members, running
from tests.unit.node.object_bench import (
    GRACE_SECONDS,
    STARTED,
    Bench,
    level_record,
    now,
    now_ns,
    on_bench,
)
from tests.unit.node.record_nodes import flagged, passes

from tierce.blobs.marked import Collected
from tierce.blobs.spool import SpoolSource
from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.core.limits import COLLECT_INTERVAL_SECONDS, COLLECT_PAGE_BLOBS, LOOK_THROUGH_SECONDS
from tierce.names.index import Change
from tierce.names.record import FULL, LOCAL, NEAR_CACHE_BUCKET, UPSTREAM, Record
from tierce.node.tending import Tending
from tierce.testing.upstream_contract import BytesSource
from tierce.upstream.tier import Source

DATA = b"content"
DIGEST = Digest.of(DATA)
SECOND = 10**9


def tending(
    bench: Bench,
    *,
    may_keep: Callable[[int], bool] = lambda _: True,
    is_draining: Callable[[], bool] = lambda: False,
    has_heard_all: Callable[[], bool] = lambda: True,
    keeps_all: bool = True,
) -> Tending:
    return Tending(
        "a",
        bench.store,
        bench.spools,
        bench.store_objects,
        bench.index,
        bench.blobs,
        bench.filler,
        bench.upstream,
        grace_seconds=GRACE_SECONDS,
        may_keep=may_keep,
        is_draining=is_draining,
        has_heard_all=has_heard_all,
        keeps_all=keeps_all,
        wall_clock=now_ns,
    )


async def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.1)


def in_upstream(bench: Bench) -> bytes | None:
    found = bench.upstream.objects.get("id")
    return None if found is None else found[1]


async def keep_here(bench: Bench, record: Record, data: bytes = DATA) -> None:
    async with bench.spools.holding(data, "blake3") as spool:
        await bench.store_objects.restore(spool, record)


def queued(data: bytes = DATA, **fields: object) -> Record:
    """A record of this node whose content waits for the upstream."""
    return level_record(data, UPSTREAM, node="a", **fields)


# Copies


def test_a_record_of_level_2_brings_its_content_here(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        record = level_record(DATA, FULL)
        async with running(tending(bench).run()):
            await bench.index.merge([record])
            await until(lambda: DIGEST in bench.store.blobs)
        assert bench.store.managed([DIGEST]) == [True]
        assert bench.known() == record

    on_bench(tmp_path, check)


@pytest.mark.parametrize("level", [LOCAL, UPSTREAM])
def test_other_levels_stay_where_they_are(tmp_path: Path, level: int) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        await bench.index.merge([level_record(DATA, level)])
        async with running(tending(bench).run()):
            await passes(30)
        assert bench.store.blobs == {}
        assert bench.peers.asked() == []

    on_bench(tmp_path, check)


def test_what_no_node_has_comes_from_the_upstream(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        record = level_record(DATA, FULL, is_upstream=True)
        async with bench.spools.holding(DATA, "blake3") as spool:
            await bench.upstream.upload(record, SpoolSource(spool))
        await bench.index.merge([record])
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.copied == 1)
        assert bench.store.blobs[DIGEST] == DATA

    on_bench(tmp_path, check)


def test_a_copy_that_can_not_be_had_now_is_made_later_even_after_a_restart(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.index.merge([level_record(DATA, FULL)])
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.status()["copies_waiting"] == 1)
        bench.peers.put(DATA, "b")
        async with running(tending(bench).run()):
            await until(lambda: DIGEST in bench.store.blobs)

    on_bench(tmp_path, check)


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        bench.room.is_full = True
        await bench.index.merge([level_record(DATA, FULL)])
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.status()["copies_waiting"] == 1)
            assert bench.store.blobs == {}
            bench.room.is_full = False
            await until(lambda: DIGEST in bench.store.blobs)

    on_bench(tmp_path, check)


def test_what_is_deleted_or_replaced_while_it_is_copied_is_not_kept(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        bench.peers.of["b"].latency_seconds = 2.0
        record = level_record(DATA, FULL)
        await bench.index.merge([record])
        async with running(tending(bench).run()):
            await passes(1)
            await bench.index.write(
                Record(bucket=NEAR_CACHE_BUCKET, key="id", deleted=True), now=now_ns()
            )
            await passes(20)
        assert bench.store.blobs == {}
        known = bench.known()
        assert known is not None
        assert known.deleted

    on_bench(tmp_path, check)


def test_what_there_is_no_room_for_in_the_cache_is_left_out(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        await bench.index.merge([level_record(DATA, FULL, is_upstream=True)])
        work = tending(bench, may_keep=lambda size: size < len(DATA))
        async with running(work.run()):
            await passes(20)
        assert bench.store.blobs == {}
        assert work.status()["copies_waiting"] == 0

    on_bench(tmp_path, check)


def test_a_copy_that_vanished_comes_back(tmp_path: Path) -> None:
    """It was found bad, say, when nobody could replace it: its record does not change for that."""

    async def check(bench: Bench) -> None:
        await bench.index.merge(
            [level_record(DATA, FULL), level_record(b"absent", FULL, key="no node has it")]
        )
        bench.peers.put(DATA, "b")
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.copied == 1)
            for _ in range(2):
                del bench.store.blobs[DIGEST]
                await until(lambda: DIGEST in bench.store.blobs, 1.5 * LOOK_THROUGH_SECONDS)
        assert work.copied == 3

    on_bench(tmp_path, check)


def test_a_copy_that_vanished_stays_away_where_not_all_is_kept(tmp_path: Path) -> None:
    """It was dropped for room, and comes back when somebody reads it."""

    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        await bench.index.merge([level_record(DATA, FULL)])
        work = tending(bench, keeps_all=False)
        async with running(work.run()):
            await until(lambda: work.copied == 1)
            del bench.store.blobs[DIGEST]
            await passes(3 * LOOK_THROUGH_SECONDS)
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


def test_a_node_that_is_drained_copies_nothing_until_it_stays_after_all(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        draining = [True]
        bench.peers.put(DATA, "b")
        await bench.index.merge([level_record(DATA, FULL)])
        work = tending(bench, is_draining=lambda: bool(draining))
        async with running(work.run()):
            await passes(2 * LOOK_THROUGH_SECONDS)
            assert work.status()["copies_waiting"] == 1
            assert bench.peers.asked() == []
            assert bench.store.blobs == {}
            draining.clear()
            await until(lambda: DIGEST in bench.store.blobs, 30)
            await until(lambda: work.status()["copies_waiting"] == 0)

    on_bench(tmp_path, check)


# Uploads


def noting_uploads(bench: Bench) -> list[int]:
    """The timestamps of what is uploaded from now on."""
    upload = bench.upstream.upload
    noted: list[int] = []

    async def noting(record: Record, source: Source) -> None:
        noted.append(record.timestamp)
        await upload(record, source)

    bench.upstream.upload = noting  # type: ignore[method-assign]
    return noted


def test_what_the_upstream_has_already_is_not_uploaded_again(tmp_path: Path) -> None:
    """It had got there, and then the node crashed, before its record could say so."""

    async def check(bench: Bench) -> None:
        await bench.upstream.upload(queued(), BytesSource(DATA))
        uploads = noting_uploads(bench)
        await keep_here(bench, queued())
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.uploaded == 1)
        assert uploads == []
        assert bench.known() == queued(is_upstream=True)

    on_bench(tmp_path, check)


@pytest.mark.parametrize("is_first_there", [False, True])
def test_a_level_that_is_raised_while_it_waits_is_that_in_the_upstream(
    tmp_path: Path, is_first_there: bool
) -> None:
    """Its content is the same, and may have got there with the older level, name and metadata."""

    async def check(bench: Bench) -> None:
        bench.upstream.is_down = not is_first_there
        work = tending(bench)
        async with running(work.run()):
            first = await bench.put_level(DATA, UPSTREAM)
            if is_first_there:
                await until(lambda: work.uploaded == 1)
            draft = Record(bucket="", key="id", level=FULL, name="new", metadata={"k": "v"})
            raised, is_queued = await bench.levels.raise_level(first, draft)
            assert is_queued
            bench.upstream.is_down = False
            await until(lambda: bench.known() == flagged(raised))
        found = await bench.upstream.stat("id")
        assert (found.level, found.name, found.metadata) == (FULL, "new", {"k": "v"})
        assert (found.rank, found.digest) == (raised.rank, DIGEST)
        assert bench.upstream.uploads == 1 + is_first_there

    on_bench(tmp_path, check, mode="behind")


def test_another_programs_object_of_the_same_size_is_not_taken_for_the_content(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.put_foreign("id", b"CONTENT", {}, STARTED + SECOND)
        await keep_here(bench, queued())
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.uploaded == 1)
        assert in_upstream(bench) == DATA

    on_bench(tmp_path, check)


@pytest.mark.parametrize("data", [b"newer", DATA])
def test_a_newer_write_in_the_upstream_is_heard_of_and_not_overwritten(
    tmp_path: Path, data: bytes
) -> None:
    """b put it there, dropped its own copy, and has not been heard of yet."""

    async def check(bench: Bench) -> None:
        newer = level_record(data, UPSTREAM, timestamp=STARTED + SECOND, name="n", is_upstream=True)
        await bench.upstream.upload(newer, BytesSource(data))
        uploads = noting_uploads(bench)
        await keep_here(bench, queued())
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: bench.known() == newer)
            await until(lambda: work.uploads_waiting == 0)
        assert uploads == []

    on_bench(tmp_path, check)


def test_a_record_that_is_in_force_no_more_is_not_uploaded(tmp_path: Path) -> None:
    """Between the reading of the page and its turn another node's newer write was heard of."""

    async def check(bench: Bench) -> None:
        uploads = noting_uploads(bench)
        await keep_here(bench, queued())
        newer = level_record(b"newer", UPSTREAM, timestamp=STARTED + SECOND)
        await bench.index.merge([newer])
        work = tending(bench)
        await work._upload(Change(1, queued()))
        assert uploads == []
        assert work.uploaded == 0
        assert bench.known() == newer

    on_bench(tmp_path, check)


def test_what_is_queued_gets_to_the_upstream_and_its_record_says_so(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.is_down = True
        await keep_here(bench, queued())
        work = tending(bench)
        async with running(work.run()):
            await until(lambda: work.status()["upload_error"] is not None)
            assert work.status()["uploads_waiting"] == 1
            bench.upstream.is_down = False
            await until(lambda: work.uploaded == 1)
        assert in_upstream(bench) == DATA
        assert bench.known() == queued(is_upstream=True)

    on_bench(tmp_path, check)


def test_the_queue_outlives_a_restart(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.is_down = True
        await keep_here(bench, queued())
        async with running(tending(bench).run()):
            await passes(20)
        bench.upstream.is_down = False
        async with running(tending(bench).run()):
            await until(lambda: in_upstream(bench) == DATA)

    on_bench(tmp_path, check)


@pytest.mark.parametrize(
    "record",
    [
        level_record(DATA, UPSTREAM),
        level_record(DATA, LOCAL, node="a"),
        queued(is_upstream=True),
    ],
    ids=["another node's", "level 0", "done"],
)
def test_only_this_nodes_queue_is_uploaded(tmp_path: Path, record: Record) -> None:
    async def check(bench: Bench) -> None:
        await keep_here(bench, record)
        async with running(tending(bench).run()):
            await passes(20)
        assert bench.upstream.uploads == 0

    on_bench(tmp_path, check)


def test_what_is_replaced_while_it_is_uploaded_is_put_right(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        upload = bench.upstream.upload

        async def slow(record: Record, source: object) -> None:
            if record.digest == DIGEST:
                await passes(10)
            await upload(record, source)  # type: ignore[arg-type]

        bench.upstream.upload = slow  # type: ignore[method-assign]
        await keep_here(bench, queued())
        async with running(tending(bench).run()):
            await passes(1)
            newer = await bench.put_level(b"newer", UPSTREAM)
            await passes(30)
        assert bench.known() == newer
        assert in_upstream(bench) == b"newer"

    on_bench(tmp_path, check)


def test_a_tombstone_that_comes_while_it_is_uploaded_stays(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.seconds = 10.0
        await keep_here(bench, queued())
        work = tending(bench)
        async with running(work.run()):
            await asyncio.sleep(0.001)
            gone = await bench.index.write(
                Record(bucket=NEAR_CACHE_BUCKET, key="id", deleted=True), now=now_ns()
            )
            await until(lambda: bench.upstream.uploads == 1)
            await passes(1)
        assert bench.known() == gone

    on_bench(tmp_path, check)


# Collection


class Collecting:
    """Notes what is collected. ``left`` are entries that are due; ``fails`` times it fails at first."""

    def __init__(self, bench: Bench, *, left: int = 0, fails: int = 0) -> None:
        self.left = left
        self.fails = fails
        self.calls: list[tuple[float, int]] = []
        bench.store_objects.collect = self.collect  # type: ignore[method-assign]

    async def collect(self, before: int, limit: int) -> Collected:
        self.calls.append((now(), before))
        if self.fails:
            self.fails -= 1
            raise Unavailable("the disk fails")
        seen = min(limit, self.left)
        self.left -= seen
        return Collected(seen, [])


def test_only_what_is_older_than_the_grace_time_is_collected(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        collecting = Collecting(bench)
        await tending(bench).collect()
        assert collecting.calls == [(0.0, int(STARTED // 1e6 - 1000 * GRACE_SECONDS))]

    on_bench(tmp_path, check)


def test_all_that_is_due_is_collected_page_by_page(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        collecting = Collecting(bench, left=2 * COLLECT_PAGE_BLOBS + 1)
        await tending(bench).collect()
        assert collecting.left == 0

    on_bench(tmp_path, check)


def test_a_failure_to_collect_ends_nothing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        collecting = Collecting(bench, left=1, fails=3)
        async with running(tending(bench).run()) as task:
            await until(lambda: collecting.left == 0, 10 * GRACE_SECONDS)
            assert not task.done()

    on_bench(tmp_path, check)


def test_nothing_is_collected_before_all_others_were_heard(tmp_path: Path) -> None:
    """However long that takes: one of them may have the record of a copy that is here."""

    async def check(bench: Bench) -> None:
        collecting = Collecting(bench, left=1)
        heard: list[bool] = []
        async with running(tending(bench, has_heard_all=lambda: bool(heard)).run()):
            await passes(10 * GRACE_SECONDS)
            assert collecting.calls == []
            heard.append(True)
            await until(lambda: collecting.left == 0, 2 * COLLECT_INTERVAL_SECONDS)

    on_bench(tmp_path, check)


def test_nothing_is_collected_before_records_had_time_to_come(tmp_path: Path) -> None:
    """A node that was down for longer than the grace time has copies whose records it never saw."""

    async def check(bench: Bench) -> None:
        collecting = Collecting(bench, left=1)
        async with running(tending(bench).run()):
            await until(lambda: collecting.left == 0, 10 * GRACE_SECONDS)
        assert collecting.calls[0][0] >= GRACE_SECONDS

    on_bench(tmp_path, check, members(3))
