"""The way of blobs: this node first, then its peers; and a deletion that concerns all."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.fakes import (
    FakePeers,
    Room,
    content,
    left_running,
    member,
    members,
    spooler,
)

from tierce.blobs.memory import MemoryStore
from tierce.cluster.member import Member, State, View
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.node.data_path import DataPath, PlacementCell
from tierce.testing import virtual_time

DATA = content(1)
DIGEST = Digest.of(DATA)


class Bench:
    def __init__(self, directory: Path, given: list[Member]) -> None:
        self.store = MemoryStore()
        self.peers = FakePeers()
        self.cell = PlacementCell(View.of("a", given))
        self.spools = spooler(directory)
        self.path = DataPath(self.store, self.spools, Room(), self.peers, self.cell, lambda _: None)


def on_bench(
    directory: Path, test: Callable[[Bench], Awaitable[None]], given: list[Member] | None = None
) -> None:
    async def main() -> None:
        bench = Bench(directory, members(3) if given is None else given)
        await test(bench)
        await bench.path.close()
        assert await left_running() == []

    virtual_time.run(main())


def test_what_is_here_is_read_here(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        assert (await bench.path.open(DIGEST)).data == DATA
        assert await bench.path.size(DIGEST) == len(DATA)
        assert bench.peers.asked() == []

    on_bench(tmp_path, check)


def test_what_is_not_here_is_read_from_a_peer(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "c")
        assert (await bench.path.open(DIGEST)).data == DATA
        assert await bench.path.size(DIGEST) == len(DATA)

    on_bench(tmp_path, check)


def test_it_tells_whether_this_nodes_copy_was_opened(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "c")
        assert (await bench.path.locate(DIGEST))[1] is False
        bench.store.blobs[DIGEST] = b"wrong"
        assert (await bench.path.locate(DIGEST))[1] is False
        bench.store.blobs[DIGEST] = DATA
        assert (await bench.path.locate(DIGEST))[1] is True
        assert len(bench.store.quarantined) == 1

    on_bench(tmp_path, check)


def test_a_bad_copy_here_is_set_aside_and_a_peer_is_asked(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = b"wrong"
        bench.peers.put(DATA, "b")
        assert (await bench.path.open(DIGEST)).data == DATA
        assert len(bench.store.quarantined) == 1

    on_bench(tmp_path, check)


def test_a_body_is_stored_on_all_that_are_asked_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        async with bench.spools.holding(DATA, "blake3") as spool:
            assert await bench.path.store(spool)
        assert DIGEST in bench.store.blobs
        assert all(DIGEST in bench.peers.of[name].blobs for name in "bc")

    on_bench(tmp_path, check)


def test_a_deletion_is_asked_of_every_member_this_one_included(tmp_path: Path) -> None:
    """Its agent must not take the blob back from healing either."""

    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "a", "b")
        assert await bench.path.delete(DIGEST)
        assert bench.peers.asked() == ["a", "b", "c"]
        assert not await bench.path.delete(DIGEST)

    on_bench(tmp_path, check)


def test_a_node_that_is_alone_deletes_here(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        assert bench.path.is_alone
        assert await bench.path.delete(DIGEST)
        assert not await bench.path.delete(DIGEST)
        assert bench.peers.asked() == []

    on_bench(tmp_path, check, members(1))


def test_nothing_is_deleted_while_a_member_is_down(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.put(DATA, "a")
        with pytest.raises(Unavailable, match=r"down that may have it: b$") as caught:
            await bench.path.delete(DIGEST)
        assert "forget" in caught.value.hint
        assert DIGEST in bench.peers.of["a"].blobs

    on_bench(tmp_path, check, [member("a"), member("b", state=State.DOWN), member("c")])


def test_a_deletion_that_one_member_does_not_answer_fails_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        bench.peers.of["b"].error = Unavailable("gone")
        bench.peers.of["c"].latency_seconds = 1.0
        with pytest.raises(Unavailable, match="gone"):
            await bench.path.delete(DIGEST)
        assert await left_running() == []

    on_bench(tmp_path, check)


def test_the_path_refuses_bodies_when_too_few_take_them(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.path.check_writable("blake3")
        bench.cell.update(View.of("a", [member("a"), member("b", writable=False)]))
        with pytest.raises(Unavailable):
            bench.path.check_writable("blake3")

    on_bench(tmp_path, check)


def test_the_cell_tells_whether_blobs_belong_elsewhere_now() -> None:
    cell = PlacementCell(View.of("a", members(2)))
    assert not cell.update(View.of("a", [member("a"), member("b", incarnation=3)]))
    assert cell().view.by_id["b"].incarnation == 3
    assert cell.update(View.of("a", members(3)))
    assert cell().replication == 3


def test_what_nobody_has_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound):
            await bench.path.open(DIGEST)

    on_bench(tmp_path, check)
