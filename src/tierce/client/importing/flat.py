"""The directory of an SOS blob server: a file for each id, and beside it the headers that came with it.

It may be of either generation. The newer one keeps the ``X-`` headers of an id in ``ID.json``; in the
older one that may be an object of its own, so it counts as headers only beside a file ID, and if it
holds nothing else. A directory can't be read in order without holding all its names, so this one is
read as the disk gives it.
"""

import os
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from tierce.client.importing.files import FileContent, batches, check_directory, open_file
from tierce.client.importing.items import Item, Met, Passed
from tierce.client.sos import metadata_of
from tierce.core.digest import Digest
from tierce.core.limits import KIB

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}", re.ASCII)
_SHA1 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SUFFIX = ".json"
_METADATA_BYTES = 64 * KIB


class SosDirectory:
    """See Source. Ids that are no SHA-1 have no digest to be held against."""

    def __init__(self, directory: str) -> None:
        """Raises BadRequest for what is no directory that can be read."""
        check_directory(directory)
        self._root = directory.rstrip("/") or "/"
        self.label = f"the SOS objects in {directory}"

    def items(self) -> AsyncGenerator[Met, None]:
        """See Source."""
        return batches(_found(self._root))

    def open(self, item: Item) -> AbstractAsyncContextManager[FileContent]:
        """See Source."""
        return open_file(item)


def _found(root: str) -> Iterator[Met]:
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                met = _met(root, entry)
                if met is not None:
                    yield met
    except OSError as error:
        yield Passed(root, f"it can't be read: {error.strerror}", is_failure=True)


def _met(root: str, entry: os.DirEntry[str]) -> Met | None:
    """What an entry is; None for headers, which go with their file."""
    name = entry.name
    try:
        if not _ID.fullmatch(name) or not entry.is_file():
            return Passed(entry.path, "it is none of the store's files")
        stem = name.removesuffix(_SUFFIX)
        if stem != name and os.path.isfile(f"{root}/{stem}") and _headers(entry.path) is not None:
            return None
        headers = _headers(entry.path + _SUFFIX)
    except OSError as error:
        return Passed(entry.path, f"it can't be read: {error.strerror}", is_failure=True)
    digest = Digest.parse(f"sha1:{name}") if _SHA1.fullmatch(name) else None
    return Item(entry.path, digest, key=name, metadata=metadata_of(headers or {}))


def _headers(path: str) -> Mapping[str, str] | None:
    """The headers in a file; None for one that is not there, or holds something else."""
    try:
        with open(path, "rb") as file:
            text = file.read(_METADATA_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.DecodeError:
        return None
    is_headers = all(name.lower().startswith("x-") for name in found)
    return found if found and is_headers else None
