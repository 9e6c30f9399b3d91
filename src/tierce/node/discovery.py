"""Finding other nodes on the local network by multicast DNS (RFC 6762), for those who asked for it.

A node announces its private address under a name made from its id, with a tag made from the cluster's
secret. It joins what has the same tag. The tag tells nobody the secret, and lets nobody in: a join is
signed like any other request. So a stranger can at worst have this node knock at a wrong door.
"""

import asyncio
import hashlib
import hmac
import importlib.util
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tierce.core.errors import BadRequest, TierceError

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf

# An optional extra. It is loaded by those who use it: every process of a node would take the time.
HAS_ZEROCONF = importlib.util.find_spec("zeroconf") is not None

log = logging.getLogger(__name__)

SERVICE = "_tierce._tcp.local."
_ASK_MILLISECONDS = 3000
_TAG_DIGITS = 16


def check_installed() -> None:
    """Raise BadRequest if the library for multicast DNS is missing."""
    if not HAS_ZEROCONF:
        raise BadRequest(
            "discover needs the package zeroconf, which is not installed",
            hint="Run pip install 'tierce[discover]', or name a node with --join.",
        )


def tag_of(secret: str) -> str:
    """What nodes of one cluster have in common, and others have not."""
    return hmac.new(secret.encode(), b"tierce discovery", hashlib.sha256).hexdigest()[:_TAG_DIGITS]


class Discovery:
    """Announces ``address`` (HOST:PORT), and calls ``join`` with the addresses that it finds.

    ``interfaces`` are addresses of this machine to use; none means all.
    """

    def __init__(
        self,
        node_id: str,
        address: str,
        secret: str,
        join: Callable[[str], Awaitable[None]],
        interfaces: Sequence[str] = (),
    ) -> None:
        self._label = hashlib.sha256(node_id.encode()).hexdigest()[:32]
        self._address = address
        self._tag = tag_of(secret)
        self._join = join
        self._interfaces = interfaces
        self._joining: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Announce and look until cancelled."""
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

        host, _, port = self._address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            resolved = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except OSError as error:
            log.error("%s can't be announced: %s", self._address, error.strerror)
            return
        options = {"interfaces": list(self._interfaces)} if self._interfaces else {}
        try:
            zeroconf = AsyncZeroconf(**options)  # type: ignore[arg-type]
        except OSError as error:
            log.error("multicast DNS can't be used here: %s", error.strerror)
            return
        info = AsyncServiceInfo(
            SERVICE,
            f"{self._label}.{SERVICE}",
            port=int(port),
            parsed_addresses=[str(each[4][0]) for each in resolved],
            properties={"address": self._address, "cluster": self._tag},
        )
        browser = None
        try:
            await zeroconf.async_register_service(info)
            browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._heard])
            await asyncio.Event().wait()
        finally:
            for task in self._joining.values():
                task.cancel()
            if browser is not None:
                await browser.async_cancel()
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()

    def _heard(
        self,
        zeroconf: "Zeroconf",
        service_type: str,
        name: str,
        state_change: "ServiceStateChange",
    ) -> None:
        """The library calls this by keywords, on the event loop."""
        from zeroconf import ServiceStateChange

        if state_change is ServiceStateChange.Removed or name.startswith(self._label):
            return
        if name not in self._joining:
            task = asyncio.ensure_future(self._ask_and_join(zeroconf, name))
            self._joining[name] = task
            task.add_done_callback(lambda _: self._joining.pop(name, None))

    async def _ask_and_join(self, zeroconf: "Zeroconf", name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zeroconf, _ASK_MILLISECONDS):
            return
        said = info.decoded_properties
        address = said.get("address")
        if not address or said.get("cluster") != self._tag:
            return
        try:
            await self._join(address)
        except TierceError as error:
            log.warning("the node found at %s could not be joined: %s", ascii(address), error)
        else:
            log.info("found a node of the cluster at %s", ascii(address))
