"""Writing: a finished body goes to as many nodes as are asked for, at once, before anyone is told.

The best placed writable members get it. One that fails is replaced by the next in order, and so is
one that is late, without giving it up: whoever has it on disk first counts. What too few nodes took
is left to healing, which finds it below its target; the caller was told that it failed.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from tierce.blobs.spool import Spool, SpoolSource
from tierce.blobs.store import BlobStore
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.errors import Full, TierceError, Unavailable
from tierce.core.limits import PEER_BATCH_BYTES, WRITE_HEDGE_SECONDS
from tierce.node.avoiding import Avoiding
from tierce.node.peers import Peers


class Space(Protocol):
    """Whether there is room (blobs/space.py)."""

    def check(
        self, incoming_bytes: int = 0, *, in_file: bool = False, passing: bool = False
    ) -> None: ...

    def why_not(
        self, incoming_bytes: int = 0, *, in_file: bool = False, passing: bool = False
    ) -> TierceError | None: ...


class Elsewhere(NamedTuple):
    """Who else has a copy now, and whether this node is to keep one itself."""

    holders: tuple[Member, ...]
    keeps_here: bool


class Replicator:
    """Stores bodies here and on peers. ``placement`` gives the placement in force."""

    def __init__(
        self,
        store: BlobStore,
        space: Space,
        peers: Peers,
        placement: Callable[[], Placement],
        avoiding: Avoiding,
    ) -> None:
        self._store = store
        self._space = space
        self._peers = peers
        self._placement = placement
        self._avoiding = avoiding

    async def store(self, spool: Spool) -> bool:
        """Keep a finished spool on ``replication`` nodes; durable there when this returns.

        True if any of them had not had it. Raises Unavailable if too few could take it, or the
        store's own error where this node alone is asked to keep it.
        """
        placement = self._placement()
        if placement.is_alone:
            return await self._store.put(spool)
        source = SpoolSource(spool)
        copying = _Copying(
            self,
            spool,
            source,
            placement,
            self.candidates(source, placement),
            placement.replication,
        )
        return await copying.run_to_end()

    async def store_elsewhere(self, spool: Spool) -> Elsewhere:
        """Keep a finished spool on other nodes, for the sake of a record that is about to be written.

        On as many as are asked for, one less if this node is to keep a copy itself: the caller does
        that, together with the record. It is if it is well placed, or if there are no others left.
        Raises Unavailable if too few could take it.
        """
        placement = self._placement()
        if placement.is_alone:
            return Elsewhere((), keeps_here=True)
        source = SpoolSource(spool)
        candidates = self.candidates(source, placement)
        wanted = placement.replication
        in_file = spool.path is not None
        may_keep = (
            placement.me in candidates
            and self._space.why_not(spool.size, in_file=in_file, passing=True) is None
        )
        keeps_here = may_keep and placement.me in candidates[:wanted]
        others = [each for each in candidates if each.node_id != placement.view.me]
        copying = _Copying(
            self, spool, source, placement, others, wanted - int(keeps_here), managed=True
        )
        try:
            await copying.run_to_end()
        except TierceError:
            if keeps_here or not may_keep or copying.stored < wanted - 1:
                raise
            keeps_here = True
        return Elsewhere(tuple(copying.holders), keeps_here)

    async def give(self, member: Member, source: SpoolSource, *, managed: bool = False) -> bool:
        """Give one peer its copy, and note how it fared."""
        try:
            created = await self._peers.store(member, source, managed=managed)
        except Unavailable:
            self._avoiding.failed(member)
            raise
        self._avoiding.answered(member)
        return created

    def were_late(self, members: Iterable[Member]) -> None:
        """Ask these last for a while: the next write need not wait for them too."""
        for member in members:
            self._avoiding.failed(member)

    def candidates(self, source: SpoolSource, placement: Placement) -> list[Member]:
        """Who may take a copy, in the order in which they are asked."""
        return self._avoiding.sorted(placement.writers(source.digest))

    async def keep(self, spool: Spool) -> bool:
        """Store this node's own copy. Raises Full; read-only nodes are not asked."""
        self._space.check(spool.size, in_file=spool.path is not None, passing=True)
        return await self._store.put(spool)


class _Copying:
    """One body on its way to its owners."""

    def __init__(
        self,
        replicator: Replicator,
        spool: Spool,
        source: SpoolSource,
        placement: Placement,
        candidates: list[Member],
        wanted: int,
        *,
        managed: bool = False,
    ) -> None:
        self._replicator = replicator
        self._spool = spool
        self._source = source
        self._me = placement.view.me
        self._wanted = wanted
        self._managed = managed
        # A large body takes its time wherever it goes.
        self._patience_seconds = WRITE_HEDGE_SECONDS * (1 + source.size / PEER_BATCH_BYTES)
        self._waiting = candidates
        self._running: list[tuple[asyncio.Task[bool], Member]] = []
        self._failures: list[TierceError] = []
        self.holders: list[Member] = []
        self._created = False

    @property
    def stored(self) -> int:
        """How many have it."""
        return len(self.holders)

    async def run_to_end(self) -> bool:
        """Run, and clean up after it."""
        try:
            return await self.run()
        finally:
            await self.end()
            self._source.close()

    async def run(self) -> bool:
        """Have it stored often enough. Raises Unavailable, or the only failure there was."""
        late = 0
        while self.stored < self._wanted:
            while self._waiting and len(self._running) - late < self._wanted - self.stored:
                self._start(self._waiting.pop(0))
            if not self._running:
                raise self._failure()
            await asyncio.wait(
                [task for task, _ in self._running],
                timeout=self._patience_seconds if self._waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not self._collect():
                late = len(self._running)
                self._replicator.were_late(member for _, member in self._running)
            late = min(late, len(self._running))
        return self._created

    async def end(self) -> None:
        """Give up those that were too late."""
        for task, _ in self._running:
            task.cancel()
        await asyncio.gather(*(task for task, _ in self._running), return_exceptions=True)

    def _start(self, member: Member) -> None:
        if member.node_id == self._me:
            task = asyncio.create_task(self._replicator.keep(self._spool))
        else:
            task = asyncio.create_task(
                self._replicator.give(member, self._source, managed=self._managed)
            )
        self._running.append((task, member))

    def _collect(self) -> bool:
        """Count those that are done; False if none is."""
        done = [(task, member) for task, member in self._running if task.done()]
        self._running = [pair for pair in self._running if not pair[0].done()]
        for task, member in done:
            try:
                self._created |= task.result()
                self.holders.append(member)
            except TierceError as error:
                self._failures.append(error)
        return bool(done)

    def _failure(self) -> TierceError:
        last = self._failures[-1] if self._failures else None
        if last is not None and all(isinstance(each, Full) for each in self._failures):
            return last
        reason = f"; the last failure: {last.message}" if last is not None else ""
        return Unavailable(
            f"{self._wanted} copies are asked for, and {self.stored} could be stored{reason}",
            hint="Nothing is acknowledged. Try again when more nodes answer; see "
            "`tierce cluster status`.",
        )
