"""Healing on virtual time: what moves when nodes come and go, in which order, and what status says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.fakes import (
    FakeCluster,
    cluster,
    content,
    left_running,
    member,
    members,
    running,
)
from tests.unit.node.record_nodes import passes

from tierce.blobs.store import BlobInfo
from tierce.cluster.member import Member, State
from tierce.core.digest import Digest
from tierce.core.errors import Full, Unavailable
from tierce.core.limits import (
    HINT_REST_SECONDS,
    SURVEY_PAGE_BLOBS,
    SURVEY_REST_SECONDS,
    SURVEY_SECOND_LOOK_SECONDS,
    SURVEY_UNSETTLED_SECONDS,
)
from tierce.names.memory import MemoryIndex
from tierce.names.record import LOCAL, NO_LEVEL, Record
from tierce.node import peer_messages as messages
from tierce.node.keeping import Keeping
from tierce.testing import virtual_time

Check = Callable[[FakeCluster], Awaitable[None]]


def on_cluster(
    directory: Path, count: int, test: Check, *, bytes_per_second: int = 0, **fields: object
) -> None:
    async def main() -> None:
        async with cluster(
            directory, members(count, **fields), bytes_per_second=bytes_per_second
        ) as made:
            await test(made)
        assert await left_running() == []

    virtual_time.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def spread(made: FakeCluster, count: int, *, size: int = 20) -> list[Digest]:
    """Blobs on exactly their owners."""
    digests = []
    placement = next(iter(made.nodes.values())).placement()
    for number in range(count):
        data = content(number, size)
        digests.append(Digest.of(data))
        for owner in placement.owners(digests[-1]):
            made.nodes[owner.node_id].put(data)
    return digests


def assert_on_owners(made: FakeCluster, digests: list[Digest]) -> None:
    node = made.nodes[made.members[0].node_id]
    for digest in digests:
        owners = sorted(each.node_id for each in node.placement().owners(digest))
        assert made.holders(digest) == owners


def sums(made: FakeCluster) -> dict[str, int]:
    accounts = [made.nodes[each.node_id].healer.status() for each in made.members]
    names = ("responsible_blobs", "below_target", "at_target", "over_target", "bytes_to_move")
    return {name: sum(account[name] for account in accounts) for name in names}


def settled(blobs: int) -> dict[str, int]:
    return {
        "responsible_blobs": blobs,
        "below_target": 0,
        "at_target": blobs,
        "over_target": 0,
        "bytes_to_move": 0,
    }


def done(made: FakeCluster, name: str) -> int:
    return sum(node.healer.status()[name] for node in made.nodes.values())


def test_blobs_on_their_owners_are_counted_once_and_nothing_moves(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        spread(made, 60)
        await made.survey_all()
        assert sums(made) == settled(60)
        assert done(made, "pushed_blobs") == done(made, "trimmed_blobs") == 0

    on_cluster(tmp_path, 4, check)


def test_a_node_that_joins_empty_gets_what_it_owns_and_the_surplus_is_removed(
    tmp_path: Path,
) -> None:
    async def check(made: FakeCluster) -> None:
        newcomer = made.members[-1]
        made.look(made.members[:-1])
        digests = spread(made, 80)
        made.look([*made.members, newcomer])
        owned = [
            digest for digest in digests if newcomer in made.nodes["a"].placement().owners(digest)
        ]
        await made.survey_all()
        assert sorted(made.nodes["d"].store.blobs) == sorted(owned)
        assert done(made, "pushed_blobs") == len(owned)
        await made.survey_all()
        await made.survey_all()
        assert_on_owners(made, digests)
        assert sums(made) == settled(80)
        assert done(made, "trimmed_blobs") == len(owned)

    on_cluster(tmp_path, 4, check)


def test_from_copies_anywhere_all_get_to_their_owners(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        digests = [made.nodes["abcde"[number * 7 % 5]].put(content(number)) for number in range(60)]
        for _ in range(3):
            await made.survey_all()
        assert_on_owners(made, digests)
        assert sums(made) == settled(60)

    on_cluster(tmp_path, 5, check)


def test_nothing_moves_while_a_node_is_down_within_its_grace_time(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        spread(made, 40)
        made.stop("e")
        made.members[-1] = made.members[-1].in_state(State.DOWN)
        made.look(made.members)
        for _ in range(3):
            await made.survey_all("a", "b", "c", "d")
        assert done(made, "pushed_blobs") == 0
        lost = sum(1 for digest in made.nodes["e"].store.blobs)
        account = [made.nodes[name].healer.status()["below_target"] for name in "abcd"]
        assert sum(account) == lost > 0

    on_cluster(tmp_path, 5, check)


def test_after_its_grace_time_a_lost_nodes_blobs_are_copied(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        digests = spread(made, 40)
        lost = list(made.nodes["e"].store.blobs)
        made.stop("e")
        made.look([*made.members[:-1], made.members[-1].in_state(State.DOWN)], gone=["e"])
        await made.survey_all("a", "b", "c", "d")
        assert done(made, "pushed_blobs") == len(lost)
        for digest in digests:
            assert len([name for name in made.holders(digest) if name != "e"]) == 3

    on_cluster(tmp_path, 5, check)


def test_the_most_endangered_blobs_are_pushed_first(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        node = made.nodes["a"]
        mine = [
            content(number)
            for number in range(200)
            if node.placement().owners(Digest.of(content(number)))[0].node_id == "a"
        ][:20]
        for number, data in enumerate(mine):
            node.put(data)
            if number % 2:
                for owner in node.placement().owners(Digest.of(data))[1:2]:
                    made.nodes[owner.node_id].put(data)
        alone = [Digest.of(data) for data in mine[::2]]
        order: list[Digest] = []
        push = node.healer._pusher._push

        async def pushed(info: BlobInfo, member: Member) -> bool:
            order.append(info.digest)
            return await push(info, member)

        node.healer._pusher._push = pushed  # type: ignore[method-assign]
        await node.healer.survey()
        assert len(order) == 2 * len(alone) + 10
        assert set(order[: 2 * len(alone)]) == set(alone)

    on_cluster(tmp_path, 3, check)


def test_status_is_right_while_healing_goes_on_and_after_it(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        node = made.nodes["a"]
        for number in range(4000):
            node.put(content(number))
        surveying = asyncio.create_task(node.healer.survey())
        seen = []
        while not surveying.done():
            account = node.healer.status()
            if account["phase"] == "healing":
                seen.append(account)
                below, moved = account["below_target"], account["proved_blobs"]
                assert below + account["at_target"] == account["responsible_blobs"] == 4000
                assert below >= account["responsible_blobs"] - moved
                assert account["bytes_to_move"] == below * 20
            await asyncio.sleep(0.001)
        assert seen[0]["below_target"] == 4000
        assert any(0 < account["below_target"] < 4000 for account in seen)
        account = node.healer.status()
        assert (account["below_target"], account["at_target"]) == (0, 4000)
        assert account["last_pass"] == "1970-01-01T00:00:00Z"
        assert account["estimated_seconds"] == 0.0

    on_cluster(tmp_path, 2, check)


def test_a_copy_beyond_the_target_is_counted_as_such_at_once(tmp_path: Path) -> None:
    """Otherwise the cluster would look settled, with the surplus still to be removed."""

    async def check(made: FakeCluster) -> None:
        newcomer = made.members[-1]
        made.look(made.members[:-1])
        spread(made, 40)
        made.look([*made.members, newcomer])
        await made.survey_all("a", "b", "c")
        numbers = sums(made)
        assert numbers["over_target"] == len(made.nodes["d"].store.blobs) > 0
        assert numbers["at_target"] == 40 - numbers["over_target"]

    on_cluster(tmp_path, 4, check)


def test_the_estimate_is_the_bytes_left_at_the_rate_seen(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        node = made.nodes["a"]
        for number in range(3000):
            node.put(content(number))
        surveying = asyncio.create_task(node.healer.survey())
        await asyncio.sleep(2500 * 20 / 1000)
        account = node.healer.status()
        assert account["estimated_seconds"] == pytest.approx(
            account["bytes_to_move"] / 1000, rel=0.1
        )
        await surveying

    on_cluster(tmp_path, 2, check, bytes_per_second=1000)


def test_the_pace_in_bytes_is_kept(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        for number in range(500):
            made.nodes["a"].put(content(number))
        await made.nodes["a"].healer.survey()
        assert now() == pytest.approx(500 * 20 / 100, rel=0.02)

    on_cluster(tmp_path, 2, check, bytes_per_second=100)


def test_a_survey_goes_page_by_page_and_asks_each_peer_once_a_page(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        count = 2 * SURVEY_PAGE_BLOBS + 3
        for number in range(count):
            for node in made.nodes.values():
                node.put(content(number))
        await made.nodes["a"].healer.survey()
        status = made.nodes["a"].healer.status()
        assert sum(path == messages.FIND for _, path in made.transport.sent) == 2 + 2 + 1
        await made.nodes["b"].healer.survey()
        assert sums(made) == settled(count)
        assert 0 < status["responsible_blobs"] < count

    on_cluster(tmp_path, 2, check)


def test_a_second_holder_takes_over_when_the_responsible_one_does_not_push(
    tmp_path: Path,
) -> None:
    async def check(made: FakeCluster) -> None:
        placement = made.nodes["a"].placement()
        data = content(1)
        first, second, third = placement.owners(Digest.of(data))
        for each in (first, second):
            made.nodes[each.node_id].put(data)
        healer = made.nodes[second.node_id].healer
        await healer.survey()
        assert third.node_id not in made.holders(Digest.of(data))
        await healer.survey()
        assert third.node_id in made.holders(Digest.of(data))
        assert healer.status()["responsible_blobs"] == 0

    on_cluster(tmp_path, 3, check)


def test_a_hint_pulls_a_missing_blob(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        (digest,) = spread(made, 1)
        del made.nodes["b"].store.blobs[digest]
        async with running(made.nodes["b"].healer.run()):
            await asyncio.sleep(0.1)
            made.nodes["b"].healer.hint(digest)
            await asyncio.sleep(0.1)
            assert digest in made.nodes["b"].store.blobs

    on_cluster(tmp_path, 3, check)


def test_a_hint_replaces_a_bad_copy(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        (digest,) = spread(made, 1)
        made.nodes["b"].store.blobs[digest] = b"bad"
        async with running(made.nodes["b"].healer.run()):
            made.nodes["b"].healer.hint(digest)
            await asyncio.sleep(0.1)
        assert made.nodes["b"].store.blobs[digest] == content(0)
        assert len(made.nodes["b"].store.quarantined) == 1

    on_cluster(tmp_path, 3, check)


def test_a_hint_does_not_make_a_copy_where_none_belongs(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        (digest,) = spread(made, 1)
        (other,) = [name for name in made.nodes if name not in made.holders(digest)]
        made.nodes[other].healer.hint(digest)
        async with running(made.nodes[other].healer.run()):
            await asyncio.sleep(0.1)
        assert other not in made.holders(digest)

    on_cluster(tmp_path, 4, check)


def test_hints_do_not_falsify_the_numbers_of_the_last_survey(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        placement = made.nodes["a"].placement()
        mine = [
            content(number)
            for number in range(100)
            if placement.owners(Digest.of(content(number)))[0].node_id == "a"
        ][:2]
        for data in mine:
            for node in made.nodes.values():
                node.put(data)
        healer = made.nodes["a"].healer
        async with running(healer.run()):
            await asyncio.sleep(0.1)
            del made.nodes["b"].store.blobs[Digest.of(mine[0])]
            healer.hint(Digest.of(mine[0]))
            await asyncio.sleep(0.1)
            assert Digest.of(mine[0]) in made.nodes["b"].store.blobs
            status = healer.status()
            assert (status["below_target"], status["at_target"]) == (0, 2)

    on_cluster(tmp_path, 3, check)


def test_a_silent_peer_delays_a_survey_and_is_given_nothing(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        spread(made, 10)
        for name in "bc":
            made.nodes[name].store.blobs.clear()
        made.transport.silent.append("c:7071")
        await made.nodes["a"].healer.survey()
        assert len(made.nodes["b"].store.blobs) == 10
        assert not any(
            (address, path) == ("c:7071", messages.STORE) for address, path in made.transport.sent
        )

    on_cluster(tmp_path, 3, check)


def test_a_change_of_the_cluster_starts_a_survey_at_once(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        newcomer = made.members[-1]
        made.look(made.members[:-1])
        spread(made, 20)
        async with running(made.nodes["a"].healer.run()):
            await asyncio.sleep(0.2)
            made.look([*made.members, newcomer])
            await asyncio.sleep(0.2)
            assert made.nodes["d"].store.blobs

    on_cluster(tmp_path, 4, check)


def test_a_change_in_the_midst_of_a_survey_starts_another_one(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        newcomer = made.members[-1]
        made.look(made.members[:-1])
        spread(made, 20)
        made.transport.latency = lambda: 0.05
        async with running(made.nodes["a"].healer.run()):
            await asyncio.sleep(0.02)  # the first question is on its way
            made.look([*made.members, newcomer])
            await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)
            assert made.nodes["d"].store.blobs

    on_cluster(tmp_path, 4, check)


def test_a_change_that_moves_nothing_starts_no_survey(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        spread(made, 20)
        async with running(made.nodes["a"].healer.run()):
            await asyncio.sleep(0.2)
            asked = len(made.transport.sent)
            made.look([*made.members[:-1], member("c", version="2")])
            made.nodes["a"].healer.changed()
            await asyncio.sleep(0.2)
            assert len(made.transport.sent) == asked

    on_cluster(tmp_path, 3, check)


def test_surveys_follow_each_other_sooner_while_something_is_to_be_mended(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        made.nodes["a"].put(content(1))
        made.stop("b")
        async with running(made.nodes["a"].healer.run()):
            await asyncio.sleep(SURVEY_UNSETTLED_SECONDS * 3.5)
            found = sum(path == messages.FIND for _, path in made.transport.sent)
            assert found == 4
            made.transport.services["b:7071"] = made.nodes["b"].service
            await asyncio.sleep(SURVEY_UNSETTLED_SECONDS + SURVEY_SECOND_LOOK_SECONDS)
            assert made.holders(Digest.of(content(1))) == ["a", "b"]
            found = sum(path == messages.FIND for _, path in made.transport.sent)
            await asyncio.sleep(SURVEY_REST_SECONDS / 2)
            # One more question at most: the proof of what was pushed was one too.
            assert sum(path == messages.FIND for _, path in made.transport.sent) <= found + 1

    on_cluster(tmp_path, 2, check)


def test_a_draining_node_is_emptied_and_then_says_so(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        digests = spread(made, 40)
        made.look([member("a", draining=True), *made.members[1:]])
        told = []
        for _ in range(3):
            await made.survey_all()
            told.append((len(made.nodes["a"].store.blobs) == 0, made.nodes["a"].healer.is_drained))
        # It says so only once it has looked again after the last copy was removed.
        assert told == [(False, False), (True, False), (True, True)]
        assert_on_owners(made, digests)

    on_cluster(tmp_path, 4, check)


def test_a_node_that_was_empty_before_the_order_to_drain_is_not_called_drained_by_that(
    tmp_path: Path,
) -> None:
    async def check(made: FakeCluster) -> None:
        healer = made.nodes["a"].healer
        await healer.survey()
        made.nodes["a"].put(content(1))
        made.look([member("a", draining=True), *made.members[1:]])
        assert not healer.is_drained

    on_cluster(tmp_path, 4, check)


def test_a_draining_node_keeps_its_copies_while_others_can_not_take_them(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        made.nodes["a"].put(content(1))
        made.look([member("a", draining=True), *made.members[1:]])
        made.nodes["b"].room.is_full = made.nodes["c"].room.is_full = True
        for _ in range(3):
            await made.nodes["a"].healer.survey()
        assert made.holders(Digest.of(content(1))) == ["a"]
        assert not made.nodes["a"].healer.is_drained

    on_cluster(tmp_path, 3, check)


def test_a_node_that_is_alone_counts_its_blobs_and_asks_nobody(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        for number in range(5):
            made.nodes["a"].put(content(number))
        await made.nodes["a"].healer.survey()
        assert sums(made) == settled(5)
        assert made.transport.sent == []

    on_cluster(tmp_path, 1, check)


def test_a_failing_disk_interrupts_healing_only_for_a_while(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        node = made.nodes["a"]
        node.put(content(1))
        list_well = node.store.list_after

        async def list_ill(after: Digest | None, limit: int) -> list[BlobInfo]:
            raise Unavailable("the disk does not answer")

        node.store.list_after = list_ill  # type: ignore[method-assign]
        async with running(node.healer.run()):
            await asyncio.sleep(0.1)
            node.store.list_after = list_well  # type: ignore[method-assign]
            assert made.holders(Digest.of(content(1))) == ["a"]
            await asyncio.sleep(SURVEY_REST_SECONDS + SURVEY_SECOND_LOOK_SECONDS)
            assert made.holders(Digest.of(content(1))) == ["a", "b"]

    on_cluster(tmp_path, 2, check)


def test_what_was_on_its_way_during_a_survey_is_not_counted_as_missing(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        node = made.nodes["a"]
        node.put(content(1))
        looking = asyncio.create_task(node.healer.survey(urgent=False))
        await asyncio.sleep(SURVEY_SECOND_LOOK_SECONDS / 2)
        made.nodes["b"].put(content(1))
        await looking
        status = node.healer.status()
        assert (status["below_target"], status["pushed_blobs"]) == (0, 0)

    on_cluster(tmp_path, 2, check)


def test_a_deleted_blob_is_not_brought_back(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        (digest,) = spread(made, 1)
        peers, by_id = made.nodes["a"].peers, made.nodes["a"].placement().view.by_id
        for name in "bc":
            await peers.delete(by_id[name], digest)
        await made.nodes["a"].healer.survey()
        assert made.holders(digest) == ["a"]

    on_cluster(tmp_path, 3, check)


def test_a_blob_that_can_not_be_had_back_is_not_fetched_over_and_over(tmp_path: Path) -> None:
    """To fetch it tells again that it is missing here, which must not start anew at once."""

    async def check(made: FakeCluster) -> None:
        node = made.nodes["a"]
        digest = made.nodes["b"].put(content(1))

        async def full(spool: object, *, managed: bool | None = False) -> bool:
            raise Full("no room")

        node.store.put = full  # type: ignore[method-assign]
        node.fetcher._on_missing = node.healer.hint
        async with running(node.healer.run()):
            node.healer.hint(digest)
            await asyncio.sleep(HINT_REST_SECONDS * 2.5)
            reads = sum(path == messages.READ for _, path in made.transport.sent)
        assert 1 <= reads <= 3

    on_cluster(tmp_path, 2, check)


# Blobs that came with objects


def with_names(made: FakeCluster) -> dict[str, MemoryIndex]:
    """Let all nodes know of records; returns their indexes."""
    indexes = {name: MemoryIndex(name) for name in made.nodes}
    for name, node in made.nodes.items():
        node.healer._keeping = Keeping(node.store, indexes[name])
    return indexes


async def put_managed(
    made: FakeCluster, indexes: dict[str, MemoryIndex], data: bytes, on: str, level: int | None
) -> Digest:
    """Copies on these nodes, and, with a level, a record of them that all nodes have."""
    digest = Digest.of(data)
    for name in on:
        made.nodes[name].put(data)
        made.nodes[name].store.marks.add(digest)
    if level is not None:
        record = Record(bucket="bucket", key=str(digest), digest=digest, level=level, node=on[0])
        for index in indexes.values():
            await index.merge([record])
    return digest


def marked(made: FakeCluster, digest: Digest) -> list[str]:
    return [name for name, node in made.nodes.items() if digest in node.store.marks]


def test_objects_without_a_level_are_placed_by_the_ring_and_stay_managed(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        digests = [
            await put_managed(made, indexes, content(number), "abcde"[number % 5], NO_LEVEL)
            for number in range(20)
        ]
        for _ in range(3):
            await made.survey_all()
        assert_on_owners(made, digests)
        assert all(marked(made, digest) == made.holders(digest) for digest in digests)

    on_cluster(tmp_path, 5, check)


@pytest.mark.parametrize("level", [LOCAL, None], ids=["level 0", "no record"])
def test_what_the_ring_does_not_place_is_neither_moved_nor_counted(
    tmp_path: Path, level: int | None
) -> None:
    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        digests = [
            await put_managed(made, indexes, content(number), "abcde"[number % 5], level)
            for number in range(20)
        ]
        for _ in range(3):
            await made.survey_all()
        assert all(len(made.holders(digest)) == 1 for digest in digests)
        assert sums(made) == settled(0)

    on_cluster(tmp_path, 5, check)


@pytest.mark.parametrize("level", [LOCAL, NO_LEVEL, None], ids=["level 0", "ring", "no record"])
def test_a_drained_node_ends_empty_and_all_it_had_is_elsewhere(
    tmp_path: Path, level: int | None
) -> None:
    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        digests = [
            await put_managed(made, indexes, content(number), "b", level) for number in range(20)
        ]
        made.look([member("a"), member("b", draining=True), *members(4)[2:]])
        for _ in range(4):
            await made.survey_all()
        assert made.nodes["b"].healer.is_drained
        assert made.nodes["b"].store.blobs == {}
        for digest in digests:
            assert len(made.holders(digest)) == (3 if level == NO_LEVEL else 1)
            assert marked(made, digest) == made.holders(digest)
        assert made.nodes["b"].healer.status()["below_target"] == 0

    on_cluster(tmp_path, 4, check)


def test_a_claim_gets_to_all_copies_of_a_blob(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        digest = await put_managed(made, indexes, content(1), "abc", NO_LEVEL)
        made.nodes["b"].store.marks.discard(digest)
        await made.survey_all()
        assert marked(made, digest) == []

    on_cluster(tmp_path, 3, check)


def test_a_claim_outlives_the_trim_of_the_copy_that_had_it(tmp_path: Path) -> None:
    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        placement = made.nodes["a"].placement()
        data = next(
            data
            for data in map(content, range(100))
            if [each.node_id for each in placement.order(Digest.of(data))][-1] == "d"
        )
        digest = await put_managed(made, indexes, data, "abcd", NO_LEVEL)
        made.nodes["d"].store.marks.discard(digest)
        await made.survey_all("d")
        assert made.holders(digest) == ["a", "b", "c"]
        assert marked(made, digest) == []

    on_cluster(tmp_path, 4, check)


def test_what_is_collected_during_a_survey_is_not_claimed_elsewhere(tmp_path: Path) -> None:
    """A blob without a mark is claimed; one that is gone has none either."""

    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        digest = await put_managed(made, indexes, content(1), "abc", NO_LEVEL)
        store = made.nodes["a"].store
        list_after = store.list_after

        async def list_and_collect(after: Digest | None, limit: int) -> list[BlobInfo]:
            page = await list_after(after, limit)
            await store.delete(digest)
            return page

        store.list_after = list_and_collect  # type: ignore[method-assign]
        await made.survey_all("a")
        assert marked(made, digest) == ["b", "c"]

    on_cluster(tmp_path, 3, check)


@pytest.mark.parametrize("level", [LOCAL, NO_LEVEL])
def test_a_copy_that_went_bad_is_fetched_again_and_stays_managed(
    tmp_path: Path, level: int
) -> None:
    async def check(made: FakeCluster) -> None:
        indexes = with_names(made)
        digest = await put_managed(made, indexes, content(1), "abc", level)
        node = made.nodes["a"]
        node.store.blobs[digest] = b"rotten"
        async with running(node.healer.run()):
            node.healer.hint(digest)
            await passes(1)
        assert node.store.blobs[digest] == content(1)
        assert "a" in marked(made, digest)

    on_cluster(tmp_path, 3, check)
