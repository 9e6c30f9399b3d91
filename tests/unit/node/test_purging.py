"""Tombstones go when they are old and all have read them; they don't come back, nor does the record."""

import copy
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.node.fakes import member
from tests.unit.node.record_nodes import DAY_SECONDS, RecordCluster, now_ns, passes, record_cluster

from tierce.core.limits import TOMBSTONE_DAYS
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import names_messages as messages
from tierce.testing import virtual_time

SYNC_SECONDS = 4 * 3600.0
TWO_ROUNDS_SECONDS = 3 * SYNC_SECONDS
"""Enough to read all members, and to tell them how far."""
MONTH_SECONDS = (TOMBSTONE_DAYS + 1) * DAY_SECONDS


def deleted(
    names: str, test: Callable[[RecordCluster], Awaitable[None]], *, purge_seconds: float = 1e9
) -> None:
    """A cluster with a record that stays, and one that was deleted; time goes in long steps."""

    async def main() -> None:
        async with record_cluster(
            names, poll_seconds=1800.0, sync_seconds=SYNC_SECONDS, purge_seconds=purge_seconds
        ) as made:
            await made["a"].write("stays")
            await made["a"].write("k")
            await made.until_agreed(DAY_SECONDS)
            await made["a"].delete("k")
            await test(made)

    virtual_time.run(main())


async def purge_all(made: RecordCluster) -> list[int]:
    return [await node.sync.purge(now_ns()) for node in made.nodes.values()]


def keys(made: RecordCluster, name: str) -> list[str]:
    return [each.key for each in made.contents(name)]


def test_an_old_tombstone_that_all_have_read_goes_everywhere_and_nothing_comes_back() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS)
        assert await purge_all(made) == [1, 1, 1]
        assert [keys(made, name) for name in "abc"] == [["stays"]] * 3
        made.forget_counts()
        for name in "abc":
            other = "bca"["abc".index(name)]
            assert await made[name].sync.check(made.members[other]) == 0
        await passes(DAY_SECONDS)
        assert [keys(made, name) for name in "abc"] == [["stays"]] * 3
        assert made.messages[messages.RANGE] == 0
        assert made.carried == 0

    deleted("abc", check)


def test_a_young_tombstone_stays() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS - 2 * DAY_SECONDS)
        assert await purge_all(made) == [0, 0, 0]

    deleted("abc", check)


def test_a_tombstone_stays_while_a_member_is_down_and_ends_the_record_there_later() -> None:
    async def main() -> None:
        async with record_cluster("abc", poll_seconds=1800.0, sync_seconds=SYNC_SECONDS) as made:
            await made["a"].write("k")
            await made.until_agreed(DAY_SECONDS)
            await made.stop("c")
            await made["a"].delete("k")
            await passes(MONTH_SECONDS)
            assert [await made[name].sync.purge(now_ns()) for name in "ab"] == [0, 0]
            await made.start("c")
            assert made["c"].has("k")
            await passes(TWO_ROUNDS_SECONDS)
            assert not made["c"].has("k")
            assert not made["a"].has("k")
            await passes(TWO_ROUNDS_SECONDS)
            assert await purge_all(made) == [1, 1, 1]
            await passes(DAY_SECONDS)
            assert [keys(made, name) for name in "abc"] == [[], [], []]

    virtual_time.run(main())


def test_a_tombstone_stays_while_a_member_that_is_up_has_not_read_it() -> None:
    async def check(made: RecordCluster) -> None:
        made.cut("a", "c", is_seen=False)
        made.cut("b", "c", is_seen=False)
        await made["a"].delete("stays")
        await passes(MONTH_SECONDS)
        assert made["c"].has("stays")
        assert await purge_all(made) == [0, 0, 0]
        made.mend()
        await passes(TWO_ROUNDS_SECONDS)
        assert await purge_all(made) == [2, 2, 2]

    deleted("abc", check)


def test_a_tombstone_stays_after_a_restart_until_all_have_said_how_far_they_are() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS)
        await made.stop("a")
        await made.start("a")
        assert await made["a"].sync.purge(now_ns()) == 0
        await passes(TWO_ROUNDS_SECONDS)
        assert await made["a"].sync.purge(now_ns()) == 1

    deleted("abc", check)


def test_one_node_that_forgets_first_does_not_get_the_tombstone_back() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS)
        assert await made["a"].sync.purge(now_ns()) == 1
        made.forget_counts()
        assert await made["a"].sync.check(made.members["b"]) == 0
        assert await made["b"].sync.check(made.members["a"]) == 0
        assert made.messages[messages.RANGE] == 0
        # Nor does its feed bring it, when it is read from the start.
        await made["a"].index.set_checkpoint("b", b"")
        await passes(TWO_ROUNDS_SECONDS)
        assert made.carried >= 2
        assert keys(made, "a") == ["stays"]
        assert keys(made, "b") == ["k", "stays"]

    deleted("abc", check)


def test_a_name_can_be_written_again_after_its_tombstone_went() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS)
        assert await purge_all(made) == [1, 1]
        await made["b"].write("k")
        await made.until_agreed(DAY_SECONDS)
        assert made["a"].has("k")

    deleted("ab", check)


def test_tombstones_go_by_themselves_in_time() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS + DAY_SECONDS)
        assert [keys(made, name) for name in "ab"] == [["stays"]] * 2
        assert made["a"].sync.status()["dropped_tombstones"] == 1

    deleted("ab", check, purge_seconds=6 * 3600.0)


def test_a_write_in_the_midst_of_a_purge_is_not_dropped() -> None:
    class Racing(MemoryIndex):
        async def drop(self, bucket: str, key: str, timestamp: int) -> bool:
            await self.write(Record(bucket=bucket, key=key, deleted=True), now=now_ns())
            return await super().drop(bucket, key, timestamp)

    async def main() -> None:
        async with record_cluster("", poll_seconds=1800.0, sync_seconds=SYNC_SECONDS) as made:
            node = await made.start("a", Racing("a"))
            await node.delete("k")
            await passes(MONTH_SECONDS)
            assert await node.sync.purge(now_ns()) == 0
            assert keys(made, "a") == ["k"]

    virtual_time.run(main())


def test_what_a_member_said_before_it_started_anew_counts_no_more() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(MONTH_SECONDS)
        readers = made["a"].service.readers
        assert set(readers) == {"b"}
        made.services.clear()
        made.members["b"] = member("b", boot="another")
        made.look()
        await passes(1800.0)
        assert readers == {}
        assert await made["a"].sync.purge(now_ns()) == 0

    deleted("ab", check)


@pytest.mark.parametrize("is_emptied", [True, False])
def test_a_member_with_another_disk_counts_as_having_read_nothing_until_it_has(
    is_emptied: bool,
) -> None:
    async def check(made: RecordCluster) -> None:
        old = MemoryIndex("b") if is_emptied else copy.deepcopy(made["b"].index)
        await passes(MONTH_SECONDS)
        await made["a"].delete("stays")
        await passes(MONTH_SECONDS)
        await made.stop("b")
        await made.start("b", old)
        await passes(1.0)
        assert await made["a"].sync.purge(now_ns()) == 0
        await passes(TWO_ROUNDS_SECONDS)
        assert await made["a"].sync.purge(now_ns()) == 2
        await passes(DAY_SECONDS)
        assert not made["a"].has("k")
        assert not made["b"].has("stays")

    deleted("ab", check)
