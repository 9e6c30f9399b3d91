"""The composition root: from settings to a running node. Everything is wired here, and only here.

With one worker, the node is one process. With more, this process supervises, and starts each worker
and the agent as ``python -m tierce.app ROLE``, handing the settings over by standard input.
"""

import asyncio
import contextlib
import logging
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

from tierce import __version__
from tierce.blobs.environment import Environment, allocate_lock_file
from tierce.blobs.local import Disk
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import sweep
from tierce.core.errors import BadRequest, TierceError
from tierce.core.listen import Listen
from tierce.core.settings import Settings, from_json, to_json
from tierce.doors.cask.routes import cask_door
from tierce.doors.native.routes import native_door
from tierce.doors.shared.connection import DoorServer, Pace
from tierce.doors.shared.door import Door
from tierce.node import agent, logs, sockets
from tierce.node.directory import DataDirectory, metrics_directory
from tierce.node.runtime import ORPHANED, Stop, run
from tierce.node.workers import READY, Supervisor
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.status import Identity, StatusReporter

log = logging.getLogger(__name__)

_ORPHAN_DRAIN_SECONDS = 2.0
METRICS_ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"

AskAgent = Callable[[], Awaitable[dict[str, Any] | None]]


def serve(settings: Settings, announce: Callable[[str, tuple[Listen, ...]], None]) -> int:
    """Run a node until it is told to stop; returns the exit code.

    ``announce(node_id, listen)`` is called once every door answers. Raises BadRequest for settings
    that can't work, Conflict if the directory or a port is taken, Corrupt for a damaged directory.
    """
    logs.set_up(role="node", form=settings.log_format, level=settings.log_level)
    check_exposure(settings)
    tls_context(settings)
    directory = DataDirectory.open(settings.data, settings.node_id)
    with contextlib.ExitStack() as held:
        held.callback(directory.close)
        listen = []
        for wanted in settings.listen:
            found, reserved = sockets.reserve(wanted)
            listen.append(found)
            for sock in reserved:
                held.callback(sock.close)
        settings = replace(
            settings,
            data=directory.path,
            node_id=directory.identity.node_id,
            listen=tuple(listen),
        )

        def ready() -> None:
            announce(settings.node_id, settings.listen)

        if settings.workers == 1:
            return run(lambda stop: run_single(settings, stop, ready))
        return run(lambda stop: _supervise(settings, directory, stop, ready))


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without any credentials. Raises BadRequest."""
    if settings.tokens or settings.anonymous_rights is not None:
        return
    for listen in settings.listen:
        if all(map(sockets.is_loopback, sockets.resolve(listen))):
            continue
        if listen.door == "cask" and settings.cluster_secret:
            continue
        raise BadRequest(
            f"{listen} can be reached from other machines, and no token is set",
            hint="Make a token with `tierce token new`, listen on 127.0.0.1, or say with "
            "anonymous_rights what everyone may do.",
        )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The server's TLS, if it has a certificate. Raises BadRequest for files that don't fit."""
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadRequest(
            f"the TLS certificate or key can't be used: {error}",
            hint="tls_certificate and tls_key must be readable PEM files that belong together.",
        ) from error
    return context


async def run_single(settings: Settings, stop: Stop, ready: Callable[[], None]) -> None:
    """A whole node in this process. Its directory is open and its ports are known."""
    disk = _open_disk(settings, stop)
    background = agent.Agent(disk.store, settings.scrub_interval_seconds)

    async def ask() -> dict[str, Any] | None:
        return background.status()

    loop = asyncio.create_task(background.run())
    try:
        await _serve_doors(settings, disk, ask, stop, ready)
    finally:
        loop.cancel()
        await asyncio.wait([loop])
        await disk.close()


async def _worker(settings: Settings, stop: Stop) -> None:
    """One of several workers."""
    disk = _open_disk(settings, stop)
    try:
        run_directory = settings.data / "run"
        await _serve_doors(settings, disk, lambda: agent.ask(run_directory), stop, _say_ready)
    finally:
        await disk.close()


async def _agent(settings: Settings, stop: Stop) -> None:
    """The agent as a process of its own."""
    disk = _open_disk(settings, stop)
    background = agent.Agent(disk.store, settings.scrub_interval_seconds)
    try:
        async with agent.listening(background, settings.data / "run"):
            loop = asyncio.create_task(background.run())
            _say_ready()
            await stop.wait()
            loop.cancel()
            await asyncio.wait([loop])
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
        command=lambda role: [sys.executable, "-m", "tierce.app", role],
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
    settings: Settings, disk: Disk, ask: AskAgent, stop: Stop, ready: Callable[[], None]
) -> None:
    """Answer on all doors until the order to stop, then drain."""
    tls = tls_context(settings)
    servers: list[DoorServer] = []
    for listen, door in _doors(settings, disk, ask):
        server = door.server(_pace(settings))
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


def _doors(settings: Settings, disk: Disk, ask: AskAgent) -> Iterator[tuple[Listen, Door]]:
    blobs = Blobs(disk.store, disk.spooler, disk.space, replication=settings.replication)
    access = Access(settings.tokens, settings.anonymous_rights_in_force)
    identity = Identity(
        node_id=settings.node_id,
        version=__version__,
        listen=tuple(map(str, settings.listen)),
        workers=settings.workers,
        started=time.time(),
    )
    reporter = StatusReporter(identity, blobs, ask)
    for listen in settings.listen:
        if listen.door == "native":
            yield listen, native_door(blobs, access, reporter, log_requests=settings.access_log)
        else:
            yield listen, cask_door(settings, listen, blobs, access, reporter)


def _pace(settings: Settings) -> Pace:
    return Pace(
        min_bytes_per_second=settings.min_progress_bytes_per_second,
        window_seconds=settings.progress_window_seconds,
        header_timeout_seconds=settings.header_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
    )


def _open_disk(settings: Settings, stop: Stop) -> Disk:
    """Open the data directory's blobs; a broken index stops the process, to be started anew."""
    loop = asyncio.get_running_loop()

    def broken() -> None:
        loop.call_soon_threadsafe(stop.now, "the index broke", 1)

    return Disk(
        settings.data,
        pack_limit_bytes=settings.pack_limit_bytes,
        blob_limit_bytes=settings.blob_limit_bytes,
        space=SpaceGuard(
            settings.data, reserve_bytes=settings.reserve_bytes, read_only=settings.read_only
        ),
        environment=Environment(settings.data / "lmdb", on_broken=broken),
    )


def _say_ready() -> None:
    os.write(1, READY)


def _run_role(role: str) -> int:
    """The main function of a process that a supervisor started."""
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


if __name__ == "__main__":
    sys.exit(_run_role(sys.argv[1]))
