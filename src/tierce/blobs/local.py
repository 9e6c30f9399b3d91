"""The store of a disk: small blobs packed, large ones in files, as one BlobStore.

A spool decides which by holding its body in memory or in a file. The border may be moved by a
setting between two starts, so a blob may be found on either side, or on both.
"""

import contextlib
import heapq
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from tierce.blobs.environment import Environment
from tierce.blobs.files import FilesStore
from tierce.blobs.packed import PackedStore
from tierce.blobs.quarantine import Quarantine, sync_directory
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobInfo, Counts, OpenBlob
from tierce.core.digest import Digest
from tierce.core.errors import NotFound
from tierce.core.limits import BLOB_LIMIT_BYTES, DISK_THREADS, PACK_LIMIT_BYTES


class LocalStore:
    """A packed store and a files store under one contract."""

    def __init__(self, packed: PackedStore, files: FilesStore) -> None:
        self.packed = packed
        self.files = files

    async def put(self, spool: Spool) -> bool:
        store = self.packed if spool.path is None else self.files
        return await store.put(spool)

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
        packed = await self.packed.delete(digest)
        return await self.files.delete(digest) or packed

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        packed = await self.packed.list_after(after, limit)
        files = await self.files.list_after(after, limit)
        merged: list[BlobInfo] = []
        for info in heapq.merge(packed, files):
            if not merged or merged[-1].digest != info.digest:
                merged.append(info)
        return merged[:limit]

    async def counts(self) -> Counts:
        return await self.packed.counts() + await self.files.counts()


class Disk:
    """Everything that a data directory's blobs need, opened together and closed together."""

    def __init__(
        self,
        data: Path,
        *,
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
        self.store = LocalStore(
            PackedStore(self.environment, quarantine, self.pool),
            FilesStore(
                data / "files",
                spooler=self.spooler,
                environment=self.environment,
                quarantine=quarantine,
                pool=self.pool,
            ),
        )

    async def close(self) -> None:
        """Finish what threads and commits have under way, then let go of the directory."""
        self.pool.shutdown()
        await self.environment.close()


def make_directories(data: Path) -> None:
    """Create the parts of a data directory that blobs need, durably. Raises OSError."""
    for name in ("lmdb", "files", "tmp", "quarantine"):
        (data / name).mkdir(parents=True, exist_ok=True)
    sync_directory(data)
    with contextlib.suppress(PermissionError):  # the directory above may belong to someone else
        sync_directory(data.parent)
