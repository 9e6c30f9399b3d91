"""The way of the near-cache's objects: kept where their level says, and nothing claimed before it is so.

A put of level 1 or 2 goes to the upstream first, then, level 2, to all other nodes, and last into this
node's store together with its record: the moment from which on anyone can see it. Whatever breaks
before leaves bytes that no record names, which are collected, or an upstream object that a put of the
same id replaces.

A put that turns out to be older than one that was taken meanwhile may have overwritten that one's
content in the upstream; then the newer content is put there again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from tierce.blobs.copying import copying
from tierce.blobs.spool import Spool, Spooler, SpoolSource
from tierce.blobs.store import BlobStore, OpenBlob
from tierce.cluster.member import Member, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Full, NotFound, ReadOnly, Refused, Unavailable
from tierce.core.limits import (
    COLLECT_GRACE_SECONDS,
    FULL_PATIENCE_SECONDS,
    FULL_RETRY_SECONDS,
)
from tierce.names.index import Index
from tierce.names.record import FULL, LOCAL, Record
from tierce.names.store import ObjectStore, named_by
from tierce.node.data_path import DataPath
from tierce.node.object_path import RecordPeers, check_in_time, tombstone
from tierce.node.peers import Peers
from tierce.node.uploading import is_for_upstream, put_in_force
from tierce.upstream.tier import Upstream

log = logging.getLogger(__name__)

Mode = Literal["through", "behind"]

FETCH_TRIES_COUNT = 3


class Opened(NamedTuple):
    """An object's content, open. ``is_symlink``: from another node; ``is_fetched``: the upstream."""

    record: Record
    blob: OpenBlob
    is_symlink: bool
    is_fetched: bool


class _Kept(NamedTuple):
    """The record in force after a put, and the one in whose place it came."""

    record: Record
    over: Record | None


class LevelPath:
    """Objects with levels, of one process. ``wall_clock`` gives nanoseconds since 1970.

    ``fill`` has an object fetched from the upstream to some node, once for all who ask (filling.py).
    ``touched`` is told of each content that was asked for, and was here.
    """

    def __init__(
        self,
        node_id: str,
        store: BlobStore,
        spooler: Spooler,
        objects: ObjectStore,
        index: Index,
        blobs: DataPath,
        peers: Peers,
        records: RecordPeers,
        placement: Callable[[], Placement],
        *,
        bucket: str,
        upstream: Upstream | None = None,
        mode: Mode = "through",
        fill: Callable[[str], Awaitable[Record]],
        touched: Callable[[Digest], None] = lambda _: None,
        grace_seconds: float = COLLECT_GRACE_SECONDS,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._spooler = spooler
        self._objects = objects
        self._index = index
        self._blobs = blobs
        self._peers = peers
        self._records = records
        self._placement = placement
        self._bucket = bucket
        self._upstream = upstream
        self._mode = mode
        self._fill = fill
        self._touched = touched
        self._grace_seconds = grace_seconds
        self._wall_clock = wall_clock

    def get(self, key: str) -> Record | None:
        """The record in force, a tombstone included."""
        return self._index.get(self._bucket, key)

    async def put(
        self, spool: Spool, draft: Record, *, over: Record | None = None
    ) -> tuple[Record, bool]:
        """Keep a finished spool as the draft's level says; True if the upstream gets it later.

        ``over``: it takes the place of this record only, and else is Unavailable. Raises Conflict
        if the level needs an upstream and there is none, Unavailable, Full.
        """
        if self._placement().me.draining:
            # It may have been found empty already, and this be the only copy.
            raise Unavailable("this node is being drained", hint="Write to another node.")
        draft = msgspec.structs.replace(draft, bucket=self._bucket)
        if draft.level == LOCAL:
            return await self._objects.put(spool, draft, now=self._wall_clock()), False
        upstream = self._required()
        self._placement().check_reached()
        record = await self._stamped(named_by(spool, draft))
        if self._mode == "behind":
            return (await self._keep(spool, record, over)).record, True
        known = self.get(record.key)
        source = SpoolSource(spool)
        try:
            await upstream.upload(record, source)
        except Refused as error:  # it is this node that lacks the rights, not who puts the object
            raise Unavailable(error.message, hint=error.hint) from error
        finally:
            source.close()
        kept = await self._keep(spool, msgspec.structs.replace(record, is_upstream=True), over)
        if kept.record.rank != record.rank or _is_met(known, kept.over):
            # Another was taken while this one was under way: either may have been uploaded last.
            await self.mend(kept.record)
        return kept.record, False

    async def raise_level(self, known: Record, draft: Record) -> tuple[Record, bool]:
        """Put the content that an object has again, with the draft's higher level.

        What the draft leaves empty of name and metadata stays as it is known.
        """
        raised = msgspec.structs.replace(
            draft,
            name=draft.name or known.name,
            metadata=draft.metadata or known.metadata,
            modified=known.modified_at,
        )
        opened = await self.open(known, fetch=True)
        async with copying(self._spooler, opened.blob, passing=True) as spool:
            return await self.put(spool, raised, over=known)

    async def is_here(self, record: Record) -> bool:
        """Whether this node has the content of a record."""
        if record.digest is None:
            return False
        try:
            await self._store.stat(record.digest)
        except (NotFound, Unavailable):
            return False
        return True

    async def open(self, record: Record, *, fetch: bool) -> Opened:
        """Open a record's content. Raises NotFound if only the upstream may have it, Unavailable."""
        assert record.digest is not None, "tombstones have no content"
        try:
            blob, is_here = await self._blobs.locate(record.digest, first=(record.node,))
        except (NotFound, Unavailable) as error:
            if fetch and record.is_upstream and self._upstream is not None:
                return await self.fetch(record.key)
            if record.is_upstream and isinstance(error, NotFound):
                raise NotFound(
                    f"{record.key} is in the upstream only",
                    hint="Ask for it with the header X-Meta-Fetch: 1.",
                ) from error
            # The record says that there is such a content, so whoever has it can't be reached now.
            raise Unavailable(
                f"the content of {record.key} is on no node that answers",
                hint=when_again(record, self._placement().view),
            ) from error
        if is_here:
            self._touched(record.digest)
        return Opened(record, blob, not is_here, is_fetched=False)

    async def fetch(self, key: str) -> Opened:
        """Have an object fetched from the upstream, and open it. Raises NotFound, Unavailable."""
        if self._upstream is None:
            raise NotFound(f"{key} is not known here, and there is no upstream to ask")
        for _ in range(FETCH_TRIES_COUNT):
            record = await self._fill(key)
            if record.deleted:
                raise NotFound(f"{key} was deleted")
            try:
                if await self.is_here(record):
                    blob = await self._blobs.open(record.content)
                else:
                    blob = await self._copy(record)
            except NotFound:
                continue  # a full cache had to drop it again meanwhile
            return Opened(record, blob, is_symlink=False, is_fetched=True)
        raise Unavailable(
            f"{key} was fetched, and dropped again before it could be read",
            hint="Try again, or raise the setting cache_limit_bytes.",
        )

    async def delete(self, known: Record) -> Record:
        """Put a tombstone in the place of a record, here and on all nodes that are up."""
        draft = msgspec.structs.replace(tombstone(known), is_upstream=self._upstream is not None)
        record = await self._index.write(draft, now=self._wall_clock())
        await self._tell_all(record)
        return record

    async def mend(self, record: Record) -> None:
        """Put the content in force into the upstream again, after something older went there."""
        if self._upstream is not None and record.is_upstream and record.digest is not None:
            await put_in_force(self._upstream, self._index, self._blobs, record)

    def _required(self) -> Upstream:
        if self._upstream is None:
            raise Conflict(
                "levels 1 and 2 need an upstream, and this node has none",
                hint="Start the node with the setting upstream, or put with level 0.",
            )
        return self._upstream

    async def _stamped(self, draft: Record) -> Record:
        timestamp = await self._index.reserve(self._wall_clock())
        return msgspec.structs.replace(draft, timestamp=timestamp, node=self._node_id)

    async def _keep(self, spool: Spool, record: Record, over: Record | None) -> _Kept:
        """Keep content and record where they belong in the cluster."""
        if record.level == FULL:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await self._each_live(lambda member, source: self._give(member, source), spool)
            check_in_time(loop.time() - began, self._grace_seconds)
        now = self._index.get(record.bucket, record.key)
        if over is not None and (now is None or now.rank != over.rank):
            if now is not None:
                await self.mend(now)
            raise Unavailable(
                f"{record.key} was changed while its level was raised",
                hint="Look at it, try again.",
            )
        await self._objects.restore(spool, record)
        kept = self._index.get(record.bucket, record.key) or record
        if record.level == FULL:
            await self._tell_all(kept)
        return _Kept(kept, now)

    async def _give(self, member: Member, source: SpoolSource) -> None:
        try:
            await self._peers.store(member, source, managed=True)
        except (Full, ReadOnly) as error:
            # It is as if that node were down: it gets its copy when it has room (copying.py).
            log.warning("%s can't keep a copy of %s: %s", member.node_id, source.digest, error)

    async def _tell_all(self, record: Record) -> None:
        async def push(member: Member, source: SpoolSource | None) -> None:
            await self._records.push(member, [record])

        await self._each_live(push, None)

    async def _each_live(
        self,
        work: Callable[[Member, SpoolSource], Awaitable[None]]
        | Callable[[Member, SpoolSource | None], Awaitable[None]],
        spool: Spool | None,
    ) -> None:
        """Do something for every other node that is up, at once. Raises Unavailable.

        A node that fails is tried again for a while: if it turns out to be down, it need not have it.
        """
        source = None if spool is None else SpoolSource(spool)
        try:
            others = [
                each
                for each in self._live()
                # One that is being drained takes no blobs, but has all records.
                if each.node_id != self._node_id and not (each.draining and spool is not None)
            ]
            results = await asyncio.gather(
                *(self._patiently(each, lambda m: work(m, source)) for each in others),  # type: ignore[arg-type]
                return_exceptions=True,
            )
        finally:
            if source is not None:
                source.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _patiently(self, member: Member, work: Callable[[Member], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FULL_PATIENCE_SECONDS
        while True:
            try:
                return await work(member)
            except Unavailable as error:
                if member.node_id not in {each.node_id for each in self._live()}:
                    return None
                if loop.time() >= deadline:
                    raise Unavailable(
                        f"{member.node_id} is up, and could not be given its copy: {error.message}",
                        hint="Try again; see `tierce cluster status`.",
                    ) from error
            await asyncio.sleep(FULL_RETRY_SECONDS)

    def _live(self) -> Sequence[Member]:
        members = self._placement().view.members
        return [each for each in members if each.is_up and each.dialect == "tierce"]

    async def _copy(self, record: Record) -> OpenBlob:
        """Take over the content of a record from another node, and open it; or only open it."""
        blob = await self._blobs.open(record.content, first=(record.node,))
        if self._placement().me.draining:
            return blob
        if self._spooler.space.why_not(blob.size, in_file=blob.data is None) is not None:
            return blob
        async with copying(self._spooler, blob, passing=True) as spool:
            try:
                await self._objects.restore(spool, record)
            except (Full, ReadOnly) as error:
                log.info("%s is not kept here: %s", record.key, error)
        return await self._blobs.open(record.content, first=(record.node,))


def _is_met(before: Record | None, after: Record | None) -> bool:
    """Whether another node or process may have uploaded an object between these two looks at it."""
    if after is None or not is_for_upstream(after):
        return False
    return before is None or before.rank != after.rank


def when_again(record: Record, view: View) -> str:
    """What to do about a content that is on no node that answers, by who the members are now."""
    holder = view.find(record.node) if record.node else None
    away = [each.node_id for each in view.members if not each.is_up]
    if not record.node or (holder is not None and not holder.is_up):
        return f"Try again when {record.node or 'every node'} is up; see `tierce cluster status`."
    others = f"Try again when {', '.join(away)} can be reached. " if away else ""
    if holder is not None:
        return f"{others}Look at the log of {record.node}, which should have it."
    back = "ask for it with the header X-Meta-Fetch: 1" if record.is_upstream else "it is lost"
    return (
        f"{others}{record.node}, which had it, is no member any more: it was forgotten, or has left."
        f" Start that node again with its disk; if it is gone for good, {back}."
    )
