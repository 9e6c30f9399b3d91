"""What proves that an object is still the blob that it was: reading it whole, or its tag.

With ``by_tags`` the service is believed to look after its bytes (cloud/telling.py says which do, and
docs/decisions/0019-service-checksums.md why). Then an object whose size and tag are those of its row
need not be read. A row has a tag only of an object whose content is known:

- The MD5 of a small blob, made of the very bytes that were sent, whose digest is made once more. If
  the service tells the same one, it has received them as they were.
- What the service told of an object before it was read whole, and was right. Somebody who replaced it in
  between replaced its tag too, and is found out by that.
- What it told of a large one just after it was put.

The listing is held against the rows now and then (cloud_listing.py). That takes the tag from a row whose
object is told of otherwise. A row without a tag, or one that was proved long ago, is due: to be read.
Nothing is vouched for if there was no such comparison for a while.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from typing import TypeAlias

import msgspec

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_owner import listed_as
from tierce.blobs.environment import WriteBatch
from tierce.blobs.spool import SpoolSource
from tierce.cloud.bucket import Entry
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import Corrupt, NotFound
from tierce.core.limits import CLOUD_REREAD_SECONDS, CLOUD_VOUCHED_SECONDS

_VOUCHED = "vouched"
Listed: TypeAlias = Sequence[tuple[Digest, Entry]]
UNLISTED = Entry("", -1, "", "")
"""What a listing tells of an object that it should have, and has not."""


class Vouched(msgspec.Struct):
    """The last comparison with the listing: when it began, milliseconds since 1970, and of what place.

    ``unproved_blobs`` had no tag after it; ``has_tags`` is False for a listing that tells none.
    """

    at: int
    place: str
    unproved_blobs: int = 0
    unproved_bytes: int = 0
    has_tags: bool = True


class Watched:
    """A spool's content on its way to the service, and the MD5 of what was sent."""

    def __init__(self, source: SpoolSource, pool: Executor) -> None:
        self._source = source
        self._pool = pool
        self._md5 = ""

    @property
    def size(self) -> int:
        """See Content."""
        return self._source.size

    @property
    def data(self) -> bytes | None:
        """See Content."""
        return self._source.data

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """See Content. Raises Corrupt at the end for what is not the blob."""
        digest = self._source.digest
        md5, hasher = _new_md5(), new_hasher(digest.algorithm)

        def update(piece: bytes) -> None:
            md5.update(piece)
            hasher.update(piece)

        loop = asyncio.get_running_loop()
        async with aclosing(self._source.stream()) as pieces:
            async for piece in pieces:
                await loop.run_in_executor(self._pool, update, piece)
                yield piece
        if hasher.digest() != digest.raw:
            raise Corrupt(
                f"the body of {digest} was damaged on its way to the store",
                hint="Put it again. If that happens more often, check the disk and the memory.",
            )
        self._md5 = md5.hexdigest()

    def md5(self) -> str:
        """Of what was sent, in hex; empty if nothing was."""
        return self._md5 if self.data is None else _new_md5(self.data).hexdigest()


class Proving:
    """The proofs of a store's blobs. Without ``by_tags`` nothing is believed, or written down."""

    def __init__(self, ground: Ground, *, by_tags: bool) -> None:
        self.by_tags = by_tags
        self.place = listed_as(ground.bucket, ground.layout)
        self._ground = ground
        self._bucket = ground.bucket
        self._environment = ground.environment

    async def send_small(self, path: str, source: SpoolSource) -> str:
        """Put an object that goes in one request; the tag that it should have, or none."""
        if not self.by_tags:
            await self._bucket.write(path, source)
            return ""
        content = Watched(source, self._ground.pool)
        await self._bucket.write(path, content)
        return content.md5()

    async def look(self, digest: Digest) -> Entry | None:
        """What the service tells of an object that is going to be read; None if it doesn't matter."""
        if not self.by_tags:
            return None
        with suppress(NotFound):
            return await self._bucket.look(self._ground.path(digest))
        return None

    async def keep(self, digest: Digest, row: Row, told: Entry | None) -> None:
        """The object was read whole, and was right. ``told`` is what ``look`` gave before that."""
        if told is None or told.size != row.size or not tag_in(told):
            return
        now = self._ground.now()
        await self._environment.write(
            lambda batch: catalogue.prove_in(batch, digest, row, tag_in(told), now)
        )

    async def is_still(self, digest: Digest, row: Row) -> bool:
        """Whether the object is certainly the one that was verified, by one request at most."""
        if not self._counts(row):
            return False
        told = await self.look(digest)
        return told is not None and is_of(row, told)

    async def are_due(self, digests: Sequence[Digest]) -> list[bool]:
        """For each blob whether nothing but reading it whole proves that it is right."""
        if not self.by_tags:
            return [True] * len(digests)
        return await asyncio.get_running_loop().run_in_executor(
            self._ground.pool, self._due, digests
        )

    def vouched(self) -> Vouched | None:
        """The last comparison with the listing, if it was a short while ago."""
        with self._environment.snapshot() as batch:
            return self._vouched_in(batch)

    async def vouch(self, done: Vouched) -> None:
        """A comparison is complete."""
        value = msgspec.json.encode(done).decode()
        await self._environment.write(lambda batch: catalogue.set_meta_in(batch, _VOUCHED, value))

    async def clear(self, rows: Sequence[tuple[Digest, Row]]) -> None:
        """What the service tells does not fit these rows: they are due."""

        def change(batch: WriteBatch) -> None:
            for digest, row in rows:
                if catalogue.row_in(batch, digest) == row:  # else it was proved, or put, just now
                    catalogue.prove_in(batch, digest, row, "", 0)

        if rows:
            await self._environment.write(change)

    def _due(self, digests: Sequence[Digest]) -> list[bool]:
        with self._environment.snapshot() as batch:
            if self._vouched_in(batch) is None:
                return [True] * len(digests)
            rows = [catalogue.row_in(batch, digest) for digest in digests]
        return [row is None or not self._counts(row) for row in rows]

    def _counts(self, row: Row) -> bool:
        """Whether a row has a tag that is worth something."""
        is_fresh = row.proved > self._ground.now() - int(CLOUD_REREAD_SECONDS * 1000)
        return bool(row.tag) and is_fresh

    def _vouched_in(self, batch: WriteBatch) -> Vouched | None:
        text = catalogue.meta_in(batch, _VOUCHED)
        if text is None:
            return None
        try:
            found = msgspec.json.decode(text, type=Vouched)
        except msgspec.DecodeError:
            return None
        is_recent = found.at > self._ground.now() - int(CLOUD_VOUCHED_SECONDS * 1000)
        return found if is_recent and found.place == self.place else None


def tag_in(told: Entry) -> str:
    """By what an object is known again; empty if the service tells nothing of the kind."""
    return told.etag or told.md5


def is_of(row: Row, told: Entry) -> bool:
    """Whether what the service tells is what it told of a row's object when that was right."""
    return told.size == row.size and bool(row.tag) and row.tag in (told.etag, told.md5)


def unlike_in(
    batch: WriteBatch, listed: Listed, is_old: Callable[[Row], bool]
) -> list[tuple[Digest, Row]]:
    """The rows that have a tag, and are not what a listing tells.

    Only those that ``is_old`` says so of: a listing may be from before an object was put.
    """
    found = []
    for digest, told in listed:
        row = catalogue.row_in(batch, digest)
        if row is not None and row.tag and not is_of(row, told) and is_old(row):
            found.append((digest, row))
    return found


def unproved_in(batch: WriteBatch, digests: Sequence[Digest]) -> list[Row]:
    """The rows without a tag."""
    rows = [catalogue.row_in(batch, digest) for digest in digests]
    return [row for row in rows if row is not None and not row.tag]


def _new_md5(data: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)
