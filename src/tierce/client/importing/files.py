"""Files of a local disk as content to import, and what the sources on disks share."""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager

from tierce.client.importing.items import Item, Met, SourceTrouble
from tierce.client.uploads import LocalFile, read_or_open
from tierce.core.errors import BadRequest
from tierce.core.limits import MIB
from tierce.core.wording import quoted

READ_BYTES = 1 * MIB
# One hop to a thread finds so many; they are all that is held.
_FOUND_AT_ONCE = 64


class FileContent:
    """See Content. Made by :func:`open_file`."""

    def __init__(self, path: str, before: os.stat_result, opened: bytes | LocalFile) -> None:
        self._path = path
        self._before = before
        self._file = None if isinstance(opened, bytes) else opened
        self.data = opened if isinstance(opened, bytes) else None
        self.size = before.st_size if self.data is None else len(self.data)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """See Content."""
        assert self._file is not None, "small files are in memory"
        for offset in range(0, self.size, READ_BYTES):
            wanted = min(READ_BYTES, self.size - offset)
            try:
                piece = await asyncio.to_thread(self._file.read_at, offset, wanted)
            except OSError as error:
                raise _unreadable(error) from error
            yield piece

    async def has_changed(self) -> bool:
        """See Content."""
        try:
            now = await asyncio.to_thread(os.stat, self._path)
        except OSError:
            return True
        return _stamp(now) != _stamp(self._before)

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()


@asynccontextmanager
async def open_file(item: Item) -> AsyncIterator[FileContent]:
    """Open the file of an item. Raises SourceTrouble."""
    try:
        content = await asyncio.to_thread(_opened, item.place)
    except FileNotFoundError as error:
        raise SourceTrouble("it is gone: something removed it meanwhile") from error
    except OSError as error:
        raise _unreadable(error) from error
    except BadRequest as error:
        raise SourceTrouble(error.message) from error
    try:
        yield content
    finally:
        content.close()


async def batches(found: Iterator[Met]) -> AsyncGenerator[Met, None]:
    """What a walk over a disk finds, a few at a time in a thread."""
    while batch := await asyncio.to_thread(lambda: [*itertools.islice(found, _FOUND_AT_ONCE)]):
        for each in batch:
            yield each


def check_directory(path: str) -> None:
    """Raise BadRequest for what is no directory that can be read."""
    try:
        with os.scandir(path):
            return
    except OSError as error:
        raise BadRequest(
            f"{quoted(path)} can't be read: {error.strerror}",
            hint="Name the directory that the files are in.",
        ) from error


def _opened(path: str) -> FileContent:
    before = os.stat(path)
    return FileContent(path, before, read_or_open(path))


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(error: OSError) -> SourceTrouble:
    return SourceTrouble(f"it can't be read: {error.strerror or error}")
