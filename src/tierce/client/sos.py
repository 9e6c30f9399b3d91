"""A client of SOS's blob servers: Tierce's, and the real ones of both generations (wire/sos.md).

Each call is one attempt; who calls knows other servers to try. The older servers speak HTTP/1.0,
ignore Range, and list at ``/blob``; the newer list at ``/blobs`` and give no size for large bodies.
Time limits are on progress, never on the whole. An upload counts only if the server says that it
has as many bytes as were sent: the older one answers 200 to a write that failed.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

import aiohttp
import msgspec

from tierce.client.downloads import content_range
from tierce.client.retrying import Retry, TryAgain
from tierce.client.sos_lists import ListReader
from tierce.client.wire import CONNECT_TIMEOUT_SECONDS, STALL_SECONDS, Answer, Body, Wire
from tierce.core.errors import BadRequest, NotFound, Unavailable
from tierce.core.wording import quoted

ID_LIMIT_CHARACTERS = 255
# Anything else would make the older server read the body as a form, which may hold another id.
CONTENT_TYPE = "application/octet-stream"

_NO_ID = "alphanumeric IDs only"
# What servers and proxies on the way add by themselves is no metadata of the object.
_NOT_METADATA = frozenset(
    ("X-Content-Type-Options", "X-Powered-By", "X-Forwarded-For", "X-Forwarded-Host",
     "X-Forwarded-Proto", "X-Real-Ip"),
)  # fmt: skip


class SosAnswer(NamedTuple):
    """A body that comes. ``size`` is that of the whole body in bytes, None if it is not told.

    ``metadata`` are its X- headers by their canonical names; ``modified`` is in nanoseconds since
    1970, 0 if it is not told.
    """

    size: int | None
    metadata: Mapping[str, str]
    modified: int
    pieces: AsyncGenerator[bytes, None]


class _Posted(msgspec.Struct):
    """What a blob server says of an upload. One that failed may still be answered with 200."""

    id: str | None = None
    size: int | None = None
    status: str = "OK"


class SosClient:
    """Talks to any number of blob servers, each by its base URL. One may be shared by many tasks.

    Use it in ``async with``, or call :meth:`open_connections` and :meth:`close`.
    """

    def __init__(
        self,
        *,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._connect_timeout_seconds = connect_timeout_seconds
        self._stall_seconds = stall_seconds
        self._wires: dict[str, Wire] = {}
        self._is_open = False

    async def __aenter__(self) -> Self:
        self.open_connections()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def open_connections(self) -> None:
        """Get ready; needs a running event loop. Nothing is connected yet."""
        self._is_open = True

    async def close(self) -> None:
        """Close every connection."""
        self._is_open = False
        while self._wires:
            _, wire = self._wires.popitem()
            await wire.close()

    async def alive(self, url: str) -> None:
        """Return if a blob server answers, as the older replicator asks. Raises Unavailable."""
        try:
            await self._exchange(url, "GET", "/")
        except NotFound:
            return

    async def ids(self, url: str) -> AsyncGenerator[str, None]:
        """All ids of a server, in its order. Raises Unavailable, also where the list breaks off."""
        for path in ("/blobs", "/blob"):
            reader = ListReader()
            try:
                async with self._wire(url).receiving(path, f"{url}{path}", {}) as response:
                    async for piece in response.content.iter_any():
                        for sos_id in reader.feed(piece):
                            yield sos_id
                    reader.finish()
                    return
            except NotFound:
                continue
        raise Unavailable(
            f"{url} lists no ids: it knows neither /blobs nor /blob",
            hint="Check that the address is that of a blob server.",
        )

    async def head(self, url: str, sos_id: str) -> int | None:
        """The size in bytes of an id, None if the server does not tell. Raises NotFound."""
        answer = await self._exchange(url, "HEAD", blob_path(sos_id))
        text = answer.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() else None

    @asynccontextmanager
    async def open(self, url: str, sos_id: str, start: int = 0) -> AsyncIterator[SosAnswer]:
        """Get an id's bytes from ``start`` on, from servers without Range too.

        Raises NotFound and Unavailable; what breaks off in the middle is raised as Unavailable where
        it leaves the block. A body without a size that is cut is not noticed here.
        """
        path = blob_path(sos_id)
        headers = {"Range": f"bytes={start}-"} if start else {}
        receiving = self._wire(url).receiving(path, f"{url}{path}", headers)
        async with _understood(), receiving as response:
            first, size = 0, response.content_length
            if response.status == 206:
                first, size = content_range(response.headers.get("Content-Range", ""))
                if first != start:
                    raise Unavailable(f"{url} sent another range than was asked for")
            yield SosAnswer(
                size,
                metadata_of(response.headers),
                _modified(response.headers.get("Last-Modified")),
                _pieces(response, url, first, start, size),
            )

    async def post(
        self, url: str, sos_id: str, body: Body, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Upload; returns only if the server says that it has all of the bytes under that id.

        ``body.size`` must be known: the older servers read no other bodies. Raises Unavailable, Full,
        BadRequest, and whatever ``body`` raises.
        """
        assert body.size is not None, "a blob server is told the size"
        headers = {**(metadata or {}), "Content-Type": CONTENT_TYPE}
        path = blob_path(sos_id)
        try:
            answer = await self._exchange(url, "POST", path, headers=headers, body=body)
        except NotFound as problem:
            raise Unavailable(
                f"{url} takes no uploads", hint="Check that the address is that of a blob server."
            ) from problem
        _check_posted(url, sos_id, body.size, answer.body)

    async def _exchange(
        self,
        url: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        wire = self._wire(url)
        async with _understood():
            return await wire.exchange(method, path, f"{url}{path}", headers=headers, body=body)

    def _wire(self, url: str) -> Wire:
        assert self._is_open, "a client is opened before it is used"
        wire = self._wires.get(url)
        if wire is None:
            wire = Wire(
                url,
                None,
                Retry(attempts=1),
                connect_timeout_seconds=self._connect_timeout_seconds,
                stall_seconds=self._stall_seconds,
            )
            wire.open()
            self._wires[url] = wire
        return wire


def blob_path(sos_id: str) -> str:
    """The path of an id. Raises BadRequest for one that can't be a single piece of a path."""
    if (
        not 0 < len(sos_id) <= ID_LIMIT_CHARACTERS
        or sos_id in (".", "..")
        or "/" in sos_id
        or not sos_id.isprintable()
    ):
        raise BadRequest(f"{quoted(sos_id)} is not an id")
    return f"/blob/{quote(sos_id, safe='')}"


def metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The X- headers that belong to the object, by their canonical names, first values only.

    Values that are no UTF-8 are ISO 8859-1, as headers were before.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        canonical = "-".join(part.capitalize() for part in name.split("-"))
        if canonical.startswith("X-") and canonical not in _NOT_METADATA:
            if not value.isprintable():
                value = _decoded(value)
            found.setdefault(canonical, value)
    return found


def _decoded(value: str) -> str:
    """A value with its bytes that are no UTF-8, which could not be sent on as they are."""
    data = value.encode(errors="surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


@asynccontextmanager
async def _understood() -> AsyncIterator[None]:
    """The newer server's 500 to an id that it can't name is a refusal, no failure of the server."""
    try:
        yield
    except Unavailable as problem:
        if _NO_ID in problem.message:
            raise BadRequest(problem.message) from problem
        raise


async def _pieces(
    response: aiohttp.ClientResponse, url: str, first: int, start: int, size: int | None
) -> AsyncGenerator[bytes, None]:
    """What comes from ``first`` on, without what lies before ``start``."""
    position = first
    async for piece in response.content.iter_any():
        skipped = min(len(piece), max(0, start - position))
        position += len(piece)
        if skipped < len(piece):
            yield piece[skipped:]
    if position < start or (size is not None and position != size):
        raise TryAgain(f"only {position} of {size} bytes came from {url}")


def _check_posted(url: str, sos_id: str, size: int, body: bytes) -> None:
    """Believe no acknowledgement of anything else than was sent. Raises Unavailable."""
    try:
        posted = msgspec.json.decode(body, type=_Posted)
    except msgspec.DecodeError as problem:
        raise Unavailable(f"{url} does not say whether it has the upload") from problem
    if posted.status != "OK":
        raise Unavailable(
            f"{url} failed to keep the upload", hint="Look at the blob server's log and its disk."
        )
    if posted.size != size or posted.id not in (sos_id, None):
        raise Unavailable(
            f"{url} says it has {posted.size} bytes as {quoted(posted.id)}, "
            f"but {size} bytes of {quoted(sos_id)} were sent",
            hint="Look at the blob server's log and its disk.",
        )


def _modified(text: str | None) -> int:
    """A Last-Modified header as nanoseconds since 1970, 0 if it is none."""
    try:
        when = parsedate_to_datetime(text or "")
    except ValueError:
        return 0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0, int((when - datetime.fromtimestamp(0, UTC)).total_seconds())) * 10**9
