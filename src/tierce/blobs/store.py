"""What a blob store promises. The comments here are the contract; testing/blob_contract.py checks it.

A store maps digests to immutable bytes. It is told the digest by a finished Spool, which has hashed
the bytes itself, so a store never has to trust a name. It verifies again whenever it reads.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from tierce.blobs.spool import Spool
from tierce.core.digest import Digest


class BlobInfo(NamedTuple):
    """One entry of a listing; the size is in bytes."""

    digest: Digest
    size: int


class Counts(NamedTuple):
    """How many blobs there are, and the sum of their sizes in bytes."""

    blobs: int
    bytes: int

    def __add__(self, other: object) -> "Counts":
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(self.blobs + other.blobs, self.bytes + other.bytes)


class OpenBlob(Protocol):
    """A blob found and open for reading. Close it with :meth:`aclose`, whatever happened.

    It stays readable while open, even if the blob is deleted or replaced meanwhile.
    """

    digest: Digest
    size: int

    @property
    def data(self) -> bytes | None:
        """The whole body, already verified, where it was small enough to read at once."""
        ...

    def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of [start, stop) in order, each piece verified before it is yielded.

        When the whole blob is read, its last piece comes only after the digest of the whole fits.
        A bad copy raises Corrupt, and has been moved to quarantine by then; what was yielded
        before is right, so a caller that has begun to answer must break off, not finish.
        One stream at a time.
        """
        ...

    async def aclose(self) -> None: ...


class BlobStore(Protocol):
    """All methods may be called concurrently, from one event loop, in any number of processes.

    All raise Unavailable when the medium fails in a way that may pass.
    """

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        """Store a finished spool's bytes under its digest; True if they were not there before.

        ``managed``: for the sake of records only (marks.py). A blob that was not there before
        becomes managed then, and one that is managed already is so anew; False claims it; None
        leaves that as it is, for copies that are made again.

        Durable when it returns: data, directory entry and index are synced. Atomic: a reader sees
        the whole blob or none. Idempotent: concurrent puts of a blob are one blob, and exactly
        one of them returns True. A put over a bad copy replaces it. The spool may be consumed; its
        owner discards it in any case. Raises Full without having changed anything.
        """
        ...

    async def open(self, digest: Digest) -> OpenBlob:
        """Find a blob. Raises NotFound. A copy found bad here is quarantined and NotFound too."""
        ...

    async def stat(self, digest: Digest) -> int:
        """The size in bytes, without verifying the content. Raises NotFound."""
        ...

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        """What ``stat`` gives for each digest, and None for those that are not here."""
        ...

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        """Read the whole blob and check it; returns the size in bytes.

        Raises NotFound, or Corrupt for a bad copy. With ``repair`` a bad copy is moved to
        quarantine first, and what can be made again from good content is made again.
        """
        ...

    async def prove(self, digest: Digest) -> int:
        """Be sure that a whole and right copy is here now; returns the size in bytes.

        As cheaply as that can be known: by reading it as ``verify`` does with ``repair``, or by what
        the medium tells of it, where that is proof enough. Raises NotFound, or Corrupt.
        """
        ...

    async def delete(self, digest: Digest) -> bool:
        """Remove a blob durably; False if it was not there."""
        ...

    async def claim(self, digests: Sequence[Digest]) -> None:
        """Those of these that are managed are so no more. Durable."""
        ...

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        """For each whether it is managed. Quick, so it may be called on the event loop."""
        ...

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        """The next ``limit`` blobs in digest order after ``after``; fewer only at the end."""
        ...

    async def counts(self) -> Counts:
        """How much is stored. Kept up to date, cheap; a crash may leave it off until recounted."""
        ...


class ProvedByReading(Protocol):
    """The part of a store that has no better proof than to read a blob whole."""

    async def verify(self, digest: Digest, *, repair: bool) -> int: ...

    async def prove(self, digest: Digest) -> int:
        """See BlobStore."""
        return await self.verify(digest, repair=True)
