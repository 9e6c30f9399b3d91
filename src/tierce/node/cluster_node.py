"""A node's part in the cluster, put together from its parts: gossip, answers to peers, healing, scrub.

The agent of a real node is this over HTTP and a disk; a node of the simulation is the same over a
simulated network and disk. It also gives the account of the cluster that operators see, and takes
their orders.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.cluster.member import Dialect, Member, State, View
from tierce.cluster.membership import Membership
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, NotFound, TierceError, Unavailable
from tierce.core.limits import (
    DOWN_GRACE_SECONDS,
    HEAL_BYTES_PER_SECOND,
    SCRUB_BYTES_PER_SECOND,
    SCRUB_INTERVAL_SECONDS,
    SCRUB_REST_SECONDS,
    WRITABLE_CHECK_SECONDS,
)
from tierce.node import overview
from tierce.node.cache_orders import CACHE_ORDERS
from tierce.node.data_path import DataPath, PlacementCell
from tierce.node.dialects import DialectPeers
from tierce.node.gossip import Gossip
from tierce.node.healer import Healer
from tierce.node.keeping import Keeping
from tierce.node.names_parts import Names
from tierce.node.names_work import NamesWork
from tierce.node.peer_service import BlobService
from tierce.node.peers import Peers, Transport
from tierce.node.scrub import IsDue, Scrub
from tierce.node.tierce_peers import TiercePeers

log = logging.getLogger(__name__)

Orders = Mapping[str, Callable[[dict[str, Any]], Any]]


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How fast background work goes, and how long a node may be down before its data moves.

    ``late_seconds`` is as in DataPath.
    """

    grace_seconds: float = DOWN_GRACE_SECONDS
    heal_bytes_per_second: int = HEAL_BYTES_PER_SECOND
    scrub_interval_seconds: float = SCRUB_INTERVAL_SECONDS
    scrub_bytes_per_second: int = SCRUB_BYTES_PER_SECOND
    scrub_rest_seconds: float = SCRUB_REST_SECONDS
    late_seconds: float | None = None


class ClusterNode:
    """One node. ``me`` is what it announces at first. To be made, and used, inside one event loop.

    ``service`` answers peers, ``path`` is the way of blobs, ``placement`` the placement in force.
    ``on_view`` gets each new view; ``on_conflict`` what keeps this node from being a member.
    """

    def __init__(
        self,
        me: Member,
        store: BlobStore,
        spooler: Spooler,
        space: SpaceGuard,
        transport: Transport,
        *,
        pacing: Pacing,
        names: Names,
        random: random.Random,
        on_view: Callable[[View], None],
        on_conflict: Callable[[TierceError], None],
        join: Sequence[str] = (),
        known: Sequence[Member] = (),
        other_peers: Mapping[Dialect, Peers] | None = None,
        is_due: IsDue | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._space = space
        self._on_view = on_view
        self._others: list[Member] = []
        self._down_since: dict[str, float] = {}
        # Its own address among those to join is no reason to wait for anyone.
        self._sought = [each for each in join if each != me.private]
        view = View.of(me.node_id, [me], is_seeking=bool(self._sought))
        self.placement = PlacementCell(view)
        self._tierce = TiercePeers(transport)
        peers = DialectPeers({"tierce": self._tierce, **(other_peers or {})})
        self.path = DataPath(
            store, spooler, space, peers, self.placement, self._missing, names.objects.delete_blob,
            late_seconds=pacing.late_seconds,
        )  # fmt: skip
        self.names = NamesWork(
            names, me.node_id, store, spooler, self.path, peers, transport, self.placement,
            random=random, wall_clock=lambda: int(wall_clock() * 1e9),
        )  # fmt: skip
        self._store = self.names.cache.store
        self.healer = self._healer(peers, spooler, names, pacing, wall_clock)
        self.scrub = Scrub(
            store,
            interval_seconds=pacing.scrub_interval_seconds,
            bytes_per_second=pacing.scrub_bytes_per_second,
            on_bad=self.healer.hint,
            is_due=is_due,
            rest_seconds=pacing.scrub_rest_seconds,
            wall_clock=wall_clock,
        )
        self.gossip = Gossip(
            Membership(me, asyncio.get_running_loop().time()),
            transport,
            join=join,
            known=known,
            random=random,
            grace_seconds=pacing.grace_seconds,
            on_change=self._changed,
            on_conflict=on_conflict,
            on_self=self._found_itself,
        )
        # Whom an earlier run knew counts from the first moment, for workers too: blobs are there.
        if len(self.gossip.view.members) > 1:
            self.placement.update(self.gossip.view)
        self.service = self._peer_service(spooler, names)

    def _healer(
        self,
        peers: Peers,
        spooler: Spooler,
        names: Names,
        pacing: Pacing,
        wall_clock: Callable[[], float],
    ) -> Healer:
        return Healer(
            self._store,
            peers,
            self.placement,
            self.path.fetcher,
            spooler,
            bytes_per_second=pacing.heal_bytes_per_second,
            on_whole=self._tell_whole,
            was_deleted=lambda digest: self.service.was_deleted(digest),
            keeping=Keeping(self._store, names.index),
            wall_clock=wall_clock,
        )

    def _peer_service(self, spooler: Spooler, names: Names) -> BlobService:
        return BlobService(
            self._store,
            spooler,
            self.healer.condemned,
            node_id=self.placement().view.me,
            is_draining=lambda: self.placement().me.draining,
            gossip=self.gossip.handle,
            control=self._asked_by_peer,
            names=self.names.service.exchange,
            is_named=lambda digest: bool(names.index.refers(digest)),
            delete=names.objects.delete_blob,
        )

    async def run(self) -> None:
        """Take part until cancelled."""
        self._on_view(self.placement().view)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.gossip.run())
            tasks.create_task(self.healer.run())
            tasks.create_task(self.scrub.run())
            tasks.create_task(self._watch_space())
            tasks.create_task(self.names.run())

    @property
    def is_drained(self) -> bool:
        """Whether this node was to be emptied, and has nothing left that others may need."""
        return self.healer.is_drained and not self.names.has_queue

    async def leave(self) -> None:
        """Say farewell: for good if this node was emptied, otherwise only that it is down."""
        await self.gossip.leave(State.LEFT if self.is_drained else State.DOWN)

    async def close(self) -> None:
        """Give up requests under way."""
        await self.names.close()
        await self.path.close()
        await self._tierce.close()

    def set_others(self, others: Sequence[Member]) -> None:
        """Take the members of other dialects, as they are now."""
        self._others = list(others)
        self._changed(self.gossip.view)

    def status(self) -> dict[str, Any]:
        """What the agent says of itself and of the members."""
        return {
            "scrub": self.scrub.status(),
            "healing": self.healer.status(),
            "names": self.names.status(),
            "members": [overview.member_content(each) for each in self.placement().view.members],
        }

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out an order of this node's own doors. Raises BadRequest for an unknown one."""
        if name == "status":
            return self.status()
        if name == "heal":
            self.healer.hint(Digest.parse(str(arguments["digest"])))
            return {}
        if name == "cluster":
            return await self._overview()
        if name == "hurry":
            self.names.sync.hurry()
            return {}
        if name == "fill":
            await self.names.filler.fill(str(arguments["key"]))
            return {}
        if name in CACHE_ORDERS:
            return await self.names.order(name, arguments)
        if name == "drain":
            return await self._drain(str(arguments["node_id"]), bool(arguments["cancel"]))
        if name == "forget":
            self.gossip.forget(str(arguments["node_id"]))
            log.info("order: forget %s", arguments["node_id"])
            return {}
        raise BadRequest(f"{name!a} is no order")

    def _tell_whole(self, is_whole: bool) -> None:
        if is_whole != self.placement().me.is_whole:
            self.gossip.announce(is_whole=is_whole)

    def _found_itself(self, address: str) -> None:
        """An address to join turned out to be this node's own, by another name."""
        self._sought = [each for each in self._sought if each != address]
        self._changed(self.gossip.view)

    def _missing(self, digest: Digest) -> None:
        self.healer.hint(digest)

    def _changed(self, view: View) -> None:
        """The membership changed: place anew, and let everyone know."""
        known = {each.node_id for each in view.members}
        others = [each for each in self._others if each.node_id not in known]
        members = [*view.members, *others]
        is_seeking = bool(self._sought) and len(members) == 1
        view = View.of(view.me, members, view.gone, is_seeking=is_seeking)
        now = asyncio.get_running_loop().time()
        self._down_since = {
            each.node_id: self._down_since.get(each.node_id, now)
            for each in view.members
            if not each.is_up
        }
        before = self.placement().view
        if view == before:
            return
        has_newcomers = _log_changes(before, view)
        moved = self.placement.update(view)
        self._on_view(view)
        if has_newcomers:
            # They may lack what they should have, and until that is known nobody must deny it.
            self._tell_whole(False)
        if moved:
            self.healer.changed()

    async def _watch_space(self) -> None:
        """Tell the others when this node no longer takes new blobs, or does again."""
        while True:
            try:
                writable = self._space.why_not() is None
            except OSError as error:
                log.error("the disk does not tell how full it is: %s", error.strerror)
                writable = False
            if writable != self.placement().me.writable:
                self.gossip.announce(writable=writable)
            await asyncio.sleep(WRITABLE_CHECK_SECONDS)

    async def _asked_by_peer(self, name: str, arguments: bytes) -> bytes:
        """Answer another node's agent."""
        try:
            given = json.loads(arguments)
        except ValueError as error:
            raise BadRequest(f"the arguments are no JSON: {error}") from None
        if not isinstance(given, dict):
            raise BadRequest("the arguments are no JSON object")
        if name == "status":
            answer = await self._account()
        elif name == "drain":
            # Signatures name no receiver: what was meant for another node must not drain this one.
            if given.get("node_id") != self.placement().view.me:
                raise Conflict("the order is for another node", hint="Give it again.")
            answer = await self._drain(self.placement().view.me, bool(given.get("cancel")))
        else:
            raise BadRequest(f"{name!a} is no order")
        return json.dumps(answer).encode()

    async def _account(self) -> dict[str, Any]:
        """What this node says of itself for an overview."""
        counts = await self._store.counts()
        space = self._space.look()
        return {
            "blobs": counts.blobs,
            "blob_bytes": counts.bytes,
            "disk": {
                "total_bytes": space.total,
                "free_bytes": space.free,
                "reserve_bytes": space.reserve,
            },
            "drained": self.is_drained,
            "names": self.names.status(),
            "scrub": self.scrub.status(),
            "healing": self.healer.status(),
        }

    async def _overview(self) -> dict[str, Any]:
        placement = self.placement()

        async def account(member: Member) -> dict[str, Any] | None:
            if member.node_id == placement.view.me:
                return await self._account()
            if not member.is_up or member.dialect != "tierce":
                return None
            try:
                answer = json.loads(await self._tierce.control(member, "status", b"{}"))
            except (TierceError, ValueError) as error:
                log.info("%s gave no account of itself: %s", member.node_id, error)
                return None
            return answer if isinstance(answer, dict) else None

        members = placement.view.members
        accounts = await asyncio.gather(*(account(each) for each in members))
        now = asyncio.get_running_loop().time()
        down_seconds = {each: now - since for each, since in self._down_since.items()}
        return overview.content(placement, down_seconds, accounts)

    async def _drain(self, node_id: str, cancel: bool) -> dict[str, Any]:
        placement = self.placement()
        member = placement.view.find(node_id)
        if member is None:
            raise NotFound(f"{node_id} is not a member", hint="See `tierce cluster status`.")
        if member.dialect != "tierce":
            raise Conflict(f"{node_id} is a Cask node, and can't be drained from here")
        if not cancel:
            placement.check_drainable(member)
        log.info("order: %s %s", "use again" if cancel else "drain", node_id)
        if member.node_id == placement.view.me:
            self.healer.not_emptied()
            self.gossip.announce(draining=not cancel)
            log.info("this node is %s", "in use again" if cancel else "being drained")
            return {}
        if not member.is_up:
            raise Unavailable(f"{node_id} is down", hint="Forget it, if it will not come back.")
        await self._tierce.control(
            member, "drain", json.dumps({"node_id": node_id, "cancel": cancel}).encode()
        )
        return {}


def _log_changes(before: View, after: View) -> bool:
    """Say who came and went; True if someone came, or runs anew, perhaps on another disk."""
    has_newcomers = False
    known = dict(before.by_id)
    for each in after.members:
        old = known.pop(each.node_id, None)
        if each.node_id == after.me:
            continue
        has_newcomers |= old is None or old.boot != each.boot
        if old is None:
            where = each.private or each.cask
            log.info("%s is a member, at %s, and %s", each.node_id, where, each.state.name.lower())
        elif old.is_up and not each.is_up:
            log.warning("%s is down", each.node_id)
        elif not old.is_up and each.is_up:
            log.info("%s is up again", each.node_id)
    for node_id in known:
        log.info("%s is a member no more", node_id)
    return has_newcomers
