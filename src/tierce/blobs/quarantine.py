"""Where bad copies go: kept for a person to look at, never read by the store again.

A name is ``algorithm-hex.nanoseconds.serial``, so several bad copies of one blob can lie side by side.
"""

import itertools
import logging
import os
import time
from pathlib import Path

from tierce.core.digest import Digest
from tierce.core.metrics import VERIFY_FAILURES

log = logging.getLogger(__name__)
_serial = itertools.count()


class Quarantine:
    """The directory ``quarantine/``. Its methods block, and are called from threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def take_file(self, digest: Digest, path: Path) -> None:
        """Move a bad file here, durably. Raises OSError."""
        os.rename(path, self._place(digest))
        sync_directory(path.parent)
        sync_directory(self.directory)
        self._tell(digest, "file")

    def take_bytes(self, digest: Digest, data: bytes, kind: str = "packed") -> None:
        """Write bad bytes here, durably, before their owner drops them. Raises OSError.

        ``kind`` says in the metric where they were: ``packed`` or ``cloud``.
        """
        place = self._place(digest)
        with place.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self.directory)
        self._tell(digest, kind)

    def _place(self, digest: Digest) -> Path:
        name = f"{digest.algorithm}-{digest.hex}.{time.time_ns()}.{next(_serial)}"
        return self.directory / name

    def _tell(self, digest: Digest, kind: str) -> None:
        VERIFY_FAILURES.labels(kind).inc()
        log.error("bad copy of %s moved to %s", digest, self.directory)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
