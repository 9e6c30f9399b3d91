"""Fetching what no node has from the upstream, once for all who miss it at the same time.

For each id one node of the cluster does it, the first in ring order that answers. Its agent fetches,
whoever else asks for that id meanwhile waits for the same fetch, and then copies from there.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.codec import decode, encode
from tierce.core.digest import DEFAULT_ALGORITHM, Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    DigestMismatch,
    Full,
    NotFound,
    ReadOnly,
    Refused,
    TierceError,
    Unavailable,
)
from tierce.core.limits import FILL_SECONDS
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.names.store import ObjectStore
from tierce.node.names_messages import check_record
from tierce.node.peers import Transport
from tierce.upstream.tier import Upstream

log = logging.getLogger(__name__)

FILL = "/names/fill"


class Filler:
    """The agent's part: fetches objects into this node's store. One fetch an id at a time.

    ``may_hold`` says whether an object of so many bytes can be kept at all.
    """

    def __init__(
        self,
        store: BlobStore,
        spooler: Spooler,
        objects: ObjectStore,
        index: Index,
        upstream: Upstream | None,
        *,
        bucket: str,
        may_hold: Callable[[int], bool] = lambda _: True,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._spooler = spooler
        self._objects = objects
        self._index = index
        self._upstream = upstream
        self._bucket = bucket
        self._may_hold = may_hold
        self._wall_clock = wall_clock
        self._flights: dict[str, asyncio.Task[Record]] = {}
        self.fetched_objects = 0
        self.fetched_bytes = 0

    async def fill(self, key: str) -> Record:
        """Have the object here, and return its record. Raises NotFound, Conflict, Unavailable, Full."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fill(key))
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Give up what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _landed(self, key: str, flight: "asyncio.Task[Record]") -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # all who waited for it may have left; then it is nobody's

    async def _fill(self, key: str) -> Record:
        try:
            return await self._fetched(key)
        except Refused as error:  # it is this node that lacks the rights, not who asks
            raise Unavailable(error.message, hint=error.hint) from error

    async def _fetched(self, key: str) -> Record:
        known = self._index.get(self._bucket, key)
        if known is not None and known.deleted:
            raise NotFound(f"{key} was deleted")
        if known is not None and await self._is_here(known):
            return known
        if self._upstream is None:
            raise NotFound(f"{key} is not here, and there is no upstream to ask")
        async with self._upstream.open(key) as found:
            size = found.record.size
            if not self._may_hold(size):
                raise Conflict(
                    f"{key} has {size} bytes, more than the near-cache may hold",
                    hint="Read it from the upstream itself, or raise the setting cache_limit_bytes.",
                )
            self._spooler.space.check(size, in_file=size > self._spooler.memory_limit_bytes)
            expected = self._expected(found.record)
            spool = self._spooler.new(DEFAULT_ALGORITHM, expected=expected)
            try:
                async for piece in found.pieces:
                    await spool.write(piece)
                await spool.finish()
                record = self._record(key, known, found.record, spool.digest, spool.size)
                await self._objects.restore(spool, record)
                if not await self._is_here(record):
                    raise Unavailable(
                        f"the near-cache has no room for {key} now",
                        hint="Try again, or raise the setting cache_limit_bytes.",
                    )
            except DigestMismatch as error:
                raise Unavailable(
                    f"what the upstream has as {key} is not what was put there",
                    hint="Look at that object in the upstream, and put it again.",
                ) from error
            finally:
                await spool.discard()
        self.fetched_objects += 1
        self.fetched_bytes += size
        kept = self._index.get(self._bucket, key) or record
        if kept.deleted:
            raise NotFound(f"{key} was deleted")
        return kept

    def _expected(self, found: Record) -> tuple[Digest, ...]:
        return () if found.digest is None else (found.digest,)

    def _record(
        self, key: str, known: Record | None, found: Record, digest: Digest, size: int
    ) -> Record:
        """The record that belongs to what came: the one that is known, if that is its content."""
        if known is not None and known.digest == digest:
            return msgspec.structs.replace(known, is_upstream=True)
        if known is not None and known.timestamp >= found.timestamp:
            raise Unavailable(
                f"the upstream has an older version of {key} than this cluster knows",
                hint="Start the node that took the newer one; the upstream gets it from there.",
            )
        return msgspec.structs.replace(
            found,
            bucket=self._bucket,
            key=key,
            digest=digest,
            size=size,
            is_upstream=True,
            modified=self._wall_clock(),
        )

    async def _is_here(self, record: Record) -> bool:
        try:
            await self._store.stat(record.content)
        except NotFound:
            return False
        return True


class FillRequest(msgspec.Struct, array_like=True):
    """Have the object of this key fetched from the upstream. ``to`` is the node that is meant."""

    key: str
    to: str


class FillAnswer(msgspec.Struct, array_like=True):
    """It is on the node that answers; this is its record."""

    record: Record


class FillCalls:
    """How another node is asked to fill, and answers."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def fill(self, member: Member, key: str) -> Record:
        """Have a member fetch an object; returns its record. Raises as Filler.fill does."""
        request = encode(FillRequest(key, member.node_id))
        answer = await self._transport.exchange(
            member.private, FILL, request, timeout_seconds=FILL_SECONDS
        )
        try:
            record = decode(answer, FillAnswer, f"answer of {member.private}").record
            check_record(record)
        except BadRequest as error:
            raise Unavailable(error.message, hint=error.hint) from error
        return record


def fill_handler(filler: Filler, node_id: str) -> Callable[[bytes], Awaitable[bytes]]:
    """Answers other nodes' requests to fill."""

    async def handle(body: bytes) -> bytes:
        request = decode(body, FillRequest, "message")
        if request.to != node_id:
            raise Unavailable(f"this is {node_id}, and {request.to[:80]} is meant")
        return encode(FillAnswer(await filler.fill(request.key)))

    return handle


class FillRouter:
    """Any process's part: has the right node fetch. ``fill_here`` asks this node's own agent.

    ``merge`` takes the record of what another node fetched, in the place of the index's own.
    """

    def __init__(
        self,
        placement: Callable[[], Placement],
        peers: FillCalls,
        index: Index,
        fill_here: Callable[[str], Awaitable[Record]],
        merge: Callable[[Record], Awaitable[bool]] | None = None,
    ) -> None:
        self._placement = placement
        self._peers = peers
        self._index = index
        self._fill_here = fill_here
        self._merge = merge or self._merge_here

    async def fill(self, key: str) -> Record:
        """Have an object fetched to some node; its record is known here then.

        Raises NotFound if the upstream has no such object, Unavailable, Conflict, Full.
        """
        placement = self._placement()
        order = placement.writers(Digest.of(key.encode()))
        members = [each for each in order if each.dialect == "tierce"]
        last: TierceError | None = None
        for member in members or [placement.me]:
            if member.node_id == placement.view.me:
                return await self._fill_here(key)
            try:
                record = await self._peers.fill(member, key)
            except (Unavailable, Full, ReadOnly) as error:
                log.info("%s could not fetch %s: %s", member.node_id, key, error)
                last = error
                continue
            await self._merge(record)
            return record
        assert last is not None
        raise last

    async def _merge_here(self, record: Record) -> bool:
        return (await self._index.merge([record]))[0]
