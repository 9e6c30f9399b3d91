"""Living among real Cask nodes: joining them, being joined, heartbeats, and dropping the silent ones.

It is the agent's part of the Cask door. What to do is decided in neighbors.py; here it is done. No
lock is held and no queue stands still while another node is asked something, so whatever a node asks
back meanwhile is answered: a join calls back before it ends (wire sheet, section 4).

A node that turns out to be a Tierce node, by a header that Cask has not, is not joined in Cask's way:
gossip takes it from there, and tells it of the others.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import NamedTuple, Protocol

from tierce.cluster.member import Member, View
from tierce.core import kinds
from tierce.core.errors import BadRequest, Forbidden, TierceError, Unavailable
from tierce.core.limits import JOIN_BACKOFF_MAX_SECONDS, JOIN_BACKOFF_MIN_SECONDS
from tierce.doors.cask.calls import Config
from tierce.doors.cask.forms import parse_heartbeat
from tierce.doors.cask.neighbors import (
    KNOWN,
    MYSELF,
    NOT_PARSED,
    NOT_RETRIEVED,
    Neighbors,
    added,
)

log = logging.getLogger(__name__)

# How many nodes that heartbeats tell of are joined at a time; the next heartbeat names the others.
JOINS_IN_FLIGHT = 16


class Calls(Protocol):
    """What is asked of other nodes (calls.py)."""

    async def config(self, url: str) -> Config: ...

    async def join(self, at: str, url: str) -> None: ...

    async def heartbeat(self, at: str, body: bytes) -> None: ...


class _Joined(NamedTuple):
    """How a join ended: what the one who asked is told, the node's id if it is known now, and why."""

    text: str
    node_id: str = ""
    reason: str = ""


class CaskMembership:
    """Run it, and give it what arrives at ``/join/`` and ``/heartbeat/``; it is a CaskControl.

    ``seeds`` are base URLs that are joined at the start, and whenever the node there is not known,
    for ever. ``join_tierce(address)`` has gossip join a node's private address. ``view()`` is this
    node's view, itself with its Cask URL in it. ``on_change`` gets all Cask members, sorted by id,
    whenever anything about them changes. Belongs to one event loop.
    """

    def __init__(
        self,
        neighbors: Neighbors,
        calls: Calls,
        *,
        seeds: Sequence[str],
        random: Random,
        join_tierce: Callable[[str], Awaitable[None]],
        view: Callable[[], View],
        on_change: Callable[[list[Member]], None],
    ) -> None:
        self._neighbors = neighbors
        self._calls = calls
        self._seeds = seeds
        self._random = random
        self._join_tierce = join_tierce
        self._view = view
        self._on_change = on_change
        self._published: list[Member] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Join the seeds, send heartbeats and drop the silent, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                for url in self._seeds:
                    group.create_task(self._stay_joined(url))
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def join(self, fields: Mapping[str, str]) -> tuple[int, str]:
        """Answer ``POST /join/``: status and text. The door has checked ``url`` and secret."""
        return 200, (await self._join(fields["url"])).text

    async def heartbeat(self, body: bytes) -> None:
        """Take a heartbeat, of which the door has checked the secret.

        The nodes it tells of are joined after the answer: its sender waits for nothing.
        """
        heartbeat = parse_heartbeat(body)
        try:
            urls = self._neighbors.heard(heartbeat, self._view(), _now())
        except BadRequest as error:
            log.warning("a heartbeat made no sense: %s", error)
            return
        self._publish()
        for url in urls:
            if sum(name.startswith("join ") for name in self._running) < JOINS_IN_FLIGHT:
                self._start(f"join {url}", partial(self._join, url))

    def copied(self, node_id: str, worked: bool) -> None:
        """A file was sent to a Cask node, in vain or not."""
        self._neighbors.copied(node_id, worked=worked, now=_now())
        self._publish()

    async def _join(self, url: str) -> _Joined:
        """Join the node at a URL by the steps of the wire sheet's section 4, and word the answer."""
        try:
            url = kinds.base_url.parse(url)
        except BadRequest as error:
            return _Joined(NOT_RETRIEVED, reason=str(error))
        try:
            node, private = await self._calls.config(url)
            member = node.as_member()
        except Unavailable as error:
            return _Joined(NOT_RETRIEVED, reason=str(error))
        except BadRequest as error:
            return _Joined(NOT_PARSED, reason=str(error))
        view = self._view()
        if member.node_id == view.me:
            return _Joined(MYSELF, member.node_id)
        if private:
            return await self._hand_to_gossip(member.node_id, private, view)
        known = self._neighbors.why_not(member.node_id, view)
        if known is not None:
            return _Joined(known, member.node_id)
        return await self._add(member, url, view.by_id[view.me].cask)

    async def _hand_to_gossip(self, node_id: str, address: str, view: View) -> _Joined:
        self._neighbors.drop(node_id)
        self._publish()
        if self._neighbors.why_not(node_id, view) is not None:
            return _Joined(KNOWN, node_id)
        try:
            await self._join_tierce(address)
        except TierceError as error:
            return _Joined(error.message, reason=f"the Tierce node at {address}: {error}")
        return _Joined(added(node_id), node_id)

    async def _add(self, member: Member, url: str, my_url: str) -> _Joined:
        """Add a Cask node, tell all others of it, and have it join this one in turn."""
        try:
            others = self._neighbors.add(member, _now())
        except BadRequest as error:
            log.warning("the Cask node %s is not added: %s", member.node_id, error)
            return _Joined(error.message)
        log.info("the Cask node %s at %s was added", member.node_id, member.cask)
        self._publish()
        *_, failure = await asyncio.gather(
            *(self._tell(each.cask, url) for each in others), self._tell(member.cask, my_url)
        )
        if isinstance(failure, Forbidden):
            # It will never send a heartbeat nor take a file.
            log.warning("the Cask node %s was dropped: %s", member.node_id, failure)
            self._neighbors.drop(member.node_id)
            self._publish()
            return _Joined(failure.message)
        # As in Cask, it stays added even if it could not be told of this node.
        text = added(member.node_id) if failure is None else failure.message
        return _Joined(text, member.node_id)

    async def _tell(self, at: str, url: str) -> TierceError | None:
        """Have one node join another; why that could not be, or None."""
        try:
            await self._calls.join(at, url)
        except TierceError as error:
            log.info("can't tell %s of %s: %s", at, url, error)
            return error
        return None

    async def _stay_joined(self, url: str) -> None:
        """Join the node at a URL, and again whenever it is not known any more."""
        await asyncio.sleep(self._random.random())
        pause_seconds = JOIN_BACKOFF_MIN_SECONDS
        while True:
            joined = await self._join(url)
            if joined.text == MYSELF:
                return
            if joined.node_id:
                pause_seconds = JOIN_BACKOFF_MIN_SECONDS
                await self._until_gone(joined.node_id)
                continue
            if pause_seconds == JOIN_BACKOFF_MIN_SECONDS:
                reason = joined.reason or joined.text
                log.warning("can't join %s, and goes on trying: %s", url, reason)
            await asyncio.sleep(pause_seconds * (1 + self._random.random()) / 2)
            pause_seconds = min(2 * pause_seconds, JOIN_BACKOFF_MAX_SECONDS)

    async def _until_gone(self, node_id: str) -> None:
        """Wait while a node is known, and at least for an interval."""
        while True:
            await asyncio.sleep(self._neighbors.interval_seconds)
            if self._neighbors.why_not(node_id, self._view()) is None:
                return

    async def _beat(self) -> None:
        """Heartbeats to all neighbors, each on its own: one that hangs holds up no other."""
        while True:
            await asyncio.sleep(self._neighbors.pause_seconds(self._random.random()))
            view = self._view()
            for node_id in self._neighbors.reap(view, _now()):
                log.warning("the Cask node %s was dropped: no heartbeat came from it", node_id)
            self._publish()
            body = self._neighbors.heartbeat(view)
            for member in self._neighbors.members():
                self._start(
                    f"heartbeat {member.node_id}",
                    partial(self._calls.heartbeat, member.cask, body),
                )

    def _publish(self) -> None:
        members = self._neighbors.members()
        if members != self._published:
            self._published = members
            self._on_change(members)

    def _start(self, name: str, make: Callable[[], Awaitable[object]]) -> None:
        """Do something beside, once at a time of each name."""
        if name in self._running:
            return

        async def run() -> None:
            try:
                await make()
            except TierceError as error:
                log.info("%s: %s", name, error)
            except Exception:
                log.exception("%s failed", name)
            finally:
                del self._running[name]

        self._running[name] = asyncio.create_task(run())


def _now() -> float:
    return asyncio.get_running_loop().time()
