"""The store of a disk: small blobs packed, large ones in files, as one BlobStore.

A spool decides which by holding its body in memory or in a file. The border may be moved by a
setting between two starts, so a blob may be found on either side, or on both.
"""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tierce.blobs.environment import BLOBS, Environment, WriteBatch
from tierce.blobs.files import FilesStore
from tierce.blobs.marked import Collected, Referred
from tierce.blobs.marks import (
    Marking,
    blob_of,
    claim_all,
    drop,
    is_due,
    key_of,
    loose_before,
    managed_of,
)
from tierce.blobs.packed import PackedStore, digest_of
from tierce.blobs.quarantine import Quarantine, sync_directory
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobInfo, Counts, OpenBlob, ProvedByReading
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, NotFound, TierceError
from tierce.core.limits import BLOB_LIMIT_BYTES, DISK_THREADS, PACK_LIMIT_BYTES

log = logging.getLogger(__name__)

T = TypeVar("T")


class LocalStore(ProvedByReading):
    """A packed store and a files store under one contract."""

    def __init__(
        self, packed: PackedStore, files: FilesStore, environment: Environment, marking: Marking
    ) -> None:
        self.packed = packed
        self.files = files
        self._environment = environment
        self.marking = marking

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        store = self.packed if spool.path is None else self.files
        return await store.put(spool, managed=managed)

    async def put_along(
        self, spool: Spool, change: Callable[[WriteBatch], T], *, is_loose: bool = False
    ) -> T:
        """Store a managed blob, and apply the change that makes a record refer to it.

        A small blob appears in the same transaction, a large one just before; so the record never
        appears without it. ``change`` may raise before it writes, and then nothing is referred to.
        ``is_loose``: perhaps nothing refers to it afterwards, as what is known already is newer.
        """
        data = spool.data
        if data is None:
            await self.files.put(spool, managed=True)
            result = await self._environment.write(change)
            # Between the two it may have been collected, if that took as long as the grace time.
            await self.files.keep(spool)
            return result
        digest = spool.digest

        def both(batch: WriteBatch) -> T:
            result = change(batch)
            self.packed.put_in(batch, digest, data, True, is_loose=is_loose)
            return result

        return await self._environment.write(both, len(data))

    async def claim(self, digests: Sequence[Digest]) -> None:
        await claim_all(self._environment, digests)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        return managed_of(self._environment, digests)

    async def collect(self, before: int, limit: int, is_referred_to: Referred) -> Collected:
        """Remove managed blobs that nothing has referred to since ``before``, milliseconds since 1970.

        Looks at ``limit`` entries at most. ``is_referred_to`` is asked in the transaction that
        removes the blob, or, for a file, while nobody can put it.
        """
        in_files: list[tuple[bytes, Digest]] = []
        removed: list[Digest] = []

        def sweep(batch: WriteBatch) -> int:
            entries = loose_before(batch, before, limit)
            for entry in entries:
                digest = digest_of(blob_of(entry))
                if digest is None or not is_due(batch, entry) or is_referred_to(batch, digest):
                    drop(batch, entry)
                elif self.files.has_in(batch, digest) or not self.packed.has_in(batch, digest):
                    in_files.append(
                        (entry, digest)
                    )  # or it is a mark alone, perhaps of one on its way
                else:
                    self.packed.delete_in(batch, digest)
                    removed.append(digest)
                    drop(batch, entry)
            return len(entries)

        seen = await self._environment.write(sweep)
        for entry, digest in in_files:
            try:
                if await self._collect_file(entry, digest, is_referred_to):
                    removed.append(digest)
            except TierceError as error:  # it must not keep all others from being collected
                log.error("%s could not be removed: %s", digest, error)
        return Collected(seen, removed)

    async def _collect_file(self, entry: bytes, digest: Digest, is_referred_to: Referred) -> bool:
        is_finished = False

        def is_unwanted(batch: WriteBatch) -> bool:
            return is_due(batch, entry) and not is_referred_to(batch, digest)

        def still() -> bool:
            with self._environment.snapshot() as batch:
                return is_unwanted(batch)

        def finish(batch: WriteBatch, size: int | None) -> None:
            nonlocal is_finished
            is_finished = True
            if is_unwanted(batch):
                self.packed.delete_in(batch, digest)  # there may be one of each; and the mark
            drop(batch, entry)

        removed = await self.files.remove_if(digest, still, finish)
        if not is_finished:
            await self._environment.write(lambda batch: finish(batch, None))
        return removed is not None

    async def reading(self, look: Callable[[WriteBatch], T]) -> T:
        """Look at the index in a thread, in one snapshot."""

        def read() -> T:
            with self._environment.snapshot() as batch:
                return look(batch)

        return await asyncio.to_thread(read)

    async def evict(self, digest: Digest, may_go: Callable[[WriteBatch], bool]) -> int | None:
        """Drop a managed blob, and its mark, if it may go; its size in bytes, or None if it stays.

        ``may_go`` is asked in the transaction that removes the blob, or, for a file, while nobody
        can put it. Whoever has it open reads on.
        """
        key = key_of(digest)

        def drop_packed(batch: WriteBatch) -> int | None:
            value = batch.get(BLOBS, key)
            size = None if value is None else len(value) - 1
            if size is None or self.files.has_in(batch, digest) or not may_go(batch):
                return None
            self.packed.delete_in(batch, digest)
            return size

        size = await self._environment.write(drop_packed)
        return await self._evict_file(digest, may_go) if size is None else size

    async def _evict_file(self, digest: Digest, may_go: Callable[[WriteBatch], bool]) -> int | None:
        def may_still_go() -> bool:
            with self._environment.snapshot() as batch:
                return may_go(batch)

        def finish(batch: WriteBatch, size: int | None) -> None:
            if size is not None and may_go(batch):  # else a record that needs it has just come
                self.packed.delete_in(batch, digest)  # there may be one of each; and the mark

        return await self.files.remove_if(digest, may_still_go, finish)

    async def open(self, digest: Digest) -> OpenBlob:
        try:
            return await self.packed.open(digest)
        except NotFound:
            return await self.files.open(digest)

    async def stat(self, digest: Digest) -> int:
        try:
            return await self.packed.stat(digest)
        except NotFound:
            return await self.files.stat(digest)

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        found = await self.packed.sizes(digests)
        missing = [index for index, size in enumerate(found) if size is None]
        if missing:
            for index, size in zip(
                missing, await self.files.sizes([digests[each] for each in missing]), strict=True
            ):
                found[index] = size
        return found

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        """Both copies where there are two, as each could be read one day."""
        sizes = []
        for store in (self.packed, self.files):
            try:
                sizes.append(await store.verify(digest, repair=repair))
            except NotFound:
                continue
        if not sizes:
            raise NotFound(f"{digest} is not here")
        return sizes[0]

    async def delete(self, digest: Digest) -> bool:
        return await self.delete_unless(digest, lambda batch, digest: None)

    async def delete_unless(
        self, digest: Digest, check: Callable[[WriteBatch, Digest], None]
    ) -> bool:
        """As :meth:`delete`, but for what ``check`` forbids by raising, in the same transaction.

        For a file, it is also asked while nobody can put it.
        """
        is_finished = packed = False

        def is_wanted_gone() -> bool:
            with self._environment.snapshot() as batch:
                check(batch, digest)
            return True

        def finish(batch: WriteBatch, size: int | None) -> None:
            nonlocal is_finished, packed
            is_finished = True
            check(batch, digest)
            packed = self.packed.delete_in(batch, digest)

        def change(batch: WriteBatch) -> None:
            # A mark alone may be that of a file on its way: whoever collects looks after it.
            check(batch, digest)
            if self.packed.has_in(batch, digest):
                finish(batch, None)

        in_file = await self.files.remove_if(digest, is_wanted_gone, finish)
        if not is_finished:
            await self._environment.write(change)
        return packed or in_file is not None

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        files = await self.files.list_after(after, limit)
        until = files[-1].digest if len(files) == limit else None
        packed = await self.packed.list_after(after, limit, until)
        merged: list[BlobInfo] = []
        for info in heapq.merge(packed, files):
            if not merged or merged[-1].digest != info.digest:
                merged.append(info)
        return merged[:limit]

    async def counts(self) -> Counts:
        return await self.packed.counts() + await self.files.counts()


class Disk:
    """Everything that a data directory's blobs need, opened together and closed together.

    ``files`` is where large blobs are, on the same file system; ``data/files`` if it is None.
    """

    def __init__(
        self,
        data: Path,
        *,
        files: Path | None = None,
        pack_limit_bytes: int = PACK_LIMIT_BYTES,
        blob_limit_bytes: int = BLOB_LIMIT_BYTES,
        space: SpaceGuard | None = None,
        environment: Environment | None = None,
    ) -> None:
        self.pool: Executor = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self.space = space or SpaceGuard(data)
        self.environment = environment or Environment(data / "lmdb")
        self.space.index_room = self.environment.free_bytes
        self.spooler = Spooler(
            data / "tmp",
            pool=self.pool,
            space=self.space,
            memory_limit_bytes=pack_limit_bytes,
            blob_limit_bytes=blob_limit_bytes,
        )
        quarantine = Quarantine(data / "quarantine")
        marking = Marking()
        self.store = LocalStore(
            PackedStore(self.environment, quarantine, self.pool, marking),
            FilesStore(
                files or data / "files",
                marking=marking,
                spooler=self.spooler,
                environment=self.environment,
                quarantine=quarantine,
                pool=self.pool,
            ),
            self.environment,
            marking,
        )

    async def close(self) -> None:
        """Finish what threads and commits have under way, then let go of the directory."""
        self.pool.shutdown()
        await self.environment.close()


def make_directories(data: Path, files: Path | None = None) -> None:
    """Create the parts of a data directory that blobs need, durably. Raises OSError, BadRequest."""
    files = files or data / "files"
    for path in (data / "lmdb", files, data / "tmp", data / "quarantine"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if files.stat().st_dev != data.stat().st_dev:
        raise BadRequest(
            f"{files} is on another file system than {data}",
            hint="Put both on the same one: a blob gets its place there by a rename.",
        )
    sync_directory(data)
    with contextlib.suppress(PermissionError):
        sync_directory(files.parent)
    with contextlib.suppress(PermissionError):  # the directory above may belong to someone else
        sync_directory(data.parent)
