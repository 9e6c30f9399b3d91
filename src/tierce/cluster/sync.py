"""How records spread: what to read of whom and when, what differs, and when a tombstone may go. Pure.

Three ways carry a record, each slower than the one before and surer. The node that took a write sends
it to every live member at once (push). Every node reads the feed of every other one to its end, and
remembers how far it is (pull). And now and then two nodes compare digests of ranges of names, each
mending what it lacks itself.

**Comparing in place of reading.** Where much of a feed is still to be read (the reader is new or was
away, or the feed is that of a node that was just filled), most of it may be known already. The reader
then notes where the feed ends, compares all ranges, fetches what it lacks, and goes on from the end
that it noted: all that the feed held up to there, the names compared show as it is now, or newer.

**Tombstones** are kept for some days, and longer while any member has not read past them. The moment
before which they count as expired is the *horizon*. One node forgets a tombstone before another does,
so an expired one of a name that is not known is never taken in, and ranges are compared without
expired ones; otherwise they would travel back and forth. Where the name is known, an expired tombstone
counts like any other, so it still ends an old record wherever both meet. (A new node that skipped one,
and then gets the old record from a member that was away, has it until that one has the tombstone.)

Not covered: a node that was forgotten, or whose disk is set back to a copy from before a deletion,
may bring back what was deleted, once the tombstone is gone everywhere. Don't restore copies older than
``tombstone_days``, and let a forgotten node return with an empty disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tierce.cluster.member import Member, View
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.core.limits import COMPARE_ABOVE_CHANGES
from tierce.names.changes import Epoch, Position, resume
from tierce.names.index import Change
from tierce.names.record import UPSTREAM, Record, merge

Bound = tuple[str, str]
"""A name at which a range ends: bucket and key. Names are in the order of their UTF-8 bytes, which
is the order of these tuples."""

_RETRY_SECONDS = 0.5


class Mark(NamedTuple):
    """Which version of a name a node has: all that is compared."""

    bucket: str
    key: str
    timestamp: int
    node: str
    is_upstream: bool
    forgettable: bool

    @property
    def name(self) -> Bound:
        return self.bucket, self.key

    @property
    def version(self) -> tuple[int, str, bool]:
        """Of two marks of a name, the one with the greater version tells of the newer record."""
        return self.timestamp, self.node, self.is_upstream


class Summary(NamedTuple):
    """A range in short: how many names it has, and the digest of their marks.

    If ``names`` is -1 there are more than are counted, and the range is like no other.
    """

    names: int
    digest: bytes


TOO_MANY = Summary(-1, b"")


class Cut(NamedTuple):
    """A range of names, after ``lower`` up to and with ``upper`` (None: no end), and what is in it."""

    lower: Bound | None
    upper: Bound | None
    marks: tuple[Mark, ...]


# Whom to read, and when


def whom_to_read(view: View) -> list[Member]:
    """The members that records are exchanged with: live ones, this node and Cask nodes left out."""
    return [
        each
        for each in view.members
        if each.node_id != view.me and each.is_up and each.private and each.dialect == "tierce"
    ]


def rest_seconds(interval_seconds: float, failures: int, chance: float) -> float:
    """How long to wait before a peer is read again, after so many failures in a row.

    Soon after the first failure, then twice as long each time, up to the interval. ``chance``, from
    0 to 1, spreads it by a quarter either way, so that nodes started together don't ask together.
    """
    rest = interval_seconds
    if failures:
        rest = min(rest, _RETRY_SECONDS * 2.0 ** min(failures - 1, 30))
    return rest * (0.75 + 0.5 * chance)


def should_compare(behind: int, names: int) -> bool:
    """Whether to compare ranges in place of reading so many changes, for a node that has so many
    names: comparing goes through all of them, but sends only what is missing."""
    return behind > max(COMPARE_ABOVE_CHANGES, names // 2)


def whom_to_check(candidates: Sequence[Member], chance: float) -> Member | None:
    """The member to compare ranges with; None if there is none. ``chance`` is from 0 to 1."""
    if not candidates:
        return None
    return candidates[min(int(chance * len(candidates)), len(candidates) - 1)]


# What of the records heard is taken, and what is sent


def is_forgettable(record: Record) -> bool:
    """Whether a record may be forgotten one day: a tombstone, but not of what an upstream still has.

    A deletion leaves the upstream's object where it is, and without the tombstone it could be fetched
    again, as if it had never been deleted.
    """
    return record.deleted and record.level < UPSTREAM and not record.is_upstream


def is_expired(forgettable: bool, timestamp: int, horizon: int) -> bool:
    """Whether this is a tombstone from before the horizon (nanoseconds since 1970)."""
    return forgettable and timestamp < horizon


def is_news(known: Record | None, heard: Record, horizon: int) -> bool:
    """Whether a record that came from a peer is to be merged: it is newer, and no expired tombstone
    of a name that is not known."""
    if known is None:
        return not is_expired(is_forgettable(heard), heard.timestamp, horizon)
    return merge(known, heard) is not known


def fitting(records: Sequence[Record], limit_bytes: int) -> int:
    """How many of the records, from the first, fit into a message; at least one, if there is one."""
    size = 0
    for number, record in enumerate(records):
        size += weight(record)
        if size > limit_bytes and number:
            return number
    return len(records)


def weight(record: Record) -> int:
    """Roughly how many bytes a record has in a message, never fewer than it has."""
    texts = (record.bucket, record.key, record.node, record.name, record.content_type)
    extra = sum(len(name) + len(value) + 10 for name, value in record.metadata.items())
    # A character has up to four bytes, but most have one: count by the larger where it may matter.
    size = sum(map(len, texts)) + extra
    is_plain = all(map(str.isascii, (*texts, *record.metadata, *record.metadata.values())))
    return 160 + (size if is_plain else 4 * size)


# Ranges


def mark_of(record: Record) -> Mark:
    """What is compared of a record."""
    return Mark(
        record.bucket,
        record.key,
        record.timestamp,
        record.node,
        record.is_upstream,
        is_forgettable(record),
    )


def cut(lower: Bound | None, records: Sequence[Record], *, is_last: bool) -> Cut:
    """The range that a page of an index is, read after ``lower``. The last one has no end."""
    marks = tuple(map(mark_of, records))
    return Cut(lower, None if is_last or not marks else marks[-1].name, marks)


def summarize(marks: Iterable[Mark], horizon: int) -> Summary:
    """A range in short, expired tombstones left out. The marks are in order."""
    counted = [each for each in marks if not is_expired(each.forgettable, each.timestamp, horizon)]
    return Summary(len(counted), Digest.of(encode(counted)).raw)


def differing(cuts: Sequence[Cut], told: Sequence[Summary], horizon: int) -> list[Cut]:
    """The ranges in which another node has something else, from what it told of each."""
    return [
        each
        for each, summary in zip(cuts, told, strict=True)
        if summary.names < 0 or summary != summarize(each.marks, horizon)
    ]


def lacking(records: Iterable[Record], known: Iterable[Mark], horizon: int) -> list[Record]:
    """Of these records those that a node lacks, or has older, that has what ``known`` tells."""
    versions = {each.name: each.version for each in known}
    found = []
    for record in records:
        mark = mark_of(record)
        version = versions.get(mark.name)
        if version is None:
            if not is_expired(is_forgettable(record), record.timestamp, horizon):
                found.append(record)
        elif mark.version > version:
            found.append(record)
    return found


# Tombstones


def read_by_all(
    view: View, readers: Mapping[str, Position], epochs: Sequence[Epoch], last_seq: int
) -> int | None:
    """The number up to which every other member has read this node's feed; None if that is unknown.

    ``readers`` are the positions that members have told, by their ids. A member that is down has
    told nothing that still counts: its disk may be another one when it returns.
    """
    if view.is_seeking:
        return None
    read = last_seq
    for member in view.members:
        if member.node_id == view.me or member.dialect != "tierce":
            continue
        position = readers.get(member.node_id)
        if position is None or not member.is_up:
            return None
        seq = resume(epochs, last_seq, position)
        if seq is None:
            return None
        read = min(read, seq)
    return read


def may_drop(change: Change, horizon: int, read: int) -> bool:
    """Whether a change is a tombstone that may go: expired, and read by all members."""
    record = change.record
    return change.seq <= read and is_expired(is_forgettable(record), record.timestamp, horizon)
