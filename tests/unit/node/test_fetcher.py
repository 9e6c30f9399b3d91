"""Small blobs from peers: hedged, verified, fetched once for all; a miss is told when it is sure."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
from msgspec import structs
from tests.unit.node.fakes import (
    NAMES,
    FakePeers,
    blob_with_order,
    left_running,
    member,
    members,
    placed,
    spooler,
)

from tierce.cluster.member import Member, State, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import PEER_AVOIDED_SECONDS, READ_HEDGE_SECONDS, READ_TOTAL_SECONDS
from tierce.node.avoiding import Avoiding
from tierce.node.fetcher import Fetcher
from tierce.testing import virtual_time

ORDER = ("b", "c", "d", "e", "a")  # this node, a, owns nothing


class Bench:
    """A fetcher at node a, and a blob whose order of placement is ``order``."""

    def __init__(self, directory: Path, given: Iterable[Member], order: Iterable[str]) -> None:
        self.placement = placed("a", given)
        self.digest, self.data = blob_with_order(self.placement, *order)
        self.peers = FakePeers()
        self.missing: list[Digest] = []
        self.fetcher = Fetcher(
            self.peers, lambda: self.placement, Avoiding(), spooler(directory), self.missing.append
        )

    def hold(self, *names: str) -> None:
        for name in names:
            self.peers.of[name].blobs[self.digest] = self.data

    def silence(self, *names: str) -> None:
        for name in names:
            self.peers.of[name].is_silent = True

    def fail(self, error: TierceError, *names: str) -> None:
        for name in names:
            self.peers.of[name].error = error

    async def read(self) -> bytes | None:
        blob = await self.fetcher.open(self.digest)
        data = blob.data
        await blob.aclose()
        return data


def on_bench(
    directory: Path,
    test: Callable[[Bench], Awaitable[None]],
    given: Iterable[Member] | None = None,
    order: Iterable[str] = ORDER,
) -> None:
    bench = Bench(directory, members(5) if given is None else given, order)

    async def main() -> None:
        await test(bench)
        await bench.fetcher.close()
        assert await left_running() == []

    virtual_time.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_local_miss_is_served_from_the_first_owner(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b", "c", "d")
        assert await bench.read() == bench.data
        assert bench.peers.asked() == ["b"]

    on_bench(tmp_path, check)


def test_this_node_does_not_ask_itself(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("e")
        await bench.read()
        assert "a" not in bench.peers.asked()

    on_bench(tmp_path, check)


@pytest.mark.parametrize("silent", [1, 2])
def test_each_silent_peer_costs_the_hedge_delay(tmp_path: Path, silent: int) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b", "c", "d")
        bench.silence(*ORDER[:silent])
        assert await bench.read() == bench.data
        assert now() == pytest.approx(silent * READ_HEDGE_SECONDS)

    on_bench(tmp_path, check)


def test_after_the_owners_all_others_are_asked_at_once(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("e")
        bench.silence("b", "c", "d")
        assert await bench.read() == bench.data
        assert now() == pytest.approx(2 * READ_HEDGE_SECONDS)

    on_bench(tmp_path, check, members(5, replication=2))


def test_a_slow_first_owner_that_answers_within_the_hedge_delay_is_the_only_one_asked(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b", "c")
        bench.peers.of["b"].latency_seconds = READ_HEDGE_SECONDS / 2
        await bench.read()
        assert bench.peers.asked() == ["b"]

    on_bench(tmp_path, check)


def test_the_first_answer_wins_whoever_was_asked_first(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b", "c")
        bench.peers.of["b"].latency_seconds = 1.0
        bench.peers.of["c"].latency_seconds = 0.5
        await bench.read()
        assert now() == pytest.approx(READ_HEDGE_SECONDS + 0.5)
        assert bench.peers.of["b"].cancelled == 1

    on_bench(tmp_path, check)


def test_all_silent_costs_the_total_bound_and_no_more(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.silence(*NAMES)
        with pytest.raises(Unavailable) as caught:
            await bench.read()
        assert now() == pytest.approx(READ_TOTAL_SECONDS)
        assert "these did not: b, c, d, e" in caught.value.message

    on_bench(tmp_path, check)


def test_failures_are_skipped_at_once(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("d")
        bench.fail(Unavailable("gone"), "b", "c")
        assert await bench.read() == bench.data
        assert now() == 0.0

    on_bench(tmp_path, check)


def test_those_that_have_it_not_are_skipped_at_once(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("e")
        assert await bench.read() == bench.data
        assert now() == 0.0

    on_bench(tmp_path, check)


@pytest.mark.parametrize("how", ["fails", "is silent"])
def test_who_did_not_answer_is_asked_last_for_a_while(tmp_path: Path, how: str) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b", "c")
        if how == "fails":
            bench.fail(Unavailable("gone"), "b")
        else:
            bench.silence("b")
        await bench.read()
        bench.peers.of["b"].asked.clear()
        before = now()
        await bench.read()
        assert now() == before
        assert bench.peers.of["b"].asked == []
        await asyncio.sleep(PEER_AVOIDED_SECONDS)
        await bench.read()
        assert len(bench.peers.of["b"].asked) == 1

    on_bench(tmp_path, check)


def test_many_readers_share_one_request(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b")
        bench.peers.of["b"].latency_seconds = READ_HEDGE_SECONDS / 2
        found = await asyncio.gather(*(bench.read() for _ in range(20)))
        assert found == [bench.data] * 20
        assert bench.peers.asked() == ["b"]

    on_bench(tmp_path, check)


def test_many_readers_share_one_failure(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        found = await asyncio.gather(*(bench.read() for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in found] == [NotFound] * 5
        assert bench.peers.asked() == ["b", "c", "d", "e"]

    on_bench(tmp_path, check)


def test_a_later_reader_asks_anew(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b")
        await bench.read()
        await bench.read()
        assert bench.peers.asked() == ["b", "b"]

    on_bench(tmp_path, check)


def test_a_cancelled_reader_does_not_break_the_others(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b")
        bench.peers.of["b"].latency_seconds = READ_HEDGE_SECONDS / 2
        first, second = (asyncio.create_task(bench.read()) for _ in range(2))
        await asyncio.sleep(READ_HEDGE_SECONDS / 4)
        first.cancel()
        assert await second == bench.data
        assert bench.peers.asked() == ["b"]
        assert first.cancelled()

    on_bench(tmp_path, check)


def test_a_fetch_that_all_readers_left_ends_by_itself(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].latency_seconds = READ_HEDGE_SECONDS / 2
        reader = asyncio.create_task(bench.read())
        await asyncio.sleep(READ_HEDGE_SECONDS / 4)
        reader.cancel()
        await asyncio.sleep(1 / 8)
        assert await left_running() == []

    on_bench(tmp_path, check)


def test_closing_gives_up_what_is_under_way(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.silence(*NAMES)
        reader = asyncio.create_task(bench.read())
        await asyncio.sleep(0.1)
        await bench.fetcher.close()
        await asyncio.gather(reader, return_exceptions=True)
        assert await left_running() == []
        assert now() < 1.0

    on_bench(tmp_path, check)


def test_wrong_bytes_from_one_peer_are_not_delivered_and_the_next_is_asked(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b", "c")
        bench.peers.of["b"].sends[bench.digest] = b"something else"
        assert await bench.read() == bench.data
        assert bench.peers.asked() == ["b", "c"]

    on_bench(tmp_path, check)


def test_nobody_having_it_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound, match="is not here"):
            await bench.read()

    on_bench(tmp_path, check)


def test_a_miss_is_not_sure_while_blobs_lack_copies(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.fail(Unavailable("gone"), "b")
        with pytest.raises(Unavailable, match=r"these did not: b$"):
            await bench.read()

    given = [structs.replace(each, is_whole=each.node_id != "c") for each in members(5)]
    on_bench(tmp_path, check, given)


def test_a_miss_is_sure_while_fewer_than_replication_members_are_unreachable(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.fail(Unavailable("gone"), "b", "c")
        with pytest.raises(NotFound):
            await bench.read()

    on_bench(tmp_path, check)


def test_a_miss_is_not_sure_when_replication_members_are_unreachable(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.fail(Unavailable("gone"), "b", "c", "e")
        with pytest.raises(Unavailable, match=r"these did not: b, c, e$"):
            await bench.read()

    on_bench(tmp_path, check)


def test_members_that_are_down_count_as_unreachable(tmp_path: Path) -> None:
    given = [each.in_state(State.DOWN) if each.node_id in "bcd" else each for each in members(5)]

    async def check(bench: Bench) -> None:
        with pytest.raises(Unavailable, match=r"these did not: b, c, d$"):
            await bench.read()
        assert bench.peers.asked() == ["e"]

    on_bench(tmp_path, check, given)


def test_a_node_that_has_not_found_its_cluster_yet_can_not_be_sure(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.placement = Placement(View.of("a", members(1), is_seeking=True))
        for ask in (bench.read(), bench.fetcher.size(bench.digest)):
            with pytest.raises(Unavailable):
                await ask

    on_bench(tmp_path, check)


def test_a_peer_with_wrong_bytes_counts_as_unreachable(tmp_path: Path) -> None:
    given = members(5, replication=1)

    async def check(bench: Bench) -> None:
        bench.hold("b")
        bench.peers.of["b"].sends[bench.digest] = b"something else"
        with pytest.raises(Unavailable, match=r"these did not: b$"):
            await bench.read()

    on_bench(tmp_path, check, given)


def test_a_node_that_is_alone_asks_nobody(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for ask in (bench.read(), bench.fetcher.size(bench.digest)):
            with pytest.raises(NotFound):
                await ask

    on_bench(tmp_path, check, members(1), ["a"])


def test_an_owner_that_lacks_a_blob_tells_of_it(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b")
        await bench.read()
        assert bench.missing == [bench.digest]

    on_bench(tmp_path, check, order=("b", "c", "a"))


def test_a_node_that_is_no_owner_tells_of_nothing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b")
        await bench.read()
        assert bench.missing == []

    on_bench(tmp_path, check)


@pytest.mark.parametrize("flagged", [{"writable": False}, {"draining": True}], ids=str)
def test_a_node_that_takes_nothing_tells_of_nothing(
    tmp_path: Path, flagged: dict[str, object]
) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("b")
        await bench.read()
        assert bench.missing == []

    on_bench(tmp_path, check, [member("a", **flagged), *members(5)[1:]], order=("b", "a", "c"))


def test_a_blob_that_nobody_has_is_not_missing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound):
            await bench.read()
        assert bench.missing == []

    on_bench(tmp_path, check, order=("b", "c", "a"))


def test_a_size_is_asked_for_in_the_same_way(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.hold("c")
        bench.silence("b")
        assert await bench.fetcher.size(bench.digest) == len(bench.data)
        assert now() == pytest.approx(READ_HEDGE_SECONDS)

    on_bench(tmp_path, check)


def test_a_size_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound):
            await bench.fetcher.size(bench.digest)

    on_bench(tmp_path, check)
