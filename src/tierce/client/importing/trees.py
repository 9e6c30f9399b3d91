"""The directory trees of Cask and of dtfc: a directory for each two hex digits of the hash.

They are walked in the order of the hashes, and only directories named by two digits are entered, so
that one directory's worth of names for each level is all that is held. Symbolic links are followed:
who has moved a part of a tree to another disk has its files all the same.
"""

import os
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager

from tierce.client.importing.files import FileContent, batches, check_directory, open_file
from tierce.client.importing.items import Item, Met, Passed
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.dtfc import cleaned_name
from tierce.core.errors import BadRequest
from tierce.core.wording import quoted

_DATA, _NAMES = "data", "filename"
_MARKERS = {
    "404": "it was deleted there (a marker 404 is beside it)",
    "403": "it is forbidden there (a marker 403 is beside it)",
}
_PAIR = re.compile(r"[0-9a-f]{2}", re.ASCII)
_NAMES_TAIL_BYTES = 4096

Leaf = Callable[[str, Digest], Iterator[Met]]


class CaskTree:
    """See Source. The files of a Cask node with the disk backend."""

    def __init__(self, directory: str) -> None:
        """``directory`` is the node's CASK_DISK_BACKEND_ROOT. Raises BadRequest if that is none."""
        self._root = _cask_root(directory)
        self.label = f"the Cask files in {self._root}"

    def items(self) -> AsyncGenerator[Met, None]:
        """See Source."""
        return batches(_walk(self._root, "sha1", _cask_leaf))

    def open(self, item: Item) -> AbstractAsyncContextManager[FileContent]:
        """See Source."""
        return open_file(item)


class DtfcTree:
    """See Source. The files of a dtfc program, with their last names. What is marked is passed over."""

    def __init__(self, directory: str) -> None:
        """``directory`` is the program's ``--basedir``. Raises BadRequest if it can't be read."""
        check_directory(directory)
        self._root = directory
        self.label = f"the dtfc files in {directory}"

    def items(self) -> AsyncGenerator[Met, None]:
        """See Source."""
        return batches(_walk(self._root, "sha512", _dtfc_leaf))

    def open(self, item: Item) -> AbstractAsyncContextManager[FileContent]:
        """See Source."""
        return open_file(item)


def _cask_root(directory: str) -> str:
    """The directory ``sha1``, which Cask puts where its root's text ends: without a slash, beside it."""
    plain = directory.rstrip("/")
    places = [place for place in (f"{plain}/sha1", f"{plain}sha1") if os.path.isdir(place)]
    if not places and os.path.basename(plain).endswith("sha1"):
        places = [plain]
    if len(places) > 1:
        raise BadRequest(
            f"there are two trees, {quoted(places[0])} and {quoted(places[1])}",
            hint="Cask writes to the second one if its root has no slash at the end. Import both, "
            "naming each.",
        )
    if not places:
        raise BadRequest(
            f"{quoted(directory)} has no directory sha1",
            hint="Name the directory that CASK_DISK_BACKEND_ROOT named.",
        )
    check_directory(places[0])
    return places[0]


def _walk(root: str, algorithm: str, leaf: Leaf) -> Iterator[Met]:
    digits_in_all = 2 * ALGORITHMS[algorithm].size_bytes
    waiting = [(root, "")]
    while waiting:
        folder, digits = waiting.pop()
        if len(digits) == digits_in_all:
            try:
                yield from leaf(folder, Digest(algorithm, bytes.fromhex(digits)))
            except OSError as error:
                yield _unreadable(folder, error)
            continue
        pairs = yield from _pairs(folder)
        waiting += [(f"{folder}/{pair}", digits + pair) for pair in sorted(pairs, reverse=True)]


def _pairs(folder: str) -> Generator[Met, None, list[str]]:
    """The names of the directories to enter next; yields what else is there."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _PAIR.fullmatch(entry.name):
                    yield _foreign(entry.path)
                elif entry.is_dir():
                    found.append(entry.name)
                elif entry.is_symlink():
                    yield Passed(entry.path, "the link leads to no directory", is_failure=True)
                else:
                    yield _foreign(entry.path)
    except OSError as error:
        yield _unreadable(folder, error)
    return found


def _cask_leaf(folder: str, digest: Digest) -> Iterator[Met]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == _DATA:
                yield Item(entry.path, digest)
            else:
                yield _foreign(entry.path)


def _dtfc_leaf(folder: str, digest: Digest) -> Iterator[Met]:
    names = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in (_DATA, _NAMES, *_MARKERS):
                names.add(entry.name)
            else:
                yield _foreign(entry.path)
    if _DATA not in names:
        return  # a name was learned and no file, or something was deleted that was never there
    path = f"{folder}/{_DATA}"
    for marker, reason in _MARKERS.items():
        if marker in names:
            yield Passed(path, reason)
            return
    name = _last_line(f"{folder}/{_NAMES}") if _NAMES in names else ""
    yield Item(path, digest, name=cleaned_name(name))


def _last_line(path: str) -> str:
    """The name that counts: the last line that is not blank. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _NAMES_TAIL_BYTES))
        lines = file.read(_NAMES_TAIL_BYTES).decode("utf-8", "replace").split("\n")
    names = [each.strip() for each in lines if each.strip()]
    return names[-1] if names else ""


def _foreign(path: str) -> Passed:
    return Passed(path, "it is none of the store's files")


def _unreadable(path: str, error: OSError) -> Passed:
    return Passed(path, f"it can't be read: {error.strerror}", is_failure=True)
