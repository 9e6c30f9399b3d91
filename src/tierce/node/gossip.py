"""Gossip: keeps this node's membership up to date, by messages to other nodes.

What to say and what to conclude is decided in cluster/membership.py; here are the loops, the time
limits and the answers. A period costs a node one ping and its answer on average, and a full exchange
now and then, less often in a larger cluster, so the traffic of a node does not grow with their number.

Nothing here waits for anything but the network, and no lock is held: a node whose own join is still
under way answers whoever calls back. All randomness comes from the one generator that is given, and
time from the event loop.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from tierce.cluster.gossip_messages import Ack, Answer, Ping, PingRequest, Question, Sync
from tierce.cluster.member import Member, State, View
from tierce.cluster.membership import Membership, duplicate
from tierce.core.codec import decode, encode
from tierce.core.errors import BadRequest, Conflict, Refused, TierceError, Unavailable
from tierce.core.limits import (
    GOSSIP_FAREWELL_SECONDS,
    GOSSIP_FAREWELLS_COUNT,
    GOSSIP_PERIOD_SECONDS,
    GOSSIP_PROBE_SECONDS,
    GOSSIP_REFUSAL_LOG_SECONDS,
    JOIN_BACKOFF_MAX_SECONDS,
    JOIN_BACKOFF_MIN_SECONDS,
    PEER_ANSWER_SECONDS,
)
from tierce.node.peers import Transport

log = logging.getLogger(__name__)

PATH = "/gossip"
_FAILURES_LOGGED = 3


class _Backoff:
    """Pauses that double from one try to the next, each of them jittered by half."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.reset()

    def reset(self) -> None:
        self._pause_seconds = JOIN_BACKOFF_MIN_SECONDS

    async def wait(self, limit_seconds: float = JOIN_BACKOFF_MAX_SECONDS) -> None:
        pause_seconds = min(self._pause_seconds, limit_seconds)
        self._pause_seconds = 2 * pause_seconds
        await asyncio.sleep(pause_seconds * self._chance.uniform(0.5, 1.5))


class Gossip:
    """One node's part in the gossip. To be made, and used, inside one event loop.

    ``join`` are addresses to join (HOST:PORT), its own among them does no harm; ``known`` are members
    that an earlier run of this node knew. ``on_change`` gets the first view when :meth:`run` begins
    and then each new one; a member that is down for longer than ``grace_seconds`` is gone in it.
    ``on_conflict`` is called once at most, with what keeps this node from being a member: it must
    stop then, and without :meth:`leave`. ``on_self`` hears of an address to join that is its own.
    """

    def __init__(
        self,
        membership: Membership,
        transport: Transport,
        *,
        join: Sequence[str],
        random: random.Random,
        grace_seconds: float,
        on_change: Callable[[View], None],
        on_conflict: Callable[[TierceError], None],
        known: Sequence[Member] = (),
        on_self: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._membership = membership
        self._on_self = on_self
        self._transport = transport
        self._join_addresses = join
        self._random = random
        self._grace_seconds = grace_seconds
        self._on_change = on_change
        self._on_conflict = on_conflict
        self._time = asyncio.get_running_loop().time
        self._is_silent = False
        self._is_refused = False
        self._in_touch = False
        self._rival: Member | None = None
        self._refusal_logged_at: float | None = None
        self._is_alone = asyncio.Event()
        membership.remember(known, self._time())
        self._look()

    @property
    def view(self) -> View:
        """The latest view."""
        return self._view

    async def run(self) -> None:
        """Take part until cancelled."""
        self._on_change(self._view)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe_for_ever())
            tasks.create_task(self._sync_for_ever())
            for address in self._join_addresses:
                tasks.create_task(self._join_for_ever(address))

    async def handle(self, body: bytes) -> bytes:
        """Answer a message that came to the path /gossip.

        Raises BadRequest for what is no such message, Conflict for a node that must not join, and
        Unavailable when there is no answer now.
        """
        if self._is_refused:
            raise self._stopping()
        question = decode(body, Question, "gossip message")
        sender, content = question.sender, question.content
        if isinstance(content, Sync):
            return encode(await self._answer_sync(sender, content))
        self._take(sender, question.updates)
        updates: tuple[Member, ...] = ()
        reached = True
        if isinstance(content, PingRequest):
            reached = await self._ping(content.address, content.target) is not None
            target = self._membership.find(content.target)
            if reached and target is not None:
                updates = (target,)
        updates += self._membership.updates_for(sender.node_id, sender.boot)
        return encode(Answer(self._membership.me, Ack(reached), updates))

    async def join(self, address: str) -> None:
        """Exchange everything with the node at that address, once, now.

        Raises Conflict if this node must not join (the caller decides whether to go on), Refused if
        the secrets differ, or Unavailable.
        """
        await self._sync(address)

    async def leave(self, state: State) -> None:
        """Tell some members that this node stops (DOWN), or leaves for good (LEFT).

        Takes GOSSIP_FAREWELL_SECONDS at most. It goes on answering, but says nothing by itself.
        """
        if self._is_silent:
            return
        self._is_silent = True
        self._membership.leave(state)
        listeners = self._membership.pick(GOSSIP_FAREWELLS_COUNT, self._random)
        heard = await asyncio.gather(
            *(self._ping_member(each, GOSSIP_FAREWELL_SECONDS) for each in listeners)
        )
        if listeners and not any(heard):
            log.warning("no other node answered to hear that this one stops")

    def announce(self, **changes: str | bool | int | float) -> None:
        """Change fields of this node's own record: ``writable``, ``draining``, addresses and so on."""
        self._membership.announce(**changes)
        self._publish()

    def forget(self, node_id: str) -> None:
        """Declare that a member which is down won't come back.

        Raises NotFound for an unknown one, and Conflict for one that is up.
        """
        self._membership.forget(node_id, self._time())
        self._publish()

    def hear(self, members: Sequence[Member]) -> None:
        """Take records that came another way, such as of Cask nodes, which don't gossip."""
        self._membership.hear(members, self._time())
        self._publish()

    # The loops

    async def _probe_for_ever(self) -> None:
        await asyncio.sleep(self._random.uniform(0, GOSSIP_PERIOD_SECONDS))
        while True:
            started = self._time()
            self._membership.tick(started)
            self._publish()
            if not self._is_silent:
                await self._confront_rival()
                await self._probe()
            await asyncio.sleep(max(0.0, started + GOSSIP_PERIOD_SECONDS - self._time()))

    async def _probe(self) -> None:
        target = self._membership.next_target(self._random)
        if target is None:
            return
        started = self._time()
        if await self._ping_member(target, GOSSIP_PROBE_SECONDS):
            return
        helpers = self._membership.helpers(target, self._random)
        reached = await asyncio.gather(*(self._ping_through(each, target) for each in helpers))
        if not any(reached):
            self._membership.suspect(target, started, self._time())
            self._publish()

    async def _sync_for_ever(self) -> None:
        # Often at first, since what a newcomer was told while others joined too is old at once.
        backoff = _Backoff(self._random)
        while True:
            targets = [] if self._is_silent else self._membership.sync_targets(self._random)
            for target in targets:
                try:
                    await self._sync(target.private)
                except TierceError as error:
                    # Found again by memory, a cluster may refuse this node as when it joins.
                    if isinstance(error, Conflict) and not self._in_touch:
                        self._stop_for(error)
            if self._is_alone.is_set():
                await backoff.wait()
                if not self._is_alone.is_set():
                    backoff.reset()
            else:
                await backoff.wait(self._membership.sync_seconds)

    async def _join_for_ever(self, address: str) -> None:
        backoff = _Backoff(self._random)
        failures = 0
        while not self._is_silent:
            try:
                other = await self._sync(address)
            except Conflict as error:
                self._stop_for(error)
                return
            except TierceError as error:
                failures += 1
                # Nodes that start together miss each other once; refusals are logged elsewhere.
                is_news = failures == _FAILURES_LOGGED and not isinstance(error, Refused)
                level = logging.WARNING if is_news else logging.DEBUG
                log.log(level, "can't join %s, and goes on trying: %s", address, error.message)
                await backoff.wait()
                continue
            failures = 0
            me = self._membership.me
            if (other.node_id, other.boot) == (me.node_id, me.boot):
                self._on_self(address)
                return
            log.info("joined the node %s at %s", other.node_id, address)
            backoff.reset()
            await backoff.wait()
            await self._is_alone.wait()

    async def _confront_rival(self) -> None:
        rival, self._rival = self._rival, None
        if rival is None:
            return
        answering = await self._ping(rival.private, rival.node_id)
        if answering is not None and answering.boot == rival.boot:
            self._stop_for(duplicate(rival))

    def _stop_for(self, conflict: Conflict) -> None:
        if not self._is_silent:
            self._is_silent = self._is_refused = True
            self._on_conflict(conflict)

    def _stopping(self) -> Unavailable:
        return Unavailable(
            f"the node {self._membership.me.node_id} is stopping", hint="Ask another node."
        )

    # Messages

    async def _ping_member(self, member: Member, timeout_seconds: float) -> bool:
        return await self._ping(member.private, member.node_id, timeout_seconds) is not None

    async def _ping(
        self, address: str, node_id: str, timeout_seconds: float = GOSSIP_PROBE_SECONDS
    ) -> Member | None:
        """The record of the node there, if it answers and has that id."""
        try:
            answer = await self._ask(address, node_id, Ping(), timeout_seconds)
        except TierceError:
            return None
        return answer.sender if answer.sender.node_id == node_id else None

    async def _ping_through(self, helper: Member, target: Member) -> bool:
        request = PingRequest(target.node_id, target.private)
        try:
            # The helper's own ping has its time limit, and its answer has to come back.
            answer = await self._ask(
                helper.private, helper.node_id, request, 2 * GOSSIP_PROBE_SECONDS
            )
        except TierceError:
            return False
        return isinstance(answer.content, Ack) and answer.content.reached

    async def _sync(self, address: str) -> Member:
        """Exchange everything with whoever is there, and give back its record."""
        everything = self._membership.everything(self._time())
        answer = await self._ask(address, "", everything, PEER_ANSWER_SECONDS)
        if not isinstance(answer.content, Sync):
            raise BadRequest(
                f"the node at {address} did not answer as one of a cluster",
                hint="Run the same version on both nodes.",
            )
        self._meet(answer.sender)
        return answer.sender

    async def _ask(
        self, address: str, node_id: str, content: Ping | PingRequest | Sync, timeout_seconds: float
    ) -> Answer:
        updates = self._membership.updates_for(node_id) if node_id else ()
        body = encode(Question(self._membership.me, content, updates))
        try:
            data = await self._transport.exchange(
                address, PATH, body, timeout_seconds=timeout_seconds
            )
        except (Refused, Conflict) as error:
            self._log_refusal(address, error)
            raise
        answer = decode(data, Answer, "answer to a gossip message")
        sync = answer.content if isinstance(answer.content, Sync) else None
        self._take(answer.sender, answer.updates, sync)
        return answer

    async def _answer_sync(self, sender: Member, content: Sync) -> Answer:
        if self._is_silent:
            raise self._stopping()
        former = self._membership.admit(sender)
        if former is not None:
            answering = await self._ping(former.private, former.node_id)
            if answering is not None and answering.boot == former.boot:
                raise duplicate(former)
        self._take(sender, (), content)
        self._meet(sender)
        return Answer(self._membership.me, self._membership.everything(self._time()))

    # What follows from them

    def _take(self, sender: Member, updates: tuple[Member, ...], sync: Sync | None = None) -> None:
        now = self._time()
        rival = self._membership.hear_everything(sync, now) if sync is not None else None
        self._rival = self._membership.hear((sender, *updates), now) or rival or self._rival
        self._publish()

    def _meet(self, other: Member) -> None:
        self._in_touch = self._in_touch or other.node_id != self._membership.me.node_id

    def _look(self) -> None:
        now = self._time()
        self._view = self._membership.view(now, self._grace_seconds)
        self._version = self._membership.version
        if self._membership.is_alone:
            self._is_alone.set()
        else:
            self._is_alone.clear()

    def _publish(self) -> None:
        is_new = self._membership.version != self._version
        if is_new or self._membership.gone(self._time(), self._grace_seconds) != self._view.gone:
            self._look()
            self._on_change(self._view)

    def _log_refusal(self, address: str, error: TierceError) -> None:
        now = self._time()
        last = self._refusal_logged_at
        if last is None or now - last >= GOSSIP_REFUSAL_LOG_SECONDS:
            self._refusal_logged_at = now
            log.error("the node at %s refuses this one: %s. %s", address, error.message, error.hint)
