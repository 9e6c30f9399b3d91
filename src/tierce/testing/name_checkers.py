"""What must be true of named objects, told by observers that see more than any node does.

They hear what clients sent and were answered and what was destroyed, and look straight at the disks.

- *Lasting*: an acknowledged write is lost to nothing but a later one (by rank), and what counts in the
  end is something that a client really sent. So what was deleted stays so, unless it was put later.
- *In order*: of one client's writes through one node the later one has the greater timestamp.
- *Never wrong*: what is read under a key was put under that key.
- *Kept*: record and content of a ring-placed object outlive fewer than ``replication`` destroyed
  copies, and collection takes no blob that a record names (name_kept.py).
- *Converged* (name_converged.py): all nodes have the same records, and blobs are where these say.
- *Bounded*: a node's cache is never larger than its limit (name_kept.py), but by what the upstream did
  not say that it has; in the end by what it has not.

A write that was destroyed with the only disk that had heard of it, where no more was promised, may be
gone or come back: it is excused.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tierce.core.digest import Digest
from tierce.names.record import LOCAL, NO_LEVEL, Record
from tierce.testing.checkers import Violation

Name = tuple[str, str]
"""Bucket and key."""
Rank = tuple[int, str]
Records = Mapping[Name, Record]
"""The records in force on one disk, tombstones included."""
Indexes = Mapping[str, Records]
"""The records on each node's disk, by node id, whether the node runs or not."""


@dataclass(eq=False)
class Write:
    """A write that a client sent. ``digest`` is None for a deletion, and for a raise of the level,
    which keeps whatever content there is. ``record`` is what the client was answered.
    """

    name: Name
    client: str
    node: str
    digest: Digest | None
    level: int
    deleted: bool = False
    raises: bool = False
    began: int = 0
    ended: int | None = None
    floor: int = 0
    is_raced: bool = False
    is_excused: bool = False
    is_forgotten: bool = False
    record: Record | None = None

    @property
    def is_own(self) -> bool:
        """Whether the answer is this very write, and not a later one that it lost to."""
        record = self.record
        return (
            record is not None
            and (record.node, record.deleted) == (self.node, self.deleted)
            and (self.raises or record.digest == self.digest)
            and (self.deleted or record.level == self.level)
        )


class History:
    """Follows the writes of all clients: *lasting*, *in order* and *never wrong*.

    With ``forgets``, nodes forget tombstones after a while: what is not known was deleted. With
    ``is_behind``, the upstream gets contents some time after they were acknowledged.
    """

    def __init__(self, *, forgets: bool = False, is_behind: bool = False) -> None:
        self._forgets = forgets
        self._is_behind = is_behind
        self._otherwise: dict[Digest, None] = {}
        self._writes: dict[Name, list[Write]] = {}
        self._bodies: dict[Digest, bytes] = {}
        self._sessions: dict[tuple[str, str], int] = {}
        self._began = 0
        self._known: dict[int, Record] = {}

    @property
    def names(self) -> list[Name]:
        """All names that were ever written to."""
        return list(self._writes)

    def begin(
        self,
        name: Name,
        client: str,
        node: str,
        *,
        data: bytes | None = None,
        digest: Digest | None = None,
        level: int = NO_LEVEL,
        deleted: bool = False,
        raises: bool = False,
    ) -> Write:
        """A client sends a write."""
        self._began += 1
        if data is not None and digest is not None:
            self._bodies[digest] = data
        if digest is not None and level <= LOCAL:
            self._otherwise[digest] = None
        write = Write(name, client, node, digest, level, deleted, raises, self._began)
        write.floor = self._sessions.get((client, node), 0)
        writes = self._writes.setdefault(name, [])
        for other in writes:
            if other.ended is None:
                other.is_raced = write.is_raced = True
        writes.append(write)
        return write

    def end(self, write: Write) -> None:
        """Nothing more is done for a write, whoever still waits for it."""
        self._began += 1
        write.ended = self._began

    def acknowledge(self, write: Write, record: Record) -> None:
        """A client was told that its write is kept; ``record`` is what counted then."""
        if (record.bucket, record.key) != write.name:
            raise Violation(f"{write.name} was written, and {record} was answered")
        if record.timestamp <= write.floor:
            raise Violation(
                f"{write.client} wrote {write.name} through {write.node} at {record.timestamp}, "
                f"after a write at {write.floor}"
            )
        write.record = record
        session = write.client, write.node
        self._sessions[session] = max(self._sessions.get(session, 0), record.timestamp)

    def forget_sessions(self, node: str) -> None:
        """A node's disk was emptied, or set back: it can't know what it had answered."""
        for client, other in list(self._sessions):
            if other == node:
                del self._sessions[client, other]
        for writes in self._writes.values():
            for write in writes:
                if write.node == node:
                    write.floor = 0
                    # A node whose clock is behind may then give the same rank to another write.
                    write.is_forgotten = True

    def body(self, digest: Digest) -> bytes:
        """The bytes that some client put."""
        return self._bodies[digest]

    def is_upstreams(self, digest: Digest) -> bool:
        """Whether a content was put only as objects that the upstream gets too."""
        return digest not in self._otherwise

    def floor(self, name: Name) -> Rank | None:
        """The rank below which nothing may count any more; None if nothing was acknowledged."""
        return max(
            (each.record.rank for each in self._promised(name) if each.record is not None),
            default=None,
        )

    def may_be_forgotten(self, name: Name, rank: Rank) -> bool:
        """Whether this is a tombstone that nodes may have forgotten."""
        return self._forgets and any(
            each.deleted and each.is_own and _rank(each) == rank for each in self._promised(name)
        )

    def excuse(self, name: Name, rank: Rank | None) -> int:
        """All copies of what ranks above were destroyed, as may be; how many writes that were."""
        count = 0
        for write in self._promised(name):
            if write.record is not None and (rank is None or write.record.rank > rank):
                write.is_excused = True
                count += 1
        return count

    def read(self, name: Name, data: bytes, *, whole: bool = True) -> None:
        """A client read these bytes under a name; not ``whole`` if the answer broke off."""
        for write in self._writes.get(name, []):
            if write.digest is None:
                continue
            body = self._bodies[write.digest]
            if data == (body if whole else body[: len(data)]):
                return
        raise Violation(f"{name} was read with {len(data)} bytes that nobody put there")

    def check_sent(self, indexes: Indexes) -> None:
        """Raise Violation for a record that no client ever sent."""
        for node, records in indexes.items():
            for name, record in records.items():
                if self._known.get(id(record)) is not record:
                    self._check_one(name, record, node)
                    self._known[id(record)] = record

    def check_lasting(self, records: Records) -> None:
        """Raise Violation for acknowledged writes that lost, though nothing later was written.

        ``records`` are those in force, once all nodes agree.
        """
        for name in self._writes:
            floor = self.floor(name)
            if floor is None:
                continue
            record = records.get(name)
            if record is None and self.may_be_forgotten(name, floor):
                continue
            if record is None or record.rank < floor:
                lost = next(each for each in self._promised(name) if _rank(each) == floor)
                what = "delete" if lost.deleted else "write"
                raise Violation(
                    f"the acknowledged {what} {floor} of {name} is lost to "
                    f"{None if record is None else record.rank}"
                )

    def is_acknowledged(self, record: Record) -> bool:
        """Whether a client was told of this very write."""
        writes = self._writes.get((record.bucket, record.key), [])
        return any(_rank(each) == record.rank for each in writes)

    def may_be_overwritten(self, record: Record) -> bool:
        """Whether something older than this record may have gone to the upstream after it.

        So it is if other writes were under way when it was sent, or were sent later: one that is
        older by its rank, or that failed once it had been uploaded, leaves its content there.
        """
        writes = self._writes[record.bucket, record.key]
        sent = [each for each in writes if self._may_be(each, record)]
        began = min(each.began for each in sent)
        return len(sent) != 1 or any(
            each.level > LOCAL and (self._is_behind or each.ended is None or each.ended > began)
            for each in writes
            if each is not sent[0]
        )

    def is_raced(self, name: Name) -> bool:
        """Whether any two writes to a name were ever under way at the same time."""
        return any(each.is_raced for each in self._writes.get(name, []))

    def _promised(self, name: Name) -> list[Write]:
        writes = self._writes.get(name, [])
        return [each for each in writes if each.record is not None and not each.is_excused]

    def _may_be(self, write: Write, record: Record) -> bool:
        """Whether a record may be what came of a write."""
        if write.record is not None and write.is_own and not write.is_forgotten:
            return write.record.rank == record.rank
        if (write.node, write.deleted) != (record.node, record.deleted):
            return False
        if write.deleted:
            return True
        digests = {each.digest for each in self._writes[write.name]}
        content = record.digest in digests if write.raises else record.digest == write.digest
        return content and write.level == record.level

    def _check_one(self, name: Name, record: Record, where: str) -> None:
        writes = self._writes.get(name, [])
        for write in writes:
            answered = write.record
            if answered is not None and answered.rank == record.rank and not write.is_forgotten:
                if (answered.digest, answered.deleted) != (record.digest, record.deleted):
                    raise Violation(f"{name} has {record} on {where}, answered was {answered}")
                return
        if not any(self._may_be(write, record) for write in writes):
            raise Violation(f"{name} has {record} on {where}, which nobody sent")


def _rank(write: Write) -> Rank | None:
    return None if write.record is None else write.record.rank
