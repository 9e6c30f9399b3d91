"""A body on its way in: received, hashed, and held until it is known what it is.

A spool keeps a small body in memory and moves a larger one to a file under ``tmp/``, written in the
final layout (layout.py), so that a store can take the file over with a rename. Hashing, checksums
and writing of a large body happen in a thread, a piece at a time, while the next piece is received:
two pieces of memory a spool, whatever the size of the body.

Nothing that a spool writes is visible as a blob. A spool that is discarded, or whose process dies,
leaves at most a file under ``tmp/`` whose name begins with the process's number, by which
:func:`sweep` finds it.
"""

import asyncio
import contextlib
import functools
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path

from tierce.blobs import layout
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import DigestMismatch, TierceError, TooLarge, Unavailable, from_os_error
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES, WRITEBACK_BYTES

assert PIECE_BYTES % CHUNK_BYTES == 0, "pieces are cut at chunk borders"

_serial = itertools.count()


class Spool:
    """One body. Write it, finish it, hand it to a store, discard it; in that order, from one task.

    After :meth:`finish`, ``digest`` and ``size`` (bytes) are set and either ``data`` (a body of at
    most ``memory_limit_bytes``) or ``path`` (a synced file in the layout of large blobs) holds it.
    Before, the file has the first ``readable_bytes`` of the body already, not verified.
    """

    def __init__(
        self,
        spooler: "Spooler",
        algorithm: str,
        memory_limit_bytes: int,
        expected: tuple[Digest, ...],
        passing: bool,
    ) -> None:
        self._spooler = spooler
        self._passing = passing
        self._memory_limit_bytes = memory_limit_bytes
        self._algorithm = algorithm
        self._hashers = {algorithm: new_hasher(algorithm)}
        for each in expected:
            if each.algorithm not in self._hashers:
                self._hashers[each.algorithm] = new_hasher(each.algorithm)
        self._expected = expected
        self._small: list[bytes] = []
        self._piece = bytearray()
        self._spare = bytearray()
        self._filled = 0
        self._job: asyncio.Future[None] | None = None
        self._fd = -1
        self._table: list[bytes] = []
        self._chunks = 0
        self._digest: Digest | None = None
        self.size = 0
        self.readable_bytes = 0
        self.data: bytes | None = None
        self.path: Path | None = None

    @property
    def digest(self) -> Digest:
        """The name of the finished body."""
        assert self._digest is not None, "a spool has a digest once it is finished"
        return self._digest

    @property
    def pool(self) -> Executor:
        """Where its blocking work is done."""
        return self._spooler.pool

    async def write(self, data: bytes) -> None:
        """Take the next bytes. Raises TooLarge, Full, ReadOnly or Unavailable; discard it then."""
        self.size += len(data)
        if self.size > self._spooler.blob_limit_bytes:
            raise TooLarge(
                f"the body is larger than {self._spooler.blob_limit_bytes} bytes",
                hint="Send less at once, or raise the setting blob_limit_bytes.",
            )
        if self._fd < 0:
            self._small.append(data)
            if self.size <= self._memory_limit_bytes:
                return
            self._create()
            data = b"".join(self._small)
            self._small.clear()
        await self._fill(data)

    async def finish(self) -> Digest:
        """End the body: the digest is known, and a large body's file is complete and synced.

        Raises DigestMismatch if the body is not what was expected of it.
        """
        if self._fd < 0:
            self.data = b"".join(self._small)
            self._small.clear()
            if self.size <= CHUNK_BYTES:
                self._hash(self.data)
            else:
                await self._in_thread(functools.partial(self._hash, self.data))
            self._check()
        else:
            await self._flush()
            await self._wait()
            self._check()
            self._job = asyncio.ensure_future(self._in_thread(self._write_tail))
            await self._wait()
        self._digest = Digest(self._algorithm, self._hashers[self._algorithm].digest())
        return self._digest

    async def discard(self) -> None:
        """Let go of memory and file. Safe at any point, and more than once."""
        # A write in a thread must end before its descriptor is closed: the number may be used again.
        if self._job is not None:
            with contextlib.suppress(TierceError):
                await asyncio.shield(self._wait())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None
        self.data = None

    def _create(self) -> None:
        self._spooler.space.check(in_file=True, passing=self._passing)
        self.path = self._spooler.new_path()
        try:
            self._fd = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            self.path = None
            raise from_os_error(error, "receiving a body") from error
        self._piece, self._spare = bytearray(PIECE_BYTES), bytearray(PIECE_BYTES)

    async def _fill(self, data: bytes) -> None:
        """Copy into the current piece; each full piece goes to a thread."""
        view = memoryview(data)
        while view:
            part = view[: PIECE_BYTES - self._filled]
            self._piece[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == PIECE_BYTES:
                await self._flush()

    async def _flush(self) -> None:
        await self._wait()
        self._spooler.space.check(in_file=True, passing=self._passing)
        piece, length = self._piece, self._filled
        # The piece written before this one is done with, so the two take turns.
        self._piece, self._spare, self._filled = self._spare, piece, 0
        self._job = asyncio.ensure_future(
            self._in_thread(lambda: self._write_piece(memoryview(piece)[:length]))
        )

    async def _wait(self) -> None:
        """Wait for the piece that is being written, if any; its error is raised here."""
        if self._job is not None:
            job = self._job
            await asyncio.shield(job)
            self._job = None
            self.readable_bytes = min(self.size, self._chunks * CHUNK_BYTES)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._spooler.pool, work)
        except OSError as error:
            raise from_os_error(error, "receiving a body") from error

    def _hash(self, data: bytes | memoryview) -> None:
        for hasher in self._hashers.values():
            hasher.update(data)

    def _check(self) -> None:
        for expected in self._expected:
            raw = self._hashers[expected.algorithm].digest()
            if raw != expected.raw:
                raise DigestMismatch(
                    f"the body's digest is {Digest(expected.algorithm, raw)}, not {expected}",
                    hint="Nothing was stored. Check that the whole file was sent, unchanged.",
                )

    def _write_piece(self, piece: memoryview) -> None:
        self._hash(piece)
        self._table.append(layout.sums(piece, self._chunks))
        self._chunks += layout.chunk_count(len(piece))
        write_all(self._fd, piece)
        written = self._chunks * CHUNK_BYTES
        if written % WRITEBACK_BYTES == 0:
            # Linux starts to write these pages out, without waiting: less is left for the sync at
            # the end. They are dirty now, so they stay in the page cache despite the name.
            os.posix_fadvise(
                self._fd, written - WRITEBACK_BYTES, WRITEBACK_BYTES, os.POSIX_FADV_DONTNEED
            )

    def _write_tail(self) -> None:
        write_all(self._fd, memoryview(b"".join(self._table) + layout.footer(self.size)))
        os.fsync(self._fd)


class SpoolSource:
    """A finished spool's content, to be sent to other nodes. Close it.

    It holds on to memory or file by itself, so the spool may be consumed or discarded meanwhile.
    """

    def __init__(self, spool: Spool) -> None:
        self.digest = spool.digest
        self.size = spool.size
        self.data = spool.data
        self._pool = spool.pool
        self._fd = -1
        self._readers = 0
        if spool.path is not None:
            try:
                self._fd = os.open(spool.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise from_os_error(error, "sending a body") from error

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the content from its beginning; several may do so at a time."""
        if self.data is not None:
            yield self.data
            return
        self._readers += 1
        try:
            for start in range(0, self.size, PIECE_BYTES):
                yield await read_at(
                    self._pool, self._fd, min(PIECE_BYTES, self.size - start), start
                )
        finally:
            self._readers -= 1

    def close(self) -> None:
        """Let go of the file. No one may be reading any more."""
        assert not self._readers, "a source was closed while it was read"
        self.data = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Spooler:
    """Makes spools that share a directory, limits and a thread pool.

    ``directory`` must be on the file system of the store's files, or they can't be taken over.
    """

    def __init__(
        self,
        directory: Path,
        *,
        pool: Executor,
        space: SpaceGuard,
        memory_limit_bytes: int,
        blob_limit_bytes: int,
    ) -> None:
        self.directory = directory
        self.pool = pool
        self.space = space
        self.memory_limit_bytes = memory_limit_bytes
        self.blob_limit_bytes = blob_limit_bytes

    def new_path(self) -> Path:
        """A name under ``tmp/`` that no other spool has, and that tells whose it is."""
        return self.directory / f"{os.getpid()}-{next(_serial)}.spool"

    def new(
        self,
        algorithm: str,
        *,
        expected: tuple[Digest, ...] = (),
        memory_limit_bytes: int | None = None,
        passing: bool = False,
    ) -> Spool:
        """Start a body. Raises BadRequest for an unknown algorithm.

        The body must have every digest of ``expected``. ``memory_limit_bytes`` overrides the
        spooler's; -1 sends every body to a file. ``passing``: it need not stay on this node, so
        it is taken even if the node is read-only.
        """
        if memory_limit_bytes is None:
            memory_limit_bytes = self.memory_limit_bytes
        return Spool(self, algorithm, memory_limit_bytes, expected, passing)

    @contextlib.asynccontextmanager
    async def holding(self, data: bytes, algorithm: str) -> AsyncIterator[Spool]:
        """A finished spool of bytes at hand, discarded at the end."""
        spool = self.new(algorithm)
        try:
            await spool.write(data)
            await spool.finish()
            yield spool
        finally:
            await spool.discard()


async def read_at(pool: Executor, fd: int, length: int, start: int) -> bytes:
    """Read from a spool's file in a thread. Raises Unavailable or Corrupt.

    Cancelled, it still waits for the thread: a descriptor's number may be used again once closed.
    """
    read = asyncio.get_running_loop().run_in_executor(pool, os.pread, fd, length, start)
    try:
        data = await asyncio.shield(read)
    except asyncio.CancelledError:
        await asyncio.wait([read])
        raise
    except OSError as error:
        raise from_os_error(error, "sending a body") from error
    if len(data) != length:
        raise Unavailable("a body's file ended early", hint="Send the body again.")
    return data


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte, however few the system takes at a time. Raises OSError."""
    while data:
        data = data[os.write(fd, data) :]


def sweep(directory: Path, pid: int | None = None) -> int:
    """Remove what spools left behind: all of it, or only what process ``pid`` left. Returns how many."""
    pattern = "*.spool" if pid is None else f"{pid}-*.spool"
    left = list(directory.glob(pattern))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
