"""The way of blobs through the cluster, as the service sees it: store, open, find, delete.

Every process that has doors has one. It needs to know the members, and nothing of how they are kept
up to date: whoever does that gives each new view to the :class:`PlacementCell`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobStore, OpenBlob
from tierce.cluster.member import View
from tierce.cluster.placement import Placement, keeps
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt, Full, NotFound, Unavailable
from tierce.node.avoiding import Avoiding
from tierce.node.fetcher import Fetcher
from tierce.node.late_store import LateStore, opened
from tierce.node.peers import Peers
from tierce.node.replacing import ReplacedBlob
from tierce.node.replicator import Elsewhere, Replicator


class PlacementCell:
    """The placement in force. Call it to have it; ``update`` replaces it when the view changed."""

    def __init__(self, view: View) -> None:
        self._placement = Placement(view)

    def __call__(self) -> Placement:
        return self._placement

    def update(self, view: View) -> bool:
        """Take a new view; False if blobs belong where they did before."""
        before, self._placement = self._placement, Placement(view)
        return before.substance != self._placement.substance


class DataPath:
    """Reads and writes of one process. ``on_missing`` hears of blobs that should be here and are not.

    ``delete_here`` removes this node's copy, and refuses to for the content of an object.
    ``late_seconds``: peers are asked too if the store takes longer than that to answer a reader; None
    for a store that is on this node's disk.
    """

    def __init__(
        self,
        store: BlobStore,
        spooler: Spooler,
        space: SpaceGuard,
        peers: Peers,
        placement: Callable[[], Placement],
        on_missing: Callable[[Digest], None],
        delete_here: Callable[[Digest], Awaitable[bool]] | None = None,
        *,
        late_seconds: float | None = None,
    ) -> None:
        self._late = None if late_seconds is None else LateStore(late_seconds)
        self._delete_here = delete_here or store.delete
        self._local = store
        self._peers = peers
        self._placement = placement
        avoiding = Avoiding()
        self._replicator = Replicator(store, space, peers, placement, avoiding)
        self.fetcher = Fetcher(peers, placement, avoiding, spooler, on_missing)

    @property
    def is_alone(self) -> bool:
        """Whether this node is all there is of the cluster."""
        return self._placement().is_alone

    def check_writable(self, algorithm: str) -> None:
        """Raise Unavailable if too few nodes take new blobs now."""
        self._placement().check_writable(algorithm)

    async def store(self, spool: Spool) -> bool:
        """Keep a finished spool on as many nodes as are asked for (see Replicator.store)."""
        return await self._replicator.store(spool)

    async def store_elsewhere(self, spool: Spool) -> Elsewhere:
        """Keep a finished spool on other nodes (see Replicator.store_elsewhere)."""
        return await self._replicator.store_elsewhere(spool)

    async def open(self, digest: Digest, *, first: Sequence[str] = ()) -> OpenBlob:
        """Open a blob, wherever it is. Raises NotFound, or Unavailable if that can't be said.

        ``first`` are the ids of nodes that probably have it, if this one has not.
        """
        return (await self.locate(digest, first=first))[0]

    async def locate(self, digest: Digest, *, first: Sequence[str] = ()) -> tuple[OpenBlob, bool]:
        """What :meth:`open` does, and whether it was this node's copy that was opened."""
        try:
            blob, is_here = await self._open_in_time(digest, first)
        except NotFound as error:
            if not error.found_bad or self.is_alone:
                return await self.fetcher.open(digest, first=first), False
            bad = error
        except (Unavailable, Corrupt, Full) as error:
            # The disk here fails; others may have the blob.
            if self.is_alone:
                raise
            try:
                return await self.fetcher.open(digest, first=first), False
            except NotFound:
                raise error from None  # that others have none tells nothing of the copy here
        else:
            if blob.data is not None or not is_here or self.is_alone:
                return blob, is_here
            return ReplacedBlob(blob, self.fetcher.open, self._late), True
        try:
            return await self.fetcher.open(digest, first=first), False
        except NotFound:
            raise Unavailable(
                f"the copy of {digest} here was bad, and no other node that answers has one",
                hint="Try again when all nodes are up; the bad copy is in quarantine.",
            ) from bad

    async def _open_in_time(self, digest: Digest, first: Sequence[str]) -> tuple[OpenBlob, bool]:
        """Open what is here, or elsewhere if the store is late; whether it is here."""
        if self._late is None or self.is_alone:
            return await self._local.open(digest), True
        opening = asyncio.create_task(self._local.open(digest))
        blob = await self._late.sooner(opening, lambda: self.fetcher.open(digest, first=first))
        if blob is None:
            return await opening, True
        self._late.leave(opening, opened(opening))
        return blob, False

    async def size(self, digest: Digest) -> int:
        """Its size in bytes. Raises as :meth:`open` does."""
        try:
            return await self._local.stat(digest)
        except NotFound:
            return await self.fetcher.size(digest)
        except (Unavailable, Corrupt, Full) as error:
            if self.is_alone:
                raise
            try:
                return await self.fetcher.size(digest)
            except NotFound:
                raise error from None

    async def delete(self, digest: Digest) -> bool:
        """Remove a blob from every node; False if none had it.

        Raises Unavailable, before or after a part of the copies is gone, unless all could be asked.
        """
        placement = self._placement()
        if placement.is_alone:
            return await self._delete_here(digest)
        if placement.view.is_seeking:
            raise Unavailable(
                f"{digest} can't be deleted: this node has not yet reached any node that it is to join",
                hint="Start one of those that --join names, and check the cluster secret.",
            )
        away = [each.node_id for each in placement.view.members if not each.is_up]
        if away:
            raise Unavailable(
                f"{digest} can't be deleted while nodes are down that may have it:"
                f" {', '.join(away)}",
                hint="Start them, or drop them with `tierce cluster forget`, then delete again.",
            )
        for member in placement.view.members:
            if member.dialect == "cask" and keeps(member, digest.algorithm):
                raise Conflict(
                    f"{digest} can't be deleted while {member.node_id} is a member: Cask nodes"
                    " delete nothing",
                    hint="Take the Cask nodes out of the cluster first.",
                )
        # This node's agent is asked as the others are: it must not take the blob back either.
        answers = await asyncio.gather(
            *(self._peers.delete(member, digest) for member in placement.view.members),
            return_exceptions=True,  # none is left running when this fails
        )
        deleted = False
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            deleted |= answer
        return deleted

    async def close(self) -> None:
        """Give up what is under way."""
        if self._late is not None:
            await self._late.close()
        await self.fetcher.close()
