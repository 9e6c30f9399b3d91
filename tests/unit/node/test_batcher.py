"""What is submitted leaves at once if it can, and otherwise together, in order, within bounds."""

import asyncio
from dataclasses import dataclass, field

import pytest
from tests.unit.node.fakes import left_running

from tierce.core.errors import Full, TierceError, Unavailable
from tierce.core.limits import PEER_BATCH_BLOBS, PEER_BATCH_BYTES, PEER_GATHER_SECONDS
from tierce.node.batcher import Batcher
from tierce.testing import virtual_time


@dataclass
class Line:
    """What batches are sent over: each takes a second. Odd answers are made by ``answer``."""

    batches: list[list[int]] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    error: TierceError | None = None
    answers: dict[int, TierceError] = field(default_factory=dict)

    async def send(self, items: list[int]) -> list[int | TierceError]:
        self.batches.append(items)
        self.started.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.1 * 10)
        if self.error is not None:
            raise self.error
        return [self.answers.get(item, -item) for item in items]

    def batcher(self, *, weight: int = 1, in_flight: int = 1) -> Batcher[int, int]:
        return Batcher(self.send, weigh=lambda _: weight, in_flight=in_flight)


def test_a_lone_item_leaves_at_once_and_gets_its_result() -> None:
    async def main() -> None:
        line = Line()
        assert await line.batcher().submit(7) == -7
        assert (line.batches, line.started) == ([[7]], [0.0])

    virtual_time.run(main())


def test_what_comes_during_a_flight_leaves_together_in_order() -> None:
    async def main() -> None:
        line = Line()
        batcher = line.batcher()
        assert await asyncio.gather(*map(batcher.submit, range(5))) == [0, -1, -2, -3, -4]
        assert (line.batches, line.started) == ([[0, 1, 2, 3, 4]], [0.0])
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(batcher.submit(number)) for number in (2, 3, 4)]
        await asyncio.gather(first, *rest)
        assert line.batches[1:] == [[1], [2, 3, 4]]

    virtual_time.run(main())


def test_only_so_many_batches_are_in_flight() -> None:
    async def main() -> None:
        line = Line()
        batcher = line.batcher(in_flight=2)
        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(batcher.submit(number)))
            await asyncio.sleep(0.1)
        await asyncio.gather(*tasks)
        assert line.batches == [[0], [1], [2, 3]]

    virtual_time.run(main())


def test_a_batch_has_a_limit_of_items() -> None:
    async def main() -> None:
        line = Line()
        await asyncio.gather(*map(line.batcher().submit, range(PEER_BATCH_BLOBS + 1)))
        assert [len(batch) for batch in line.batches] == [PEER_BATCH_BLOBS, 1]

    virtual_time.run(main())


def test_a_batch_has_a_limit_of_bytes() -> None:
    async def main() -> None:
        line = Line()
        batcher = line.batcher(weight=PEER_BATCH_BYTES // 2)
        await asyncio.gather(*map(batcher.submit, range(5)))
        assert [len(batch) for batch in line.batches] == [2, 2, 1]

    virtual_time.run(main())


def test_an_item_over_the_limit_of_bytes_still_leaves() -> None:
    async def main() -> None:
        assert await Line().batcher(weight=3 * PEER_BATCH_BYTES).submit(1) == -1

    virtual_time.run(main())


def test_the_error_of_a_whole_batch_reaches_each() -> None:
    async def main() -> None:
        batcher = Line(error=Unavailable("gone")).batcher()
        results = await asyncio.gather(*map(batcher.submit, range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 3

    virtual_time.run(main())


def test_the_error_of_one_item_leaves_the_others_alone() -> None:
    async def main() -> None:
        batcher = Line(answers={1: Full("no")}).batcher()
        zero, one, two = await asyncio.gather(
            *map(batcher.submit, range(3)), return_exceptions=True
        )
        assert (zero, type(one), two) == (0, Full, -2)

    virtual_time.run(main())


def test_after_a_failed_batch_the_next_one_leaves() -> None:
    async def main() -> None:
        line = Line(error=Unavailable("gone"))
        batcher = line.batcher()
        with pytest.raises(Unavailable):
            await batcher.submit(1)
        line.error = None
        assert await batcher.submit(2) == -2

    virtual_time.run(main())


def test_a_waiter_cancelled_before_its_flight_is_not_sent() -> None:
    async def main() -> None:
        line = Line()
        batcher = line.batcher()
        tasks = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.1)
        tasks += [asyncio.create_task(batcher.submit(number)) for number in (1, 2)]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert (results[0], results[2]) == (0, -2)
        assert line.batches == [[0], [2]]

    virtual_time.run(main())


def test_a_waiter_cancelled_in_flight_leaves_the_others_alone() -> None:
    async def main() -> None:
        batcher = Line().batcher()
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1:] == [-1, -2]

    virtual_time.run(main())


def test_the_next_batch_waits_for_more_only_after_one_of_several() -> None:
    async def main() -> None:
        line = Line()
        batcher = line.batcher(in_flight=1)
        started = asyncio.get_running_loop().time()
        for number in range(3):
            await batcher.submit(number)
        alone_seconds = asyncio.get_running_loop().time() - started
        await asyncio.gather(*map(batcher.submit, range(10)))
        started = asyncio.get_running_loop().time()
        await batcher.submit(11)
        after_many_seconds = asyncio.get_running_loop().time() - started
        assert after_many_seconds == pytest.approx(alone_seconds / 3 + PEER_GATHER_SECONDS)

    virtual_time.run(main())


def test_nothing_runs_when_nothing_is_under_way() -> None:
    async def main() -> None:
        batcher = Line().batcher(in_flight=3)
        await asyncio.gather(*map(batcher.submit, range(10)))
        await asyncio.sleep(PEER_GATHER_SECONDS)
        assert await left_running() == []

    virtual_time.run(main())


def test_closing_leaves_nobody_waiting() -> None:
    async def main() -> None:
        batcher = Line().batcher()
        tasks = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.1)
        tasks.append(asyncio.create_task(batcher.submit(1)))  # waits for the next flight
        await asyncio.sleep(0.1)
        await batcher.close()
        async with asyncio.timeout(0.1):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await left_running() == []

    virtual_time.run(main())


def test_closing_before_the_first_flight_began_leaves_nobody_waiting() -> None:
    async def main() -> None:
        batcher = Line().batcher()
        task = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0)  # submitted; its sender has not had its first step
        await batcher.close()
        async with asyncio.timeout(0.1):
            await asyncio.gather(task, return_exceptions=True)

    virtual_time.run(main())


def test_a_mistake_in_sending_reaches_who_waits() -> None:
    """A bug must not leave a request waiting for ever."""

    class Mistake(Exception):
        pass

    async def send(items: list[int]) -> list[int | TierceError]:
        raise Mistake

    async def main() -> None:
        batcher: Batcher[int, int] = Batcher(send, weigh=lambda _: 1, in_flight=1)
        async with asyncio.timeout(0.1):
            (result,) = await asyncio.gather(batcher.submit(1), return_exceptions=True)
        assert isinstance(result, Mistake)

    virtual_time.run(main())
