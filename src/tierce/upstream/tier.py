"""What the cluster asks of its upstream. cloud.py is the implementation over OpenDAL.

An upstream maps a key (the id of an object) to its content and what is known of it. Nothing here is
trusted to be quick or up: whatever may pass is Unavailable, with a hint.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from tierce.core.digest import Digest
from tierce.names.record import Record


class Source(Protocol):
    """A whole blob to be sent: an open blob (blobs/store.py), or a spool's content (spool.py)."""

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    @property
    def data(self) -> bytes | None:
        """All of it, where it is in memory."""
        ...

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield all bytes in order; for a source without ``data``."""
        ...


class UpstreamObject(NamedTuple):
    """An object that the upstream has, open for reading.

    ``record`` is what its metadata tells, with ``is_upstream`` set and a level of at least 1. Its
    ``bucket`` is empty, ``digest`` is None if another program wrote the object, ``size`` is that of
    the content in bytes, and ``timestamp`` that of the write, as far as it is known.
    """

    record: Record
    pieces: AsyncIterator[bytes]


class Upstream(Protocol):
    """All methods may be called concurrently, from one event loop, in any number of processes."""

    async def upload(self, record: Record, source: Source) -> None:
        """Put an object, under ``record.key``; it is there, whole, when this returns.

        Does nothing if the upstream has this very content with this record's timestamp already, as
        after a crash. Raises Unavailable if it failed, TooLarge for what the service can't hold,
        BadRequest for metadata that it can't hold, Refused for missing rights.
        """
        ...

    async def stat(self, key: str) -> Record:
        """What the upstream has under a key (see UpstreamObject). Raises NotFound, Unavailable."""
        ...

    def open(self, key: str) -> AbstractAsyncContextManager[UpstreamObject]:
        """Read an object inside the block. Entering it raises NotFound or Unavailable.

        The pieces end after exactly ``record.size`` bytes, or raise Unavailable. They are not
        verified here.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object, if it is there. Raises Unavailable."""
        ...

    async def check(self) -> None:
        """Raise what keeps the upstream from being used now."""
        ...

    def status(self) -> dict[str, object]:
        """How it goes, since this process began, for status pages."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...
