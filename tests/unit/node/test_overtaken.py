"""Writes of this node that lost to another's: the upstream is looked at, and gets what is in force."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import pytest
from tests.unit.node.fakes import running
from tests.unit.node.object_bench import STARTED, Bench, level_record, on_bench
from tests.unit.node.record_nodes import flagged, passes

from tierce.core.errors import Unavailable
from tierce.core.limits import COPY_RETRY_SECONDS, OVERTAKEN_COUNT
from tierce.names.record import FULL, LOCAL, NO_LEVEL, UPSTREAM, Record
from tierce.node import overtaken
from tierce.node.overtaken import Overtaken
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.sim_node import Setup
from tierce.testing.sim_objects import NameCluster
from tierce.testing.sim_process import run
from tierce.testing.trace import Trace
from tierce.testing.upstream_contract import BytesSource

OWN = level_record(b"older", UPSTREAM, node="a", is_upstream=True)
NEWER = level_record(b"newer", UPSTREAM, timestamp=STARTED + 1, is_upstream=True)
QUEUED = level_record(b"newer", UPSTREAM, timestamp=STARTED + 1)
FOREIGN = level_record(b"foreign", UPSTREAM, timestamp=STARTED + 2, node="", is_upstream=True)


class Asked:
    """How often the upstream is asked for an object from now on."""

    def __init__(self, bench: Bench) -> None:
        self.count = 0
        self._stat = bench.upstream.stat
        bench.upstream.stat = self.stat  # type: ignore[method-assign]

    async def stat(self, key: str) -> Record:
        self.count += 1
        return await self._stat(key)


def watching(bench: Bench) -> Overtaken:
    return Overtaken("a", bench.index, bench.blobs, bench.upstream)


def in_upstream(bench: Bench, key: str = "id") -> bytes | None:
    found = bench.upstream.objects.get(key)
    return None if found is None else found[1]


async def upload(bench: Bench, *written: tuple[bytes, Record]) -> None:
    for data, record in written:
        await bench.upstream.upload(record, BytesSource(data))
    bench.upstream.uploads = 0


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.1)


def test_an_older_content_that_was_uploaded_after_a_newer_one_is_put_right(
    tmp_path: Path,
) -> None:
    """Both nodes took the id before they heard of each other; b's newer one was uploaded first."""

    async def check(bench: Bench) -> None:
        bench.peers.put(b"newer", "b")
        await upload(bench, (b"newer", NEWER), (b"older", OWN))
        work = watching(bench)
        async with running(work.run()):
            await bench.index.merge([OWN])
            await passes(1)
            assert await work.merge([NEWER]) == [True]
            await until(lambda: in_upstream(bench) == b"newer", 2 * COPY_RETRY_SECONDS)
            await until(lambda: work.waiting == 0)
        assert work.mended == bench.upstream.uploads == 1
        assert await bench.upstream.stat("id") == level_record(
            b"newer", UPSTREAM, bucket="", timestamp=STARTED + 1, is_upstream=True
        )

    on_bench(tmp_path, check)


def test_an_object_that_was_replaced_in_order_costs_one_request(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, (b"older", OWN), (b"newer", NEWER))
        asked = Asked(bench)
        work = watching(bench)
        async with running(work.run()):
            await bench.index.merge([OWN])
            await work.merge([NEWER])
            await passes(60)
        assert (asked.count, bench.upstream.uploads, work.waiting) == (1, 0, 0)

    on_bench(tmp_path, check)


@pytest.mark.parametrize(
    ("known", "heard"),
    [
        ([], NEWER),
        ([level_record(b"older", UPSTREAM, is_upstream=True)], NEWER),
        ([level_record(b"older", LOCAL, node="a")], NEWER),
        (
            [level_record(b"older", NO_LEVEL, node="a")],
            level_record(b"newer", NO_LEVEL, timestamp=STARTED + 1),
        ),
        ([OWN], level_record(b"newer", LOCAL, timestamp=STARTED + 1)),
        ([OWN], level_record(b"", UPSTREAM, timestamp=STARTED + 1, digest=None, deleted=True)),
        ([OWN], level_record(b"oldest", UPSTREAM, timestamp=STARTED - 1, is_upstream=True)),
        ([OWN], OWN),
    ],
    ids=[
        "new",
        "another node's",
        "own of level 0",
        "the ring's",
        "a lower level",
        "a tombstone",
        "an older one",
        "the same",
    ],
)
def test_what_takes_the_place_of_no_upload_of_this_node_costs_nothing(
    tmp_path: Path, known: Iterable[Record], heard: Record
) -> None:
    async def check(bench: Bench) -> None:
        await bench.index.merge(list(known))
        asked = Asked(bench)
        work = watching(bench)
        async with running(work.run()):
            await work.merge([heard])
            await passes(60)
        assert asked.count == 0
        assert bench.index.checkpoint(overtaken.CHECKPOINT) is None

    on_bench(tmp_path, check)


def test_what_its_own_node_has_not_uploaded_yet_is_waited_for(tmp_path: Path) -> None:
    """It may have been uploaded before the older one, and the news of that be still under way."""

    async def check(bench: Bench) -> None:
        bench.peers.put(b"newer", "b")
        await upload(bench, (b"newer", NEWER), (b"older", OWN))
        work = watching(bench)
        async with running(work.run()):
            await bench.index.merge([OWN])
            await work.merge([QUEUED])
            await passes(60)
            assert bench.upstream.uploads == 0
            await work.merge([flagged(QUEUED)])
            await until(lambda: in_upstream(bench) == b"newer", 2 * COPY_RETRY_SECONDS)

    on_bench(tmp_path, check)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(b"newer", "b")
        await upload(bench, (b"newer", NEWER), (b"older", OWN))
        await bench.index.merge([OWN])
        bench.upstream.is_down = True
        first = watching(bench)
        async with running(first.run()):
            await first.merge([NEWER])
            await passes(20)
        bench.upstream.is_down = False
        second = watching(bench)
        async with running(second.run()):
            await until(lambda: in_upstream(bench) == b"newer")
            await until(lambda: second.waiting == 0)
        third = watching(bench)
        asked = Asked(bench)
        async with running(third.run()):
            await passes(20)
        assert asked.count == 0

    on_bench(tmp_path, check)


def test_a_merge_that_fails_is_written_down_before_it_is_tried(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await upload(bench, (b"newer", NEWER), (b"older", OWN))
        await bench.index.merge([OWN])

        async def failing(records: object) -> list[bool]:
            assert bench.index.checkpoint(overtaken.CHECKPOINT) is not None
            raise Unavailable("the disk fails")

        bench.index.merge = failing  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await watching(bench).merge([NEWER])

    on_bench(tmp_path, check)


@pytest.mark.parametrize(("merge_seconds", "look_seconds"), [(30.0, 0.0), (1.0, 4.0)])
def test_a_look_before_the_newer_record_is_there_does_not_count(
    tmp_path: Path, merge_seconds: float, look_seconds: float
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(b"newer", "b")
        await upload(bench, (b"newer", NEWER), (b"older", OWN))
        await bench.index.merge([OWN])
        merge, stat = bench.index.merge, bench.upstream.stat

        async def slow(records: list[Record]) -> list[bool]:
            await passes(merge_seconds)
            return await merge(records)

        async def slow_stat(key: str) -> Record:
            await passes(look_seconds)
            return await stat(key)

        bench.index.merge = slow  # type: ignore[method-assign, assignment]
        bench.upstream.stat = slow_stat  # type: ignore[method-assign]
        work = watching(bench)
        async with running(work.run()):
            await work.merge([NEWER])
            await until(lambda: in_upstream(bench) == b"newer", 3 * COPY_RETRY_SECONDS)

    on_bench(tmp_path, check)


def test_another_programs_object_is_left_alone(tmp_path: Path) -> None:
    """It replaced what this node had put there, and another node has fetched it since."""

    async def check(bench: Bench) -> None:
        bench.upstream.put_foreign("id", b"foreign", {}, STARTED + 2)
        bench.peers.put(b"foreign", "b")
        await bench.index.merge([OWN])
        work = watching(bench)
        async with running(work.run()):
            await work.merge([FOREIGN])
            await until(lambda: work.waiting == 0)
        assert (in_upstream(bench), bench.upstream.uploads) == (b"foreign", 0)

    on_bench(tmp_path, check)


def test_what_the_upstream_has_of_a_still_newer_write_is_left_alone(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        newest = level_record(b"newest", FULL, node="c", timestamp=STARTED + 9, is_upstream=True)
        await upload(bench, (b"newest", newest))
        bench.peers.put(b"newer", "b")
        await bench.index.merge([OWN])
        work = watching(bench)
        async with running(work.run()):
            await work.merge([NEWER])
            await until(lambda: work.waiting == 0)
        assert (in_upstream(bench), bench.upstream.uploads) == (b"newest", 0)

    on_bench(tmp_path, check)


def test_more_than_are_remembered_are_left_to_the_cache_and_merged_all_the_same(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        count = OVERTAKEN_COUNT + 1
        keys = [f"id{number}" for number in range(count)]
        await bench.index.merge(
            [level_record(b"older", UPSTREAM, node="a", key=key) for key in keys]
        )
        work = watching(bench)
        heard = [level_record(b"newer", UPSTREAM, timestamp=STARTED + 1, key=key) for key in keys]
        assert await work.merge(heard) == [True] * count
        assert work.waiting == OVERTAKEN_COUNT

    on_bench(tmp_path, check)


@pytest.mark.parametrize("is_behind", [False, True])
def test_two_nodes_that_took_an_id_apart_leave_the_newer_content_in_the_upstream(
    tmp_path: Path, is_behind: bool
) -> None:
    """The clock of the node that takes it last is slow, so that its content is the older one."""

    async def main() -> None:
        cluster = NameCluster(1, 1, tmp_path, Trace(), is_behind=is_behind)
        cluster.upstream = upstream = MemoryUpstream(Random(1))
        for skew_seconds in (0.0, -100.0):
            await cluster.add(
                Setup(
                    cluster.new_name(),
                    skew_seconds=skew_seconds,
                    upstream=upstream,
                    mode="behind" if is_behind else "through",
                )
            )
        await cluster.form()
        ahead, slow = cluster.nodes.values()
        for one, other in ((ahead, slow), (slow, ahead)):
            cluster.network.cut(one.setup.node_id, other.setup.node_id)
        await cluster.put_levelled(ahead, "x", "id", b"newer", UPSTREAM, 60)
        await passes(5)
        await cluster.put_levelled(slow, "y", "id", b"older", UPSTREAM, 60)
        await passes(5)
        cluster.network.mend()
        await cluster.settle(600)
        await until(lambda: upstream.objects["id"][1] == b"newer")
        cluster.check_lasting()

    run(main())
