"""The doors of a node that take imported items: native for blobs, dtfc for named files, sos-blob.

Each says first whether the node has an item already, so that a second run reads and sends only what
is missing. An acknowledgement counts only if it is of the bytes that were sent.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Protocol, Self
from urllib.parse import quote

import msgspec

from tierce.client import answers
from tierce.client.importing.items import Item
from tierce.client.retrying import Retry
from tierce.client.sos import CONTENT_TYPE, blob_path, metadata_of
from tierce.client.wire import Answer, Body, Wire
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, Corrupt, Forbidden, NotFound, TierceError

_FILE_NAME = re.compile(r'filename="([^"]*)"')
_EMPTY = Digest.of(b"", "sha512")

Compare = Callable[[str], Awaitable[Digest]]
"""Gives the digest of an item's bytes by an algorithm. Raises SourceTrouble."""


class Door(Protocol):
    """Where items go. Use it in ``async with``; any number of tasks may share it.

    Raises what a node answers: Refused, Unavailable and Full concern all items.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def check(self) -> None:
        """Return if the door answers as what it is to be. Raises BadRequest, Unavailable."""
        ...

    async def has(self, item: Item, compare: Compare) -> bool:
        """Whether the node has the item. Raises Conflict if something else is in its place."""
        ...

    async def put(self, item: Item, body: Body) -> bool:
        """Store an item; on disk when this returns. False if it was there.

        Raises what ``body`` raises, too.
        """
        ...


class _Door:
    """What the doors have in common. ``alive`` is a path, and what the door alone answers to it."""

    kind: ClassVar[str]
    alive: ClassVar[tuple[str, bytes]]

    def __init__(self, url: str, token: str | None, retry: Retry) -> None:
        """Raises BadRequest for a url or a token that can't be one."""
        self._wire = Wire(url, token, retry)

    async def __aenter__(self) -> Self:
        self._wire.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    async def check(self) -> None:
        """See Door."""
        path, word = self.alive
        try:
            answer = await self._ask("GET", path, f"{self._wire.base}{path}")
            is_it = word in answer.body
        except NotFound:
            is_it = False
        if not is_it:
            raise BadRequest(
                f"{self._wire.base} is not a {self.kind} door",
                hint=f"Name one with --url: this goes through a {self.kind} door.",
            )

    async def _ask(
        self,
        method: str,
        path: str,
        subject: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        async def attempt() -> Answer:
            return await self._wire.exchange(method, path, subject, headers=headers, body=body)

        return await self._wire.retried(attempt)


class NativeDoor(_Door):
    """See Door. Stores items as blobs."""

    kind, alive = "native", ("/v1/health/live", b'"live"')
    _may_ask = True

    async def has(self, item: Item, compare: Compare) -> bool:
        """See Door. Asked once only: a question that fails is answered by the upload."""
        if not self._may_ask:
            return False
        try:
            await self._wire.exchange("HEAD", f"/v1/blobs/{item.digest}", str(item.digest))
        except Forbidden:  # a token may have the right to write alone
            self._may_ask = False
            return False
        except TierceError:  # the upload tells more of it than an answer without a body
            return False
        return True

    async def put(self, item: Item, body: Body) -> bool:
        """See Door."""
        path = f"/v1/blobs/{item.digest}"
        answer = await self._ask("PUT", path, str(item.digest), body=body)
        stored = answers.stored(answer.status, answer.body)
        if (stored.digest, stored.size) != (item.digest, body.size):
            raise _wrong(f"{stored.size} bytes as {stored.digest}")
        return stored.created


class _Named(msgspec.Struct):
    """What a dtfc door says of an upload."""

    sha512: str
    length: int


class DtfcDoor(_Door):
    """See Door. Stores items with their names."""

    kind, alive = "dtfc", ("/health.html", b"All systems go.")

    async def has(self, item: Item, compare: Compare) -> bool:
        """See Door. A file that the node has under no name is not enough if there is one here.

        It is a GET of one byte: HEAD also answers for files that a node has in a dtfc program's tree
        alone, while a GET makes it keep them.
        """
        assert item.digest is not None, "a tree of dtfc has hashes only"
        headers = {} if item.digest == _EMPTY else {"Range": "bytes=0-0"}
        path = f"/{item.digest.hex}/nopeerload"
        try:
            answer = await self._ask("GET", path, item.digest.hex, headers=headers)
        except (NotFound, Forbidden):
            return False
        told = _FILE_NAME.search(answer.headers.get("Content-Disposition", ""))
        return not item.name or (told is not None and bool(told[1]))

    async def put(self, item: Item, body: Body) -> bool:
        """See Door."""
        assert item.digest is not None, "a tree of dtfc has hashes only"
        # The blank is cleaned away there. It makes a path of no name, and no order of any.
        answer = await self._ask("PUT", f"/%20{quote(item.name, safe='')}", item.place, body=body)
        stored = answers.decoded(answer.body, _Named)
        if (stored.sha512, stored.length) != (item.digest.hex, body.size):
            raise _wrong(f"{stored.length} bytes as sha512:{stored.sha512}")
        return True


class _Posted(msgspec.Struct):
    """What a blob door says of an upload."""

    id: str
    size: int


class SosBlobDoor(_Door):
    """See Door. Stores items under their ids, with their headers."""

    kind, alive = "sos-blob", ("/alive", b"alive")

    async def has(self, item: Item, compare: Compare) -> bool:
        """See Door. An id may stand for other bytes there; those are never replaced."""
        try:
            answer = await self._ask("HEAD", blob_path(item.key), item.key)
        except NotFound:
            return False
        there = _tag(answer.headers.get("ETag", ""))
        if there is None or there != await _digest(item, there.algorithm, compare):
            raise Conflict(
                f"the node has other bytes under the id {item.key}",
                hint="They were left. Delete the object there if these are the right ones.",
            )
        return not item.metadata or bool(metadata_of(answer.headers))

    async def put(self, item: Item, body: Body) -> bool:
        """See Door."""
        headers = {**item.metadata, "Content-Type": CONTENT_TYPE}
        path = blob_path(item.key)
        answer = await self._ask("POST", path, item.key, headers=headers, body=body)
        stored = answers.decoded(answer.body, _Posted)
        if (stored.id, stored.size) != (item.key, body.size):
            raise _wrong(f"{stored.size} bytes as {stored.id}")
        return True


async def _digest(item: Item, algorithm: str, compare: Compare) -> Digest:
    """What the item's bytes should have, by its name if that says it."""
    if item.digest is not None and item.digest.algorithm == algorithm:
        return item.digest
    return await compare(algorithm)


def _tag(text: str) -> Digest | None:
    try:
        return Digest.parse(text.strip('"'))
    except BadRequest:
        return None


def _wrong(what: str) -> Corrupt:
    return Corrupt(
        f"the node says that it stored {what}, which is not what was sent",
        hint="Import again; if it happens again, look for failing hardware on the way.",
    )
