"""Objects whose level says where they are: the near-cache of an upstream, as the objstore door sees it.

Level 0 is one node, level 1 that node and the upstream, level 2 every node and the upstream. Success is
said only when that is true.
"""

from collections.abc import AsyncIterable
from typing import NamedTuple, Protocol

from tierce.blobs.store import OpenBlob
from tierce.core.errors import NotFound
from tierce.names.record import Record


class Kept(NamedTuple):
    """What became of a put. ``is_queued``: the upstream gets it later (upstream_mode = behind)."""

    record: Record
    is_queued: bool


class Known(NamedTuple):
    """A record, and whether its bytes are on other nodes only. Tombstones are known too."""

    record: Record
    is_symlink: bool


class Found(NamedTuple):
    """An object found, and its content, open; close it.

    ``is_symlink``: the bytes come from another node; ``is_fetched``: from the upstream.
    """

    record: Record
    blob: OpenBlob
    is_symlink: bool
    is_fetched: bool


class Deleted(NotFound):
    """The object was deleted; ``record`` is its tombstone."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.key} was deleted")
        self.record = record


class NearCache(Protocol):
    """The objects of the near-cache, by way of one node. Keys are ULIDs, checked by the door."""

    async def put(
        self,
        draft: Record,
        body: AsyncIterable[bytes],
        *,
        announced_bytes: int | None = None,
    ) -> Kept:
        """Store a body under ``draft.key`` with ``draft.level``, ``name`` and ``metadata``.

        An empty body never takes the place of a content. With a higher level than that of the object
        in force it raises that one's level, and name and metadata of the draft count if they are not
        empty; with the same or a lower level it changes nothing, so it may be sent again.
        Raises what Blobs.receive does, Unavailable if the level can't be reached (nothing is claimed
        then), Conflict if the level needs an upstream and there is none.
        """
        ...

    async def open(self, key: str, *, fetch: bool) -> Found:
        """Find an object and open it. ``fetch``: ask the upstream for what no node has.

        Raises Deleted (a NotFound, with the tombstone) for one that was deleted, NotFound for one
        that is not known (or is known, but was evicted and ``fetch`` is off), Unavailable.
        """
        ...

    async def know(self, key: str) -> Known:
        """What is known of an object, without its content. Raises NotFound."""
        ...

    async def delete(self, key: str) -> Record:
        """Delete an object; returns its tombstone, which keeps name, level and metadata.

        Deleting again gives it a new timestamp. Raises NotFound for what was never known.
        """
        ...
