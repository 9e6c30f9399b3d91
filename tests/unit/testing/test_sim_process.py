"""Simulated processes are stopped, continued and killed as real ones are."""

import asyncio
from asyncio import sleep as pass_time
from collections.abc import Callable
from typing import Any

import pytest

from tierce.testing.sim_process import Process, current, run


async def ticking(seen: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await pass_time(1)
        seen.append(loop.time())


def test_whatever_a_process_starts_is_its_own() -> None:
    async def inner() -> Process | None:
        return current()

    async def outer() -> Process | None:
        return await asyncio.create_task(inner())

    async def main() -> None:
        process = Process("one")
        assert await process.spawn(outer()) is process
        assert await asyncio.create_task(outer()) is None

    run(main())


def test_a_paused_process_runs_nothing_until_it_goes_on() -> None:
    async def main() -> None:
        process, seen = Process("one"), list[float]()
        process.spawn(ticking(seen))
        await pass_time(1.5)
        process.pause()
        await pass_time(10)
        assert seen == [1.0]
        process.resume()
        await pass_time(1.6)
        assert seen == [1.0, 11.5, 12.5]

    run(main())


def test_a_process_paused_twice_at_once_wakes_up_once() -> None:
    async def main() -> None:
        process, seen = Process("one"), list[float]()
        process.spawn(ticking(seen))
        process.pause()
        await pass_time(2)
        process.resume()
        process.pause()
        await pass_time(2)
        process.resume()
        await pass_time(1.5)
        assert seen == [5.0]

    run(main())


@pytest.mark.parametrize("end", [Process.kill, lambda process: (process.pause(), process.kill())])
def test_a_killed_process_starts_nothing_new(end: Callable[[Process], Any]) -> None:
    async def stubborn(seen: list[str]) -> None:
        try:
            await pass_time(100)
        finally:
            seen.append("clean-up")
            try:
                await asyncio.create_task(pass_time(1))
            finally:
                seen.append("cancelled")

    async def main() -> None:
        process, seen = Process("one"), list[str]()
        task = process.spawn(stubborn(seen))
        await pass_time(1)
        end(process)
        await pass_time(0.1)
        assert task.cancelled()
        assert seen == ["clean-up", "cancelled"]
        assert not process.tasks

    run(main())


def test_an_error_that_nobody_saw_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await pass_time(1)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(main())


def test_an_error_in_a_killed_process_is_nobodys() -> None:
    async def failing() -> None:
        try:
            await pass_time(100)
        finally:
            raise ValueError("in the clean-up")

    async def main() -> None:
        process = Process("one")
        process.spawn(failing())
        await pass_time(1)
        process.kill()
        await pass_time(1)

    run(main())
