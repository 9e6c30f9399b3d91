"""What must be kept of named objects while disks are destroyed, and how much of a cache at most.

See *kept* and *bounded* in name_checkers.py.
"""

from collections.abc import Container, Mapping
from typing import NamedTuple

from tierce.core.digest import Digest
from tierce.names.cached import Look, Standing
from tierce.names.record import NO_LEVEL, Record
from tierce.testing.checkers import Disks, Violation, holders
from tierce.testing.name_checkers import History, Indexes, Name, Rank, Records, Write


class Held(NamedTuple):
    """What a disk holds: records, and good blobs. ``claimed`` are those blobs without a mark."""

    records: Records
    blobs: frozenset[Digest]
    claimed: frozenset[Digest]


class Kept:
    """Follows destroyed copies of records and of their contents: *kept*."""

    def __init__(self, replication: int, history: History) -> None:
        self._replication = replication
        self._history = history
        self._records: dict[Name, tuple[Rank, int]] = {}
        self._contents: dict[Digest, int] = {}
        self.lost: dict[tuple[str, Digest], None] = {}
        self.destructions = 0

    def acknowledge(self, write: Write, indexes: Indexes, disks: Disks, meanwhile: int) -> None:
        """A write of a ring-placed object was acknowledged. Raises Violation for too few copies.

        ``meanwhile`` destructions were done since it was sent.
        """
        record = write.record
        assert record is not None
        if self._history.may_be_forgotten(write.name, record.rank):
            return
        copies = len(_having(indexes, write.name, record.rank))
        if copies + meanwhile < self._replication:
            raise Violation(f"{write.name} was acknowledged with {copies} records")
        if self._history.floor(write.name) == record.rank:
            self._records[write.name] = record.rank, meanwhile
        if record.digest is not None and write.is_own:
            blobs = len(holders(disks, record.digest))
            superseded = top(indexes)[write.name].rank != record.rank
            if blobs + meanwhile < self._replication and not superseded:
                raise Violation(f"{write.name} was acknowledged with {blobs} contents")
            destroyed = self._contents.get(record.digest, 0)
            self._contents[record.digest] = max(destroyed, meanwhile)

    def may_lose(self, node: str, before: Held, after: Held, indexes: Indexes) -> bool:
        """Whether the promise still holds if a disk is changed so."""
        if any(
            self._destroyed(name) + 1 >= self._replication
            for name in self._records_lost(before, after)
        ):
            return False
        named = {each.digest for each in top(indexes).values() if each.level == NO_LEVEL}
        return all(
            self._contents.get(digest, 0) + 1 < self._replication
            for digest in _contents_lost(before, after)
            if digest in named
        )

    def lose(self, node: str, before: Held, after: Held, indexes: Indexes) -> int:
        """A disk is changed so; how many acknowledged writes are excused by that."""
        self.destructions += 1
        for name in self._records_lost(before, after):
            rank, destroyed = self._records.get(name) or (before.records[name].rank, 0)
            self._records[name] = rank, destroyed + 1
        for digest in sorted(_contents_lost(before, after)):
            self._contents[digest] = self._contents.get(digest, 0) + 1
        for digest in sorted(before.blobs - after.blobs):
            self.lost[node, digest] = None
        excused = 0
        for name, record in before.records.items():
            if record.level != NO_LEVEL:
                left = [
                    each[name].rank
                    for other, each in indexes.items()
                    if name in each and other != node
                ]
                if name in after.records:
                    left.append(after.records[name].rank)
                excused += self._history.excuse(name, max(left, default=None))
        return excused

    def check(
        self, indexes: Indexes, disks: Disks, *, droppable: Mapping[str, Digest] | None = None
    ) -> None:
        """Raise Violation if a record or a content is gone that must be there.

        With ``droppable``, what the upstream has under each key, nodes may drop that.
        """
        for node, lost in list(self.lost):
            if lost in disks.get(node, {}) and node in holders(disks, lost):
                del self.lost[node, lost]
        in_force = top(indexes)
        for name in self._history.names:
            floor = self._history.floor(name)
            if floor is not None:
                self._check_record(name, floor, indexes)
        named = set()
        for name, record in in_force.items():
            if record.level == NO_LEVEL and record.digest is not None:
                named.add(record.digest)
                self._check_content(name, record.digest, disks)
        self._contents = {key: n for key, n in self._contents.items() if key in named}
        for node, records in indexes.items():
            for name, record in records.items():
                digest = record.digest
                if digest is None or record.level == NO_LEVEL or record.node != node:
                    continue
                if droppable is not None and (
                    record.is_upstream or droppable.get(record.key) == digest
                ):
                    continue
                if record.is_upstream and not self._history.is_acknowledged(record):
                    continue  # fetched from the upstream, as its own node never came to keep it
                if node not in holders(disks, digest) and (node, digest) not in self.lost:
                    raise Violation(f"{name} is {digest}, which {node} took and has no more")

    def _check_record(self, name: Name, floor: Rank, indexes: Indexes) -> None:
        copies = len(_having(indexes, name, floor))
        is_placed = any(each[name].level == NO_LEVEL for each in indexes.values() if name in each)
        promised = self._replication if is_placed else 1
        if self._history.may_be_forgotten(name, floor):
            return
        if not copies and self._destroyed(name) < promised:
            raise Violation(f"the acknowledged {floor} of {name} is on no disk")
        if copies >= self._replication:
            self._records.pop(name, None)

    def _check_content(self, name: Name, digest: Digest, disks: Disks) -> None:
        copies = len(holders(disks, digest))
        destroyed = self._contents.get(digest, 0)
        if not copies and destroyed < self._replication:
            raise Violation(f"{digest} of {name} is lost, {destroyed} copies were destroyed")
        if copies >= self._replication:
            self._contents[digest] = 0

    def _destroyed(self, name: Name) -> int:
        return self._records.get(name, ((0, ""), 0))[1]

    def _records_lost(self, before: Held, after: Held) -> list[Name]:
        """The ring-placed names of which a copy of the acknowledged record goes."""
        found = []
        for name, record in before.records.items():
            floor = self._history.floor(name)
            left = after.records.get(name)
            if record.level != NO_LEVEL or floor is None or record.rank < floor:
                continue
            if left is None or left.rank < floor:
                found.append(name)
        return found


def _contents_lost(before: Held, after: Held) -> set[Digest]:
    """Copies that go, or that nothing on that disk protects from collection any more."""
    was_named = {each.digest for each in before.records.values()}
    is_named = {each.digest for each in after.records.values()}
    return {
        digest
        for digest in before.blobs
        if digest not in after.blobs
        or (digest in before.claimed and digest not in after.claimed)
        or (digest in was_named and digest not in is_named and digest not in after.claimed)
    }


class CacheBound:
    """Holds the sum of what is cached on a disk (names/cached.py) against the limit.

    What somebody put in another way too counts as soon as a node finds that it is cached alone, and
    so is left out here: it may be over for about a second. So is what may stay, as the upstream was
    not found to have it when it was to be dropped.
    """

    def __init__(self, limit_bytes: int, history: History) -> None:
        self._limit_bytes = limit_bytes
        self._history = history

    def check(
        self, node: str, standings: Mapping[Digest, Look], may_stay: Container[Digest] = ()
    ) -> int:
        """Raise Violation if more is cached than may be; the sum in bytes."""
        size = self.sum_of(standings, may_stay)
        if size > self._limit_bytes:
            raise Violation(f"{node} has {size} bytes cached, and may have {self._limit_bytes}")
        return size

    def sum_of(self, standings: Mapping[Digest, Look], may_stay: Container[Digest] = ()) -> int:
        """The bytes that are cached."""
        return sum(
            look.size
            for digest, look in standings.items()
            if look.standing is Standing.CACHED
            and self._history.is_upstreams(digest)
            and digest not in may_stay
        )


def top(indexes: Indexes) -> dict[Name, Record]:
    """Of each name the record that counts, of all that are on any disk."""
    found: dict[Name, Record] = {}
    for records in indexes.values():
        for name, record in records.items():
            known = found.get(name)
            if known is None or (known.rank, known.is_upstream) < (record.rank, record.is_upstream):
                found[name] = record
    return found


def _having(indexes: Indexes, name: Name, rank: Rank) -> list[str]:
    """The nodes with a record that is at least as late."""
    return [node for node, each in indexes.items() if name in each and each[name].rank >= rank]
