"""Requests to other nodes over HTTP: the Transport that real nodes use (peers.py).

Responsible for connections, signatures, and the watch over progress, and the one place where
aiohttp's errors become Unavailable. Nothing is believed that the cluster's secret has not signed,
but for one thing: a peer that does not know our secret says so itself. Nothing is sent twice, and
no limit is put on how many requests go to a peer at once: whoever asks has one. It does not know
what the messages mean.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import NamedTuple

import aiohttp
import msgspec
from yarl import URL

from tierce.cluster import signing
from tierce.core import codec, errors
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Forbidden, TierceError, TooLarge, Unavailable
from tierce.core.limits import (
    CHUNK_BYTES,
    MIB,
    PEER_ANSWER_SECONDS,
    PEER_CONNECT_SECONDS,
    PEER_MESSAGE_BYTES,
    PEER_STALL_SECONDS,
)
from tierce.core.wording import quoted
from tierce.node.http_sending import Request, Sending, once
from tierce.node.peers import Incoming

BLOB_SIZE_HEADER = "Tierce-Blob-Size"

_READ_BYTES = CHUNK_BYTES
# aiohttp warns of larger bodies in one piece, as they are copied at once.
_WHOLE_BODY_BYTES = MIB
_CHECK_NETWORK = "Check that the node runs, its address, and the network."
_CHECK_LOG = "See the log of that node."


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """The body of an answer that is an error: the name of a class of core/errors.py, and its text."""

    error: str
    message: str
    hint: str = ""


class Answer(NamedTuple):
    """A whole answer in memory, and what its header says of who gave it."""

    status: int
    signature: str | None
    body: bytes


class HttpTransport:
    """A pool of connections to all peers. Any number of tasks of one event loop may share it.

    ``wall_clock`` gives seconds, for signatures. Call :meth:`start` before the first request.
    """

    def __init__(
        self,
        secret: str,
        *,
        wall_clock: Callable[[], float] = time.time,
        connect_seconds: float = PEER_CONNECT_SECONDS,
        answer_seconds: float = PEER_ANSWER_SECONDS,
        stall_seconds: float = PEER_STALL_SECONDS,
        message_bytes: int = PEER_MESSAGE_BYTES,
    ) -> None:
        self._secret = secret
        self._wall_clock = wall_clock
        self._answer_seconds = answer_seconds
        self._stall_seconds = stall_seconds
        self._message_bytes = message_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
        self._download_timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_seconds, sock_read=stall_seconds
        )
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Get ready; nothing is connected yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=self._timeout,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            request_class=Request,
            middlewares=(once,),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        """See Transport. Raises TooLarge for a message over the limit, without sending it."""
        if len(body) > self._message_bytes:
            raise TooLarge(
                f"a message of {len(body)} bytes is too large for another node",
                hint=f"Send at most {self._message_bytes} bytes at a time.",
            )
        nonce, headers = self._signed("POST", path, signing.digest_of(body))
        data: bytes | AsyncIterator[bytes] = body
        if len(body) > _WHOLE_BODY_BYTES:
            headers["Content-Length"] = str(len(body))
            data = _slices(body)
        with _translated(address):
            async with asyncio.timeout(timeout_seconds):
                response = await self._ready().request(
                    "POST",
                    _fixed_url(address, path),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                )
                answer = await self._whole(address, response)
        return self._checked(address, nonce, answer)

    async def upload(
        self, address: str, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        """See Transport. What ``pieces`` raises is raised here."""
        sending = Sending(pieces, size, self._stall_seconds)
        answer: Answer | None = None
        try:
            nonce, headers = self._signed("PUT", path, str(digest))
            headers["Content-Length"] = str(size)
            with _translated(address):
                async with asyncio.timeout(None) as sending.deadline:
                    async with self._ready().request(
                        "PUT",
                        _url(address, path),
                        data=sending,
                        headers=headers,
                        allow_redirects=False,
                    ) as response:
                        # It may come early: a refusal. What is left is not sent then.
                        sending.stop()
                        answer = await self._whole(address, response)
        except Unavailable:
            if answer is None and sending.failure is not None:
                raise sending.failure from None
            if answer is None:
                raise
        finally:
            await sending.close()
        return self._checked(address, nonce, answer)

    @asynccontextmanager
    async def download(
        self, address: str, path: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        """See Transport."""
        target = f"{path}?start={start}" + ("" if stop is None else f"&stop={stop}")
        nonce, headers = self._signed("GET", target, signing.NO_BODY)
        response: aiohttp.ClientResponse | None = None
        try:
            with _translated(address):
                async with asyncio.timeout(self._answer_seconds):
                    response = await self._ready().request(
                        "GET",
                        _url(address, target),
                        headers=headers,
                        allow_redirects=False,
                        timeout=self._download_timeout,
                    )
                    if response.status != 200:
                        self._checked(address, nonce, await self._whole(address, response))
            size = self._size_of(address, nonce, response)
            length = (size if stop is None else min(stop, size)) - start
            if response.content_length != length:
                raise _unfit(address)
            pieces = _pieces(address, response, length)
            try:
                yield Incoming(size, pieces)
            finally:
                await pieces.aclose()
        finally:
            if response is not None:
                response.close()  # a body that was read to its end has given its connection back

    def _ready(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the transport was not started, or is closed")
        return self._session

    def _signed(self, method: str, path: str, body_digest: str) -> tuple[str, dict[str, str]]:
        """A new nonce, and the headers of a request that is signed with it."""
        nonce = secrets.token_hex(signing.NONCE_BYTES)
        time_ms = int(self._wall_clock() * 1000)
        mac = signing.sign(self._secret, method, path, time_ms, nonce, body_digest)
        header = str(signing.Signed(time_ms, nonce, body_digest, mac))
        return nonce, {signing.HEADER: header}

    async def _whole(self, address: str, response: aiohttp.ClientResponse) -> Answer:
        """Read an answer to its end. The length that it announces is what bounds the memory."""
        length = response.content_length
        if length is None or length > self._message_bytes:
            response.close()
            raise _unfit(address)
        try:
            body = await response.content.read()
        except BaseException:
            response.close()
            raise
        return Answer(response.status, response.headers.get(signing.HEADER), body)

    def _checked(self, address: str, nonce: str, answer: Answer | None) -> bytes:
        """The body of a good answer. Raises the peer's refusal, or Unavailable."""
        assert answer is not None
        digest = signing.digest_of(answer.body)
        if not signing.is_answer_signed(
            self._secret, answer.signature, nonce, answer.status, digest
        ):
            raise _unsigned(address, answer)
        if answer.status == 200:
            return answer.body
        raise _refusal(address, answer)

    def _size_of(self, address: str, nonce: str, response: aiohttp.ClientResponse) -> int:
        text = response.headers.get(BLOB_SIZE_HEADER, "")
        signature = response.headers.get(signing.HEADER)
        if not signing.is_answer_signed(self._secret, signature, nonce, response.status, text):
            raise _unsigned(address, Answer(response.status, signature, b""))
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise _unfit(address)
        return int(text)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for offset in range(0, len(body), _WHOLE_BODY_BYTES):
        yield body[offset : offset + _WHOLE_BODY_BYTES]


async def _pieces(
    address: str, response: aiohttp.ClientResponse, length: int
) -> AsyncGenerator[bytes, None]:
    """The body as it comes; aiohttp sees to it that it has the announced length."""
    with _translated(address):
        while piece := await response.content.readany():
            length -= len(piece)
            yield piece
    if length:
        raise _unfit(address)


@lru_cache(maxsize=1024)
def _fixed_url(address: str, path: str) -> URL:
    """One of the few URLs that messages go to. To make one costs a tenth of a request."""
    return _url(address, path)


def _url(address: str, path: str) -> URL:
    return URL(f"http://{address}{path}", encoded=True)


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """aiohttp's errors in our words. A URL that can't be is a ValueError."""
    try:
        yield
    except aiohttp.ClientConnectorError as problem:
        reason = _reason(problem.os_error)
        raise Unavailable(f"can't connect to {address}: {reason}", hint=_CHECK_NETWORK) from problem
    except aiohttp.ConnectionTimeoutError as problem:
        raise Unavailable(
            f"can't connect to {address}: it does not answer", hint=_CHECK_NETWORK
        ) from problem
    except TimeoutError as problem:
        raise Unavailable(
            f"{address} did not answer, or go on, in time",
            hint="Check the network and that node's load.",
        ) from problem
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        what = str(problem) or type(problem).__name__
        raise Unavailable(
            f"the connection to {address} broke: {what}", hint=_CHECK_LOG
        ) from problem


def _reason(error: OSError) -> str:
    """asyncio tells the failed call in place of the reason; failures to resolve have no errno."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _unfit(address: str) -> Unavailable:
    return Unavailable(f"the answer of {address} is not as it must be", hint=_CHECK_LOG)


def _unsigned(address: str, answer: Answer) -> TierceError:
    """Nobody in particular said so. That a signature was refused is believed all the same."""
    if answer.status == 403:
        refusal = _refusal(address, answer)
        return Forbidden(
            f"{address} refuses this node's signature: {quoted(refusal.message)}",
            hint="Set the same TIERCE_CLUSTER_SECRET, and the right time, on every node.",
        )
    return Unavailable(
        f"the answer of {address} is not signed by the cluster's secret (status {answer.status})",
        hint=f"Set the same TIERCE_CLUSTER_SECRET on every node. {_CHECK_LOG}",
    )


def _refusal(address: str, answer: Answer) -> TierceError:
    try:
        refusal = codec.decode(answer.body, Refusal, "refusal")
    except BadRequest:
        return _unfit(address)
    return errors.named(refusal.error, refusal.message, refusal.hint)
