"""How bytes come down: in pieces, across broken connections, and into a file that appears whole.

A blob's bytes never change, so a transfer that stopped at an offset can always go on from there,
from this process or a later one. ``Reader`` does so over the network, ``PartFile`` on the disk:
``PATH.part`` holds the beginning of the blob and nothing else, and is renamed to ``PATH`` only when
all of it has the right digest and is on the disk.
"""

import fcntl
import os
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

from tierce.client.answers import foreign
from tierce.client.retrying import TryAgain
from tierce.client.uploads import Progress
from tierce.client.wire import Wire
from tierce.core.digest import Digest, Hasher, new_hasher
from tierce.core.errors import Conflict, Corrupt
from tierce.core.limits import KIB, PIECE_BYTES
from tierce.core.wording import quoted

__all__ = ["PartFile", "Progress", "Reader", "content_range", "wrong_bytes"]

# An attempt that brought this much counts as a success: the next failure is again the first.
PROGRESS_BYTES = 64 * KIB


def wrong_bytes(digest: Digest, actual: Digest, hint: str) -> Corrupt:
    """The error for bytes that aren't those asked for."""
    return Corrupt(f"the bytes that came for {digest} are {actual}", hint=hint)


class Reader:
    """Bytes from an offset on, in order, resumed by itself after interruptions.

    Nothing is verified here. ``total`` is the whole size in bytes and ``headers`` are those of the
    latest answer; None until they are known. ``subject`` names what is read, for messages.
    What ``may_change`` is read in one version only: another one there is a Conflict.
    """

    def __init__(
        self,
        wire: Wire,
        path: str,
        subject: str,
        start: int = 0,
        etag: str | None = None,
        *,
        may_change: bool = False,
    ) -> None:
        self._wire = wire
        self._path = path
        self._subject = subject
        self._etag = etag
        self._may_change = may_change
        self.offset = start
        self.total: int | None = None
        self.headers: Mapping[str, str] | None = None

    @classmethod
    def of_blob(cls, wire: Wire, digest: Digest, start: int, etag: str | None = None) -> Self:
        """A reader of a blob, which never changes."""
        return cls(wire, f"/v1/blobs/{digest}", str(digest), start, etag)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Give the pieces.

        Raises NotFound, Unavailable, BadRequest for a start beyond the end, and Conflict if what may
        change did.
        """
        failures = 0
        while True:
            start = self.offset
            try:
                async with aclosing(self._attempt()) as attempt:
                    async for piece in attempt:
                        self.offset += len(piece)
                        yield piece
            except TryAgain as trouble:
                failures = 1 if self.offset - start >= PROGRESS_BYTES else failures + 1
                await self._wire.pause(failures, trouble)
            except Conflict as refusal:
                raise self._changed() from refusal
            else:
                return

    async def _attempt(self) -> AsyncGenerator[bytes, None]:
        headers = {}
        # Only a strong validator may be sent here (RFC 9110, section 13.1.5).
        strong = self._etag if self._etag is not None and self._etag.startswith('"') else None
        if self.offset:
            headers["Range"] = f"bytes={self.offset}-"
            if strong is not None:
                headers["If-Range"] = strong
        if self._may_change and strong is not None:
            headers["If-Match"] = strong
        async with self._wire.receiving(self._path, self._subject, headers) as response:
            etag = response.headers.get("ETag")
            if self._may_change and self._etag not in (None, etag):
                raise self._changed()
            self.headers, self._etag = response.headers, etag
            skip = 0
            if response.status == 206:
                start, self.total = content_range(response.headers.get("Content-Range", ""))
                if start != self.offset:
                    raise foreign("it sent another range than was asked for")
            else:
                # The server gives everything: what is here already needn't be taken again.
                skip = self.offset
                self.total = response.content_length
            received = self.offset - skip
            async for piece in response.content.iter_any():
                received += len(piece)
                kept = piece[skip:]
                skip -= len(piece) - len(kept)
                if kept:
                    yield kept
            if self.total is not None and received != self.total:
                raise TryAgain(f"only {received} of {self.total} bytes of {self._subject} came")

    def _changed(self) -> Conflict:
        return Conflict(
            f"{self._subject} changed while it was read", hint="Read it again from the start."
        )


class PartFile:
    """The beginning of a blob on disk, with its running digest. Methods block: use a thread.

    A lock on the file keeps two downloads to the same path apart.
    """

    def __init__(self, target: str, algorithm: str) -> None:
        """Open or create ``target.part``. Raises OSError, and Conflict if it is in use."""
        self.target = target
        self.path = f"{target}.part"
        self._algorithm = algorithm
        self._hasher: Hasher = new_hasher(algorithm)
        # A cancelled download may close the file while a thread still writes to it.
        self._guard = threading.Lock()
        self.size = 0
        self._file = open(  # noqa: SIM115 (close() closes it)
            self.path, "ab+", buffering=0, opener=_without_following
        )
        try:
            self._lock()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def hash_next(self) -> bool:
        """Take the next piece of what an earlier download left; False when there is no more."""
        with self._guard:
            piece = os.pread(self._file.fileno(), PIECE_BYTES, self.size)
            self._hasher.update(piece)
            self.size += len(piece)
            return bool(piece)

    def append(self, piece: bytes) -> None:
        """Add bytes at the end. Raises OSError; what was written then still counts."""
        with self._guard:
            rest = memoryview(piece)
            while rest:
                written = self._file.write(rest)
                self._hasher.update(rest[:written])
                self.size += written
                rest = rest[written:]

    def restart(self) -> None:
        """Forget all bytes."""
        with self._guard:
            self._file.truncate(0)
            self._hasher = new_hasher(self._algorithm)
            self.size = 0

    def digest(self) -> Digest:
        """The digest of the bytes so far."""
        return Digest(self._algorithm, self._hasher.digest())

    def commit(self) -> None:
        """Make it the target, on disk for good, in place of what was there. Raises OSError."""
        os.fsync(self._file.fileno())
        os.rename(self.path, self.target)
        folder = os.open(os.path.dirname(self.target) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove the file."""
        os.unlink(self.path)

    def close(self) -> None:
        """Let go of the file; an empty one is removed, because it helps nobody."""
        with self._guard:
            if self._file.closed:
                return
            if self.size == 0:
                self._remove_if_empty()
            self._file.close()

    def _remove_if_empty(self) -> None:
        with suppress(OSError):
            if os.fstat(self._file.fileno()).st_size == 0 and self._is_at_path():
                os.unlink(self.path)

    def _is_at_path(self) -> bool:
        here, there = os.fstat(self._file.fileno()), os.stat(self.path)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def _lock(self) -> None:
        busy = Conflict(
            f"another download writes to {quoted(self.path)}", hint="Wait until it is done."
        )
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and lock another download may have renamed it: then it is a target now.
            if not self._is_at_path():
                raise busy
        except (BlockingIOError, FileNotFoundError):
            raise busy from None


def content_range(text: str) -> tuple[int, int | None]:
    """Read ``bytes FIRST-LAST/TOTAL`` (RFC 9110, section 14.4) as the first byte and the total."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal() or not (total.isdecimal() or total == "*"):
        raise foreign("its Content-Range can't be read")
    return int(first), None if total == "*" else int(total)


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
