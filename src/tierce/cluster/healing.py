"""What healing has to do for one blob, from what is known of its copies.

Each node looks after the blobs that it holds. Of all holders, the best placed one is responsible for
a blob: it counts it, and pushes it to the owners that lack it, so no work is done twice. Any holder
removes its own copy when it is surplus: ``max_replication`` better placed members hold one.

A surplus copy is removed only after ``replication`` better placed members have proved theirs by
hashing them, and never on the word of one that is about to remove its own: a node condemns its copy
before it asks for proofs, and gives none for a copy that it has condemned. Of any nodes that remove
copies at the same time, the one that condemned last has the word of ``replication`` nodes that did
not, so that many copies stay, whatever each of them believes of the cluster.
"""

from collections.abc import Collection
from typing import NamedTuple

from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest

# Copies may lie a little beyond the owners: where a node was added, or was down for a while.
_NEARBY = 2


class Keep(NamedTuple):
    """Why a blob is kept. ``by_ring``: on its owners; ``by_level``: where the level of an object
    that names it says, which is not healing's to judge. Neither: until it is collected.
    """

    by_ring: bool
    by_level: bool


RING = Keep(by_ring=True, by_level=False)


class Plan(NamedTuple):
    """What to do for a blob. ``copies`` is how many members hold one, those being drained left out.

    ``rank`` is this node's place among the holders: 0 is responsible. ``push_to`` are the owners
    that lack a copy and can take one; ``witnesses`` those whose proof allows this node to remove
    its own copy (empty: it stays), if so many of them give it as ``proofs`` says (0: replication).
    """

    copies: int
    rank: int
    push_to: tuple[Member, ...]
    witnesses: tuple[Member, ...]
    proofs: int = 0


def whom_to_ask(digest: Digest, placement: Placement, keep: Keep = RING) -> list[Member]:
    """The members that a survey asks about a blob: those that may well hold it, this node left out."""
    if not keep.by_ring:
        me = placement.view.me
        others = placement.readers(digest)
        return [each for each in others if each.dialect == "tierce" and each.node_id != me]
    count = placement.max_replication + _NEARBY
    near = {each.node_id: each for each in placement.order(digest, count)}
    # The owners lie further on where the first in order take nothing new.
    near.update((each.node_id, each) for each in placement.owners(digest))
    near.pop(placement.view.me, None)
    return [each for each in near.values() if each.is_up]


def needs_plan(keep: Keep, placement: Placement) -> bool:
    """Whether healing has to do with a blob: what only levels keep is moved when this node empties."""
    return keep.by_ring or placement.me.draining


def plan(
    digest: Digest,
    placement: Placement,
    holders: Collection[str],
    silent: Collection[str] = (),
    keep: Keep = RING,
) -> Plan:
    """Decide. ``holders`` are the ids of the members that said they have it, this node's among them.

    ``silent`` are those that were asked and gave no answer: they count as lacking it, but are not
    pushed to, as they may well have it.
    """
    me = placement.me
    if not keep.by_ring:
        return _plan_leaving(digest, placement, holders, silent)
    in_order = [each for each in placement.order(digest) if each.node_id in holders]
    staying = [each for each in in_order if not each.draining]
    owners = placement.owners(digest, holders)
    push_to = tuple(
        each
        for each in owners
        if each.is_up
        and each.writable
        and each.node_id not in holders
        and each.node_id not in silent
    )
    # The other ones come first where this node is to be emptied.
    better = staying[: staying.index(me)] if me in staying else staying if me.draining else []
    # A Cask node may drop its copy on our word while we drop ours on its, so its word is none.
    better = [each for each in better if each.dialect == "tierce"]
    surplus = len(better) >= (placement.replication if me.draining else placement.max_replication)
    if keep.by_level and not me.draining:
        surplus = False
    return Plan(
        copies=len(staying),
        rank=in_order.index(me) if me in in_order else len(in_order),
        push_to=push_to,
        witnesses=tuple(better) if surplus and not push_to else (),
    )


def _plan_leaving(
    digest: Digest, placement: Placement, holders: Collection[str], silent: Collection[str]
) -> Plan:
    """What only a level, or nothing any more, keeps here: it goes if this node is being emptied."""
    if not placement.me.draining:
        return Plan(copies=len(holders), rank=0, push_to=(), witnesses=(), proofs=1)
    others = [each for each in placement.writers(digest) if each.dialect == "tierce"]
    holding = tuple(each for each in others if each.node_id in holders)
    able = [each for each in others if each.node_id not in silent]
    return Plan(
        copies=len(holding),
        rank=0,
        push_to=() if holding else tuple(able[:1]),
        witnesses=holding,
        proofs=1,
    )
