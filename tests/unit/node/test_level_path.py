"""Objects with levels: success means that the level is reached; what breaks is never half visible."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.node.fakes import left_running, member, members
from tests.unit.node.object_bench import (
    GRACE_SECONDS,
    STARTED,
    Bench,
    content_of,
    level_record,
    now,
    on_bench,
)
from tests.unit.node.record_nodes import passes

from tierce.blobs.spool import SpoolSource
from tierce.cluster.member import State, View
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Full, NotFound, ReadOnly, TierceError, Unavailable
from tierce.core.limits import FULL_PATIENCE_SECONDS
from tierce.names.record import FULL, LOCAL, NEAR_CACHE_BUCKET, UPSTREAM, Record
from tierce.node.level_path import when_again
from tierce.upstream.tier import Source

DATA = b"content"
DIGEST = Digest.of(DATA)


def in_upstream(bench: Bench, key: str = "id") -> bytes | None:
    found = bench.upstream.objects.get(key)
    return None if found is None else found[1]


def known_by(bench: Bench) -> list[str]:
    return bench.records.having(NEAR_CACHE_BUCKET, "id")


def test_level_0_is_on_this_node_and_nowhere_else(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.put_level(DATA, LOCAL)
        assert (record.node, record.digest, record.is_upstream) == ("a", DIGEST, False)
        assert bench.known() == record
        assert bench.holders(DIGEST) == ["a"]
        assert bench.store.managed([DIGEST]) == [True]
        assert in_upstream(bench) is None

    on_bench(tmp_path, check)


def test_level_1_is_here_and_in_the_upstream(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.put_level(DATA, UPSTREAM)
        assert (record.node, record.is_upstream) == ("a", True)
        assert bench.holders(DIGEST) == ["a"]
        assert in_upstream(bench) == DATA

    on_bench(tmp_path, check)


def test_level_2_is_on_every_node_and_in_the_upstream_with_its_record(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.put_level(DATA, FULL)
        assert bench.holders(DIGEST) == ["a", "b", "c"]
        assert bench.peers.managed == {("b", DIGEST), ("c", DIGEST)}
        assert in_upstream(bench) == DATA
        assert known_by(bench) == ["b", "c"]
        assert bench.records.of["b"].get(NEAR_CACHE_BUCKET, "id") == record == bench.known()

    on_bench(tmp_path, check)


@pytest.mark.parametrize("level", [UPSTREAM, FULL])
def test_without_an_upstream_these_levels_are_refused(tmp_path: Path, level: int) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Conflict):
            await bench.put_level(DATA, level)
        assert bench.known() is None
        assert bench.holders(DIGEST) == []

    on_bench(tmp_path, check, has_upstream=False)


@pytest.mark.parametrize("level", [UPSTREAM, FULL])
def test_nothing_is_visible_if_the_upstream_fails(tmp_path: Path, level: int) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.is_down = True
        with pytest.raises(Unavailable):
            await bench.put_level(DATA, level)
        assert bench.known() is None
        assert bench.holders(DIGEST) == []

    on_bench(tmp_path, check)


def test_behind_the_upstream_gets_it_later_and_the_record_says_so(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.is_down = True
        async with bench.spools.holding(DATA, "blake3") as spool:
            draft = Record(bucket="", key="id", level=FULL)
            record, is_queued = await bench.levels.put(spool, draft)
        assert is_queued
        assert not record.is_upstream
        assert bench.holders(DIGEST) == ["a", "b", "c"]

    on_bench(tmp_path, check, mode="behind")


def test_a_live_node_that_can_not_take_level_2_means_no_success_and_no_record(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("does not answer")
        with pytest.raises(Unavailable, match="b is up"):
            await bench.put_level(DATA, FULL)
        assert FULL_PATIENCE_SECONDS <= now() < FULL_PATIENCE_SECONDS + 2
        assert bench.known() is None
        assert known_by(bench) == []

    on_bench(tmp_path, check)


@pytest.mark.parametrize("state", [State.ALIVE, State.SUSPECT])
def test_a_node_that_answers_again_in_time_gets_its_copy(tmp_path: Path, state: State) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("does not answer")

        async def recover() -> None:
            await passes(5)
            bench.peers.of["b"].error = None

        _, record = await asyncio.gather(recover(), bench.put_level(DATA, FULL))
        assert bench.holders(record.content) == ["a", "b", "c"]

    on_bench(tmp_path, check, [member("a"), member("b", state=state), member("c")])


def test_a_node_that_turns_out_to_be_down_need_not_have_it(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("does not answer")

        async def notice() -> None:
            await passes(5)
            bench.look([member("a"), member("b", state=State.DOWN), member("c")])

        await asyncio.gather(notice(), bench.put_level(DATA, FULL))
        assert bench.holders(DIGEST) == ["a", "c"]
        assert known_by(bench) == ["c"]

    on_bench(tmp_path, check)


@pytest.mark.parametrize("error", [Full("no room"), ReadOnly("read-only")], ids=["full", "ro"])
def test_a_full_node_gets_its_copy_later_and_the_record_now(
    tmp_path: Path, error: TierceError
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = error
        await bench.put_level(DATA, FULL)
        assert bench.holders(DIGEST) == ["a", "c"]
        assert known_by(bench) == ["b", "c"]

    on_bench(tmp_path, check)


def test_a_node_that_is_being_drained_keeps_nobody_from_level_2(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("this node is being drained")
        await bench.put_level(DATA, FULL)
        assert bench.holders(DIGEST) == ["a", "c"]
        assert known_by(bench) == ["b", "c"]

    on_bench(tmp_path, check, [member("a"), member("b", draining=True), member("c")])


@pytest.mark.parametrize("level", [LOCAL, UPSTREAM])
def test_a_node_that_is_being_drained_takes_nothing_that_only_it_would_have(
    tmp_path: Path, level: int
) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable):
            await bench.put_level(DATA, level)
        assert bench.known() is None

    on_bench(tmp_path, check, [member("a", draining=True), member("b"), member("c")])


def test_copies_that_took_so_long_that_they_may_be_collected_are_not_claimed(
    tmp_path: Path,
) -> None:
    """Each came without a record, and is kept without one for the grace time only."""

    async def check(bench: Bench) -> None:
        bench.peers.of["c"].latency_seconds = 0.6 * GRACE_SECONDS
        with pytest.raises(Unavailable, match="too long") as raised:
            await bench.put_level(DATA, FULL)
        assert "collect_grace_seconds" in raised.value.hint
        assert bench.known() is None
        assert known_by(bench) == []
        bench.peers.of["c"].latency_seconds = 0.4 * GRACE_SECONDS
        assert await bench.put_level(DATA, FULL) == bench.known()

    on_bench(tmp_path, check)


def test_nothing_is_put_before_the_cluster_was_reached(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable, match="not yet reached"):
            await bench.put_level(DATA, UPSTREAM)
        assert in_upstream(bench) is None

    on_bench(tmp_path, check, [member("a")], is_seeking=True)


def test_a_put_that_ends_after_a_newer_one_leaves_the_newer_in_force_everywhere(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        upload = bench.upstream.upload

        async def slow(record: Record, source: object) -> None:
            if record.digest == Digest.of(b"older"):
                await passes(10)
            await upload(record, source)  # type: ignore[arg-type]

        bench.upstream.upload = slow  # type: ignore[method-assign]
        older = asyncio.create_task(bench.put_level(b"older", UPSTREAM))
        await passes(1)
        newer = await bench.put_level(b"newer", UPSTREAM)
        assert (await older) == newer
        assert bench.known() == newer
        assert in_upstream(bench) == b"newer"

    on_bench(tmp_path, check)


def test_a_put_that_is_uploaded_first_and_kept_last_is_in_the_upstream_all_the_same(
    tmp_path: Path,
) -> None:
    """An older one is uploaded after it, and kept before it, while its copies are on their way."""

    async def check(bench: Bench) -> None:
        upload = bench.upstream.upload

        async def slow(record: Record, source: Source) -> None:
            if record.digest == Digest.of(b"older"):
                await passes(3)
            await upload(record, source)

        bench.upstream.upload = slow  # type: ignore[method-assign]
        bench.peers.of["b"].latency_seconds = 10.0
        older = asyncio.create_task(bench.put_level(b"older", UPSTREAM))
        await passes(1)
        newer = await bench.put_level(b"newer", FULL)
        assert (await older).rank < newer.rank
        assert bench.known() == newer
        assert in_upstream(bench) == b"newer"

    on_bench(tmp_path, check)


@pytest.mark.parametrize("level", [LOCAL, UPSTREAM, FULL])
def test_wherever_a_put_is_broken_off_what_is_visible_is_true(tmp_path: Path, level: int) -> None:
    """Cancelled after every number of turns of the loop, until it comes to its end."""

    def broken_off(turns: int) -> bool:
        ended = False

        async def check(bench: Bench) -> None:
            nonlocal ended
            putting = asyncio.create_task(bench.put_level(DATA, level))
            for _ in range(turns):
                await asyncio.sleep(0)
            ended = putting.done()
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
            assert await left_running() == []
            record = bench.known()
            if record is not None:
                assert "a" in bench.holders(DIGEST)
                assert level == LOCAL or in_upstream(bench) == DATA
                assert level < FULL or bench.holders(DIGEST) == ["a", "b", "c"]
            for name in known_by(bench):
                assert name in bench.holders(DIGEST)
                assert record is not None

        on_bench(tmp_path, check)
        return ended

    turns = 0
    while not broken_off(turns):
        turns += 1
    assert turns > level + 1


def test_two_puts_of_an_id_end_with_one_of_them_in_force_and_in_the_upstream(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.seconds = 1.0
        contents = [b"one", b"two", b"three", b"four"]
        await asyncio.gather(*(bench.put_level(each, UPSTREAM) for each in contents))
        record = bench.known()
        assert record is not None
        assert in_upstream(bench) in contents
        assert Digest.of(in_upstream(bench) or b"") == record.digest

    on_bench(tmp_path, check)


# Reading


def test_what_another_node_has_is_read_from_there_and_not_kept(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "b")
        opened = await bench.levels.open(level_record(DATA, LOCAL), fetch=False)
        assert await content_of(opened.blob) == DATA
        assert (opened.is_symlink, opened.is_fetched) == (True, False)
        assert "a" not in bench.holders(DIGEST)

    on_bench(tmp_path, check)


def test_what_only_the_upstream_has_is_fetched_if_that_was_asked_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.put_level(DATA, UPSTREAM)
        await bench.store.delete(DIGEST)
        with pytest.raises(NotFound, match="upstream only"):
            await bench.levels.open(record, fetch=False)
        opened = await bench.levels.open(record, fetch=True)
        assert await content_of(opened.blob) == DATA
        assert opened.is_fetched
        assert bench.holders(DIGEST) == ["a"]
        assert bench.store.managed([DIGEST]) == [True]

    on_bench(tmp_path, check)


def test_level_0_on_a_node_that_is_down_is_never_said_not_to_exist(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable):
            await bench.levels.open(level_record(DATA, LOCAL), fetch=False)

    given = members(3, replication=2)
    on_bench(tmp_path, check, [given[0], given[1].in_state(State.DOWN), given[2]])


@pytest.mark.parametrize(
    ("node", "states", "fields", "told", "not_told"),
    [
        ("b", {"b": State.DOWN}, {}, "when b is up", "forgotten"),
        ("", {}, {}, "when every node is up", "forgotten"),
        ("b", {}, {}, "log of b", "Try again"),
        ("b", {"c": State.DOWN}, {}, "when c can be reached. Look at the log of b", "is up"),
        ("z", {}, {}, "z, which had it, is no member any more", "Try again"),
        ("z", {}, {}, "it is lost", "X-Meta-Fetch"),
        ("z", {}, {"is_upstream": True}, "X-Meta-Fetch: 1", "it is lost"),
        ("z", {"c": State.DOWN}, {}, "when c can be reached. z, which", "z is up"),
        ("c", {"c": State.LEFT}, {}, "c, which had it, is no member", "Try again"),
    ],
)
def test_the_hint_names_those_who_can_be_awaited(
    node: str, states: dict[str, State], fields: dict[str, bool], told: str, not_told: str
) -> None:
    given = [each.in_state(states.get(each.node_id, State.ALIVE)) for each in members(3)]
    record = msgspec.structs.replace(level_record(DATA, LOCAL), node=node, **fields)
    hint = when_again(record, View.of("a", given))
    assert told in hint
    assert not_told not in hint


def test_what_is_queued_on_a_node_that_is_down_is_never_said_not_to_exist(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable):
            await bench.levels.open(level_record(DATA, UPSTREAM), fetch=True)

    given = members(3, replication=1)
    on_bench(tmp_path, check, [given[0], given[1].in_state(State.DOWN), given[2]])


def test_what_no_node_knows_is_fetched_or_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound):
            await bench.levels.fetch("id")
        bench.upstream.put_foreign("id", DATA, {}, STARTED)
        opened = await bench.levels.fetch("id")
        assert await content_of(opened.blob) == DATA
        assert opened.record == bench.known()

    on_bench(tmp_path, check)


def test_without_an_upstream_there_is_nothing_to_fetch_from(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound, match="no upstream"):
            await bench.levels.fetch("id")

    on_bench(tmp_path, check, has_upstream=False)


def test_what_is_deleted_while_it_is_fetched_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.upstream.put_foreign("id", DATA, {}, STARTED)
        bench.upstream.seconds = 5.0
        fetching = asyncio.create_task(bench.levels.fetch("id"))
        await asyncio.sleep(0.001)
        await bench.index.write(
            Record(bucket=NEAR_CACHE_BUCKET, key="id", deleted=True), now=STARTED + 10**9
        )
        with pytest.raises(NotFound):
            await fetching

    on_bench(tmp_path, check)


# Other levels, and the end


def test_a_raised_level_keeps_content_name_and_metadata(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        draft = Record(bucket="", key="id", level=LOCAL, name="n", metadata={"k": "v"})
        async with bench.spools.holding(DATA, "blake3") as spool:
            known, _ = await bench.levels.put(spool, draft)
        raised, _ = await bench.levels.raise_level(known, Record(bucket="", key="id", level=FULL))
        assert (raised.level, raised.name, raised.metadata) == (FULL, "n", {"k": "v"})
        assert (raised.digest, raised.modified_at) == (DIGEST, known.modified_at)
        assert raised.rank > known.rank
        assert bench.holders(DIGEST) == ["a", "b", "c"]
        assert in_upstream(bench) == DATA

    on_bench(tmp_path, check)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_raising_a_level_never_undoes_what_was_acknowledged_meanwhile(
    tmp_path: Path, is_deleted: bool
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(b"old", "b")
        known = level_record(b"old", LOCAL)
        await bench.index.merge([known])
        bench.peers.of["b"].latency_seconds = 5.0
        raising = asyncio.create_task(
            bench.levels.raise_level(known, Record(bucket="", key="id", level=UPSTREAM))
        )
        await passes(1)
        if is_deleted:
            newest = await bench.levels.delete(known)
        else:
            newest = await bench.put_level(b"new", UPSTREAM)
        await asyncio.gather(raising, return_exceptions=True)
        assert bench.known() == newest
        assert is_deleted or in_upstream(bench) == b"new"

    on_bench(tmp_path, check)


def test_a_tombstone_is_on_every_live_node_and_keeps_what_was_known(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        known = await bench.put_level(DATA, FULL)
        gone = await bench.levels.delete(known)
        # The upstream's object stays, and what is known of that must not be forgotten.
        assert (gone.deleted, gone.digest, gone.is_upstream, gone.level) == (
            True,
            None,
            True,
            FULL,
        )
        assert [bench.records.of[each].get(NEAR_CACHE_BUCKET, "id") for each in "bc"] == [gone] * 2
        again = await bench.levels.delete(gone)
        assert again.rank > gone.rank

    on_bench(tmp_path, check)


def test_mending_puts_what_is_in_force_into_the_upstream(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        record = await bench.put_level(DATA, UPSTREAM)
        older = msgspec.structs.replace(level_record(b"older", UPSTREAM), timestamp=1)
        async with bench.spools.holding(b"older", "blake3") as spool:
            await bench.upstream.upload(older, SpoolSource(spool))
        assert in_upstream(bench) == b"older"
        await bench.levels.mend(record)
        assert in_upstream(bench) == DATA

    on_bench(tmp_path, check)
