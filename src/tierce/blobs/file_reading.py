"""Reading a large blob's file, so that no wrong byte leaves it.

Each piece is checked against the chunk checksums before it is yielded. A read of the whole blob
hashes it as well, and holds the last piece back until the digest fits. Where a checksum does not fit,
the digest of the whole decides: if the content is good, only the table is damaged, and the read goes
on; if it is bad, the file is moved to quarantine and the read breaks off.
"""

import asyncio
import enum
import errno
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import NoReturn

from tierce.blobs import layout
from tierce.core.digest import Digest, Hasher, new_hasher
from tierce.core.errors import Corrupt, NotFound, from_os_error
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES

log = logging.getLogger(__name__)


class Finding(enum.Enum):
    """How a file was found to be."""

    GOOD = "good"
    TABLE_DAMAGED = "the content is good, its checksum table is damaged"
    BAD = "the content is bad"


class OpenFile:
    """An open descriptor on a blob's file. All methods block, and may be called from any thread."""

    def __init__(self, fd: int, digest: Digest) -> None:
        stat = os.fstat(fd)
        size = layout.content_bytes(stat.st_size)
        self.fd = fd
        self.digest = digest
        self.inode = stat.st_ino
        self.cut_short = size is None
        self.size = size or 0

    @classmethod
    def open(cls, path: Path, digest: Digest) -> "OpenFile":
        """Raises NotFound, or OSError."""
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), digest)
        except FileNotFoundError:
            raise NotFound(f"{digest} is not here") from None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``. Raises Corrupt where the disk can't give them."""
        try:
            data = os.pread(self.fd, length, start)
            while len(data) < length:
                more = os.pread(self.fd, length - len(data), start + len(data))
                if not more:
                    raise Corrupt(f"the file of {self.digest} ends early")
                data += more
        except OSError as error:
            if error.errno == errno.EIO:
                raise Corrupt(f"the disk can't read the file of {self.digest}") from error
            raise
        return data

    def sums_of(self, start: int, length: int) -> bytes:
        """The stored checksums of the chunks of a range that begins at a chunk's border."""
        first = start // CHUNK_BYTES
        count = layout.chunk_count(length)
        return self.read(self.size + layout.SUM_BYTES * first, layout.SUM_BYTES * count)

    def digest_fits(self) -> bool:
        """Hash the whole content."""
        hasher = new_hasher(self.digest.algorithm)
        try:
            for start in range(0, self.size, PIECE_BYTES):
                hasher.update(self.read(start, min(PIECE_BYTES, self.size - start)))
        except Corrupt:
            return False
        return hasher.digest() == self.digest.raw

    def examine(self) -> Finding:
        """Read all of the file and tell how it is."""
        if self.cut_short or not self.digest_fits():
            return Finding.BAD
        table = self.read(self.size, layout.file_bytes(self.size) - self.size)
        if not layout.footer_fits(table[-layout.FOOTER.size :], self.size):
            return Finding.TABLE_DAMAGED
        for start in range(0, self.size, PIECE_BYTES):
            piece = self.read(start, min(PIECE_BYTES, self.size - start))
            at = layout.SUM_BYTES * (start // CHUNK_BYTES)
            sums = layout.sums(piece, start // CHUNK_BYTES)
            if table[at : at + len(sums)] != sums:
                return Finding.TABLE_DAMAGED
        return Finding.GOOD


class FileBlob:
    """An open large blob (the OpenBlob contract in store.py)."""

    def __init__(
        self,
        file: OpenFile,
        pool: Executor,
        quarantine: Callable[[OpenFile], Awaitable[None]],
    ) -> None:
        self._file = file
        self._pool = pool
        self._quarantine = quarantine
        self._job: asyncio.Future[bytes] | None = None
        self._table_is_good = True
        self.digest = file.digest
        self.size = file.size
        self.damaged = file.cut_short

    @property
    def data(self) -> bytes | None:
        return None

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = self.size if stop is None else min(stop, self.size)
        hasher = new_hasher(self.digest.algorithm) if (start, stop) == (0, self.size) else None
        if start >= stop and hasher is None:
            return
        at = start - start % CHUNK_BYTES
        pending = self._read_ahead(at, stop, hasher)
        while True:
            piece = await self._checked(pending, at)
            following = at + len(piece)
            last = following >= stop
            if not last:
                pending = self._read_ahead(following, stop, hasher)
            elif hasher is not None and hasher.digest() != self.digest.raw:
                await self._give_up("its digest does not fit")
            yield piece[max(0, start - at) : stop - at]
            if last:
                return
            at = following

    async def aclose(self) -> None:
        # The descriptor's number may be used again once closed, so no thread may still read by it.
        if self._job is not None and not self._job.done():
            await asyncio.wait([self._job])
        if self._job is not None and not self._job.cancelled():
            self._job.exception()
        self._file.close()

    def _read_ahead(self, start: int, stop: int, hasher: Hasher | None) -> asyncio.Future[bytes]:
        length = min(PIECE_BYTES, self.size - start, _to_chunk_end(stop) - start)
        self._job = asyncio.get_running_loop().run_in_executor(
            self._pool, self._read_piece, start, length, hasher
        )
        return self._job

    def _read_piece(self, start: int, length: int, hasher: Hasher | None) -> bytes:
        """In a thread: read whole chunks, hash them, and hold them against their checksums."""
        piece = self._file.read(start, length)
        if hasher is not None:
            hasher.update(piece)
        if self._table_is_good and self._file.sums_of(start, length) != layout.sums(
            piece, start // CHUNK_BYTES
        ):
            if not self._file.digest_fits():
                raise Corrupt("a chunk's checksum does not fit")
            log.warning("the checksum table of %s is damaged, its content is good", self.digest)
            self._table_is_good = False
        return piece

    async def _checked(self, pending: asyncio.Future[bytes], at: int) -> bytes:
        try:
            return await asyncio.shield(pending)
        except Corrupt as error:
            await self._give_up(f"{error.message}, near byte {at}")
        except OSError as error:
            raise from_os_error(error, f"reading {self.digest}") from error

    async def _give_up(self, reason: str) -> NoReturn:
        await self._quarantine(self._file)
        raise Corrupt(
            f"the copy of {self.digest} is bad: {reason}",
            hint="Ask again: another copy may be found. Put the blob again if none is.",
        )


def _to_chunk_end(offset: int) -> int:
    return -(-offset // CHUNK_BYTES) * CHUNK_BYTES
