"""The node's LMDB environment, and group commit: many writers, one transaction, one sync.

Each process gathers the writes that arrive while a commit is under way, its own or another process's:
LMDB lets one process write at a time, by a lock that survives the death of its holder. A thread waits
for its turn, and only then takes all that has gathered into one transaction. A writer is answered after
the commit that holds its own write.

LMDB runs in its synchronous mode, always: a commit that returned is on disk. Values read from it
are copied before their transaction ends. The environment is never carried over a fork.
"""

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import lmdb

from tierce.blobs.quarantine import sync_directory
from tierce.blobs.store import Counts
from tierce.core.errors import Corrupt, Full, TierceError, Unavailable, from_os_error
from tierce.core.limits import (
    BATCH_LIMIT_BYTES,
    BATCH_LIMIT_WRITES,
    LMDB_MAP_BYTES,
    LMDB_READERS,
)
from tierce.core.metrics import COMMIT_SECONDS, COMMIT_WRITES, COMMITS

log = logging.getLogger(__name__)

T = TypeVar("T")
Transaction: TypeAlias = "lmdb.Transaction[memoryview]"

BLOBS = "blobs"
COUNTS = "counts"
LOOSE = "loose"
_DATABASES = (BLOBS, COUNTS, LOOSE)
_COUNTS_VERSION = 1
_METADATA_PAGES = 2


class WriteBatch:
    """The transaction that a change is applied in. Only valid while the change runs."""

    def __init__(self, transaction: Transaction, databases: dict[str, Any]) -> None:
        self._transaction = transaction
        self._databases = databases
        self._counted: dict[str, list[int]] = {}
        self._held: dict[str, Any] = {}
        self._at_end: dict[str, Callable[[], None]] = {}

    def get(self, database: str, key: bytes) -> memoryview | None:
        """A value, valid until the next write."""
        return self._transaction.get(key, db=self._databases[database])

    def add(self, database: str, key: bytes, value: bytes) -> bool:
        """Put a value where there is none; False, and nothing is changed, if there is one."""
        return self._transaction.put(key, value, overwrite=False, db=self._databases[database])

    def put(self, database: str, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value, db=self._databases[database])

    def delete(self, database: str, key: bytes) -> bool:
        return self._transaction.delete(key, db=self._databases[database])

    def clear(self, database: str) -> None:
        """Remove all that a database holds."""
        self._transaction.drop(self._databases[database], delete=False)

    def cursor(self, database: str) -> Any:
        """A cursor, to be used, and closed, while the change runs."""
        return self._transaction.cursor(db=self._databases[database])

    def count(self, kind: str, blobs: int, size: int) -> None:
        """Add to the counts of a kind of store; written once, when the batch ends."""
        counted = self._counted.setdefault(kind, [0, 0])
        counted[0] += blobs
        counted[1] += size

    def set_counts(self, kind: str, counts: Counts) -> None:
        """Overwrite the counts of a kind of store, after a recount."""
        self._counted.pop(kind, None)
        self.put(COUNTS, kind.encode(), _counts_value(counts))

    def once(self, name: str, load: Callable[[], T]) -> T:
        """What ``load`` gave the first change of this batch that asked under this name.

        For what each change reads and changes: one that fails must leave it as it was.
        """
        if name not in self._held:
            self._held[name] = load()
        held: T = self._held[name]
        return held

    def at_end(self, name: str, write: Callable[[], None]) -> bool:
        """Have something written once, when the batch ends; False if that was asked for already."""
        is_first = name not in self._at_end
        if is_first:
            self._at_end[name] = write
        return is_first

    def end(self) -> None:
        """Write what is written once for all changes. No change comes after it."""
        for write in self._at_end.values():
            write()
        for kind, more in self._counted.items():
            blobs, size = _counts_of(self.get(COUNTS, kind.encode())) + Counts(*more)
            # Counts that are off, after a crash or damage, must not fail the changes in this batch.
            counts = Counts(max(0, blobs), max(0, size))
            self.put(COUNTS, kind.encode(), _counts_value(counts))


class _Write(NamedTuple):
    change: Callable[[WriteBatch], Any]
    size: int
    done: asyncio.Future[Any] | None


class Environment:
    """One process's handle on ``<data>/lmdb``. Reads from any thread, writes from one event loop.

    ``databases`` are the names of those that layers above keep here, beside the blobs'.
    """

    def __init__(
        self,
        directory: Path,
        *,
        databases: Sequence[str] = (),
        map_bytes: int = LMDB_MAP_BYTES,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        try:
            self._lmdb = lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=16,
                max_readers=LMDB_READERS,
                max_spare_txns=8,
                readahead=False,
                meminit=False,
            )
            names = dict.fromkeys((*_DATABASES, *databases))
            self._databases = {name: self._lmdb.open_db(name.encode()) for name in names}
            # A process that was killed leaves its reader's slot, which would pin old pages.
            self._lmdb.reader_check()
            sync_directory(directory)  # LMDB syncs its file, but not the name of a new one
        except lmdb.Error as error:
            raise _translate(error, self._directory) from error
        self._on_broken = on_broken
        self._waiting: deque[_Write] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def read(self) -> AbstractContextManager[Transaction]:
        """A snapshot to read from. Copy values out before it ends, and end it soon."""
        return self._lmdb.begin(buffers=True)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[WriteBatch]:
        """As :meth:`read`, for what looks at a batch; nothing can be written to it."""
        with self.read() as transaction:
            yield WriteBatch(transaction, self._databases)

    def database(self, name: str) -> Any:
        """The handle of a database, for cursors and gets in a read transaction."""
        return self._databases[name]

    def submit(self, change: Callable[[WriteBatch], T], size: int = 0) -> asyncio.Future[T]:
        """Put a change in line; the future is done once it is committed and synced.

        ``change`` runs in another thread, after changes submitted before it. It either raises a
        TierceError before its first write, or succeeds; ``size`` is about what it writes, in
        bytes. Cancelling the future does not undo the change.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._commit_forever, args=(loop,), name="commit", daemon=True
            )
            self._thread.start()
        assert not self._closing, "a change came after the end"
        self._waiting.append(_Write(change, size, done))
        if not self._wake.is_set():  # it costs a lock, and the thread looks again once it is woken
            self._wake.set()
        return done

    async def write(self, change: Callable[[WriteBatch], T], size: int = 0) -> T:
        """Apply a change and return its result, once it is committed and synced (see submit)."""
        return await self.submit(change, size)

    def write_here(self, change: Callable[[WriteBatch], T]) -> T:
        """As :meth:`write`, in a commit of its own, in a thread that is no event loop's.

        Blocks. The thread may hold a lock while it waits, as long as no change waits for that.
        """
        _, (result,) = self._commit(lambda: [_Write(change, 0, None)])
        if isinstance(result, TierceError):
            raise result
        applied: T = result
        return applied

    def counts(self, kind: str) -> Counts:
        with self.read() as transaction:
            return _counts_of(transaction.get(kind.encode(), db=self._databases[COUNTS]))

    def free_bytes(self) -> int:
        """About how much can be written into pages that were freed, before the file must grow."""
        with self.read() as transaction:
            used = _METADATA_PAGES
            for database in (None, *self._databases.values()):
                stat = transaction.stat(database) if database else self._lmdb.stat()
                used += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        allocated = self._lmdb.info()["last_pgno"] + 1
        return max(0, allocated - used) * int(stat["psize"])

    def reader_check(self) -> int:
        """Free the reader slots of processes that died. Returns how many there were."""
        return self._lmdb.reader_check()

    async def close(self) -> None:
        """Commit what was submitted, then close."""
        if self._thread is not None:
            self._closing = True
            self._wake.set()
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)  # what the thread delivered last is on its way
        self._lmdb.close()

    def _commit_forever(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: commit what is waiting, as long as there is something, then wait for more."""
        while not self._closing or self._waiting:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                writes, results = self._commit(self._next_batch)
                loop.call_soon_threadsafe(_deliver, writes, results)

    def _next_batch(self) -> list[_Write]:
        batch: list[_Write] = []
        size = 0
        while self._waiting and len(batch) < BATCH_LIMIT_WRITES and size < BATCH_LIMIT_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        return batch

    def _commit(self, take: Callable[[], list[_Write]]) -> tuple[list[_Write], list[Any]]:
        """Commit what ``take`` gives once it is this process's turn; each write with its result."""
        writes: list[_Write] = []
        results: list[Any] = []
        try:
            with self._lmdb.begin(write=True, buffers=True) as transaction:
                started = time.perf_counter()
                writes = take()
                batch = WriteBatch(transaction, self._databases)
                for write in writes:
                    try:
                        results.append(write.change(batch))
                    except TierceError as error:
                        results.append(error)
                batch.end()
        except lmdb.Error as error:
            failed = self._failed(error)
            writes = writes or take()
            return writes, [type(failed)(failed.message, hint=failed.hint) for _ in writes]
        except Exception as error:
            # A mistake in one change must not leave the others waiting for ever.
            log.exception("a batch of changes failed")
            return writes, [Unavailable(f"the index failed: {error}") for _ in writes]
        COMMITS.inc()
        COMMIT_WRITES.observe(len(results))
        COMMIT_SECONDS.observe(time.perf_counter() - started)
        return writes, results

    def _failed(self, error: lmdb.Error) -> TierceError:
        """Log why a commit failed; returns what its writers are told."""
        ours = _translate(error, self._directory)
        if isinstance(ours, Full):
            log.warning("a commit failed: %s", error)
        else:
            log.error("a commit failed", exc_info=error)
        if isinstance(error, (lmdb.PanicError, lmdb.CorruptedError, lmdb.PageNotFoundError)):
            self._on_broken()
        return ours


def _deliver(writes: list[_Write], results: list[Any]) -> None:
    """On the event loop: tell each writer what became of its change."""
    for write, result in zip(writes, results, strict=True):
        if write.done is None or write.done.done():
            continue
        if isinstance(result, TierceError):
            write.done.set_exception(result)
        else:
            write.done.set_result(result)


def has_database(directory: Path, name: str) -> bool:
    """Whether there is an index with such a database. Not for a process that has it open."""
    if not (directory / "data.mdb").exists():
        return False
    try:
        with (
            lmdb.open(str(directory), readonly=True) as found,
            found.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            return bool(cursor.set_key(name.encode()))
    except lmdb.Error as error:
        raise _translate(error, directory) from error


def allocate_lock_file(directory: Path) -> None:
    """Give LMDB's lock file all of its blocks. For a process that has not opened the environment.

    The file is sparse and mapped into memory, so a process that takes one more reader's slot could
    be killed by a full disk. Closing it here would drop the locks of a process that has it open.
    """
    with contextlib.suppress(OSError), (directory / "lock.mdb").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _translate(error: lmdb.Error, directory: Path) -> TierceError:
    if isinstance(error, lmdb.MapFullError):
        return Full("the index has reached its largest size", hint="Use another node.")
    if error.code == errno.ENOSPC or (error.code == errno.EIO and _nearly_full(directory)):
        return from_os_error(OSError(errno.ENOSPC, "no space"), "writing the index")
    if isinstance(
        error,
        (lmdb.PanicError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError),
    ):
        return Corrupt(
            f"the index is damaged: {error}",
            hint="Stop the node and run tierce doctor on its data directory.",
        )
    return Unavailable(f"the index failed: {error}", hint="Look at the node's log, then try again.")


def _nearly_full(directory: Path) -> bool:
    """LMDB reports a write cut short, which is what a full disk does, as an input/output error."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize < BATCH_LIMIT_BYTES


def _counts_value(counts: Counts) -> bytes:
    return bytes([_COUNTS_VERSION]) + counts.blobs.to_bytes(8) + counts.bytes.to_bytes(8)


def _counts_of(value: memoryview | None) -> Counts:
    if value is None:
        return Counts(0, 0)
    if value[0] != _COUNTS_VERSION:
        raise Corrupt(f"counts of unknown version {value[0]}", hint="Run tierce doctor --repair.")
    return Counts(int.from_bytes(value[1:9]), int.from_bytes(value[9:17]))
