"""Where the bytes of an upload come from: memory, a file, or a stream that can't be replayed.

The first two become a ``Body`` that starts over at each attempt. A file is never held in memory
beyond ``SMALL_FILE_BYTES``, and is read in threads, so that a slow disk stops nobody else.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable

from tierce.client.wire import SEND_PIECE_BYTES, Body
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import BadRequest, DigestMismatch
from tierce.core.limits import MIB
from tierce.core.wording import quoted

# Up to here a file is read once, hashed and sent from memory; above, the server is asked first
# whether it has the blob, because a question is then cheaper than the bytes.
SMALL_FILE_BYTES = 1 * MIB
HASH_PIECE_BYTES = 4 * MIB

# Called with the bytes done, and the bytes in all where that is known. It must not block.
Progress = Callable[[int, int | None], None]


class LocalFile:
    """An open regular file. Its methods block: call them in a thread."""

    def __init__(self, path: str) -> None:
        """Raises OSError, and BadRequest for what is no regular file."""
        self.path = path
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        self._file = open(  # noqa: SIM115 (close() closes it)
            path, "rb", buffering=0, opener=_nonblocking
        )
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self.close()
            raise BadRequest(f"{quoted(path)} is not a regular file")

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end of the file."""
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Close it; more than once is fine."""
        self._file.close()


def read_or_open(path: str) -> bytes | LocalFile:
    """The content of a small file, or an open larger one. Blocks: call it in a thread."""
    file = LocalFile(path)
    try:
        content = file.read_at(0, SMALL_FILE_BYTES + 1)
    except BaseException:
        file.close()
        raise
    if len(content) > SMALL_FILE_BYTES:
        return file
    file.close()
    return content


async def hash_file(file: LocalFile, algorithm: str) -> tuple[Digest, int]:
    """The digest and the size in bytes of what the file holds now."""
    hasher = new_hasher(algorithm)
    size = 0
    while piece := await asyncio.to_thread(file.read_at, size, HASH_PIECE_BYTES):
        await asyncio.to_thread(hasher.update, piece)
        size += len(piece)
    return Digest(algorithm, hasher.digest()), size


def bytes_body(data: bytes, progress: Progress | None) -> Body:
    """A body from memory."""

    async def pieces() -> AsyncIterator[bytes]:
        for offset in range(0, len(data), SEND_PIECE_BYTES):
            piece = data[offset : offset + SEND_PIECE_BYTES]
            yield piece
            if progress is not None:
                progress(offset + len(piece), len(data))

    return Body(len(data), pieces)


def file_body(file: LocalFile, size: int, progress: Progress | None) -> Body:
    """The first ``size`` bytes of a file. Sending raises DigestMismatch if the file has shrunk."""

    async def pieces() -> AsyncIterator[bytes]:
        offset = 0
        while offset < size:
            wanted = min(SEND_PIECE_BYTES, size - offset)
            piece = await asyncio.to_thread(file.read_at, offset, wanted)
            if not piece:
                raise changed(file.path)
            yield piece
            offset += len(piece)
            if progress is not None:
                progress(offset, size)

    return Body(size, pieces)


def changed(path: str) -> DigestMismatch:
    """The error for a file that isn't what it was when it was hashed."""
    return DigestMismatch(
        f"{quoted(path)} changed while it was being stored; nothing was stored",
        hint="Store it again when nothing writes to it.",
    )


class StreamBody:
    """A stream that is hashed while it is sent, and can be sent once only."""

    def __init__(
        self, source: AsyncIterable[bytes], algorithm: str, progress: Progress | None
    ) -> None:
        self._source = source
        self._algorithm = algorithm
        self._hasher = new_hasher(algorithm)
        self._progress = progress
        self.size = 0
        self.started = False

    @property
    def digest(self) -> Digest:
        """The digest of what was sent so far."""
        return Digest(self._algorithm, self._hasher.digest())

    def body(self) -> Body:
        """To be sent again only while ``started`` is False."""
        return Body(None, self._pieces)

    async def _pieces(self) -> AsyncIterator[bytes]:
        assert not self.started, "a stream can't be sent twice"
        self.started = True
        async for piece in self._source:
            # A source may give pieces of any size; the watch over progress wants small ones.
            for offset in range(0, len(piece), SEND_PIECE_BYTES):
                part = piece[offset : offset + SEND_PIECE_BYTES]
                self._hasher.update(part)
                self.size += len(part)
                yield part
                if self._progress is not None:
                    self._progress(self.size, None)


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
