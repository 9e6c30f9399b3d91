"""A simulated cluster with clients of named objects, an upstream, and the checkers that watch them.

Whatever clients are told and whatever is destroyed goes through here, as in sim_cluster.py.
"""

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from tierce.cluster.placement import Placement
from tierce.core.digest import DEFAULT_ALGORITHM, Digest
from tierce.core.errors import NotFound, TierceError
from tierce.core.limits import TOMBSTONE_DAYS
from tierce.names.record import FULL, LOCAL, NEAR_CACHE_BUCKET, NO_LEVEL, UPSTREAM, Record
from tierce.node.names_parts import ObjectPaths
from tierce.testing.checkers import Converged, Violation, is_good
from tierce.testing.disk_copies import DiskCopy, copied, records_of, standings_of
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.name_checkers import History, Indexes, Name, Write
from tierce.testing.name_converged import Situation, unsettled
from tierce.testing.name_kept import CacheBound, Held, Kept, top
from tierce.testing.sim_caches import may_stay, not_there
from tierce.testing.sim_cluster import SimCluster
from tierce.testing.sim_node import GaveUp, SimNode, receive, spooled

RING_BUCKET = "ring"


@dataclass
class NameCluster(SimCluster):
    """``upstream`` is the one of all nodes, None if they have none."""

    upstream: MemoryUpstream | None = None
    is_behind: bool = False
    cache_limit_bytes: int = 0
    tombstone_days: float = TOMBSTONE_DAYS
    copies: dict[str, DiskCopy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.history = History(forgets=self.forgets, is_behind=self.is_behind)
        self.kept = Kept(self.replication, self.history)
        self.cache_bound = CacheBound(self.cache_limit_bytes, self.history)

    @property
    def forgets(self) -> bool:
        """Whether nodes forget tombstones within the scenario's time."""
        return self.tombstone_days < 1

    # What lies where

    @property
    def indexes(self) -> Indexes:
        """The records on each disk."""
        return {name: records_of(node.disk.index) for name, node in self.nodes.items()}

    def _held(self, node: SimNode, change: DiskCopy | None = None) -> Held:
        """What a disk holds; or would, if it were a copy."""
        disk = change or node.disk
        blobs = frozenset(d for d, data in disk.blobs.items() if is_good(d, data))
        return Held(records_of(disk.index), blobs, frozenset(blobs - disk.marks.keys()))

    # Destruction

    def wipe(self, node: SimNode) -> bool:
        """See SimCluster; records and what they name count too."""
        before = self._held(node)
        return self._lose(node, before, Held({}, frozenset(), frozenset())) and super().wipe(node)

    def rot(self, node: SimNode, digest: Digest) -> bool:
        """See SimCluster; what records name counts too."""
        before = self._held(node)
        if digest not in before.blobs or not node.disk.blobs[digest]:
            return False
        after = Held(before.records, before.blobs - {digest}, before.claimed - {digest})
        return self._lose(node, before, after) and super().rot(node, digest)

    def set_back(self, node: SimNode, older: DiskCopy) -> bool:
        """Put an older copy of its disk in; False if too much would be destroyed."""
        before, after = self._held(node), self._held(node, older)
        if not self._lose(node, before, after):
            return False
        self.note(f"set back {node.setup.node_id} {len(before.records)} {len(after.records)}")
        self.counts["disks set back"] += 1
        self._destroy(self._gone(before, after))
        disk = node.disk
        disk.blobs, disk.written = dict(older.blobs), dict(older.written)
        disk.marks, disk.index = dict(older.marks), copied(older.index)
        self.check()
        return True

    def _lose(self, node: SimNode, before: Held, after: Held) -> bool:
        if not self.durable.may_destroy(self._gone(before, after)):
            return False
        if not self.kept.may_lose(node.setup.node_id, before, after, self.indexes):
            return False
        excused = self.kept.lose(node.setup.node_id, before, after, self.indexes)
        if excused:
            self.counts["writes excused"] += excused
            self.note(f"excused {excused}")
        if before.records != after.records:
            self.history.forget_sessions(node.setup.node_id)
        return True

    def _gone(self, before: Held, after: Held) -> list[Digest]:
        """Copies that go, and those that nobody claims any more."""
        return sorted((before.blobs - after.blobs) | (before.claimed - after.claimed))

    # Clients of objects placed by the ring

    async def put_object(
        self, node: SimNode, client: str, key: str, data: bytes, patience_seconds: float
    ) -> None:
        """Put an object of the ring."""
        write = self._began(node, client, (RING_BUCKET, key), data=data)

        async def put() -> Record:
            paths, spool = self._paths(node), await spooled(node, data)
            try:
                return await paths.objects.put(spool, Record(bucket=RING_BUCKET, key=key), None)
            finally:
                await spool.discard()

        await self._write(node, write, put(), "object put", patience_seconds)

    async def delete_object(
        self, node: SimNode, client: str, key: str, patience_seconds: float
    ) -> None:
        """Delete an object of the ring."""
        write = self._began(node, client, (RING_BUCKET, key), deleted=True)

        async def delete() -> Record:
            return await self._paths(node).objects.delete(RING_BUCKET, key, None)

        await self._write(node, write, delete(), "object delete", patience_seconds)

    async def get_object(self, node: SimNode, key: str, patience_seconds: float) -> bytes | None:
        """Read an object of the ring; None if that failed."""
        received = bytearray()

        async def get() -> None:
            paths = self._paths(node)
            record = paths.objects.index.get(RING_BUCKET, key)
            if record is None:
                raise NotFound(f"{key} is not known")
            await receive(await paths.objects.open(record), received)

        what = f"object get {key} from {node.setup.node_id}"
        return await self._read(node, (RING_BUCKET, key), get(), received, what, patience_seconds)

    # Clients of the near-cache

    async def put_levelled(
        self,
        node: SimNode,
        client: str,
        key: str,
        data: bytes,
        level: int,
        patience_seconds: float,
    ) -> None:
        """Put an object of the near-cache."""
        write = self._began(node, client, (NEAR_CACHE_BUCKET, key), data=data, level=level)

        async def put() -> Record:
            paths, spool = self._paths(node), await spooled(node, data)
            try:
                record, _ = await paths.levels.put(spool, Record(bucket="", key=key, level=level))
                self._check_uploaded(write, record)
                return record
            finally:
                await spool.discard()

        await self._write(node, write, put(), f"level {level} put", patience_seconds)

    async def raise_level(
        self, node: SimNode, client: str, key: str, patience_seconds: float
    ) -> None:
        """Raise the level of an object that the node knows."""
        known = records_of(node.disk.index).get((NEAR_CACHE_BUCKET, key))
        if known is None or known.deleted or known.level >= FULL:
            return
        level = known.level + 1
        write = self._began(node, client, (NEAR_CACHE_BUCKET, key), level=level, raises=True)

        async def put() -> Record:
            draft = Record(bucket="", key=key, level=level)
            return (await self._paths(node).levels.raise_level(known, draft))[0]

        await self._write(node, write, put(), f"level {level} raise", patience_seconds)

    async def delete_levelled(
        self, node: SimNode, client: str, key: str, patience_seconds: float
    ) -> None:
        """Delete an object of the near-cache, as its service does: only where it is known."""
        known = records_of(node.disk.index).get((NEAR_CACHE_BUCKET, key))
        if known is None:
            return
        write = self._began(node, client, (NEAR_CACHE_BUCKET, key), deleted=True)

        async def delete() -> Record:
            return await self._paths(node).levels.delete(known)

        await self._write(node, write, delete(), "level delete", patience_seconds)

    async def get_levelled(
        self, node: SimNode, key: str, patience_seconds: float, *, fetch: bool
    ) -> bytes | None:
        """Read an object of the near-cache; None if that failed."""
        received = bytearray()

        async def get() -> None:
            levels = self._paths(node).levels
            record = levels.get(key)
            if record is None:
                opened = await levels.fetch(key)
            elif record.deleted:
                raise NotFound(f"{key} was deleted")
            else:
                opened = await levels.open(record, fetch=fetch)
            await receive(opened.blob, received)

        what = f"level get {key} from {node.setup.node_id}"
        return await self._read(
            node, (NEAR_CACHE_BUCKET, key), get(), received, what, patience_seconds
        )

    def _paths(self, node: SimNode) -> ObjectPaths:
        return node.running.names.paths

    def _began(
        self,
        node: SimNode,
        client: str,
        name: Name,
        *,
        data: bytes | None = None,
        level: int = NO_LEVEL,
        deleted: bool = False,
        raises: bool = False,
    ) -> Write:
        return self.history.begin(
            name,
            client,
            node.setup.node_id,
            data=data,
            digest=None if data is None else Digest.of(data, DEFAULT_ALGORITHM),
            level=level,
            deleted=deleted,
            raises=raises,
        )

    async def _write(
        self,
        node: SimNode,
        write: Write,
        work: Coroutine[Any, Any, Record],
        what: str,
        patience_seconds: float,
    ) -> None:
        before = self.kept.destructions
        try:
            record = await node.do(work, patience_seconds, lambda: self.history.end(write))
        except (TierceError, GaveUp) as error:
            self._name_failed(f"{what} {write.name[1]} to {write.node}", what, error)
            return
        self.note(f"acknowledged {what} {write.name[1]} {record.rank} {record.digest}")
        self.counts[f"{what} acknowledged"] += 1
        self.history.acknowledge(write, record)
        if write.level == NO_LEVEL and write.name[0] == RING_BUCKET:
            meanwhile = self.kept.destructions - before
            self.kept.acknowledge(write, self.indexes, self.disks, meanwhile)

    async def _read(
        self,
        node: SimNode,
        name: Name,
        work: Coroutine[Any, Any, None],
        received: bytearray,
        what: str,
        patience_seconds: float,
    ) -> bytes | None:
        kind = what.partition("get")[0] + "get"
        try:
            await node.do(work, patience_seconds)
        except (TierceError, GaveUp) as error:
            self._name_failed(what, kind, error)
            if received:
                self.history.read(name, bytes(received), whole=False)
            return None
        self.note(f"read {name[1]} {len(received)}")
        self.counts[f"{kind} answered"] += 1
        self.history.read(name, bytes(received))
        return bytes(received)

    def _name_failed(self, what: str, kind: str, error: Exception) -> None:
        self.note(f"{what} failed: {type(error).__name__} {error}")
        self.counts[f"{kind} failed: {type(error).__name__}"] += 1

    # What must be true

    def _check_uploaded(self, write: Write, record: Record) -> None:
        """At the moment of the acknowledgement, the upstream has the content."""
        if self.upstream is None or self.is_behind or write.level < UPSTREAM:
            return
        if write.is_raced or not record.is_upstream or record.deleted:
            return  # others overwrite it, or it lost to a write that needs no upstream
        if self._uploaded().get(record.key) != record.digest:
            raise Violation(f"{record.key} was acknowledged, and the upstream has it not")

    def _uploaded(self) -> dict[str, Digest]:
        if self.upstream is None:
            return {}
        return {
            key: Digest.of(data, DEFAULT_ALGORITHM)
            for key, (_, data) in self.upstream.objects.items()
        }

    def check(self) -> None:
        """See SimCluster."""
        super().check()
        indexes = self.indexes
        self.history.check_sent(indexes)
        droppable = self._uploaded() if self.cache_limit_bytes else None
        self.kept.check(indexes, self.disks, droppable=droppable)
        if self.cache_limit_bytes:
            for name, node in self.nodes.items():
                size = self.cache_bound.check(
                    name, standings_of(node.disk), may_stay(node, self.upstream)
                )
                self.counts["largest cache"] = max(size, self.counts["largest cache"])

    def _over_limit(self) -> list[str]:
        """The nodes whose caches are too large, whatever may stay for a while."""
        found: list[str] = []
        if not self.cache_limit_bytes:
            return found
        uploaded = self._uploaded()
        for name, node in self.nodes.items():
            size = self.cache_bound.sum_of(standings_of(node.disk), not_there(node, uploaded))
            if size > self.cache_limit_bytes:
                found.append(f"{name} has {size} bytes cached")
        return found

    def check_lasting(self) -> None:
        """Once all agree: nothing acknowledged was lost, and nothing deleted is back."""
        in_force = top(self.indexes)
        self.history.check_lasting(in_force)
        for record in in_force.values():
            if record.is_upstream and self._uploaded().get(record.key) != record.digest:
                self.counts["overwritten in the upstream by what is older"] += 1

    async def read_all_names(self) -> None:
        """What counts can be read, through any node, and is what is read."""
        nodes = list(self.nodes.values())
        for number, (name, record) in enumerate(top(self.indexes).items()):
            node = nodes[number % len(nodes)]
            if name[0] == RING_BUCKET:
                found = await self.get_object(node, name[1], 60.0)
            else:
                found = await self.get_levelled(node, name[1], 60.0, fetch=True)
            if record.digest is None:
                if found is not None:
                    raise Violation(f"{name} was deleted, and can be read")
            elif found is None and self._may_be_gone(record):
                self.counts["contents gone, or too large for the cache"] += 1
            elif found is not None and top(self.indexes)[name].rank > record.rank:
                # Nobody had it but the upstream, which had what a failed put left there.
                self.counts["failed puts fetched from the upstream"] += 1
            elif found != self.history.body(record.digest):
                raise Violation(
                    f"{name} is {record.digest}, and was read as {found and len(found)}"
                )

    def _may_be_gone(self, record: Record) -> bool:
        assert record.digest is not None
        held = any(record.digest in blobs for blobs in self.disks.values())
        if record.level < LOCAL or held:
            return False
        if self.cache_limit_bytes and record.size > self.cache_limit_bytes:
            return True  # it is in the upstream, and no cache may hold it
        return not record.is_upstream or self.history.may_be_overwritten(record)

    def _reasons(self, *, blobs: bool = True) -> list[str]:
        views = {name: node.running.placement().view for name, node in self.nodes.items()}
        reasons = Converged(self.truth).reasons(views, {})
        if not blobs:
            return reasons
        situation = Situation(
            placement=Placement(self.truth),
            indexes=self.indexes,
            disks=self.disks,
            managed={name: node.disk.marks.keys() for name, node in self.nodes.items()},
            lost=self.kept.lost.keys(),
            upstream=self._uploaded(),
            history=self.history,
            keeps_cached=not self.cache_limit_bytes,
            forgets=self.forgets,
        )
        return [*reasons, *self._over_limit(), *unsettled(situation)]
