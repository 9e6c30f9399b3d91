"""How the exchange of records with one member goes: what record_sync.py keeps of it, and tells."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from tierce.cluster.member import Member


@dataclass
class SyncPeer:
    """A member, and what is going on with it.

    ``behind`` is how many changes of its feed are still to be read, None if that is not known.
    ``was_read``: its feed was read to the end once; ``is_synced``: also since it came up.
    ``received`` are the records that were news, ``repaired`` those of them that its feed had not
    brought, ``refused`` those that were malformed. ``woken``: read its feed now. ``reading`` is held
    while it is read. ``tasks`` are those that look after it, while it is live.
    """

    member: Member
    phase: str = "waiting"
    behind: int | None = None
    received: int = 0
    repaired: int = 0
    refused: int = 0
    was_read: bool = False
    is_synced: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: tuple["asyncio.Task[None]", ...] = ()
    _touched_at: float = -math.inf

    def touch(self) -> None:
        """It has just answered."""
        self._touched_at = asyncio.get_running_loop().time()

    def status(self, now: float) -> dict[str, Any]:
        """What is told to operators, at ``now`` of the loop. The age is in seconds."""
        age = now - self._touched_at
        return {
            "phase": self.phase,
            "behind": self.behind,
            "last_contact_seconds": round(age, 3) if math.isfinite(age) else None,
            "received": self.received,
            "repaired": self.repaired,
            "refused": self.refused,
        }
