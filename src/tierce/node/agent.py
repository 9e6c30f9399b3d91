"""The agent: what a node does in the background. Now that is the scrub.

The scrub walks all local blobs in digest order, verifies each, and sets bad copies aside, at a pace
that leaves the disk to the clients; then it rests, and begins again. Workers ask the agent how it goes
over a Unix socket in the data directory; when it is gone they serve on, and say that it is down.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web

from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError
from tierce.core.limits import (
    AGENT_ANSWER_SECONDS,
    SCRUB_BYTES_PER_SECOND,
    SCRUB_PAGE_BLOBS,
    SCRUB_REST_SECONDS,
)
from tierce.core.metrics import SCRUBBED_BLOBS, SCRUBBED_BYTES

log = logging.getLogger(__name__)


class Agent:
    """The background loops over a store. ``interval_seconds`` is the pause after each blob."""

    def __init__(self, store: BlobStore, interval_seconds: float) -> None:
        self._store = store
        self._interval_seconds = interval_seconds
        self._checked = 0
        self._bad = 0
        self._passes = 0
        self._last_pass: str | None = None

    def status(self) -> dict[str, Any]:
        """How the scrub goes: counts since the start; when the last full pass ended (UTC)."""
        return {
            "scrub": {
                "checked_blobs": self._checked,
                "bad_blobs": self._bad,
                "passes": self._passes,
                "last_pass": self._last_pass,
            }
        }

    async def run(self) -> None:
        """Scrub until cancelled."""
        while True:
            try:
                await self.scrub_once()
            except TierceError as error:
                log.error("the scrub was interrupted: %s", error)
            await asyncio.sleep(SCRUB_REST_SECONDS)

    async def scrub_once(self) -> None:
        """One full pass over all blobs, paced."""
        after: Digest | None = None
        while page := await self._store.list_after(after, SCRUB_PAGE_BLOBS):
            for info in page:
                await self._check(info.digest)
                pause = max(self._interval_seconds, info.size / SCRUB_BYTES_PER_SECOND)
                await asyncio.sleep(pause)
            after = page[-1].digest
        self._passes += 1
        self._last_pass = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    async def _check(self, digest: Digest) -> None:
        try:
            size = await self._store.verify(digest, repair=True)
        except NotFound:
            return
        except Corrupt:
            self._bad += 1
            size = 0
        self._checked += 1
        SCRUBBED_BLOBS.inc()
        SCRUBBED_BYTES.inc(size)


@contextlib.contextmanager
def socket_path(run: Path) -> Any:
    """A short name for ``run/agent.sock``: a Unix socket's path may have some 100 bytes only."""
    fd = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/agent.sock"
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def listening(agent: Agent, run: Path) -> AsyncIterator[None]:
    """Answer workers on the agent's socket."""

    async def status(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(agent.status())

    runner = web.ServerRunner(web.Server(status, access_log=None))
    await runner.setup()
    try:
        with socket_path(run) as path:
            await web.UnixSite(runner, path).start()
        yield
    finally:
        await runner.cleanup()


async def ask(run: Path) -> dict[str, Any] | None:
    """The agent's status, or None if it does not answer."""
    with socket_path(run) as path:
        try:
            async with (
                ClientSession(
                    connector=UnixConnector(path),
                    timeout=ClientTimeout(total=AGENT_ANSWER_SECONDS),
                ) as session,
                session.get("http://agent/status") as response,
            ):
                answer = json.loads(await response.read())
                return answer if isinstance(answer, dict) else None
        except (ClientError, OSError, TimeoutError, ValueError):
            return None
