"""A blob store in memory: the plainest reading of the contract, for tests and simulation."""

from collections.abc import Sequence

from tierce.blobs.packed import SmallBlob
from tierce.blobs.spool import Spool
from tierce.blobs.store import BlobInfo, Counts, ProvedByReading
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound


class MemoryStore(ProvedByReading):
    """Nothing here outlives the process, so nothing is durable. Needs spools that stay in memory."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.marks: set[Digest] = set()
        self.quarantined: list[tuple[Digest, bytes]] = []

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        assert spool.data is not None, "a memory store takes bodies from memory"
        created = spool.digest not in self.blobs
        if created and managed:
            self.marks.add(spool.digest)
        elif managed is False:
            self.marks.discard(spool.digest)
        self.blobs[spool.digest] = spool.data
        return created

    async def open(self, digest: Digest) -> SmallBlob:
        data = self._find(digest)
        if not digest.fits(data):
            self._set_aside(digest)
            raise NotFound(f"the copy of {digest} here was bad", found_bad=True)
        return SmallBlob(digest, data)

    async def stat(self, digest: Digest) -> int:
        return len(self._find(digest))

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        return [None if (data := self.blobs.get(each)) is None else len(data) for each in digests]

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        data = self._find(digest)
        if not digest.fits(data):
            if repair:
                self._set_aside(digest)
            raise Corrupt(f"the copy of {digest} is bad")
        return len(data)

    async def delete(self, digest: Digest) -> bool:
        self.marks.discard(digest)
        return self.blobs.pop(digest, None) is not None

    async def claim(self, digests: Sequence[Digest]) -> None:
        self.marks.difference_update(digests)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        return [digest in self.marks for digest in digests]

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        names = sorted(digest for digest in self.blobs if after is None or digest > after)
        return [BlobInfo(digest, len(self.blobs[digest])) for digest in names[:limit]]

    async def counts(self) -> Counts:
        return Counts(len(self.blobs), sum(map(len, self.blobs.values())))

    def _find(self, digest: Digest) -> bytes:
        try:
            return self.blobs[digest]
        except KeyError:
            raise NotFound(f"{digest} is not here") from None

    def _set_aside(self, digest: Digest) -> None:
        self.quarantined.append((digest, self.blobs.pop(digest)))
