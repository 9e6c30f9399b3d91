"""The supervisor: starts a node's processes, starts them again when they die, stops them in order.

It does nothing else, and opens neither the index nor a listening socket that could take a
connection, so there is little that could end it. Its children inherit the lock on the data directory.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

from tierce.core.limits import (
    RESTART_BACKOFF_MAX_SECONDS,
    RESTART_BACKOFF_MIN_SECONDS,
    RESTART_FORGIVEN_AFTER_SECONDS,
)
from tierce.core.metrics import WORKER_RESTARTS
from tierce.node.runtime import FATAL_CODE, Stop

log = logging.getLogger(__name__)

READY = b"ready\n"
_KILL_AFTER_SECONDS = 5.0


def next_backoff(previous: float, lived_seconds: float) -> float:
    """How long to wait before a dead process is started again, in seconds: doubling, within limits."""
    if previous <= 0 or lived_seconds >= RESTART_FORGIVEN_AFTER_SECONDS:
        return RESTART_BACKOFF_MIN_SECONDS
    return min(previous * 2, RESTART_BACKOFF_MAX_SECONDS)


class Supervisor:
    """Keeps one process for each role. ``command(role)`` is its command line, ``handover`` its input.

    ``on_death(pid)`` cleans up after a process that died on its own.
    """

    def __init__(
        self,
        roles: Sequence[str],
        *,
        command: Callable[[str], list[str]],
        handover: bytes,
        lock_fd: int,
        drain_timeout_seconds: float,
        on_death: Callable[[int], None],
    ) -> None:
        self._roles = roles
        self._command = command
        self._handover = handover
        self._lock_fd = lock_fd
        self._drain_timeout_seconds = drain_timeout_seconds
        self._on_death = on_death
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._ready: dict[str, asyncio.Event] = {role: asyncio.Event() for role in roles}

    async def run(self, stop: Stop, on_ready: Callable[[], None]) -> None:
        """Keep all processes running until the order to stop, then stop them and wait."""
        keepers = [asyncio.create_task(self._keep(role, stop)) for role in self._roles]
        ready = asyncio.create_task(self._all_ready(on_ready))
        try:
            await stop.wait()
        finally:
            ready.cancel()
            await self._stop_children(keepers)

    async def _all_ready(self, on_ready: Callable[[], None]) -> None:
        for event in self._ready.values():
            await event.wait()
        on_ready()

    async def _keep(self, role: str, stop: Stop) -> None:
        backoff = 0.0
        while not stop:
            started = time.monotonic()
            process = await self._start(role)
            self._running[role] = process
            if stop:  # the order came while this one was being started, and has missed it
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            code = await self._watch(role, process)
            del self._running[role]
            if stop:
                return
            if not self._ready[role].is_set():
                # It never came up: starting it again would only repeat the error that it logged.
                log.error("%s ended with %s before it was ready", role, _ending(code))
                stop.now(f"{role} could not start", code if code > 0 else 1)
                return
            if code == FATAL_CODE:
                stop.now(f"{role} can't go on", code)
                return
            self._on_death(process.pid)
            backoff = next_backoff(backoff, time.monotonic() - started)
            log.error("%s ended with %s, starting it again in %.1f s", role, _ending(code), backoff)
            WORKER_RESTARTS.labels(role.split("-")[0]).inc()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff)

    async def _start(self, role: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self._command(role),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(self._lock_fd,),
            # Ctrl-C on a terminal reaches the supervisor only; it stops its children in order.
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(self._handover)
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        return process

    async def _watch(self, role: str, process: asyncio.subprocess.Process) -> int:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line == READY:
                self._ready[role].set()
        return await process.wait()

    async def _stop_children(self, keepers: list[asyncio.Task[None]]) -> None:
        self._signal(signal.SIGTERM)
        _, late = await asyncio.wait(
            keepers, timeout=self._drain_timeout_seconds + _KILL_AFTER_SECONDS
        )
        if late:
            log.error("killing %s, which did not stop in time", ", ".join(self._running))
            self._signal(signal.SIGKILL)
            await asyncio.wait(keepers)

    def _signal(self, number: int) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
