"""Large blobs from peers: one fetch for all who want the whole blob, resumed elsewhere on failure.

What comes is written to a spool, from which every reader follows at its own speed: memory stays
bounded, and a slow reader holds nobody up. No reader gets the last byte before the digest of the
whole was found right. Parts of a blob, and blobs that there is no room to spool, are passed on
directly, with as little memory; of a part, the peer has checked the checksums of its pieces.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable

from tierce.blobs.spool import Spooler, read_at
from tierce.cluster.member import Member
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import Corrupt, DigestMismatch, NotFound, TierceError, Unavailable
from tierce.core.limits import PIECE_BYTES
from tierce.node.peers import Peers

log = logging.getLogger(__name__)

Members = Callable[[], list[Member]]


class RemoteBlob:
    """An open blob (blobs/store.py) of which peers have the bytes. ``share`` gives the common fetch."""

    def __init__(
        self,
        digest: Digest,
        size: int,
        *,
        peers: Peers,
        members: Members,
        share: "Callable[[], LargeFetch | None]",
    ) -> None:
        self.digest = digest
        self.size = size
        self.data: bytes | None = None
        self._peers = peers
        self._members = members
        self._share = share

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        end = self.size if stop is None else min(stop, self.size)
        if (start, end) != (0, self.size):
            pieces = resuming(self._peers, self._members, self.digest, self.size, start, end)
        elif (fetch := self._share()) is not None:
            pieces = fetch.stream()
        else:
            pieces = _verified(
                self.digest,
                resuming(self._peers, self._members, self.digest, self.size, 0, end),
            )
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    async def aclose(self) -> None:
        pass


class LargeFetch:
    """One whole blob on its way here. It ends when nobody reads it any more."""

    def __init__(
        self,
        digest: Digest,
        size: int,
        *,
        peers: Peers,
        members: Members,
        spooler: Spooler,
        on_end: "Callable[[LargeFetch], None]",
    ) -> None:
        self._digest = digest
        self._size = size
        self._pool = spooler.pool
        self._spool = spooler.new(
            digest.algorithm, expected=(digest,), memory_limit_bytes=-1, passing=True
        )
        self._pieces = resuming(peers, members, digest, size, 0, size)
        self._on_end = on_end
        self._readers = 0
        self._fd = -1
        self._finished = False
        self._failure: TierceError | None = None
        self._progress = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self.is_closed = False

    @property
    def has_failed(self) -> bool:
        """Whether who reads on will be told of a failure."""
        return self._failure is not None

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the blob from its beginning, as far as it is here, then as it comes."""
        position = 0
        self._readers += 1
        try:
            while position < self._size:
                end = await self._available(position)
                if self._fd < 0:
                    assert self._spool.path is not None, "what is readable is in a file"
                    self._fd = os.open(self._spool.path, os.O_RDONLY | os.O_CLOEXEC)
                length = min(PIECE_BYTES, end - position)
                piece = await read_at(self._pool, self._fd, length, position)
                position += len(piece)
                yield piece
        finally:
            self._readers -= 1
            if not self._readers:
                await self.close()

    async def close(self) -> None:
        """Give the fetch up, whatever has come. Readers that are left get Unavailable."""
        if not self.is_closed:
            self.is_closed = True
            if self._failure is None:
                self._failure = Unavailable("the reading was given up", hint="Try again.")
            self._on_end(self)
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._pieces.aclose()
            await self._spool.discard()
        if self._fd >= 0 and not self._readers:
            os.close(self._fd)
            self._fd = -1

    async def _available(self, position: int) -> int:
        """Wait for bytes after ``position``; returns how far they go. Raises the fetch's failure."""
        while True:
            if self._failure is not None:
                raise self._failure
            # The last byte is held back until the digest is known to fit.
            end = self._size if self._finished else min(self._spool.readable_bytes, self._size - 1)
            if end > position:
                return end
            await self._progress.wait()

    async def _run(self) -> None:
        try:
            async for piece in self._pieces:
                before = self._spool.readable_bytes
                await self._spool.write(piece)
                if self._spool.readable_bytes > before:
                    self._notify()
            await self._spool.finish()
            self._finished = True
        except DigestMismatch as error:
            log.error("a blob from other nodes was not what it should be: %s", error)
            self._failure = Corrupt(
                f"what other nodes sent as {self._digest} has another digest", hint=error.hint
            )
        except TierceError as error:
            self._failure = error
        finally:
            self._notify()

    def _notify(self) -> None:
        """Wake the readers; those that wait next wait for what comes next."""
        self._progress.set()
        self._progress = asyncio.Event()


async def resuming(
    peers: Peers, members: Members, digest: Digest, size: int, start: int, stop: int
) -> AsyncGenerator[bytes, None]:
    """The bytes of [start, stop) from one peer, and from the next one where that one fails.

    Raises Unavailable when all have failed one after another, or NotFound when none has the blob.
    """
    position = start
    broken_off: list[str] = []
    while position < stop:
        before = position
        failures: list[TierceError] = []
        for member in sorted(members(), key=lambda each: each.node_id in broken_off):
            try:
                async with peers.open(member, digest, start=position, stop=stop) as incoming:
                    if incoming.size != size:
                        raise Corrupt(f"{member.node_id} has {incoming.size} bytes of {digest}")
                    async for piece in incoming.pieces:
                        position += len(piece)
                        yield piece
            except TierceError as error:
                failures.append(error)
                broken_off.append(member.node_id)
                log.info("%s stopped sending %s: %s", member.node_id, digest, error)
            if position > before:
                break
        else:
            if failures and all(isinstance(each, NotFound) for each in failures):
                raise NotFound(f"{digest} is not here")
            raise Unavailable(
                f"no node could send {digest}"
                + (f"; the last failure: {failures[-1].message}" if failures else ""),
                hint="Try again when more nodes answer; see `tierce cluster status`.",
            )


async def _verified(
    digest: Digest, pieces: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The same pieces, the last one only after the digest of the whole fits. Raises Corrupt."""
    hasher = new_hasher(digest.algorithm)
    held = b""
    try:
        async for piece in pieces:
            hasher.update(piece)
            if held:
                yield held
            held = piece
        if hasher.digest() != digest.raw:
            raise Corrupt(f"what other nodes sent as {digest} has another digest")
        yield held
    finally:
        await pieces.aclose()
