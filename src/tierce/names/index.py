"""What an index of records promises. The comments here are the contract; testing/index_contract.py
checks it.

An index maps (bucket, key) to the record that counts (record.py), and keeps a feed: every change that
it accepts gets the next number. The feed holds each name once, at its last change, so it is as long as
there are names. An index says nothing of where bytes are.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from tierce.core.digest import Digest
from tierce.names.changes import Epoch
from tierce.names.record import Record

Check = Callable[[Record | None], None]
"""Looks at the record in force (or None, or a tombstone), and raises Conflict to forbid a write."""


class Change(NamedTuple):
    """A change in the feed: its number, and the record as it is now."""

    seq: int
    record: Record


class NameCounts(NamedTuple):
    """How many names there are: those of objects, and tombstones.

    ``damaged``: the records among them that can't be used, as far as this process came upon them.
    """

    objects: int
    tombstones: int
    damaged: int = 0


class Index(Protocol):
    """All methods may be called concurrently, from one event loop, in any number of processes.

    Those that are not ``async`` read a few pages, and may be called on the event loop.

    Records that are damaged on disk are left out of lists, scans and changes. What is asked of one
    of them, or of a blob that one may refer to, raises Corrupt (damage.py).
    """

    def get(self, bucket: str, key: str) -> Record | None:
        """The record in force, a tombstone included; None if there never was one."""
        ...

    async def write(self, draft: Record, *, now: int, check: Check | None = None) -> Record:
        """Take a write of this node, and return it with its timestamp; durable when it returns.

        The timestamp is the ``stamp`` of ``now`` (nanoseconds) and the latest one that this index
        has seen, whatever the draft's own; so the write always counts. ``check`` is asked in the
        same transaction, and what it raises is raised here, with nothing changed.
        """
        ...

    async def reserve(self, now: int) -> int:
        """A timestamp that no other write of this index gets, for a record to be merged later.

        The ``stamp`` of ``now`` (nanoseconds) and the latest one that was seen. Durable.
        """
        ...

    async def merge(self, records: Sequence[Record]) -> list[bool]:
        """Merge records as they are; for each whether that changed anything. Durable.

        A damaged record counts as none: what is merged takes its place.
        """
        ...

    async def list_after(
        self, bucket: str, prefix: str, after: str, limit: int, *, deleted: bool = False
    ) -> list[Record]:
        """Up to ``limit`` records whose keys begin with ``prefix``, after the key ``after``.

        In the order of the keys' UTF-8 bytes; fewer only at the end. ``after`` may be "" (from the
        start) and need not exist. Tombstones are left out unless ``deleted``.
        """
        ...

    async def scan_after(self, after: tuple[str, str] | None, limit: int) -> list[Record]:
        """Up to ``limit`` records of all buckets, tombstones included, after (bucket, key).

        In the order of the UTF-8 bytes of bucket, then key; fewer only at the end.
        """
        ...

    async def changes(self, since: int, limit: int) -> list[Change]:
        """Up to ``limit`` changes after number ``since``, in order; fewer only at the end."""
        ...

    def last_seq(self) -> int:
        """The number of the latest change; 0 if there is none."""
        ...

    def latest(self) -> int:
        """The latest timestamp that was seen, in nanoseconds; 0 if there was none."""
        ...

    def epochs(self) -> tuple[Epoch, ...]:
        """The feed's epochs (changes.py), oldest first, at least one."""
        ...

    async def begin_epoch(self, name: str) -> None:
        """Note that a new run of the node begins: numbers from here on belong to it. Durable."""
        ...

    async def drop(self, bucket: str, key: str, timestamp: int) -> bool:
        """Forget a tombstone, if it is still the one of that timestamp; it leaves the feed too."""
        ...

    def checkpoint(self, peer: str) -> bytes | None:
        """What ``set_checkpoint`` was last given for a peer (or for any other purpose)."""
        ...

    async def set_checkpoint(self, peer: str, value: bytes) -> None:
        """Remember how far a peer's feed has been read. Durable."""
        ...

    def refers(self, digest: Digest) -> list[Record]:
        """The records in force, no tombstones, whose content is this blob; the first 100."""
        ...

    def counts(self) -> NameCounts:
        """How many names there are. Exact."""
        ...
