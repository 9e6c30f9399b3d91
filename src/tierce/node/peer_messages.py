"""What nodes say to each other about blobs: messages and their answers, and how small ones are checked.

Each message goes to a path of its own. Blobs in messages are small ones; large ones are streamed to
and from ``/blobs/DIGEST``. Digests that come from outside are checked before anything is made of
them: paths on disk are built from them.
"""

from collections.abc import Iterable

import msgspec

from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import BadRequest, TierceError, name_of, named
from tierce.core.limits import PEER_BATCH_BLOBS
from tierce.node.peers import Small

GOSSIP = "/gossip"
STORE = "/blobs/store"
FIND = "/blobs/find"
READ = "/blobs/read"
DELETE = "/blobs/delete"
CONTROL = "/control"
NAMES = "/names/"
BLOBS = "/blobs/"
HEALING = "?healing"
NEW = "?new"
HEALING_MANAGED = "?healing-managed"
NEW_MANAGED = "?managed"
TO = "&to="


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """An error that concerns one blob of several."""

    name: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: TierceError) -> "Fault":
        """What is told of an error."""
        return cls(name_of(error), error.message, error.hint)

    @property
    def error(self) -> TierceError:
        """The error again, on the other side."""
        return named(self.name, self.message, self.hint)


class StoreRequest(msgspec.Struct, array_like=True):
    """Keep these. ``healing``: they are copies of what is stored already.

    ``to`` here and below is the id of the node that is meant. Another one may have taken over its
    address, and must not be counted as that one.
    """

    blobs: list[Small]
    healing: bool = False
    to: str = ""
    managed: bool = False


class StoreAnswer(msgspec.Struct, array_like=True):
    """For each blob whether it was new, once all are durable."""

    created: list[bool | Fault]


class FindRequest(msgspec.Struct, array_like=True):
    """Which of these are there? With ``prove``, hash them before saying so.

    With ``managed``, all but those of these places in the list are claimed (blobs/marks.py).
    """

    digests: list[Digest]
    prove: bool = False
    to: str = ""
    managed: list[int] | None = None


class FindAnswer(msgspec.Struct, array_like=True):
    """For each digest a size in bytes, or None."""

    sizes: list[int | None]


class ReadRequest(msgspec.Struct, array_like=True):
    """The bytes of these, please."""

    digests: list[Digest]
    to: str = ""


class ReadAnswer(msgspec.Struct, array_like=True):
    """For each digest its bytes, or the size in bytes of a large one, or None if it is not there."""

    blobs: list[bytes | int | Fault | None]


class DeleteRequest(msgspec.Struct, array_like=True):
    """Remove these."""

    digests: list[Digest]
    to: str = ""


class DeleteAnswer(msgspec.Struct, array_like=True):
    """For each digest whether it was there."""

    deleted: list[bool]


class ControlRequest(msgspec.Struct, array_like=True):
    """Something asked of the agent itself, with its arguments as JSON."""

    name: str
    arguments: bytes


def upload_kind(healing: bool, managed: bool) -> str:
    """How the path of a large blob's upload says what it is: see Peers.store."""
    if managed:
        return HEALING_MANAGED if healing else NEW_MANAGED
    return HEALING if healing else NEW


def check_names(digests: Iterable[Digest]) -> None:
    """Raise BadRequest unless all are digests, and not too many of them."""
    for number, digest in enumerate(digests):
        algorithm = ALGORITHMS.get(digest.algorithm)
        if algorithm is None or len(digest.raw) != algorithm.size_bytes:
            raise BadRequest(
                f"{digest.algorithm[:20]!a} with {len(digest.raw)} bytes is not a digest",
                hint="Run the same version on both nodes.",
            )
        if number >= PEER_BATCH_BLOBS:
            raise BadRequest(f"a message names more than {PEER_BATCH_BLOBS} blobs")
