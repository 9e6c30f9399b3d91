"""Requests to real Cask nodes, over HTTP: all that this node ever asks of one.

Whatever keeps a node from answering is Unavailable. No answer is read without a bound, and no wait is
without one. Requests are what Cask nodes send each other, down to the field names; the secret goes
along as they expect it, in clear.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import msgspec

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Forbidden, NotFound, Unavailable
from tierce.core.limits import (
    FORM_LIMIT_BYTES,
    PEER_ANSWER_SECONDS,
    PEER_CONNECT_SECONDS,
    PEER_STALL_SECONDS,
)
from tierce.core.listen import Listen
from tierce.doors.cask.neighbors import Node

SECRET_HEADER = "X-Cask-Cluster-Secret"  # noqa: S105
PRIVATE_HEADER = "Tierce-Private"
# A node that is joined tells all others of it before it answers, which may take longer than anyone
# waits; it goes on all the same. With the question before it this must fit AGENT_ORDER_SECONDS.
JOIN_SECONDS = 8.0
# Cask closes a connection 5 s after its last request began; so no older one is used again.
KEPT_SECONDS = 2.0
SECRET_HINT = "Give all nodes of the cluster the same CASK_CLUSTER_SECRET."  # noqa: S105


class Config(NamedTuple):
    """What a node says at ``/config/``: itself; and its private address, if it is a Tierce node."""

    node: Node
    private: str


class CaskCalls:
    """Use it in ``async with``; any number of tasks may share it. URLs are base URLs of nodes."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._kept: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # What changes something on the other side can't be sent again when a kept connection turns
        # out to be closed, so such requests get a connection of their own.
        self._kept = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS))
        self._single = _session(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in (self._kept, self._single):
            if session is not None:
                await session.close()

    async def config(self, url: str) -> Config:
        """What the node at ``url`` says of itself. Raises Unavailable; BadRequest if it is no JSON."""
        with _translated(url):
            async with (
                asyncio.timeout(PEER_ANSWER_SECONDS),
                self._request("GET", f"{url}/config/") as answer,
            ):
                body = await _bounded(answer)
                private = answer.headers.get(PRIVATE_HEADER, "")
        try:
            node = msgspec.json.decode(body, type=Node)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"{url} does not describe a node: {error}") from None
        return Config(node, Listen.private(private).address if private else "")

    async def join(self, at: str, url: str) -> None:
        """Have the node ``at`` join the one at ``url``. What it answers in a text is not looked at.

        Raises Unavailable, or Forbidden if it has another secret.
        """
        with _translated(at):
            async with (
                asyncio.timeout(JOIN_SECONDS),
                self._request(
                    "POST", f"{at}/join/", data={"secret": self._secret, "url": url}
                ) as answer,
            ):
                _check(at, answer)

    async def heartbeat(self, at: str, body: bytes) -> None:
        """Send a heartbeat. Raises Unavailable or Forbidden."""
        headers = {"Content-Type": "application/json"}
        with _translated(at):
            async with (
                asyncio.timeout(PEER_ANSWER_SECONDS),
                self._request("POST", f"{at}/heartbeat/", data=body, headers=headers) as answer,
            ):
                _check(at, answer)

    async def has(self, at: str, key: Digest) -> bool:
        """Whether the node has a file. Raises Unavailable or Forbidden."""
        with _translated(at):
            async with (
                asyncio.timeout(PEER_ANSWER_SECONDS),
                self._local("HEAD", at, key) as answer,
            ):
                # 500 stands for a file that can't be read there: as good as none.
                if answer.status in (404, 500):
                    return False
                _check(at, answer)
                return True

    @contextlib.asynccontextmanager
    async def file(self, at: str, key: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Fetch a file: its pieces, as they come and not verified, inside the block.

        Raises NotFound, Unavailable or Forbidden; the pieces raise Unavailable when no byte came for
        PEER_STALL_SECONDS, or too few in all where the length was announced.
        """
        async with contextlib.AsyncExitStack() as stack:
            with _translated(at):
                async with asyncio.timeout(PEER_ANSWER_SECONDS):
                    answer = await stack.enter_async_context(self._local("GET", at, key))
                if answer.status in (404, 500):
                    raise NotFound(f"{key} is not on {at}")
                _check(at, answer)
            pieces = _pieces(at, answer)
            stack.push_async_callback(pieces.aclose)
            yield pieces

    async def give(
        self, at: str, content_type: str, length: int, pieces: AsyncGenerator[bytes, None]
    ) -> bytes:
        """Send a form of ``length`` bytes to the node's own store, and return the answer.

        Raises Unavailable, also if for PEER_STALL_SECONDS it neither takes bytes nor answers, or
        Forbidden. ``pieces`` are closed at the end.
        """
        loop = asyncio.get_running_loop()
        headers = {
            SECRET_HEADER: self._secret,
            "Content-Type": content_type,
            "Content-Length": str(length),
        }
        async with contextlib.aclosing(pieces):
            with _translated(at):
                async with asyncio.timeout(PEER_STALL_SECONDS) as patience:

                    async def watched() -> AsyncIterator[bytes]:
                        async for piece in pieces:
                            patience.reschedule(loop.time() + PEER_STALL_SECONDS)
                            yield piece

                    async with self._request(
                        "POST", f"{at}/local/", data=watched(), headers=headers
                    ) as answer:
                        _check(at, answer)
                        return await _bounded(answer)

    def _local(
        self, method: str, at: str, key: Digest
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._request(method, f"{at}/local/{key}/", headers={SECRET_HEADER: self._secret})

    def _request(
        self,
        method: str,
        url: str,
        *,
        data: Mapping[str, str] | bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        session = self._single if method == "POST" else self._kept
        assert session is not None, "calls are made inside the block"
        return session.request(method, url, data=data, headers=headers, allow_redirects=False)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PEER_CONNECT_SECONDS)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "tierce", "Accept-Encoding": "identity"},
    )


@contextlib.contextmanager
def _translated(at: str) -> Iterator[None]:
    """Turn what goes wrong on the way into Unavailable."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reason = "it did not answer in time" if isinstance(error, TimeoutError) else str(error)
        raise Unavailable(
            f"the Cask node at {at} can't be asked: {reason or type(error).__name__}",
            hint="Look whether it runs, and at its log.",
        ) from error


def _check(at: str, answer: aiohttp.ClientResponse) -> None:
    if answer.status == 403:
        raise Forbidden(f"the Cask node at {at} has another secret", hint=SECRET_HINT)
    if answer.status != 200:
        raise Unavailable(
            f"the Cask node at {at} answered {answer.status} {answer.reason or ''}".rstrip(),
            hint="Look whether it takes files, and at its log.",
        )


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The body, or its first FORM_LIMIT_BYTES, which no sound answer has."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > FORM_LIMIT_BYTES:
            break
    return bytes(body[:FORM_LIMIT_BYTES])


async def _pieces(at: str, answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    with _translated(at):
        while True:
            async with asyncio.timeout(PEER_STALL_SECONDS):
                piece = await answer.content.readany()
            if not piece:
                return
            yield piece
