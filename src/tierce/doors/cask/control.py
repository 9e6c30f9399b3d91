"""How a door reaches the membership, which lives in the agent, perhaps in another process: by orders.

One end of it is :class:`AgentControl`, the other :func:`carry_out`. What goes between them is JSON.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from tierce.core.errors import BadRequest, TierceError
from tierce.doors.cask.membership import CaskMembership
from tierce.service.cluster import Control

log = logging.getLogger(__name__)

JOIN = "cask_join"
HEARTBEAT = "cask_heartbeat"
FAILED = "cask_failed"
ORDERS = (JOIN, HEARTBEAT, FAILED)


class AgentControl:
    """The CaskControl of a process without the membership. Close it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._reports: dict[str, asyncio.Task[None]] = {}

    async def join(self, fields: Mapping[str, str]) -> tuple[int, str]:
        """Have the agent join a node (routes.py)."""
        answer = await self._control.call(JOIN, {"url": fields["url"]})
        return int(answer["status"]), str(answer["text"])

    async def heartbeat(self, body: bytes) -> None:
        """Hand a heartbeat over, which was found to be JSON."""
        await self._control.call(HEARTBEAT, {"body": body.decode()})

    def copied(self, node_id: str, worked: bool) -> None:
        """Tell the agent of a Cask node that failed to take a file, beside.

        What worked is not told: there may be thousands of files a second, and heartbeats say as much.
        """
        if worked or node_id in self._reports:
            return
        report = asyncio.create_task(self._report(node_id))
        self._reports[node_id] = report
        report.add_done_callback(lambda _: self._reports.pop(node_id, None))

    async def close(self) -> None:
        """Give up what is not told yet."""
        reports = list(self._reports.values())
        for report in reports:
            report.cancel()
        await asyncio.gather(*reports, return_exceptions=True)

    async def _report(self, node_id: str) -> None:
        try:
            await self._control.call(FAILED, {"node_id": node_id})
        except TierceError as error:
            log.info("the agent could not be told of %s: %s", node_id, error)


async def carry_out(
    membership: CaskMembership, name: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Carry out one of ORDERS. Raises BadRequest for another."""
    if name == JOIN:
        status, text = await membership.join({"url": str(arguments["url"])})
        return {"status": status, "text": text}
    if name == HEARTBEAT:
        await membership.heartbeat(str(arguments["body"]).encode())
        return {}
    if name == FAILED:
        membership.copied(str(arguments["node_id"]), False)
        return {}
    raise BadRequest(f"{name!a} is no order")
