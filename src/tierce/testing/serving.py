"""A whole node in the test's own event loop: quick to start, and open to a look inside."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierce.app import run_single
from tierce.core.listen import PRIVATE, Listen
from tierce.core.settings import Settings
from tierce.node import sockets
from tierce.node.directory import DataDirectory
from tierce.node.runtime import Stop


@dataclass
class Served:
    """A node that answers. ``urls`` has the base URL of each door, without an end slash."""

    data: Path
    urls: dict[str, str]
    node_id: str
    stop: Stop
    private: str = ""

    @property
    def native(self) -> str:
        return self.urls["native"]

    @property
    def cask(self) -> str:
        return self.urls["cask"]


@asynccontextmanager
async def serving(
    data: Path, doors: tuple[str, ...] = ("native",), **settings: Any
) -> AsyncIterator[Served]:
    """Run a node with one worker on free loopback ports; keyword arguments are its settings."""
    settings.setdefault("reserve_bytes", 0)
    directory = DataDirectory.open(data, settings.pop("node_id", ""))
    reserved = [sockets.reserve(Listen(door, "127.0.0.1", 0)) for door in doors]
    private, held_private = sockets.reserve(Listen(PRIVATE, "127.0.0.1", 0))
    listen = tuple(found for found, _ in reserved)
    reserved.append((private, held_private))
    node_id = directory.identity.node_id
    in_force = Settings(
        data=directory.path, node_id=node_id, listen=listen, private=private, workers=1, **settings
    )
    stop, ready = Stop(), asyncio.Event()
    node = asyncio.create_task(run_single(in_force, stop, ready.set))
    starting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([node, starting], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        if node.done():
            node.result()
        scheme = "https" if in_force.tls_certificate else "http"
        urls = {each.door: f"{scheme}://{each.host}:{each.port}" for each in listen}
        yield Served(directory.path, urls, node_id, stop, private.address)
    finally:
        stop.now("the test is over")
        await node
        for _, held in reserved:
            for sock in held:
                sock.close()
        directory.close()
