"""The parts of a node that deal with names, put together: for its agent, and for each worker."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.limits import COLLECT_GRACE_SECONDS, COPY_POLL_SECONDS, TOMBSTONE_DAYS
from tierce.names.cached import CacheRows, MemoryRows
from tierce.names.index import Index
from tierce.names.record import NEAR_CACHE_BUCKET, Record
from tierce.names.store import ObjectStore
from tierce.node.data_path import DataPath
from tierce.node.filling import FillCalls, FillRouter
from tierce.node.guarding import GuardedObjects, Room
from tierce.node.level_path import LevelPath, Mode
from tierce.node.names_peers import NamesPeers
from tierce.node.object_path import ObjectPath
from tierce.node.peers import Peers, Transport
from tierce.node.record_sync import SyncPacing
from tierce.upstream.tier import Upstream


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a process knows of names: the index, the store of both, the upstream, what was set.

    ``cache_limit_bytes`` of 0 is no limit; ``cache_rows`` are where the state under one is kept.
    """

    index: Index
    objects: ObjectStore
    upstream: Upstream | None = None
    mode: Mode = "through"
    grace_seconds: float = COLLECT_GRACE_SECONDS
    tombstone_days: float = TOMBSTONE_DAYS
    cache_limit_bytes: int = 0
    sync_pacing: SyncPacing = field(default_factory=SyncPacing)
    poll_seconds: float = COPY_POLL_SECONDS
    cache_rows: CacheRows = field(default_factory=MemoryRows)


class ObjectPaths(NamedTuple):
    """The ways of objects through the cluster: of those placed by the ring, and by a level."""

    objects: ObjectPath
    levels: LevelPath


def ignored(digest: Digest) -> None:
    """Where nobody counts hits."""


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
    room: Room | None = None,
    wall_clock: Callable[[], int],
) -> ObjectPaths:
    """Put the ways together. ``fill_here`` has this node's agent fetch from the upstream.

    ``room`` is where room in the cache is asked for, if it is limited.
    """
    calls = FillCalls(transport)
    merge = None if room is None else room.merge
    router = FillRouter(placement, calls, names.index, fill_here, merge)
    kept = names.objects
    if room is not None:
        kept = GuardedObjects(names.objects, names.index, room)
    objects = ObjectPath(
        kept,
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
        kept,
        names.index,
        blobs,
        peers,
        records,
        placement,
        bucket=NEAR_CACHE_BUCKET,
        upstream=names.upstream,
        mode=names.mode,
        fill=router.fill,
        touched=ignored if room is None else room.touched,
        grace_seconds=names.grace_seconds,
        wall_clock=wall_clock,
    )
    return ObjectPaths(objects, levels)
