"""What the upload and download doors of SOS ask for: take a body and say its id, find an id's bytes.

There are two who do it: the cluster itself (service/sos_blobs.py), and a list of blob servers, which
may be Tierce or the real ones (node/sos_gateway.py); hence it stands below both.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import NamedTuple, Protocol


class SosStored(NamedTuple):
    """What an upload became: its id (the SHA-1 of the body in hex), and its size in bytes."""

    id: str
    size: int


class SosContent(Protocol):
    """The bytes of an id, open for reading; close them with :meth:`aclose`, whatever happened."""

    size: int

    @property
    def data(self) -> bytes | None:
        """The whole body, already verified, where it was small enough to read at once."""
        ...

    def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of [start, stop) in order.

        Where the id is the SHA-1 of the body, the last piece of the whole comes only after that was
        found right. Raises Corrupt or Unavailable midway, where a caller must break off its answer.
        """
        ...

    async def aclose(self) -> None: ...


class SosFound(NamedTuple):
    """An id found. ``metadata`` are the X- headers that were sent with it, by their canonical names.

    ``modified`` is when it was written, in nanoseconds since 1970, 0 if that is not known; ``etag`` is
    its strong entity tag, quoted, empty if there is none.
    ``is_read_whole`` says that a part of the content costs as much as the whole.
    """

    content: SosContent
    metadata: Mapping[str, str]
    modified: int = 0
    etag: str = ""
    is_read_whole: bool = False


class SosStore(Protocol):
    """Where uploads go and downloads come from. All methods may be called concurrently."""

    async def put(
        self,
        body: AsyncIterable[bytes],
        metadata: Mapping[str, str],
        *,
        announced_bytes: int | None = None,
    ) -> SosStored:
        """Keep a body under its SHA-1; durable when this returns, wherever it was said to be kept.

        Raises what Blobs.receive does; Unavailable if no server took it.
        """
        ...

    async def open(self, sos_id: str) -> SosFound:
        """Find an id and open it. Raises NotFound, or Unavailable if that can't be said."""
        ...
