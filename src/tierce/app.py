"""The composition root: from settings to a running node. The parts are made in wiring.py.

With one worker, the node is one process. With more, this process supervises, and starts each worker
and the agent as ``python -m tierce.role ROLE``, handing the settings over by standard input.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from tierce.blobs.environment import allocate_lock_file
from tierce.blobs.spool import sweep
from tierce.core.errors import TierceError
from tierce.core.listen import PRIVATE, Listen
from tierce.core.settings import Settings, from_json, to_json
from tierce.doors.shared.connection import DoorServer
from tierce.doors.shared.door import Door
from tierce.node import agent, logs, sockets
from tierce.node.directory import DataDirectory, metrics_directory
from tierce.node.runtime import ORPHANED, Stop, run
from tierce.node.workers import READY, Supervisor
from tierce.wiring import (
    Parts,
    check_exposure,
    doors,
    open_disk,
    pace,
    prepare_memory,
    prepare_store,
    rates,
    sos_gateway,
    tls_context,
)
from tierce.wiring_cluster import agent_at_work, worker_parts
from tierce.wiring_dtfc import check_peers

log = logging.getLogger(__name__)

_ORPHAN_DRAIN_SECONDS = 2.0
METRICS_ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"


def serve(settings: Settings, announce: Callable[[str, tuple[Listen, ...]], None]) -> int:
    """Run a node until it is told to stop; returns the exit code.

    ``announce(node_id, listen)`` is called once every door answers. Raises BadRequest for settings
    that can't work, Conflict if the directory or a port is taken, Corrupt for a damaged directory.
    """
    logs.set_up(role="node", form=settings.log_format, level=settings.log_level)
    check_exposure(settings)
    check_peers(settings)
    tls_context(settings)
    directory = DataDirectory.open(settings.data, settings.node_id, settings.files)
    with contextlib.ExitStack() as held:
        held.callback(directory.close)
        listen = []
        debug = [settings.objstore_debug] if settings.objstore_debug else []
        for wanted in (*settings.listen, settings.private, *debug):
            found, reserved = sockets.reserve(wanted)
            listen.append(found)
            for sock in reserved:
                held.callback(sock.close)
        found_debug = listen.pop() if debug else None
        private = listen.pop()
        settings = replace(
            settings,
            data=directory.path,
            files=settings.files and settings.files.resolve(),
            node_id=directory.identity.node_id,
            listen=tuple(listen),
            private=private,
            objstore_debug=found_debug,
        )

        asyncio.run(prepare_store(settings))

        def ready() -> None:
            announce(settings.node_id, (*settings.listen, settings.private))

        if settings.workers == 1:
            return run(lambda stop: run_single(settings, stop, ready))
        return run(lambda stop: _supervise(settings, directory, stop, ready))


async def run_single(settings: Settings, stop: Stop, ready: Callable[[], None]) -> None:
    """A whole node in this process. Its directory is open and its ports are known."""
    disk = open_disk(settings, stop)
    try:
        await prepare_memory(settings, disk)
        async with agent_at_work(settings, disk, stop) as found:
            await _serve_doors(settings, found.parts(disk), stop, ready)
    finally:
        await disk.close()


async def _worker(settings: Settings, stop: Stop) -> None:
    """One of several workers."""
    disk = open_disk(settings, stop)
    try:
        async with worker_parts(settings, disk, stop) as parts:
            await _serve_doors(settings, parts, stop, _say_ready)
    finally:
        await disk.close()


async def _agent(settings: Settings, stop: Stop) -> None:
    """The agent as a process of its own."""
    disk = open_disk(settings, stop)
    try:
        async with (
            agent_at_work(settings, disk, stop) as found,
            agent.listening(found.call, settings.data / "run"),
        ):
            _say_ready()
            await stop.wait()
    finally:
        await disk.close()


async def _supervise(
    settings: Settings, directory: DataDirectory, stop: Stop, ready: Callable[[], None]
) -> None:
    """Run workers and agent as processes."""

    def clean_up_after(pid: int) -> None:
        sweep(settings.data / "tmp", pid)
        mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def up() -> None:
        allocate_lock_file(settings.data / "lmdb")
        ready()

    supervisor = Supervisor(
        ["agent", *(f"worker-{number}" for number in range(1, settings.workers + 1))],
        command=lambda role: [sys.executable, "-m", "tierce.role", role],
        handover=to_json(settings) + b"\n",
        lock_fd=directory.lock_fd,
        drain_timeout_seconds=settings.drain_timeout_seconds,
        on_death=clean_up_after,
    )
    with metrics_directory(settings.data) as metrics:
        os.environ[METRICS_ENVIRONMENT] = str(metrics)
        # The library looked when it was imported; tell it to look again, for this process's values.
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        await supervisor.run(stop, up)


async def _serve_doors(
    settings: Settings, parts: Parts, stop: Stop, ready: Callable[[], None]
) -> None:
    """Answer on all doors until the order to stop, then drain."""
    async with sos_gateway(settings, parts.disk) as gateway:
        await _answer(settings, list(doors(settings, parts, gateway)), stop, ready)


async def _answer(
    settings: Settings,
    found: Sequence[tuple[Listen, Door]],
    stop: Stop,
    ready: Callable[[], None],
) -> None:
    tls = tls_context(settings)
    servers: list[DoorServer] = []
    counted = rates(settings)
    for listen, door in found:
        if counted is not None and listen.door != PRIVATE:
            door.limit(counted)
        server = door.server(pace(settings))
        servers.append(server)
        for address in sockets.resolve(listen):
            await server.listen(sockets.bind(address, shared=True), tls)
    ready()
    await stop.wait()
    log.info("stopping: %s", stop.reason)
    limit = settings.drain_timeout_seconds
    if stop.reason == ORPHANED:
        limit = min(limit, _ORPHAN_DRAIN_SECONDS)
    finished = await asyncio.gather(*(server.drain(limit) for server in servers))
    if not all(finished):
        log.warning("some requests were cut off after %g s", limit)


def _say_ready() -> None:
    os.write(1, READY)


def run_role(role: str) -> int:
    """The main function of a process that a supervisor started. Returns the exit code."""
    handover = bytearray()
    while not handover.endswith(b"\n"):
        more = os.read(0, 1 << 16)
        if not more:
            return 1
        handover += more
    settings = from_json(bytes(handover))
    logs.set_up(role=role, form=settings.log_format, level=settings.log_level)
    main = _agent if role == "agent" else _worker
    try:
        return run(lambda stop: main(settings, stop), parent_fd=0)
    except TierceError as error:
        log.error("%s", " ".join(filter(None, (f"{error.message}.", error.hint))))
    except Exception:
        log.exception("the %s failed", role)
    return 1
