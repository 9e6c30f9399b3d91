"""Giving files their names, and the locks of directories that say who may."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_NO_LINK = {errno.EEXIST, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def link(spooled: Path, path: Path) -> bool:
    """Give a file its name if nothing has it; False otherwise, or where there are no hard links."""
    try:
        os.link(spooled, path)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def replace(spooled: Path, path: Path) -> None:
    """Put a file in the place of another one, and keep its own name as well where links are had."""
    again = spooled.with_suffix(".again")
    os.replace(again if link(spooled, again) else spooled, path)


@contextlib.contextmanager
def locked(directory: Path, operation: int) -> Iterator[int]:
    """Hold a directory's lock, shared or alone, across processes; yields its descriptor.

    ``operation`` is fcntl.LOCK_SH or fcntl.LOCK_EX. Raises FileNotFoundError.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation)
        yield fd
    finally:
        os.close(fd)
