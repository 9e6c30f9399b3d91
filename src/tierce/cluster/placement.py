"""Where blobs belong, for one view of the cluster. Made anew when the view changes, and only then.

Owners of a blob are the first ``replication`` members in the order of placement that may hold it: the
writable ones, and those that are not but hold it already. A draining member owns nothing. A member
that is down keeps its place until the grace time is over, so that a restart moves no data.
"""

from collections.abc import Callable, Collection
from functools import cached_property

from tierce.cluster.member import Member, State, View
from tierce.cluster.ring import Ring
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Unavailable
from tierce.core.limits import ORDERS_REMEMBERED, REPLICATION_AUTO_MAX

CASK_ALGORITHM = "sha1"


class Placement:
    """The order of members for each blob, and how many copies are wanted."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.me = view.by_id[view.me]
        self._by_id = dict(view.by_id)
        self._found: dict[tuple[Callable[[Member], bool], int], list[Member]] = {}

    @cached_property
    def _ring(self) -> Ring:
        present = (each for each in self.view.members if each.node_id not in self.view.gone)
        return Ring(
            ((each.node_id, each.weight, each.zone) for each in present), self.me.ring_points
        )

    @cached_property
    def substance(self) -> tuple[object, ...]:
        """What of the view decides where blobs belong. While it is equal, healing has no new work."""
        return self.view.gone, self.view.is_seeking, tuple(
            (
                each.node_id, each.boot, each.is_up, each.writable, each.draining, each.zone,
                each.weight, each.replication, each.max_replication, each.dialect,
            )
            for each in self.view.members
        )  # fmt: skip

    @cached_property
    def is_alone(self) -> bool:
        """Whether this node is all there is, and all that is asked for."""
        return len(self.view.members) == 1 and self.replication == 1 and not self.view.is_seeking

    @cached_property
    def replication(self) -> int:
        """Copies wanted of each blob: the most that any member asks for.

        For auto it is one for each member, those that are down included and those that are being
        drained not, and REPLICATION_AUTO_MAX at most. Nodes that were set differently must not undo
        each other's work, so the highest counts.
        """
        asked = [each.replication for each in self.view.members if each.dialect == "tierce"]
        staying = sum(not each.draining for each in self.view.members)
        auto = min(REPLICATION_AUTO_MAX, max(1, staying))
        return max(number or auto for number in asked)

    @cached_property
    def max_replication(self) -> int:
        """Copies above which surplus ones are removed."""
        asked = [each.max_replication for each in self.view.members if each.dialect == "tierce"]
        return max(self.replication, *asked)

    def order(self, digest: Digest, count: int | None = None) -> list[Member]:
        """The first ``count`` members (all, without one) in the order of placement."""
        return self._sorted(digest, _anyone)[:count]

    def writers(self, digest: Digest) -> list[Member]:
        """Who may be given a new blob, best placed first; members under suspicion come last."""
        found = self._sorted(digest, _takes_new)
        return [each for each in found if keeps(each, digest.algorithm)]

    def readers(self, digest: Digest) -> list[Member]:
        """Who may have a blob, best placed first; members under suspicion come last.

        Those that are down are left out: nobody could ask them.
        """
        found = self._sorted(digest, _can_be_asked)
        return [each for each in found if keeps(each, digest.algorithm)]

    def _sorted(self, digest: Digest, wanted: Callable[[Member], bool]) -> list[Member]:
        """Those members, in order. Remembered, as there are only so many orders."""
        key = wanted, self._ring.start(digest)
        found = self._found.get(key)
        if found is None:
            found = [self._by_id[node_id] for node_id in self._ring.order(digest)]
            if wanted is not _anyone:
                found = sorted(filter(wanted, found), key=lambda each: each.state)
            if len(self._found) * len(self._by_id) >= ORDERS_REMEMBERED:
                self._found.clear()
            self._found[key] = found
        return found

    def owners(self, digest: Digest, holders: Collection[str] = ()) -> list[Member]:
        """Who should have a copy, given who holds one (ids): ``replication`` members, if there are."""
        found = []
        for member in self.order(digest):
            if member.draining or not keeps(member, digest.algorithm):
                continue
            if member.writable or member.node_id in holders:
                found.append(member)
                if len(found) == self.replication:
                    break
        return found

    def check_drainable(self, member: Member) -> None:
        """Raise Conflict if too few members would be left to hold what a member has."""
        others = [
            each
            for each in self.view.members
            if _takes_new(each) and each.node_id != member.node_id
        ]
        asked = [each.replication for each in self.view.members if each.dialect == "tierce"]
        needed = max([1, *asked])
        if len(others) < needed:
            raise Conflict(
                f"copies asked for: {needed}; other nodes that can hold them now: {len(others)}",
                hint="Start those that are down, or add a node; or lower the setting replication on"
                " all nodes.",
            )

    def check_reached(self) -> None:
        """Raise Unavailable while this node knows nobody of the cluster that it is to join."""
        if self.view.is_seeking:
            raise Unavailable(
                "this node has not yet reached any of the nodes that it is to join",
                hint="Start one of those that --join names, and check the cluster secret.",
            )

    def check_writable(self, algorithm: str) -> None:
        """Raise Unavailable if too few members can take a new blob."""
        self.check_reached()
        writable = [
            each for each in self.view.members if _takes_new(each) and keeps(each, algorithm)
        ]
        if len(writable) < self.replication:
            down = [each.node_id for each in self.view.members if each.state is State.DOWN]
            missing = f"; down: {', '.join(down)}" if down else ""
            raise Unavailable(
                f"{self.replication} copies are asked for, and {len(writable)} nodes take new"
                f" blobs now{missing}",
                hint="Start the missing nodes, or add some; see `tierce cluster status`. "
                "`tierce cluster forget` drops a node that will not come back.",
            )


def _anyone(member: Member) -> bool:
    return True


def _takes_new(member: Member) -> bool:
    return member.is_up and member.writable and not member.draining


def _can_be_asked(member: Member) -> bool:
    return member.is_up


def keeps(member: Member, algorithm: str) -> bool:
    """Whether a member can hold blobs of this algorithm."""
    return member.dialect == "tierce" or algorithm == CASK_ALGORITHM
