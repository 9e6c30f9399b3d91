"""Large blobs, a file each: ``files/<algorithm>/<2 hex>/<2 hex>/<hex>``, in the layout of layout.py.

A file appears under its name whole and synced, by a link or rename from ``tmp/``, and its directory
is synced before anyone is told. It never changes afterwards; it is only replaced by a good copy,
moved to quarantine, or deleted. Whoever puts a file in place holds its directory's lock shared;
whoever moves a bad one away holds it alone, so that a good copy just put is never the one moved; and
so does whoever removes one, until its mark is gone too, so that no file appears in between without one.
"""

import asyncio
import errno
import fcntl
import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from tierce.blobs import layout
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.file_reading import FileBlob, Finding, OpenFile
from tierce.blobs.marks import Marking, claim, claim_all, is_managed, key_of, managed_of
from tierce.blobs.placing import link, locked, replace
from tierce.blobs.quarantine import Quarantine, sync_directory
from tierce.blobs.spool import Spool, Spooler
from tierce.blobs.store import BlobInfo, Counts, ProvedByReading
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, from_os_error
from tierce.core.limits import PIECE_BYTES

log = logging.getLogger(__name__)

KIND = "files"
T = TypeVar("T")


class FilesStore(ProvedByReading):
    """A BlobStore of files under one directory. Blocking work runs in ``pool``."""

    def __init__(
        self,
        directory: Path,
        *,
        spooler: Spooler,
        environment: Environment,
        quarantine: Quarantine,
        pool: Executor,
        marking: Marking | None = None,
    ) -> None:
        self._marking = marking or Marking()
        self._marking.places.append(self.has_in)
        self._directory = directory
        self._root = str(directory)
        self._spooler = spooler
        self._environment = environment
        self._quarantine = quarantine
        self._pool = pool
        self._durable_directories: set[Path] = set()

    async def put(self, spool: Spool, *, managed: bool | None = False) -> bool:
        if spool.path is None:
            return await self._put_from_memory(spool, managed)
        path, digest = spool.path, spool.digest
        if managed:
            await self._mark(digest)
        elif managed is False:
            await claim_all(self._environment, [digest])
        # Whoever gives up waiting must not leave the blob uncounted.
        return await asyncio.shield(self._put_and_count(path, digest, spool.size, managed))

    async def _put_and_count(
        self, path: Path, digest: Digest, size: int, managed: bool | None
    ) -> bool:
        is_marked = managed is True

        def take_over() -> bool | None:
            return self._take_over(path, digest, is_marked)

        while (created := await self._in_thread(take_over, "storing a blob")) is None:
            await self._mark(digest)

        def change(batch: WriteBatch) -> None:
            if created:
                batch.count(KIND, 1, size)
            if managed is False:
                self._marking.put(batch, digest, False)

        await self._environment.write(change)
        if managed is False and not await self._stays(digest, as_claimed=True):
            # It was collected between the link and the claim; now it can't be any more. Claimed anew
            # with it: a managed put may have found no blob meanwhile, and put its own, with a mark.
            return await self._put_and_count(path, digest, size, False)
        return created

    async def _mark(self, digest: Digest) -> None:
        """Mark a blob as managed that is about to be put."""
        await self._environment.write(lambda batch: self._marking.put(batch, digest, True))

    async def keep(self, spool: Spool) -> None:
        """Put a blob again if it is gone, now that a record refers to it: see LocalStore.put_along."""
        if not await self._stays(spool.digest):
            await self.put(spool, managed=True)

    async def _stays(self, digest: Digest, *, as_claimed: bool = False) -> bool:
        """Whether a blob is there, once nobody is any more just about to remove it.

        ``as_claimed``: and has no mark, with which somebody may remove it later.
        """

        def look() -> bool:
            try:
                with (
                    locked(self._path(digest).parent, fcntl.LOCK_SH),
                    self._environment.snapshot() as batch,
                ):
                    if as_claimed and is_managed(batch, key_of(digest)):
                        return False
                    return self._size(digest) is not None
            except FileNotFoundError:
                return False

        return await self._in_thread(look, "looking for a blob")

    def has_in(self, batch: WriteBatch, digest: Digest) -> bool:
        """Whether a blob is here. The transaction only says when: no file appears unmarked later."""
        return self._size(digest) is not None

    async def open(self, digest: Digest) -> FileBlob:
        # Most look-ups of a cluster's node find nothing, and a thread costs more than looking does.
        try:
            self._stat(digest)
        except OSError as error:
            raise from_os_error(error, "reading a blob") from error
        file = await self._in_thread(
            lambda: OpenFile.open(self._path(digest), digest), "reading a blob"
        )
        blob = FileBlob(file, self._pool, self._quarantine_bad)
        if blob.damaged:
            # Closed only afterwards: its inode number must not come to stand for another file.
            await self._quarantine_bad(file)
            await blob.aclose()
            raise NotFound(f"the copy of {digest} here was bad", found_bad=True)
        return blob

    async def stat(self, digest: Digest) -> int:
        size = await self._in_thread(lambda: self._size(digest), "looking for a blob")
        if size is None:
            raise NotFound(f"{digest} is not here")
        return size

    async def sizes(self, digests: Sequence[Digest]) -> list[int | None]:
        return await self._in_thread(
            lambda: [self._size(digest) for digest in digests], "looking for blobs"
        )

    async def verify(self, digest: Digest, *, repair: bool) -> int:
        file = await self._in_thread(
            lambda: OpenFile.open(self._path(digest), digest), "reading a blob"
        )
        try:
            finding = await self._in_thread(file.examine, "verifying a blob")
            if finding is Finding.TABLE_DAMAGED and repair:
                await self._rewrite(file)
            elif finding is not Finding.GOOD:
                if repair:
                    await self._quarantine_bad(file)
                raise Corrupt(
                    f"the copy of {digest} is damaged: {finding.value}",
                    hint="Run tierce doctor --repair, and put the blob again from a good copy.",
                )
            return file.size
        finally:
            file.close()

    async def delete(self, digest: Digest) -> bool:
        def unmark(batch: WriteBatch, size: int | None) -> None:
            claim(batch, key_of(digest))

        return await self.remove_if(digest, lambda: True, unmark) is not None

    async def remove_if(
        self,
        digest: Digest,
        is_wanted_gone: Callable[[], bool],
        finish: Callable[[WriteBatch, int | None], None],
    ) -> int | None:
        """Remove a blob if, while nobody can put it, that is still wanted; its size in bytes.

        None if no file was removed. ``finish`` is told the same, and is the change that goes with
        it in the index, as that of the mark: it is applied before anyone can put the blob again.
        Not if the blob stays, and not where there is no directory that could have it.
        """

        def remove() -> int | None:
            try:
                with locked(self._path(digest).parent, fcntl.LOCK_EX):
                    if not is_wanted_gone():
                        return None
                    size = self._unlink(digest)

                    def change(batch: WriteBatch) -> None:
                        if size is not None:
                            batch.count(KIND, -1, -size)
                        finish(batch, size)

                    self._environment.write_here(change)
                    return size
            except FileNotFoundError:
                return None

        return await self._in_thread(remove, "deleting a blob")

    def _unlink(self, digest: Digest) -> int | None:
        """Remove a file, durably; its content's size in bytes, or None if there was none."""
        path = self._path(digest)
        try:
            size = layout.content_bytes(path.stat().st_size) or 0
            path.unlink()
        except FileNotFoundError:
            return None
        sync_directory(path.parent)
        return size

    async def claim(self, digests: Sequence[Digest]) -> None:
        await claim_all(self._environment, digests)

    def managed(self, digests: Sequence[Digest]) -> list[bool]:
        return managed_of(self._environment, digests)

    async def list_after(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        return await self._in_thread(lambda: self._list(after, limit), "listing blobs")

    async def counts(self) -> Counts:
        return self._environment.counts(KIND)

    async def set_counts(self, counts: Counts) -> None:
        """Replace the counts by those of a full walk."""
        await self._environment.write(lambda batch: batch.set_counts(KIND, counts))

    async def _put_from_memory(self, small: Spool, managed: bool | None) -> bool:
        """A body small enough for memory still gets a file here, by way of a spool that writes one."""
        assert small.data is not None
        spool = self._spooler.new(small.digest.algorithm, memory_limit_bytes=-1)
        try:
            await spool.write(small.data)
            await spool.finish()
            return await self.put(spool, managed=managed)
        finally:
            await spool.discard()

    async def _rewrite(self, file: OpenFile) -> None:
        """Put a good content whose checksum table is damaged again, with a new table."""
        spool = self._spooler.new(file.digest.algorithm, memory_limit_bytes=-1)
        try:
            for start in range(0, file.size, PIECE_BYTES):
                length = min(PIECE_BYTES, file.size - start)
                piece = functools.partial(file.read, start, length)
                await spool.write(await self._in_thread(piece, "reading a blob"))
            if await spool.finish() == file.digest:
                await self.put(spool, managed=None)
                log.warning("the checksum table of %s was made anew", file.digest)
        finally:
            await spool.discard()

    def _take_over(self, spooled: Path, digest: Digest, is_marked: bool) -> bool | None:
        """Give a synced file its name. A link tells, once for all, who was first.

        None, and nothing is done, if the mark that it must have was removed meanwhile.
        """
        path = self._path(digest)
        self._make_durable(path.parent)
        with locked(path.parent, fcntl.LOCK_SH) as directory:
            if is_marked:
                with self._environment.snapshot() as batch:
                    if self._marking.was_lost(batch, digest):
                        return None
            created = link(spooled, path)
            if not created:
                # Ours is known to be good, and what lies there, if anything, may not be.
                created = not path.exists()
                replace(spooled, path)
            os.fsync(directory)
        return created

    def _make_durable(self, directory: Path) -> None:
        """Create ``files/<algorithm>/<2 hex>/<2 hex>`` and sync what holds its name."""
        if directory in self._durable_directories:
            return
        directory.mkdir(parents=True, exist_ok=True)
        parent = directory.parent
        while parent != self._directory.parent:
            sync_directory(parent)
            parent = parent.parent
        self._durable_directories.add(directory)

    async def _quarantine_bad(self, file: OpenFile) -> None:
        """Move a bad file away, if it is still the one under its name."""

        def move() -> bool:
            path = self._path(file.digest)
            with locked(path.parent, fcntl.LOCK_EX):
                try:
                    if path.stat().st_ino != file.inode:
                        return False
                except FileNotFoundError:
                    return False
                self._quarantine.take_file(file.digest, path)
                return True

        try:
            moved = await self._in_thread(move, "moving a bad copy to quarantine")
        except TierceError:
            # It stays where it is, and is found bad again by whoever reads it.
            log.exception("the bad copy of %s could not be moved to quarantine", file.digest)
            return
        if moved:
            self._count(-1, -file.size)

    def _count(self, blobs: int, size: int) -> None:
        """Counts ride along with the next commit; nobody waits for them."""
        write = self._environment.submit(lambda batch: batch.count(KIND, blobs, size))
        write.add_done_callback(_log_failure)

    def _list(self, after: Digest | None, limit: int) -> list[BlobInfo]:
        found: list[BlobInfo] = []
        for digest in self._digests(after):
            try:
                size = layout.content_bytes(self._stat(digest).st_size)
            except NotFound:
                continue
            found.append(BlobInfo(digest, size or 0))
            if len(found) == limit:
                break
        return found

    def _digests(self, after: Digest | None) -> Iterator[Digest]:
        """Names in digest order. Only directories that can hold something after ``after`` are read."""
        for algorithm in sorted(ALGORITHMS):
            if after is not None and algorithm < after.algorithm:
                continue
            low = after.hex if after is not None and algorithm == after.algorithm else ""
            root = self._directory / algorithm
            for first in _names(root, 2, low[:2]):
                below = low if first == low[:2] else ""
                for second in _names(root / first, 2, below[2:4]):
                    edge = below if second == below[2:4] else ""
                    size = 2 * ALGORITHMS[algorithm].size_bytes
                    for name in _names(root / first / second, size, edge):
                        if name != edge and name.startswith(first + second):
                            yield Digest(algorithm, bytes.fromhex(name))

    def _path(self, digest: Digest) -> Path:
        name = digest.hex
        return self._directory / digest.algorithm / name[:2] / name[2:4] / name

    def _size(self, digest: Digest) -> int | None:
        try:
            return layout.content_bytes(os.stat(self._name(digest)).st_size)
        except FileNotFoundError:
            return None

    def _stat(self, digest: Digest) -> os.stat_result:
        try:
            return os.stat(self._name(digest))
        except FileNotFoundError:
            raise NotFound(f"{digest} is not here") from None

    def _name(self, digest: Digest) -> str:
        """As _path does, without building one: this is done for every blob that is not here."""
        name = digest.raw.hex()
        return f"{self._root}/{digest.algorithm}/{name[:2]}/{name[2:4]}/{name}"

    async def _in_thread(self, work: Callable[[], T], doing: str) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            raise from_os_error(error, doing) from error


def _names(directory: Path, length: int, at_least: str) -> list[str]:
    """The hex names of one length in a directory, sorted, from ``at_least`` on."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise
    hexadecimal = frozenset("0123456789abcdef")
    return sorted(
        name
        for name in names
        if len(name) == length and name >= at_least and hexadecimal.issuperset(name)
    )


def _log_failure(write: asyncio.Future[None]) -> None:
    if not write.cancelled() and write.exception() is not None:
        log.error("the counts of files are off until a recount: %s", write.exception())
