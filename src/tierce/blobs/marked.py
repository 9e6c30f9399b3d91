"""What a node's store promises beyond a BlobStore: that blobs and records change in one step.

LocalStore (local.py) keeps it on a disk, CloudStore (cloud.py) in a bucket.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.marks import Marking
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobStore
from tierce.core.digest import Digest

T = TypeVar("T")
Referred: TypeAlias = Callable[[WriteBatch, Digest], bool]
"""Whether a record refers to a blob, in the eyes of a transaction."""


class Collected(NamedTuple):
    """How many entries were looked at, and the blobs that were removed."""

    seen: int
    removed: list[Digest]


class MarkedStore(BlobStore, Protocol):
    """A BlobStore whose marks and records are in one index (marks.py)."""

    @property
    def marking(self) -> Marking: ...

    async def put_along(
        self, spool: Spool, change: Callable[[WriteBatch], T], *, is_loose: bool = False
    ) -> T:
        """Store a managed blob, and apply the change that makes a record refer to it.

        The record never appears without the blob. ``change`` may raise before it writes, and then
        nothing is referred to. ``is_loose``: perhaps nothing refers to it afterwards, as what is
        known already is newer.
        """
        ...

    async def collect(self, before: int, limit: int, is_referred_to: Referred) -> Collected:
        """Remove managed blobs that nothing has referred to since ``before``, milliseconds since 1970.

        Looks at ``limit`` entries at most. ``is_referred_to`` is asked in the transaction that
        removes the blob, or, for a file, while nobody can put it.
        """
        ...

    async def reading(self, look: Callable[[WriteBatch], T]) -> T:
        """Look at the index in a thread, in one snapshot."""
        ...

    async def evict(self, digest: Digest, may_go: Callable[[WriteBatch], bool]) -> int | None:
        """Drop a managed blob, and its mark, if it may go; its size in bytes, or None if it stays.

        ``may_go`` is asked in the transaction that removes the blob, or, for a file, while nobody
        can put it. Whoever has it open reads on.
        """
        ...

    async def delete_unless(
        self, digest: Digest, check: Callable[[WriteBatch, Digest], None]
    ) -> bool:
        """As ``delete``, but for what ``check`` forbids by raising, in the same transaction.

        For a file, it is also asked while nobody can put it.
        """
        ...


class Storage(Protocol):
    """Everything that a node's blobs need, opened together and closed together."""

    @property
    def store(self) -> MarkedStore: ...

    @property
    def environment(self) -> Environment: ...

    @property
    def spooler(self) -> Spooler: ...

    @property
    def space(self) -> SpaceGuard: ...

    @property
    def pool(self) -> Executor: ...

    async def close(self) -> None:
        """Finish what is under way, then let go of the directory."""
        ...
