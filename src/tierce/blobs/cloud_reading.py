"""Reading a large blob from the cloud, so that no wrong byte leaves it.

Its bytes come in ranges, the next while one is passed on, and each is checked against the checksums of
its chunks, as those of a file are (file_reading.py). Where there are none, as of a blob that is known
from a listing only, the whole is read before anything is passed on, once; that makes the checksums.
What does not fit is asked for again, as the way here may have damaged it. If it is wrong again, the
digest of the whole decides; and an object is bad only if it is wrong twice in the same way, as what
lies there is.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from typing import NamedTuple, NoReturn, Protocol, TypeVar

from tierce.blobs import layout
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest, Hasher, new_hasher
from tierce.core.errors import Corrupt, NotFound, Unavailable
from tierce.core.limits import (
    CHUNK_BYTES,
    CLOUD_RANGE_BYTES,
    CLOUD_READING_BYTES,
    CLOUD_TIGHT_BYTES,
    PIECE_BYTES,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

assert CLOUD_RANGE_BYTES % CHUNK_BYTES == 0, "ranges are cut at chunk borders"


class Reports(Protocol):
    """What the store is told of a blob that is being read."""

    async def bad(self) -> bool:
        """Its content is bad: set it aside. False if it was replaced or removed meanwhile."""
        ...

    async def sums(self, sums: bytes) -> None:
        """Its checksums are these: keep them."""
        ...

    async def closed(self) -> None:
        """It is read no more."""
        ...


class Room:
    """How many bytes the readers of a process hold at once: those who are slow hold theirs for long.

    Who finds no room goes on with small pieces, one at a time, which are not counted.
    """

    def __init__(self, limit_bytes: int = CLOUD_READING_BYTES) -> None:
        self.free_bytes = limit_bytes

    def take(self, size: int) -> bool:
        """Take room, if there is so much."""
        if size > self.free_bytes:
            return False
        self.free_bytes -= size
        return True

    def give(self, size: int) -> None:
        """Give room back."""
        self.free_bytes += size


class Pieces(Protocol):
    """Where a blob's bytes come from: its object, or what is cached of it (cached_reading.py)."""

    @property
    def room(self) -> Room: ...

    async def piece(self, found: "Object", start: int, stop: int) -> bytes:
        """At least the first of the bytes of a part that begins at a chunk's border."""
        ...


class Object:
    """A large blob's object: its content by ranges, and what is known to check them by."""

    def __init__(
        self,
        bucket: Bucket,
        path: str,
        digest: Digest,
        size: int,
        sums: bytes | None,
        pool: Executor,
        *,
        range_bytes: int = CLOUD_RANGE_BYTES,
    ) -> None:
        self.digest = digest
        self.size = size
        self.sums = sums
        self.range_bytes = range_bytes
        self._bucket = bucket
        self._path = path
        self._pool = pool

    def range_of(self, start: int) -> tuple[int, int]:
        """Where the range begins and ends that an offset is in. All ranges but the last are full."""
        begin = start - start % self.range_bytes
        return begin, min(self.size, begin + self.range_bytes)

    def cut(self, start: int, stop: int) -> tuple[int, int]:
        """What is asked for at once by who wants bytes from a chunk's border on.

        It ends with a chunk, and with the range at the latest, whoever asks. So pieces are the same
        for all who read on.
        """
        return start, min(self.range_of(start)[1], _to_chunk_end(stop))

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes that ``cut`` has given, checked if they can be.

        Raises NotFound, Unavailable, or Corrupt if they are wrong twice in a row.
        """
        for _ in range(2):
            piece = await self._bucket.read(self._path, start, stop - start)
            if self.sums is None or await self.in_thread(
                functools.partial(self.fits, piece, start)
            ):
                return piece
        raise Corrupt(f"a chunk's checksum does not fit, near byte {start}")

    async def examine(self) -> bytes | None:
        """Read the whole: its checksums if the digest fits, None if it is wrong, twice the same way.

        Raises NotFound, and Unavailable if it comes wrong in another way each time.
        """
        wrong = b""
        for _ in range(2):
            found, sums = await self._hashed()
            if found == self.digest.raw:
                return sums
            if found == wrong:
                return None
            wrong = found
        raise harmed_on_the_way(self.digest)

    async def _hashed(self) -> tuple[bytes, bytes]:
        """Read the whole: its digest, and the checksums of its chunks."""
        hasher = new_hasher(self.digest.algorithm)
        sums = []
        for start in range(0, self.size, self.range_bytes):
            length = min(self.range_bytes, self.size - start)
            piece = await self._bucket.read(self._path, start, length)
            sums.append(await self.in_thread(functools.partial(hashed, hasher, piece, start)))
        return hasher.digest(), b"".join(sums)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what takes a while on many bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def sums_of(self, start: int, stop: int) -> bytes | None:
        """The checksums of the chunks of a piece, if they are known."""
        if self.sums is None:
            return None
        first, last = start // CHUNK_BYTES, layout.chunk_count(stop)
        return self.sums[layout.SUM_BYTES * first : layout.SUM_BYTES * last]

    def fits(self, piece: bytes, start: int) -> bool:
        """Whether these are the bytes from a chunk's border on, as far as checksums tell."""
        sums = self.sums_of(start, start + len(piece))
        return sums is not None and layout.sums(piece, start // CHUNK_BYTES) == sums


def harmed_on_the_way(digest: Digest) -> Unavailable:
    """A copy came wrong in another way each time: that tells nothing of what lies in the store."""
    return Unavailable(
        f"{digest} comes damaged from the store, in another way each time",
        hint="Something between the store and this node changes bytes. Ask again.",
    )


def hashed(hasher: Hasher, piece: bytes, start: int) -> bytes:
    """Hash a piece; returns the checksums of its chunks."""
    hasher.update(piece)
    return layout.sums(piece, start // CHUNK_BYTES)


class _Pending(NamedTuple):
    """A piece that was asked for, and how much of the room it has."""

    task: "asyncio.Task[bytes]"
    start: int
    stop: int
    held: int


class CloudBlob:
    """An open large blob (the OpenBlob contract in store.py)."""

    def __init__(self, found: Object, tell: Reports, pieces: Pieces) -> None:
        self._object = found
        self._pieces = pieces
        self._tell = tell
        self._ahead: asyncio.Task[bytes] | None = None
        self._held = 0
        self.digest = found.digest
        self.size = found.size

    @property
    def data(self) -> bytes | None:
        return None

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        stop = self.size if stop is None else min(stop, self.size)
        is_whole = (start, stop) == (0, self.size)
        if start >= stop:
            return
        if self._object.sums is None:  # bytes would leave before anything is known of them
            await self._examine("its digest does not fit")
        hasher = new_hasher(self.digest.algorithm) if is_whole else None
        self._let_go()
        at = start - start % CHUNK_BYTES
        pending = self._begin(at, stop)
        while True:
            piece = await self._checked(pending)
            following = at + len(piece)
            ahead = self._begin_ahead(following, stop)
            if hasher is not None:
                await self._object.in_thread(functools.partial(hasher.update, piece))
                if following == self.size:
                    await self._finish(hasher)
            wanted = memoryview(piece)[max(0, start - at) : stop - at]
            for begin in range(0, len(wanted), PIECE_BYTES):
                yield bytes(wanted[begin : begin + PIECE_BYTES])
            if following >= stop:
                return
            del piece, wanted  # a reader who is slow would hold them while the next is read
            self._let_go(pending.held)
            at, pending = following, ahead or self._begin(following, stop)

    async def aclose(self) -> None:
        try:
            if self._ahead is not None:
                self._ahead.cancel()
                await asyncio.gather(self._ahead, return_exceptions=True)
                self._ahead = None
        finally:
            self._let_go()
            await self._tell.closed()

    def _begin_ahead(self, start: int, stop: int) -> "_Pending | None":
        """Read on while a piece is passed on, if there is anything left, and room for it."""
        if start >= stop:
            return None
        stop = self._object.cut(start, stop)[1]
        return self._asked(start, stop, stop - start) if self._take(stop - start) else None

    def _begin(self, start: int, stop: int) -> "_Pending":
        """Read the next piece: a small one if readers hold much already."""
        stop = self._object.cut(start, stop)[1]
        if self._take(stop - start):
            return self._asked(start, stop, stop - start)
        return self._asked(start, min(stop, start + CLOUD_TIGHT_BYTES), 0)

    def _asked(self, start: int, stop: int, held: int) -> "_Pending":
        self._ahead = asyncio.create_task(self._pieces.piece(self._object, start, stop))
        return _Pending(self._ahead, start, stop, held)

    def _take(self, size: int) -> bool:
        is_taken = self._pieces.room.take(size)
        self._held += size if is_taken else 0
        return is_taken

    def _let_go(self, size: int | None = None) -> None:
        """Give back so much of the room, or all."""
        size = self._held if size is None else size
        self._held -= size
        self._pieces.room.give(size)

    async def _checked(self, pending: "_Pending") -> bytes:
        try:
            return await pending.task
        except NotFound as error:  # or cut short
            await self._give_up(error.message)
        except Corrupt as error:
            await self._examine(error.message)
        try:
            return await self._pieces.piece(self._object, pending.start, pending.stop)
        except (NotFound, Corrupt) as error:
            raise Unavailable(
                f"{self.digest} keeps coming damaged from the store",
                hint="Its content is good; ask again.",
            ) from error

    async def _finish(self, hasher: Hasher) -> None:
        """The whole was read: before its last piece is passed on, see that it is right."""
        if hasher.digest() != self.digest.raw:
            await self._examine("its digest does not fit")
            raise Unavailable(
                f"{self.digest} came damaged from the store", hint="Its content is good; ask again."
            )

    async def _examine(self, reason: str) -> None:
        """Have the digest of the whole decide; the checksums are right afterwards."""
        try:
            sums = await self._object.examine()
        except NotFound as error:
            await self._give_up(error.message)
        if sums is None:
            await self._give_up(reason)
        if self._object.sums is not None:
            log.warning("the checksums of %s were wrong, its content is good", self.digest)
        self._object.sums = sums
        await self._tell.sums(sums)

    async def _give_up(self, reason: str) -> NoReturn:
        if not await self._tell.bad():
            raise Unavailable(f"{self.digest} was replaced while it was read", hint="Ask again.")
        raise Corrupt(
            f"the copy of {self.digest} is bad: {reason}",
            hint="Ask again: another copy may be found. Put the blob again if none is.",
        )


def _to_chunk_end(offset: int) -> int:
    return -(-offset // CHUNK_BYTES) * CHUNK_BYTES
