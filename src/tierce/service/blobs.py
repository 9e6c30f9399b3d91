"""Blobs as doors see them: take a body and say what it is, find, list, remove.

By default all of it concerns the cluster: a body is stored on as many nodes as are asked for, and a
blob is found wherever it is. ``here_only`` is for doors that speak to nodes: this node's copies only.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobInfo, BlobStore, Counts, OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import TooLarge
from tierce.names.store import named_by_objects


class Stored(NamedTuple):
    """What a body became: its name, its size in bytes, and whether it was new."""

    digest: Digest
    size: int
    created: bool


class Path(Protocol):
    """The way of blobs through the cluster (node/data_path.py)."""

    @property
    def is_alone(self) -> bool: ...

    def check_writable(self, algorithm: str) -> None: ...

    async def store(self, spool: Spool) -> bool: ...

    async def open(self, digest: Digest) -> OpenBlob: ...

    async def size(self, digest: Digest) -> int: ...

    async def delete(self, digest: Digest) -> bool: ...


class Blobs:
    """The blobs of the cluster, by way of one node."""

    def __init__(
        self,
        store: BlobStore,
        spooler: Spooler,
        space: SpaceGuard,
        path: Path,
        *,
        is_named: Callable[[Digest], bool] = lambda _: False,
    ) -> None:
        self._is_named = is_named
        self._store = store
        self._spooler = spooler
        self._path = path
        self.space = space

    def check_writable(
        self,
        announced_bytes: int | None = None,
        *,
        algorithm: str = "",
        here_only: bool = False,
    ) -> None:
        """Refuse a body before it comes. Raises TooLarge, ReadOnly, Full or Unavailable."""
        limit = self._spooler.blob_limit_bytes
        if announced_bytes is not None and announced_bytes > limit:
            raise TooLarge(
                f"the body has {announced_bytes} bytes, and the largest that is taken has {limit}",
                hint="Send less at once, or raise the setting blob_limit_bytes.",
            )
        size = announced_bytes or 0
        in_file = size > self._spooler.memory_limit_bytes
        if here_only or self._path.is_alone:
            self.space.check(size, in_file=in_file)
            return
        # A large body rests here on its way; a small one needs no room on this node's disk.
        if in_file:
            self.space.check(size, in_file=True, passing=True)
        self._path.check_writable(algorithm)

    async def receive(
        self,
        body: AsyncIterable[bytes],
        algorithm: str,
        *,
        expected: Sequence[Digest] = (),
        announced_bytes: int | None = None,
        here_only: bool = False,
    ) -> Stored:
        """Store a body under its digest; durable when this returns, on all nodes that must have it.

        Raises what :meth:`check_writable` raises, BadRequest for an unknown algorithm,
        DigestMismatch if the body lacks one of the ``expected`` digests, and whatever ``body``
        raises. After an error nothing is acknowledged, though some nodes may have a copy.
        """
        self.check_writable(announced_bytes, algorithm=algorithm, here_only=here_only)
        spooling = self.spooling(body, algorithm, expected=expected, here_only=here_only)
        async with spooling as spool:
            return await self.keep(spool, here_only=here_only)

    async def keep(self, spool: Spool, *, here_only: bool = False) -> Stored:
        """Store a finished spool, as :meth:`receive` does a body."""
        digest, size = spool.digest, spool.size
        put = self._store.put if here_only else self._path.store
        return Stored(digest, size, await put(spool))

    @asynccontextmanager
    async def spooling(
        self,
        body: AsyncIterable[bytes],
        algorithm: str,
        *,
        expected: Sequence[Digest] = (),
        here_only: bool = False,
    ) -> AsyncIterator[Spool]:
        """Hold a body, finished, for as long as the block runs. Raises as :meth:`receive` does."""
        passing = not (here_only or self._path.is_alone)
        spool = self._spooler.new(algorithm, expected=tuple(expected), passing=passing)
        try:
            async for data in body:
                await spool.write(data)
            await spool.finish()
            yield spool
        finally:
            await spool.discard()

    def open(self, digest: Digest, *, here_only: bool = False) -> Coroutine[Any, Any, OpenBlob]:
        """Open a blob for reading; close it. Raises NotFound, or Unavailable if that can't be said."""
        return self._store.open(digest) if here_only else self._path.open(digest)

    async def size(self, digest: Digest, *, here_only: bool = False) -> int:
        """Size in bytes. Raises as :meth:`open` does."""
        if here_only:
            return await self._store.stat(digest)
        return await self._path.size(digest)

    async def delete(self, digest: Digest) -> bool:
        """Remove every copy; False if there was none.

        Raises Unavailable while a node is down, Conflict for what is the content of an object.
        """
        if self._is_named(digest):
            raise named_by_objects(digest)
        return await self._path.delete(digest)

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        """This node's blobs in digest order."""
        return await self._store.list_after(after, limit)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        """For each whether this node has it for the sake of objects only (see BlobStore.managed)."""
        return self._store.managed(digests)

    async def counts(self) -> Counts:
        """How many blobs this node has, and their bytes."""
        return await self._store.counts()
