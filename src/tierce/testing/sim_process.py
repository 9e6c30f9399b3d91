"""Simulated processes: many in one event loop, each of which can be stopped, continued and killed.

Whatever a process starts (tasks, timers, callbacks) carries the process in its context, however deep
in the production code it was started. So the loop knows whose every step is. The steps of a paused
process wait, its timers too, as after SIGSTOP. A killed process has all its tasks cancelled: they can
still run their clean-up, which has no effect on the world, because what they reach it through (the
store, the transport) refuses to work for the dead.
"""

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, TypeVarTuple, Unpack

from tierce.testing.virtual_time import VirtualLoop

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_process: "contextvars.ContextVar[Process | None]" = contextvars.ContextVar("process", default=None)


class Process:
    """One run of a program. Its tasks are those started by :meth:`spawn`, and all that they start."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_paused = False
        self.held: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._context = contextvars.Context()
        self._context.run(_process.set, self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def pause(self) -> None:
        """As SIGSTOP does: nothing of it runs until :meth:`resume`, and it is not told."""
        self.is_paused = True

    def resume(self) -> None:
        """Run what has been waiting, in the order in which it would have run."""
        self.is_paused = False
        held, self.held = self.held, []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.release(held)

    def forget(self, task: "asyncio.Task[Any]") -> None:
        """Let go of a task that is done. How those of the dead end is nobody's business."""
        self.tasks.pop(task, None)
        if not self.is_alive and not task.cancelled():
            task.exception()

    def kill(self) -> None:
        """As SIGKILL does."""
        self.is_alive = False
        self.resume()
        for task in list(self.tasks):
            task.cancel()


def current() -> Process | None:
    """The process that the running code belongs to; None for the world around them."""
    return _process.get()


class _Handle(asyncio.Handle):
    """A callback that waits while its process is paused."""

    __slots__ = ()

    def _run(self) -> None:
        process: Process | None = self._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and process.is_paused:
            process.held.append(self)
        else:
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    """A timer that waits, once it is due, while its process is paused."""

    __slots__ = ()

    def _run(self) -> None:
        process: Process | None = self._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and process.is_paused:
            process.held.append(self)
        else:
            super()._run()


class SimLoop(VirtualLoop):
    """A virtual-time loop that knows processes.

    ``defects`` collects what nobody caught: exceptions of callbacks, and of tasks that nobody
    awaited. Those of killed processes don't count. ``processes`` are all that ever ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.defects: list[str] = []
        self.processes: dict[Process, None] = {}
        self.set_exception_handler(self._note_defect)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """A task that its process, if it is one's, keeps in mind."""
        process = current() if context is None else context.get(_process)
        task = super().create_task(coro, name=name, context=context)
        if process is not None:
            self.processes[process] = None
            process.tasks[task] = None
            task.add_done_callback(process.forget)
            if not process.is_alive:
                task.cancel()
        return task

    def _call_soon(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """A timer; see asyncio's."""
        timer = super().call_at(when, callback, *args, context=context)
        # A subclass with another _run and the same fields: the heap holds it already.
        timer.__class__ = _TimerHandle
        return timer

    def release(self, held: list[asyncio.Handle]) -> None:
        """Run what a paused process kept waiting."""
        self._ready.extend(held)  # type: ignore[attr-defined]

    def _note_defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        handle = context.get("handle")
        process: Process | None = handle._context.get(_process) if handle else None
        if process is None or process.is_alive:
            task = context.get("future")
            whose = f" {task.get_coro()!r}" if isinstance(task, asyncio.Task) else ""
            self.defects.append(f"{context.get('message')}{whose}: {context.get('exception')!r}")


async def _resume(processes: list[Process]) -> None:
    for process in processes:
        process.resume()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a simulation to its end. Raises AssertionError if something failed that nobody awaited.

    Rubbish is collected at the end only: when the collector runs must not decide what happens when.
    """
    loop = SimLoop()
    collecting = gc.isenabled()
    gc.disable()
    try:
        result = loop.run_until_complete(main)
        assert not loop.defects, loop.defects
        return result
    finally:
        # What a paused process keeps would wait for ever, and hide what went wrong.
        loop.run_until_complete(_resume(list(loop.processes)))
        while left := [task for task in asyncio.all_tasks(loop) if not task.done()]:
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        if collecting:
            gc.enable()
