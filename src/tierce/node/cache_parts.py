"""What an agent works with so that the near-cache keeps to its limit; and without one, as it was."""

from collections.abc import Callable
from dataclasses import dataclass

from tierce.blobs.store import BlobStore
from tierce.names.index import Index
from tierce.names.store import ObjectStore
from tierce.node.arriving import Arriving
from tierce.node.checked_eviction import CheckedObjects
from tierce.node.evicting import Evicting
from tierce.node.guarding import GuardedIndex, GuardedObjects, GuardedStore
from tierce.node.names_parts import Names


@dataclass(frozen=True)
class CacheParts:
    """``objects`` may drop others for what is put; ``modest`` may not; ``store`` is for bytes that
    other nodes give. Without a limit, ``limited`` and ``room`` are None.
    """

    objects: ObjectStore
    modest: ObjectStore
    index: Index
    store: BlobStore
    limited: Evicting | None = None
    room: Arriving | None = None
    checked: CheckedObjects | None = None

    def may_hold(self, size: int) -> bool:
        """Whether an object of so many bytes can be cached at all."""
        return self.limited is None or self.limited.may_hold(size)

    def may_keep(self, size: int) -> bool:
        """Whether there is room without dropping others. Raises Unavailable if that is not known."""
        return self.limited is None or self.limited.may_keep(size)


def cache_parts(names: Names, store: BlobStore, wall_clock: Callable[[], int]) -> CacheParts:
    """Put them together. ``wall_clock`` gives nanoseconds since 1970."""
    if not names.cache_limit_bytes:
        return CacheParts(names.objects, names.objects, names.index, store)
    checked = None
    if names.upstream is not None:
        checked = CheckedObjects(names.objects, store, names.index, names.upstream)
    limited = Evicting(
        checked or names.objects,
        names.index,
        names.cache_rows,
        names.cache_limit_bytes,
        wall_clock=wall_clock,
    )
    room = Arriving(limited, store, names.index)
    return CacheParts(
        GuardedObjects(names.objects, names.index, room),
        GuardedObjects(names.objects, names.index, room, may_evict=False),
        GuardedIndex(names.index, room.merge_all),
        GuardedStore(store, room),
        limited,
        room,
        checked,
    )
