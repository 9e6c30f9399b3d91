"""What arrives at an agent from other nodes, and would make blobs cached: records, and bytes.

Either may come first, or both at once. A record that comes asks for room if its bytes are here or on
their way; bytes ask if such a record is here or on its way. Each says that it comes before it looks
for the other, so that one of them sees the other. See guarding.py.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.names.cached import is_safe
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node.evicting import Evicting
from tierce.node.guarding import Grant, whole_way

PROMISED_SECONDS = 60.0
"""How long bytes that another node gave are kept at least: the record that needs them may follow."""


class Arriving:
    """The Room of an agent, and its Coming. ``store`` and ``index`` are the unguarded ones."""

    def __init__(self, cache: Evicting, store: BlobStore, index: Index) -> None:
        self._cache = cache
        self._store = store
        self._index = index
        self._merging = cache.merging
        self._coming: Counter[Digest] = Counter()
        self._came = asyncio.Event()
        self.touched = cache.touched

    async def reserve(self, digest: Digest, size: int, *, may_evict: bool = True) -> Grant | None:
        """See Room."""
        return await self._cache.reserve(digest, size, may_evict=may_evict)

    def release(self, grant: Grant) -> None:
        """See Room."""
        self._cache.release(grant)

    async def merge(self, record: Record) -> bool:
        """See Room."""
        return (await self.merge_all([record]))[0]

    async def merge_all(self, records: Sequence[Record]) -> list[bool]:
        """What Index.merge does; blobs here that it makes cached have room, or are dropped before."""
        sizes = {each.content: each.size for each in records if is_safe(each)}
        if not sizes:
            return await self._index.merge(records)
        grants: list[Grant] = []
        self._merging.update(sizes.keys())

        def done() -> None:
            for grant in grants:
                self.release(grant)
            _subtract(self._merging, sizes)

        try:
            coming = (
                self._coming.keys() & sizes.keys()
            )  # before the look: they may be here after it
            here = await self._store.sizes(list(sizes))
            for (digest, told), size in zip(list(sizes.items()), here, strict=True):
                if size is None and digest not in coming:
                    continue
                size = told if size is None else size
                grant = await self.reserve(digest, size)
                if grant is None:
                    while digest in self._coming:
                        await self._came.wait()
                    grant = await self._cache.make_way(digest, size, records)
                if grant is not None:
                    grants.append(grant)
        except BaseException:
            done()
            raise
        return await whole_way(self._index.merge(records), done)

    async def bytes_come(self, digest: Digest, size: int) -> Grant | None:
        """See Coming."""
        self._coming[digest] += 1
        grant: Grant | None = None
        try:
            try:
                safe = {is_safe(each) for each in self._index.refers(digest)}
            except Corrupt:
                safe = {False}  # what a damaged record says is unknown, and it may need it here
            if digest in self._merging:
                safe.add(True)
            if True in safe:
                grant = await self.reserve(digest, size)
            if grant is None and safe != {True}:
                grant = Grant(digest, 0)  # no near-cache's, or shared
            return grant
        finally:
            if grant is None:
                self._end(digest)

    def bytes_came(self, grant: Grant) -> None:
        """See Coming."""
        self._end(grant.digest)
        self._cache.end_later(grant, PROMISED_SECONDS)

    def _end(self, digest: Digest) -> None:
        _subtract(self._coming, [digest])
        self._came.set()
        self._came = asyncio.Event()


def _subtract(counter: "Counter[Digest]", digests: Iterable[Digest]) -> None:
    """Count one less of each; those of which none is left are not in there any more."""
    for digest in digests:
        counter[digest] -= 1
        if not counter[digest]:
            del counter[digest]
