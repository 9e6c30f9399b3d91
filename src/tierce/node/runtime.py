"""Running one process of a node: its event loop, the signals that stop it, and its parent's death.

A process that was started by a supervisor reads its settings from standard input, and treats the end
of that input as the order to stop: a supervisor that dies, however it dies, takes its children along.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from tierce.core.collecting import collect_seldom
from tierce.core.limits import SWITCH_INTERVAL_SECONDS

log = logging.getLogger(__name__)


ORPHANED = "the supervisor is gone"
# A process of a node ends with this code when to start it again would not help.
FATAL_CODE = 9


class Stop:
    """The order to stop. ``reason`` tells why, ``code`` is the process's exit code."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reason = ""
        self.code = 0

    def now(self, reason: str, code: int = 0) -> None:
        """Give the order; the first reason stays. Given again by a signal, the process ends at once."""
        if self._event.is_set():
            return
        self.reason = reason
        self.code = code
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    def __bool__(self) -> bool:
        return self._event.is_set()


def run(main: Callable[[Stop], Awaitable[None]], *, parent_fd: int | None = None) -> int:
    """Run ``main`` until it returns; it ends soon after the order to stop. Returns the exit code."""

    async def running() -> int:
        loop = asyncio.get_running_loop()
        stop = Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stop, number)
        if parent_fd is not None:
            loop.add_reader(parent_fd, _on_parent, stop, parent_fd, loop)
        await main(stop)
        return stop.code

    raise_file_limit()
    # A thread that comes back from the disk asks the busy event loop for the interpreter, and gets it
    # after this time. A commit asks a dozen times: with the usual 5 ms it took 48 ms, so 0.9 ms.
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.freeze()  # what is loaded by now stays
    collect_seldom()
    return uvloop.run(running())


def raise_file_limit() -> None:
    """A connection is a descriptor, and the usual soft limit is meant for interactive programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _on_signal(stop: Stop, number: int) -> None:
    if stop:
        log.warning("stopping at once, on a second signal")
        os._exit(1)
    stop.now(signal.Signals(number).name)


def _on_parent(stop: Stop, fd: int, loop: Any) -> None:
    if not os.read(fd, 4096):
        loop.remove_reader(fd)
        stop.now(ORPHANED)
