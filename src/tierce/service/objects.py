"""Named objects as doors see them: put, find, open, delete, list, and the feed of changes.

An object is a record (names/record.py) and the blob that it names. These are placed by the ring, like
blobs put without a name; near_cache.py has those whose level says where they are.
"""

import asyncio
import re
from collections.abc import AsyncIterable, Sequence
from typing import NamedTuple, Protocol

from tierce.blobs.spool import Spool
from tierce.blobs.store import OpenBlob
from tierce.core.digest import DEFAULT_ALGORITHM, Digest
from tierce.core.errors import BadRequest, Conflict, NotFound, TooLarge
from tierce.core.limits import (
    CHANGES_POLL_SECONDS,
    CONTENT_TYPE_BYTES,
    METADATA_BYTES,
    METADATA_ENTRIES_COUNT,
    OBJECT_KEY_BYTES,
)
from tierce.names.changes import Position, resume
from tierce.names.index import Change, Check, Index
from tierce.names.listing import Listing, list_page
from tierce.names.record import NEAR_CACHE_BUCKET, Record
from tierce.service.blobs import Blobs

__all__ = ["NEAR_CACHE_BUCKET", "ChangesPage", "ObjectPath", "Objects"]
__all__ += ["check_bucket", "check_key", "check_metadata"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


class ChangesPage(NamedTuple):
    """A part of the feed: changes in order, and the position to ask from next time."""

    changes: list[Change]
    next: str


class ObjectPath(Protocol):
    """The way of objects through the cluster (node/object_path.py)."""

    async def put(self, spool: Spool, draft: Record, check: Check | None) -> Record:
        """Keep a finished spool's bytes and the record of them, on as many nodes as are asked for.

        Digest and size are the spool's. Raises what ``check`` raises, Unavailable, Full.
        """
        ...

    async def delete(self, bucket: str, key: str, check: Check | None) -> Record:
        """Put a tombstone in the place of a record; returns the tombstone. Raises as put does."""
        ...

    async def write(self, draft: Record, check: Check | None) -> Record:
        """Write a record whose blob is kept already, without a mark. Raises as put does."""
        ...

    async def open(self, record: Record) -> OpenBlob:
        """Open the content of a record. Raises NotFound, or Unavailable if that can't be said."""
        ...


class Objects:
    """The objects of the cluster, by way of one node."""

    def __init__(self, blobs: Blobs, index: Index, path: ObjectPath) -> None:
        self._blobs = blobs
        self._index = index
        self._path = path

    async def put(
        self,
        draft: Record,
        body: AsyncIterable[bytes],
        *,
        expected: Sequence[Digest] = (),
        announced_bytes: int | None = None,
        check: Check | None = None,
        early: bool = True,
    ) -> Record:
        """Store a body under the draft's bucket and key; durable on all nodes that must have it.

        Of the draft bucket, key, name, content type and metadata count. ``check`` sees the record in
        force in the moment of the change, on this node. It is also asked before the body comes, unless
        it is not ``early``. Raises what it raises, and all that Blobs.receive does.
        """
        check_draft(draft)
        if check is not None and early:
            check(self._index.get(draft.bucket, draft.key))
        self._blobs.check_writable(announced_bytes, algorithm=DEFAULT_ALGORITHM)
        async with self._blobs.spooling(body, DEFAULT_ALGORITHM, expected=expected) as spool:
            return await self._path.put(spool, draft, check)

    async def keep(self, spool: Spool, draft: Record, *, check: Check | None = None) -> Record:
        """Store a finished spool under the draft's bucket and key, as :meth:`put` does a body."""
        check_draft(draft)
        return await self._path.put(spool, draft, check)

    async def name(self, draft: Record) -> Record:
        """Give a blob a name. It is stored by Blobs, so it stays when the name goes.

        Of the draft also digest and size count. Durable on as many nodes as must have it.
        """
        check_draft(draft)
        return await self._path.write(draft, None)

    def known(self, bucket: str, key: str) -> Record | None:
        """The record in force, a tombstone included; None for what was never there."""
        return self._index.get(bucket, key)

    def find(self, bucket: str, key: str) -> Record:
        """The record of an object. Raises NotFound."""
        check_bucket(bucket)
        check_key(key)
        record = self._index.get(bucket, key)
        if record is None or record.deleted:
            raise NotFound(f"the bucket {bucket} has no object {key[:200]!a}")
        return record

    async def open(self, record: Record) -> OpenBlob:
        """Open an object's content; close it. Raises NotFound, Unavailable."""
        return await self._path.open(record)

    async def delete(self, bucket: str, key: str, *, check: Check | None = None) -> Record:
        """Delete an object; returns its tombstone. Raises NotFound, and what ``check`` raises."""
        self.find(bucket, key)

        def exists(record: Record | None) -> None:
            if record is None or record.deleted:
                raise NotFound(f"the bucket {bucket} has no object {key[:200]!a}")
            if check is not None:
                check(record)

        return await self._path.delete(bucket, key, exists)

    async def list_page(
        self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int
    ) -> Listing:
        """A page of a bucket's objects in the order of their keys' UTF-8 bytes (names/listing.py)."""
        check_bucket(bucket)
        return await list_page(
            self._index, bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    async def buckets(self) -> list[str]:
        """The names of all buckets that have objects."""
        found: list[str] = []
        after: tuple[str, str] | None = None
        while page := await self._index.scan_after(after, 1):
            bucket = page[0].bucket
            if await self._index.list_after(bucket, "", "", 1):
                found.append(bucket)
            after = bucket, "\U0010ffff" * (OBJECT_KEY_BYTES // 4)  # greater than any key
        return found

    async def changes(self, since: str, limit: int, wait_seconds: float) -> ChangesPage:
        """Changes after a position ("" for all), or, if there are none, those that come in time.

        Each name is there once, at its last change. Raises BadRequest for what is no position, and
        Conflict for one of another node, or of a history that this node's disk does not have.
        """
        epoch = self._index.epochs()[-1].name
        seq = self._seq(since)
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while self._index.last_seq() <= seq:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return ChangesPage([], str(Position(epoch, seq)))
            await asyncio.sleep(min(CHANGES_POLL_SECONDS, left))
        changes = await self._index.changes(seq, limit)
        last = changes[-1].seq if changes else seq
        return ChangesPage(changes, str(Position(epoch, last)))

    def _seq(self, since: str) -> int:
        if not since:
            return 0
        epochs, last = self._index.epochs(), self._index.last_seq()
        position = Position.parse(since)
        seq = resume(epochs, last, position)
        if seq is None or seq < position.seq:
            raise Conflict(
                f"{since} is a position in another history than this node's",
                hint="Ask the node that gave it. If its disk was replaced, read from the start, "
                "without `since`.",
            )
        return seq


def check_draft(draft: Record) -> None:
    """Raise BadRequest or TooLarge for what can't be put as it stands."""
    check_bucket(draft.bucket, writing=True)
    check_key(draft.key)
    check_metadata(draft)


def check_bucket(bucket: str, *, writing: bool = False) -> None:
    """Raise BadRequest for what can't name a bucket."""
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise BadRequest(
            f"{bucket[:80]!a} is not the name of a bucket",
            hint="Use 3 to 63 small letters, digits, dots and dashes, with a letter or digit at "
            "both ends.",
        )
    if writing and bucket == NEAR_CACHE_BUCKET:
        raise BadRequest(
            f"the bucket {bucket} takes objects by the objstore door only",
            hint="Put it into another bucket, or through POST /api/v1/put of that door.",
        )


def check_key(key: str) -> None:
    """Raise BadRequest for what can't name an object, TooLarge for what is too long."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadRequest(
            "the key is no UTF-8", hint="Encode it as UTF-8, then escape it."
        ) from None
    if not size or "\0" in key:
        raise BadRequest("the key is empty, or has a zero byte in it", hint="Name the object.")
    if size > OBJECT_KEY_BYTES:
        raise TooLarge(
            f"the key has {size} bytes, and may have {OBJECT_KEY_BYTES}", hint="Shorten it."
        )


def check_metadata(draft: Record) -> None:
    """Raise TooLarge for metadata beyond the limits, BadRequest for what is no text."""
    size = 0
    for name, value in draft.metadata.items():
        size += _bytes_of(name) + _bytes_of(value)
    longest = max(_bytes_of(draft.content_type), _bytes_of(draft.name))
    if len(draft.metadata) > METADATA_ENTRIES_COUNT:
        raise TooLarge(
            f"the user metadata has {len(draft.metadata)} entries, and may have"
            f" {METADATA_ENTRIES_COUNT}",
            hint="Put several into one value, or into the object itself.",
        )
    if size > METADATA_BYTES:
        raise TooLarge(
            f"the user metadata has {size} bytes, and may have {METADATA_BYTES}",
            hint="Put what is long into the object itself.",
        )
    if longest > CONTENT_TYPE_BYTES:
        text = max(draft.content_type, draft.name, key=_bytes_of)
        raise TooLarge(
            f"{text[:40]!a}… has more than {CONTENT_TYPE_BYTES} bytes", hint="Shorten it."
        )


def _bytes_of(text: str) -> int:
    """The length of a text as UTF-8. Raises BadRequest for bytes of a header that were none."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(
            "the metadata is no UTF-8", hint="Encode it as UTF-8, then escape it."
        ) from None
