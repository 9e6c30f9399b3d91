"""Guards before what could make a blob cached (names/cached.py): each asks for room first.

A blob becomes cached when bytes and a record of the upstream's come together, in either order. So
there are three: a put of both (GuardedObjects, in every process), a record that is heard of
(GuardedIndex), and bytes that another node gives, whose record comes before or after them
(GuardedStore; these two in the agent only). Where there is no room the record is kept, and no bytes.

Room is granted by the agent (evicting.py). It is held until the one who asked says that all is done,
also if whoever waited for it has left meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from tierce.blobs.marked import Collected
from tierce.blobs.spool import Spool
from tierce.blobs.store import BlobInfo, BlobStore, Counts, OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, Full, Unavailable
from tierce.names.cached import Evicted, Look, Standing, is_safe
from tierce.names.changes import Epoch
from tierce.names.index import Change, Check, Index, NameCounts
from tierce.names.record import Record
from tierce.names.store import ObjectStore, named_by

log = logging.getLogger(__name__)

T = TypeVar("T")


class Grant(NamedTuple):
    """Room for a blob. ``check``, if there is one, raises Unavailable if it came to an end."""

    digest: Digest
    number: int
    check: Callable[[], None] | None = None


class Room(Protocol):
    """Where room is asked for: the agent itself, or orders to it."""

    async def reserve(self, digest: Digest, size: int, *, may_evict: bool = True) -> Grant | None:
        """Have room for a blob of so many bytes; None if there is none. Raises Unavailable.

        ``may_evict``: others may be dropped for it.
        """
        ...

    def release(self, grant: Grant) -> None:
        """What the room was for is done, or was given up."""
        ...

    async def merge(self, record: Record) -> bool:
        """Merge a record of the upstream's without keeping its bytes (see Index.merge)."""
        ...

    def touched(self, digest: Digest) -> None:
        """A blob was asked for, and was here. Quick."""
        ...


class GuardedObjects:
    """An ObjectStore that asks for room. Where there is none, ``restore`` keeps the record only.

    What the upstream has not is kept in any case, and asks only if a record of the upstream's names
    it too: it may be there for that one alone, at first, or if its own record turns out to be old.
    """

    def __init__(
        self, objects: ObjectStore, index: Index, room: Room, *, may_evict: bool = True
    ) -> None:
        self._objects = objects
        self._index = index
        self._room = room
        self._may_evict = may_evict

    async def put(
        self, spool: Spool, draft: Record, *, now: int, check: Check | None = None
    ) -> Record:
        """See ObjectStore. The draft is none of the upstream's."""
        assert not draft.is_upstream, "what the upstream has is restored"
        return await self._keep(
            spool, lambda: self._objects.put(spool, draft, now=now, check=check)
        )

    async def restore(
        self, spool: Spool, record: Record, *, check: Callable[[], None] | None = None
    ) -> bool:
        """See ObjectStore."""
        assert check is None, "the check is that of the grant"
        whole = named_by(spool, record)
        if not is_safe(whole):
            return await self._keep(spool, lambda: self._objects.restore(spool, record))
        grant = await self._room.reserve(spool.digest, spool.size, may_evict=self._may_evict)
        if grant is None:
            return await self._room.merge(whole)
        work = self._objects.restore(spool, record, check=grant.check)
        return await whole_way(work, lambda: self._room.release(grant))

    async def _keep(self, spool: Spool, work: Callable[[], Awaitable[T]]) -> T:
        """Keep what the upstream has not."""
        digest = spool.digest
        try:
            is_cached = any(map(is_safe, self._index.refers(digest)))
        except Corrupt:
            is_cached = False  # while a record of it is damaged, it counts as none of the cache's
        if not is_cached:
            return await work()
        try:
            grant = await self._room.reserve(digest, spool.size, may_evict=self._may_evict)
        except Unavailable:
            grant = None  # this must be kept even while the agent is down
        if grant is not None:
            return await whole_way(work(), lambda: self._room.release(grant))
        result = await work()
        await self._make_way(digest)
        return result

    async def _make_way(self, digest: Digest) -> None:
        """Have the agent drop what is here without room, if it is for the upstream's records alone.

        Nobody else may: only the agent asks the upstream before.
        """
        try:
            (found,) = await self._objects.look([digest])
            safe = [each for each in self._index.refers(digest) if is_safe(each)]
            if found.standing is Standing.CACHED and safe:
                await self._room.merge(safe[0])
        except (Corrupt, Unavailable) as error:  # what was put is kept; the next start counts it
            log.info("%s is not counted in the cache yet: %s", digest, error)

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
        """See ObjectStore."""
        return await self._objects.evict(digest, heard)


async def whole_way(work: Awaitable[T], done: Callable[[], None]) -> T:
    """Do some work to its end, even if this is cancelled, and call ``done`` then."""
    task = asyncio.ensure_future(work)

    def ended(_: "asyncio.Future[T]") -> None:
        if not task.cancelled():
            task.exception()  # whoever waited for it may have left; then it is nobody's
        done()

    task.add_done_callback(ended)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class GuardedIndex:
    """An Index whose ``merge`` is given: that of evicting.py makes room first."""

    def __init__(
        self, index: Index, merge: Callable[[Sequence[Record]], Awaitable[list[bool]]]
    ) -> None:
        self._index = index
        self._merge = merge

    async def merge(self, records: Sequence[Record]) -> list[bool]:
        """See Index."""
        return await self._merge(records)

    def get(self, bucket: str, key: str) -> Record | None:
        """See Index."""
        return self._index.get(bucket, key)

    async def write(self, draft: Record, *, now: int, check: Check | None = None) -> Record:
        """See Index."""
        return await self._index.write(draft, now=now, check=check)

    async def list_after(
        self, bucket: str, prefix: str, after: str, limit: int, *, deleted: bool = False
    ) -> list[Record]:
        """See Index."""
        return await self._index.list_after(bucket, prefix, after, limit, deleted=deleted)

    async def scan_after(self, after: tuple[str, str] | None, limit: int) -> list[Record]:
        """See Index."""
        return await self._index.scan_after(after, limit)

    async def changes(self, since: int, limit: int) -> list[Change]:
        """See Index."""
        return await self._index.changes(since, limit)

    def last_seq(self) -> int:
        """See Index."""
        return self._index.last_seq()

    async def reserve(self, now: int) -> int:
        """See Index."""
        return await self._index.reserve(now)

    def latest(self) -> int:
        """See Index."""
        return self._index.latest()

    def epochs(self) -> tuple[Epoch, ...]:
        """See Index."""
        return self._index.epochs()

    async def begin_epoch(self, name: str) -> None:
        """See Index."""
        await self._index.begin_epoch(name)

    async def drop(self, bucket: str, key: str, timestamp: int) -> bool:
        """See Index."""
        return await self._index.drop(bucket, key, timestamp)

    def checkpoint(self, peer: str) -> bytes | None:
        """See Index."""
        return self._index.checkpoint(peer)

    async def set_checkpoint(self, peer: str, value: bytes) -> None:
        """See Index."""
        await self._index.set_checkpoint(peer, value)

    def refers(self, digest: Digest) -> list[Record]:
        """See Index."""
        return self._index.refers(digest)

    def counts(self) -> NameCounts:
        """See Index."""
        return self._index.counts()


class Coming(Protocol):
    """What GuardedStore needs of the one who grants room."""

    async def bytes_come(self, digest: Digest, size: int) -> Grant | None:
        """Room for bytes that come without a record, if they may need any; else a free grant.

        None if they do and there is none.
        """
        ...

    def bytes_came(self, grant: Grant) -> None:
        """They are here, or will not come."""
        ...


class GuardedStore:
    """A BlobStore for what other nodes give: it takes managed blobs only if there is room."""

    def __init__(self, store: BlobStore, coming: Coming) -> None:
        self._store = store
        self._coming = coming

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        """See BlobStore."""
        if managed is False:
            return await self._store.put(spool, managed=False)
        grant = await self._coming.bytes_come(spool.digest, spool.size)
        if grant is None:
            raise Full(
                f"the near-cache has no room for {spool.size} bytes now",
                hint="The upstream has them. Raise the setting cache_limit_bytes to keep more here.",
            )
        work = self._store.put(spool, managed=managed)
        return await whole_way(work, lambda: self._coming.bytes_came(grant))

    async def open(self, digest: Digest) -> OpenBlob:
        """See BlobStore."""
        return await self._store.open(digest)

    async def stat(self, digest: Digest) -> int:
        """See BlobStore."""
        return await self._store.stat(digest)

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        """See BlobStore."""
        return await self._store.sizes(digests)

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        """See BlobStore."""
        return await self._store.verify(digest, repair=repair)

    async def prove(self, digest: Digest) -> int:
        """See BlobStore."""
        return await self._store.prove(digest)

    async def delete(self, digest: Digest) -> bool:
        """See BlobStore."""
        return await self._store.delete(digest)

    async def claim(self, digests: Sequence[Digest]) -> None:
        """See BlobStore."""
        await self._store.claim(digests)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        """See BlobStore."""
        return self._store.managed(digests)

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        """See BlobStore."""
        return await self._store.list_after(after, limit)

    async def counts(self) -> Counts:
        """See BlobStore."""
        return await self._store.counts()
