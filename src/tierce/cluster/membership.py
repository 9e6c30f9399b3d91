"""Who is in the cluster, as one node knows it: the state machine of SWIM gossip.

It is told what was heard, who did not answer and what time it is, and decides whom to probe, what to
pass on, and who is suspected or down. It keeps the rule of member.py: a record is only ever replaced
by one of higher rank. So old gossip can't bring back who is known to be down or to have left, and
about itself a node is always right, by an incarnation higher than whatever others say.

SWIM: Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership
Protocol" (2002). That one's own pause is no fault of others is from Dadgar, Phillips, Currey,
"Lifeguard: Local Health Awareness for More Accurate Failure Detection" (2018).

All times are seconds of one clock that never goes back. It knows no network; node/gossip.py does that.
"""

import math
from collections.abc import Iterable
from typing import Protocol

import msgspec

from tierce.cluster.gossip_messages import Sync
from tierce.cluster.member import Member, State, View, merge
from tierce.core.errors import Conflict, NotFound
from tierce.core.limits import (
    GOSSIP_INDIRECT_PROBES,
    GOSSIP_MEMORY_SECONDS,
    GOSSIP_PAUSE_PERIODS,
    GOSSIP_PERIOD_SECONDS,
    GOSSIP_RETRANSMITS,
    GOSSIP_SUSPICION_PERIODS,
    GOSSIP_SYNC_SECONDS,
    GOSSIP_SYNC_SECONDS_PER_MEMBER,
    GOSSIP_UPDATES_COUNT,
)

PAUSE_SECONDS = GOSSIP_PAUSE_PERIODS * GOSSIP_PERIOD_SECONDS

# Records remembered from an earlier run are moved below all incarnations that a node announces, which
# start at the wall clock's milliseconds: whatever is heard of a member counts more than such a memory.
_FROM_MEMORY = 1 << 62


class Random(Protocol):
    """What is needed of random.Random."""

    def shuffle(self, ids: list[str], /) -> None:
        """Put the ids in any order."""
        ...

    def sample(self, members: list[Member], count: int, /) -> list[Member]:
        """Pick ``count`` different members."""
        ...

    def randrange(self, stop: int, /) -> int:
        """Any number from 0 up to, but without, ``stop``."""
        ...


def duplicate(other: Member) -> Conflict:
    """Says that ``other`` runs with this node's id."""
    return Conflict(
        f"another node with the id {other.node_id} runs at {other.private}",
        hint="Give the node its own data directory or its own node_id, then start it again.",
    )


def _is_member(member: Member | None) -> bool:
    return member is not None and member.state is not State.LEFT


class Membership:
    """What one node knows. ``me`` is its own record, with an incarnation that no earlier run had.

    ``version`` is raised whenever something changed that a view shows, but for what is gone.
    """

    def __init__(self, me: Member, now: float) -> None:
        self.me = me
        self.version = 0
        self._others: dict[str, Member] = {}
        self._since: dict[str, float] = {}  # when those that are not alive came into their state
        self._updates: dict[str, int] = {}  # whose records to pass on, and how often it was done
        self._size = 1
        self._round: list[str] = []  # whom to probe, from the end
        self._newcomers: list[str] = []
        self._ticked = now

    # What is known

    def find(self, node_id: str) -> Member | None:
        """The record of another node, also of one that left, if it is remembered."""
        return self._others.get(node_id)

    def gone(self, now: float, grace_seconds: float) -> tuple[str, ...]:
        """The ids of members that are down for longer than the grace time, in order."""
        return tuple(
            sorted(
                node_id
                for node_id, since in self._since.items()
                if now - since > grace_seconds and self._others[node_id].state is State.DOWN
            )
        )

    def view(self, now: float, grace_seconds: float) -> View:
        """All members at this moment. This node itself is always one of them."""
        me = self.me.in_state(min(self.me.state, State.DOWN))
        return View.of(me.node_id, [me, *self._others.values()], self.gone(now, grace_seconds))

    def everything(self, now: float) -> Sync:
        """All records of others, for a full exchange."""
        ages = {node_id: int(now - since) for node_id, since in self._since.items()}
        return Sync(tuple(self._others.values()), ages)

    @property
    def is_leaving(self) -> bool:
        """Whether this node said that it stops."""
        return not self.me.is_up

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return not any(_can_answer(each) for each in self._others.values())

    @property
    def suspicion_seconds(self) -> float:
        """How long a member has to deny that it is down."""
        periods = GOSSIP_SUSPICION_PERIODS * max(1.0, math.log10(self._size))
        return periods * GOSSIP_PERIOD_SECONDS

    @property
    def sync_seconds(self) -> float:
        """Between two full exchanges: longer in a larger cluster, as each is larger too."""
        return max(GOSSIP_SYNC_SECONDS, self._size * GOSSIP_SYNC_SECONDS_PER_MEMBER)

    # Whom to talk to

    def next_target(self, random: Random) -> Member | None:
        """Whom to probe now, if there is anybody.

        Every member gets its turn once in a round, in an order made anew for each round (SWIM,
        section 4.3), so a failed one is probed by everybody within two rounds.
        """
        for node_id in self._newcomers:
            self._round.insert(random.randrange(len(self._round) + 1), node_id)
        self._newcomers.clear()
        for is_last_try in (False, True):
            while self._round:
                member = self._others.get(self._round.pop())
                if member is not None and _can_answer(member):
                    return member
            if not is_last_try:
                self._round = [each.node_id for each in self._others.values() if _can_answer(each)]
                random.shuffle(self._round)
        return None

    def pick(self, count: int, random: Random, *, besides: str = "") -> list[Member]:
        """Up to ``count`` members to talk to, but not ``besides``."""
        able = [
            each for each in self._others.values() if _can_answer(each) and each.node_id != besides
        ]
        return random.sample(able, min(count, len(able)))

    def helpers(self, target: Member, random: Random) -> list[Member]:
        """Who should try to reach a target that did not answer."""
        return self.pick(GOSSIP_INDIRECT_PROBES, random, besides=target.node_id)

    def sync_targets(self, random: Random) -> list[Member]:
        """With whom to exchange everything: one member, and one that is down, if there is any.

        The latter lets two halves of a cluster find each other when the network is whole again.
        """
        down = [each for each in self._others.values() if each.state is State.DOWN and each.private]
        return self.pick(1, random) + random.sample(down, min(1, len(down)))

    def updates_for(self, node_id: str, boot: str = "") -> tuple[Member, ...]:
        """The news for a message to that node, least told first; counted as told.

        What is said of the receiver itself comes first each time, for it has to know to deny it: that
        it does not live, or that another run than ``boot`` has its id. GOSSIP_UPDATES_COUNT records
        at most.
        """
        news = []
        receiver = self._others.get(node_id)
        if receiver is not None and (
            receiver.state is not State.ALIVE or receiver.boot != (boot or receiver.boot)
        ):
            news.append(receiver)
        if not self._updates:
            return tuple(news)
        limit = GOSSIP_RETRANSMITS * math.ceil(math.log10(self._size + 1))
        ordered = sorted(self._updates, key=self._updates.__getitem__)
        for each in [each for each in ordered if each != node_id][
            : GOSSIP_UPDATES_COUNT - len(news)
        ]:
            news.append(self._others[each])
            self._updates[each] += 1
            if self._updates[each] >= limit:
                del self._updates[each]
        return tuple(news)

    # What happens

    def remember(self, members: Iterable[Member], now: float) -> None:
        """Take members that an earlier run knew: suspects, until something is heard of them."""
        for member in members:
            if member.node_id in (self.me.node_id, *self._others) or member.state is State.LEFT:
                continue
            incarnation = member.incarnation
            if incarnation >= 0:
                incarnation -= _FROM_MEMORY
            record = msgspec.structs.replace(member, incarnation=incarnation, state=State.SUSPECT)
            self._put(record, now, is_news=False)

    def hear(self, records: Iterable[Member], now: float) -> Member | None:
        """Take what a message says. Gives back another node that claims this one's id, if any.

        Such a rival started earlier, so if it really runs, this node has to stop.
        """
        rival = None
        for heard in records:
            known = self._others.get(heard.node_id)
            if heard.node_id == self.me.node_id:
                rival = self._hear_of_me(heard) or rival
            elif known is None and heard.state is State.LEFT:
                continue  # forgotten by now; else it would be passed round for ever
            else:
                self._hear_of(known, heard, now)
        return rival

    def hear_everything(self, sync: Sync, now: float) -> Member | None:
        """Take a full exchange. Gives back a rival as :meth:`hear` does.

        Who is up here and down there is only suspected: when two halves of a cluster meet again,
        each calls the other's members down, and they must have the time to deny it.
        """
        # To a newcomer all is new, and only to it: others need not hear the whole list again.
        is_news = any(each.incarnation >= 0 for each in self._others.values())
        rival = None
        for heard in sync.members:
            known = self._others.get(heard.node_id)
            if known is not None and heard.rank == known.rank:
                if known.state >= State.DOWN:
                    since = now - sync.ages_seconds.get(heard.node_id, 0)
                    self._since[heard.node_id] = min(since, self._since[heard.node_id])
            elif heard.node_id == self.me.node_id:
                rival = self._hear_of_me(heard) or rival
            elif known is not None and known.is_up and heard.state is State.DOWN:
                self._hear_of(known, heard.in_state(State.SUSPECT), now, is_news=is_news)
            elif heard.state is State.SUSPECT:
                self._hear_of(known, heard, now, is_news=is_news)
            else:
                since = min(now, now - sync.ages_seconds.get(heard.node_id, 0))
                if heard.state is not State.LEFT or now - since < GOSSIP_MEMORY_SECONDS:
                    self._hear_of(known, heard, since, is_news=is_news)
        return rival

    def suspect(self, target: Member, started: float, now: float) -> None:
        """A probe of the target, started then, was not answered at all.

        It means nothing if this node itself stood still, or if the target was heard of meanwhile.
        """
        known = self._others.get(target.node_id)
        if known is None or known.rank != target.rank or now - started > PAUSE_SECONDS:
            return
        if known.state is State.ALIVE:
            self._put(known.in_state(State.SUSPECT), now)

    def tick(self, now: float) -> None:
        """Let time pass; call it every period. Suspects become down, and those that left forgotten."""
        gap = now - self._ticked
        self._ticked = now
        has_paused = gap > PAUSE_SECONDS
        for node_id, since in list(self._since.items()):
            member = self._others[node_id]
            if has_paused and member.state is not State.LEFT:
                # Others could not reach this node while it stood still: that time does not count.
                is_suspect = member.state is State.SUSPECT
                self._since[node_id] = now if is_suspect else min(now, since + gap)
            elif member.state is State.SUSPECT and now - since >= self.suspicion_seconds:
                self._put(member.in_state(State.DOWN), now)
            elif member.state is State.LEFT and now - since >= GOSSIP_MEMORY_SECONDS:
                del self._others[node_id], self._since[node_id]
                self._updates.pop(node_id, None)

    # What this node decides

    def announce(self, **changes: str | bool | int | float) -> None:
        """Change fields of this node's record, for all to hear."""
        assert not changes.keys() & {"node_id", "incarnation", "state", "boot"}
        changed = msgspec.structs.replace(self.me, **changes)
        if changed != self.me:
            self.me = msgspec.structs.replace(changed, incarnation=self.me.incarnation + 1)
            self.version += 1

    def leave(self, state: State) -> None:
        """Say that this node stops (DOWN), or leaves for good (LEFT). It denies nothing any more."""
        assert state >= State.DOWN
        self.me = self.me.in_state(state)
        self.version += 1

    def forget(self, node_id: str, now: float) -> None:
        """Declare that a member which is down won't come back.

        Raises NotFound for an unknown one, and Conflict for one that is up.
        """
        known = self.me if node_id == self.me.node_id else self._others.get(node_id)
        if known is None or not _is_member(known):
            raise NotFound(
                f"no member has the id {node_id}",
                hint="List the members with `tierce cluster status`.",
            )
        if known.is_up:
            raise Conflict(
                f"the node {node_id} is up",
                hint="Drain and stop it first; only a node that is down can be forgotten.",
            )
        if node_id != self.me.node_id:
            self._put(known.in_state(State.LEFT), now)

    def admit(self, sender: Member) -> Member | None:
        """Check a node that wants to join. Raises Conflict if it must not.

        Gives back the record of an earlier node with the same id, if there is one: the sender must
        be refused by :func:`duplicate` if that one still answers at its address with its boot.
        """
        if sender.ring_points != self.me.ring_points:
            raise Conflict(
                f"ring_points is {sender.ring_points} on the node {sender.node_id}, "
                f"and {self.me.ring_points} on the node {self.me.node_id}",
                hint="Set ring_points to the same number on all nodes of a cluster.",
            )
        if sender.node_id == self.me.node_id:
            if sender.boot > self.me.boot:
                raise duplicate(self.me)
            return None
        known = self._others.get(sender.node_id)
        if known is None or not known.is_up or known.private == sender.private:
            return None
        return known if sender.boot > known.boot else None

    # How records change

    def _hear_of_me(self, heard: Member) -> Member | None:
        is_other_run = heard.boot != self.me.boot
        is_worse = heard.incarnation == self.me.incarnation and (
            is_other_run or heard.state > self.me.state
        )
        if not self.is_leaving and (is_worse or heard.incarnation > self.me.incarnation):
            self.me = msgspec.structs.replace(self.me, incarnation=heard.incarnation + 1)
            self.version += 1
        is_elsewhere = heard.is_up and heard.private != self.me.private
        return heard if is_elsewhere and heard.boot < self.me.boot else None

    def _hear_of(
        self, known: Member | None, heard: Member, since: float, *, is_news: bool = True
    ) -> None:
        if merge(known, heard) is known:
            return
        if heard.dialect == "tierce" and heard.ring_points != self.me.ring_points:
            return  # it was refused, or will be; placement must never see it
        self._put(heard, since, is_news=is_news)

    def _put(self, member: Member, since: float, *, is_news: bool = True) -> None:
        node_id = member.node_id
        old = self._others.get(node_id)
        self._others[node_id] = member
        self._size += _is_member(member) - _is_member(old)
        if member.state is State.ALIVE:
            self._since.pop(node_id, None)
        else:
            self._since[node_id] = since
        if is_news:
            self._updates.pop(node_id, None)
            self._updates[node_id] = 0
        if old is None:
            self._newcomers.append(node_id)
        self.version += 1


def _can_answer(member: Member) -> bool:
    return member.is_up and member.private != ""
