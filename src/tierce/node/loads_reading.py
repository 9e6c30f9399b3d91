"""Reading a file of dtfc while the agent loads it from a peer (peer_loading.py).

A small file is waited for. A large one is read from the spool's file as it grows, the last byte once the
whole was verified; so a complete answer is right, and nobody waits for the whole.

How far the file is, is seen by the file: a spool appends, and what follows the content is written only
once the digest was found right. So a reader needs the agent only to learn that there is more, and one
whose agent is gone, or has begun another attempt, can't take the bytes of one for those of the other.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

from tierce.blobs import layout
from tierce.blobs.spool import read_at
from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable, from_os_error
from tierce.core.limits import (
    AGENT_ORDER_SECONDS,
    DTFC_PROGRESS_SECONDS,
    DTFC_READERS_COUNT,
    PIECE_BYTES,
)
from tierce.node.load_attempt import FOLLOWED_BYTES
from tierce.node.peer_loading import BUSY, LOAD, PROGRESS, Busy
from tierce.node.source_race import Nowhere

Call = Callable[[str, dict[str, Any], float], Awaitable[dict[str, Any]]]
Open = Callable[[Digest], Awaitable[OpenBlob]]

# The agent answers each of these orders within the former time.
_CALL_SECONDS = DTFC_PROGRESS_SECONDS + AGENT_ORDER_SECONDS


class Loaded(NamedTuple):
    """A file that is being loaded, or just was: its name with the peer, and its content, open."""

    name: str
    blob: OpenBlob


@dataclass
class _Poll:
    """A question to the agent under way, and how many wait for its answer."""

    task: asyncio.Task[dict[str, Any]]
    waiting: int = 0


class LoadsReading:
    """A process's way to what the agent loads. ``call`` gives it orders, ``open_kept`` opens a blob."""

    def __init__(self, call: Call, open_kept: Open, pool: Executor) -> None:
        self._call = call
        self._open_kept = open_kept
        self.pool = pool
        self._polls: dict[tuple[Digest, str, int], _Poll] = {}
        self._readers = 0

    @property
    def readers(self) -> int:
        """How many wait for a file, or follow one that comes."""
        return self._readers

    async def open(self, digest: Digest) -> Loaded:
        """Have a file loaded, and open it; close what is returned.

        Raises NotFound, Nowhere, Busy, or what the load does.
        """
        if self._readers >= DTFC_READERS_COUNT:
            raise Busy(
                f"{self._readers} readers wait for files from peers", hint="Try again later."
            )
        self._readers += 1
        followed: FollowedBlob | None = None
        try:
            begun = await self._begun(digest)
            followed = await self._followed(digest, begun)
            if followed is not None:
                return Loaded(str(begun["name"]), followed)
            return Loaded(str(begun["name"]), await self.kept(digest))
        finally:
            if followed is None:
                self._readers -= 1

    async def kept(self, digest: Digest) -> OpenBlob:
        """Wait until a load is over, whatever attempts it takes, and open what it gave.

        Raises what the load does, or Unavailable.
        """
        while not (await self.progress(digest, "", -1))["over"]:
            pass
        try:
            return await self._open_kept(digest)
        except NotFound as error:
            raise Unavailable(f"{digest} could not be loaded", hint="Try again.") from error

    async def progress(self, digest: Digest, number: str, position: int) -> dict[str, Any]:
        """See PeerLoading.progress. Those who wait for the same ask once.

        They may do so though their positions differ: who waits has read all there is.
        """
        key = digest, number, min(position, 0)
        poll = self._polls.get(key)
        if poll is None:
            arguments = {"digest": str(digest), "number": number, "position": position}
            poll = _Poll(asyncio.create_task(self._ask(PROGRESS, arguments)))
            self._polls[key] = poll
        poll.waiting += 1
        try:
            return await asyncio.shield(poll.task)
        finally:
            poll.waiting -= 1
            if self._polls.get(key) is poll and (poll.task.done() or not poll.waiting):
                del self._polls[key]
                poll.task.cancel()

    def left(self) -> None:
        """A followed file was closed."""
        self._readers -= 1

    async def _begun(self, digest: Digest) -> dict[str, Any]:
        """What PeerLoading.load says once the load has begun."""
        begun = await self._ask(LOAD, {"digest": str(digest)})
        while "waiting" in begun:
            begun = await self._ask(LOAD, {"digest": str(digest), "again": True})
        return begun

    async def _followed(self, digest: Digest, begun: dict[str, Any]) -> "FollowedBlob | None":
        """A large file as it comes; None if it is to be waited for, or no longer comes."""
        number, size = str(begun["number"]), begun["size"]
        if not isinstance(size, int) or size <= FOLLOWED_BYTES or not begun["path"]:
            return None
        try:
            fd = os.open(str(begun["path"]), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # the store has taken it over, or the attempt is over
        except OSError as error:
            raise from_os_error(error, "reading a file on its way here") from error
        is_it = False
        try:
            # A path may be used again. If the attempt still goes on now, it was its own.
            is_it = not (await self.progress(digest, number, -1))["over"]
        finally:
            if not is_it:
                os.close(fd)
        return FollowedBlob(digest, size, fd, number, self) if is_it else None

    async def _ask(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = await self._call(name, arguments, _CALL_SECONDS)
        if "failed" in answer:
            kind = Busy if answer["failed"] == BUSY else Nowhere
            raise kind(str(answer["message"]), hint=str(answer["hint"]))
        return answer


class FollowedBlob:
    """A large file on its way here, open (blobs/store.py). Parts of it are read once it is whole."""

    def __init__(
        self, digest: Digest, size: int, fd: int, number: str, reading: LoadsReading
    ) -> None:
        self.digest = digest
        self.size = size
        self.data: bytes | None = None
        self._fd = fd
        self._number = number
        self._reading = reading
        self._kept: OpenBlob | None = None

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """See OpenBlob. Raises Unavailable if the attempt fails after the first bytes."""
        end = self.size if stop is None else min(stop, self.size)
        if (start, end) == (0, self.size):
            position = 0
            while position < end and (there := await self._available(position)):
                length = min(PIECE_BYTES, there - position)
                yield await read_at(self._reading.pool, self._fd, length, position)
                position += length
            if position:
                return
        async with aclosing((await self._whole()).stream(start, end)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """See OpenBlob."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._reading.left()
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await kept.aclose()

    async def _whole(self) -> OpenBlob:
        """What the store has once the load is over. Raises what the load does, Unavailable."""
        if self._kept is None:
            self._kept = await self._reading.kept(self.digest)
            if self._kept.size != self.size:
                raise Unavailable("a peer told a wrong size", hint="Try again.")
        return self._kept

    async def _available(self, position: int) -> int:
        """Wait for bytes after a position; how far they go. 0 if the attempt is over before it gave
        any; raises Unavailable if it is after that.
        """
        while True:
            there = self._there()
            if there > position:
                return there
            if not (await self._reading.progress(self.digest, self._number, position))["over"]:
                continue
            if self._there() > position:  # also if it has become whole meanwhile
                continue
            if not position:
                return 0
            raise Unavailable("the load was broken off, or gave wrong bytes", hint="Try again.")

    def _there(self) -> int:
        """How far the file may be read: to its end only if it is verified."""
        written = os.fstat(self._fd).st_size
        is_verified = written == layout.file_bytes(self.size)
        return self.size if is_verified else min(written, self.size - 1)
