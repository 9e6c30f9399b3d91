"""Servers of a test in a thread with a loop of its own, for processes and for code with another loop."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

_START_SECONDS = 10.0


@contextmanager
def held_in_thread(make: Callable[[], AbstractAsyncContextManager[object]]) -> Iterator[None]:
    """Hold what ``make`` makes open, in another thread, for as long as the block runs."""
    ready = threading.Event()
    handles: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        done = asyncio.Event()
        async with make():
            handles.append((asyncio.get_running_loop(), done))
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(_START_SECONDS)
    try:
        yield
    finally:
        loop, done = handles[0]
        loop.call_soon_threadsafe(done.set)
        thread.join()
