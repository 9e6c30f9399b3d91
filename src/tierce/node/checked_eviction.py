"""Nothing is dropped from the cache before the upstream said that it has it.

A record says that the upstream has its content, and at one moment it had. But of two nodes that take
the same id at the same time, before they hear of each other, the one with the older content may be the
last to upload. So the upstream is asked about each victim, and what is not there as it should be is put
there again, from here, in place of being dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from tierce.blobs.marked import Collected
from tierce.blobs.spool import Spool
from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, TierceError
from tierce.names.cached import Evicted, Look, Standing, is_safe
from tierce.names.damage import known_record
from tierce.names.index import Check, Index
from tierce.names.record import Record, merge
from tierce.names.store import ObjectStore
from tierce.node.uploading import found_in, upload_blob
from tierce.upstream.tier import Upstream

log = logging.getLogger(__name__)


def _is_content(found: Record, record: Record) -> bool:
    if found.digest is None:  # another program's object
        return found.size == record.size
    return found.digest == record.digest


class CheckedObjects:
    """An ObjectStore that asks the upstream before it drops something from the cache."""

    def __init__(
        self, objects: ObjectStore, store: BlobStore, index: Index, upstream: Upstream
    ) -> None:
        self._objects = objects
        self._store = store
        self._index = index
        self._upstream = upstream
        self._mending: dict[Digest, asyncio.Task[None]] = {}
        self.mended = 0

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        """See ObjectStore."""
        return await self._objects.put(spool, draft, now=now, check=check)

    async def restore(
        self, spool: Spool, record: Record, *, check: Callable[[], None] | None = None
    ) -> bool:
        """See ObjectStore."""
        return await self._objects.restore(spool, record, check=check)

    async def collect(self, before: int, limit: int) -> Collected:
        """See ObjectStore."""
        return await self._objects.collect(before, limit)

    async def delete_blob(self, digest: Digest) -> bool:
        """See ObjectStore."""
        return await self._objects.delete_blob(digest)

    async def look(self, digests: Sequence[Digest]) -> list[Look]:
        """See ObjectStore."""
        return await self._objects.look(digests)

    async def evict(self, digest: Digest, heard: Sequence[Record] = ()) -> Evicted:
        """See ObjectStore. What the upstream lacks stays, as if something else needed it too."""
        (found,) = await self._objects.look([digest])
        if found.standing is Standing.CACHED or heard:
            try:
                records = {(each.bucket, each.key): each for each in self._index.refers(digest)}
            except Corrupt:  # nobody may drop what a damaged record may need
                return Evicted(Standing.OTHER, found.size, is_dropped=False)
            for each in heard:
                name = each.bucket, each.key
                records[name] = merge(known_record(self._index, *name), each)
            for record in records.values():
                # What is not safe is no business of the upstream, and keeps the blob here anyway.
                if record.digest != digest or not is_safe(record):
                    continue
                if not await self._is_there(record):
                    return Evicted(Standing.SHARED, found.size, is_dropped=False)
        return await self._objects.evict(digest, heard)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._mending.values():
            task.cancel()
        await asyncio.gather(*self._mending.values(), return_exceptions=True)

    async def _is_there(self, record: Record) -> bool:
        """Whether the upstream has it; if it says that it has not, it gets it."""
        try:
            found = await found_in(self._upstream, record.key)
        except TierceError as error:
            log.info("%s is not dropped: the upstream could not be asked: %s", record.key, error)
            return False
        if found is not None:
            if _is_content(found, record):
                return True
            if found.digest is not None and found.rank > record.rank:
                return False  # a newer write, whose record is on its way here
        if record.content not in self._mending:
            task = asyncio.create_task(self._mend(record))
            self._mending[record.content] = task
            task.add_done_callback(lambda _: self._mending.pop(record.content, None))
        return False

    async def _mend(self, record: Record) -> None:
        log.warning("the upstream lacks the content of %s: it is put there again", record.key)
        try:
            await upload_blob(self._upstream, record, self._store.open(record.content))
        except TierceError as error:
            log.warning("%s could not be put into the upstream again: %s", record.key, error)
            return
        self.mended += 1
