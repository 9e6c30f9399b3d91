"""Objects placed by the ring: who has blob and record before anyone is told, and what is never said."""

from pathlib import Path

import pytest
from tests.unit.node.fakes import blob_with_order, member, members, placed
from tests.unit.node.object_bench import (
    GRACE_SECONDS,
    Bench,
    content_of,
    level_record,
    now,
    on_bench,
)

from tierce.cluster.member import State
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, NotFound, Unavailable
from tierce.names.record import LOCAL, Record


def content_for(*order: str, replication: int = 2) -> bytes:
    """A content that belongs to these nodes in this order, of five."""
    return blob_with_order(placed("a", members(5, replication=replication)), *order)[1]


def test_blob_and_record_are_on_enough_nodes_before_success(tmp_path: Path) -> None:
    data = content_for("a", "b")

    async def check(bench: Bench) -> None:
        record = await bench.put(data)
        assert record.digest == Digest.of(data)
        assert record.size == len(data)
        assert bench.holders(record.content) == ["a", "b"]
        assert bench.records.having("bucket", "key") == ["b"]
        assert (
            bench.index.get("bucket", "key") == record == bench.records.of["b"].get("bucket", "key")
        )

    on_bench(tmp_path, check, members(5, replication=2))


def test_all_copies_are_managed(tmp_path: Path) -> None:
    data = content_for("a", "b")

    async def check(bench: Bench) -> None:
        digest = (await bench.put(data)).content
        assert bench.store.managed([digest]) == [True]
        assert bench.peers.managed == {("b", digest)}

    on_bench(tmp_path, check, members(5, replication=2))


HOLDERS_KNOW = pytest.mark.parametrize(
    ("replication", "order"), [(1, "b"), (2, "bc"), (2, "ab"), (3, "bcd"), (3, "cab")]
)


@HOLDERS_KNOW
def test_each_node_that_counts_as_a_copy_has_the_record(
    tmp_path: Path, replication: int, order: str
) -> None:
    """One that had the blob only would collect it after the grace time, if it were cut off."""
    data = content_for(*order, replication=replication)

    async def check(bench: Bench) -> None:
        bench.records.seconds["b"] = 1.0
        record = await bench.put(data)
        holders = [each for each in bench.holders(record.content) if each != "a"]
        assert holders == sorted(set(order) - {"a"})
        assert set(holders) <= set(bench.records.having("bucket", "key"))

    on_bench(tmp_path, check, members(5, replication=replication))


@HOLDERS_KNOW
def test_nothing_is_acknowledged_if_a_copy_can_not_be_told_of_its_record(
    tmp_path: Path, replication: int, order: str
) -> None:
    data = content_for(*order, replication=replication)
    other = next(each for each in order if each != "a")

    async def check(bench: Bench) -> None:
        bench.records.errors[other] = Unavailable("cut off")
        with pytest.raises(Unavailable):
            await bench.put(data)

    on_bench(tmp_path, check, members(5, replication=replication))


def test_a_refused_write_leaves_no_record_anywhere(tmp_path: Path) -> None:
    def refuse(known: Record | None) -> None:
        raise Conflict("no")

    async def check(bench: Bench) -> None:
        with pytest.raises(Conflict):
            await bench.put(b"data", check=refuse)
        assert bench.index.get("bucket", "key") is None
        assert bench.records.having("bucket", "key") == []

    on_bench(tmp_path, check)


def test_copies_that_took_so_long_that_the_first_may_be_gone_do_not_count(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for peer in bench.peers.of.values():
            peer.latency_seconds = GRACE_SECONDS / 2 + 1
        with pytest.raises(Unavailable, match="too long"):
            await bench.put(b"data")
        assert bench.index.get("bucket", "key") is None

    on_bench(tmp_path, check)


def test_a_full_node_still_takes_objects_for_others_to_keep(tmp_path: Path) -> None:
    data = content_for("a", "b")

    async def check(bench: Bench) -> None:
        bench.room.is_full = True
        record = await bench.put(data)
        assert len(bench.holders(record.content)) == 2
        assert "a" not in bench.holders(record.content)
        assert bench.index.get("bucket", "key") == record

    on_bench(tmp_path, check, members(5, replication=2))


def test_a_tombstone_is_on_as_many_nodes_and_keeps_no_content(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        put = await bench.put(b"data")
        bench.records.errors["b"] = Unavailable("down")
        gone = await bench.objects.delete("bucket", "key", None)
        assert (gone.deleted, gone.digest, gone.size) == (True, None, 0)
        assert gone.rank > put.rank
        assert bench.records.of["c"].get("bucket", "key") == gone

    on_bench(tmp_path, check, members(3, replication=2))


def test_a_record_that_too_few_nodes_take_is_no_success(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.put(b"data")
        bench.records.errors = {name: Unavailable("down") for name in "bc"}
        with pytest.raises(Unavailable, match="the record was stored on 0 of 1"):
            await bench.objects.delete("bucket", "key", None)

    on_bench(tmp_path, check, members(3, replication=2))


def test_a_slow_node_is_not_waited_for_when_another_one_takes_the_record(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.put(b"data")
        bench.records.seconds = {"b": 100.0}
        await bench.objects.delete("bucket", "key", None)
        assert now() < 5

    on_bench(tmp_path, check, members(3, replication=2))


def test_nothing_is_deleted_before_the_cluster_was_reached(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable, match="not yet reached"):
            await bench.objects.delete("bucket", "key", None)
        assert bench.index.get("bucket", "key") is None

    on_bench(tmp_path, check, [member("a")], is_seeking=True)


def test_content_that_nobody_who_answers_has_is_never_said_not_to_exist(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable):
            await bench.objects.open(level_record(b"data", -1))
        with pytest.raises(NotFound):
            await bench.objects.open(Record(bucket="bucket", key="id", deleted=True))

    on_bench(tmp_path, check)


def test_the_node_of_a_level_is_asked_first(tmp_path: Path) -> None:
    data = content_for("c", "d", "e")

    async def check(bench: Bench) -> None:
        bench.peers.put(data, "b")
        blob = await bench.objects.open(level_record(data, LOCAL))
        assert await content_of(blob) == data
        assert bench.peers.asked() == ["b"]

    on_bench(tmp_path, check, members(5, replication=2))


def test_content_that_is_elsewhere_is_found_while_a_node_is_down(tmp_path: Path) -> None:
    data = content_for("b", "c")

    async def check(bench: Bench) -> None:
        record = await bench.put(data)
        bench.look([member("b", state=State.DOWN), *members(5, replication=2)[2:], member("a")])
        assert await content_of(await bench.objects.open(record)) == data

    on_bench(tmp_path, check, members(5, replication=2))
