"""Blobs as doors see them: take a body and say what it is, find, list, remove."""

from collections.abc import AsyncIterable, Sequence
from typing import NamedTuple

from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobInfo, BlobStore, Counts, OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import TooLarge, Unavailable


class Stored(NamedTuple):
    """What a body became: its name, its size in bytes, and whether it was new here."""

    digest: Digest
    size: int
    created: bool


class Blobs:
    """The node's blobs. ``replication`` is the number of nodes that must hold a new blob."""

    def __init__(
        self, store: BlobStore, spooler: Spooler, space: SpaceGuard, *, replication: int = 1
    ) -> None:
        self._store = store
        self._spooler = spooler
        self._replication = replication
        self.space = space

    def check_writable(self, announced_bytes: int | None = None) -> None:
        """Refuse a body before it comes. Raises TooLarge, ReadOnly, Full or Unavailable."""
        limit = self._spooler.blob_limit_bytes
        if announced_bytes is not None and announced_bytes > limit:
            raise TooLarge(
                f"the body has {announced_bytes} bytes, and the largest that is taken has {limit}",
                hint="Send less at once, or raise the setting blob_limit_bytes.",
            )
        size = announced_bytes or 0
        self.space.check(size, in_file=size > self._spooler.memory_limit_bytes)
        if self._replication > 1:
            raise Unavailable(
                f"{self._replication} copies are asked for, and this node is not in a cluster",
                hint="Set replication to 1 for a node on its own.",
            )

    async def receive(
        self,
        body: AsyncIterable[bytes],
        algorithm: str,
        *,
        expected: Sequence[Digest] = (),
        announced_bytes: int | None = None,
    ) -> Stored:
        """Store a body under its digest; durable when this returns.

        Raises what :meth:`check_writable` raises, BadRequest for an unknown algorithm,
        DigestMismatch if the body lacks one of the ``expected`` digests, and whatever ``body``
        raises. After an error nothing is stored.
        """
        self.check_writable(announced_bytes)
        spool = self._spooler.new(algorithm, expected=tuple(expected))
        try:
            async for data in body:
                await spool.write(data)
            digest = await spool.finish()
            created = await self._store.put(spool)
            return Stored(digest, spool.size, created)
        finally:
            await spool.discard()

    async def open(self, digest: Digest) -> OpenBlob:
        """Open a blob for reading; close it. Raises NotFound."""
        return await self._store.open(digest)

    async def size(self, digest: Digest) -> int:
        """Size in bytes. Raises NotFound."""
        return await self._store.stat(digest)

    async def delete(self, digest: Digest) -> bool:
        """Remove this node's copy; False if there was none."""
        return await self._store.delete(digest)

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        """This node's blobs in digest order."""
        return await self._store.list_after(after, limit)

    async def counts(self) -> Counts:
        """How many blobs this node has, and their bytes."""
        return await self._store.counts()
