"""Deleting a file of dtfc on all peers, also on those that can't be reached now.

What a peer could not be told is kept as an object in a bucket of its own, so it outlives this process
and, in a cluster, this disk; the node that took the order tries again until the peer has heard it. If
the file was put again meanwhile, here or there, or the peer is listed no more for some minutes, the
order is dropped. Until then nothing is loaded from that peer under that hash (``waits``): it would be
there again.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote

from tierce.blobs.spool import Spooler
from tierce.core.digest import DEFAULT_ALGORITHM, Digest
from tierce.core.dtfc import BUCKET, DELETES, digest_in
from tierce.core.errors import Conflict, TierceError, Unavailable
from tierce.core.limits import (
    DTFC_DELETE_SECONDS,
    DTFC_RETRY_MAX_SECONDS,
    DTFC_RETRY_MIN_SECONDS,
    LIST_LIMIT_DEFAULT,
)
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node.dtfc_peers import Peer, PeerList
from tierce.node.object_path import ObjectPath

log = logging.getLogger(__name__)

DELETED, UNKNOWN, QUEUED = "deleted", "not found", "queued"


class PeerDeletes:
    """The orders of a node to its peers. Run it in the agent."""

    def __init__(
        self,
        node_id: str,
        peers: PeerList,
        objects: ObjectPath,
        index: Index,
        spooler: Spooler,
        *,
        answer_seconds: float = DTFC_DELETE_SECONDS,
        retry_min_seconds: float = DTFC_RETRY_MIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node_id = node_id
        self._peers = peers
        self._objects = objects
        self._index = index
        self._spooler = spooler
        self._answer_seconds = answer_seconds
        self._retry_min_seconds = retry_min_seconds
        self._clock = clock
        self._rests: dict[str, tuple[float, float]] = {}
        self._gone_since: dict[str, float] = {}
        self.waiting = 0

    async def delete(self, digest: Digest) -> dict[str, str]:
        """Tell all peers; what became of it by URL. What is queued is durable. Raises Unavailable."""
        peers = list(self._peers.peers())
        words = await asyncio.gather(*(self._tell(each, digest) for each in peers))
        for peer, word in zip(peers, words, strict=True):
            if word == QUEUED:
                await self._queue(peer, digest)
        return {peer.url: word for peer, word in zip(peers, words, strict=True)}

    def waits(self, peer: Peer, digest: Digest) -> bool:
        """Whether a peer is still to be told: what it has of that file counts as deleted."""
        order = self._index.get(DELETES, _key(peer.url, digest))
        return order is not None and not order.deleted and not self._is_put_again(order, digest)

    async def run(self) -> None:
        """Try again what is queued, until cancelled."""
        while True:
            await asyncio.sleep(self._retry_min_seconds)
            try:
                await self.try_again()
            except TierceError as error:
                log.warning("orders to delete on peers could not be looked through: %s", error)
            except Exception:  # the other orders must not wait for a restart
                log.exception("looking through the orders to delete on peers failed")

    async def try_again(self) -> None:
        """Go once through what is queued here. Raises what index and objects do."""
        listed = {each.url: each for each in self._peers.peers()}
        for url in listed:
            self._gone_since.pop(url, None)
        after, waiting = "", 0
        while page := await self._index.list_after(DELETES, "", after, LIST_LIMIT_DEFAULT):
            for order in page:
                if order.node == self._node_id and not await self._is_done(order, listed):
                    waiting += 1
            after = page[-1].key
        self.waiting = waiting

    async def _is_done(self, order: Record, listed: Mapping[str, Peer]) -> bool:
        """Carry out one order, unless its peer is to rest; True if it is off the queue."""
        hash_text, _, quoted = order.key.partition("/")
        url, digest = unquote(quoted), digest_in(hash_text)
        if digest is not None and not self._is_put_again(order, digest):
            peer = listed.get(url)
            if peer is None:
                if not self._is_long_gone(url):
                    return False
            elif not await self._is_told(peer, digest, order.modified_at):
                return False

        def same(found: Record | None) -> None:
            if found is None or found.rank != order.rank:
                raise Conflict("the order was given again")

        try:
            await self._objects.delete(DELETES, order.key, same)
        except Conflict:
            return False
        return True

    async def _is_told(self, peer: Peer, digest: Digest, ordered_at: int) -> bool:
        until, rest = self._rests.get(peer.url, (0.0, self._retry_min_seconds))
        if self._clock() < until:
            return False
        if await self._tell(peer, digest, ordered_at) == QUEUED:
            rest = min(2 * rest, DTFC_RETRY_MAX_SECONDS)
            self._rests[peer.url] = self._clock() + rest, rest
            return False
        self._rests.pop(peer.url, None)
        log.info("%s has been told to delete %s", peer.url, digest)
        return True

    def _is_put_again(self, order: Record, digest: Digest) -> bool:
        file = self._index.get(BUCKET, digest.raw.hex())
        return (
            file is not None
            and not file.deleted
            and file.digest == digest
            and file.rank > order.rank
        )

    def _is_long_gone(self, url: str) -> bool:
        """Whether a peer is no longer listed, and that for some time: a list may be in the making."""
        since = self._gone_since.setdefault(url, self._clock())
        return self._clock() - since >= DTFC_RETRY_MAX_SECONDS

    async def _tell(self, peer: Peer, digest: Digest, ordered_at: int | None = None) -> str:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return DELETED if await peer.delete(digest, ordered_at) else UNKNOWN
        except (Unavailable, TimeoutError) as error:
            log.info("%s could not be told to delete %s: %s", peer.url, digest, error)
            return QUEUED

    async def _queue(self, peer: Peer, digest: Digest) -> None:
        content = json.dumps({"delete": str(digest), "peer": peer.url}).encode()
        async with self._spooler.holding(content, DEFAULT_ALGORITHM) as spool:
            draft = Record(bucket=DELETES, key=_key(peer.url, digest))
            await self._objects.put(spool, draft, None)


def _key(url: str, digest: Digest) -> str:
    return f"{digest.raw.hex()}/{quote(url, safe='')}"
