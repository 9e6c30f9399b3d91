"""Which blobs are kept for the sake of records only, and since when none may refer to them.

A blob that somebody put without a name belongs to that person, and only they may remove it. One that
came with a named object is *managed*: it goes when no record refers to it any more, after a grace
time. So a managed blob has a mark: the time it was last put, or lost a reference. A blob without one
is *claimed*. Putting a managed blob without a name claims it, for good.

The mark of a blob, small or large, is a row of ``blobs`` with that time, in milliseconds since 1970. Its
key is the blob's and a byte more: so it stands beside the blob, and a put changes one page for both.
``loose`` holds time and key of those that may have no reference, oldest first. Every managed blob
without a reference has an entry there with the time of its mark; entries with another time mean nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tierce.blobs.environment import BLOBS, LOOSE, Environment, WriteBatch
from tierce.core.digest import Digest

_TIME_BYTES = 8
MARK = b"#"
"""What stands behind a blob's key in that of its mark."""


def key_of(digest: Digest) -> bytes:
    """A blob's key in the index."""
    return digest.algorithm.encode() + b":" + digest.raw


def milliseconds() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


Place: TypeAlias = Callable[[WriteBatch, Digest], bool]
"""Says whether it has a blob, in the eyes of a transaction."""


class Marking:
    """Sets marks, always inside a transaction. ``now`` gives milliseconds since 1970.

    ``places`` tell whether a blob is there: all those where one may be, by the transaction that
    asks. Who puts a file sets the mark before the file appears, or removes it before, so that
    nobody collects what is being put, and after, so that of two at the same time the claim wins. Who
    removes a file removes the mark while nobody can put the file, and who puts it makes sure of the
    mark in the moment when it appears: so no managed file is ever without one.
    """

    def __init__(self, now: Callable[[], int] = milliseconds) -> None:
        self.now = now
        self.places: list[Place] = []

    def put(
        self,
        batch: WriteBatch,
        digest: Digest,
        managed: bool | None,
        *,
        is_loose: bool = True,
        at: Place | None = None,
        was_there: bool = False,
    ) -> None:
        """A blob is being put; None leaves its mark. Not ``is_loose``: a record refers to it.

        ``was_there`` is what the place ``at`` would say, of before: it need not be asked.
        """
        key = key_of(digest)
        if managed is False:
            claim(batch, key)
        elif managed and (
            not (was_there or self._is_there(batch, digest, at)) or is_managed(batch, key)
        ):
            touch(batch, key, self.now(), is_loose=is_loose)

    def release(self, batch: WriteBatch, digest: Digest) -> None:
        """A record refers to a blob no more. Perhaps others do: whoever collects looks."""
        key = key_of(digest)
        if is_managed(batch, key):
            touch(batch, key, self.now())

    def was_lost(self, batch: WriteBatch, digest: Digest) -> bool:
        """Whether the mark is gone of a blob that is being put as a managed one.

        Who removed the blob that was there before took it along. A claimed one has none either, but
        it is there.
        """
        return not is_managed(batch, key_of(digest)) and not self._is_there(batch, digest, None)

    def _is_there(self, batch: WriteBatch, digest: Digest, but: Place | None) -> bool:
        """Whether any place has the blob."""
        return any(place(batch, digest) for place in self.places if place != but)


async def claim_all(environment: Environment, digests: Sequence[Digest]) -> None:
    """Remove the marks of those that have one. Durable."""
    keys = [key_of(digest) for digest in digests]
    with environment.snapshot() as batch:
        marked = [key for key in keys if is_managed(batch, key)]

    def change(batch: WriteBatch) -> None:
        for key in marked:
            claim(batch, key)

    if marked:
        await environment.write(change)


def managed_of(environment: Environment, digests: Sequence[Digest]) -> list[bool]:
    """For each whether it has a mark."""
    with environment.snapshot() as batch:
        return [is_managed(batch, key_of(digest)) for digest in digests]


def is_managed(batch: WriteBatch, key: bytes) -> bool:
    """Whether a blob has a mark."""
    return batch.get(BLOBS, key + MARK) is not None


def mark_of(batch: WriteBatch, key: bytes) -> bytes:
    """A blob's mark, as it is kept; empty if it has none."""
    return bytes(batch.get(BLOBS, key + MARK) or b"")


def touch(batch: WriteBatch, key: bytes, now: int, *, is_loose: bool = True) -> None:
    """Mark a blob as managed, anew if it was."""
    when = now.to_bytes(_TIME_BYTES)
    batch.put(BLOBS, key + MARK, when)
    if is_loose:
        batch.put(LOOSE, when + key, b"")


def claim(batch: WriteBatch, key: bytes) -> None:
    """Somebody wants a blob for its own sake, or it is gone: it has no mark from now on."""
    batch.delete(BLOBS, key + MARK)


def loose_before(batch: WriteBatch, before: int, limit: int) -> list[bytes]:
    """Up to ``limit`` entries older than ``before``, milliseconds since 1970, oldest first."""
    found: list[bytes] = []
    with batch.cursor(LOOSE) as cursor:
        more = cursor.first()
        while more and len(found) < limit:
            entry = bytes(cursor.key())
            if entry >= before.to_bytes(_TIME_BYTES):
                break
            found.append(entry)
            more = cursor.next()
    return found


def blob_of(entry: bytes) -> bytes:
    """The key of the blob that an entry is about."""
    return entry[_TIME_BYTES:]


def is_due(batch: WriteBatch, entry: bytes) -> bool:
    """Whether an entry still means something: its blob was not put, released or claimed since."""
    return mark_of(batch, blob_of(entry)) == entry[:_TIME_BYTES]


def drop(batch: WriteBatch, entry: bytes) -> None:
    """Remove an entry that has been seen to."""
    batch.delete(LOOSE, entry)
