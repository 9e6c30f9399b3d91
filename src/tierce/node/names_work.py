"""What an agent does about names: answers to other nodes, the exchange of records, background work."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.cluster.placement import Placement
from tierce.core.errors import BadRequest
from tierce.names.record import NEAR_CACHE_BUCKET
from tierce.node.cache_orders import answer_order
from tierce.node.cache_parts import cache_parts
from tierce.node.data_path import DataPath
from tierce.node.filling import FILL, Filler, fill_handler
from tierce.node.guarding import GuardedIndex
from tierce.node.names_parts import Names, ObjectPaths, object_paths
from tierce.node.names_peers import NamesPeers
from tierce.node.names_service import NamesService
from tierce.node.overtaken import Overtaken
from tierce.node.peers import Peers, Transport
from tierce.node.record_sync import RecordSync
from tierce.node.tending import Tending


class NamesWork:
    """The agent's part in names. ``paths`` are the ways of objects, for doors in this process.

    To be made, and used, inside one event loop. ``wall_clock`` gives nanoseconds since 1970.
    """

    def __init__(
        self,
        names: Names,
        node_id: str,
        store: BlobStore,
        spooler: Spooler,
        blobs: DataPath,
        peers: Peers,
        transport: Transport,
        placement: Callable[[], Placement],
        *,
        random: random.Random,
        wall_clock: Callable[[], int],
    ) -> None:
        self._names = names
        self._peers = NamesPeers(transport, me=node_id)
        self.cache = cache = cache_parts(names, store, wall_clock)
        self.filler = Filler(
            store,
            spooler,
            cache.objects,
            names.index,
            names.upstream,
            bucket=NEAR_CACHE_BUCKET,
            may_hold=cache.may_hold,
            wall_clock=wall_clock,
        )
        self._overtaken: Overtaken | None = None
        index = cache.index
        if names.upstream is not None:
            self._overtaken = Overtaken(node_id, cache.index, blobs, names.upstream)
            index = GuardedIndex(cache.index, self._overtaken.merge)
        self.service = NamesService(
            index,
            node_id=node_id,
            more={FILL: fill_handler(self.filler, node_id)},
            tombstone_days=names.tombstone_days,
            now_ns=wall_clock,
        )
        self.sync = RecordSync(
            index,
            self._peers,
            lambda: placement().view,
            readers=self.service.readers,
            random=random,
            pacing=names.sync_pacing,
            tombstone_days=names.tombstone_days,
            now_ns=wall_clock,
        )
        self._tending = Tending(
            node_id,
            store,
            spooler,
            cache.modest,
            cache.index,
            blobs,
            self.filler,
            names.upstream,
            grace_seconds=names.grace_seconds,
            may_keep=cache.may_keep,
            is_draining=lambda: placement().me.draining,
            has_heard_all=self.sync.caught_up,
            keeps_all=cache.limited is None,
            poll_seconds=names.poll_seconds,
            wall_clock=wall_clock,
        )
        self.paths = self._paths(
            node_id, store, spooler, blobs, peers, transport, placement, wall_clock
        )

    def _paths(
        self,
        node_id: str,
        store: BlobStore,
        spooler: Spooler,
        blobs: DataPath,
        peers: Peers,
        transport: Transport,
        placement: Callable[[], Placement],
        wall_clock: Callable[[], int],
    ) -> ObjectPaths:
        return object_paths(
            self._names,
            node_id,
            store,
            spooler,
            blobs,
            peers,
            self._peers,
            transport,
            placement,
            fill_here=self.filler.fill,
            room=self.cache.room,
            wall_clock=wall_clock,
        )

    async def run(self) -> None:
        """Work until cancelled. The epoch of this run of the node has begun already."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.sync.run())
            tasks.create_task(self._tending.run())
            if self._overtaken is not None:
                tasks.create_task(self._overtaken.run())
            if self.cache.limited is not None:
                tasks.create_task(self.cache.limited.run())

    async def close(self) -> None:
        """Give up requests under way."""
        await self.filler.close()
        if self.cache.limited is not None:
            await self.cache.limited.close()
        if self.cache.checked is not None:
            await self.cache.checked.close()
        await self._peers.close()

    @property
    def has_queue(self) -> bool:
        """Whether this node has something that only it can give to the upstream."""
        return self._tending.uploads_waiting > 0

    def status(self) -> dict[str, Any]:
        """How many names there are, and how the exchange and the background work are getting on."""
        counts = self._names.index.counts()
        return {
            "objects": counts.objects,
            "tombstones": counts.tombstones,
            "damaged": counts.damaged,
            "changes": self._names.index.last_seq(),
            "sync": self.sync.status(),
            "upstream": None if self._names.upstream is None else self._names.upstream.status(),
            "cache": None if self.cache.limited is None else self.cache.limited.status(),
            **self._tending.status(),
        }

    async def order(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out an order about the cache (cache_orders.py). Raises BadRequest."""
        if self.cache.limited is None or self.cache.room is None:
            raise BadRequest(f"{name!a}: the cache has no limit", hint="Restart this node.")
        return await answer_order(self.cache.limited, self.cache.room, name, arguments)
