"""Records that are damaged: bytes that are no record, or that of another name.

Whoever reads many goes on without them, as if they were not there. So another node finds that this
one lacks the record, and sends it, and a merge puts it in the damaged one's place. Only a look at that
very name says that it is damaged. Nothing else is concluded: a blob that a damaged record may refer to
is kept.

What a damaged record was about can't be read, so when it is mended, its old row in the feed and its
old reference stay. They are *stale*: ``names`` has, for each name that was mended, the number of the
first sound change, and rows of that name with smaller numbers mean nothing. ``tierce doctor --repair``
removes them.
"""

import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

from tierce.core.errors import Corrupt
from tierce.core.limits import DAMAGED_NOTED_COUNT
from tierce.core.metrics import DAMAGED_RECORDS
from tierce.names.index import Index
from tierce.names.keys import FEED, LMDB_KEY_BYTES, NAMES, RECORDS, mended_key
from tierce.names.record import Record
from tierce.names.values import Entry, damaged, read_entry_at

log = logging.getLogger(__name__)

Get: TypeAlias = Callable[[str, bytes], memoryview | None]
"""Reads the value under a key of a database, in one transaction."""


class DamagedRecords:
    """The damaged records that a process came upon. Each is logged and counted once.

    Beyond DAMAGED_NOTED_COUNT they are passed over in silence. May be used from any thread.
    """

    def __init__(self) -> None:
        self._keys: set[bytes] = set()
        self._lock = threading.Lock()

    def note(self, key: bytes, error: Corrupt) -> None:
        """Somebody came upon the damaged record under a key of ``records``."""
        with self._lock:
            if key in self._keys or len(self._keys) >= DAMAGED_NOTED_COUNT:
                return
            self._keys.add(key)
        DAMAGED_RECORDS.inc()
        log.error("the record under %a can't be used: %s. %s", key, error.message, error.hint)

    def noted(self) -> list[bytes]:
        """The keys that were noted. Perhaps the record under one was mended since."""
        with self._lock:
            return list(self._keys)


def entry_of_change(get: Get, number: bytes) -> Entry | None:
    """The entry that the change with a number is about, or None if the number is stale.

    Raises Corrupt if its record is damaged, or if there is none with that number.
    """
    seq = int.from_bytes(number)
    found = get(FEED, number)
    if found is None:
        raise damaged(f"there is no record of change {seq}")
    key = bytes(found)
    if not is_fit(key):
        raise damaged(f"change {seq} leads to no name")
    value = get(RECORDS, key)
    entry = None if value is None else read_entry_at(value, key)
    if entry is not None and entry.seq == seq:
        return entry
    mended = get(NAMES, mended_key(key))
    if mended is not None and seq < int.from_bytes(mended):
        return None
    if entry is None:
        raise damaged(f"there is no record of change {seq}")
    raise damaged(f"change {seq} leads to a record of change {entry.seq}")


def is_fit(key: bytes) -> bool:
    """Whether LMDB can be asked for a key."""
    return 0 < len(key) <= LMDB_KEY_BYTES


def known_record(index: Index, bucket: str, key: str) -> Record | None:
    """The record of a name, where one that is damaged counts as unknown: what is heard replaces it."""
    try:
        return index.get(bucket, key)
    except Corrupt:
        return None
