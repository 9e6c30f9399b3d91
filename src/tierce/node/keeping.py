"""Why a blob is kept here: because somebody put it without a name, or for the sake of which records.

Healing asks, as it moves only what the ring places. What a level places is where the near-cache put
it (service/near_cache.py); healing brings back a copy of it that went bad.
"""

from collections.abc import Sequence

from tierce.blobs.store import BlobStore
from tierce.cluster.healing import Keep
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.core.limits import REFERENCES_COUNT
from tierce.names.index import Index
from tierce.names.record import FULL, LOCAL, NO_LEVEL


class Keeping:
    """Answers for one node, by its index and the marks of its blobs (blobs/marks.py)."""

    def __init__(self, store: BlobStore, index: Index) -> None:
        self._store = store
        self._index = index

    def keeps(self, digests: Sequence[Digest]) -> list[Keep]:
        """For each of these blobs, which are here, why it is kept."""
        found = []
        for digest, managed in zip(digests, self._store.managed(digests), strict=True):
            levels = self._levels(digest)
            by_ring = not managed or NO_LEVEL in levels
            found.append(Keep(by_ring, bool(levels - {NO_LEVEL})))
        return found

    def wants(self, digest: Digest, placement: Placement) -> bool:
        """Whether a blob that is not here should be."""
        levels = self._levels(digest)
        if NO_LEVEL in levels or not levels:
            return placement.me in placement.owners(digest)
        # A mark without a blob is left by a copy that was found bad here.
        return FULL in levels or any(self._store.managed([digest]))

    def _levels(self, digest: Digest) -> set[int]:
        """The levels of the records that name a blob."""
        try:
            records = self._index.refers(digest)
        except Corrupt:
            return {NO_LEVEL, LOCAL}  # what a damaged record says is unknown: as below
        levels = {record.level for record in records}
        if len(records) >= REFERENCES_COUNT:
            levels |= {NO_LEVEL, LOCAL}  # perhaps among those beyond: it is looked after, and stays
        return levels

    def mark_for(self, digest: Digest) -> bool | None:
        """How to put a copy that is fetched from another node (see BlobStore.put)."""
        try:
            return True if self._index.refers(digest) else None
        except Corrupt:
            return True
