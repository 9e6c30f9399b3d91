"""How much room there is, and whether the node may take more.

A node keeps a reserve free: a disk that is really full can neither commit nor clean up. Below the
reserve the node refuses to write, and accepts again as soon as there is room. It looks at the file
system once in SPACE_CHECK_SECONDS, so that asking is cheap enough for every request; and each time
while the room is less than SPACE_NEAR_BYTES, as much as could be written within that time.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tierce.core.errors import Full, ReadOnly
from tierce.core.limits import (
    INDEX_MARGIN_BYTES,
    RESERVE_BYTES,
    RESERVE_PERCENT,
    SPACE_CHECK_SECONDS,
    SPACE_NEAR_BYTES,
)


class Space(NamedTuple):
    """A file system's room, in bytes. ``free`` counts only what this process may use."""

    total: int
    free: int
    reserve: int


class SpaceGuard:
    """Watches one file system. ``reserve_bytes`` of None means the default reserve."""

    def __init__(
        self,
        path: Path,
        *,
        reserve_bytes: int | None = None,
        read_only: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._read_only = read_only
        self._monotonic = monotonic
        self._seen: Space | None = None
        self._seen_at = 0.0
        # What the index can take without growing: it never gives freed pages back to the disk.
        self.index_room: Callable[[], int] = lambda: 0

    def look(self) -> Space:
        """The room there is, at most SPACE_CHECK_SECONDS old."""
        now = self._monotonic()
        if (
            self._seen is None
            or now - self._seen_at >= SPACE_CHECK_SECONDS
            or 0 <= self._seen.free - self._seen.reserve < SPACE_NEAR_BYTES
        ):
            stat = os.statvfs(self._path)
            total = stat.f_blocks * stat.f_frsize
            reserve = self._reserve_bytes
            if reserve is None:
                reserve = min(RESERVE_BYTES, total * RESERVE_PERCENT // 100)
            self._seen = Space(total, stat.f_bavail * stat.f_frsize, reserve)
            self._seen_at = now
        return self._seen

    def why_not(
        self, incoming_bytes: int = 0, *, in_file: bool = False, passing: bool = False
    ) -> ReadOnly | Full | None:
        """The reason why so many bytes can't be taken now, or None if they can.

        Bytes that do not go to a file of their own may fit into the index even if the disk is full.
        Bytes that are only ``passing`` through, to or from other nodes, may do so read-only too.
        """
        if self._read_only and not passing:
            return ReadOnly(
                "this node is read-only",
                hint="Write to another node, or start this one without the read_only setting.",
            )
        space = self.look()
        if space.free - incoming_bytes <= space.reserve:
            if not in_file and self.index_room() - 2 * incoming_bytes >= INDEX_MARGIN_BYTES:
                return None
            return Full(
                f"{space.free} bytes are free, {incoming_bytes} would come in,"
                f" and {space.reserve} are kept in reserve",
                hint="Free some space or add a disk; the node accepts writes again by itself. "
                "The reserve is the setting reserve_bytes.",
            )
        return None

    def check(
        self, incoming_bytes: int = 0, *, in_file: bool = False, passing: bool = False
    ) -> None:
        """Raise ReadOnly or Full if so many bytes can't be taken now (see :meth:`why_not`)."""
        reason = self.why_not(incoming_bytes, in_file=in_file, passing=passing)
        if reason is not None:
            raise reason
