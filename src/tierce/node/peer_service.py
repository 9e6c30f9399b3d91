"""What this node answers to other nodes about blobs: keep, find, read, remove. Only its own copies.

Nothing that comes from a peer is trusted: every blob is hashed before it is kept, as a client's is.
A blob that was deleted a moment ago is not taken back from a peer that heals and has not heard of it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import unquote

from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore
from tierce.cloud.pacing import background
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    Corrupt,
    NotFound,
    TierceError,
    Unavailable,
)
from tierce.core.limits import (
    DELETED_MEMORY_SECONDS,
    DISK_THREADS,
    PEER_ANSWER_SECONDS,
    PEER_BATCH_BYTES,
    PEER_PROOF_BYTES_PER_SECOND,
    RECORD_COMES_SECONDS,
)
from tierce.names.store import named_by_objects
from tierce.node import peer_messages as messages
from tierce.node.peers import Incoming, Small

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[bytes], Awaitable[bytes]]


async def _no_names(path: str, body: bytes) -> bytes:
    raise NotFound(f"{path[:80]!a} is no message", hint="Run the same version on both nodes.")


class BlobService:
    """The answers of a node. ``gossip``, ``control`` and ``names`` answer what is not about blobs.

    ``condemned`` are the copies that this node is about to remove (healing): it gives its word for
    none of them, and a blob that is stored anew is taken off it. ``is_draining`` tells whether this
    node is being emptied, and so takes nothing new.
    """

    def __init__(
        self,
        store: BlobStore,
        spooler: Spooler,
        condemned: dict[Digest, None],
        *,
        node_id: str,
        is_draining: Callable[[], bool],
        gossip: Handler,
        control: Callable[[str, bytes], Awaitable[bytes]],
        names: Callable[[str, bytes], Awaitable[bytes]] = _no_names,
        is_named: Callable[[Digest], bool] = lambda _: False,
        delete: Callable[[Digest], Awaitable[bool]] | None = None,
    ) -> None:
        self._store = store
        self._spooler = spooler
        self._condemned = condemned
        self._node_id = node_id
        self._is_draining = is_draining
        self._gossip = gossip
        self._control = control
        self._names = names
        self._is_named = is_named
        self._delete_blob = delete or store.delete
        self._expected: dict[Digest, float] = {}
        self._deleted: dict[Digest, float] = {}

    async def exchange(self, path: str, body: bytes) -> bytes:
        if path == messages.GOSSIP:
            return await self._gossip(body)
        if path == messages.STORE:
            return encode(await self._store_all(_read(body, messages.StoreRequest)))
        if path == messages.FIND:
            return encode(await self._find(_read(body, messages.FindRequest)))
        if path == messages.READ:
            return encode(await self._read(_read(body, messages.ReadRequest)))
        if path == messages.DELETE:
            return encode(await self._delete(_read(body, messages.DeleteRequest)))
        if path == messages.CONTROL:
            request = _read(body, messages.ControlRequest)
            return await self._control(request.name, request.arguments)
        if path.startswith(messages.NAMES):
            return await self._names(path, body)
        raise NotFound(f"{path[:80]!a} is no message", hint="Run the same version on both nodes.")

    async def upload(
        self, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        name = _digest_in(path)
        kind, _, receiver = path.partition("?")[2].partition(messages.TO)
        self._check_meant(unquote(receiver))
        healing = f"?{kind}" in (messages.HEALING, messages.HEALING_MANAGED)
        managed = f"?{kind}" in (messages.NEW_MANAGED, messages.HEALING_MANAGED)
        if name != digest:
            raise BadRequest(f"{digest} was announced, and {name} is in the path")
        self._check_taken(name, healing=healing)
        self._spooler.space.check(size, in_file=True)
        spool = self._spooler.new(name.algorithm, expected=(name,))
        try:
            async for piece in pieces:
                await spool.write(piece)
            await spool.finish()
            # While it came, it may have been deleted, or this node been told to empty itself.
            self._check_taken(name, healing=healing)
            self._condemned.pop(name, None)
            if managed and not healing:
                self._record_comes(name)
            with background(healing):
                created = await self._store.put(spool, managed=managed)
        finally:
            await spool.discard()
        return encode(messages.StoreAnswer([created]))

    @asynccontextmanager
    async def download(
        self, path: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Incoming]:
        blob = await self._store.open(_digest_in(path))
        try:
            end = blob.size if stop is None else stop
            if not 0 <= start <= end <= blob.size:
                raise BadRequest(f"{start} to {end} is no part of {blob.size} bytes")
            pieces = blob.stream(start, end)
            try:
                yield Incoming(blob.size, pieces)
            finally:
                await pieces.aclose()
        finally:
            await blob.aclose()

    def was_deleted(self, digest: Digest) -> bool:
        """Whether a blob was deleted on purpose a short while ago, and nobody wants it since."""
        is_remembered = self._deleted.get(digest, 0.0) > asyncio.get_running_loop().time()
        return is_remembered and not self._is_named(digest)

    def deleted(self, digest: Digest) -> None:
        """Remember that a blob was deleted on purpose."""
        now = asyncio.get_running_loop().time()
        # The oldest come first, so that only what is forgotten is looked at.
        self._deleted.pop(digest, None)
        self._deleted[digest] = now + DELETED_MEMORY_SECONDS
        while self._deleted[oldest := next(iter(self._deleted))] <= now:
            del self._deleted[oldest]

    async def _store_all(self, request: messages.StoreRequest) -> messages.StoreAnswer:
        self._check_meant(request.to)
        messages.check_names(blob.digest for blob in request.blobs)
        return messages.StoreAnswer(
            await asyncio.gather(
                *(self._store_one(blob, request.healing, request.managed) for blob in request.blobs)
            )
        )

    async def _store_one(self, blob: Small, healing: bool, managed: bool) -> bool | messages.Fault:
        try:
            self._check_taken(blob.digest, healing=healing)
            self._spooler.space.check(len(blob.data))
            spool = self._spooler.new(blob.digest.algorithm, expected=(blob.digest,))
            try:
                await spool.write(blob.data)
                await spool.finish()
                self._condemned.pop(blob.digest, None)
                if managed and not healing:
                    self._record_comes(blob.digest)
                with background(healing):
                    return await self._store.put(spool, managed=managed)
            finally:
                await spool.discard()
        except TierceError as error:
            return messages.Fault.of(error)

    async def _find(self, request: messages.FindRequest) -> messages.FindAnswer:
        self._check_meant(request.to)
        messages.check_names(request.digests)
        if request.managed is not None:
            managed = set(request.managed)
            await self._store.claim(
                [digest for at, digest in enumerate(request.digests) if at not in managed]
            )
        if not request.prove:
            return messages.FindAnswer(await self._store.sizes(request.digests))
        at_once = asyncio.Semaphore(DISK_THREADS)
        began = asyncio.get_running_loop().time()
        read_bytes = 0

        async def prove(digest: Digest) -> int | None:
            nonlocal read_bytes
            async with at_once:
                # What can't be proved while the other node waits, as from a slow store, isn't now.
                patience = PEER_ANSWER_SECONDS / 2 + read_bytes / PEER_PROOF_BYTES_PER_SECOND
                if asyncio.get_running_loop().time() - began > patience:
                    return None
                size = await self._prove(digest)
                read_bytes += size or 0
                return size

        with background():
            return messages.FindAnswer(list(await asyncio.gather(*map(prove, request.digests))))

    async def _prove(self, digest: Digest) -> int | None:
        if digest in self._condemned:
            return None
        try:
            return await self._store.prove(digest)
        except (NotFound, Corrupt):
            return None
        except Unavailable as error:  # the proofs of the others count all the same
            log.info("%s can't be proved now: %s", digest, error)
            return None

    async def _read(self, request: messages.ReadRequest) -> messages.ReadAnswer:
        self._check_meant(request.to)
        messages.check_names(request.digests)
        found = []
        size = 0
        for digest in request.digests:
            found.append(await self._read_one(digest, size < PEER_BATCH_BYTES))
            size += len(found[-1]) if isinstance(found[-1], bytes) else 0
        return messages.ReadAnswer(found)

    async def _read_one(self, digest: Digest, whole: bool) -> bytes | int | messages.Fault | None:
        try:
            blob = await self._store.open(digest)
        except NotFound as error:
            if error.found_bad:  # then whoever asks must not conclude that nobody has it
                return messages.Fault.of(Unavailable(error.message))
            return None
        except TierceError as error:
            return messages.Fault.of(error)
        try:
            return blob.size if blob.data is None or not whole else blob.data
        finally:
            await blob.aclose()

    async def _delete(self, request: messages.DeleteRequest) -> messages.DeleteAnswer:
        self._check_meant(request.to)
        messages.check_names(request.digests)
        for digest in request.digests:
            if self._is_named(digest):
                raise named_by_objects(digest)
            self._check_no_record_comes(digest)
        for digest in request.digests:
            self.deleted(digest)
        return messages.DeleteAnswer(
            [await self._delete_blob(digest) for digest in request.digests]
        )

    def _record_comes(self, digest: Digest) -> None:
        """A copy was put for the sake of a record: it is on its way."""
        now = asyncio.get_running_loop().time()
        self._expected.pop(digest, None)
        self._expected[digest] = now + RECORD_COMES_SECONDS
        while self._expected[oldest := next(iter(self._expected))] <= now:
            del self._expected[oldest]

    def _check_no_record_comes(self, digest: Digest) -> None:
        """Raise Conflict for a blob that is just becoming the content of an object."""
        if self._expected.get(digest, 0.0) > asyncio.get_running_loop().time():
            raise Conflict(
                f"{digest} was just put as the content of an object",
                hint="Delete the object, or try again in a minute.",
            )

    def _check_meant(self, node_id: str) -> None:
        """Raise Unavailable if another node is meant, whose address this one has now."""
        if node_id not in ("", self._node_id):
            raise Unavailable(
                f"this is {self._node_id}, and {node_id} is meant",
                hint="Wait until the nodes have found out, or forget the old one.",
            )

    def _check_taken(self, digest: Digest, *, healing: bool) -> None:
        """Raise what keeps this node from taking a blob, whatever its disk says."""
        if self._is_draining():
            raise Unavailable("this node is being drained", hint="Write to another node.")
        if not healing:
            self._deleted.pop(digest, None)
        elif self.was_deleted(digest):
            raise Conflict(f"{digest} was deleted", hint="Delete it on the other nodes too.")


def _read(body: bytes, kind: type[T]) -> T:
    return decode(body, kind, "message")


def _digest_in(path: str) -> Digest:
    return Digest.parse(path.removeprefix(messages.BLOBS).partition("?")[0])
