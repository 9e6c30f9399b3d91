"""Who is at an object of the cloud, in the eyes of all processes of a node.

A reader that takes its bytes by several requests holds a lock on a file named after the blob, shared;
whoever deletes the object holds it alone, so that nobody deletes what is read. The kernel lets go of
the locks of a process that dies.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from tierce.core.digest import Digest


class Holds:
    """A directory of lock files, shared by all processes of a node. Its methods don't wait."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def share(self, digest: Digest) -> int | None:
        """Hold a blob for reading; None while somebody deletes its object. Raises OSError."""
        return self._take(digest, fcntl.LOCK_SH)

    def alone(self, digest: Digest) -> int | None:
        """Hold a blob for deleting its object; None while anyone holds it. Raises OSError."""
        return self._take(digest, fcntl.LOCK_EX)

    def release(self, digest: Digest, hold: int) -> None:
        """Let go. The last one to do so removes the file."""
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current(digest, hold):
                    self._path(digest).unlink(missing_ok=True)
        finally:
            os.close(hold)

    def sweep(self) -> None:
        """Remove the files of processes that died. For who has the data directory alone."""
        for path in self._directory.iterdir():
            path.unlink()

    def _take(self, digest: Digest, operation: int) -> int | None:
        while True:
            fd = os.open(self._path(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, operation | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            if self._is_current(digest, fd):
                return fd
            os.close(fd)  # whoever had it removed the file before this lock was there

    def _is_current(self, digest: Digest, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path(digest)))
        except FileNotFoundError:
            return False

    def _path(self, digest: Digest) -> Path:
        return self._directory / f"{digest.algorithm}-{digest.hex}"
