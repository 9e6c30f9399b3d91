"""Reading from other nodes what this one does not have.

The best placed members are asked one after another, each a short hedge delay after the one before
unless that one failed sooner; the first answer wins. Then all the rest are asked at once. So a peer
that is slow or cut off costs a reader the hedge delay, and all together at most READ_TOTAL_SECONDS.
Readers who miss the same blob at the same time share one fetch.

Small blobs are verified whole before anyone sees them. Large ones come as they are read
(fetching_large.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from tierce.blobs.packed import SmallBlob
from tierce.blobs.spool import Spooler
from tierce.blobs.store import OpenBlob
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import READ_HEDGE_SECONDS, READ_TOTAL_SECONDS
from tierce.node.avoiding import Avoiding
from tierce.node.fetching_large import LargeFetch, RemoteBlob
from tierce.node.peers import Peers

T = TypeVar("T")


class _Found(NamedTuple):
    """A small blob's bytes, or a large one's size in bytes, and who answered."""

    content: bytes | int
    member: Member


class Fetcher:
    """Finds blobs on peers. ``on_missing`` hears of blobs that this node should have and has not."""

    def __init__(
        self,
        peers: Peers,
        placement: Callable[[], Placement],
        avoiding: Avoiding,
        spooler: Spooler,
        on_missing: Callable[[Digest], None],
    ) -> None:
        self._peers = peers
        self._placement = placement
        self._avoiding = avoiding
        self._spooler = spooler
        self._on_missing = on_missing
        self._flights: dict[Digest, asyncio.Task[_Found]] = {}
        self._large: dict[Digest, LargeFetch] = {}

    async def open(self, digest: Digest, *, first: Sequence[str] = ()) -> OpenBlob:
        """Open a blob that a peer has. Raises NotFound, or Unavailable if that can't be said.

        ``first`` are the ids of nodes to be asked before all others.
        """
        self._check_not_alone(digest)
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(self._fetch(digest, first))
            self._flights[digest] = flight
            flight.add_done_callback(lambda done: self._landed(digest, done))
        found = await asyncio.shield(flight)
        if isinstance(found.content, bytes):
            return SmallBlob(digest, found.content)
        return RemoteBlob(
            digest,
            found.content,
            peers=self._peers,
            members=lambda: self._members(digest, first=found.member),
            share=lambda: self._share(digest, found),
        )

    async def size(self, digest: Digest) -> int:
        """The size in bytes of a blob that a peer has. Raises as :meth:`open` does."""
        self._check_not_alone(digest)

        async def ask(member: Member) -> int:
            # A Cask node tells no size unless it is asked for the whole.
            prove = member.dialect == "cask"
            (size,) = await self._peers.find(member, [digest], prove=prove)
            if size is None:
                raise NotFound(f"{digest} is not on {member.node_id}")
            return size

        return await self._race(digest, ask)

    async def close(self) -> None:
        """Give up what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for fetch in list(self._large.values()):
            await fetch.close()

    def _landed(self, digest: Digest, flight: "asyncio.Task[_Found]") -> None:
        self._flights.pop(digest, None)
        if not flight.cancelled():
            flight.exception()  # all who waited for it may have left; then it is nobody's

    def _check_not_alone(self, digest: Digest) -> None:
        if self._placement().is_alone:
            raise NotFound(f"{digest} is not here")

    def _members(self, digest: Digest, first: Member | None = None) -> list[Member]:
        """Whom to ask, in order, this node left out."""
        placement = self._placement()
        me = placement.view.me
        found = [each for each in placement.readers(digest) if each.node_id != me]
        found = self._avoiding.sorted(found)
        if first is not None:
            found = [first, *(each for each in found if each.node_id != first.node_id)]
        return found

    async def _fetch(self, digest: Digest, first: Sequence[str]) -> _Found:
        async def ask(member: Member) -> _Found:
            return _Found(await self._peers.read(member, digest), member)

        found = await self._race(digest, ask, first)
        placement = self._placement()
        if placement.me.writable and placement.me in placement.owners(digest):
            self._on_missing(digest)
        return found

    def _share(self, digest: Digest, found: _Found) -> LargeFetch | None:
        """The fetch of a large blob that is under way, or a new one; None if there is no room."""
        assert isinstance(found.content, int)
        fetch = self._large.get(digest)
        if fetch is None or fetch.has_failed:
            space = self._spooler.space
            if space.why_not(found.content, in_file=True, passing=True) is not None:
                return None
            fetch = LargeFetch(
                digest,
                found.content,
                peers=self._peers,
                members=lambda: self._members(digest, first=found.member),
                spooler=self._spooler,
                on_end=lambda ended: self._forget(digest, ended),
            )
            self._large[digest] = fetch
        return fetch

    def _forget(self, digest: Digest, ended: LargeFetch) -> None:
        if self._large.get(digest) is ended:
            del self._large[digest]

    async def _race(
        self, digest: Digest, ask: Callable[[Member], Awaitable[T]], first: Sequence[str] = ()
    ) -> T:
        """The first good answer, of members asked in order with the hedge delay in between."""
        placement = self._placement()
        waiting = sorted(self._members(digest), key=lambda each: each.node_id not in first)
        hedged = placement.replication
        running: list[tuple[asyncio.Task[T], Member, float]] = []
        unreached = [each.node_id for each in placement.view.members if not each.is_up]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_TOTAL_SECONDS
        asked = 0
        try:
            while waiting or running:
                # The first few one by one; if none of them has it, it could be anywhere.
                for _ in range(1 if asked < hedged else len(waiting)):
                    if waiting:
                        member = waiting.pop(0)
                        running.append(
                            (asyncio.create_task(_asking(ask, member)), member, loop.time())
                        )
                        asked += 1
                patience = READ_HEDGE_SECONDS if waiting else deadline - loop.time()
                await asyncio.wait(
                    [task for task, _, _ in running],
                    timeout=max(0.0, patience),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                still = []
                for task, member, started in running:
                    if not task.done():
                        still.append((task, member, started))
                        continue
                    try:
                        answer = task.result()
                    except NotFound:
                        self._avoiding.answered(member)
                    except TierceError:
                        self._avoiding.failed(member)
                        unreached.append(member.node_id)
                    else:
                        self._avoiding.answered(member)
                        return answer
                running = still
                if running and loop.time() >= deadline:
                    unreached += [member.node_id for _, member, _ in running]
                    break
        finally:
            for task, member, started in running:
                if not task.done() and loop.time() - started >= READ_HEDGE_SECONDS:
                    self._avoiding.failed(member)
                task.cancel()
            await asyncio.gather(*(task for task, _, _ in running), return_exceptions=True)
        raise _not_found(digest, unreached, placement)


async def _asking(ask: Callable[[Member], Awaitable[T]], member: Member) -> T:
    return await ask(member)


def _not_found(digest: Digest, unreached: list[str], placement: Placement) -> TierceError:
    """Whether nobody has the blob, or nobody can know.

    What was acknowledged is on ``replication`` nodes, unless a node was just added or has lost its
    disk. If fewer than that gave no answer, one of the others would have it.
    """
    whole = all(each.is_whole for each in placement.view.members if each.dialect == "tierce")
    if placement.view.is_seeking:
        return Unavailable(
            f"{digest} is not here, and no other node was reached yet",
            hint="Start one of the nodes that --join names, and check the cluster secret.",
        )
    if unreached and not (whole and len(unreached) < placement.replication):
        return Unavailable(
            f"{digest} is not on the nodes that answered, and these did not:"
            f" {', '.join(sorted(unreached))}",
            hint="Try again when they are back; see `tierce cluster status`.",
        )
    return NotFound(f"{digest} is not here")
