"""One attempt at loading a file: from one source after another into a spool, until it is whole.

Nothing that a source says is believed before the digest of the whole was found right: not the bytes, and
not the size. Sources that disagree are not judged here (:class:`Wrong`): each is then asked alone.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from tierce.blobs.spool import Spooler
from tierce.core.digest import Digest
from tierce.core.dtfc import cleaned_name
from tierce.core.errors import Corrupt, DigestMismatch, Full, NotFound, TierceError, TooLarge
from tierce.core.limits import PIECE_BYTES
from tierce.node.dtfc_source import Source
from tierce.node.source_race import Given, Nowhere, Race

log = logging.getLogger(__name__)

FOLLOWED_BYTES = PIECE_BYTES
"""Files up to this size are waited for; larger ones are read as they come."""

_STOPS_COUNT = 1000


class Wrong(Corrupt):
    """What came can't be the file. ``culprit`` is the source at fault, if that is known."""

    def __init__(self, message: str, culprit: Source | None) -> None:
        super().__init__(message)
        self.culprit = culprit


class Attempt:
    """One attempt at a file, from its first byte on. ``number`` is its own, also among those of
    other processes. The file never has more bytes of content than ``size``, unless that is None.
    """

    def __init__(
        self, digest: Digest, first: Given, spooler: Spooler, tell: Callable[[], None]
    ) -> None:
        self.number = secrets.token_hex(16)
        self.size: int | None = first.head.size
        self.name = cleaned_name(first.head.name)
        self._digest = digest
        self._tell = tell
        self._given = first
        # Those whose bytes, or whose word on the size, were taken: one of them is at fault.
        self._believed: list[Source] = []
        self._is_verified = False
        self._spooler = spooler
        # Who reads it meanwhile needs a file, but for a small one.
        self._is_followed = self.size is None or self.size > FOLLOWED_BYTES
        self.spool = spooler.new(
            digest.algorithm,
            expected=(digest,),
            memory_limit_bytes=-1 if self._is_followed else None,
        )

    @property
    def readable(self) -> int:
        """How many bytes from the beginning may be read; the last one once all are verified."""
        if self.size is None:
            return self.spool.readable_bytes
        return self.size if self._is_verified else min(self.spool.readable_bytes, self.size - 1)

    def begun(self) -> dict[str, Any]:
        """See PeerLoading.load."""
        path = self.spool.path if self._is_followed else None
        return {
            "number": self.number,
            "path": "" if path is None else str(path),
            "size": self.size,
            "name": self.name,
        }

    async def open(self) -> None:
        """Make the file. Raises Wrong if the size that was told is too large, Full, ReadOnly."""
        space = self._spooler.space
        if self.size is not None:
            if self.size > self._spooler.blob_limit_bytes:
                raise Wrong(f"it is said to have {self.size} bytes", self._given.source)
            try:
                space.check(self.size, in_file=self._is_followed)
            except Full as error:
                if space.why_not(in_file=self._is_followed) is not None:
                    raise
                raise Wrong(error.message, self._given.source) from error
        if self._is_followed:
            await self.spool.write(b"")

    async def close(self) -> None:
        """Let go of what is left."""
        try:
            await self._given.held.aclose()
        finally:
            await self.spool.discard()

    async def receive(self, sources: Sequence[Source], race: Race) -> None:
        """Take the whole file, from one source after another, each from where the last one stopped.

        The spool is finished then. Raises Wrong, Nowhere if none goes on, or what the spool does.
        """
        stopped: list[Source] = []
        stops = fruitless = 0
        while True:
            before = self.spool.size
            is_whole = await self._follow(self._given)
            source = self._given.source
            await self._given.held.aclose()
            if is_whole:
                break
            race.failed(source)
            stopped = [*(each for each in stopped if each is not source), source]
            stops += 1
            fruitless = 0 if self.spool.size > before else fruitless + 1
            if fruitless > len(sources) or stops > _STOPS_COUNT:
                raise self._ended()
            self._given = await self._next(sources, stopped, race)
        try:
            await self.spool.finish()
        except DigestMismatch as error:
            raise self._wrong(error.message) from error
        self._is_verified = True

    async def _next(
        self, sources: Sequence[Source], stopped: Sequence[Source], race: Race
    ) -> Given:
        """Who goes on: first those that have not stopped yet, then the others, one at a time."""
        position = self.spool.size
        fresh = [each for each in sources if each not in stopped]
        try:
            return await race.first(self._digest, fresh, position)
        except (NotFound, Nowhere):
            pass  # those that began may go on
        try:
            return await race.first(self._digest, stopped, position, in_turn=True)
        except (NotFound, Nowhere) as error:
            raise self._ended() from error

    async def _follow(self, given: Given) -> bool:
        """Write what a source gives; True once the file is whole, False if the source stopped."""
        head = given.head
        self._agree(given)
        skipped = self.spool.size - head.start
        while self.size is None or self.spool.size < self.size:
            try:
                whole = await anext(head.pieces, None)
            except TierceError as error:
                log.info("%s stopped sending %s: %s", given.source.label, self._digest, error)
                return False
            if whole is None:
                self._believe(given.source)
                return self._at_end()
            piece = whole[skipped:]
            skipped -= len(whole) - len(piece)
            if piece:
                await self._take(given.source, piece)
        return True

    def _agree(self, given: Given) -> None:
        """Raise Wrong if a source has another size than those before."""
        head = given.head
        if head.size is not None:
            self._believe(given.source)
            if self.size not in (None, head.size) or self.spool.size > head.size:
                raise Wrong(f"one has {head.size} bytes of it, and another one {self.size}", None)
            self.size = head.size
        self.name = self.name or cleaned_name(head.name)

    async def _take(self, source: Source, piece: bytes) -> None:
        self._believe(source)
        if self.size is not None and self.spool.size + len(piece) > self.size:
            raise self._wrong(f"there are more bytes of it than {self.size}")
        before = self.readable
        try:
            await self.spool.write(piece)
        except TooLarge as error:
            raise self._wrong(error.message) from error
        if self.readable > before:
            self._tell()

    def _at_end(self) -> bool:
        """A source has given all it has. Raises Wrong if another one had told of more."""
        if self.size is not None:
            raise Wrong(f"there are {self.spool.size} bytes of it, and not {self.size}", None)
        self.size = self.spool.size
        return True

    def _believe(self, source: Source) -> None:
        if source not in self._believed:
            self._believed.append(source)

    def _wrong(self, message: str) -> Wrong:
        names = ", ".join(each.label for each in self._believed)
        log.warning("%s came wrong from %s: %s", self._digest, names, message)
        return Wrong(message, self._believed[0] if len(self._believed) == 1 else None)

    def _ended(self) -> Nowhere:
        return Nowhere(
            f"no peer sent {self._digest} to its end", hint="Try again when more peers are up."
        )
