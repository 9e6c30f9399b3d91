"""An upstream in memory, with faults, for simulations. See Upstream (upstream/tier.py).

Objects are kept as a service keeps them, as bytes and entries of metadata, so that what comes back is
what would come back from a bucket. Time passes by asyncio.sleep only, and chance is the one that was
given: on a virtual clock, a seed tells the whole run. Several upstreams may share ``objects``, as
nodes share a bucket.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from random import Random

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt, NotFound, TierceError, Unavailable
from tierce.names.record import Record
from tierce.upstream.metadata import Held, content_type_of, entries_of, is_same, restored
from tierce.upstream.tier import Source, UpstreamObject

PIECE_BYTES = 64 * 1024

Bucket = dict[str, tuple[Held, bytes]]


class MemoryUpstream:
    """Faults, each to be changed at any time:

    ``is_down``: nothing is answered but errors. ``failures``: the share of requests that fail before
    they do anything. ``lost_answers``: the share of writes that are done, and reported as failed.
    ``cuts``: the share of reads that break off. ``seconds``: the longest that a request takes.

    ``told`` is for checkers: for each key the contents that were ever told of when somebody looked,
    None for a look that failed.
    """

    def __init__(
        self, random: Random, *, objects: Bucket | None = None, seconds: float = 0.1
    ) -> None:
        self._random = random
        self.objects: Bucket = {} if objects is None else objects
        self.seconds = seconds
        self.is_down = False
        self.failures = 0.0
        self.lost_answers = 0.0
        self.cuts = 0.0
        self.uploads = 0
        self.told: dict[str, set[Digest | None]] = {}

    def put_foreign(self, key: str, data: bytes, entries: dict[str, str], modified: int) -> None:
        """Put an object as another program would. ``modified`` in nanoseconds since 1970."""
        self.objects[key] = Held(len(data), entries, "", modified), data

    async def upload(self, record: Record, source: Source) -> None:
        """See Upstream. One that is cancelled has been done, or not: chance decides."""
        if not record.key.strip("/"):
            raise BadRequest("an object in the upstream needs a name", hint="Name it.")
        entries = entries_of(record, source.digest, source.size)
        data = source.data
        if data is None:
            async with aclosing(source.stream()) as pieces:
                data = b"".join([piece async for piece in pieces])
        if len(data) != source.size:
            raise Corrupt(f"the content for {record.key} has {len(data)} bytes")
        held = Held(source.size, entries, content_type_of(record))
        try:
            await self._pass_time("writing")
        except asyncio.CancelledError:
            if self._happens(0.5):
                self._apply(record, source, held, data)
            raise
        self._apply(record, source, held, data)
        if self._happens(self.lost_answers):
            raise _failed("writing: the answer was lost")

    async def stat(self, key: str) -> Record:
        """See Upstream."""
        told = self.told.setdefault(key, set())
        try:
            await self._pass_time("looking")
            found = restored(key, self._get(key)[0])
        except TierceError:
            told.add(None)
            raise
        told.add(found.digest)
        return found

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[UpstreamObject]:
        """See Upstream."""
        await self._pass_time("reading")
        held, data = self._get(key)
        yield UpstreamObject(restored(key, held), self._pieces(data))

    async def delete(self, key: str) -> None:
        """See Upstream."""
        await self._pass_time("deleting")
        self.objects.pop(key, None)
        if self._happens(self.lost_answers):
            raise _failed("deleting: the answer was lost")

    async def check(self) -> None:
        """See Upstream."""
        await self._pass_time("looking at the bucket")

    def status(self) -> dict[str, object]:
        """As that of CloudUpstream, as far as there is something to tell."""
        return {"url": "memory:///", "circuit": "closed", "tags": "not set"}

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        end = self._random.randrange(len(data)) if data and self._happens(self.cuts) else None
        for at in range(0, len(data), PIECE_BYTES):
            await asyncio.sleep(0)
            if self.is_down or (end is not None and at + PIECE_BYTES > end):
                raise _failed("reading: the connection was cut")
            yield data[at : at + PIECE_BYTES]

    def _apply(self, record: Record, source: Source, held: Held, data: bytes) -> None:
        known = self.objects.get(record.key)
        if known is not None and is_same(
            restored(record.key, known[0]), record, source.digest, source.size
        ):
            return
        self.objects[record.key] = held, data
        self.uploads += 1

    def _get(self, key: str) -> tuple[Held, bytes]:
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(f"the upstream has no object {key[:200]!a}") from None

    async def _pass_time(self, doing: str) -> None:
        await asyncio.sleep(self.seconds * self._random.random())
        if self.is_down or self._happens(self.failures):
            raise _failed(doing)

    def _happens(self, share: float) -> bool:
        return share > 0 and self._random.random() < share


def _failed(doing: str) -> Unavailable:
    return Unavailable(f"the upstream failed while {doing}", hint="It is asked again later.")
