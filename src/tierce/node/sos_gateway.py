"""Uploads and downloads of SOS over a list of blob servers, which may be Tierce's or real ones.

Safety first: an upload is acknowledged only when a server said that it has every byte, and bytes
that don't have the SHA-1 which their id says are never passed on as a whole. A small body, and one
whose size its server doesn't tell, is taken here and verified before its first byte goes out; of a
larger one the last piece is held back until all of it was found right. Ids that are no SHA-1 name
bytes that can't be verified.

A server that fails is tried last for a while, and the next one takes over, in the middle of a
body too. The order of servers is that of wire/sos.md, section 7; uploads to a list without groups
begin at a random server, as the older upload service does.
"""

import asyncio
import logging
import random
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, nullcontext

from tierce.blobs.spool import Spooler, SpoolSource
from tierce.client.sos import SosAnswer, SosClient
from tierce.client.sos_config import FLAT_GROUP, ordered
from tierce.client.wire import Body
from tierce.core.digest import Digest, Hasher, new_hasher
from tierce.core.errors import (
    BadRequest,
    Corrupt,
    Full,
    NotFound,
    TierceError,
    TooLarge,
    Unavailable,
)
from tierce.core.limits import MIB
from tierce.core.sos import SosContent, SosFound, SosStored
from tierce.node import sos_avoiding
from tierce.node.sos_avoiding import SosAvoiding
from tierce.node.sos_bodies import Memory, Sending, Taken

# Up to here a body is verified as a whole before its first byte goes out.
WHOLE_LIMIT_BYTES = 8 * MIB
# Bodies to be sent lie in memory up to this many bytes together, else in files: readers may be slow.
MEMORY_LIMIT_BYTES = 64 * MIB
# How often each server may be turned to for one large body.
ROUNDS = 2

# Every blob server knows these as ids.
_SIMPLE = re.compile(r"[a-z0-9]+").fullmatch
_SHA1 = re.compile(r"[0-9a-f]{40}").fullmatch

log = logging.getLogger(__name__)


class SosGateway:
    """A SosStore (core/sos.py) over blob servers. Belongs to one event loop, once started."""

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        spooler: Spooler,
        *,
        client: SosClient | None = None,
        luck: random.Random | None = None,
    ) -> None:
        """``groups`` are names to base URLs, not empty. ``luck`` chooses where uploads begin."""
        self._urls = ordered(groups)
        assert self._urls, "a gateway has servers"
        self._is_flat = list(groups) == [FLAT_GROUP]
        self._spooler = spooler
        self._client = client or SosClient()
        self._luck = luck or random.Random()  # noqa: S311 (no secret)
        self._avoiding = SosAvoiding()
        self._memory = Memory(MEMORY_LIMIT_BYTES)

    async def start(self) -> None:
        """Get ready; needs the event loop. Nothing is connected yet."""
        self._client.open_connections()

    async def close(self) -> None:
        """Close every connection; nobody may be reading any more."""
        await self._client.close()

    async def put(
        self,
        body: AsyncIterable[bytes],
        metadata: Mapping[str, str],
        *,
        announced_bytes: int | None = None,
    ) -> SosStored:
        """Take a body, and have one server keep it under its SHA-1.

        Raises TooLarge, Full, Unavailable if no server took it, and whatever ``body`` raises.
        """
        limit = self._spooler.blob_limit_bytes
        if announced_bytes is not None and announced_bytes > limit:
            raise TooLarge(
                f"the body has {announced_bytes} bytes, and the largest that is taken has {limit}",
                hint="Send less at once, or raise the setting blob_limit_bytes.",
            )
        if announced_bytes is not None and announced_bytes > self._spooler.memory_limit_bytes:
            self._spooler.space.check(announced_bytes, in_file=True, passing=True)
        spool = self._spooler.new("sha1", passing=True)
        try:
            async for data in body:
                await spool.write(data)
            await spool.finish()
            source = SpoolSource(spool)
            try:
                await self._post(source, metadata)
            finally:
                source.close()
            return SosStored(spool.digest.hex, spool.size)
        finally:
            await spool.discard()

    async def open(self, sos_id: str) -> SosFound:
        """Find an id on the first server that has it.

        Who keeps silent is asked again, with more patience, when all others were asked. Raises
        NotFound if all of them say that they don't have it, and Unavailable if one can't say.
        """
        failures, silent = 0, set[str]()
        turns = deque(self._avoiding.sorted(self._urls))
        while turns:
            url, begun_at = turns.popleft(), _now()
            patience = sos_avoiding.SILENT_SECONDS if turns and url not in silent else None
            try:
                found = await self._open_at(url, sos_id, patience)
            except NotFound:
                self.answered(url)
            except TimeoutError:
                assert patience is not None, "the client's own time limits are other errors"
                self.failed(url, Unavailable(f"it says nothing for {patience} seconds"), patience)
                silent.add(url)
                turns.append(url)
            except TierceError as failure:
                # Not every server takes every id for one; what it can't name, it doesn't have.
                if isinstance(failure, BadRequest) and not _SIMPLE(sos_id):
                    continue
                self.failed(url, failure, _now() - begun_at)
                failures += 1
            else:
                self.answered(url)
                return found
        if failures:
            # Downloads are for everybody, and where the blob servers are is not.
            raise Unavailable(
                f"{sos_id} can't be fetched now: of {len(self._urls)} blob servers {failures} failed",
                hint="Try again; the log of the download server says what is wrong.",
            )
        raise NotFound(f"{sos_id} is on none of the blob servers")

    def after(self, url: str) -> list[str]:
        """Who to turn to for a body that ``url`` broke off: the others first."""
        others = [each for each in self._urls if each != url]
        return [*self._avoiding.sorted(others), url] * ROUNDS

    def failed(self, url: str, failure: TierceError, waited_seconds: float = 0.0) -> None:
        """Note that a server failed: it is tried last for a while."""
        log.warning("The blob server %s failed: %s", url, failure.message)
        # These may be said of this node's own disk and limits, too.
        if not isinstance(failure, Full | TooLarge):
            self._avoiding.failed(url, failure, waited_seconds)

    def answered(self, url: str) -> None:
        """Note that a server is well."""
        self._avoiding.answered(url)

    async def _post(self, source: SpoolSource, metadata: Mapping[str, str]) -> None:
        """Send a body to one server after the other until one has it."""
        sos_id, failures = source.digest.hex, dict[str, TierceError]()
        for url in self._upload_order():
            pieces = Sending(source)
            # A large body takes its time.
            is_small = source.size <= WHOLE_LIMIT_BYTES
            watch = self._avoiding.waiting(url) if is_small else nullcontext()
            try:
                body = Body(source.size, pieces.__aiter__)
                with watch:
                    await self._client.post(url, sos_id, body, metadata)
            except TierceError as failure:
                failures[url] = failure
                self.failed(url, failure, _now() - pieces.moved_at)
            else:
                self.answered(url)
                return
            finally:
                await pieces.aclose()
        told = "; ".join(f"{url}: {failure.message}" for url, failure in failures.items())
        kind = Full if all(isinstance(each, Full) for each in failures.values()) else Unavailable
        raise kind(
            f"no blob server took the upload ({told})",
            hint="Check the blob servers, then try again.",
        )

    def _upload_order(self) -> list[str]:
        urls = self._urls
        if self._is_flat:
            start = self._luck.randrange(len(urls))
            urls = urls[start:] + urls[:start]
        return self._avoiding.sorted(urls)

    async def _open_at(self, url: str, sos_id: str, patience: float | None) -> SosFound:
        """Open an id at one server. Raises as the client does, and DigestMismatch.

        Raises TimeoutError if it doesn't begin to answer within ``patience`` seconds.
        """
        digest = Digest("sha1", bytes.fromhex(sos_id)) if _SHA1(sos_id) else None
        stack = AsyncExitStack()
        async with stack:
            async with asyncio.timeout(patience):
                answer = await stack.enter_async_context(self._client.open(url, sos_id))
            content: SosContent
            if answer.size is None or answer.size <= WHOLE_LIMIT_BYTES:
                content = await self._taken(answer, digest)
            else:
                begun = _Begun(url, answer, stack.pop_all())
                content = _Large(self, self._client, sos_id, answer.size, digest, begun)
            etag = f'"{sos_id}"' if digest is not None else ""
            is_read_whole = digest is not None and isinstance(content, _Large)
            return SosFound(content, answer.metadata, answer.modified, etag, is_read_whole)

    async def _taken(self, answer: SosAnswer, digest: Digest | None) -> Taken:
        """Take a whole body, and verify it. Raises DigestMismatch."""
        expected = () if digest is None else (digest,)
        with ExitStack() as stack:
            size = WHOLE_LIMIT_BYTES if answer.size is None else answer.size
            limit = WHOLE_LIMIT_BYTES if self._memory.hold(size, stack) else None
            spool = self._spooler.new(
                "sha1", expected=expected, memory_limit_bytes=limit, passing=True
            )
            try:
                async with aclosing(answer.pieces) as pieces:
                    async for piece in pieces:
                        await spool.write(piece)
                await spool.finish()
                return Taken(SpoolSource(spool), stack.pop_all())
            finally:
                await spool.discard()


class _Begun:
    """An answer that has begun to come, held open by ``stack``."""

    def __init__(self, url: str, answer: SosAnswer, stack: AsyncExitStack) -> None:
        self.url = url
        self.answer = answer
        self.stack = stack


class _Large:
    """A large body that comes through from its server, and from the next one where that fails.

    Without an id that verifies, another server may have other bytes: then it breaks off.
    """

    data: bytes | None = None

    def __init__(
        self,
        gateway: SosGateway,
        client: SosClient,
        sos_id: str,
        size: int,
        digest: Digest | None,
        begun: _Begun,
    ) -> None:
        self.size = size
        self._gateway = gateway
        self._client = client
        self._sos_id = sos_id
        self._digest = digest
        self._begun: _Begun | None = begun
        self._url = begun.url
        # Those whose bytes are in what was read so far.
        self._givers: set[str] = set()

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of [start, stop).

        A body that can be verified is read from its first byte to its last, whatever is wanted of it.
        """
        stop = self.size if stop is None else stop
        if self._digest is None:
            async with aclosing(self._read(start)) as pieces:
                async for piece, position in pieces:
                    part = piece[: max(0, stop - position)]
                    if part:
                        yield part
                    if position + len(piece) >= stop:
                        return
            return
        hasher: Hasher = new_hasher("sha1")
        held = b""
        async with aclosing(self._read(0)) as pieces:
            async for piece, position in pieces:
                hasher.update(piece)
                part = piece[max(0, start - position) : max(0, stop - position)]
                if part and held:
                    yield held
                held = part or held
        if hasher.digest() != self._digest.raw:
            raise self._wrong()
        if held:
            yield held

    async def aclose(self) -> None:
        """Let go of the answer that nobody read."""
        if self._begun is not None:
            begun, self._begun = self._begun, None
            await begun.answer.pieces.aclose()
            await begun.stack.aclose()

    async def _read(self, start: int) -> AsyncGenerator[tuple[bytes, int], None]:
        """All bytes from ``start`` on, in pieces, each with its position, from whoever has them."""
        position = start
        others = iter(self._gateway.after(self._url))
        while True:
            heard_at = _now()
            try:
                async with AsyncExitStack() as stack:
                    answer = await self._answer(stack, position)
                    async with aclosing(answer.pieces) as pieces:
                        async for piece in pieces:
                            self._givers.add(self._url)
                            yield piece, position
                            position += len(piece)
                            heard_at = _now()
                    if position != self.size:
                        raise _OtherSizeError(f"{self._url} has another size of it")
                return
            except TierceError as failure:
                # With another size it may be the one that is right.
                if not isinstance(failure, NotFound | _OtherSizeError):
                    self._gateway.failed(self._url, failure, _now() - heard_at)
                following = next(others, None) if self._digest is not None else None
                if following is None:
                    raise Unavailable(
                        f"{self._sos_id} broke off after {position} of {self.size} bytes",
                        hint="Fetch it again; the log of the download server says what is wrong.",
                    ) from failure
                self._url = following

    async def _answer(self, stack: AsyncExitStack, position: int) -> SosAnswer:
        """The answer that has begun already, if it serves, or a new one, open in ``stack``."""
        begun, self._begun = self._begun, None
        if begun is not None:
            stack.push_async_exit(begun.stack)
            if position == 0:
                return begun.answer
            await begun.answer.pieces.aclose()
        answer = await stack.enter_async_context(
            self._client.open(self._url, self._sos_id, position)
        )
        if answer.size not in (self.size, None):
            raise _OtherSizeError(f"{self._url} has {answer.size} bytes of it, not {self.size}")
        return answer

    def _wrong(self) -> Unavailable:
        wrong = f"the bytes that came for {self._sos_id} have another SHA-1"
        for url in self._givers:
            self._gateway.failed(url, Corrupt(wrong))
        return Unavailable(wrong, hint="Fetch it again: who sent them is tried last for a while.")


class _OtherSizeError(Unavailable):
    """A server has an id with another size than the one whose answer has begun to go out."""


def _now() -> float:
    return asyncio.get_running_loop().time()
