"""A server that stops while somebody connects."""

import asyncio
import contextlib
import socket

import pytest
from aiohttp import web

from tierce.core.errors import TierceError
from tierce.doors.shared.connection import DoorServer, Pace

PACE = Pace(0, 60.0, 60.0, 60.0)


async def never(request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("nobody asks anything")


def nothing(error: TierceError | None) -> web.StreamResponse:
    return web.Response(status=500)


@pytest.mark.parametrize("turns", range(6))
async def test_what_was_just_accepted_is_closed(turns: int) -> None:
    """However far it came in the loop: its transport would be left open, and its client waiting."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    server = DoorServer(never, nothing, PACE)
    await server.listen(listening, None)
    with socket.create_connection(listening.getsockname()) as client:
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.drain(5.0)
        async with asyncio.timeout(5.0):
            with contextlib.suppress(ConnectionResetError):  # it was still in the kernel's queue
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
