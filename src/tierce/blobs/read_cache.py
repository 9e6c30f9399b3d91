"""Small blobs of a store in the cloud that were read lately, on the node's own disk.

Each process has a directory and a book of its own. What is in there is advice: it is verified whenever
it is read, dropped at will, and gone when the process is. Whether a blob is here the catalogue says,
before anyone asks the cache.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol, TypeVar

from tierce.blobs.processes import is_dead
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest

T = TypeVar("T")
log = logging.getLogger(__name__)


class Book(Protocol):
    """Which blobs are cached, and which go next (upstream/eviction.py)."""

    limit_bytes: int

    def __contains__(self, key: Digest) -> bool: ...

    def add(self, key: Digest, size: int) -> None: ...

    def touch(self, key: Digest) -> None: ...

    def remove(self, key: Digest) -> None: ...

    def victims_for(self, size: int) -> list[Digest]: ...


class ReadCache:
    """Below ``directory``, within the limit of ``book``, and while ``space`` has room."""

    def __init__(self, directory: Path, book: Book, space: SpaceGuard, pool: Executor) -> None:
        self._directory = directory / str(os.getpid())
        self._book = book
        self._space = space
        self._pool = pool
        self._lock = asyncio.Lock()
        self.hits = 0
        self.misses = 0
        _sweep(directory)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)

    async def get(self, digest: Digest) -> bytes | None:
        """A blob's verified bytes, if they are cached."""
        data = None
        if digest in self._book:
            data = await self._in_thread(lambda: _read(self._path(digest), digest))
            if data is None:
                await self.drop(digest)
        if data is None:
            self.misses += 1
            return None
        if digest in self._book:
            self._book.touch(digest)
        self.hits += 1
        return data

    async def put(self, digest: Digest, data: bytes) -> None:
        """Keep verified bytes, in place of others that are wanted less."""
        size = len(data)
        if not 0 < size <= self._book.limit_bytes or self._space.why_not(size, in_file=True):
            return
        async with self._lock:  # a victim's bytes are there until it is dropped
            if digest in self._book:
                return
            victims = [self._path(each) for each in self._book.victims_for(size)]
            path = self._path(digest)
            if await self._in_thread(lambda: _replace(victims, path, data)):
                self._book.add(digest, size)

    async def drop(self, digest: Digest) -> None:
        """Forget a blob."""
        async with self._lock:
            if digest in self._book:
                self._book.remove(digest)
                await self._in_thread(lambda: self._path(digest).unlink(missing_ok=True))

    def close(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, digest: Digest) -> Path:
        return self._directory / f"{digest.algorithm}-{digest.hex}"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _sweep(directory: Path) -> None:
    """Remove what processes that are no more have left."""
    for left in directory.glob("[0-9]*"):
        if is_dead(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)


def _read(path: Path, digest: Digest) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None  # it is fetched from the cloud then
    return data if digest.fits(data) else None


def _replace(victims: list[Path], path: Path, data: bytes) -> bool:
    """Remove files and write another one; False if the disk does not let us."""
    try:
        for victim in victims:
            victim.unlink(missing_ok=True)
        path.write_bytes(data)
    except OSError as error:
        log.warning("a blob could not be cached: %s", error)
        path.unlink(missing_ok=True)
        return False
    return True
