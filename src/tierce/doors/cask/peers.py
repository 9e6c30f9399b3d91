"""Blobs on real Cask nodes: what Tierce asks of any peer (node/peers.py), in Cask's words.

A Cask node keeps SHA-1 blobs only, deletes nothing when asked, and does not say how large a file is:
it answers HEAD without a length, and sends what has more than 2 KiB without one too. A size must
be known before a blob can be passed on, so a large one is counted first, and verified on the way.
That is done once, since the size of what a digest names never changes.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from tierce.cluster.member import Member
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import Conflict, Corrupt, Forbidden, NotFound, Unavailable
from tierce.core.limits import PIECE_BYTES
from tierce.doors.cask.calls import CaskCalls
from tierce.doors.cask.uploads import ALGORITHM, FIELD
from tierce.node.peers import Incoming, Source

# In place of a size, from a node that has a blob and does not say how large it is.
UNKNOWN_SIZE = -1
QUESTIONS_IN_FLIGHT = 8
SIZES_REMEMBERED = 4096


class CaskPeers:
    """The peers of the dialect ``cask``.

    ``on_copied(node_id, worked)`` hears how each copy fared: a node that failed to take one is
    given no more until its next heartbeat, which the keeper of the neighbors sees to.
    """

    def __init__(self, calls: CaskCalls, on_copied: Callable[[str, bool], None]) -> None:
        self._calls = calls
        self._on_copied = on_copied
        self._sizes: dict[Digest, int] = {}

    async def store(
        self, member: Member, source: Source, *, healing: bool = False, managed: bool = False
    ) -> bool:
        """Give a member a blob. True, as Cask does not say whether it was new.

        Raises Unavailable, also for a node that is read-only or answers with another key.
        """
        try:
            await self._give(member, source)
        except (Unavailable, Forbidden) as error:
            self._on_copied(member.node_id, False)
            raise _unavailable(error) from error
        self._on_copied(member.node_id, True)
        self._remember(source.digest, source.size)
        return True

    async def find(
        self,
        member: Member,
        digests: Sequence[Digest],
        *,
        prove: bool = False,
        proof_bytes: int = 0,
        managed: Sequence[bool] | None = None,
    ) -> list[int | None]:
        """For each digest the size in bytes, or UNKNOWN_SIZE, or None for no copy.

        With ``prove`` each copy is fetched and hashed here, as a Cask node proves nothing; then all
        sizes are known. Raises Unavailable.
        """
        found: list[int | None] = [None] * len(digests)
        waiting = iter(enumerate(digests))

        async def ask() -> None:
            for index, digest in waiting:
                if digest.algorithm != ALGORITHM:
                    continue
                if prove:
                    found[index] = await self._proved(member, digest)
                elif await self._calls.has(member.cask, digest):
                    found[index] = self._sizes.get(digest, UNKNOWN_SIZE)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(QUESTIONS_IN_FLIGHT, len(digests))):
                    group.create_task(ask())
        except* (Unavailable, Forbidden) as failed:
            reason = failed.exceptions[0]
        else:
            return found
        raise _unavailable(reason)

    async def read(self, member: Member, digest: Digest) -> "bytes | int":
        """The bytes of a blob of PIECE_BYTES at most, verified, or a larger one's size in bytes.

        A larger one is read to its end, unless its size was learnt before. Raises NotFound,
        Unavailable, or Corrupt if what came does not fit the digest.
        """
        known = self._sizes.get(digest)
        if known is not None and known > PIECE_BYTES:
            return known
        body = bytearray()
        hasher = new_hasher(digest.algorithm)
        size = 0
        async with self._file(member, digest) as pieces:
            async for piece in pieces:
                size += len(piece)
                hasher.update(piece)
                if size <= PIECE_BYTES:
                    body += piece
        if hasher.digest() != digest.raw:
            raise Corrupt(
                f"what the Cask node {member.node_id} has as {digest} has another digest",
                hint="It is read from another node, if there is one that has it.",
            )
        self._remember(digest, size)
        return bytes(body) if size <= PIECE_BYTES else size

    @contextlib.asynccontextmanager
    async def open(
        self, member: Member, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        """Stream the bytes of [start, stop), not verified here. Raises as :meth:`read` does."""
        size = self._sizes.get(digest)
        if size is None:
            content = await self.read(member, digest)
            size = content if isinstance(content, int) else len(content)
        end = size if stop is None else min(stop, size)
        async with self._file(member, digest) as pieces:
            part = _part(pieces, start, end)
            async with contextlib.aclosing(part):
                yield Incoming(size, part)

    async def delete(self, member: Member, digest: Digest) -> bool:
        """False for what a Cask node can't have. Raises Conflict for all else."""
        if digest.algorithm != ALGORITHM:
            return False
        raise Conflict(
            f"the Cask node {member.node_id} can't delete {digest}: Cask has no way to ask for it",
            hint="Delete it on the Cask node's disk, and then here.",
        )

    async def _give(self, member: Member, source: Source) -> None:
        key = source.digest
        assert key.algorithm == ALGORITHM, f"a Cask node can't keep {key}"
        content_type, head, tail = _form_around(key)
        length = len(head) + source.size + len(tail)
        pieces = _joined(head, source, tail)
        answer = await self._calls.give(member.cask, content_type, length, pieces)
        if answer != str(key).encode():
            raise Unavailable(
                f"the Cask node {member.node_id} kept {key} as {answer[:60]!a}",
                hint="Look at its log.",
            )

    async def _proved(self, member: Member, digest: Digest) -> int | None:
        """The size in bytes of a copy that was read whole and is right, or None."""
        hasher = new_hasher(digest.algorithm)
        size = 0
        try:
            async with self._file(member, digest) as pieces:
                async for piece in pieces:
                    hasher.update(piece)
                    size += len(piece)
        except NotFound:
            return None
        if hasher.digest() != digest.raw:
            return None
        self._remember(digest, size)
        return size

    @contextlib.asynccontextmanager
    async def _file(self, member: Member, digest: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        if digest.algorithm != ALGORITHM:
            raise NotFound(f"a Cask node can't have {digest}")
        try:
            async with self._calls.file(member.cask, digest) as pieces:
                yield pieces
        except Forbidden as error:
            raise _unavailable(error) from error

    def _remember(self, digest: Digest, size: int) -> None:
        while len(self._sizes) >= SIZES_REMEMBERED:
            del self._sizes[next(iter(self._sizes))]
        self._sizes[digest] = size


def _unavailable(error: Exception) -> Unavailable:
    """Another secret, too, is no refusal of this very question: the node is of no use for now."""
    assert isinstance(error, Unavailable | Forbidden)
    return Unavailable(error.message, hint=error.hint)


def _form_around(key: Digest) -> tuple[str, bytes, bytes]:
    """The type of a form with one file, and what stands before and behind the file in it.

    The boundary has the file's own digest in it: nobody can make a file that holds that.
    """
    boundary = f"tierce-{key.hex}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{FIELD}"; filename="file.dat"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    tail = f"\r\n--{boundary}--\r\n"
    return f"multipart/form-data; boundary={boundary}", head.encode(), tail.encode()


async def _joined(head: bytes, source: Source, tail: bytes) -> AsyncGenerator[bytes, None]:
    if source.data is not None:
        yield head + source.data + tail
        return
    yield head
    async with contextlib.aclosing(source.stream()) as pieces:
        async for piece in pieces:
            yield piece
    yield tail


async def _part(pieces: AsyncIterator[bytes], start: int, stop: int) -> AsyncGenerator[bytes, None]:
    """The bytes of [start, stop) of what comes. Raises Unavailable if it ends before."""
    position = 0
    while position < stop:
        piece = await anext(pieces, b"")
        if not piece:
            raise Unavailable(
                f"a Cask node sent {position} bytes of a blob and no more", hint="Try again."
            )
        wanted = piece[max(0, start - position) : stop - position]
        position += len(piece)
        if wanted:
            yield wanted
