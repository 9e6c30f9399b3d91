"""Files of dtfc as its door sees them: by their SHA-512, with a name, loaded from peers on a miss.

A file is an object (service/objects.py) whose key is the hash. A cluster is one node in dtfc's sense:
peers are others, Tierce or the program itself.
"""

import contextlib
import logging
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, NamedTuple

from tierce.blobs.store import OpenBlob
from tierce.core.digest import Digest
from tierce.core.dtfc import ALGORITHM, BUCKET, cleaned_name
from tierce.core.errors import (
    Corrupt,
    DigestMismatch,
    Forbidden,
    NotFound,
    TierceError,
    Unavailable,
)
from tierce.core.limits import AGENT_ORDER_SECONDS
from tierce.names.record import Record
from tierce.node.dtfc_deletes import DELETED, UNKNOWN
from tierce.node.dtfc_tree import FORBIDDEN, GONE, Tree
from tierce.node.loads_reading import LoadsReading
from tierce.node.media_probe import MediaProbe
from tierce.node.replacing import ReplacedBlob
from tierce.node.source_race import Nowhere
from tierce.service.blobs import Blobs
from tierce.service.objects import Objects

log = logging.getLogger(__name__)

DELETE_ORDER, REFRESH_ORDER = "dtfc_delete", "dtfc_refresh"

Call = Callable[[str, dict[str, Any], float], Awaitable[dict[str, Any]]]


class Marked(Forbidden):
    """The operator has forbidden this file to everyone."""


class FoundFile(NamedTuple):
    """A file found, open; close its content. ``modified`` is in nanoseconds since 1970, 0 if unknown."""

    name: str
    modified: int
    blob: OpenBlob


class DeletedFile(NamedTuple):
    """What a deletion found. ``peers`` says by URL what became of it there; ``is_deleted``: somewhere
    it is gone now, rather than about to be.
    """

    name: str
    size: int
    is_deleted: bool
    peers: dict[str, str]


class KnownFile(NamedTuple):
    """What is known of a file; the size is in bytes."""

    name: str
    modified: int
    size: int


class Files:
    """The files of the cluster, by way of one node. ``call`` gives the agent an order."""

    def __init__(
        self,
        blobs: Blobs,
        objects: Objects,
        loads: LoadsReading,
        tree: Tree,
        call: Call,
        probe: MediaProbe,
    ) -> None:
        self._blobs = blobs
        self._objects = objects
        self._loads = loads
        self._tree = tree
        self._call = call
        self._probe = probe

    async def put(
        self, name: str, body: AsyncIterable[bytes], *, announced_bytes: int | None = None
    ) -> Record:
        """Store a body under its hash, with a name (cleaned). One that was deleted is back then.

        Raises what Blobs.receive does.
        """
        self._blobs.check_writable(announced_bytes, algorithm=ALGORITHM)
        async with self._blobs.spooling(body, ALGORITHM) as spool:
            draft = Record(bucket=BUCKET, key=spool.digest.raw.hex(), name=name)
            return await self._objects.keep(spool, draft)

    def check(self, digest: Digest) -> None:
        """Raise Marked or NotFound for what an operator marked as forbidden, or gone, by hand."""
        if not self._tree.has_directory(digest):
            return
        if self._tree.has_marker(digest, FORBIDDEN):
            raise Marked("this file is forbidden")
        if self._tree.has_marker(digest, GONE):
            raise NotFound("this file was marked as gone")

    async def know(self, digest: Digest) -> KnownFile:
        """What is known of a file that is here, or in the cluster. Raises as :meth:`open` does."""
        record = self._record(digest)
        if record is not None:
            return KnownFile(record.name, record.modified_at, record.size)
        try:
            return KnownFile("", 0, await self._blobs.size(digest))
        except NotFound:
            found = await self._tree.find(digest)
            if found is None:
                raise
            return KnownFile(cleaned_name(found.name), 0, found.size)

    async def open(self, digest: Digest, *, load: bool) -> FoundFile:
        """Open a file; ``load``: from peers, if it is not here. Raises NotFound or Unavailable.

        Nowhere and Busy (node/) are kinds of Unavailable of loading alone.
        """
        record = self._record(digest)
        unknown: TierceError | None = None
        try:
            found = await self._open_here(digest, record)
        except NotFound:
            if not load:
                return await self._adopt(digest)
        except (Unavailable, Corrupt) as error:
            if not load:
                raise
            unknown = error
        else:
            if found.blob.data is not None:
                return found
            # What is read piece by piece may prove bad midway.
            instead = self._loaded_instead if load else _nothing_instead
            return found._replace(blob=ReplacedBlob(found.blob, instead))
        try:
            loaded = await self._loads.open(digest)
        except (NotFound, Nowhere) as error:
            if unknown is None:
                raise
            # That peers lack it is no news of a file that a node of the cluster may have.
            raise unknown from error
        return FoundFile(loaded.name, 0, loaded.blob)

    async def delete(
        self, digest: Digest, *, check: Callable[[int], None] | None = None
    ) -> DeletedFile:
        """Delete a file from the cluster; returns what it was. Raises NotFound, Unavailable.

        ``check`` is told when the file was put here, in nanoseconds since 1970, if that is known, in
        the moment of the deletion; what it raises keeps the file.
        """

        def in_time(found: Record | None) -> None:
            if found is not None and check is not None:
                check(found.modified_at)

        record = self._record(digest)
        if record is not None:
            await self._objects.delete(BUCKET, record.key, check=in_time)
            return DeletedFile(record.name, record.size, True, {})
        known = await self.know(digest)
        key = digest.raw.hex()
        # It has no name here: one is made for its tombstone's sake. A blob put without stays.
        await self._objects.name(
            Record(bucket=BUCKET, key=key, name=known.name, digest=digest, size=known.size)
        )
        await self._objects.delete(BUCKET, key)
        return DeletedFile(known.name, known.size, True, {})

    async def delete_everywhere(self, digest: Digest) -> DeletedFile:
        """Delete a file here, if it is here, and on all peers. Raises NotFound if nobody has it.

        Peers that can't be reached get the order later.
        """
        here: DeletedFile | None = None
        with contextlib.suppress(NotFound):  # a peer may have it all the same
            here = await self.delete(digest)
        answer = await self._call(DELETE_ORDER, {"digest": str(digest)}, AGENT_ORDER_SECONDS)
        peers = {str(url): str(word) for url, word in answer["peers"].items()}
        words = set(peers.values())
        if here is None and words <= {UNKNOWN}:
            raise NotFound("neither here nor on a peer")
        if here is None:
            return DeletedFile("", 0, DELETED in words, peers)
        return here._replace(peers=peers)

    async def refresh(self) -> None:
        """Have the list of peers read again. What keeps it from being read is in the log only."""
        try:
            await self._call(REFRESH_ORDER, {}, AGENT_ORDER_SECONDS)
        except TierceError as error:  # it is read again in any case, before peers are next asked
            log.warning("the peer list was not read again: %s", error.message)

    async def describe(self, digest: Digest, *, load: bool) -> dict[str, Any]:
        """What is in a media file (node/media_probe.py). Raises as it and :meth:`open` do."""
        found = await self.open(digest, load=load)
        try:
            return await self._probe.describe(found.blob)
        finally:
            await found.blob.aclose()

    async def _open_here(self, digest: Digest, record: Record | None) -> FoundFile:
        if record is None:
            return FoundFile("", 0, await self._blobs.open(digest))
        return FoundFile(record.name, record.modified_at, await self._objects.open(record))

    async def _adopt(self, digest: Digest) -> FoundFile:
        """Keep a file of the tree, without asking anyone, and open it. Raises NotFound, Unavailable."""
        async with self._tree.open(digest) as head:
            spooling = self._blobs.spooling(head.pieces, ALGORITHM, expected=(digest,))
            try:
                async with spooling as spool:
                    draft = Record(
                        bucket=BUCKET, key=digest.raw.hex(), name=cleaned_name(head.name)
                    )
                    record = await self._objects.keep(spool, draft, check=_not_deleted)
            except DigestMismatch as error:
                log.warning("%s is damaged in the tree of dtfc", digest)
                raise NotFound("the only copy here is bad") from error
        return await self._open_here(digest, record)

    async def _loaded_instead(self, digest: Digest) -> OpenBlob:
        """What a peer has in the place of a copy here that proved bad."""
        try:
            return (await self._loads.open(digest)).blob
        except (NotFound, Nowhere) as error:
            raise Unavailable(
                f"the copy of {digest} here was bad, and no peer gave another one",
                hint="Put it again, or try again when more peers are up; the copy is in quarantine.",
            ) from error

    def _record(self, digest: Digest) -> Record | None:
        """The record of a file, None for one without. Raises NotFound if it was deleted."""
        record = self._objects.known(BUCKET, digest.raw.hex())
        if record is not None and record.deleted:
            raise NotFound("this file was deleted")
        # By another door anything may be put under such a name.
        return record if record is not None and record.digest == digest else None


def _not_deleted(record: Record | None) -> None:
    if record is not None and record.deleted:
        raise NotFound("this file was deleted")


async def _nothing_instead(digest: Digest) -> OpenBlob:
    raise Unavailable(
        f"the copy of {digest} here was bad",
        hint="A GET without /nopeerload loads another one; the copy is in quarantine.",
    )
