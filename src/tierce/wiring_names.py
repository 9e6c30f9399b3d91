"""A node's names, made from its settings: the index, the upstream, what objstore's private API asks.

A part of the composition root, as is wiring.py.
"""

import base64
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tierce.blobs.marked import Storage
from tierce.cluster.placement import Placement
from tierce.core.errors import NotFound, TierceError
from tierce.core.limits import PEER_ANSWER_SECONDS
from tierce.core.settings import Settings
from tierce.doors.objstore.private import API, EVENT_MESSAGE, FileMeta, NodeInfo
from tierce.names.cached import LmdbRows
from tierce.names.lmdb_index import LmdbIndex
from tierce.names.record import NEAR_CACHE_BUCKET
from tierce.names.store import LocalObjects, releasing
from tierce.node.level_path import LevelPath
from tierce.node.names_parts import Names
from tierce.node.peers import Transport
from tierce.service.near_cache import Found, Known
from tierce.upstream.cloud import open_upstream

log = logging.getLogger(__name__)


def open_names(settings: Settings, disk: Storage) -> Names:
    """What a process knows of names, over its disk. Raises BadRequest for a wrong upstream."""
    is_limited = settings.cache_limit_bytes > 0
    released = releasing(disk.store, is_limited=is_limited)
    index = LmdbIndex(disk.environment, settings.node_id, on_change=released)
    return Names(
        index=index,
        objects=LocalObjects(disk.store, index),
        upstream=open_upstream(settings.upstream) if settings.upstream else None,
        mode=settings.upstream_mode,
        grace_seconds=settings.collect_grace_seconds,
        tombstone_days=settings.tombstone_days,
        cache_limit_bytes=settings.cache_limit_bytes,
        cache_rows=LmdbRows(disk.environment),
    )


async def check_upstream(names: Names) -> None:
    """Say at the start what keeps the upstream from being used. The node runs all the same."""
    if names.upstream is None:
        return
    try:
        await names.upstream.check()
    except TierceError as error:
        log.warning("the upstream can't be used now: %s %s", error.message, error.hint)


class NodeJournal:
    """The Journal of objstore's private API (doors/objstore/private.py). ``hurry`` asks the agent to
    read the other nodes' feeds soon.
    """

    def __init__(
        self,
        disk: Storage,
        names: Names,
        levels: LevelPath,
        placement: Callable[[], Placement],
        transport: Transport,
        hurry: Callable[[], Awaitable[Any]],
    ) -> None:
        self._disk = disk
        self._names = names
        self._levels = levels
        self._placement = placement
        self._transport = transport
        self._hurry = hurry

    async def nodes(self) -> list[NodeInfo]:
        """See Journal."""
        return [
            NodeInfo(each.node_id, each.private.rpartition(":")[0].strip("[]"), each.private)
            for each in self._placement().view.members
            if each.is_up and each.dialect == "tierce"
        ]

    async def records_after(self, key: str, limit: int) -> list[Known]:
        """See Journal."""
        found = await self._names.index.list_after(NEAR_CACHE_BUCKET, "", key, limit, deleted=True)
        digests = [each.digest for each in found if each.digest is not None]
        sizes = await self._disk.store.sizes(digests)
        here = {digest for digest, size in zip(digests, sizes, strict=True) if size is not None}
        return [Known(each, each.digest is not None and each.digest not in here) for each in found]

    async def open_here(self, key: str) -> Found:
        """See Journal."""
        record = self._levels.get(key)
        if record is None or record.digest is None:
            raise NotFound(f"{key} is not here")
        return Found(record, await self._disk.store.open(record.digest), False, False)

    async def announced(self, meta: FileMeta) -> None:
        """See Journal."""
        with suppress(TierceError):  # a hint: what it is about is read at the next turn in any case
            await self._hurry()

    async def tell(self, message: bytes) -> None:
        """See Journal."""
        placement = self._placement()
        event = {"type": EVENT_MESSAGE, "meta": None, "data": base64.b64encode(message).decode()}
        for member in placement.view.members:
            if member.node_id == placement.view.me or not member.is_up or not member.private:
                continue
            try:
                await self._transport.exchange(
                    member.private,
                    f"{API}/announce",
                    json.dumps(event).encode(),
                    timeout_seconds=PEER_ANSWER_SECONDS,
                )
            except TierceError as error:
                log.info("%s did not hear a message: %s", member.node_id, error)
