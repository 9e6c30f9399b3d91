"""A store that can't tell of one blob now: healing of the others goes on."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.node.fakes import FakeCluster, content, running
from tests.unit.node.test_healer import on_cluster, spread
from tests.unit.node.test_peer_service import DATA, DIGEST, Bench, on_bench

from tierce.core.digest import Digest
from tierce.core.errors import Unavailable

OTHER = Digest.of(b"other")


def test_a_blob_that_can_not_be_read_now_keeps_no_other_from_being_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        prove = bench.store.prove

        async def failing(digest: Digest) -> int:
            if digest == OTHER:
                raise Unavailable("the store failed")
            return await prove(digest)

        monkeypatch.setattr(bench.store, "prove", failing)
        assert await bench.find(OTHER, DIGEST, prove=True) == [None, len(DATA)]

    on_bench(tmp_path, check)


def test_a_blob_that_can_not_be_read_now_holds_up_no_other_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(made: FakeCluster) -> None:
        first, second = spread(made, 2)
        node = made.nodes["b"]
        node.store.blobs[second] = b"bad"
        verify = node.store.verify

        async def failing(digest: Digest, *, repair: bool) -> int:
            if digest == first:
                raise Unavailable("the store failed")
            return await verify(digest, repair=repair)

        monkeypatch.setattr(node.store, "verify", failing)
        async with running(node.healer.run()):
            node.healer.hint(first)
            node.healer.hint(second)
            await asyncio.sleep(0.1)
        assert node.store.blobs[second] == content(1)

    on_cluster(tmp_path, 3, check)
