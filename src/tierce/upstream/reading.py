"""The content of an object in the upstream, piece by piece, over as many requests as it takes.

If a request fails half-way, the next one asks for the rest, and for that very content (by its entity
tag), as long as each makes some progress. There are servers that overlook that condition, so content
that came by more than one request ends only once the service still tells the same tag. A service that
has no entity tags is asked again only while nothing has been passed on yet.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import NamedTuple

import opendal
from opendal.file import AsyncFile

from tierce.cloud.failures import OPENDAL_ERRORS, Passing
from tierce.cloud.retrying import Retrying
from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.core.limits import PIECE_BYTES


class Content(NamedTuple):
    """Where a content is, its size in bytes, and the entity tag to ask for it by; empty for none."""

    path: str
    size: int
    etag: str


async def pieces_of(
    operator: opendal.AsyncOperator, content: Content, retrying: Retrying
) -> AsyncGenerator[bytes, None]:
    """Yield exactly ``size`` bytes, or raise.

    Before the first piece that is what the service answered (NotFound, Refused and so on), after it
    always Unavailable.
    """
    reader = _Reader(operator, content)
    trials = retrying.trials()
    doing = f"reading {content.path}"
    try:
        while reader.at < content.size:
            try:
                piece = await retrying.once(
                    doing,
                    reader.read,
                    is_request=not reader.is_open,
                    patience=trials.seconds_left,
                )
            except Passing as error:
                await reader.close()
                if reader.at and not content.etag:
                    raise
                await trials.pause(error)
            except TierceError as error:
                if not reader.at or isinstance(error, Unavailable):
                    raise
                raise Unavailable(
                    error.message, hint="The object was changed meanwhile; ask again."
                ) from None
            else:
                trials.progressed()
                reader.at += len(piece)
                if reader.at == content.size and reader.is_resumed:
                    await _check_same(operator, content, retrying)
                yield piece
    finally:
        await reader.close()


async def _check_same(
    operator: opendal.AsyncOperator, content: Content, retrying: Retrying
) -> None:
    try:
        told = await retrying.run(f"looking at {content.path}", lambda: operator.stat(content.path))
        is_same = told.etag == content.etag
    except NotFound:
        is_same = False
    if not is_same:
        raise Unavailable(
            f"{content.path} was changed in the upstream while it was read", hint="Ask again."
        )


async def chained(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A first piece, if it is not empty, then the others."""
    if first:
        yield first
    async for piece in rest:
        yield piece


async def read_start(operator: opendal.AsyncOperator, path: str, limit_bytes: int) -> bytes:
    """The first bytes of an object, all of them if it is small. Raises what OpenDAL raises."""
    file = await operator.open(path, "rb")
    data = b""
    try:
        while len(data) < limit_bytes and (piece := await file.read(limit_bytes - len(data))):
            data += piece
    finally:
        await file.close()
    return data


class _Reader:
    """One request at a time for what is left of a content."""

    def __init__(self, operator: opendal.AsyncOperator, content: Content) -> None:
        self._operator = operator
        self._content = content
        self._file: AsyncFile | None = None
        self.at = 0
        self.is_resumed = False

    @property
    def is_open(self) -> bool:
        """Whether a request is under way."""
        return self._file is not None

    async def read(self) -> bytes:
        """Some bytes. Raises Passing where the service sent too few."""
        left = self._content.size - self.at
        if self._file is None:
            self._file = await self._open(left)
        piece = await self._file.read(min(PIECE_BYTES, left))
        if not piece:
            raise Passing(
                f"the upstream sent {left} bytes too few of {self._content.path}",
                hint="The object was changed meanwhile, or the connection was cut; ask again.",
            )
        return piece

    async def _open(self, left: int) -> AsyncFile:
        path, _, etag = self._content
        self.is_resumed = self.at > 0
        if etag:
            return await self._operator.open(path, "rb", offset=self.at, size=left, if_match=etag)
        return await self._operator.open(path, "rb", offset=self.at, size=left)

    async def close(self) -> None:
        """Give up the request that is under way."""
        file, self._file = self._file, None
        if file is not None:
            # What closing a file that is only read has to say is of no use to anyone.
            with contextlib.suppress(*OPENDAL_ERRORS):
                async with asyncio.timeout(1.0):
                    await file.close()
