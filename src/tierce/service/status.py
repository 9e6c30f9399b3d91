"""What the node says of itself: one snapshot, which every door renders in its own words."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from tierce.blobs.space import Space
from tierce.blobs.store import Counts
from tierce.service.blobs import Blobs


class Identity(NamedTuple):
    """What does not change while the node runs. ``listen`` are texts such as ``native=HOST:PORT``."""

    node_id: str
    version: str
    listen: tuple[str, ...]
    workers: int
    started: float


class Status(NamedTuple):
    """A moment of the node. ``read_only_reason`` is empty while it takes new blobs."""

    identity: Identity
    uptime_seconds: float
    counts: Counts
    space: Space
    read_only_reason: str
    agent: dict[str, Any] | None


class StatusReporter:
    """Puts the snapshot together. ``ask_agent`` gives the agent's own account, None if it is down."""

    def __init__(
        self,
        identity: Identity,
        blobs: Blobs,
        ask_agent: Callable[[], Awaitable[dict[str, Any] | None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.identity = identity
        self._blobs = blobs
        self._ask_agent = ask_agent
        self._clock = clock

    async def status(self) -> Status:
        reason = self._blobs.space.why_not()
        return Status(
            identity=self.identity,
            uptime_seconds=max(0.0, self._clock() - self.identity.started),
            counts=await self._blobs.counts(),
            space=self._blobs.space.look(),
            read_only_reason="" if reason is None else reason.message,
            agent=await self._ask_agent(),
        )
