"""Whose turn it is to send a blob: one upload of a digest at a time, over all processes of a node.

Locks of ranges of one file: a digest stands for a byte. They belong to the open file (OFD locks of
Linux), so two stores in one process meet as well, and the kernel lets go of them when a process dies.
Two digests may stand for the same byte; then one of them waits for nothing.
"""

import fcntl
import os
import struct
from pathlib import Path

from tierce.core.digest import Digest

_LOCK = struct.Struct("hhqqi")
"""flock(2)'s own: type, whence, start, length, and a process, which must be 0 here."""


class Turns:
    """Its methods don't wait. Those that take raise OSError."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._fd: int | None = None
        self._taken: set[int] = set()

    def take(self, digest: Digest) -> int | None:
        """Begin a turn; None while it is somebody else's."""
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        place = int.from_bytes(digest.raw[:7])
        if place in self._taken:
            return None
        try:
            self._lock(self._fd, fcntl.F_WRLCK, place)
        except BlockingIOError:
            return None
        self._taken.add(place)
        return place

    def end(self, place: int) -> None:
        """End a turn."""
        self._taken.discard(place)
        if self._fd is not None:
            self._lock(self._fd, fcntl.F_UNLCK, place)

    def close(self) -> None:
        """End all turns."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def _lock(fd: int, kind: int, place: int) -> None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, place, 1, 0))
