"""Keeping background work to a rate."""

import asyncio


class Pace:
    """Lets through ``per_second`` units a second on average; 0 is no limit.

    What was not used is lost after a second, so a long rest is not made up for by a burst.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._free_at = 0.0

    async def spend(self, units: float) -> None:
        """Wait until so many units fit, and take them."""
        if not self.per_second or not units:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - 1.0) + units / self.per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
