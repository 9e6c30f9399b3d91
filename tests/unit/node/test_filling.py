"""Filling from the upstream: once for all who miss it, and with nothing but what was put there."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.node.fakes import ids, left_running, member, members
from tests.unit.node.object_bench import STARTED, Bench, level_record, now, now_ns, on_bench
from tests.unit.node.record_nodes import passes

from tierce.blobs.spool import SpoolSource
from tierce.cluster.member import Member, State, View
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Full, NotFound, TierceError, Unavailable
from tierce.names.memory import MemoryIndex
from tierce.names.record import FULL, LOCAL, NEAR_CACHE_BUCKET, UPSTREAM, Record
from tierce.node.data_path import PlacementCell
from tierce.node.filling import (
    FILL,
    FillAnswer,
    FillCalls,
    Filler,
    FillRequest,
    FillRouter,
    fill_handler,
)
from tierce.testing import virtual_time

DATA = b"content"
DIGEST = Digest.of(DATA)
SECOND = 10**9


async def upload(bench: Bench, record: Record, data: bytes = DATA) -> None:
    async with bench.spools.holding(data, "blake3") as spool:
        await bench.upstream.upload(record, SpoolSource(spool))


def count_reads(bench: Bench) -> list[str]:
    opened: list[str] = []
    open_ = bench.upstream.open

    def counting(key: str) -> object:
        opened.append(key)
        return open_(key)

    bench.upstream.open = counting  # type: ignore[method-assign,assignment]
    return opened


def test_what_comes_is_here_and_managed_with_the_record_that_was_put(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        put = level_record(DATA, FULL, name="n", metadata={"k": "v"})
        await upload(bench, put)
        record = await bench.filler.fill("id")
        assert record == bench.known()
        assert (record.timestamp, record.digest, record.level) == (STARTED, DIGEST, FULL)
        assert (record.name, record.metadata, record.is_upstream) == ("n", {"k": "v"}, True)
        assert bench.store.blobs[DIGEST] == DATA
        assert bench.store.managed([DIGEST]) == [True]
        assert (bench.filler.fetched_objects, bench.filler.fetched_bytes) == (1, len(DATA))

    on_bench(tmp_path, check)


def test_all_who_ask_at_once_share_one_fetch_whoever_leaves(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.upstream.seconds = 5.0
        opened = count_reads(bench)
        waiting = [asyncio.create_task(bench.filler.fill("id")) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[3].cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(each, Record) for each in found] == [False, True, True, False, True]
        assert opened == ["id"]

    on_bench(tmp_path, check)


def test_a_fetch_that_all_have_left_still_ends_and_the_next_finds_it_here(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.upstream.seconds = 5.0
        opened = count_reads(bench)
        waiting = asyncio.create_task(bench.filler.fill("id"))
        await asyncio.sleep(0)
        waiting.cancel()
        await passes(10)
        assert DIGEST in bench.store.blobs
        await bench.filler.fill("id")
        assert opened == ["id"]

    on_bench(tmp_path, check)


def test_a_failure_is_told_to_all_who_wait_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.upstream.is_down = True
        found = await asyncio.gather(
            *(bench.filler.fill("id") for _ in range(3)), return_exceptions=True
        )
        assert [type(each) for each in found] == [Unavailable] * 3
        bench.upstream.is_down = False
        assert (await bench.filler.fill("id")).digest == DIGEST

    on_bench(tmp_path, check)


def test_closing_gives_up_what_is_under_way(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.upstream.seconds = 50.0
        waiting = asyncio.create_task(bench.filler.fill("id"))
        await asyncio.sleep(0)
        await bench.filler.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await left_running() == []
        assert now() == 0

    on_bench(tmp_path, check)


def test_what_is_deleted_here_is_not_fetched(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        opened = count_reads(bench)
        await bench.index.write(
            Record(bucket=NEAR_CACHE_BUCKET, key="id", deleted=True), now=now_ns()
        )
        with pytest.raises(NotFound, match="deleted"):
            await bench.filler.fill("id")
        assert opened == []

    on_bench(tmp_path, check)


def test_a_tombstone_that_comes_meanwhile_counts(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.upstream.seconds = 5.0
        filling = asyncio.create_task(bench.filler.fill("id"))
        await asyncio.sleep(0.001)
        tombstone = Record(bucket=NEAR_CACHE_BUCKET, key="id", deleted=True)
        await bench.index.write(tombstone, now=now_ns() + SECOND)
        with pytest.raises(NotFound):
            await filling
        known = bench.known()
        assert known is not None
        assert known.deleted

    on_bench(tmp_path, check)


def test_an_older_content_in_the_upstream_never_takes_the_place_of_what_is_known(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(b"old", UPSTREAM), b"old")
        newer = level_record(DATA, UPSTREAM, timestamp=STARTED + SECOND, is_upstream=True)
        await bench.index.merge([newer])
        with pytest.raises(Unavailable, match="older version"):
            await bench.filler.fill("id")
        assert bench.known() == newer
        assert Digest.of(b"old") not in bench.store.blobs

    on_bench(tmp_path, check)


def test_a_newer_content_in_the_upstream_counts(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.index.merge([level_record(b"old", UPSTREAM)])
        await upload(bench, level_record(DATA, UPSTREAM, timestamp=STARTED + SECOND))
        assert (await bench.filler.fill("id")).digest == DIGEST
        known = bench.known()
        assert known is not None
        assert known.digest == DIGEST

    on_bench(tmp_path, check)


def test_content_that_another_program_changed_is_refused(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        held, _ = bench.upstream.objects["id"]
        bench.upstream.objects["id"] = held, b"CONTENT"
        with pytest.raises(Unavailable, match="not what was put"):
            await bench.filler.fill("id")
        assert bench.known() is None
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


@pytest.mark.parametrize("cuts", [1.0])
def test_a_read_that_breaks_off_leaves_nothing(tmp_path: Path, cuts: float) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.upstream.cuts = cuts
        with pytest.raises(Unavailable):
            await bench.filler.fill("id")
        assert bench.known() is None
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


def test_what_an_earlier_program_put_there_gets_a_record(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.put_foreign("id", DATA, {}, STARTED)
        record = await bench.filler.fill("id")
        assert (record.bucket, record.key) == (NEAR_CACHE_BUCKET, "id")
        assert (record.digest, record.size, record.is_upstream) == (DIGEST, len(DATA), True)

    on_bench(tmp_path, check)


def test_a_full_disk_and_a_cache_that_is_too_small_are_told(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        bench.room.is_full = True
        with pytest.raises(Full):
            await bench.filler.fill("id")
        bench.room.is_full = False

        small = Filler(
            bench.store,
            bench.spools,
            bench.store_objects,
            bench.index,
            bench.upstream,
            bucket=NEAR_CACHE_BUCKET,
            may_hold=lambda size: size < len(DATA),
        )
        with pytest.raises(Conflict):
            await small.fill("id")
        assert bench.known() is None

    on_bench(tmp_path, check)


def test_two_nodes_that_fill_at_once_agree_afterwards(tmp_path: Path) -> None:
    """As in a partition: each for itself, at other times; then they exchange their records."""

    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        other = MemoryIndex("b")
        elsewhere = Filler(
            bench.store,
            bench.spools,
            type(bench.store_objects)(bench.store, other),
            other,
            bench.upstream,
            bucket=NEAR_CACHE_BUCKET,
            wall_clock=lambda: now_ns() + SECOND,
        )
        here, there = await asyncio.gather(bench.filler.fill("id"), elsewhere.fill("id"))
        await bench.index.merge([there])
        await other.merge([here])
        assert bench.known() == other.get(NEAR_CACHE_BUCKET, "id")
        assert bench.store.blobs[DIGEST] == DATA

    on_bench(tmp_path, check)


# Who fills


class Calls(FillCalls):
    """Nodes that answer with a record, or an error."""

    def __init__(self, answers: dict[str, Record | TierceError]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def fill(self, member: Member, key: str) -> Record:
        self.asked.append(member.node_id)
        answer = self.answers.get(member.node_id, Unavailable("does not answer"))
        if isinstance(answer, TierceError):
            raise answer
        return answer


class Routing:
    """A router on node a, that never is the first in order."""

    def __init__(self, given: list[Member], answers: dict[str, Record | TierceError]) -> None:
        self.cell = PlacementCell(View.of("a", given))
        self.index = MemoryIndex("a")
        self.calls = Calls(answers)
        self.here: list[str] = []
        self.router = FillRouter(self.cell, self.calls, self.index, self.fill_here)
        for number in range(1000):
            self.key = f"key {number}"
            order = ids(self.cell().writers(Digest.of(self.key.encode())))
            if order[-1:] == ["a"]:
                return
        raise AssertionError("a is never last")

    async def fill_here(self, key: str) -> Record:
        self.here.append(key)
        return level_record(DATA, UPSTREAM)

    @property
    def order(self) -> list[str]:
        return ids(self.cell().writers(Digest.of(self.key.encode())))


def test_the_first_in_order_fills_and_its_record_is_known_here() -> None:
    async def check() -> None:
        record = level_record(DATA, UPSTREAM)
        routing = Routing(members(3), {"b": record, "c": record})
        assert await routing.router.fill(routing.key) == record
        assert routing.calls.asked == routing.order[:1]
        assert routing.here == []
        assert routing.index.get(NEAR_CACHE_BUCKET, "id") == record

    virtual_time.run(check())


def test_others_take_the_place_of_those_that_do_not_answer() -> None:
    async def check() -> None:
        routing = Routing(members(3), {})
        await routing.router.fill(routing.key)
        assert routing.calls.asked == routing.order[:2]
        assert routing.here == [routing.key]

    virtual_time.run(check())


def test_others_take_the_place_of_those_whose_disk_is_full() -> None:
    async def check() -> None:
        record = level_record(DATA, UPSTREAM)
        routing = Routing(members(3), {"b": record, "c": record})
        first = routing.order[0]
        routing.calls.answers[first] = Full("no room")
        assert await routing.router.fill(routing.key) == record

    virtual_time.run(check())


def test_that_the_upstream_has_no_such_object_is_told_at_once() -> None:
    async def check() -> None:
        routing = Routing(members(3), dict.fromkeys("bc", NotFound("no such object")))
        with pytest.raises(NotFound):
            await routing.router.fill(routing.key)
        assert len(routing.calls.asked) == 1

    virtual_time.run(check())


def test_a_node_that_is_down_read_only_or_drained_is_not_asked() -> None:
    async def check() -> None:
        given = [
            member("a"),
            member("b", state=State.DOWN),
            member("c", writable=False),
            member("d", draining=True),
        ]
        routing = Routing(given, {})
        await routing.router.fill(routing.key)
        assert routing.calls.asked == []
        assert routing.here == [routing.key]

    virtual_time.run(check())


def test_an_order_to_fill_that_is_meant_for_another_node_is_refused(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, level_record(DATA, UPSTREAM))
        handle = fill_handler(bench.filler, "a")
        with pytest.raises(Unavailable):
            await handle(encode(FillRequest("id", "b")))
        assert bench.store.blobs == {}
        answer = decode(await handle(encode(FillRequest("id", "a"))), FillAnswer, "answer")
        assert answer.record == bench.known()

    on_bench(tmp_path, check)


class Answering:
    """A transport that answers the same whatever is asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.paths: list[str] = []

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        self.paths.append(path)
        return self.answer


BAD = msgspec.structs.replace(level_record(DATA, LOCAL), key="", timestamp=-1)


@pytest.mark.parametrize("answer", [b"", b"\x09", b"\x01nonsense", encode(FillAnswer(BAD))])
def test_an_answer_that_is_no_record_is_no_success(answer: bytes) -> None:
    async def check() -> None:
        transport = Answering(answer)
        with pytest.raises(Unavailable):
            await FillCalls(transport).fill(member("b"), "id")  # type: ignore[arg-type]
        assert transport.paths == [FILL]

    virtual_time.run(check())
