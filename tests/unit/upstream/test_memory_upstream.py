"""The faults of the simulated upstream: each does what it says, and a seed tells the whole run."""

import asyncio
from random import Random

import pytest

from tierce.core.errors import TierceError, Unavailable
from tierce.testing.memory_upstream import PIECE_BYTES, MemoryUpstream
from tierce.testing.upstream_contract import KEY, BytesSource, record_of
from tierce.testing.virtual_time import run


async def read(upstream: MemoryUpstream) -> bytes:
    async with upstream.open(KEY) as found:
        return b"".join([piece async for piece in found.pieces])


def test_one_that_is_down_answers_nothing() -> None:
    async def check() -> None:
        upstream = MemoryUpstream(Random(1))
        source = BytesSource(b"x")
        await upstream.upload(record_of(source), source)
        upstream.is_down = True
        for request in (
            upstream.stat(KEY),
            read(upstream),
            upstream.delete(KEY),
            upstream.check(),
            upstream.upload(record_of(source), source),
        ):
            with pytest.raises(Unavailable):
                await request
        upstream.is_down = False
        assert await read(upstream) == b"x"

    run(check())


def test_a_write_whose_answer_is_lost_is_done() -> None:
    async def check() -> None:
        upstream = MemoryUpstream(Random(1))
        upstream.lost_answers = 1.0
        source = BytesSource(b"x")
        with pytest.raises(Unavailable):
            await upstream.upload(record_of(source), source)
        assert await read(upstream) == b"x"

    run(check())


def test_a_read_that_breaks_off_is_unavailable() -> None:
    async def check() -> None:
        upstream = MemoryUpstream(Random(1))
        source = BytesSource(bytes(5 * PIECE_BYTES))
        await upstream.upload(record_of(source), source)
        upstream.cuts = 1.0
        with pytest.raises(Unavailable, match="cut"):
            await read(upstream)

    run(check())


def test_a_cancelled_upload_was_done_or_not() -> None:
    async def outcome(seed: int) -> bool:
        upstream = MemoryUpstream(Random(seed), seconds=10.0)
        source = BytesSource(b"x")
        task = asyncio.create_task(upstream.upload(record_of(source), source))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return KEY in upstream.objects

    assert {run(outcome(seed)) for seed in range(10)} == {True, False}


def test_a_seed_tells_the_whole_run() -> None:
    async def history(seed: int) -> list[object]:
        upstream = MemoryUpstream(Random(seed))
        upstream.failures = upstream.lost_answers = upstream.cuts = 0.3
        source = BytesSource(bytes(100))
        told: list[object] = []
        for number in range(50):
            try:
                await upstream.upload(record_of(source, timestamp=number + 1), source)
                told.append(len(await read(upstream)))
            except TierceError as error:
                told.append(error.message)
        return [told, asyncio.get_running_loop().time(), upstream.uploads]

    assert run(history(1)) == run(history(1)) != run(history(2))
