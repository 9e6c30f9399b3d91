"""The directory tree of a dtfc program: markers that an operator puts there by hand, and its files.

Each hash has a directory, of 64 levels with two hex digits each, and in it the files ``data``,
``filename`` (a name a line, the last one counts), and the markers ``403`` and ``404``, of which only
the existence counts.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tierce.blobs.spool import read_at
from tierce.core.digest import Digest
from tierce.core.dtfc import NAME_CHARACTERS
from tierce.core.errors import Corrupt, NotFound, Unavailable, from_os_error
from tierce.core.limits import PIECE_BYTES
from tierce.node.dtfc_source import Head

FORBIDDEN, GONE = "403", "404"
_NAMES_TAIL_BYTES = 4096


class TreeFile(NamedTuple):
    """What the tree says of a file: its name, as the program wrote it, and its size in bytes."""

    name: str
    size: int


class Tree:
    """The tree below a directory. Nothing in it is ever changed."""

    def __init__(self, base: Path, pool: Executor) -> None:
        self._base = base
        self._pool = pool
        self.label = f"the files of dtfc below {base}"

    def has_directory(self, digest: Digest) -> bool:
        """Whether a hash has a directory; without it, it has neither markers nor a file, as most that
        are served. Raises as :meth:`has_marker` does.
        """
        # Most nodes have no such tree, and a short path that is not there costs least.
        first = f"{self._base}/{digest.raw[:1].hex()}"
        return (
            os.access(first, os.F_OK, follow_symlinks=False) and self._look(digest, "") is not None
        )

    def has_marker(self, digest: Digest, marker: str) -> bool:
        """Whether a hash has a marker, 403 or 404. Raises Unavailable or Corrupt if that can't be told:
        what may be forbidden is not served.
        """
        return self._look(digest, marker) is not None

    def has(self, digest: Digest) -> bool:
        """Whether the file of a hash is in the tree. Raises as :meth:`has_marker` does."""
        found = self._look(digest, "data")
        return found is not None and stat.S_ISREG(found.st_mode)

    async def find(self, digest: Digest) -> TreeFile | None:
        """What the tree says of a file, None if it is not there. Raises as :meth:`has_marker` does."""
        found = self._look(digest, "data")
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return TreeFile(await self._name(digest), found.st_size)

    @asynccontextmanager
    async def open(self, digest: Digest, start: int = 0) -> AsyncIterator[Head]:
        """Open a file from ``start`` on. Raises NotFound, or Unavailable, also midway."""
        if not self.has(digest):
            raise NotFound(f"{digest} is not in {self.label}")
        path = f"{self._directory(digest)}/data"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"{path} can't be read: {error.strerror}") from error
        try:
            size = os.fstat(fd).st_size
            pieces = self._pieces(fd, start, size)
            try:
                yield Head(size, start, await self._name(digest), pieces)
            finally:
                await pieces.aclose()
        finally:
            os.close(fd)

    async def _name(self, digest: Digest) -> str:
        path = Path(self._directory(digest), "filename")
        return await asyncio.get_running_loop().run_in_executor(self._pool, _last_line, path)

    def _look(self, digest: Digest, name: str) -> os.stat_result | None:
        path = f"{self._directory(digest)}/{name}"
        try:
            return os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise from_os_error(error, f"looking for {path}") from error

    async def _pieces(self, fd: int, start: int, size: int) -> AsyncGenerator[bytes, None]:
        for position in range(start, size, PIECE_BYTES):
            length = min(PIECE_BYTES, size - position)
            try:
                yield await read_at(self._pool, fd, length, position)
            except Corrupt as error:  # another source may have it whole
                raise Unavailable(error.message, hint=error.hint) from error

    def _directory(self, digest: Digest) -> str:
        return f"{self._base}/{digest.raw.hex('/')}"


def _last_line(path: Path) -> str:
    try:
        if not path.is_file():  # to open a pipe would wait for who writes to it
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _NAMES_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""  # a file without a name is served without one
    names = [each.strip() for each in lines if each.strip()]
    return names[-1][-NAME_CHARACTERS:] if names else ""
