"""The parts of a node, made from its settings: its disk and its doors.

A part of the composition root, as is wiring_cluster.py: ``app.py`` decides which process gets which
parts, and runs them.
"""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tierce import __version__
from tierce.blobs import cache_shelves
from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.environment import Environment
from tierce.blobs.local import Disk
from tierce.blobs.marked import Storage
from tierce.blobs.read_cache import CachePlan
from tierce.blobs.space import SpaceGuard
from tierce.client import sos_config
from tierce.core.errors import BadRequest
from tierce.core.listen import Listen
from tierce.core.settings import Settings
from tierce.core.sos import SosStore
from tierce.doors.cask.control import AgentControl
from tierce.doors.cask.routes import cask_door
from tierce.doors.dtfc.routes import dtfc_door
from tierce.doors.native.routes import native_door
from tierce.doors.objstore.private import Journal, PrivateApi, debug_door
from tierce.doors.objstore.routes import objstore_door
from tierce.doors.shared.connection import Pace
from tierce.doors.shared.door import Door
from tierce.doors.sos import routes as sos
from tierce.names.cached import CACHE
from tierce.names.lmdb_index import DATABASES
from tierce.node import sockets
from tierce.node.data_path import DataPath
from tierce.node.discovery import check_installed
from tierce.node.names_parts import Names, ObjectPaths
from tierce.node.rate_table import RateTable
from tierce.node.runtime import Stop
from tierce.node.sockets import WILDCARDS
from tierce.node.sos_gateway import SosGateway
from tierce.node.store_opening import check_no_blobs, check_no_store, open_store
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.cluster import Cluster, Control
from tierce.service.levels import Levels
from tierce.service.objects import Objects
from tierce.service.rates import Limits, Rates
from tierce.service.sos_blobs import SosBlobs
from tierce.service.status import Identity, StatusReporter
from tierce.upstream.eviction import S3Fifo
from tierce.wiring_dtfc import dtfc_files


class Parts(NamedTuple):
    """What doors need beside the settings: the disk, the ways of blobs and objects, the agent's ear."""

    disk: Storage
    path: DataPath
    names: Names
    objects: ObjectPaths
    journal: Journal
    control: Control
    ask_agent: Callable[[], Awaitable[dict[str, Any] | None]]


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without any credentials. Raises BadRequest."""
    private = sockets.resolve(settings.private)
    if not settings.cluster_secret and not all(map(sockets.is_loopback, private)):
        raise BadRequest(
            f"{settings.private} can be reached from other machines, and no cluster secret is set",
            hint="Set TIERCE_CLUSTER_SECRET to the same long random text on all nodes, or listen "
            "on 127.0.0.1 with --private.",
        )
    told = Listen.private(settings.advertise) if settings.advertise else settings.private
    if told.host in WILDCARDS:
        raise BadRequest(
            f"{told} is no address that other nodes could be told",
            hint="Name one of this machine's addresses, or say with --advertise HOST:PORT where "
            "other nodes reach this one.",
        )
    if settings.discover:
        check_installed()
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


def open_disk(settings: Settings, stop: Stop) -> Storage:
    """Open the node's blobs; a broken index stops the process, to be started anew."""
    loop = asyncio.get_running_loop()

    def broken() -> None:
        loop.call_soon_threadsafe(stop.now, "the index broke", 1)

    return _storage(settings, broken, _cache_plan(settings))


def _storage(
    settings: Settings, on_broken: Callable[[], None], cached: CachePlan | None = None
) -> Disk | CloudDisk:
    databases = (*DATABASES, CACHE, *(CLOUD_DATABASES if settings.store else ()))
    environment = Environment(settings.data / "lmdb", databases=databases, on_broken=on_broken)
    space = SpaceGuard(
        settings.data, reserve_bytes=settings.reserve_bytes, read_only=settings.read_only
    )
    if settings.store:
        return CloudDisk(
            settings.data,
            open_store(settings),
            layout=settings.store_layout,
            proof=settings.store_proof,
            pack_limit_bytes=settings.pack_limit_bytes,
            blob_limit_bytes=settings.blob_limit_bytes,
            space=space,
            environment=environment,
            cached=cached,
        )
    return Disk(
        settings.data,
        files=settings.files,
        pack_limit_bytes=settings.pack_limit_bytes,
        blob_limit_bytes=settings.blob_limit_bytes,
        space=space,
        environment=environment,
    )


def _cache_plan(settings: Settings) -> CachePlan | None:
    """The read cache of a store: each process has a shelf and its share."""
    share = settings.store_cache_bytes // settings.processes
    return CachePlan(settings.processes, lambda: S3Fifo(share)) if share else None


async def prepare_store(settings: Settings) -> None:
    """At a start, before anyone else opens the data directory: see that the store is this node's.

    Raises what CloudDisk.prepare does, and BadRequest for a URL that can't be used, or a data
    directory that has blobs of its own; and for one whose blobs are in a store that is not named.
    """
    if not settings.store:
        await check_no_store(settings.data)
        return
    if settings.store.startswith("memory:") and settings.workers > 1:
        raise BadRequest(
            "the store is in memory, and each worker would have one of its own",
            hint="Write --workers 1, or use a store that several processes can share.",
        )
    disk = _storage(settings, lambda: None)
    try:
        assert isinstance(disk, CloudDisk)
        check_no_blobs(settings.data, disk.environment)
        await disk.prepare(settings.node_id)
        plan = _cache_plan(settings)
        cache_shelves.sweep(settings.data / "cache", plan.shelves if plan else 0)
    finally:
        await disk.close()


async def prepare_memory(settings: Settings, disk: Storage) -> None:
    """A store in memory is this process's own: that of prepare_store was another one, and is gone."""
    if isinstance(disk, CloudDisk) and settings.store.startswith("memory:"):
        await disk.prepare(settings.node_id)


def pace(settings: Settings) -> Pace:
    """What is asked of clients' connections."""
    return Pace(
        min_bytes_per_second=settings.min_progress_bytes_per_second,
        window_seconds=settings.progress_window_seconds,
        header_timeout_seconds=settings.header_timeout_seconds,
        idle_timeout_seconds=settings.idle_timeout_seconds,
    )


def rates(settings: Settings) -> Rates | None:
    """What counts the requests to the public doors, if they are limited."""
    limits = Limits(
        settings.requests_per_second,
        settings.token_requests_per_second,
        tuple(map(ipaddress.ip_network, settings.trusted_proxies)),
    )
    if not limits.by_address and not limits.by_token:
        return None
    return Rates(limits, RateTable.open(settings.data / "run" / "rates"))


@asynccontextmanager
async def sos_gateway(settings: Settings, disk: Storage) -> AsyncIterator[SosGateway | None]:
    """What stands before other blob servers of SOS, if some are set. For as long as doors are open."""
    if not settings.sos_servers:
        yield None
        return
    listed = sos_config.parse_settings(settings.sos_servers)
    gateway = SosGateway(listed.groups, disk.spooler)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.close()


def doors(
    settings: Settings, parts: Parts, gateway: SosGateway | None = None
) -> Iterator[tuple[Listen, Door]]:
    """The public doors, each with where it listens. The SOS doors use ``gateway`` if there is one."""
    blobs = Blobs(
        parts.disk.store,
        parts.disk.spooler,
        parts.disk.space,
        parts.path,
        is_named=lambda digest: bool(parts.names.index.refers(digest)),
    )
    objects = Objects(blobs, parts.names.index, parts.objects.objects)
    near_cache = Levels(blobs, parts.objects.levels)
    access = Access(settings.tokens, settings.anonymous_rights_in_force)
    cluster = Cluster(parts.control)
    identity = Identity(
        node_id=settings.node_id,
        version=__version__,
        listen=tuple(map(str, settings.listen)),
        workers=settings.workers,
        started=time.time(),
    )
    reporter = StatusReporter(identity, blobs, parts.ask_agent)
    for listen in settings.listen:
        if listen.door == "native":
            door = native_door(
                blobs, access, reporter, cluster, objects, log_requests=settings.access_log
            )
            yield listen, door
        elif listen.door == "objstore":
            yield (
                listen,
                objstore_door(near_cache, access, reporter, log_requests=settings.access_log),
            )
        elif listen.door == "dtfc":
            files = dtfc_files(settings, parts.disk, parts.control, blobs, objects)
            yield (
                listen,
                dtfc_door(
                    files,
                    access,
                    deny=settings.dtfc_deny,
                    to_https=settings.dtfc_https_redirect,
                    log_requests=settings.access_log,
                ),
            )
        elif listen.door.startswith("sos-"):
            yield listen, _sos_door(settings, listen, SosBlobs(blobs, objects), gateway, access)
        else:
            control = AgentControl(parts.control)
            yield (
                listen,
                cask_door(settings, listen, blobs, access, reporter, control, advertised(settings)),
            )
    if settings.objstore_debug is not None:
        api = objstore_api(settings, parts)
        yield settings.objstore_debug, debug_door(api, access, log_requests=settings.access_log)


def _sos_door(
    settings: Settings,
    listen: Listen,
    blobs: SosBlobs,
    gateway: SosGateway | None,
    access: Access,
) -> Door:
    """One of the three. A blob server keeps what it is given itself, whatever others there are."""
    if listen.door == sos.BLOB:
        return sos.blob_door(blobs, access, log_requests=settings.access_log)
    store: SosStore = gateway or blobs
    make = sos.upload_door if listen.door == sos.UPLOAD else sos.download_door
    return make(store, access, log_requests=settings.access_log)


def objstore_api(settings: Settings, parts: Parts) -> PrivateApi:
    """The handlers of objstore's private API, for whichever door has them."""
    blobs = Blobs(parts.disk.store, parts.disk.spooler, parts.disk.space, parts.path)
    return PrivateApi(Levels(blobs, parts.objects.levels), parts.journal, settings.node_id)


def advertised(settings: Settings) -> str:
    """The address of the private door that other nodes are told: HOST:PORT.

    A port of 0 in ``advertise`` stands for the one in force.
    """
    if not settings.advertise:
        return settings.private.address
    found = Listen.private(settings.advertise)
    return found._replace(port=found.port or settings.private.port).address
