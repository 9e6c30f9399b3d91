"""Keeping this node's records like those of all others: push at once, pull, compare, forget.

One runs on each node, in its agent. Workers of the node write to the same index from processes of
their own; their changes are noticed by the number of the last one. What is decided, and why, is in
cluster/sync.py; here it is carried out.

**Traffic.** A change is pushed by one node only, the one whose id its record has, so an echo never
travels on: at most one message to each other member, one on its way to each at a time. What arrives
otherwise (a flag set by another node, what a push did not deliver) is pulled. A pull reads everything
once more, as each feed holds the changes of all; what is known already costs a look at the index and no
write. Nothing is pushed before this node has read all others once: what it gets back then is no news.

**A node that is far behind**, as a new one is, compares ranges in place of reading a feed, with one peer
at a time: from the first it gets everything, and with the others it then finds little to fetch.

**A crash** at any step loses nothing: a checkpoint is kept only after what was read before it is
durable, so at worst some pages are read again. Cursors of pushes are kept in memory: what was not
pushed before a crash is pulled by the others.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from tierce.cluster import sync
from tierce.cluster.member import Member, View
from tierce.core.codec import decode, encode
from tierce.core.errors import BadRequest, TierceError, Unavailable
from tierce.core.limits import (
    CHECK_RECORDS_PER_SECOND,
    DAY_NANOSECONDS,
    FIRST_PULL_RECORDS,
    PEER_AVOIDED_SECONDS,
    PEER_BATCH_BLOBS,
    PULL_RECORDS,
    PURGE_SECONDS,
    PUSH_POLL_SECONDS,
    RANGE_CHECK_SECONDS,
    SYNC_RECORDS_PER_SECOND,
    SYNC_SECONDS,
    TOMBSTONE_DAYS,
)
from tierce.names.changes import Position
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node.comparing import compare
from tierce.node.names_messages import check_record
from tierce.node.names_peers import NamesPeers
from tierce.node.names_service import merge_heard
from tierce.node.pacing import Pace
from tierce.node.purging import purge
from tierce.node.sync_peer import SyncPeer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SyncPacing:
    """How often records are exchanged, and how fast: records read, or compared, in a second."""

    poll_seconds: float = PUSH_POLL_SECONDS
    sync_seconds: float = SYNC_SECONDS
    check_seconds: float = RANGE_CHECK_SECONDS
    purge_seconds: float = PURGE_SECONDS
    records_per_second: float = SYNC_RECORDS_PER_SECOND
    check_records_per_second: float = CHECK_RECORDS_PER_SECOND


_Take = Callable[[SyncPeer, Sequence[Record]], Awaitable[int]]


class RecordSync:
    """The exchange of records between this node and all live members.

    ``view`` is asked for the view in force; ``readers`` is how far members have read this node's
    feed (NamesService.readers); what one said before it went down or was started anew is dropped from
    there, as its disk may be another one. To be made, and used, inside one event loop.
    """

    def __init__(
        self,
        index: Index,
        peers: NamesPeers,
        view: Callable[[], View],
        *,
        readers: dict[str, Position],
        random: Random,
        pacing: SyncPacing | None = None,
        tombstone_days: float = TOMBSTONE_DAYS,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._index = index
        self._peers = peers
        self._view = view
        self._readers = readers
        self._random = random
        self._pacing = pacing or SyncPacing()
        self._tombstone_nanoseconds = int(tombstone_days * DAY_NANOSECONDS)
        self._now_ns = now_ns
        self._states: dict[str, SyncPeer] = {}
        self._followed: View | None = None
        self._pushes = False
        self._filling = asyncio.Lock()
        self._pace = Pace(self._pacing.records_per_second)
        self._check_pace = Pace(self._pacing.check_records_per_second)
        self._dropped = 0

    async def run(self) -> None:
        """Exchange records until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_regularly())
            tasks.create_task(self._purge_regularly())
            while True:
                self._follow(tasks)
                if not self._pushes and self.caught_up():
                    self._pushes = True
                    level = logging.INFO if self._states else logging.DEBUG
                    log.log(level, "sync done, with %d other nodes", len(self._states))
                await asyncio.sleep(self._pacing.poll_seconds)

    def caught_up(self) -> bool:
        """Whether each live member's feed has been read to its end once since this node's start."""
        view = self._view()
        return not view.is_seeking and all(
            each.node_id in self._states and self._states[each.node_id].was_read
            for each in sync.whom_to_read(view)
        )

    def hurry(self) -> None:
        """Somebody says that there is news: read the feeds of all live members now."""
        for peer in self._states.values():
            peer.woken.set()

    async def catch_up(self, seconds: float) -> bool:
        """Wait until :meth:`caught_up`, for so long at most; whether it is so."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self.caught_up():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.sleep(min(self._pacing.poll_seconds, left))
        return True

    def is_synced(self, member: Member) -> bool:
        """Whether a member's feed has been read to its end since it came up, or was started."""
        peer = self._states.get(member.node_id)
        return peer is not None and peer.is_synced and peer.member.boot == member.boot

    def status(self) -> dict[str, Any]:
        """How far this node is, in all and for each member. Ages in seconds."""
        now = asyncio.get_running_loop().time()
        return {
            "caught_up": self.caught_up(),
            "repaired": sum(each.repaired for each in self._states.values()),
            "refused": sum(each.refused for each in self._states.values()),
            "dropped_tombstones": self._dropped,
            "peers": {node_id: each.status(now) for node_id, each in self._states.items()},
        }

    async def purge(self, now_ns: int) -> int:
        """Forget the tombstones that may go (cluster/sync.py), at ``now_ns``; how many did.

        A tombstone goes when it is older than ``tombstone_days`` and every other member is up and
        has said, in its last pull, that it has read past it.
        """
        epochs, last = self._index.epochs(), self._index.last_seq()
        read = sync.read_by_all(self._view(), self._readers, epochs, last)
        if read is None or not self._index.counts().tombstones:
            return 0
        horizon = now_ns - self._tombstone_nanoseconds
        dropped = await purge(self._index, read=read, horizon=horizon, pace=self._check_pace)
        self._dropped += dropped
        return dropped

    # Following the membership

    def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Begin with members that are live, and end with those that are not."""
        view = self._view()
        if view is self._followed:
            return
        self._followed = view
        live = {each.node_id: each for each in sync.whom_to_read(view)}
        for node_id, peer in list(self._states.items()):
            if node_id not in live and peer.tasks:
                for task in peer.tasks:
                    task.cancel()
                peer.tasks, peer.is_synced, peer.phase = (), False, "down"
                self._readers.pop(node_id, None)
            if view.find(node_id) is None:
                del self._states[node_id]
        for node_id, member in live.items():
            known = self._states.setdefault(node_id, SyncPeer(member))
            if known.member.boot != member.boot:
                known.is_synced = False
                known.woken.set()
                self._readers.pop(node_id, None)
            known.member = member
            if not known.tasks:
                known.tasks = (
                    tasks.create_task(self._pull_regularly(known)),
                    tasks.create_task(self._push_changes(known)),
                )

    # Push

    def _is_ours(self, record: Record) -> bool:
        """Whether it is for this node to push a record: its own, or one whose node is no member.

        Such a one came from the upstream, where a cluster before this one had put it.
        """
        view = self._view()
        return record.node == view.me or view.find(record.node) is None

    async def _push_changes(self, peer: SyncPeer) -> None:
        """Send a member this node's own changes, as they come, from now on."""
        cursor = self._index.last_seq()
        pushes = False
        while True:
            last = self._index.last_seq()
            if not pushes or last <= cursor:
                # Once they begin, the first look still passes over what was read just before.
                cursor, pushes = last, self._pushes
                await asyncio.sleep(self._pacing.poll_seconds)
                continue
            try:
                changes = await self._index.changes(cursor, PEER_BATCH_BLOBS)
                own = [each.record for each in changes if self._is_ours(each.record)]
                if own:
                    await self._peers.push(peer.member, own)
                cursor = changes[-1].seq if changes else last
            except TierceError as error:
                log.info("%s did not take new records: %s", peer.member.node_id, error)
                await asyncio.sleep(PEER_AVOIDED_SECONDS)
                cursor = self._index.last_seq()  # what was missed, it pulls

    # Pull

    async def _pull_regularly(self, peer: SyncPeer) -> None:
        """Read a member's feed to its end, again and again."""
        failures = 0
        while True:
            peer.woken.clear()
            try:
                await self._read(peer)
                failures, peer.phase = 0, "resting"
            except TierceError as error:
                failures, peer.phase = failures + 1, "failing"
                level = logging.WARNING if failures == 1 else logging.DEBUG
                log.log(level, "records of %s were not read: %s", peer.member.node_id, error)
            rest = sync.rest_seconds(self._pacing.sync_seconds, failures, self._random.random())
            try:
                async with asyncio.timeout(rest):
                    await peer.woken.wait()
            except TimeoutError:
                continue

    async def _read(self, peer: SyncPeer) -> None:
        """Read a member's feed from the checkpoint to its end."""
        async with peer.reading:
            boot = peer.member.boot
            position = self._checkpoint(peer)
            limit = FIRST_PULL_RECORDS
            while True:
                peer.phase = "reading"
                answer = await self._peers.pull(peer.member, position, limit)
                peer.behind = answer.last - answer.position.seq
                if limit == FIRST_PULL_RECORDS and self._is_far_behind(peer.behind):
                    await self._fill(peer)
                    # What changed there in the meantime has numbers from here on.
                    position = Position(answer.position.epoch, answer.last)
                else:
                    await self._take(peer, answer.records)
                    position = answer.position
                await self._keep(peer, position)
                if not answer.more:
                    break
                limit = PULL_RECORDS
            peer.was_read = True
            peer.is_synced = peer.member.boot == boot

    def _is_far_behind(self, behind: int) -> bool:
        counts = self._index.counts()
        return sync.should_compare(behind, counts.objects + counts.tombstones)

    async def _fill(self, peer: SyncPeer) -> None:
        """Get what a member has by comparing. One member at a time: what the first one gave, the
        next one need not."""
        peer.phase = "waiting"
        async with self._filling:
            peer.phase = "comparing"
            log.info("comparing all records with those of %s", peer.member.node_id)
            received = await self._compare(peer, self._take, self._pace)
            log.info("got %d records from %s", received, peer.member.node_id)

    async def _take(self, peer: SyncPeer, records: Sequence[Record]) -> int:
        """Merge what a member sent, durably; how many records were news. Bad ones are left out."""
        good = []
        wrong: BadRequest | None = None
        for record in records:
            try:
                check_record(record)
                good.append(record)
            except BadRequest as error:
                wrong = error
        if wrong is not None:
            bad = len(records) - len(good)
            peer.refused += bad
            log.error("records of %s refused: %d; one is %s", peer.member.node_id, bad, wrong)
        peer.touch()
        await self._pace.spend(len(records))
        news = sum(await merge_heard(self._index, good, self._horizon()))
        peer.received += news
        return news

    async def _keep(self, peer: SyncPeer, position: Position) -> None:
        """Remember durably how far a member's feed was read."""
        if position != self._checkpoint(peer):
            await self._index.set_checkpoint(peer.member.node_id, encode(position))

    def _checkpoint(self, peer: SyncPeer) -> Position | None:
        kept = self._index.checkpoint(peer.member.node_id)
        if kept is None:
            return None
        try:
            return decode(kept, Position, "checkpoint")
        except BadRequest as error:
            log.error("%s is read from the start: %s", peer.member.node_id, error)
            return None

    # Comparing ranges

    async def _check_regularly(self) -> None:
        """Compare with one member now and then, in case that something went wrong before."""
        rest = self._pacing.sync_seconds
        while True:
            await asyncio.sleep(rest * (0.75 + 0.5 * self._random.random()))
            synced = [each.member for each in self._states.values() if each.is_synced]
            chosen = sync.whom_to_check(synced, self._random.random())
            if chosen is None:
                continue
            rest = self._pacing.check_seconds
            try:
                await self.check(chosen)
            except TierceError as error:
                log.info("records were not compared with %s: %s", chosen.node_id, error)

    async def check(self, member: Member) -> int:
        """Compare all records with a live member's; how many were missing or old here, and are mended.

        Only those count that reading its feed to the end does not bring. Raises Unavailable.
        """
        peer = self._states.get(member.node_id)
        if peer is None:
            raise Unavailable(f"{member.node_id} is not a member that was read")

        async def take(peer: SyncPeer, records: Sequence[Record]) -> int:
            if records:
                await self._read(peer)  # what is on its way anyhow is no fault
            return await self._take(peer, records)

        repaired = await self._compare(peer, take, self._check_pace)
        if repaired:
            peer.repaired += repaired
            log.warning(
                "%d records of %s had not come by its feed, and were mended now",
                repaired,
                member.node_id,
            )
        return repaired

    async def _compare(self, peer: SyncPeer, take: _Take, pace: Pace) -> int:
        news = await compare(
            self._index,
            self._peers,
            peer.member,
            partial(take, peer),
            horizon=self._horizon(),
            pace=pace,
        )
        peer.touch()
        return news

    async def _purge_regularly(self) -> None:
        """Forget tombstones now and then."""
        while True:
            await asyncio.sleep(self._pacing.purge_seconds)
            try:
                await self.purge(self._now_ns())
            except TierceError as error:
                log.error("tombstones were not dropped: %s", error)

    def _horizon(self) -> int:
        return self._now_ns() - self._tombstone_nanoseconds
