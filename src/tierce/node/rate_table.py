"""A table of when each caller may go on, shared by all processes of a node.

One number a caller, the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371,
annex A): a request is let in if that time is at most the burst ahead of now, and moves it on by one
interval. The table has a fixed size. A caller has a few places where it may stand, by a hash of its
name with a secret of this run, so nobody can choose whom to share a place with; with all of them
taken, the one whose time is over longest gives way. Two processes that write one place in the same
moment may let in a request too many, never one too few for good.
"""

import hashlib
import logging
import mmap
import os
import secrets
import struct
from pathlib import Path

from tierce.core.limits import RATE_TABLE_PLACES, RATE_TABLE_WAYS

log = logging.getLogger(__name__)

_PLACE = struct.Struct("<Qd")
_KEY_BYTES = 16


class RateTable:
    """Counts requests by caller. Quick enough for the event loop; to be used from one thread."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._key = bytes(memory[:_KEY_BYTES])

    @classmethod
    def open(cls, path: Path | None) -> "RateTable":
        """The table in a file, made if need be; without a path, or without room, one of this process.

        The file must be of this run of the machine, as the times in it are its monotonic clock's.
        """
        size = _KEY_BYTES + RATE_TABLE_PLACES * _PLACE.size
        memory: mmap.mmap | None = None
        if path is not None:
            try:
                memory = _mapped(path, size)
            except OSError as error:
                log.warning("each worker counts requests by itself: %s: %s", path, error.strerror)
        if memory is None:
            memory = mmap.mmap(-1, size)
            memory[:_KEY_BYTES] = secrets.token_bytes(_KEY_BYTES)
        return cls(memory)

    def take(self, caller: bytes, now: float, interval: float, burst_seconds: float) -> float:
        """Let a request of a caller in and return 0, or how many seconds it should wait.

        ``interval`` is the time between two requests at the rate that is allowed, in seconds;
        ``now`` is the monotonic clock's.
        """
        digest = hashlib.blake2b(caller, digest_size=8, key=self._key).digest()
        name = int.from_bytes(digest, "little") or 1
        first = name % (RATE_TABLE_PLACES // RATE_TABLE_WAYS) * RATE_TABLE_WAYS
        place, time = _KEY_BYTES + first * _PLACE.size, float("inf")
        for at in range(first, first + RATE_TABLE_WAYS):
            offset = _KEY_BYTES + at * _PLACE.size
            found, until = _PLACE.unpack_from(self._memory, offset)
            if found == name:
                place, time = offset, until
                break
            if until < time:
                place, time = offset, until
        else:
            time = now
        start = max(time, now)
        wait = start - burst_seconds - now
        if wait > 0:
            return wait
        _PLACE.pack_into(self._memory, place, name, start + interval)
        return 0.0

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


def _mapped(path: Path, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Whoever writes to a mapped page that the disk has no room for is killed.
        os.posix_fallocate(fd, 0, size)
        if os.pread(fd, _KEY_BYTES, 0) == bytes(_KEY_BYTES):
            os.lockf(fd, os.F_LOCK, _KEY_BYTES)
            if os.pread(fd, _KEY_BYTES, 0) == bytes(_KEY_BYTES):
                os.pwrite(fd, secrets.token_bytes(_KEY_BYTES), 0)
            os.lockf(fd, os.F_ULOCK, _KEY_BYTES)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
