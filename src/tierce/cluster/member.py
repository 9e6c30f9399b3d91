"""What nodes know of each other: a member's record, the rule that merges two, and a view of them all.

A record is written by its own node only, but for its state, which others may worsen when they can't
reach it. The node answers by a higher incarnation. So of two records of a node the one with the
higher incarnation counts, and at the same incarnation the worse state. Merging is therefore
commutative, associative and idempotent.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Dialect = Literal["tierce", "cask"]


class State(enum.IntEnum):
    """How a member is, from better to worse. ``LEFT`` is for good: it is no member any more."""

    ALIVE = 0
    SUSPECT = 1
    DOWN = 2
    LEFT = 3


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One node, as it announces itself.

    ``private`` is HOST:PORT for other nodes, ``native`` and ``cask`` are base URLs of doors ("" if
    there is none), ``boot`` is a ULID of this run of the node, ``weight`` its share of the blobs
    beside a node of weight 1. ``replication`` and ``max_replication`` are what its settings ask for,
    0 for auto. ``is_whole``: when this node last could ask everyone, all blobs that it looks after had
    their copies. A member of the dialect ``cask`` is a real Cask node: it has a ``cask`` URL only, and
    keeps SHA-1 blobs only.
    """

    node_id: str
    incarnation: int = 0
    state: State = State.ALIVE
    boot: str = ""
    private: str = ""
    native: str = ""
    cask: str = ""
    zone: str = ""
    weight: float = 1.0
    writable: bool = True
    draining: bool = False
    replication: int = 0
    max_replication: int = 0
    ring_points: int = 128
    version: str = ""
    dialect: Dialect = "tierce"
    is_whole: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Of two records of a node, the one with the greater rank counts."""
        return self.incarnation, self.state

    @property
    def is_up(self) -> bool:
        """Alive, or not yet given up."""
        return self.state <= State.SUSPECT

    def in_state(self, state: State) -> "Member":
        """The same record in another state."""
        return msgspec.structs.replace(self, state=state)


def merge(known: Member | None, heard: Member) -> Member:
    """The record that counts."""
    return heard if known is None or heard.rank > known.rank else known


class View(msgspec.Struct, frozen=True):
    """What one node, ``me``, knows of the cluster at a moment, itself among the members.

    ``members`` are sorted by id, without those that left. ``gone`` are the ids of those that have
    been down for longer than the grace time: they count as having nothing. ``is_seeking``: this
    node was told to join others, and has never reached any, so there is more than it knows.
    """

    me: str
    members: tuple[Member, ...]
    gone: tuple[str, ...] = ()
    is_seeking: bool = False

    @classmethod
    def of(
        cls,
        me: str,
        members: Iterable[Member],
        gone: Iterable[str] = (),
        *,
        is_seeking: bool = False,
    ) -> "View":
        """A view of these members, in order, without those that left."""
        present = sorted(
            (each for each in members if each.state is not State.LEFT),
            key=lambda each: each.node_id,
        )
        return cls(me, tuple(present), tuple(sorted(gone)), is_seeking)

    def find(self, node_id: str) -> Member | None:
        """The member of that id, if there is one."""
        return self.by_id.get(node_id)

    @property
    def by_id(self) -> Mapping[str, Member]:
        """The members by their ids."""
        return {each.node_id: each for each in self.members}
