"""The two servers between which couch.py moves attachments: requests, JSON, and whole bodies.

A body is received into a file that nobody else sees, and its digests are taken on the way, so that
memory holds a few pieces only. What is wrong with an answer becomes one of our errors here.
"""

import asyncio
import base64
import hashlib
import json
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import BinaryIO, NamedTuple, cast

import aiohttp
from yarl import URL

from tierce.client.couch_documents import Json
from tierce.client.retrying import Retry
from tierce.client.wire import SEND_PIECE_BYTES, STALL_SECONDS, Body, Wire
from tierce.core.errors import (
    BadRequest,
    Corrupt,
    Full,
    Refused,
    TierceError,
    TooLarge,
    Unavailable,
    from_os_error,
)
from tierce.core.limits import MIB

MEMORY_BYTES = 4 * MIB
"""A larger body is on disk while it is here."""
_GZIP = 16 + zlib.MAX_WBITS


class Received(NamedTuple):
    """A body that came whole: the file it is in, its size in bytes, its SHA-512 in hex, and its type.

    What came compressed is in the file as it was before: ``is_inflated``. ``sent_bytes`` and
    ``sent_md5``, as CouchDB writes it, are of what came. The type is empty if none was announced.
    """

    file: BinaryIO
    size: int
    sha512: str
    sent_bytes: int
    sent_md5: str
    content_type: str
    is_inflated: bool

    def body(self) -> Body:
        """The same, to be sent."""
        return Body(self.size, lambda: _pieces(self.file))


class Site:
    """A server by its base URL. ``named`` is what errors call it. Use it as a context.

    Credentials are ``user`` (a name and a password; those in the URL come before it) or ``token``.
    """

    def __init__(
        self,
        url: str,
        named: str,
        *,
        user: tuple[str, str] | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        base = _parsed(url, named)
        if base.user is not None:
            user = base.user, base.password or ""
        if user is not None and token is not None:
            raise BadRequest(
                f"for {named} there are both a token and a user", hint="Give one of the two."
            )
        self.named = named
        self.has_path = bool(base.path.strip("/"))
        self._headers = dict(headers or {})
        if user is not None:
            plain = ":".join(user).encode("utf-8", "surrogateescape")
            self._headers["Authorization"] = "Basic " + base64.b64encode(plain).decode()
        without = str(base.with_user(None))
        self._wire = Wire(without, token, Retry(attempts=1), stall_seconds=stall_seconds)

    async def __aenter__(self) -> "Site":
        self._wire.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    async def get_json(self, path: str, subject: str, limit_bytes: int) -> Json:
        """GET a JSON object. Raises TooLarge beyond ``limit_bytes``."""
        body = bytearray()
        async with self._receiving(path, subject) as response:
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > limit_bytes:
                    raise TooLarge(
                        f"{self._about(subject)}: the answer has more than {limit_bytes} bytes"
                    )
        return self._loaded(bytes(body), subject)

    async def put(
        self, path: str, subject: str, body: Body, headers: Mapping[str, str] | None = None
    ) -> Json:
        """PUT a body, and return the JSON object that is the answer; empty without any."""
        with self._own_hints():
            answer = await self._wire.exchange(
                "PUT",
                path,
                self._about(subject),
                headers={**self._headers, **(headers or {})},
                body=body,
            )
        return self._loaded(answer.body or b"{}", subject)

    @asynccontextmanager
    async def received(
        self, path: str, subject: str, *, inflate: bool = False
    ) -> AsyncIterator[Received]:
        """GET a body into a file that is gone at the end of the block.

        ``inflate``: it may come compressed. Raises Corrupt for what can't be decompressed then.
        """
        accepted = {"Accept-Encoding": "gzip"} if inflate else {}
        with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as spool:
            file = cast(BinaryIO, spool)
            async with self._receiving(path, subject, accepted) as response:
                kind = response.headers.get("Content-Type", "")
                is_inflated = inflate and response.headers.get("Content-Encoding") == "gzip"
                taking = _Taking(file, is_inflated, subject)
                async for piece in response.content.iter_chunked(SEND_PIECE_BYTES):
                    await asyncio.to_thread(taking.feed, piece)
            yield taking.finished(kind)

    async def sha512(self, path: str, subject: str) -> str:
        """GET a body for its SHA-512 alone, in hex."""
        found = hashlib.sha512()
        async with self._receiving(path, subject) as response:
            async for piece in response.content.iter_chunked(SEND_PIECE_BYTES):
                await asyncio.to_thread(found.update, piece)
        return found.hexdigest()

    @asynccontextmanager
    async def _receiving(
        self, path: str, subject: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        about, headers = self._about(subject), {**self._headers, **(headers or {})}
        with self._own_hints():
            async with self._wire.receiving(path, about, headers) as response:
                if response.status != 200:  # a part of it, for instance
                    raise Unavailable(f"{about}: status {response.status}")
                yield response

    @contextmanager
    def _own_hints(self) -> Iterator[None]:
        try:
            yield
        except Refused as problem:
            raise type(problem)(
                problem.message, hint=f"Give credentials that may read and write in {self.named}."
            ) from problem

    def _about(self, subject: str) -> str:
        return f"{self.named}, {subject}" if subject else self.named

    def _loaded(self, body: bytes, subject: str) -> Json:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(
                f"{self._about(subject)}: the answer is no JSON object", hint="Check the URL."
            )
        return found


def json_body(content: Json, subject: str) -> Body:
    """A JSON object to be sent. Raises BadRequest for numbers that JSON can't say."""
    try:
        data = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as problem:
        raise BadRequest(f"{subject} can't be written as JSON: {problem}") from problem

    async def whole() -> AsyncIterator[bytes]:
        yield data

    return Body(len(data), whole)


class _Taking:
    """Takes a body into a file, piece by piece, decompressed if ``is_inflated``."""

    def __init__(self, file: BinaryIO, is_inflated: bool, subject: str) -> None:
        self._file = file
        self._subject = subject
        self._inflating = zlib.decompressobj(_GZIP) if is_inflated else None
        self._sent_md5 = hashlib.md5(usedforsecurity=False)
        self._sent_bytes = 0
        self._sha512 = hashlib.sha512()
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """Take what came. Raises Corrupt, and Full or another error of the disk."""
        self._sent_md5.update(piece)
        self._sent_bytes += len(piece)
        if self._inflating is None:
            self._keep(piece)
            return
        while piece:
            if self._inflating.eof:  # several may stand one behind the other
                self._inflating = zlib.decompressobj(_GZIP)
            self._inflate(self._inflating, piece)
            piece = self._inflating.unconsumed_tail or self._inflating.unused_data

    def finished(self, content_type: str) -> Received:
        """All came. Raises Corrupt if that can't be."""
        while self._inflating is not None and not self._inflating.eof:
            if not self._inflate(self._inflating, b""):
                raise self._bad("its end is missing")
        is_inflated = self._inflating is not None
        md5 = "md5-" + base64.b64encode(self._sent_md5.digest()).decode()
        sha512 = self._sha512.hexdigest()
        return Received(
            self._file, self._size, sha512, self._sent_bytes, md5, content_type, is_inflated
        )

    def _inflate(self, inflating: "zlib._Decompress", piece: bytes) -> int:
        try:
            found = inflating.decompress(piece, SEND_PIECE_BYTES)
        except zlib.error as problem:
            raise self._bad(str(problem)) from problem
        self._keep(found)
        return len(found)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        self._sha512.update(piece)
        with _disk_translated(self._subject):
            self._file.write(piece)

    def _bad(self, reason: str) -> Corrupt:
        return Corrupt(f"the {self._subject} can't be decompressed: {reason}")


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    """A file from its beginning."""
    await asyncio.to_thread(file.seek, 0)
    while piece := await asyncio.to_thread(file.read, SEND_PIECE_BYTES):
        yield piece


@contextmanager
def _disk_translated(subject: str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        error: TierceError = from_os_error(problem, f"keeping {subject} in {tempfile.gettempdir()}")
        if isinstance(error, Full):
            error.hint = "Free some space there, or name another directory in TMPDIR."
        raise error from problem


def _parsed(text: str, named: str) -> URL:
    try:
        url = URL(text)
        is_sound = (
            url.scheme in ("http", "https")
            and bool(url.host)
            and url.port is not None
            and not url.query_string
            and not url.fragment
        )
    except ValueError:
        is_sound = False
    if not is_sound:
        raise BadRequest(
            f"that is not the URL of {named}", hint="Write it as in http://HOST:PORT/PATH."
        )
    return url
