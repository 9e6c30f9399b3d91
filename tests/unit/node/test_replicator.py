"""A body is on as many nodes as are asked for before anyone is told, whoever fails or is late."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.unit.node.fakes import (
    FakePeers,
    Room,
    blob_with_order,
    left_running,
    members,
    placed,
    spooler,
)

from tierce.blobs.memory import MemoryStore
from tierce.blobs.spool import Spool, SpoolSource
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Full, Unavailable
from tierce.core.limits import GIB, MIB, PEER_BATCH_BYTES, WRITE_HEDGE_SECONDS
from tierce.node.avoiding import Avoiding
from tierce.node.replicator import Replicator
from tierce.testing import virtual_time

ORDER = ("b", "c", "a", "d", "e")  # this node, a, is the third


@dataclass
class Bench:
    replicator: Replicator
    peers: FakePeers
    store: MemoryStore
    room: Room
    placement: Placement
    spool: Spool

    @property
    def digest(self) -> Digest:
        return self.spool.digest

    async def write(self) -> bool:
        return await self.replicator.store(self.spool)

    def copies(self) -> list[str]:
        found = [name for name, peer in self.peers.of.items() if self.digest in peer.blobs]
        return sorted(found + ["a"] * (self.digest in self.store.blobs))


def on_bench(
    directory: Path,
    test: Callable[[Bench], Awaitable[None]],
    given: list[Member] | None = None,
    *,
    in_file: bool = False,
    size: int = 20,
) -> None:
    placement = placed("a", members(5) if given is None else given)
    order = ORDER if given is None else ()
    _, data = blob_with_order(placement, *order, size=size)

    async def main() -> None:
        peers, store, room = FakePeers(), MemoryStore(), Room()
        spools = spooler(directory, room, memory_limit_bytes=-1 if in_file else GIB)
        async with spools.holding(data, "blake3") as spool:
            replicator = Replicator(store, room, peers, lambda: placement, Avoiding())
            await test(Bench(replicator, peers, store, room, placement, spool))
            assert await left_running() == []

    virtual_time.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_first_writers_have_a_copy_before_success(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert await bench.write()
        assert bench.copies() == ["a", "b", "c"]

    on_bench(tmp_path, check)


def test_owners_are_given_their_copies_at_the_same_time(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].latency_seconds = bench.peers.of["c"].latency_seconds = 1.0
        await bench.write()
        assert now() == 1.0

    on_bench(tmp_path, check)


def test_success_waits_for_the_slowest_of_the_copies_that_are_asked_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["c"].latency_seconds = 1.5
        await bench.write()
        assert now() == 1.5
        assert "c" in bench.copies()

    on_bench(tmp_path, check)


def test_what_all_had_already_is_not_new(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert await bench.write()
        assert not await bench.write()

    on_bench(tmp_path, check)


def test_what_one_of_them_lacked_is_new(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.write()
        bench.peers.of["c"].blobs.clear()
        assert await bench.write()

    on_bench(tmp_path, check)


def test_a_failing_owner_is_replaced_by_the_next_at_once(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("gone")
        await bench.write()
        assert bench.copies() == ["a", "c", "d"]
        assert now() == 0.0

    on_bench(tmp_path, check)


def test_a_failing_owner_is_asked_last_by_the_next_write(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("gone")
        await bench.write()
        await bench.write()
        assert len(bench.peers.of["b"].asked) == 1

    on_bench(tmp_path, check)


def test_a_full_peer_is_replaced_and_still_asked_in_its_turn(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Full("no room")
        await bench.write()
        await bench.write()
        assert len(bench.peers.of["b"].asked) == 2
        assert bench.copies() == ["a", "c", "d"]

    on_bench(tmp_path, check)


def test_a_late_owner_is_hedged_and_not_waited_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].is_silent = True
        await bench.write()
        assert now() == pytest.approx(WRITE_HEDGE_SECONDS, rel=1e-3)
        assert bench.copies() == ["a", "c", "d"]
        assert bench.peers.of["b"].cancelled == 1

    on_bench(tmp_path, check)


def test_a_late_owner_that_is_done_before_its_substitute_counts(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].latency_seconds = WRITE_HEDGE_SECONDS + 0.5
        bench.peers.of["d"].is_silent = True
        await bench.write()
        assert now() == pytest.approx(WRITE_HEDGE_SECONDS + 0.5)
        assert bench.copies() == ["a", "b", "c"]

    on_bench(tmp_path, check)


def test_the_next_write_does_not_wait_for_who_was_late(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].is_silent = True
        await bench.write()
        before = now()
        await bench.write()
        assert now() == before

    on_bench(tmp_path, check)


def test_substitutes_that_are_late_are_hedged_too(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].is_silent = bench.peers.of["d"].is_silent = True
        await bench.write()
        assert now() == pytest.approx(2 * WRITE_HEDGE_SECONDS, rel=1e-3)
        assert bench.copies() == ["a", "c", "e"]

    on_bench(tmp_path, check)


def test_without_substitutes_a_late_owner_is_waited_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].latency_seconds = 9.0
        await bench.write()
        assert now() == 9.0

    on_bench(tmp_path, check, members(3))


def test_a_large_body_is_given_more_time(tmp_path: Path) -> None:
    """Otherwise it would be sent to more and more nodes."""

    async def check(bench: Bench) -> None:
        for name in "bc":
            bench.peers.of[name].latency_seconds = 2.5 * WRITE_HEDGE_SECONDS
        await bench.write()
        assert bench.copies() == ["a", "b", "c"]
        assert not bench.peers.of["d"].asked

    on_bench(tmp_path, check, size=2 * PEER_BATCH_BYTES)


def test_too_few_copies_are_told_with_numbers_and_what_to_do(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for name in "bcd":
            bench.peers.of[name].error = Unavailable(f"{name} is gone")
        with pytest.raises(Unavailable) as caught:
            await bench.write()
        message = caught.value.message
        assert message.startswith("3 copies are asked for, and 2 could be stored; the last failure")
        assert "is gone" in message
        assert "tierce cluster status" in caught.value.hint

    on_bench(tmp_path, check)


def test_nobody_to_write_to_is_unavailable(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable, match=r"3 copies are asked for, and 0 could be stored$"):
            await bench.write()

    on_bench(tmp_path, check, members(3, writable=False))


def test_all_disks_full_is_full(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.room.is_full = True
        for peer in bench.peers.of.values():
            peer.error = Full("no room")
        with pytest.raises(Full):
            await bench.write()

    on_bench(tmp_path, check, in_file=False)


def test_some_full_and_some_gone_is_unavailable(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for name, peer in bench.peers.of.items():
            peer.error = Full("no room") if name in "bc" else Unavailable("gone")
        with pytest.raises(Unavailable):
            await bench.write()

    on_bench(tmp_path, check)


def test_with_the_own_disk_full_the_next_candidate_takes_it(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.room.is_full = True
        await bench.write()
        assert bench.copies() == ["b", "c", "d"]

    on_bench(tmp_path, check)


def test_a_node_that_is_alone_puts_it_into_its_store_and_asks_nobody(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert await bench.write()
        assert bench.copies() == ["a"]
        assert bench.peers.asked() == []

    on_bench(tmp_path, check, members(1))


def test_a_node_that_is_no_owner_keeps_no_copy(tmp_path: Path) -> None:
    given = [*members(1, draining=True), *members(4)[1:]]

    async def check(bench: Bench) -> None:
        await bench.write()
        assert bench.copies() == ["b", "c", "d"]

    on_bench(tmp_path, check, given)


def test_a_body_in_a_file_is_streamed_to_all_and_the_source_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[SpoolSource] = []
    close = SpoolSource.close

    def noted(source: SpoolSource) -> None:
        closed.append(source)
        close(source)

    monkeypatch.setattr(SpoolSource, "close", noted)
    given = [*members(1, writable=False), *members(4)[1:]]

    async def check(bench: Bench) -> None:
        assert bench.spool.path is not None
        await bench.write()
        assert bench.copies() == ["b", "c", "d"]

    on_bench(tmp_path, check, given, in_file=True, size=3 * MIB + 7)
    assert [source._fd for source in closed] == [-1]


@pytest.mark.parametrize("in_file", [False, True])
def test_a_cancelled_write_leaves_nothing_running_and_its_source_closed(
    tmp_path: Path, in_file: bool
) -> None:
    given = [*members(1, writable=False), *members(5)[1:]]

    async def check(bench: Bench) -> None:
        for peer in bench.peers.of.values():
            peer.is_silent = True
        writing = asyncio.create_task(bench.write())
        await asyncio.sleep(WRITE_HEDGE_SECONDS + 0.1)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await left_running() == []

    on_bench(tmp_path, check, given, in_file=in_file, size=2 * MIB)


# For the sake of a record that is about to be written


def elsewhere(
    directory: Path,
    order: str,
    replication: int,
    test: Callable[[Bench], Awaitable[None]],
    *,
    count: int = 5,
    **fields: object,
) -> None:
    """A bench whose blob belongs to these nodes in this order; nodes named in fields differ."""
    given = [
        msgspec.structs.replace(each, **fields.get(each.node_id, {}))  # type: ignore[arg-type]
        for each in members(count, replication=replication)
    ]
    placement = placed("a", given)
    _, data = blob_with_order(placement, *order)

    async def main() -> None:
        peers, store, room = FakePeers(), MemoryStore(), Room()
        spools = spooler(directory, room, memory_limit_bytes=GIB)
        async with spools.holding(data, "blake3") as spool:
            replicator = Replicator(store, room, peers, lambda: placement, Avoiding())
            await test(Bench(replicator, peers, store, room, placement, spool))
            assert await left_running() == []
        assert store.blobs == {}, "this node's own copy comes with the record"

    virtual_time.run(main())


# Whose the blob is, how many are wanted, who fails: who has it, and whether this node keeps one.
ELSEWHERE = [
    ("abc", 3, "", "bc", True),
    ("bca", 3, "", "bc", True),
    ("bcd", 3, "", "bcd", False),
    ("bcde", 3, "c", "bde", False),
    ("abcd", 3, "b", "cd", True),
    ("bcd", 1, "", "b", False),
    ("abc", 1, "", "", True),
    # One is missing in the end: then this node keeps a copy after all.
    ("bcde", 4, "e", "bcd", True),
    ("bcd", 3, "de", "bc", True),
]


@pytest.mark.parametrize(("order", "wanted", "failing", "holders", "keeps"), ELSEWHERE, ids=str)
def test_other_nodes_have_all_copies_but_this_ones(
    tmp_path: Path, order: str, wanted: int, failing: str, holders: str, keeps: bool
) -> None:
    async def check(bench: Bench) -> None:
        for name in failing:
            bench.peers.of[name].error = Unavailable("does not answer")
        stored = await bench.replicator.store_elsewhere(bench.spool)
        assert stored.keeps_here == keeps
        assert bench.copies() == sorted(each.node_id for each in stored.holders)
        assert bench.copies() == sorted(holders)

    elsewhere(tmp_path, order, wanted, check)


@pytest.mark.parametrize(("order", "failing"), [("abc", "bcde"), ("bcd", "cde")])
def test_too_few_others_are_no_success(tmp_path: Path, order: str, failing: str) -> None:
    async def check(bench: Bench) -> None:
        for name in failing:
            bench.peers.of[name].error = Unavailable("does not answer")
        with pytest.raises(Unavailable):
            await bench.replicator.store_elsewhere(bench.spool)

    elsewhere(tmp_path, order, 3, check)


@pytest.mark.parametrize("why", ["full", "read-only", "draining"])
def test_a_node_that_takes_nothing_keeps_none_even_if_it_is_the_last(
    tmp_path: Path, why: str
) -> None:
    fields = {"read-only": {"writable": False}, "draining": {"draining": True}}.get(why, {})

    async def check(bench: Bench) -> None:
        bench.room.is_full = why == "full"
        stored = await bench.replicator.store_elsewhere(bench.spool)
        assert not stored.keeps_here
        assert len(bench.copies()) == 3
        for name in "bcd":
            bench.peers.of[name].error = Unavailable("does not answer")
        with pytest.raises(Unavailable):
            await bench.replicator.store_elsewhere(bench.spool)

    elsewhere(tmp_path, "abc", 3, check, a=fields)
