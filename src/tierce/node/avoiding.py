"""Which members failed to answer a moment ago, so that nobody waits for them again and again.

Gossip takes some seconds to find a member down. Until then every request that went to it would
first wait for it in vain; so one that failed is tried last for a while, not left out.
"""

import asyncio
from collections.abc import Iterable

from tierce.cluster.member import Member
from tierce.core.limits import PEER_AVOIDED_SECONDS


class Avoiding:
    """Remembers failures for PEER_AVOIDED_SECONDS. Belongs to one event loop."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def failed(self, member: Member) -> None:
        """The member did not answer, or not in time."""
        now = asyncio.get_running_loop().time()
        self._until[member.node_id] = now + PEER_AVOIDED_SECONDS

    def answered(self, member: Member) -> None:
        """The member is well."""
        self._until.pop(member.node_id, None)

    def sorted(self, members: Iterable[Member]) -> list[Member]:
        """The same members, those that failed lately last."""
        found = list(members)
        if not self._until:
            return found
        now = asyncio.get_running_loop().time()
        return sorted(found, key=lambda each: self._until.get(each.node_id, now) > now)
