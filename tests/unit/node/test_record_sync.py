"""Records spread: at once, after a while, or by comparison; whatever was cut, lost or emptied."""

import asyncio
import copy
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest
from tests.unit.node.fakes import member
from tests.unit.node.record_nodes import (
    DAY_SECONDS,
    RecordCluster,
    flagged,
    now_ns,
    passes,
    record_cluster,
)

from tierce.cluster import sync
from tierce.cluster.member import View
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.core.errors import Full
from tierce.names.changes import Position
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import comparing, names_service, record_sync
from tierce.node import names_messages as messages
from tierce.testing import virtual_time


def cluster_of(
    names: str, test: Callable[[RecordCluster], Awaitable[None]], *, seed: int = 0, **changed: float
) -> None:
    async def main() -> None:
        async with record_cluster(names, seed=seed, **changed) as made:
            await test(made)

    virtual_time.run(main())


async def write_many(made: RecordCluster, name: str, count: int, prefix: str = "k") -> None:
    for number in range(count):
        await made[name].write(f"{prefix}{number:05}")


def test_a_write_reaches_all_members_at_once() -> None:
    async def check(made: RecordCluster) -> None:
        await made["a"].write("k")
        assert await made.until_agreed(1.0) < 0.2
        assert made["c"].has("k")

    cluster_of("abc", check)


def test_a_flag_set_on_a_record_of_this_node_reaches_all_at_once() -> None:
    async def check(made: RecordCluster) -> None:
        record = await made["a"].write("k")
        await made.until_agreed(1.0)
        await made["a"].index.merge([flagged(record)])
        assert await made.until_agreed(1.0) < 0.2

    cluster_of("abc", check)


def test_a_flag_set_by_another_node_is_pulled() -> None:
    async def check(made: RecordCluster) -> None:
        record = await made["a"].write("k")
        await made.until_agreed(1.0)
        made.pushed.clear()
        await made["b"].index.merge([flagged(record)])
        await made.until_agreed(14.0)
        found = made["c"].index.get("bucket", "k")
        assert found is not None
        assert found.is_upstream

    cluster_of("abc", check)


def from_upstream(key: str, node: str) -> Record:
    digest = Digest.of(key.encode())
    return flagged(
        Record(bucket="bucket", key=key, timestamp=now_ns(), node=node, digest=digest, size=1)
    )


def test_a_record_of_a_node_that_is_no_member_is_pushed_by_who_fetched_it() -> None:
    """It came from the upstream, where a cluster before this one had put it."""

    async def check(made: RecordCluster) -> None:
        await passes(12.0)
        made.forget_counts()
        fetched = from_upstream("k", "old")
        await made["a"].index.merge([fetched])
        assert await made.until_agreed(1.0) < 0.2
        assert made.pushed.count(fetched) >= 2
        await made.stop("c")
        await passes(20.0)
        made.forget_counts()
        await made["a"].index.merge([from_upstream("m", "c")])
        await passes(1.0)
        assert made.pushed == []  # c is down, and still a member: it may push it itself

    cluster_of("abc", check)


def test_a_lost_push_is_made_up_for_by_a_pull() -> None:
    async def check(made: RecordCluster) -> None:
        made.lost_paths = [messages.PUSH]
        await made["a"].write("k")
        assert await made.until_agreed(14.0) > 0.2

    cluster_of("abc", check)


def test_each_record_is_pushed_once_to_each_member_and_many_share_a_message() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(20.0)
        made.forget_counts()
        await write_many(made, "a", 200)
        await passes(60.0)
        assert made.agree
        assert set(Counter(each.key for each in made.pushed).values()) == {4}
        assert made.messages[messages.PUSH] <= 8
        # Five nodes read four feeds each, six times or so; and once more each record is in them.
        assert made.messages[messages.PULL] <= 5 * 4 * 9
        assert made.carried <= 5 * 4 * 200
        assert made.messages[messages.RANGE] == 0

    cluster_of("abcde", check)


def test_a_quiet_cluster_sends_nothing_but_empty_pulls() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 20)
        await passes(60.0)
        made.forget_counts()
        await passes(100.0)
        assert set(made.messages) == {messages.PULL}
        assert made.messages[messages.PULL] <= 3 * 2 * 14
        assert made.carried == 0

    cluster_of("abc", check)


@pytest.mark.parametrize("is_seen", [True, False])
def test_after_a_partition_both_sides_have_everything(is_seen: bool) -> None:
    async def check(made: RecordCluster) -> None:
        made.cut("a", "b", is_seen=is_seen)
        made.cut("a", "c", is_seen=is_seen)
        await write_many(made, "a", 50)
        await write_many(made, "b", 50, "m")
        await made["b"].write("k00007")
        await made["a"].delete("k00008")
        await passes(30.0)
        assert not made["a"].has("m00001")
        assert not made["c"].has("k00001")
        made.mend()
        assert await made.until_agreed(30.0) < (2.0 if is_seen else 26.0)
        assert not made["c"].has("k00008")

    cluster_of("abc", check)


def test_a_node_that_was_away_for_a_day_gets_what_happened_and_no_more() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 500)
        await made.until_agreed(300.0)
        await passes(300.0)
        await made.stop("c")
        await write_many(made, "b", 100, "m")
        await made["a"].delete("k00003")
        await passes(DAY_SECONDS)
        made.forget_counts()
        await made.start("c")
        assert await made["c"].sync.catch_up(60.0)
        assert made.agree
        assert not made["c"].has("k00003")
        # It reads both feeds, and they read its own: what it heard of is in there too.
        assert made.carried <= 4 * 101 + 10

    cluster_of("abc", check, poll_seconds=30.0, sync_seconds=60.0)


def test_a_restarted_node_reads_on_from_its_checkpoints() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 300)
        await passes(30.0)
        await made.stop("b")
        made.forget_counts()
        await made.start("b")
        assert await made["b"].sync.catch_up(5.0)
        assert made.carried == 0
        await made["a"].write("new")
        assert await made.until_agreed(1.0) < 0.2

    cluster_of("abc", check)


def test_a_new_node_gets_all_records_about_once_not_once_from_each_member() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 6000)
        await made.until_agreed(60.0)
        await passes(30.0)
        made.forget_counts()
        await made.start("e")
        assert not made["e"].sync.caught_up()
        assert await made["e"].sync.catch_up(60.0)
        assert made.agree
        await passes(30.0)
        # Beside the records themselves, each pair read a first page or two of each other's feed.
        assert 6000 <= made.carried <= 6000 + 3 * 4 * 500
        assert made.pushed == []
        # The checkpoints were taken over, and lead on from there.
        made.forget_counts()
        made.lost_paths = [messages.PUSH]
        await made["a"].write("new")
        await passes(15.0)
        assert made.agree
        assert made.carried <= 5 * 4
        assert made.messages[messages.RANGES] == 0

    cluster_of("abcd", check)


def test_a_new_node_reads_fast_enough_and_not_faster() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 5001)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await made.start("b")
        assert await made["b"].sync.catch_up(60.0)
        assert made.agree
        assert 4.0 < loop.time() - began < 12.0

    cluster_of("a", check, records_per_second=1000.0)


def test_what_is_written_while_a_new_node_compares_reaches_it_by_the_feed() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 6000)
        made.lost_paths = [messages.PUSH]
        await made.start("b")
        for number in range(100):  # in front of where it compares, and behind
            await made["a"].write(f"k{60 * number:05}", "again")
            await made["a"].write(f"a{number}")
            await passes(0.08)
        assert made["b"].sync.status()["peers"]["a"]["phase"] == "comparing"
        assert await made["b"].sync.catch_up(60.0)
        assert made.agree
        assert made["b"].sync.status()["repaired"] == 0

    cluster_of("a", check, records_per_second=500.0)


def test_a_node_with_an_emptied_disk_gets_its_own_records_back_and_writes_on() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 5500)
        await write_many(made, "b", 10, "m")
        await made.until_agreed(60.0)
        await passes(30.0)
        await made.stop("a")
        made.lost_paths = [messages.PUSH]
        made.forget_counts()
        await made.start("a", MemoryIndex("a"))
        # Its numbers begin anew, so the others' checkpoints say nothing of these.
        await made["a"].write("new")
        await made.until_agreed(60.0)
        assert len(made.contents("a")) == 5511
        assert made["c"].has("new")
        await passes(30.0)
        assert [
            each for each in made.pushed if each.key != "new"
        ] == []  # what came back is no news
        made.forget_counts()
        await passes(60.0)
        assert made.carried == 0

    cluster_of("abc", check)


def test_a_node_set_back_to_an_older_copy_loses_nothing_and_is_heard() -> None:
    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 100)
        await passes(30.0)
        copied = copy.deepcopy(made["a"].index)
        await write_many(made, "a", 100, "later")
        await made["b"].write("k00001")
        await passes(30.0)
        await made.stop("a")
        made.lost_paths = [messages.PUSH]
        made.cut("a", "b")
        made.cut("a", "c")
        await made.start("a", copied)
        # It writes before anyone reads it, under numbers that were given to other changes before.
        made.cut("a", "b")
        made.cut("a", "c")
        await write_many(made, "a", 50, "new")
        await passes(30.0)
        made.mend()
        await made.until_agreed(10.0)
        assert len(made.contents("c")) == 250
        assert made["a"].has("later00007")

    cluster_of("abc", check)


def test_what_pulling_missed_is_mended_by_comparing_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def check(made: RecordCluster) -> None:
        await passes(30.0)
        made.lost_paths = [messages.PUSH]
        await write_many(made, "a", 20)
        for name in "bc":  # as if something had gone wrong
            position = Position(made["a"].index.epochs()[-1].name, 20)
            await made[name].index.set_checkpoint("a", encode(position))
        await passes(30.0)
        assert not made["b"].has("k00001")
        assert await made["b"].sync.check(made.members["a"]) == 20
        assert made["b"].has("k00001")
        assert made["b"].sync.status()["repaired"] == 20
        assert made["b"].sync.status()["peers"]["a"]["repaired"] == 20
        assert await made["b"].sync.check(made.members["a"]) == 0

    with caplog.at_level(logging.WARNING):
        cluster_of("abc", check)
    assert "20 records of a had not come by its feed" in caplog.text


def test_comparing_happens_by_itself_and_finds_nothing_to_mend_while_all_write() -> None:
    async def check(made: RecordCluster) -> None:
        made.lost_paths = [messages.PUSH]
        for number in range(600):
            await made["abc"[number % 3]].write(f"{number % 90}", f"{number}")
            await passes(0.1)
        made.lost_paths = []
        await passes(15.0)
        assert made.agree
        assert made.messages[messages.RANGES] > 10
        assert made.messages[messages.RANGE] > 5
        assert [made[name].sync.status()["repaired"] for name in "abc"] == [0, 0, 0]

    cluster_of("abc", check, check_seconds=3.0)


def test_a_malformed_record_in_a_feed_keeps_no_other_one_out() -> None:
    async def check(made: RecordCluster) -> None:
        made.lost_paths = [messages.PUSH]
        await made["a"].write("first")
        bad = Record(bucket="bucket", key="bad", timestamp=now_ns(), node="a", level=77)
        await made["a"].index.merge([bad])
        await made["a"].write("last")
        await passes(15.0)
        assert made["b"].has("first")
        assert made["b"].has("last")
        assert made["b"].index.get("bucket", "bad") is None
        assert made["b"].sync.status()["refused"] >= 1

    cluster_of("ab", check)


def test_a_checkpoint_moves_only_after_what_was_read_is_kept() -> None:
    class Filling(MemoryIndex):
        is_full = True

        async def merge(self, records: Sequence[Record]) -> list[bool]:
            if self.is_full:
                raise Full("no space left")
            return await super().merge(records)

    async def check(made: RecordCluster) -> None:
        await write_many(made, "a", 10)
        index = Filling("b")
        await made.start("b", index)
        await passes(30.0)
        assert index.checkpoint("a") is None
        assert made["b"].sync.status()["peers"]["a"]["phase"] == "failing"
        assert not made["b"].sync.caught_up()
        index.is_full = False
        assert await made["b"].sync.catch_up(15.0)
        assert made.agree

    cluster_of("a", check)


def test_a_checkpoint_that_can_not_be_read_is_none() -> None:
    async def check(made: RecordCluster) -> None:
        await made["a"].write("k")
        index = MemoryIndex("b")
        await index.set_checkpoint("a", b"\x09rubbish")
        await made.start("b", index)
        assert await made["b"].sync.catch_up(5.0)
        assert made.agree

    cluster_of("a", check)


def test_a_member_is_synced_from_when_its_feed_was_read_until_it_starts_anew() -> None:
    async def check(made: RecordCluster) -> None:
        of_a = made["a"].sync
        before = made.members["b"]
        assert of_a.is_synced(before)
        assert of_a.status()["peers"]["b"]["phase"] == "resting"
        await made.stop("b")
        await passes(0.2)
        assert not of_a.is_synced(before)
        assert of_a.status()["peers"]["b"]["phase"] == "down"
        assert of_a.caught_up()  # it was read once, and is not live
        await made.start("b")
        assert not of_a.is_synced(made.members["b"])
        await passes(2.0)
        assert of_a.is_synced(made.members["b"])
        assert not of_a.is_synced(before)

    cluster_of("ab", check)


def test_a_member_that_starts_anew_unseen_is_read_at_once() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(9.0)
        restarted = made["b"]
        made.members["b"] = member("b", boot="another")
        made.look()
        restarted.index.changed.clear()
        made.forget_counts()
        await passes(0.3)
        assert made.messages[messages.PULL] == 1
        assert made["a"].sync.is_synced(made.members["b"])

    cluster_of("ab", check)


def test_a_hint_that_there_is_news_has_all_feeds_read_at_once() -> None:
    async def check(made: RecordCluster) -> None:
        await passes(4.0)
        made.lost_paths = [messages.PUSH]
        await made["b"].write("k")
        made["a"].sync.hurry()
        await passes(0.3)
        assert made["a"].has("k")
        assert not made["c"].has("k")

    cluster_of("abc", check)


def test_a_node_is_not_caught_up_while_it_has_reached_nobody() -> None:
    async def check(made: RecordCluster) -> None:
        node = made["a"]
        assert node.sync.caught_up()
        node.view = View.of("a", [member("a")], is_seeking=True)
        assert not await node.sync.catch_up(1.0)
        node.view = View.of("a", [member("a"), member("x")])
        assert not await node.sync.catch_up(1.0)
        assert node.sync.status()["peers"]["x"]["last_contact_seconds"] is None

    cluster_of("a", check)


@pytest.mark.parametrize("reads", ["feeds", "ranges", "both"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_all_agree_in_the_end(
    seed: int, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By feeds alone, without a check of the ranges; by comparing wherever there is a change; both."""
    if reads != "feeds":
        monkeypatch.setattr(sync, "COMPARE_ABOVE_CHANGES", 1)
        monkeypatch.setattr(record_sync, "FIRST_PULL_RECORDS", 2)
        monkeypatch.setattr(comparing, "RANGE_RECORDS", 4)
        monkeypatch.setattr(names_service, "RANGE_READ_RECORDS", 6)

    async def check(made: RecordCluster) -> None:
        random = Random(seed)
        made.loss = 0.1
        copies: dict[str, MemoryIndex] = {}
        for step in range(300):
            name = random.choice("abc")
            key = f"{random.randrange(15)}"
            match random.choices("wdcmrse", weights=[60, 15, 4, 4, 3, 3, 1])[0]:
                case "w":
                    await made[name].write(key, f"{step}")
                case "d":
                    await made[name].delete(key)
                case "c":
                    other = random.choice([each for each in "abc" if each != name])
                    made.cut(name, other, is_seen=random.random() < 0.5)
                case "m":
                    made.mend()
                case "r":
                    await made.stop(name)
                    await made.start(name)
                case "s":
                    copies[name] = copy.deepcopy(made[name].index)
                case "e":
                    await made.stop(name)
                    await made.start(name, copies.pop(name, None) or MemoryIndex(name))
            await passes(random.random() * 2.0)
        made.loss = 0.0
        made.mend()
        await made.until_agreed(40.0)
        assert len(made.contents("a")) >= 1

    cluster_of("abc", check, seed=seed, check_seconds=15.0 if reads == "both" else 1e9)


def test_records_of_more_than_one_page_agree_byte_by_byte() -> None:
    async def check(made: RecordCluster) -> None:
        some = [
            Record(bucket=f"b{number % 3}", key=f"{number}é", timestamp=number + 1, node="z",
                   digest=Digest.of(b"%d" % number), metadata={"n": str(number)})
            for number in range(2500)
        ]  # fmt: skip
        await made["b"].index.merge(some)
        await made.until_agreed(30.0)
        assert len(made.contents("a")) == 2500

    cluster_of("abc", check)
