"""The directories of a read cache: a shelf for each process of the node, and any process reads all.

A process has a shelf while it holds the lock of the kernel on the file ``lock`` in it, so the shelf of
one that died is free at once, and whoever takes it finds what is there by listing it. Only the holder
writes to a shelf; anyone may remove from it. Nothing here is synced, and nothing is believed: a reader
verifies what it read.

A file's name below its shelf is its key; a large blob has a directory with a file for each piece. Who
reads a file marks it as used, by a time of access that is later than that of its content. So the holder
knows what others have read, and the next holder what was. All of this blocks, so it belongs into a
thread.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tierce.core.digest import Digest
from tierce.core.limits import STORE_CACHE_BLOCK_BYTES

log = logging.getLogger(__name__)

LOCK = "lock"
INCOMING = "incoming"
# At least; clocks may be set back.
LATER_NS = 1000
_IN_THE_WAY = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


class Place(NamedTuple):
    """Where bytes may be: ``length`` of them in the file ``name``; None is all from ``start`` on."""

    name: str
    start: int = 0
    length: int | None = None


class Cached(NamedTuple):
    """A file of a shelf: its name, what it takes on the disk, and when it was written or used."""

    name: str
    size: int
    used_ns: int


class Tally(NamedTuple):
    """What processes say of their shelves: bytes that are cached, and how often they read them."""

    size_bytes: int = 0
    hits: int = 0
    misses: int = 0


def name_of(digest: Digest) -> str:
    """What a blob is called on a shelf."""
    return f"{digest.algorithm}-{digest.hex}"


def room_of(size: int) -> int:
    """What a file of so many bytes takes on the disk: whole blocks."""
    return -(-size // STORE_CACHE_BLOCK_BYTES) * STORE_CACHE_BLOCK_BYTES


class Shelves:
    """All shelves of a node, numbered from 0."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count

    def read(
        self, places: Sequence[Place], fits: Callable[[bytes], bool], own: int | None
    ) -> tuple[bytes, str, int] | None:
        """The first bytes that fit, with their file's name and shelf. Removes files that don't fit."""
        for place in places:
            for number in self._numbers(own):
                path = self._path(number, place.name)
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue
                with open(fd, "rb", buffering=0):
                    data = _read(fd, place, fits)
                if data is not None:
                    return data, place.name, number
                _remove(path)
        return None

    def has(self, name: str, *, but: int) -> bool:
        """Whether a file is on any of the shelves, but for one of them."""
        return any(
            os.path.exists(self._path(each, name)) for each in self._numbers() if each != but
        )

    def drop(self, names: Iterable[str], own: int | None) -> list[str]:
        """Remove blobs from all shelves; returns the names of files that were on one's own."""
        removed = []
        for name in names:
            for number in self._numbers():
                path = self._path(number, name)
                if number == own:
                    removed += [name, *(each.name for each in _listed(path, f"{name}/"))]
                _remove(path)
        return removed

    def take(self) -> "Shelf | None":
        """A shelf that nobody holds, if there is one. Raises OSError."""
        for number in self._numbers():
            shelf = Shelf.take(self._directory / str(number), number)
            if shelf is not None:
                return shelf
        return None

    def told(self) -> Tally:
        """The sum of what is told of each."""
        tallies = [_told(Path(self._path(number, LOCK))) for number in self._numbers()]
        return Tally(*map(sum, zip(*tallies, strict=True)))

    def _numbers(self, first: int | None = None) -> Iterator[int]:
        if first is not None:
            yield first
        yield from (each for each in range(self._count) if each != first)

    def _path(self, number: int, name: str) -> str:
        return f"{self._directory}/{number}/{name}"


class Shelf:
    """A shelf that this process holds, until it is closed. Its methods raise OSError."""

    def __init__(self, directory: Path, number: int, lock: int) -> None:
        self.number = number
        self._directory = directory
        self._lock = lock

    @classmethod
    def take(cls, directory: Path, number: int) -> "Shelf | None":
        """Hold a shelf; None if another process does."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return cls(directory, number, lock)

    def close(self) -> None:
        """Let another process have it, with all that is there."""
        os.close(self._lock)

    def listing(self) -> list[Cached]:
        """What is there, the one used longest ago first. Removes what was half written, or is empty."""
        (self._directory / INCOMING).unlink(missing_ok=True)
        for each in self._directory.iterdir():
            with contextlib.suppress(OSError):  # it is a file, or has some
                each.rmdir()
        found = _listed(str(self._directory), "")
        return sorted((each for each in found if each.name != LOCK), key=lambda each: each.used_ns)

    def write(self, name: str, data: bytes) -> bool:
        """Add a file; False if a blob was dropped meanwhile. The name is there with all its bytes."""
        if not self._is_current():
            raise OSError(errno.ESTALE, "the directory was removed", str(self._directory))
        incoming, path = self._directory / INCOMING, self._directory / name
        incoming.unlink(missing_ok=True)
        fd = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                incoming.rename(path)
            except _IN_THE_WAY:
                incoming.unlink(missing_ok=True)
                return False
        except OSError:
            incoming.unlink(missing_ok=True)
            raise
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            path = self._directory / name
            path.unlink(missing_ok=True)
            if path.parent != self._directory:
                with contextlib.suppress(OSError):  # another piece of the blob is there
                    path.parent.rmdir()

    def remove_unused(self, names: Sequence[str]) -> list[Cached]:
        """Remove those files that nobody has used since this was asked last; returns the others."""
        used = []
        for name in names:
            path = self._directory / name
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if stat.st_atime_ns > stat.st_mtime_ns:
                _mark(path, is_used=False)
                used.append(_cached(name, stat))
            else:
                self.remove([name])
        return used

    def tell(self, tally: Tally) -> None:
        """Let all processes know how it goes."""
        os.pwrite(self._lock, b"%20d %20d %20d\n" % tally, 0)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock), os.stat(self._directory / LOCK))
        except FileNotFoundError:
            return False


def sweep(directory: Path, count: int) -> None:
    """Before any process has a shelf: remove all but the first ``count``."""
    try:
        found = list(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:  # a node can do without it
        log.warning("%s can't be used as a cache: %s", directory, error.strerror)
        return
    for each in found:
        if not each.name.isdecimal() or int(each.name) >= count:
            _remove(str(each))


def _told(path: Path) -> Tally:
    try:
        return Tally(*map(int, path.read_bytes().split()))
    except (OSError, ValueError, TypeError):
        return Tally()  # nobody has had this shelf yet


def _read(fd: int, place: Place, fits: Callable[[bytes], bool]) -> bytes | None:
    """Bytes that fit, or None."""
    try:
        stat = os.fstat(fd)
        length = stat.st_size - place.start if place.length is None else place.length
        data = os.pread(fd, max(0, length), place.start)
    except OSError:
        return None
    if not fits(data):
        return None
    if stat.st_atime_ns <= stat.st_mtime_ns:
        with contextlib.suppress(OSError):  # then its holder does not know, no more
            _mark(fd, is_used=True)
    return data


def _mark(file: int | Path, *, is_used: bool) -> None:
    written = os.stat(file).st_mtime_ns
    used = max(time.time_ns(), written + LATER_NS) if is_used else written
    os.utime(file, ns=(used, written))


def _listed(directory: str, prefix: str) -> list[Cached]:
    """The files below, without those that go meanwhile; none if it is no directory."""
    found = []
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                found += _listed(entry.path, f"{prefix}{entry.name}/")
            else:
                found.append(_cached(prefix + entry.name, entry.stat(follow_symlinks=False)))
    return found


def _cached(name: str, stat: os.stat_result) -> Cached:
    return Cached(name, room_of(stat.st_size), max(stat.st_atime_ns, stat.st_mtime_ns))


def _remove(path: str) -> None:
    """Remove a file or directory, as far as the disk lets us: nothing depends on it."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return
