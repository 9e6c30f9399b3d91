"""Pushing and trimming: copies are read back, and of contradicting trims enough copies stay."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.fakes import (
    FakeCluster,
    FakePeers,
    blob_with_order,
    cluster,
    content,
    left_running,
    member,
    members,
    placed,
)

from tierce.blobs.memory import MemoryStore
from tierce.blobs.packed import SmallBlob
from tierce.blobs.store import BlobInfo
from tierce.cluster.healing import Plan
from tierce.cluster.member import Member
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt, Unavailable
from tierce.core.limits import (
    HEAL_LARGE_AT_ONCE,
    HEAL_SMALL_AT_ONCE,
    PACK_LIMIT_BYTES,
    PEER_BATCH_BLOBS,
    PROOF_BYTES,
    PROOF_SECONDS,
)
from tierce.node.pacing import Pace
from tierce.node.pushing import Pusher, Task
from tierce.testing import virtual_time

A, B, C, D = members(4)
ORDER = ("b", "c", "d", "a")  # a's copies are surplus once b, c and d have theirs


class Bench:
    """A pusher at node a, over peers without a wire."""

    def __init__(self, *, per_second: float = 0) -> None:
        self.placement = placed("a", members(4))
        self.store = MemoryStore()
        self.peers = FakePeers()
        self.needed: set[Digest] = set()
        self.pusher = Pusher(
            self.store,
            self.peers,
            lambda: self.placement,
            Pace(per_second),
            self.needed.__contains__,
        )
        self.proved: list[tuple[Digest, int]] = []

    def task(self, data: bytes, *, push_to: str = "", witnesses: str = "") -> Task:
        digest = Digest.of(data)
        self.store.blobs[digest] = data
        by_id = self.placement.view.by_id
        return Task(
            BlobInfo(digest, len(data)),
            Plan(1, 0, tuple(by_id[n] for n in push_to), tuple(by_id[n] for n in witnesses)),
        )

    async def push(self, *tasks: Task) -> None:
        await self.pusher.push_all(
            tasks, lambda task, count: self.proved.append((task.info.digest, count))
        )


def on_bench(test: Callable[[Bench], Awaitable[None]], *, per_second: float = 0) -> None:
    async def main() -> None:
        bench = Bench(per_second=per_second)
        await test(bench)
        assert bench.pusher.condemned == {}
        assert await left_running() == []

    virtual_time.run(main())


async def passes(seconds: float) -> None:
    """Let so much of the virtual time go by: it takes none."""
    await asyncio.sleep(seconds)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_copy_counts_once_its_peer_has_read_it_back() -> None:
    async def check(bench: Bench) -> None:
        task = bench.task(content(1), push_to="bc")
        await bench.push(task)
        assert bench.proved == [(task.info.digest, 2)]
        assert [bench.peers.of[name].asked for name in "bc"] == [["find", "store", "prove"]] * 2
        done = bench.pusher.done
        assert (done.pushed_blobs, done.pushed_bytes, done.proved_blobs) == (2, 40, 2)

    on_bench(check)


def test_a_copy_that_its_peer_can_not_prove_does_not_count() -> None:
    async def check(bench: Bench) -> None:
        task = bench.task(content(1), push_to="b")

        async def nothing(*_: object, **__: object) -> list[int | None]:
            return [None]

        bench.peers.find = nothing  # type: ignore[method-assign]
        await bench.push(task)
        assert bench.proved == []
        assert bench.pusher.done.proved_blobs == 0

    on_bench(check)


@pytest.mark.parametrize("error", [Unavailable("gone"), Conflict("it was deleted")], ids=str)
def test_a_push_that_fails_leaves_the_others_alone(error: Unavailable | Conflict) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = error
        task = bench.task(content(1), push_to="bc")
        await bench.push(task)
        assert bench.proved == [(task.info.digest, 1)]
        assert bench.pusher.done.failed_pushes == 1

    on_bench(check)


def test_a_blob_that_is_here_no_more_is_not_pushed() -> None:
    async def check(bench: Bench) -> None:
        task = bench.task(content(1), push_to="b")
        bench.store.blobs.clear()
        await bench.push(task)
        assert bench.peers.of["b"].asked == ["find"]
        assert bench.pusher.done.failed_pushes == 0

    on_bench(check)


def test_a_blob_that_can_not_be_read_here_leaves_the_others_alone_and_nothing_running() -> None:
    async def check(bench: Bench) -> None:
        bad = bench.task(content(1), push_to="b")
        good = [bench.task(content(number), push_to="b") for number in (2, 3)]
        bench.peers.of["b"].latency_seconds = 1.0
        open_well = bench.store.open

        async def open_ill(digest: Digest) -> SmallBlob:
            if digest == bad.info.digest:
                raise Unavailable("the disk does not answer")
            return await open_well(digest)

        bench.store.open = open_ill  # type: ignore[method-assign]
        await bench.push(bad, *good)
        assert [digest for digest, _ in bench.proved] == [task.info.digest for task in good]
        assert bench.pusher.done.failed_pushes == 1

    on_bench(check)


def test_a_copy_found_bad_while_it_is_pushed_is_no_failure_of_the_peer() -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Corrupt("the copy is bad")
        await bench.push(bench.task(content(1), push_to="b"))
        assert bench.pusher.done.failed_pushes == 0

    on_bench(check)


def test_the_pace_in_bytes_is_kept() -> None:
    async def check(bench: Bench) -> None:
        await bench.push(*(bench.task(content(number), push_to="bc") for number in range(50)))
        assert now() == pytest.approx(2 * 50 * 20 / 100, rel=0.1)
        assert bench.pusher.estimated_seconds(1000) == pytest.approx(10, rel=0.2)

    on_bench(check, per_second=100)


def test_an_estimate_needs_a_rate() -> None:
    async def check(bench: Bench) -> None:
        assert bench.pusher.estimated_seconds(0) == 0.0
        assert bench.pusher.estimated_seconds(5) is None
        bench.peers.of["b"].latency_seconds = 1.0
        await bench.push(bench.task(content(1), push_to="b"))  # 20 bytes in 3 seconds
        assert bench.pusher.estimated_seconds(100) == 15.0

    on_bench(check)


@pytest.mark.parametrize(
    ("size", "limit"), [(20, HEAL_SMALL_AT_ONCE), (PACK_LIMIT_BYTES + 1, HEAL_LARGE_AT_ONCE)]
)
def test_only_so_many_pushes_are_under_way(size: int, limit: int) -> None:
    async def check(bench: Bench) -> None:
        under_way = most = 0
        store_well = bench.peers.store

        async def store(*args: object, **more: object) -> bool:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                await asyncio.sleep(0.1)
                return await store_well(*args, **more)  # type: ignore[arg-type]
            finally:
                under_way -= 1

        bench.peers.store = store  # type: ignore[method-assign]
        count = limit + 5
        await bench.push(*(bench.task(content(n, size), push_to="b") for n in range(count)))
        assert most == limit
        assert len(bench.proved) == count

    on_bench(check)


def test_proofs_are_asked_for_in_bounded_portions() -> None:
    async def check(bench: Bench) -> None:
        await bench.push(
            *(bench.task(content(n), push_to="b") for n in range(PEER_BATCH_BLOBS + 1))
        )
        assert bench.peers.of["b"].asked.count("prove") == 2

    on_bench(check)


def test_proofs_of_large_blobs_are_asked_for_in_portions_of_bytes() -> None:
    async def check(bench: Bench) -> None:
        tasks = [
            task._replace(info=BlobInfo(task.info.digest, PROOF_BYTES // 2 + 1))
            for task in (bench.task(content(n), push_to="b") for n in range(3))
        ]
        await bench.push(*tasks)
        assert bench.peers.of["b"].asked.count("prove") == 3

    on_bench(check)


def test_pushing_stops_when_the_cluster_changes() -> None:
    """Another blob may be in more danger then."""

    async def check(bench: Bench) -> None:
        bench.peers.of["b"].latency_seconds = 1.0
        count = 4 * PEER_BATCH_BLOBS + 1
        tasks = [bench.task(content(number), push_to="b") for number in range(count)]
        pushing = asyncio.create_task(bench.push(*tasks))
        await asyncio.sleep(0.1)
        bench.placement = placed("a", members(5))
        await pushing
        assert len(bench.proved) == count - 1

    on_bench(check)


def with_copies(bench: Bench, *names: str) -> Task:
    """A blob that is here, surplus, with the copies of those members."""
    _, data = blob_with_order(bench.placement, *ORDER)
    bench.peers.put(data, *names)
    return bench.task(data, witnesses="bcd")


def test_a_surplus_copy_is_removed_once_enough_have_proved_theirs() -> None:
    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        await bench.pusher.trim_all([task])
        assert bench.store.blobs == {}
        assert bench.pusher.done.trimmed_blobs == 1
        assert [bench.peers.of[name].asked for name in "bcd"] == [["prove"]] * 3

    on_bench(check)


def test_a_surplus_copy_stays_when_a_witness_has_none() -> None:
    async def check(bench: Bench) -> None:
        await bench.pusher.trim_all([with_copies(bench, "b", "c")])
        assert len(bench.store.blobs) == 1

    on_bench(check)


def test_a_surplus_copy_stays_when_a_witness_does_not_answer() -> None:
    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        bench.peers.of["c"].error = Unavailable("gone")
        await bench.pusher.trim_all([task])
        assert len(bench.store.blobs) == 1

    on_bench(check)


def test_a_surplus_copy_stays_when_its_witness_has_another_size() -> None:
    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        bench.peers.of["c"].blobs[task.info.digest] = b"shorter"
        await bench.pusher.trim_all([task])
        assert len(bench.store.blobs) == 1

    on_bench(check)


def test_a_surplus_copy_stays_when_the_cluster_changes_meanwhile() -> None:
    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        bench.peers.of["d"].latency_seconds = 1.0
        trimming = asyncio.create_task(bench.pusher.trim_all([task]))
        await asyncio.sleep(0.1)
        bench.placement = placed("a", [*members(3), member("d", draining=True)])
        await trimming
        assert len(bench.store.blobs) == 1

    on_bench(check)


def test_a_surplus_copy_stays_that_a_level_came_to_need_meanwhile() -> None:
    async def check(bench: Bench) -> None:
        needed = with_copies(bench, "b", "c", "d")
        other = bench.task(content(1), witnesses="bcd")
        bench.peers.put(content(1), "b", "c", "d")
        bench.peers.of["d"].latency_seconds = 1.0
        trimming = asyncio.create_task(bench.pusher.trim_all([needed, other]))
        await asyncio.sleep(0.1)
        bench.needed.add(needed.info.digest)
        await trimming
        assert list(bench.store.blobs) == [needed.info.digest]
        assert bench.pusher.done.trimmed_blobs == 1

    on_bench(check)


def test_a_surplus_copy_stays_when_the_proofs_are_old() -> None:
    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        bench.peers.of["d"].latency_seconds = PROOF_SECONDS + 1
        await bench.pusher.trim_all([task])
        assert len(bench.store.blobs) == 1

    on_bench(check)


def test_a_copy_is_condemned_before_anyone_is_asked_and_until_it_is_gone() -> None:
    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        bench.peers.of["b"].latency_seconds = 1.0
        trimming = asyncio.create_task(bench.pusher.trim_all([task]))
        await asyncio.sleep(0.1)
        assert list(bench.pusher.condemned) == [task.info.digest]
        await trimming
        assert bench.pusher.condemned == {}

    on_bench(check)


def test_a_copy_stays_condemned_when_its_trim_is_cancelled() -> None:
    """Its removal may be under way, so it must not be vouched for."""

    async def check(bench: Bench) -> None:
        task = with_copies(bench, "b", "c", "d")
        bench.peers.of["b"].latency_seconds = 1.0
        trimming = asyncio.create_task(bench.pusher.trim_all([task]))
        await asyncio.sleep(0.1)
        trimming.cancel()
        await asyncio.gather(trimming, return_exceptions=True)
        assert len(bench.store.blobs) == 1
        assert list(bench.pusher.condemned) == [task.info.digest]
        bench.pusher.condemned.clear()

    on_bench(check)


async def contradicting(made: FakeCluster, chance: random.Random, trimmers: int) -> int:
    """Some nodes, each with an order of its own, trim the same blob at about the same time.

    Returns how many copies are left.
    """
    names = list(made.nodes)
    made.transport.latency = lambda: chance.choice([0.0, 0.0, 0.001, 0.01, 0.1]) * chance.random()
    data = content(chance.randrange(1000))
    for name in names:
        made.nodes[name].put(data)
    digest = Digest.of(data)

    async def trim(name: str) -> None:
        node = made.nodes[name]
        # Each believes that all the others are better placed than itself: no two agree.
        for _ in range(chance.randrange(1, 4)):
            await asyncio.sleep(chance.choice([0.0, 0.01, 0.1]) * chance.random())
            if digest not in node.store.blobs:
                return
            others = [each for each in made.members if each.node_id != name]
            witnesses = chance.sample(others, chance.randint(len(others) // 2, len(others)))
            surplus = Plan(len(names), len(witnesses), (), tuple(witnesses))
            await node.healer._pusher.trim_all([Task(BlobInfo(digest, len(data)), surplus)])

    async with asyncio.TaskGroup() as tasks:
        for name in chance.sample(names, trimmers):
            tasks.create_task(trim(name))
    assert all(not node.healer.condemned for node in made.nodes.values())
    return len(made.holders(digest))


@pytest.mark.parametrize(
    ("nodes", "trimmers", "replication"), [(2, 2, 1), (3, 2, 1), (3, 3, 1), (3, 3, 2), (5, 5, 2)]
)
def test_nodes_that_contradict_each_other_leave_enough_copies(
    tmp_path: Path, nodes: int, trimmers: int, replication: int
) -> None:
    left: list[int] = []

    async def main(seed: int) -> None:
        given = members(nodes, replication=replication)
        async with cluster(tmp_path, given) as made:
            left.append(await contradicting(made, random.Random(seed), trimmers))

    for seed in range(150):
        virtual_time.run(main(seed))
    assert min(left) >= replication
    assert min(left) < nodes  # something was removed at all


def test_nodes_whose_views_differ_leave_enough_copies_when_they_heal_at_once(
    tmp_path: Path,
) -> None:
    """Each has forgotten another member, so each has other owners in mind."""

    async def main(seed: int) -> None:
        chance = random.Random(seed)
        given = members(5, replication=2)
        async with cluster(tmp_path, given) as made:
            made.transport.latency = lambda: 0.01 * chance.random()
            digests = [made.nodes[name].put(content(7)) for name in made.nodes]
            for name, node in made.nodes.items():
                blind = chance.choice([each for each in made.nodes if each != name])
                node.look([each for each in given if each.node_id != blind])
            for _ in range(3):
                await asyncio.gather(*(node.healer.survey() for node in made.nodes.values()))
            assert len(made.holders(digests[0])) >= 2

    for seed in range(40):
        virtual_time.run(main(seed))


def test_what_is_claimed_while_its_proofs_come_stays() -> None:
    """The witnesses were told that it is managed; so the claim would go with this copy."""

    async def check(bench: Bench) -> None:
        task = bench.task(content(1), witnesses="bcd")
        digest = task.info.digest
        bench.store.marks.add(digest)
        for name in "bcd":
            bench.peers.of[name].blobs[digest] = content(1)
            bench.peers.of[name].latency_seconds = 1.0
        trimming = asyncio.create_task(bench.pusher.trim_all([task]))
        await passes(0.5)
        await bench.store.claim([digest])
        await trimming
        assert digest in bench.store.blobs
        await bench.pusher.trim_all([task])
        assert digest not in bench.store.blobs

    on_bench(check)


def test_what_goes_while_it_is_pushed_is_not_claimed_where_it_got_to() -> None:
    async def check(bench: Bench) -> None:
        told: list[bool] = []
        find = bench.peers.find

        async def telling(
            member: Member,
            digests: Sequence[Digest],
            *,
            managed: Sequence[bool] | None = None,
            **more: Any,
        ) -> list[int | None]:
            assert managed is not None
            told.extend(managed)
            return await find(member, digests, managed=managed, **more)

        bench.peers.find = telling  # type: ignore[method-assign]
        task = bench.task(content(1), push_to="b")
        digest = task.info.digest
        bench.store.marks.add(digest)
        bench.peers.of["b"].latency_seconds = 1.0
        pushing = asyncio.create_task(bench.push(task))
        await passes(1.5)
        await bench.store.delete(digest)
        await pushing
        assert told == [True, True]

    on_bench(check)
