"""What an agent does for objects in the background: copies, uploads, collection.

- Every node gets the content of every object of level 2, from another node or the upstream: this is
  how a node that was down, or is new, comes by them.
- What upstream_mode = behind has queued goes to the upstream: the queue is the records that this node
  took and whose content the upstream has not.
- Blobs that came for records' sake go, some time after the last record that named them.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tierce.blobs.copying import copying
from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import (
    COLLECT_INTERVAL_SECONDS,
    COLLECT_PAGE_BLOBS,
    COPY_AT_ONCE,
    COPY_PAGE_RECORDS,
    COPY_POLL_SECONDS,
    LOOK_THROUGH_PAUSE_SECONDS,
    LOOK_THROUGH_SECONDS,
    UPLOAD_AT_ONCE,
)
from tierce.names.index import Change, Index
from tierce.names.record import FULL
from tierce.names.store import ObjectStore
from tierce.node.data_path import DataPath
from tierce.node.filling import Filler
from tierce.node.following import Follower
from tierce.node.uploading import (
    found_in,
    is_for_upstream,
    is_newer,
    is_of,
    put_in_force,
    upload_blob,
)
from tierce.upstream.tier import Upstream

log = logging.getLogger(__name__)

_MILLISECOND = 1_000_000


class Tending:
    """The background work of one node. ``wall_clock`` gives nanoseconds since 1970.

    ``may_keep`` says whether there is room for a copy of so many bytes without dropping others; it
    raises Unavailable while that is not known. ``has_heard_all``: no other node's records are new.
    ``keeps_all``: every copy of level 2 is to be here, as there is no limit to what is kept.
    """

    def __init__(
        self,
        node_id: str,
        store: BlobStore,
        spooler: Spooler,
        objects: ObjectStore,
        index: Index,
        blobs: DataPath,
        filler: Filler,
        upstream: Upstream | None,
        *,
        grace_seconds: float,
        may_keep: Callable[[int], bool] = lambda _: True,
        is_draining: Callable[[], bool] = lambda: False,
        has_heard_all: Callable[[], bool] = lambda: True,
        keeps_all: bool = True,
        poll_seconds: float = COPY_POLL_SECONDS,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._spooler = spooler
        self._objects = objects
        self._index = index
        self._blobs = blobs
        self._filler = filler
        self._upstream = upstream
        self._grace_seconds = grace_seconds
        self._may_keep = may_keep
        self._is_draining = is_draining
        self._has_heard_all = has_heard_all
        self._keeps_all = keeps_all
        self._wall_clock = wall_clock
        self._copier = Follower(
            "copies",
            index,
            self._concerns_copies,
            self._copy,
            at_once=COPY_AT_ONCE,
            poll_seconds=poll_seconds,
        )
        self._uploader = Follower(
            "uploads",
            index,
            self._concerns_uploads,
            self._upload,
            at_once=UPLOAD_AT_ONCE,
            poll_seconds=poll_seconds,
        )
        self.copied = self.uploaded = self.collected = 0

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._copier.run())
            tasks.create_task(self._collect_forever())
            if self._keeps_all:
                tasks.create_task(self._look_through_forever())
            if self._upstream is not None:
                tasks.create_task(self._uploader.run())

    @property
    def uploads_waiting(self) -> int:
        """How many objects the upstream may still lack that this node took."""
        return 0 if self._upstream is None else self._uploader.waiting

    def status(self) -> dict[str, Any]:
        """What was done since the start, and what waits."""
        return {
            "copied": self.copied,
            "copies_waiting": self._copier.waiting,
            "uploaded": self.uploaded,
            "uploads_waiting": self.uploads_waiting,
            "upload_error": self._uploader.last_error or None,
            "fetched": self._filler.fetched_objects,
            "fetched_bytes": self._filler.fetched_bytes,
            "collected": self.collected,
        }

    def _concerns_copies(self, change: Change) -> bool:
        record = change.record
        return record.level == FULL and record.digest is not None

    async def _copy(self, change: Change) -> None:
        """Have the content of an object of level 2 here."""
        if self._is_draining():  # tried again, should this node stay
            raise Unavailable("this node is being drained", hint="Nothing is copied to it.")
        record = change.record
        digest = record.content
        try:
            await self._store.stat(digest)
        except NotFound:
            pass
        else:
            return
        if record.is_upstream and not self._may_keep(record.size):
            return
        self._spooler.space.check(
            record.size, in_file=record.size > self._spooler.memory_limit_bytes
        )
        try:
            blob = await self._blobs.open(digest, first=(record.node,))
        except (NotFound, Unavailable):
            if not record.is_upstream or self._upstream is None:
                raise
            await self._filler.fill(record.key)
            self.copied += 1
            return
        async with copying(self._spooler, blob) as spool:
            now = self._index.get(record.bucket, record.key)
            if now is not None and now.digest == digest:
                await self._objects.restore(spool, now)
                self.copied += 1

    def _concerns_uploads(self, change: Change) -> bool:
        record = change.record
        return is_for_upstream(record) and not record.is_upstream and record.node == self._node_id

    async def _upload(self, change: Change) -> None:
        """Give the upstream what it has not. After a crash it may have it already.

        What it has there of a later write, of which this node has not heard, may be nowhere else: it
        is never overwritten, but heard of in this way.
        """
        assert self._upstream is not None
        record = change.record
        now = self._index.get(record.bucket, record.key)
        if now is None or now.rank != record.rank:
            return  # what took its place is a change of its own
        found = await found_in(self._upstream, record.key)
        if found is not None and is_newer(found, record):
            await self._index.merge([msgspec.structs.replace(found, bucket=record.bucket)])
            return
        if found is None or not is_of(found, record):
            await upload_blob(self._upstream, record, self._blobs.open(record.content))
        await self._index.merge([msgspec.structs.replace(record, is_upstream=True)])
        self.uploaded += 1
        now = self._index.get(record.bucket, record.key)
        if now is not None and now.rank != record.rank and is_for_upstream(now):
            # Its content may have been overwritten by the one just put there.
            await put_in_force(self._upstream, self._index, self._blobs, now)

    async def _look_through_forever(self) -> None:
        """Have again what was here and is not: a bad copy that nobody could replace at the time."""
        while True:
            # At first the feed itself is followed: nothing is to be copied twice at once.
            await asyncio.sleep(LOOK_THROUGH_SECONDS)
            reached = 0
            while page := await self._index.changes(reached, COPY_PAGE_RECORDS):
                for change in page:
                    if self._concerns_copies(change):
                        await self._copy_quietly(change)
                reached = page[-1].seq
                await asyncio.sleep(LOOK_THROUGH_PAUSE_SECONDS)

    async def _copy_quietly(self, change: Change) -> None:
        try:
            await self._copy(change)
        except TierceError as error:
            log.info("%s is missing here, and can't be had now: %s", change.record.key, error)

    async def _collect_forever(self) -> None:
        # After a long rest there may be copies whose records are still to come.
        await asyncio.sleep(self._grace_seconds)
        while True:
            try:
                if self._has_heard_all():
                    await self.collect()
            except TierceError as error:
                log.error("blobs without records could not be collected: %s", error)
            await asyncio.sleep(COLLECT_INTERVAL_SECONDS)

    async def collect(self) -> None:
        """Remove the blobs that no record has named for the grace time."""
        before = self._wall_clock() // _MILLISECOND - int(1000 * self._grace_seconds)
        while before > 0:
            found = await self._objects.collect(before, COLLECT_PAGE_BLOBS)
            self.collected += len(found.removed)
            if found.seen < COLLECT_PAGE_BLOBS:
                return
