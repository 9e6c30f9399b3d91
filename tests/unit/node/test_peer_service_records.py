"""A blob that was put for a record that is still to come is not deleted in between."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.node.fakes import content
from tests.unit.node.test_peer_service import DATA, DIGEST, Bench, on_bench

from tierce.core.digest import Digest
from tierce.core.errors import Conflict
from tierce.core.limits import RECORD_COMES_SECONDS


@pytest.mark.parametrize("way", ["message", "upload"])
def test_what_was_just_put_for_a_record_that_is_to_come_is_not_deleted(
    tmp_path: Path, way: str
) -> None:
    async def check(bench: Bench) -> None:
        if way == "message":
            await bench.give((DIGEST, DATA), managed=True)
        else:
            await bench.upload(managed=True)
        other = Digest.of(content(2))
        await bench.give((other, content(2)))
        await asyncio.sleep(0.9 * RECORD_COMES_SECONDS)
        with pytest.raises(Conflict, match="just put"):
            await bench.delete(other, DIGEST)
        assert set(bench.store.blobs) == {other, DIGEST}  # all of them, or none
        assert not bench.service.was_deleted(other)
        await asyncio.sleep(0.2 * RECORD_COMES_SECONDS)
        assert await bench.delete(other, DIGEST) == [True, True]

    on_bench(tmp_path, check)


def test_what_was_put_without_a_record_or_by_healing_may_be_deleted_at_once(
    tmp_path: Path,
) -> None:
    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA))
        assert await bench.delete(DIGEST) == [True]
        await bench.upload()
        assert await bench.delete(DIGEST) == [True]
        other = content(2)
        await bench.give((Digest.of(other), other), healing=True, managed=True)
        assert await bench.delete(Digest.of(other)) == [True]

    on_bench(tmp_path, check)


def test_a_record_that_is_announced_again_has_its_time_again(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA), managed=True)
        await asyncio.sleep(0.9 * RECORD_COMES_SECONDS)
        await bench.give((DIGEST, DATA), managed=True)
        await asyncio.sleep(0.2 * RECORD_COMES_SECONDS)
        other = content(2)
        await bench.give((Digest.of(other), other), managed=True)
        with pytest.raises(Conflict):
            await bench.delete(DIGEST)

    on_bench(tmp_path, check)
