"""A node's disk in a simulation, and the blob store on it, with what disks do to people.

What a put has acknowledged survives any crash. A put that a crash interrupts is there afterwards or
it is not, whole in either case; so is one that failed with a write error. Bits rot, unseen until
somebody reads. The disk outlives its node's processes; each of them has a SimStore of its own, which
works no more once that process is dead.

Beyond the faults it does what blobs/memory.py does, and it keeps the same contract.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

from tierce.blobs.packed import SmallBlob
from tierce.blobs.space import Space, SpaceGuard
from tierce.blobs.spool import Spool
from tierce.blobs.store import BlobInfo, Counts, OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, Full, NotFound, TierceError, Unavailable
from tierce.core.limits import GIB
from tierce.names.memory import MemoryIndex
from tierce.testing.sim_process import Process

LARGE_PIECE_BYTES = 8 * 1024
T = TypeVar("T")


@dataclass
class SimDisk:
    """What lies on a disk, and what is wrong with it. Fields may be changed at any time.

    ``write_errors`` and ``read_errors`` are chances from 0 to 1; a write takes up to
    ``write_seconds``. Blobs of more than ``pack_limit_bytes`` are read as large ones are: in
    pieces, and verified at the end. ``marks`` are the managed blobs (blobs/marks.py), each with the
    time it was put or released, in milliseconds; ``index`` is the index of records.
    """

    random: Random
    pack_limit_bytes: int = 16 * 1024
    write_seconds: float = 0.004
    write_errors: float = 0.0
    read_errors: float = 0.0
    is_full: bool = False
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    quarantined: list[tuple[Digest, bytes]] = field(default_factory=list)
    marks: dict[Digest, int] = field(default_factory=dict)
    index: MemoryIndex | None = None

    def __post_init__(self) -> None:
        # What was written under each name, for the checksums that large blobs have for each piece.
        self.written: dict[Digest, bytes] = {}
        self._under_way: list[Callable[[], object]] = []

    def rot(self, digest: Digest) -> None:
        """Flip a bit of a stored blob; one without bytes can't rot."""
        data = bytearray(self.blobs[digest])
        if data:
            bit = self.random.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            self.blobs[digest] = bytes(data)

    def wipe(self) -> None:
        """Lose everything, as an exchanged disk has."""
        self.blobs.clear()
        self.quarantined.clear()
        self.marks.clear()
        self.index = None
        self._under_way.clear()

    def crash(self) -> None:
        """Decide what becomes of the changes that nobody was told of yet."""
        under_way, self._under_way = self._under_way, []
        for change in under_way:
            if self.random.random() < 0.5:
                with contextlib.suppress(TierceError):
                    change()

    async def change(
        self, digest: Digest, data: bytes | None, managed: bool | None = False, now: int = 0
    ) -> bool:
        """Write a blob, or delete it with None; durable, and visible, when it returns.

        True if that made a blob appear or vanish. Raises Unavailable for a write error.
        """
        return await self.commit(lambda: self.apply(digest, data, managed, now))

    async def commit(self, change: Callable[[], T]) -> T:
        """Make a change durable. If a crash or an error comes between, it is made or it is not.

        Raises Unavailable for a write error, and what the change does.
        """
        self._under_way.append(change)
        await asyncio.sleep(self.write_seconds * self.random.random())
        if not any(each is change for each in self._under_way):
            raise Unavailable("the disk is gone")  # a crash decided already
        self._under_way = [each for each in self._under_way if each is not change]
        failed = self.write_errors and self.random.random() < self.write_errors
        if failed and self.random.random() < 0.5:
            raise _io_error("writing")
        result = change()
        if failed:
            raise _io_error("syncing")
        return result

    def apply(
        self, digest: Digest, data: bytes | None, managed: bool | None = False, now: int = 0
    ) -> bool:
        """Make a change now. True if it made a blob appear or vanish."""
        created = digest not in self.blobs
        if data is None:
            self.marks.pop(digest, None)
            return self.blobs.pop(digest, None) is not None
        if managed and (created or digest in self.marks):
            self.marks[digest] = now
        elif managed is False:
            self.marks.pop(digest, None)
        self.blobs[digest] = self.written[digest] = data
        return created


class SimStore:
    """A process's blob store on a disk."""

    def __init__(self, disk: SimDisk, process: Process, now: Callable[[], int] = lambda: 0) -> None:
        self._disk = disk
        self._process = process
        self._now = now

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        """See BlobStore."""
        self._check_alive()
        self.check_room()
        return await self._disk.change(spool.digest, content_of(spool), managed, self._now())

    def check_room(self) -> None:
        """Raise Full on a full disk."""
        if self._disk.is_full:
            raise Full("no space left while storing a blob", hint="Free some space.")

    async def claim(self, digests: Sequence[Digest]) -> None:
        """See BlobStore."""
        self._check_alive()
        for digest in digests:
            self._disk.marks.pop(digest, None)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        """See BlobStore."""
        return [digest in self._disk.marks for digest in digests]

    async def open(self, digest: Digest) -> OpenBlob:
        """See BlobStore."""
        data = self._read(digest)
        if len(data) > self._disk.pack_limit_bytes:
            return _LargeBlob(self, digest, data, self._disk.written[digest])
        if not digest.fits(data):
            self.set_aside(digest, data)
            raise NotFound(f"the copy of {digest} here was bad", found_bad=True)
        return SmallBlob(digest, data)

    async def stat(self, digest: Digest) -> int:
        """See BlobStore."""
        return len(self._read(digest))

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        """See BlobStore."""
        self._check_readable()
        found = [self._disk.blobs.get(digest) for digest in digests]
        return [None if data is None else len(data) for data in found]

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        """See BlobStore."""
        data = self._read(digest)
        if not digest.fits(data):
            if repair:
                self.set_aside(digest, data)
            raise Corrupt(f"the copy of {digest} is bad")
        return len(data)

    async def prove(self, digest: Digest) -> int:
        """See BlobStore."""
        return await self.verify(digest, repair=True)

    async def delete(self, digest: Digest) -> bool:
        """See BlobStore."""
        self._check_alive()
        if digest not in self._disk.blobs:
            return False
        return await self._disk.change(digest, None)

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        """See BlobStore."""
        self._check_readable()
        blobs = self._disk.blobs
        names = sorted(digest for digest in blobs if after is None or digest > after)
        return [BlobInfo(digest, len(blobs[digest])) for digest in names[:limit]]

    async def counts(self) -> Counts:
        """See BlobStore."""
        self._check_alive()
        return Counts(len(self._disk.blobs), sum(map(len, self._disk.blobs.values())))

    def set_aside(self, digest: Digest, data: bytes) -> None:
        """Move a bad copy to quarantine, unless a good one took its place."""
        if self._process.is_alive and self._disk.blobs.get(digest) is data:
            del self._disk.blobs[digest]
            self._disk.quarantined.append((digest, data))

    def _read(self, digest: Digest) -> bytes:
        self._check_readable()
        try:
            return self._disk.blobs[digest]
        except KeyError:
            raise NotFound(f"{digest} is not here") from None

    def _check_readable(self) -> None:
        self._check_alive()
        disk = self._disk
        if disk.read_errors and disk.random.random() < disk.read_errors:
            raise _io_error("reading")

    def _check_alive(self) -> None:
        if not self._process.is_alive:
            raise Unavailable("this process was killed")


def content_of(spool: Spool) -> bytes:
    """The bytes of a finished spool."""
    if spool.data is not None:
        return spool.data
    assert spool.path is not None
    # A large body's file begins with its bytes; checksums come after them (layout.py).
    return spool.path.read_bytes()[: spool.size]


class _LargeBlob:
    """An open blob that is read in pieces. A bad one breaks off at its first bad piece."""

    data: bytes | None = None

    def __init__(self, store: SimStore, digest: Digest, data: bytes, written: bytes) -> None:
        self._store = store
        self._data = data
        self._written = written
        self.digest = digest
        self.size = len(data)

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See OpenBlob."""
        end = self.size if stop is None else min(stop, self.size)
        for at in range(start, end, LARGE_PIECE_BYTES):
            await asyncio.sleep(0)
            piece = slice(at, min(end, at + LARGE_PIECE_BYTES))
            if self._data[piece] != self._written[piece]:
                self._store.set_aside(self.digest, self._data)
                raise Corrupt(f"the copy of {self.digest} is bad")
            yield self._data[piece]

    async def aclose(self) -> None:
        """See OpenBlob."""


class SimSpace(SpaceGuard):
    """The production's rules for room, over a disk that is full or has plenty."""

    def __init__(self, disk: SimDisk, *, read_only: bool = False) -> None:
        super().__init__(Path(os.devnull), reserve_bytes=0, read_only=read_only)
        self._disk = disk

    def look(self) -> Space:
        """The room there is."""
        return Space(total=GIB, free=0 if self._disk.is_full else GIB, reserve=0)


def _io_error(doing: str) -> Unavailable:
    return Unavailable(f"input/output error while {doing}", hint="Look at the kernel log.")
