"""The cluster as doors see it: how it is, and the orders that an operator gives.

All of it is the agent's to know and to do. This module asks it, in the same process or in another
one, and knows neither how nodes talk nor where blobs belong.
"""

from typing import Any, Protocol

from tierce.core.limits import AGENT_ORDER_SECONDS


class Control(Protocol):
    """The agent's ear: a direct call in a node of one process, a Unix socket otherwise."""

    async def call(
        self, name: str, arguments: dict[str, Any], seconds: float = AGENT_ORDER_SECONDS
    ) -> dict[str, Any]:
        """Have the agent carry out the order of that name, and return its answer.

        Arguments and answer are JSON objects. Raises the agent's refusal as the core error that it
        was there, and Unavailable while the agent is down, or after so many ``seconds``.
        """
        ...


class Cluster:
    """The cluster that this node is a member of, if only by itself."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def overview(self) -> dict[str, Any]:
        """All nodes, and how the cluster's blobs are. Raises Unavailable while the agent is down.

        The shape is that of ``/v1/cluster`` (docs/native-api.md): sizes in bytes, times in seconds.
        """
        return await self._control.call("cluster", {})

    async def drain(self, node_id: str, *, cancel: bool = False) -> None:
        """Have a node emptied, so that it can be taken away; or with ``cancel`` be used again.

        Returns once the order is taken: the blobs move in the background. May be repeated. Raises
        NotFound for an unknown node, Conflict for one that can't be drained, Unavailable.
        """
        await self._control.call("drain", {"node_id": node_id, "cancel": cancel})

    async def forget(self, node_id: str) -> None:
        """Strike a node that will not come back from the members; its blobs are copied at once.

        Raises NotFound for an unknown node, Conflict for one that is not down, Unavailable.
        """
        await self._control.call("forget", {"node_id": node_id})

    async def compare_store(self) -> dict[str, Any]:
        """Have this node's store in the cloud compared with its catalogue, in the background.

        The answer's ``comparison`` is the number that ``comparisons`` in the status reaches when that
        was done. Raises Conflict for a node without such a store, Unavailable.
        """
        return await self._control.call("compare_store", {})
