"""The agent's ear: how the workers of a node reach the agent, by a Unix socket in the data directory.

The agent does what is background: gossip, answers to other nodes, healing, scrub (cluster_node.py). Its
doors' processes send it orders by name, with arguments and answer as JSON. When it is gone they serve
on, and say that it is down.
"""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web

from tierce.core.errors import BadRequest, TierceError, Unavailable, name_of, named
from tierce.core.limits import AGENT_ANSWER_SECONDS, AGENT_ORDER_SECONDS

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]

_REFUSED = 409


@contextlib.contextmanager
def socket_path(run: Path) -> Iterator[str]:
    """A short name for ``run/agent.sock``: a Unix socket's path may have some 100 bytes only."""
    fd = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/agent.sock"
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def listening(call: Call, run: Path) -> AsyncIterator[None]:
    """Have ``call`` answer the orders of the workers."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            arguments = json.loads(await request.read())
            if not isinstance(arguments, dict):
                raise BadRequest("the arguments of an order are no object")
            return web.json_response(await call(request.path.strip("/"), arguments))
        except TierceError as error:
            content = {"error": name_of(error), "message": error.message, "hint": error.hint}
            return web.json_response(content, status=_REFUSED)

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    try:
        with socket_path(run) as path:
            await web.UnixSite(runner, path).start()
        yield
    finally:
        await runner.cleanup()


class AgentClient:
    """A worker's way to its agent. ``run`` is the directory of the socket."""

    def __init__(self, run: Path) -> None:
        self._run = run

    async def call(
        self, name: str, arguments: dict[str, Any], seconds: float = AGENT_ORDER_SECONDS
    ) -> dict[str, Any]:
        """Give an order, and return the answer.

        Raises the agent's refusal as the error that it was there, and Unavailable if it is down.
        """
        with socket_path(self._run) as path:
            try:
                async with (
                    ClientSession(
                        connector=UnixConnector(path), timeout=ClientTimeout(total=seconds)
                    ) as session,
                    session.post(f"http://agent/{name}", json=arguments) as response,
                ):
                    answer = json.loads(await response.read())
            except (ClientError, OSError, TimeoutError, ValueError) as error:
                raise Unavailable(
                    "the agent of this node does not answer",
                    hint="It is started again by itself; see the node's log.",
                ) from error
        if not isinstance(answer, dict):
            raise Unavailable("the agent of this node answered nonsense", hint="See its log.")
        if response.status == _REFUSED:
            raise named(str(answer["error"]), str(answer["message"]), str(answer["hint"]))
        return answer

    async def status(self) -> dict[str, Any] | None:
        """What the agent says of itself, or None if it does not answer."""
        try:
            return await self.call("status", {}, AGENT_ANSWER_SECONDS)
        except Unavailable:
            return None
