"""A node's part in the cluster, made from its settings: for the agent, and for the workers beside it.

A part of the composition root. The agent's part listens on the private address, gossips and heals;
a worker's follows the view that the agent writes, and reads and writes blobs on other nodes.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from ulid import ULID

from tierce import __version__
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.marked import Storage
from tierce.cluster.member import Member, View
from tierce.cluster.signing import Verifier
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, NotFound, TierceError
from tierce.core.limits import (
    AGENT_ORDER_SECONDS,
    CLOUD_LATE_SECONDS,
    CLOUD_SCRUB_BYTES_PER_SECOND,
    CLOUD_SCRUB_INTERVAL_SECONDS,
    CLOUD_SCRUB_REST_SECONDS,
    FILL_SECONDS,
    SCRUB_REST_SECONDS,
)
from tierce.core.settings import Settings
from tierce.doors.cask.calls import CaskCalls
from tierce.doors.cask.control import ORDERS, AgentControl, carry_out
from tierce.doors.cask.membership import CaskMembership
from tierce.doors.cask.neighbors import Neighbors
from tierce.doors.cask.peers import CaskPeers
from tierce.doors.cask.render import base_url
from tierce.doors.objstore.private import private_routes
from tierce.doors.private.routes import private_door
from tierce.names.record import NEAR_CACHE_BUCKET, Record
from tierce.node import sockets, view_files
from tierce.node.agent import AgentClient
from tierce.node.cache_orders import RoomOrders
from tierce.node.cluster_node import ClusterNode, Pacing
from tierce.node.data_path import DataPath, PlacementCell
from tierce.node.dialects import DialectPeers
from tierce.node.directory import epoch_name
from tierce.node.discovery import Discovery
from tierce.node.http_transport import HttpTransport
from tierce.node.names_parts import Names, object_paths
from tierce.node.names_peers import NamesPeers
from tierce.node.runtime import FATAL_CODE, Stop
from tierce.node.scrub_cost import ScrubPace
from tierce.node.store_tending import StoreTending
from tierce.node.tierce_peers import TiercePeers
from tierce.wiring import Parts, advertised, objstore_api, pace
from tierce.wiring_dtfc import DTFC_ORDERS, DtfcWork, has_door
from tierce.wiring_names import NodeJournal, check_upstream, open_names

log = logging.getLogger(__name__)

_PRIVATE_DRAIN_SECONDS = 2.0
_REPORTS_COUNT = 100


class Agent(NamedTuple):
    """The agent at work: its node in the cluster, and who else must hear its orders."""

    node: ClusterNode
    cask: CaskMembership
    names: Names
    transport: HttpTransport
    dtfc: DtfcWork
    store: StoreTending | None

    async def call(
        self, name: str, arguments: dict[str, Any], seconds: float = AGENT_ORDER_SECONDS
    ) -> dict[str, Any]:
        """Carry out an order of this node's doors (service/cluster.py), in this same process."""
        if name == "status":
            return self.status()
        if name in DTFC_ORDERS:
            return await self.dtfc.call(name, arguments)
        if name in ORDERS:
            return await carry_out(self.cask, name, arguments)
        if name == "compare_store":
            return {"comparison": _in_cloud(self.store).order_comparison()}
        return await self.node.call(name, arguments)

    def status(self) -> dict[str, Any]:
        """What the agent says of itself; of dtfc and the store, if the node has such."""
        store = None if self.store is None else self.store.status()
        return {**self.node.status(), "dtfc": self.dtfc.status(), "store": store}

    def parts(self, disk: Storage) -> Parts:
        """The parts of a process that is the whole node."""

        async def ask() -> dict[str, Any]:
            return self.status()

        paths = self.node.names.paths

        async def hurry() -> None:
            self.node.names.sync.hurry()

        journal = NodeJournal(
            disk, self.names, paths.levels, self.node.placement, self.transport, hurry
        )
        return Parts(disk, self.node.path, self.names, paths, journal, self, ask)


@contextlib.asynccontextmanager
async def worker_parts(settings: Settings, disk: Storage, stop: Stop) -> AsyncIterator[Parts]:
    """The parts of a process that has doors and no agent."""
    control = AgentClient(settings.data / "run")
    placement = PlacementCell(await view_files.first_view(settings.data, stop))
    reports: dict[Digest, asyncio.Task[None]] = {}

    def missing(digest: Digest) -> None:
        if digest not in reports and len(reports) < _REPORTS_COUNT:
            report = asyncio.create_task(_report(control, digest))
            reports[digest] = report
            report.add_done_callback(lambda _: reports.pop(digest, None))

    async with contextlib.AsyncExitStack() as held:
        transport = HttpTransport(settings.signing_secret)
        await transport.start()
        held.push_async_callback(transport.close)
        tierce = TiercePeers(transport)
        held.push_async_callback(tierce.close)
        calls = await held.enter_async_context(CaskCalls(settings.cluster_secret))
        cask_control = AgentControl(control)
        held.push_async_callback(cask_control.close)
        peers = DialectPeers({"tierce": tierce, "cask": CaskPeers(calls, cask_control.copied)})
        names = open_names(settings, disk)
        path = DataPath(
            disk.store,
            disk.spooler,
            disk.space,
            peers,
            placement,
            missing,
            names.objects.delete_blob,
            late_seconds=_late_seconds(disk),
        )
        held.push_async_callback(path.close)
        await names.index.begin_epoch(epoch_name(settings.data))
        if names.upstream is not None:
            held.push_async_callback(names.upstream.aclose)
        records = NamesPeers(transport, me=settings.node_id)
        held.push_async_callback(records.close)
        room = RoomOrders(control.call, names.cache_rows) if names.cache_limit_bytes else None
        objects = object_paths(
            names,
            settings.node_id,
            disk.store,
            disk.spooler,
            path,
            peers,
            records,
            transport,
            placement,
            fill_here=_filling(control, names),
            room=room,
            wall_clock=time.time_ns,
        )
        following = [asyncio.create_task(view_files.follow(settings.data, placement.update))]
        if room is not None:
            following.append(asyncio.create_task(room.run()))
        try:
            journal = NodeJournal(
                disk,
                names,
                objects.levels,
                placement,
                transport,
                lambda: control.call("hurry", {}),
            )
            yield Parts(disk, path, names, objects, journal, control, control.status)
        finally:
            await _cancel(*following, *reports.values())


def _filling(control: AgentClient, names: Names) -> Callable[[str], Awaitable[Record]]:
    """How a worker has its agent fetch an object from the upstream."""

    async def fill(key: str) -> Record:
        await control.call("fill", {"key": key}, FILL_SECONDS)
        found = names.index.get(NEAR_CACHE_BUCKET, key)
        if found is None or found.deleted:
            raise NotFound(f"{key} was deleted")
        return found

    return fill


@contextlib.asynccontextmanager
async def agent_at_work(settings: Settings, disk: Storage, stop: Stop) -> AsyncIterator[Agent]:
    """This node's part in the cluster, until the block ends. Its data directory is open."""
    writer = view_files.ViewWriter(settings.data)
    async with contextlib.AsyncExitStack() as held:
        transport = HttpTransport(settings.signing_secret)
        await transport.start()
        held.push_async_callback(transport.close)
        calls = await held.enter_async_context(CaskCalls(settings.cluster_secret))
        agent = _agent(settings, disk, transport, calls, writer, stop)
        # Before anyone may write: what is written belongs to this run's epoch.
        await agent.names.index.begin_epoch(epoch_name(settings.data))
        if agent.names.upstream is not None:
            held.push_async_callback(agent.names.upstream.aclose)
        held.push_async_callback(agent.node.close)
        if has_door(settings):
            await held.enter_async_context(agent.dtfc.at_work())
        verifier = Verifier(settings.signing_secret)
        more = private_routes(objstore_api(settings, agent.parts(disk)), verifier)
        door = private_door(
            agent.node.service, verifier, more=more, log_requests=settings.access_log
        )
        server = door.server(pace(settings))
        held.push_async_callback(server.drain, _PRIVATE_DRAIN_SECONDS)
        for address in sockets.resolve(settings.private):
            await server.listen(sockets.bind(address, shared=True), None)
        running = [asyncio.create_task(agent.node.run()), asyncio.create_task(agent.cask.run())]
        if agent.store is not None:
            running.append(asyncio.create_task(agent.store.run()))
        checking = asyncio.create_task(check_upstream(agent.names))
        held.push_async_callback(_cancel, checking)
        if settings.discover:
            gossip = agent.node.gossip
            address_of_mine = advertised(settings)
            found = Discovery(
                settings.node_id, address_of_mine, settings.signing_secret, gossip.join
            )
            running.append(asyncio.create_task(found.run()))
        for task in running:
            task.add_done_callback(lambda task: _ended(task, stop))
        try:
            yield agent
            await agent.node.leave()
        finally:
            await _cancel(*running)
            writer.flush()


def _agent(
    settings: Settings,
    disk: Storage,
    transport: HttpTransport,
    calls: CaskCalls,
    writer: view_files.ViewWriter,
    stop: Stop,
) -> Agent:
    """Put the agent together; nothing runs yet."""
    kept = view_files.kept_view(settings.data)
    remembered = () if kept is None else kept.members
    others = [each for each in remembered if each.node_id != settings.node_id]

    def on_conflict(error: TierceError) -> None:
        log.error("this node can't be a member: %s. %s", error.message, error.hint)
        stop.now("it can't be a member of the cluster", FATAL_CODE)

    def on_taken(error: TierceError) -> None:
        log.error("this node can't go on: %s. %s", error.message, error.hint)
        stop.now("its store was taken over", FATAL_CODE)

    def copied(node_id: str, worked: bool) -> None:
        membership.copied(node_id, worked)

    names = open_names(settings, disk)
    pacing = _pacing(settings, disk)
    node = ClusterNode(
        _announced(settings, kept),
        disk.store,
        disk.spooler,
        disk.space,
        transport,
        pacing=pacing,
        names=names,
        random=random.Random(),  # noqa: S311 (no secret)
        on_view=writer.put,
        on_conflict=on_conflict,
        join=[each for each in settings.join if "://" not in each],
        known=[each for each in others if each.dialect == "tierce"],
        other_peers={"cask": CaskPeers(calls, copied)},
        is_due=disk.store.proving.are_due if isinstance(disk, CloudDisk) else None,
    )
    # Cask nodes never add one that they have forgotten, so those of the last time are joined again.
    seeds = [each for each in settings.join if "://" in each]
    seeds += [each.cask for each in others if each.dialect == "cask" and each.cask not in seeds]
    membership = CaskMembership(
        Neighbors(settings.cluster_secret, settings.heartbeat_interval_seconds),
        calls,
        seeds=seeds,
        random=random.Random(),  # noqa: S311 (no secret)
        join_tierce=node.gossip.join,
        view=lambda: node.placement().view,
        on_change=node.set_others,
    )
    dtfc = DtfcWork(settings, disk, names.index, node.names.paths.objects)
    tending = None
    if isinstance(disk, CloudDisk):
        tending = StoreTending(
            disk,
            scrub=ScrubPace(
                pacing.scrub_interval_seconds,
                pacing.scrub_bytes_per_second,
                pacing.scrub_rest_seconds,
                disk.store.ground.range_bytes,
            ),
            on_missing=node.healer.hint,
            on_taken=on_taken,
        )
    return Agent(node, membership, names, transport, dtfc, tending)


def _pacing(settings: Settings, disk: Storage) -> Pacing:
    """How fast background work goes. In the cloud the scrub's requests, and its bytes, are paid for."""
    interval, speed = settings.scrub_interval_seconds, settings.scrub_bytes_per_second
    rest = SCRUB_REST_SECONDS
    if isinstance(disk, CloudDisk):
        interval = max(interval, CLOUD_SCRUB_INTERVAL_SECONDS)
        speed = min(speed, CLOUD_SCRUB_BYTES_PER_SECOND)
        if not disk.store.proving.by_tags:
            rest = CLOUD_SCRUB_REST_SECONDS
    return Pacing(
        grace_seconds=settings.down_grace_seconds,
        heal_bytes_per_second=settings.heal_bytes_per_second,
        scrub_interval_seconds=interval,
        scrub_bytes_per_second=speed,
        scrub_rest_seconds=rest,
        late_seconds=_late_seconds(disk),
    )


def _announced(settings: Settings, kept: View | None) -> Member:
    """What this node says of itself to the others. An order to drain it outlives a restart."""
    before = None if kept is None else kept.find(settings.node_id)
    native = next((each for each in settings.listen if each.door == "native"), None)
    cask = next((each for each in settings.listen if each.door == "cask"), None)
    scheme = "http" if settings.tls_certificate is None else "https"
    return Member(
        node_id=settings.node_id,
        incarnation=int(time.time() * 1000),
        boot=str(ULID()),
        private=advertised(settings),
        native="" if native is None else f"{scheme}://{native.address}",
        cask="" if cask is None else base_url(settings, cask),
        zone=settings.zone,
        weight=settings.weight,
        writable=not settings.read_only,
        draining=before is not None and before.draining,
        replication=settings.replication,
        max_replication=settings.max_replication,
        ring_points=settings.ring_points,
        version=__version__,
    )


def _in_cloud(store: StoreTending | None) -> StoreTending:
    if store is None:
        raise Conflict("this node keeps its blobs on its disk", hint="Ask a node with a store.")
    return store


async def _report(control: AgentClient, digest: Digest) -> None:
    try:
        await control.call("heal", {"digest": str(digest)})
    except TierceError as error:
        log.info("the agent could not be told of %s: %s", digest, error)


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ended(task: "asyncio.Task[None]", stop: Stop) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the agent failed", exc_info=error)
        stop.now("the agent failed", 1)


def _late_seconds(disk: Storage) -> float | None:
    """After how long readers of a store ask other nodes too; None for one that is on the disk."""
    return CLOUD_LATE_SECONDS if isinstance(disk, CloudDisk) else None
