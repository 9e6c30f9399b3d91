"""Replication between blob servers: which ids have too few copies, and making those that lack.

The lists of all servers of a group are taken first, each into a temporary file, then merged: what is
held in memory doesn't grow with them. A body is taken whole, into memory or a temporary file, and
found right before any of it is sent, so that a source which breaks off or has rotten bytes spoils no
other server. A copy counts as made once the server said that it has every byte, and says so again
when asked for the id. Nothing is ever removed, and what a server has already is not sent to it.
"""

import asyncio
import heapq
import itertools
import random
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, closing, suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple, Protocol

import msgspec

from tierce.client.sos import SosClient
from tierce.client.uploads import Progress
from tierce.client.wire import SEND_PIECE_BYTES, Body
from tierce.core.digest import new_hasher
from tierce.core.errors import Corrupt, Full, NotFound, TierceError, Unavailable, from_os_error
from tierce.core.limits import MIB

COPIES_AT_ONCE = 8
# A larger body goes through a temporary file.
MEMORY_LIMIT_BYTES = 4 * MIB

_SHA1 = re.compile(r"[0-9a-f]{40}").fullmatch


class Lacking(NamedTuple):
    """An id with too few copies: who has it."""

    sos_id: str
    holders: tuple[str, ...]


class Watcher(Protocol):
    """Who is told how it goes."""

    def copying(self, lacking: Lacking, targets: Sequence[str]) -> "Copying":
        """An id is about to be copied, to some of ``targets``."""
        ...


class Copying(Protocol):
    """Who is told how the copies of one id go. ``progress`` is called with each, if it is not None."""

    progress: Progress | None

    def trying(self, url: str) -> None:
        """It is sent to this server."""
        ...

    def copied(self, url: str, size: int) -> None:
        """This server has it now, all ``size`` bytes."""
        ...

    def failed(self, url: str, failure: TierceError) -> None:
        """This server could not give it, or not take it."""
        ...

    def ended(self) -> None:
        """Nothing more happens to this id."""
        ...


@dataclass
class Tally:
    """How a replication ended. ``failed`` counts copies that are still to be made."""

    objects: int = 0
    copies: int = 0
    failed: int = 0


class Lists:
    """The lists of a group's servers, sorted, each in a temporary file. Close it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """Whose lists are here."""
        return tuple(self._files)

    async def fetch(self, client: SosClient, url: str) -> None:
        """Take a server's list. Raises as the client does, and Full; then that server is left out."""
        try:
            file = self._new()
            last, is_sorted = "", True
            async with aclosing(client.ids(url)) as received:
                async for sos_id in received:
                    is_sorted, last = is_sorted and last < sos_id, sos_id
                    file.write(_line(sos_id))
            if not is_sorted:
                # Both generations sort their lists; another one's must fit into memory.
                ids = sorted(set(_ids(file)))
                file = self._new()
                file.writelines(_line(sos_id) for sos_id in ids)
            file.flush()
        except OSError as error:
            raise _temporary("a list", error) from error
        self._files[url] = file

    def ids(self, url: str) -> Iterator[str]:
        """The ids of a server, in order. Only one reader of a server at a time."""
        return _ids(self._files[url])

    def merged(self) -> Iterator[Lacking]:
        """All ids in order, with their holders in the order of the servers."""
        named = [zip(self.ids(url), itertools.repeat(url)) for url in self._files]
        for sos_id, found in itertools.groupby(heapq.merge(*named), key=lambda each: each[0]):
            holders = {url for _, url in found}
            yield Lacking(sos_id, tuple(url for url in self._files if url in holders))

    def close(self) -> None:
        """Remove the files."""
        self._stack.close()

    def _new(self) -> IO[bytes]:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        self._stack.callback(_let_go, file)
        return file


@dataclass
class Replication:
    """The work on one group of servers, whose lists are here.

    A server that fails and then doesn't answer either is left out from there on: waiting for it with
    each object could take days.
    """

    client: SosClient
    lists: Lists
    min_copies: int
    watcher: Watcher
    luck: random.Random
    tally: Tally = field(default_factory=Tally)
    _lost: set[str] = field(default_factory=set)

    async def run(self) -> Tally:
        """Copy what has fewer than ``min_copies`` copies, some ids at a time."""
        lacking, turn = self._lacking(), asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    found = await asyncio.to_thread(next, lacking, None)
                if found is None:
                    return
                await self._copy(found)

        workers = [asyncio.create_task(work()) for _ in range(COPIES_AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return self.tally

    def _lacking(self) -> Iterator[Lacking]:
        for found in self.lists.merged():
            self.tally.objects += 1
            if len(found.holders) < self.min_copies:
                yield found

    async def _copy(self, lacking: Lacking) -> None:
        """Make the copies that one id lacks; targets are chosen at random, none twice."""
        targets = [url for url in self.lists.urls if url not in lacking.holders]
        self.luck.shuffle(targets)
        copying = self.watcher.copying(lacking, targets)
        try:
            failed = await self._copy_to(targets, lacking, copying)
            self.tally.failed += failed
        finally:
            copying.ended()

    async def _copy_to(self, targets: Sequence[str], lacking: Lacking, copying: Copying) -> int:
        """Copy one id to as many of the targets as are needed; how many copies it lacks still."""
        wanted = self.min_copies - len(lacking.holders)
        with closing(_Held()) as held:
            taken = await self._take(lacking, held, copying)
            if taken is not None:
                wanted += taken.bad_copies
                for url in targets:
                    if not wanted:
                        break
                    if url in self._lost:
                        copying.failed(url, _left_out(url))
                    elif await self._send(url, lacking.sos_id, held, taken.metadata, copying):
                        wanted -= 1
        return wanted

    async def _take(self, lacking: Lacking, held: "_Held", copying: Copying) -> "_Taken | None":
        """Read a right copy into ``held``, from the first holder who gives one; None if none does."""
        bad_copies = 0
        for url in lacking.holders:
            if url in self._lost:
                copying.failed(url, _left_out(url))
                continue
            try:
                metadata = await self._read(url, lacking.sos_id, held, copying.progress)
            except TierceError as failure:
                bad_copies += isinstance(failure, Corrupt | NotFound)
                copying.failed(url, failure)
                await self._check_alive(url, failure)
            else:
                return _Taken(metadata, bad_copies)
        return None

    async def _read(
        self, url: str, sos_id: str, held: "_Held", progress: Progress | None
    ) -> Mapping[str, str]:
        """Read one copy, and verify what can be; its metadata. Raises Corrupt, and as the client."""
        held.restart()
        async with self.client.open(url, sos_id) as answer, aclosing(answer.pieces) as pieces:
            async for piece in pieces:
                held.add(piece)
                if progress is not None:
                    progress(held.size, answer.size)
        held.finish()
        if _SHA1(sos_id) and held.sha1() != sos_id:
            raise Corrupt(
                f"the copy on {url} is not what its id says: its SHA-1 is {held.sha1()}",
                hint="Upload the object again, or replace that server's copy.",
            )
        return answer.metadata

    async def _send(
        self,
        url: str,
        sos_id: str,
        held: "_Held",
        metadata: Mapping[str, str],
        copying: Copying,
    ) -> bool:
        """Send the body to a server; whether that has it then."""
        copying.trying(url)
        try:
            await self.client.post(url, sos_id, Body(held.size, held.pieces), metadata)
            await self._check(url, sos_id, held.size)
        except TierceError as failure:
            copying.failed(url, failure)
            await self._check_alive(url, failure)
            return False
        self.tally.copies += 1
        copying.copied(url, held.size)
        return True

    async def _check_alive(self, url: str, failure: TierceError) -> None:
        """After a failure: whether the server is still there."""
        if isinstance(failure, Unavailable) and url not in self._lost:
            try:
                await self.client.alive(url)
            except TierceError:
                self._lost.add(url)

    async def _check(self, url: str, sos_id: str, size: int) -> None:
        """Ask a server for what it said it has. Raises Unavailable if it hasn't."""
        try:
            kept = await self.client.head(url, sos_id)
        except NotFound as problem:
            raise Unavailable(f"{url} doesn't have the object that it took") from problem
        if kept is not None and kept != size:
            raise Unavailable(f"{url} has {kept} bytes of the {size} that it took")


class _Taken(NamedTuple):
    """A body that was found right. ``bad_copies`` holders were listed, but have no right copy."""

    metadata: Mapping[str, str]
    bad_copies: int


class _Held:
    """A body in memory, or in a temporary file if it is larger. Close it."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(MEMORY_LIMIT_BYTES)  # noqa: SIM115
        self._hasher = new_hasher("sha1")
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Take the next bytes. Raises Full or Unavailable for the temporary file's disk."""
        try:
            self._file.write(piece)
        except OSError as error:
            raise _temporary("an object", error) from error
        self._hasher.update(piece)
        self.size += len(piece)

    def finish(self) -> None:
        """All bytes are here. Raises as :meth:`add`."""
        try:
            self._file.flush()
        except OSError as error:
            raise _temporary("an object", error) from error

    def restart(self) -> None:
        """Forget all bytes."""
        self.close()
        self._file = tempfile.SpooledTemporaryFile(MEMORY_LIMIT_BYTES)  # noqa: SIM115
        self._hasher, self.size = new_hasher("sha1"), 0

    def sha1(self) -> str:
        """The SHA-1 of the bytes so far, in hex."""
        return self._hasher.digest().hex()

    async def pieces(self) -> AsyncIterator[bytes]:
        """All bytes, from the first."""
        self._file.seek(0)
        while piece := self._file.read(SEND_PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Let go of memory and file."""
        _let_go(self._file)


def _left_out(url: str) -> Unavailable:
    return Unavailable(f"{url} did not answer any more, and is left out")


def _let_go(file: IO[bytes] | tempfile.SpooledTemporaryFile[bytes]) -> None:
    """Close a temporary file, of which nothing is needed any more: what it can't write neither."""
    with suppress(OSError):
        file.close()


def _temporary(what: str, error: OSError) -> TierceError:
    failure = from_os_error(error, f"taking {what} into a temporary file")
    if not isinstance(failure, Full):
        return failure
    return Full(failure.message, hint="Free some space, or name another directory by TMPDIR.")


def _line(sos_id: str) -> bytes:
    return msgspec.json.encode(sos_id) + b"\n"


def _ids(file: IO[bytes]) -> Iterator[str]:
    file.seek(0)
    return (msgspec.json.decode(line, type=str) for line in file)
