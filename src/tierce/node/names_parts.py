"""The parts of a node that deal with names, put together: for its agent, and for each worker."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.cluster.placement import Placement
from tierce.core.limits import COLLECT_GRACE_SECONDS, TOMBSTONE_DAYS
from tierce.names.index import Index
from tierce.names.record import NEAR_CACHE_BUCKET, Record
from tierce.names.store import ObjectStore
from tierce.node.data_path import DataPath
from tierce.node.filling import FillCalls, FillRouter
from tierce.node.level_path import LevelPath, Mode
from tierce.node.names_peers import NamesPeers
from tierce.node.object_path import ObjectPath
from tierce.node.peers import Peers, Transport
from tierce.upstream.tier import Upstream


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a process knows of names: the index, the store of both, the upstream, what was set."""

    index: Index
    objects: ObjectStore
    upstream: Upstream | None = None
    mode: Mode = "through"
    grace_seconds: float = COLLECT_GRACE_SECONDS
    tombstone_days: float = TOMBSTONE_DAYS
    cache_limit_bytes: int = 0


class ObjectPaths(NamedTuple):
    """The ways of objects through the cluster: of those placed by the ring, and by a level."""

    objects: ObjectPath
    levels: LevelPath


def object_paths(
    names: Names,
    node_id: str,
    store: BlobStore,
    spooler: Spooler,
    blobs: DataPath,
    peers: Peers,
    records: NamesPeers,
    transport: Transport,
    placement: Callable[[], Placement],
    *,
    fill_here: Callable[[str], Awaitable[Record]],
    wall_clock: Callable[[], int],
) -> ObjectPaths:
    """Put the ways together. ``fill_here`` has this node's agent fetch from the upstream."""
    router = FillRouter(placement, FillCalls(transport), names.index, fill_here)
    objects = ObjectPath(
        names.objects,
        names.index,
        blobs,
        records,
        placement,
        grace_seconds=names.grace_seconds,
        wall_clock=wall_clock,
    )
    levels = LevelPath(
        node_id,
        store,
        spooler,
        names.objects,
        names.index,
        blobs,
        peers,
        records,
        placement,
        bucket=NEAR_CACHE_BUCKET,
        upstream=names.upstream,
        mode=names.mode,
        fill=router.fill,
        wall_clock=wall_clock,
    )
    return ObjectPaths(objects, levels)
