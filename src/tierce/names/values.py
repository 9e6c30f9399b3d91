"""What the index of records keeps as values in LMDB, and how damage to them is told."""

from typing import TypeVar

import msgspec

from tierce.core.codec import decode
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt
from tierce.names.changes import Epoch
from tierce.names.record import Record

T = TypeVar("T")

NO_EPOCHS = (Epoch("0", 0),)
"""The epochs where nothing was written yet. It may have one name everywhere, as it has no numbers."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a name: the number of its last change, and the record."""

    seq: int
    record: Record


class State(msgspec.Struct, array_like=True):
    """What changes with every change. ``clock`` is the latest timestamp seen, in nanoseconds."""

    clock: int = 0
    seq: int = 0
    objects: int = 0
    tombstones: int = 0

    def count(self, record: Record, more: int) -> None:
        """Add to the number of names like this one."""
        if record.deleted:
            self.tombstones += more
        else:
            self.objects += more


def record_of(entry: Entry | None) -> Record | None:
    """The record of an entry, if there is one."""
    return None if entry is None else entry.record


def content_of(record: Record | None) -> Digest | None:
    """The blob that a record refers to, if it is in force."""
    return None if record is None or record.deleted else record.digest


def read_state(value: memoryview | None) -> State:
    """The state, which is all zero at first. Raises Corrupt."""
    return State() if value is None else _read(value, State, "state of the index")


def read_epochs(value: bytes | memoryview | None) -> tuple[Epoch, ...]:
    """The epochs, oldest first. Raises Corrupt."""
    return NO_EPOCHS if value is None else _read(value, tuple[Epoch, ...], "list of epochs")


def read_entry(value: memoryview) -> Entry:
    """An entry, whatever its name. Raises Corrupt."""
    return _read(value, Entry, "record")


def read_entry_of(value: memoryview | None, bucket: str, key: str) -> Entry | None:
    """The entry of this name, if there is one. Raises Corrupt, also for that of another name."""
    if value is None:
        return None
    entry = read_entry(value)
    if entry.record.key != key or entry.record.bucket != bucket:
        raise damaged(f"under {key[:200]!a} there is the record of {entry.record.key[:200]!a}")
    return entry


def damaged(what: str) -> Corrupt:
    """What is raised where the index contradicts itself."""
    return Corrupt(
        f"the index of names is damaged: {what}",
        hint="Stop the node and run tierce doctor on its data directory.",
    )


def _read(value: bytes | memoryview, kind: type[T], what: str) -> T:
    try:
        return decode(value, kind, what)
    except BadRequest as error:
        raise damaged(error.message) from error
