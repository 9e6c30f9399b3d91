"""What must be true of a cluster, told by observers that see more than any node does.

They hear what clients were answered and what was destroyed, and look straight at the disks. They
share nothing with what they check but the ring (cluster/placement.py), which has vectors of its own.

- *Durable*: nothing acknowledged is lost while fewer than ``replication`` of its copies were
  destroyed since it last had that many.
- *Never wrong*: no read returns other bytes than were put.
- *Converged*: after the faults, all agree on who is a member, and every blob is on its owners only.
- *Bounded*: what a node sends in a period does not exceed what was planned for.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from tierce.cluster.member import Member, State, View
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.testing.network import Sent, Tally

Disks = Mapping[str, Mapping[Digest, bytes]]
"""What lies on each node's disk, by node id, whether the node runs or not."""


class Violation(AssertionError):
    """A checker found what must never be."""


# Copies are looked at again and again, and bytes never change: a changed copy is another object.
is_good = lru_cache(maxsize=1 << 14)(Digest.fits)


def holders(disks: Disks, digest: Digest) -> list[str]:
    """The nodes whose disks have a good copy of a blob."""
    return [
        node
        for node, blobs in disks.items()
        if (data := blobs.get(digest)) is not None and is_good(digest, data)
    ]


class Durable:
    """Follows acknowledged blobs and their destroyed copies."""

    def __init__(self, replication: int) -> None:
        self.replication = replication
        self._destroyed: dict[Digest, int] = {}
        self._released: dict[Digest, None] = {}

    @property
    def acknowledged(self) -> list[Digest]:
        """Every blob whose client was told that it is stored, in that order, but those released."""
        return list(self._destroyed)

    def acknowledge(self, digest: Digest, disks: Disks, destroyed_meanwhile: int = 0) -> None:
        """A client was told that a blob is stored.

        ``destroyed_meanwhile`` copies may have been destroyed since it was sent.
        """
        copies = len(holders(disks, digest))
        if digest in self._released:
            return
        if copies + destroyed_meanwhile < self.replication:
            raise Violation(f"{digest} was acknowledged with {copies} copies")
        self._destroyed.setdefault(digest, destroyed_meanwhile)

    def release(self, digest: Digest) -> None:
        """A client asks for a blob to be deleted: nothing is promised of it any more.

        Not even if it is stored again, as the order may be carried out late.
        """
        self._released[digest] = None
        self._destroyed.pop(digest, None)

    def may_destroy(self, copies: Iterable[Digest]) -> bool:
        """Whether the promise still holds if a copy of each of these is destroyed now."""
        return all(self._destroyed.get(each, 0) + 1 < self.replication for each in copies)

    def destroy(self, copies: Iterable[Digest]) -> None:
        """A copy of each of these was destroyed."""
        for digest in copies:
            if digest in self._destroyed:
                self._destroyed[digest] += 1

    def check(self, disks: Disks) -> None:
        """Raise Violation if an acknowledged blob is lost that must not be.

        A blob that is on ``replication`` disks is whole again, and what was destroyed is forgotten.
        """
        for digest, destroyed in self._destroyed.items():
            copies = len(holders(disks, digest))
            if not copies and destroyed < self.replication:
                raise Violation(f"{digest} is lost, though {destroyed} copies were destroyed")
            if copies >= self.replication:
                self._destroyed[digest] = 0


class NeverWrong:
    """Remembers what was put, and compares what is read."""

    def __init__(self) -> None:
        self._put: dict[Digest, bytes] = {}
        self.reads = 0

    def put(self, digest: Digest, data: bytes) -> None:
        """A client sent these bytes; the digest is the client's own."""
        self._put[digest] = data

    def stored(self, data: bytes, answer: Digest) -> None:
        """A client was told under which digest its bytes are."""
        if not answer.fits(data):
            raise Violation(f"a body was stored as {answer}, and that is not its digest")

    def read(self, digest: Digest, data: bytes, *, whole: bool = True) -> None:
        """A client got these bytes; not ``whole`` if the answer broke off, as its client saw."""
        self.reads += 1
        expected = self._put.get(digest)
        if expected is None:
            raise Violation(f"{digest} was read, and nobody put it")
        if data != (expected if whole else expected[: len(data)]):
            raise Violation(f"{digest} was read with other bytes")
        if not whole and len(data) == len(expected):
            raise Violation(f"all of {digest} was sent, and then it broke off")


class Converged:
    """Tells what keeps a quiet cluster from being as it should be."""

    def __init__(self, truth: View) -> None:
        """``truth`` has the members that are there, as they should be known."""
        self._truth = truth

    def reasons(self, views: Mapping[str, View], disks: Disks) -> list[str]:
        """Everything that is not as it should be, given what the running nodes believe."""
        return [*self._of_views(views), *self._of_blobs(disks)]

    def check(self, views: Mapping[str, View], disks: Disks) -> None:
        """Raise Violation unless the cluster has converged."""
        if reasons := self.reasons(views, disks):
            more = f" (and {len(reasons) - 12} more)" if len(reasons) > 12 else ""
            raise Violation("not converged: " + "; ".join(reasons[:12]) + more)

    def _of_views(self, views: Mapping[str, View]) -> list[str]:
        wanted = {each.node_id: _essence(each) for each in self._truth.members}
        found = []
        for node, view in views.items():
            seen = {each.node_id: _essence(each) for each in view.members}
            for other in sorted(wanted.keys() | seen.keys()):
                if wanted.get(other) != seen.get(other):
                    found.append(f"{node} knows {other} as {seen.get(other)}")
        return found

    def _of_blobs(self, disks: Disks) -> list[str]:
        placement = Placement(self._truth)
        names = sorted({digest for blobs in disks.values() for digest in blobs})
        found = []
        for digest in names:
            held = sorted(holders(disks, digest))
            bad = [node for node, blobs in disks.items() if digest in blobs and node not in held]
            owners = [each.node_id for each in placement.owners(digest, held)]
            missing = [each for each in owners if each not in held]
            surplus = [each for each in held if each not in owners]
            most = placement.max_replication
            if bad:
                found.append(f"{digest} is bad on {', '.join(bad)}")
            if missing and held:
                found.append(f"{digest} is missing on {', '.join(missing)}, held by {held}")
            draining = [each for each in surplus if placement.view.by_id[each].draining]
            if len(held) > most or draining:
                found.append(f"{digest} is on {', '.join(surplus)}, which do not own it")
        return found


def _essence(member: Member) -> tuple[str, bool, bool, str]:
    """What all nodes must agree on about a member."""
    return State(member.state).name, member.writable, member.draining, member.private


class Bounded:
    """Holds what nodes sent against a limit, as an average over some periods.

    The limits are messages and bytes, for one node in a second.
    """

    def __init__(self, *, messages: float, bytes: float, window_seconds: int = 10) -> None:
        self._messages = messages
        self._bytes = bytes
        self._window_seconds = window_seconds

    def check(
        self, sent: Mapping[Sent, Tally], paths: Sequence[str], first: int, last: int
    ) -> None:
        """Raise Violation if a node sent too much on these paths from second ``first`` to ``last``.

        A path counts with all that begins with it.
        """
        windows: dict[tuple[str, int], Tally] = {}
        for key, tally in sent.items():
            if first <= key.second < last and key.path.startswith(tuple(paths)):
                window = (key.second - first) // self._window_seconds
                total = windows.setdefault((key.host, window), Tally())
                total.messages += tally.messages
                total.bytes += tally.bytes
        for (host, window), total in windows.items():
            messages = total.messages / self._window_seconds
            size = total.bytes / self._window_seconds
            if messages > self._messages or size > self._bytes:
                at = first + window * self._window_seconds
                raise Violation(
                    f"{host} sent {messages:g} messages and {size:g} bytes a second from {at} s on"
                )
