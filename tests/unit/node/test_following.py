"""Following the own feed: nothing is skipped, whatever fails and whenever it is started again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from tests.unit.node.fakes import left_running, running

from tierce.core.codec import decode
from tierce.core.digest import Digest
from tierce.core.errors import Full, Unavailable
from tierce.core.limits import COPY_PAGE_RECORDS, COPY_POLL_SECONDS, FOLLOW_SAVE_SECONDS
from tierce.names.index import Change
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import following
from tierce.node.following import Follower
from tierce.testing import virtual_time


class Feed(MemoryIndex):
    """An index whose disk may be full. ``when_read`` is called while a page is being read."""

    def __init__(self) -> None:
        super().__init__("a", epoch="first")
        self.is_full = False
        self.saves = 0
        self.when_read: Callable[[], Awaitable[object]] | None = None

    async def set_checkpoint(self, peer: str, value: bytes) -> None:
        if self.is_full:
            raise Full("no space left")
        self.saves += 1
        await super().set_checkpoint(peer, value)

    async def changes(self, since: int, limit: int) -> list[Change]:
        page = await super().changes(since, limit)
        if self.when_read is not None:
            await self.when_read()
        return page

    async def put(self, key: str, text: str = "", *, deleted: bool = False) -> Record:
        digest = None if deleted else Digest.of(text.encode())
        draft = Record(bucket="bucket", key=key, digest=digest, deleted=deleted)
        return await self.write(draft, now=1)


class Worker:
    """Does work, and notes it by key. What is in ``failing`` fails."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.done: list[str] = []
        self.tried: list[str] = []
        self.failing: set[str] = set()
        self.stuck: dict[str, asyncio.Event] = {}
        self.seconds = 0.0
        self.at_once = 0
        self.most_at_once = 0

    def follower(self, *, at_once: int = 4) -> Follower:
        return Follower(
            "work", self.feed, self.concerns, self.work, at_once=at_once, retry_seconds=5.0
        )

    def concerns(self, change: Change) -> bool:
        return not change.record.deleted

    async def work(self, change: Change) -> None:
        key = change.record.key
        self.tried.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            if key in self.stuck:
                await self.stuck[key].wait()
        finally:
            self.at_once -= 1
        if key in self.failing:
            raise Unavailable(f"{key} fails")
        self.done.append(key)


def on_feed(test: Callable[[Feed, Worker], Awaitable[None]]) -> None:
    async def main() -> None:
        feed = Feed()
        await test(feed, Worker(feed))

    virtual_time.run(main())


async def passes(seconds: float) -> None:
    """Let so much of the virtual time go by: it takes none."""
    await asyncio.sleep(seconds)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def put_all(feed: Feed, keys: Sequence[str]) -> None:
    for key in keys:
        await feed.put(key)


def place(feed: Feed) -> int:
    """Up to which number all is done, as it is remembered."""
    kept = feed.checkpoint("work")
    return 0 if kept is None else decode(kept, tuple[str, int], "place")[1]


def numbered(count: int) -> list[str]:
    return [f"key {number:04}" for number in range(count)]


def test_every_change_is_done_once_and_a_restart_goes_on_after_them() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        keys = numbered(COPY_PAGE_RECORDS + 40)
        await put_all(feed, keys)
        async with running(worker.follower().run()):
            await until(lambda: len(worker.done) == len(keys))
            await feed.put("later")
            await until(lambda: worker.done[-1] == "later")
            await asyncio.sleep(1.5 * FOLLOW_SAVE_SECONDS)
        await feed.put("last")
        async with running(worker.follower().run()):
            await until(lambda: worker.done[-1] == "last")
        assert worker.done == [*keys, "later", "last"]

    on_feed(check)


def test_no_more_at_once_than_was_said_neither_at_first_nor_again() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.failing = set(numbered(20))
        worker.seconds = 1.0
        await put_all(feed, numbered(20))
        async with running(worker.follower(at_once=4).run()):
            await until(lambda: len(worker.tried) == 40)
        assert worker.most_at_once == 4

    on_feed(check)


def test_what_failed_is_done_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place that is remembered never moves past it, however much comes behind it."""

    async def check(feed: Feed, worker: Worker) -> None:
        worker.failing = {"key 0003"}
        await put_all(feed, numbered(3 * COPY_PAGE_RECORDS))
        async with running(worker.follower().run()):
            await until(lambda: len(worker.done) == 3 * COPY_PAGE_RECORDS - 1)
            await passes(1)
        worker.failing.clear()
        worker.done.clear()
        async with running(worker.follower().run()):
            await until(lambda: "key 0003" in worker.done)

    on_feed(check)


def test_what_failed_is_tried_again_with_the_record_as_it_is_then() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        seen: list[Change] = []
        works = worker.work

        async def work(change: Change) -> None:
            seen.append(change)
            await works(change)

        worker.work = work  # type: ignore[method-assign]
        worker.failing = {"key"}
        old = await feed.put("key", "old")
        follower = worker.follower()
        async with running(follower.run()):
            await until(lambda: len(follower.undone) == 1)
            new = await feed.put("key", "new")
            await until(lambda: seen[-1].record == new)
            assert seen[0].record == old
            worker.failing.clear()
            await until(lambda: worker.done == ["key"])
            assert len(follower.undone) == 0

    on_feed(check)


def test_a_record_rewritten_again_and_again_while_it_fails_is_not_lost() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.failing = {"key"}
        first = worker.follower()
        async with running(first.run()):
            for number in range(8):
                await feed.put("key", str(number))
                await feed.put(f"other {number}")
                await passes(2)
        worker.failing.clear()
        async with running(worker.follower().run()):
            await until(lambda: "key" in worker.done)

    on_feed(check)


def test_what_concerns_nobody_any_more_is_not_waited_for() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.failing = {"key"}
        await feed.put("key")
        follower = worker.follower()
        async with running(follower.run()):
            await until(lambda: len(follower.undone) == 1)
            await feed.put("key", deleted=True)
            await until(lambda: len(follower.undone) == 0)
            await passes(1)
        tried = len(worker.tried)
        async with running(worker.follower().run()):
            await passes(20)
        assert len(worker.tried) == tried

    on_feed(check)


def test_new_changes_do_not_wait_for_what_fails_and_takes_its_time() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.failing = set(numbered(COPY_PAGE_RECORDS))
        await put_all(feed, numbered(COPY_PAGE_RECORDS))
        follower = worker.follower(at_once=8)
        async with running(follower.run()):
            await until(lambda: len(follower.undone) == COPY_PAGE_RECORDS)
            worker.seconds = 10.0  # a whole round takes more than ten minutes
            await passes(6)
            await feed.put("new")
            await until(lambda: "new" in worker.done, 200)

    on_feed(check)


def test_all_that_failed_gets_its_turn() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        keys = numbered(COPY_PAGE_RECORDS)
        worker.failing = set(keys)
        await put_all(feed, keys)
        follower = worker.follower()
        async with running(follower.run()):
            await until(lambda: len(follower.undone) == len(keys))
            worker.failing = set(keys[:-1])
            await until(lambda: worker.done == keys[-1:])

    on_feed(check)


def test_a_full_disk_stops_nobody_and_the_place_is_remembered_once_there_is_room() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        feed.is_full = True
        await feed.put("one")
        follower = worker.follower()
        async with running(follower.run()) as task:
            await until(lambda: worker.done == ["one"])
            await passes(20)
            await feed.put("two")
            await until(lambda: worker.done == ["one", "two"])
            assert not task.done()
            feed.is_full = False
            await until(lambda: feed.checkpoint("work") is not None)
        async with running(worker.follower().run()):
            await passes(5)
        assert worker.done == ["one", "two"]

    on_feed(check)


@pytest.mark.parametrize("value", [b"", b"\x07", b"\x01\xff", b"\x01\x92\xa1?\xa1?"])
def test_a_place_that_can_not_be_read_means_all_is_looked_at_again(value: bytes) -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        await MemoryIndex.set_checkpoint(feed, "work", value)
        await feed.put("one")
        async with running(worker.follower().run()):
            await until(lambda: worker.done == ["one"])

    on_feed(check)


def test_a_change_that_comes_while_the_last_ones_vanish_is_not_skipped() -> None:
    """A tombstone at the end of the feed is forgotten between two looks."""

    async def check(feed: Feed, worker: Worker) -> None:
        await feed.put("one")
        gone = await feed.put("gone", deleted=True)
        worker.concerns = lambda change: change.record.key != "gone"  # type: ignore[method-assign]

        async def forget_and_write() -> None:
            if feed.get("bucket", "late") is None and "one" in worker.done:
                await feed.put("late")

        async with running(worker.follower().run()):
            await until(lambda: worker.done == ["one"])
            await passes(1)
            again = await feed.put("gone", deleted=True)
            assert again.timestamp > gone.timestamp
            await feed.drop("bucket", "gone", again.timestamp)
            feed.when_read = forget_and_write
            await until(lambda: "late" in worker.done)

    on_feed(check)


def test_memory_stays_bounded_while_everything_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "UNDONE_RECORDS", 100)

    async def check(feed: Feed, worker: Worker) -> None:
        keys = numbered(3 * COPY_PAGE_RECORDS)
        worker.failing = set(keys)
        await put_all(feed, keys)
        follower = worker.follower()
        async with running(follower.run()):
            await passes(60)
            assert 100 <= len(follower.undone) <= COPY_PAGE_RECORDS
            worker.failing.clear()
            await until(lambda: set(worker.done) == set(keys), 200)
            await until(lambda: len(follower.undone) == 0)

    on_feed(check)


def test_a_disk_that_was_put_back_is_read_from_where_its_history_ends() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        await put_all(feed, numbered(5))
        async with running(worker.follower().run()):
            await until(lambda: len(worker.done) == 5)
            await passes(1)
        kept = feed.checkpoint("work")
        assert kept is not None
        older = Feed()
        await older.put("key 0000")
        await MemoryIndex.set_checkpoint(older, "work", kept)
        await older.begin_epoch("second")
        await older.put("new")
        worker.feed = older
        worker.done.clear()
        async with running(worker.follower().run()):
            await until(lambda: worker.done == ["new"])

    on_feed(check)


def test_work_that_hangs_keeps_nothing_else_from_being_done_and_is_done_after_a_restart() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.stuck["stuck"] = asyncio.Event()
        keys = numbered(2 * COPY_PAGE_RECORDS + 10)
        await put_all(feed, ["first", "stuck", *keys])
        follower = worker.follower()
        async with running(follower.run()):
            await until(lambda: worker.done == ["first", *keys])
            await feed.put("later")
            await until(lambda: worker.done[-1] == "later")
            await asyncio.sleep(1.5 * FOLLOW_SAVE_SECONDS)
            assert place(feed) == 1
            assert follower.waiting == 1
        worker.stuck.clear()
        async with running(worker.follower().run()):
            await until(lambda: "stuck" in worker.done)
            await until(lambda: place(feed) == feed.last_seq())

    on_feed(check)


def test_what_is_changed_while_its_work_takes_long_is_worked_on_again() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.stuck["key"] = asyncio.Event()
        await feed.put("key", "old")
        follower = worker.follower()
        async with running(follower.run()):
            await until(lambda: worker.tried == ["key"])
            await feed.put("key", "new")
            await feed.put("other")
            await until(lambda: worker.done == ["other"])
            assert worker.tried == ["key", "other"]  # one at a time for a name
            worker.stuck["key"].set()
            await until(lambda: worker.done == ["other", "key", "key"])
            await until(lambda: place(feed) == feed.last_seq())
            assert follower.waiting == 0

    on_feed(check)


def test_what_is_changed_while_it_is_tried_again_is_worked_on_again() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.failing = {"key"}
        await feed.put("key", "old")
        follower = worker.follower()
        async with running(follower.run()):
            await until(lambda: len(follower.undone) == 1)
            worker.failing.clear()
            worker.stuck["key"] = asyncio.Event()
            await until(lambda: worker.tried == ["key", "key"])
            await feed.put("key", "new")
            await feed.put("other")
            await until(lambda: worker.done == ["other"])
            worker.stuck["key"].set()
            await until(lambda: worker.done == ["other", "key", "key"])

    on_feed(check)


def test_a_mistake_in_the_work_ends_it_all_and_is_told() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        works = worker.work

        async def work(change: Change) -> None:
            if change.record.key == "wrong":
                raise ValueError("a mistake")
            await works(change)

        worker.work = work  # type: ignore[method-assign]
        worker.stuck["stuck"] = asyncio.Event()
        await put_all(feed, ["stuck", "wrong", "good"])
        with pytest.raises(ValueError, match="a mistake"):
            async with asyncio.timeout(60):
                await worker.follower().run()
        assert worker.done == ["good"]
        assert worker.at_once == 0
        assert await left_running() == []

    on_feed(check)


def test_a_mistake_long_after_its_change_was_read_is_told_too() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        release = worker.stuck["wrong"] = asyncio.Event()
        works = worker.work

        async def work(change: Change) -> None:
            await works(change)
            raise ValueError("a mistake")

        worker.work = work  # type: ignore[method-assign]
        await feed.put("wrong")
        asyncio.get_running_loop().call_later(30, release.set)
        with pytest.raises(ValueError, match="a mistake"):
            async with asyncio.timeout(30 + 2 * COPY_POLL_SECONDS):
                await worker.follower().run()

    on_feed(check)


def test_cancelling_ends_the_work_under_way() -> None:
    async def check(feed: Feed, worker: Worker) -> None:
        worker.stuck = {key: asyncio.Event() for key in numbered(3)}
        await put_all(feed, numbered(3))
        async with running(worker.follower(at_once=2).run()):
            await until(lambda: worker.at_once == 2)
            await asyncio.sleep(2 * FOLLOW_SAVE_SECONDS)  # nobody waits for that page any more
        assert worker.at_once == 0
        assert await left_running() == []
        assert place(feed) == 0

    on_feed(check)
