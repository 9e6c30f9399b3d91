"""What the dtfc door needs, made from the settings: in the agent, who loads from peers and tells them to
delete; in each process with doors, the files.

A part of the composition root, as is wiring.py.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tierce.blobs.marked import Storage
from tierce.blobs.spool import Spool
from tierce.core.digest import Digest
from tierce.core.dtfc import BUCKET
from tierce.core.errors import BadRequest, Conflict, NotFound
from tierce.core.metrics import LOADED_BYTES, LOADED_FILES
from tierce.core.settings import Settings
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node.dtfc_deletes import PeerDeletes
from tierce.node.dtfc_peers import DtfcClient, PeerList, read_peers
from tierce.node.dtfc_source import Source
from tierce.node.dtfc_tree import Tree
from tierce.node.loads_reading import LoadsReading
from tierce.node.media_probe import MediaProbe
from tierce.node.object_path import ObjectPath
from tierce.node.peer_loading import LOADING_ORDERS, PeerLoading
from tierce.service.blobs import Blobs
from tierce.service.cluster import Control
from tierce.service.dtfc import DELETE_ORDER, REFRESH_ORDER, Files
from tierce.service.objects import Objects

log = logging.getLogger(__name__)

DTFC_ORDERS = LOADING_ORDERS | {DELETE_ORDER, REFRESH_ORDER}


class _PutMeanwhile(Conflict):
    """A client has put the file that was being loaded."""


class DtfcWork:
    """What the agent does for the dtfc doors of its node."""

    def __init__(
        self, settings: Settings, disk: Storage, index: Index, objects: ObjectPath
    ) -> None:
        self._is_used = has_door(settings)
        self._client = DtfcClient()
        self._peers = PeerList(
            self._client, settings.dtfc_peers, settings.dtfc_peer_list, settings.dtfc_me
        )
        self._tree = Tree(settings.data, disk.spooler.pool)
        self._index = index
        self._objects = objects
        self.loading = PeerLoading(self._sources, disk.spooler, self._keep)
        self.deletes = PeerDeletes(settings.node_id, self._peers, objects, index, disk.spooler)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Be ready for orders until the block ends."""
        await self._client.start()
        again = asyncio.create_task(self.deletes.run())
        try:
            yield
        finally:
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)
            await self.loading.close()
            await self._client.close()

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out an order of this node's doors (DTFC_ORDERS)."""
        if name in LOADING_ORDERS:
            return await self.loading.call(name, arguments)
        if name == DELETE_ORDER:
            digest = Digest.parse(str(arguments["digest"]))
            await self.loading.drop(digest)
            return {"peers": await self.deletes.delete(digest)}
        if name == REFRESH_ORDER:
            self._refresh()
            return {}
        raise BadRequest(f"{name!a} is no order")

    def status(self) -> dict[str, Any] | None:
        """What was loaded, and what peers are still to hear; None on a node without such a door."""
        if not self._is_used:
            return None
        return {**self.loading.status(), "deletes_waiting": self.deletes.waiting}

    def _refresh(self) -> None:
        """Read the peer list again. If that fails, the peers known before stay."""
        try:
            self._peers.refresh()
        except OSError as error:
            log.warning("the peer list can't be read: %s", error.strerror)
        except BadRequest as error:
            log.warning("%s", error.message)

    def _sources(self, digest: Digest) -> Sequence[Source]:
        """The tree is asked only for what is there: its no is not that of a peer."""
        own = [self._tree] if self._tree.has(digest) else []
        peers = self._peers.peers()
        return [*own, *(each for each in peers if not self.deletes.waits(each, digest))]

    async def _keep(self, spool: Spool, name: str) -> None:
        key = spool.digest.raw.hex()
        known = self._index.get(BUCKET, key)
        if known is not None and known.digest == spool.digest:
            name = known.name

        def as_known(record: Record | None) -> None:
            if record is not None and record.deleted:
                raise NotFound("it was deleted meanwhile")
            if record != known and record is not None and record.digest == spool.digest:
                raise _PutMeanwhile("it was put meanwhile")

        size = spool.size
        with contextlib.suppress(_PutMeanwhile):  # as good, and with the name that was given then
            await self._objects.put(spool, Record(bucket=BUCKET, key=key, name=name), as_known)
        LOADED_FILES.inc()
        LOADED_BYTES.inc(size)


def dtfc_files(
    settings: Settings, disk: Storage, control: Control, blobs: Blobs, objects: Objects
) -> Files:
    """The files of dtfc, for a door."""

    async def call(name: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        return await control.call(name, arguments, seconds)

    pool = disk.spooler.pool
    return Files(
        blobs,
        objects,
        LoadsReading(call, blobs.open, pool),
        Tree(settings.data, pool),
        call,
        MediaProbe(),
    )


def check_peers(settings: Settings) -> None:
    """Raise BadRequest for a list of peers that can't be read, or is too long, if a door uses it."""
    path = settings.dtfc_peer_list
    if path is None or not has_door(settings):
        return
    try:
        read_peers(path)
    except OSError as error:
        raise BadRequest(
            f"the peer list {path} can't be read: {error.strerror}",
            hint="It is a text file with the URL of a peer in each line, and may be empty.",
        ) from error


def has_door(settings: Settings) -> bool:
    """Whether the node has a dtfc door."""
    return any(each.door == "dtfc" for each in settings.listen)
