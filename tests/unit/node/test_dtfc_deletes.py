"""Orders to delete on peers: told at once, or queued until they get through, whatever restarts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.dtfc_bench import SECOND, SMALL, sha512
from tests.unit.node.fakes import members
from tests.unit.node.object_bench import Bench, on_bench

from tierce.core.digest import Digest
from tierce.core.dtfc import BUCKET, DELETES
from tierce.core.errors import Unavailable
from tierce.core.limits import DTFC_RETRY_MAX_SECONDS, DTFC_RETRY_MIN_SECONDS
from tierce.names.index import Check
from tierce.names.record import Record
from tierce.node.dtfc_deletes import PeerDeletes

DIGEST = sha512(SMALL)
ONE, TWO = "http://127.0.0.1:8001", "http://127.0.0.1:8002"


class FakePeer:
    """What stands for a peer: has the file or not, and may be down. ``told`` counts the orders."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.has_file = True
        self.is_down = False
        self.hangs = False
        self.told = 0
        self.ordered_at: list[int | None] = []
        self.when_told: Callable[[], Awaitable[object]] | None = None

    async def delete(self, digest: Digest, ordered_at: int | None = None) -> bool:
        self.told += 1
        self.ordered_at.append(ordered_at)
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_down:
            raise Unavailable(f"{self.url} can't be asked")
        if self.when_told is not None:
            await self.when_told()
        had, self.has_file = self.has_file, False
        return had


class Listed:
    """What stands for the list of peers."""

    def __init__(self, *peers: FakePeer) -> None:
        self.all = list(peers)

    def peers(self) -> list[FakePeer]:
        return self.all


class Orders:
    """Two peers, and the orders to them of node a."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.one, self.two = FakePeer(ONE), FakePeer(TWO)
        self.listed = Listed(self.one, self.two)
        self.deletes = self.started()

    def started(self, node_id: str = "a") -> PeerDeletes:
        """The orders of an agent that has just started."""
        return PeerDeletes(
            node_id,
            self.listed,  # type: ignore[arg-type]
            self.bench.objects,
            self.bench.index,
            self.bench.spools,
            clock=asyncio.get_running_loop().time,
        )

    def queued(self) -> list[Record]:
        found = [each.record for each in self.bench.index.changed.values()]
        return [each for each in found if each.bucket == DELETES and not each.deleted]

    async def put_again(self, data: bytes = SMALL) -> None:
        async with self.bench.spools.holding(data, "sha512") as spool:
            draft = Record(bucket=BUCKET, key=DIGEST.raw.hex())
            await self.bench.objects.put(spool, draft, None)


def ordering(directory: Path, test: Callable[[Orders], Awaitable[None]]) -> None:
    async def check(bench: Bench) -> None:
        await test(Orders(bench))

    on_bench(directory, check, members(1))


def test_all_peers_are_told_at_once(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.has_file = False
        assert await orders.deletes.delete(DIGEST) == {ONE: "deleted", TWO: "not found"}
        assert orders.queued() == []

    ordering(tmp_path, check)


@pytest.mark.parametrize("fault", ["is_down", "hangs"])
def test_who_does_not_answer_is_told_later(tmp_path: Path, fault: str) -> None:
    async def check(orders: Orders) -> None:
        setattr(orders.two, fault, True)
        assert await orders.deletes.delete(DIGEST) == {ONE: "deleted", TWO: "queued"}
        await orders.deletes.try_again()
        (ordered,) = orders.queued()
        assert orders.deletes.waiting == 1
        setattr(orders.two, fault, False)
        await asyncio.sleep(2 * DTFC_RETRY_MIN_SECONDS)
        await orders.deletes.try_again()
        assert not orders.two.has_file
        assert (orders.deletes.waiting, orders.queued()) == (0, [])
        assert orders.one.told == 1
        # What is told later says since when, so that what was put there meanwhile can stay.
        assert orders.two.ordered_at == [None, ordered.modified_at, ordered.modified_at]

    ordering(tmp_path, check)


def test_an_order_outlives_the_agent(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        orders.two.is_down = False
        again = orders.started()
        await again.try_again()
        assert not orders.two.has_file
        assert orders.queued() == []

    ordering(tmp_path, check)


def test_what_is_not_queued_durably_is_not_acknowledged(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        async def refuse(draft: Record, *, now: int, check: Check | None = None) -> Record:
            raise Unavailable("no")

        orders.two.is_down = True
        orders.bench.index.write = refuse  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await orders.deletes.delete(DIGEST)

    ordering(tmp_path, check)


def test_another_nodes_orders_are_left_to_it(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        orders.two.is_down = False
        await orders.started("b").try_again()
        assert orders.two.has_file

    ordering(tmp_path, check)


def test_an_order_is_dropped_if_the_file_was_put_again(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        await orders.put_again()
        orders.two.is_down = False
        await orders.deletes.try_again()
        assert orders.two.has_file
        assert orders.queued() == []

    ordering(tmp_path, check)


@pytest.mark.parametrize("what", ["before", "deleted", "another content"])
def test_an_order_stays_if_the_file_was_not_put_again(tmp_path: Path, what: str) -> None:
    async def check(orders: Orders) -> None:
        if what == "before":
            await orders.put_again()
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        if what == "another content":
            await orders.put_again(b"anything, by another door")
        if what == "deleted":
            await orders.put_again()
            await orders.bench.objects.delete(BUCKET, DIGEST.raw.hex(), None)
        orders.two.is_down = False
        await orders.deletes.try_again()
        assert not orders.two.has_file

    ordering(tmp_path, check)


def test_an_order_given_again_while_the_first_is_carried_out_stays(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        async def given_again() -> None:
            orders.two.when_told = None
            orders.two.is_down = True
            await orders.deletes.delete(DIGEST)
            orders.two.is_down = False

        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        orders.two.is_down = False
        orders.two.when_told = given_again
        await orders.deletes.try_again()
        assert len(orders.queued()) == 1
        orders.two.has_file = True
        await orders.deletes.try_again()
        assert not orders.two.has_file
        assert orders.queued() == []

    ordering(tmp_path, check)


def test_a_peer_that_is_down_is_tried_more_and_more_rarely(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        for number in range(20):
            await orders.deletes.delete(sha512(b"%d" % number))
        orders.two.told = 0
        running = asyncio.create_task(orders.deletes.run())
        await asyncio.sleep(3600 * SECOND)
        assert 12 <= orders.two.told <= 25
        assert orders.deletes.waiting == 20
        orders.two.is_down = False
        await asyncio.sleep(DTFC_RETRY_MAX_SECONDS + DTFC_RETRY_MIN_SECONDS + 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert orders.queued() == []

    ordering(tmp_path, check)


def test_an_order_to_a_peer_that_is_listed_no_more_is_dropped_after_some_minutes(
    tmp_path: Path,
) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        orders.listed.all = [orders.one]
        await orders.deletes.try_again()
        assert len(orders.queued()) == 1
        await asyncio.sleep(DTFC_RETRY_MAX_SECONDS)
        await orders.deletes.try_again()
        assert orders.queued() == []
        assert orders.one.told == 1

    ordering(tmp_path, check)


def test_an_order_outlives_a_list_that_is_empty_for_a_moment(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        for _ in range(3):
            orders.listed.all = []
            await orders.deletes.try_again()
            orders.listed.all = [orders.two]
            await asyncio.sleep(DTFC_RETRY_MAX_SECONDS / 2)
            await orders.deletes.try_again()
        assert len(orders.queued()) == 1
        orders.two.is_down = False
        await asyncio.sleep(DTFC_RETRY_MAX_SECONDS)
        await orders.deletes.try_again()
        assert not orders.two.has_file

    ordering(tmp_path, check)


def test_an_order_in_a_form_that_nobody_writes_is_dropped(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        await orders.bench.objects.write(Record(bucket=DELETES, key="no hash/x"), None)
        await orders.deletes.try_again()
        assert orders.queued() == []

    ordering(tmp_path, check)


def test_what_a_peer_is_still_to_delete_is_not_loaded_from_it(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        def waits() -> list[bool]:
            peers = orders.listed.peers()
            return [orders.deletes.waits(each, DIGEST) for each in peers]  # type: ignore[arg-type]

        assert waits() == [False, False]
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        assert waits() == [False, True]
        await orders.put_again()
        assert waits() == [False, False]

    ordering(tmp_path, check)


def test_a_mistake_does_not_end_the_trying(tmp_path: Path) -> None:
    async def check(orders: Orders) -> None:
        orders.two.is_down = True
        await orders.deletes.delete(DIGEST)
        orders.two.is_down = False

        async def mistaken() -> None:
            orders.two.when_told = None
            raise RuntimeError("ours")

        orders.two.when_told = mistaken
        running = asyncio.create_task(orders.deletes.run())
        await asyncio.sleep(3 * DTFC_RETRY_MIN_SECONDS)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not orders.two.has_file

    ordering(tmp_path, check)
