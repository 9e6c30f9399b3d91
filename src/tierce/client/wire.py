"""One exchange with a server over aiohttp, and the one place where its errors become ours.

Responsible for the connection, the token, and the watch over progress: nothing here has a total
time limit, because a large blob may take hours, but a peer that neither takes nor gives a byte
for ``STALL_SECONDS`` has failed. It knows nothing of blobs.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import aiohttp
from yarl import URL

from tierce.client import answers
from tierce.client.retrying import Retry, TryAgain
from tierce.core.errors import BadRequest, TierceError, Unavailable
from tierce.core.limits import KIB, MIB
from tierce.core.wording import quoted

CONNECT_TIMEOUT_SECONDS = 10.0
STALL_SECONDS = 60.0
# Small enough that a slow but honest link takes one within STALL_SECONDS.
SEND_PIECE_BYTES = 256 * KIB
RECEIVE_BUFFER_BYTES = 256 * KIB
# Listings of the largest pages stay well below this.
ANSWER_LIMIT_BYTES = 16 * MIB

_T = TypeVar("_T")


class Body(NamedTuple):
    """What to send: ``pieces`` starts over at each call, ``size`` is in bytes (None: not known)."""

    size: int | None
    pieces: Callable[[], AsyncIterator[bytes]]


class Answer(NamedTuple):
    """A whole answer of less than 300, held in memory."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A pool of connections to one server. One may be shared by any number of tasks."""

    def __init__(
        self,
        url: str,
        token: str | None,
        retry: Retry,
        *,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.base = _base_url(url)
        self._headers = {"Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {_checked_token(token)}"
        self._retry = retry
        self._connect_timeout_seconds = connect_timeout_seconds
        self._stall_seconds = stall_seconds
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Get ready; needs a running event loop. Nothing is connected yet."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._connect_timeout_seconds,
                sock_read=self._stall_seconds,
            ),
            auto_decompress=False,
            read_bufsize=RECEIVE_BUFFER_BYTES,
            middlewares=(_once,),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def receiving(
        self, path: str, subject: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt to GET a body; the block may read it piece by piece.

        Raises TryAgain for what another attempt may mend, also when it happens inside the block.
        """
        try:
            async with self._request("GET", path, headers=headers) as response:
                await _check(response, subject)
                yield response
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise self._translated(problem) from problem

    async def exchange(
        self,
        method: str,
        path: str,
        subject: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        """One attempt at a request whose answer is small.

        Raises TryAgain for what another attempt may mend, and whatever ``body`` raises.
        """
        headers = dict(headers or {})
        if body is not None and body.size is not None:
            headers["Content-Length"] = str(body.size)
        watch: Watch | None = None
        try:
            async with asyncio.timeout(None) as deadline:
                if body is not None:
                    watch = Watch(body.pieces(), deadline, self._stall_seconds)
                async with self._request(
                    method, path, params=params, headers=headers, data=watch
                ) as response:
                    if watch is not None:
                        watch.stop()
                    await _check(response, subject)
                    return Answer(response.status, response.headers, await _read(response))
        except (aiohttp.ClientError, TimeoutError) as problem:
            if watch is not None and watch.failure is not None:
                raise watch.failure from None
            raise self._translated(problem) from problem

    async def retried(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Call ``attempt`` until it succeeds, fails for good, or has failed too often.

        Raises what it raised last.
        """
        failures = 0
        while True:
            try:
                return await attempt()
            except TryAgain as trouble:
                failures += 1
                await self.pause(failures, trouble)

    async def pause(self, failures: int, trouble: TryAgain) -> None:
        """Wait as is due after ``failures`` failures in a row, or raise if that was the last."""
        wait = trouble.retry_after_seconds
        delay = self._retry.delay_seconds(failures, wait, random.random())  # noqa: S311 (no secret)
        if delay is not None:
            await asyncio.sleep(delay)
        elif wait is not None and failures < self._retry.attempts:
            raise Unavailable(
                f"{trouble.message}, and asks not to come back for {wait:.0f} s",
                hint=trouble.hint,
            ) from trouble
        elif failures > 1:
            raise Unavailable(
                f"{trouble.message} (tried {failures} times)", hint=trouble.hint
            ) from trouble
        else:
            raise trouble

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        data: AsyncIterator[bytes] | None = None,
    ) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            raise RuntimeError("use the client inside 'async with'")
        return self._session.request(
            method,
            # Paths come escaped; names of objects must arrive to the letter, dots and all.
            URL(f"{self.base}{path}", encoded=True),
            params=params,
            headers=headers,
            data=data,
            # A body can't be replayed to another place, and a token must not travel there.
            allow_redirects=False,
        )

    def _translated(self, problem: Exception) -> TierceError:
        """aiohttp's errors in our words."""
        if isinstance(problem, aiohttp.ClientSSLError):
            return Unavailable(
                f"no trusted TLS connection to {self.base}: {problem}",
                hint="Name the authority that signed its certificate in SSL_CERT_FILE.",
            )
        if isinstance(problem, aiohttp.InvalidURL):
            return BadRequest(f"{self.base} is not an address", hint="Write http://HOST:PORT.")
        if isinstance(problem, aiohttp.ClientConnectorError):
            return TryAgain(
                f"can't connect to {self.base}: {_reason(problem.os_error)}",
                hint="Check the address, and that the node is running.",
            )
        if isinstance(problem, TimeoutError):
            return TryAgain(
                f"{self.base} neither took nor gave a byte for too long",
                hint="Check the network and the node's load.",
            )
        return TryAgain(
            f"the connection to {self.base} broke: {str(problem) or type(problem).__name__}",
            hint="Check the network and the node's log.",
        )


class Watch(AsyncIterator[bytes]):
    """The pieces of a body, with a deadline on their being taken, never on their being made."""

    def __init__(
        self, pieces: AsyncIterator[bytes], deadline: asyncio.Timeout, stall_seconds: float
    ) -> None:
        self._pieces = pieces
        self._deadline = deadline
        self._stall_seconds = stall_seconds
        self._stopped = False
        self.failure: Exception | None = None

    async def __anext__(self) -> bytes:
        self._set(None)
        try:
            piece = b""
            while not piece:  # an empty chunk would end a chunked body
                piece = await anext(self._pieces)
        except StopAsyncIteration:
            raise
        except Exception as failure:
            # aiohttp wraps it in an error of its own; the caller wants this one.
            self.failure = failure
            raise
        self._set(asyncio.get_running_loop().time() + self._stall_seconds)
        return piece

    def stop(self) -> None:
        """The answer is coming: whether the rest of the body is taken no longer matters."""
        self._set(None)
        self._stopped = True

    def _set(self, when: float | None) -> None:
        if not self._stopped:
            self._deadline.reschedule(when)


def _reason(error: OSError) -> str:
    """asyncio tells the failed call in place of the reason; failures to resolve have no errno."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a request by itself, unseen by those who count attempts."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as problem:
        raise aiohttp.ClientConnectionError(str(problem)) from problem


async def _check(response: aiohttp.ClientResponse, subject: str) -> None:
    if response.status >= 300:
        body = await _read(response)
        raise answers.error(subject, response.status, response.headers, body)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises Unavailable beyond ANSWER_LIMIT_BYTES."""
    whole = bytearray()
    async for piece in response.content.iter_any():
        whole += piece
        if len(whole) > ANSWER_LIMIT_BYTES:
            raise answers.foreign("it doesn't end")
    return bytes(whole)


def _base_url(text: str) -> str:
    try:
        url = URL(text)
        valid = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        valid = False
    if not valid:
        raise BadRequest(
            f"{quoted(text)} is not the address of a node", hint="Write http://HOST:PORT."
        )
    if url.user is not None or url.password is not None:
        raise BadRequest(
            "an address must not hold a user or a password", hint="Give a token instead."
        )
    if url.query_string or url.fragment:
        raise BadRequest(
            f"{quoted(text)} has a query or a fragment", hint="Write http://HOST:PORT."
        )
    return str(url).rstrip("/")


def _checked_token(token: str) -> str:
    # Anything else could end the header and begin another one.
    if not token or not all("!" <= character <= "~" for character in token):
        raise BadRequest(
            "the token is empty or holds characters that no token has",
            hint="A token is one line of visible ASCII characters.",
        )
    return token
