"""What the index of records keeps as values in LMDB, and how damage to them is told."""

from typing import TypeVar

import msgspec
from xxhash import xxh3_64_digest

from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt
from tierce.names.changes import Epoch
from tierce.names.keys import index_key, whole_key
from tierce.names.record import Record

T = TypeVar("T")

SUM_BYTES = 8
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


def written_entry(entry: Entry) -> bytes:
    """An entry as it is kept, with a checksum behind it: LMDB has none, and a bit may flip on disk."""
    return with_sum(encode(entry))


def with_sum(value: bytes) -> bytes:
    """A value with its checksum."""
    return value + xxh3_64_digest(value)


def read_entry(value: memoryview) -> Entry:
    """An entry, whatever its name. Raises Corrupt."""
    content = value[:-SUM_BYTES]
    if xxh3_64_digest(content) != value[-SUM_BYTES:]:
        raise damaged("a record does not have its checksum")
    return _read(content, Entry, "record")


def read_entry_at(value: memoryview, key: bytes | memoryview) -> Entry:
    """The entry under a key of ``records``. Raises Corrupt, also for that of another name."""
    entry = read_entry(value)
    try:
        is_its_own = index_key(whole_key(entry.record.bucket, entry.record.key)) == key
    except BadRequest as error:
        raise damaged(error.message) from error
    if not is_its_own:
        raise damaged(f"the record of {entry.record.key[:200]!a} is under another name")
    return entry


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
        hint="Stop the node, run `tierce doctor --repair` on its data directory, and start it again:"
        " the other nodes give it the records that were dropped.",
    )


def _read(value: bytes | memoryview, kind: type[T], what: str) -> T:
    try:
        return decode(value, kind, what)
    except BadRequest as error:
        raise damaged(error.message) from error
