"""The view of the cluster as a file, for the node's workers, and for its next start.

The agent writes each new view to ``run/view``, where the workers find it by looking at the file's
number and time now and then: that costs nothing, and works while the agent is down. It also keeps
``members`` in the data directory, so that a node finds the others again when all were down.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from tierce.blobs.quarantine import sync_directory
from tierce.cluster.member import View
from tierce.core.codec import decode, encode
from tierce.core.errors import TierceError, Unavailable
from tierce.core.limits import VIEW_LOOK_SECONDS, VIEW_WAIT_SECONDS, VIEW_WRITE_SECONDS
from tierce.node.runtime import Stop

log = logging.getLogger(__name__)

LIVE = Path("run") / "view"
KEPT = Path("members")


class ViewWriter:
    """Writes views as they come, the first one at once and then one in VIEW_WRITE_SECONDS at most.

    A disk that is full or fails is logged: the view is still good in memory.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._latest: View | None = None
        self._kept: object = None
        self._timer: asyncio.TimerHandle | None = None

    def put(self, view: View) -> None:
        """Have a view written soon."""
        is_first = self._latest is None
        self._latest = view
        if is_first:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(VIEW_WRITE_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the latest view now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        view = self._latest
        if view is None:
            return
        _replace(self._data / LIVE, view, durable=False)
        # Incarnations and suspicions come and go; what a later start needs changes rarely.
        kept = [
            (
                each.node_id, each.private, each.draining, each.zone, each.weight,
                each.replication, each.max_replication,
            )
            for each in view.members
        ]  # fmt: skip
        if kept != self._kept and _replace(self._data / KEPT, view, durable=True):
            self._kept = kept


def _replace(file: Path, view: View, *, durable: bool) -> bool:
    temporary = file.with_suffix(".new")
    try:
        with temporary.open("wb") as out:
            out.write(encode(view))
            if durable:
                out.flush()
                os.fsync(out.fileno())
        temporary.rename(file)
        if durable:
            sync_directory(file.parent)
    except OSError as error:
        log.error("the members could not be written to %s: %s", file, error.strerror)
        return False
    return True


def kept_view(data: Path) -> View | None:
    """What an earlier run of this node knew, if that can be read."""
    try:
        return decode((data / KEPT).read_bytes(), View, "file of members")
    except FileNotFoundError:
        return None
    except (OSError, TierceError) as error:
        log.warning("%s is not used: %s", data / KEPT, error)
        return None


async def first_view(data: Path, stop: Stop) -> View:
    """Wait for the agent's first view. Raises Unavailable if none comes before the order to stop."""
    try:
        async with asyncio.timeout(VIEW_WAIT_SECONDS):
            while not (data / LIVE).exists():  # another process makes it
                if stop:
                    raise Unavailable("the node stops before the agent started")
                await asyncio.sleep(VIEW_LOOK_SECONDS / 4)
    except TimeoutError:
        raise Unavailable("the agent did not start", hint="See its log.") from None
    return decode((data / LIVE).read_bytes(), View, "view")


async def follow(data: Path, take: Callable[[View], object]) -> None:
    """Hand each new view to ``take``, until cancelled."""
    seen: object = None
    while True:
        try:
            stat = (data / LIVE).stat()
            version = stat.st_ino, stat.st_mtime_ns
            if version != seen:
                seen = version  # one that can't be read is logged once
                take(decode((data / LIVE).read_bytes(), View, "view"))
        except (OSError, TierceError) as error:
            log.error("the view can't be read: %s", error)
        await asyncio.sleep(VIEW_LOOK_SECONDS)
