"""What a node may ask of another one. Two protocols: bytes below, blobs above.

:class:`Transport` carries bytes to an address and back; HTTP does (http_transport.py), and so does
the simulated network of the tests. :class:`Peers` speaks of blobs: for Tierce nodes by messages over
a transport (tierce_peers.py), for real Cask nodes in Cask's dialect (doors/cask/peers.py). What a
node answers to such messages is in peer_service.py.

Whatever keeps a peer from answering is Unavailable: no connection, no answer in time, a broken
answer. A peer's own refusal arrives as the core error that it raised there.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from tierce.cluster.member import Member
from tierce.core.digest import Digest


class Incoming(NamedTuple):
    """A body on its way here: the size of the whole blob in bytes, and the pieces asked for."""

    size: int
    pieces: AsyncIterator[bytes]


class Transport(Protocol):
    """Requests to ``address`` (HOST:PORT of a node's private door), each answered once or failed.

    Nothing is repeated by itself: whoever asks decides that. Cancelling a call gives it up.
    """

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        """Send a message and return the answer, both whole in memory.

        Raises Unavailable, also after ``timeout_seconds`` in all, or the peer's refusal.
        """
        ...

    async def upload(
        self, address: str, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        """Send ``size`` bytes piece by piece, with the digest that they have, and return the answer.

        There is no total time limit, but Unavailable is raised if for PEER_STALL_SECONDS the peer
        neither takes bytes nor answers. ``pieces`` is closed at the end, if it has ``aclose``.
        """
        ...

    def download(
        self, address: str, path: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        """Ask for the bytes of [start, stop) of a blob, and read them inside the block.

        Entering it waits for the peer's first word: raises NotFound, or Unavailable after
        PEER_ANSWER_SECONDS. The pieces end after exactly the bytes asked for, or raise Unavailable:
        when the connection breaks, or when no byte came for PEER_STALL_SECONDS.
        """
        ...


class PeerService(Protocol):
    """The other end of a transport: what this node answers. Refusals are raised as core errors."""

    async def exchange(self, path: str, body: bytes) -> bytes:
        """Answer a message."""
        ...

    async def upload(
        self, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        """Take a body. It is not trusted to have the digest."""
        ...

    def download(
        self, path: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        """Open a blob. Pieces raise Corrupt when a bad one turns up; the connection breaks then."""
        ...


class Small(NamedTuple):
    """A small blob on its way: its name, and its bytes, which the receiver checks."""

    digest: Digest
    data: bytes


class Source(Protocol):
    """A whole blob to be sent: an open blob, or a spool's content (spool.py). Sizes in bytes."""

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


class Peers(Protocol):
    """Other nodes, by their member records. May be called concurrently, from one event loop."""

    async def store(
        self, member: Member, source: Source, *, healing: bool = False, managed: bool = False
    ) -> bool:
        """Give a member a blob; durable there when it returns. True if it was new there.

        ``managed``: for the sake of records only (blobs/marks.py); otherwise it is claimed there.

        ``healing`` marks a copy of what is stored already, which a node may refuse with Conflict
        if the blob was deleted in the meantime.
        """
        ...

    async def find(
        self,
        member: Member,
        digests: Sequence[Digest],
        *,
        prove: bool = False,
        proof_bytes: int = 0,
        managed: Sequence[bool] | None = None,
    ) -> list[int | None]:
        """For each digest the size in bytes of the member's copy, or None if it has none.

        With ``prove`` the member reads and hashes each copy first, a bad one counts as none, and
        one that the member is about to remove itself (healing.py) does too. A Cask node tells no
        sizes otherwise: -1 stands for a copy of unknown size. ``proof_bytes`` is how much there is
        to hash, as far as it is known: the time that is allowed for it grows with that.
        ``managed`` says for each blob whether the asker has it for the sake of records only: all
        others become claimed at the member too, if it has them.
        """
        ...

    async def read(self, member: Member, digest: Digest) -> "bytes | int":
        """The bytes of a small blob, verified; or the size in bytes of a large one, to be opened.

        Raises NotFound, Unavailable, or Corrupt if what came does not fit the digest.
        """
        ...

    def open(
        self, member: Member, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        """Stream a blob, or a part of it, from a member. The bytes are not verified here."""
        ...

    async def delete(self, member: Member, digest: Digest) -> bool:
        """Remove a member's copy; False if it had none."""
        ...
