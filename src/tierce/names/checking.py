"""Whether the index of names agrees with itself, and how it is made to: for ``tierce doctor``.

Records are what counts: feed, references and counts follow from them, and can be made again. A record
that can't be read is dropped by a repair; the other nodes have it, and give it back.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

from tierce.blobs.environment import Environment, WriteBatch
from tierce.core.codec import encode
from tierce.core.errors import Corrupt
from tierce.names.keys import MENDED, is_reference, reference_key
from tierce.names.lmdb_index import FEED, NAMES, RECORDS, REFERENCES, STATE_KEY
from tierce.names.values import (
    Entry,
    State,
    content_of,
    read_entry_at,
    read_state,
    written_entry,
)

log = logging.getLogger(__name__)

_SEQ_BYTES = 8
PROBLEMS_COUNT = 1000


class Found(NamedTuple):
    """How many records there are, and what is wrong: the first PROBLEMS_COUNT findings."""

    records: int
    problems: list[str]


def examine(environment: Environment) -> Found:
    """Look at every record, and at what must be there for each. Blocks; reads one snapshot."""
    problems: list[str] = []

    def wrong(what: str) -> None:
        if len(problems) < PROBLEMS_COUNT:
            problems.append(what)

    counted = State()
    with environment.snapshot() as batch:
        for key, entry in _entries(batch):
            if entry is None:
                wrong(f"a record can't be read, or lies under another name: {key[:80]!a}")
                continue
            name = f"{entry.record.bucket}/{entry.record.key[:80]}"
            counted.count(entry.record, +1)
            counted.seq = max(counted.seq, entry.seq)
            counted.clock = max(counted.clock, entry.record.timestamp)
            place = batch.get(FEED, entry.seq.to_bytes(_SEQ_BYTES))
            if place is None or bytes(place) != key:
                wrong(f"the feed lacks the last change of {name}")
            content = content_of(entry.record)
            if content is None:
                continue
            if batch.get(REFERENCES, reference_key(content, entry.seq)) is None:
                wrong(f"the reference from the content of {name} is missing")
        records = counted.objects + counted.tombstones
        for what, keys, expected in (
            ("the feed", _keys(batch, FEED), records),
            ("the list of references", _references(batch), counted.objects),
        ):
            surplus = sum(1 for _ in keys) - expected
            if surplus > 0:
                wrong(f"{what} has {surplus} entries too many")
        try:
            kept = read_state(batch.get(NAMES, STATE_KEY))
        except Corrupt as error:
            wrong(error.message)
        else:
            if (kept.objects, kept.tombstones) != (counted.objects, counted.tombstones):
                wrong(
                    f"{kept.objects} objects and {kept.tombstones} tombstones are counted, and"
                    f" there are {counted.objects} and {counted.tombstones}"
                )
            if kept.seq < counted.seq or kept.clock < counted.clock:
                wrong("the clock or the last number is behind those of the records")
    return Found(records, problems)


def rebuild(batch: WriteBatch) -> int:
    """Make all that follows from the records again, in one transaction; drops what can't be read.

    Returns how many records were dropped. For a node that does not run.
    """
    entries: list[tuple[bytes, Entry]] = []
    unreadable: list[bytes] = []
    for key, entry in _entries(batch):
        if entry is None:
            unreadable.append(key)
        else:
            entries.append((key, entry))
    entries.sort(key=lambda pair: pair[1].seq)
    for key in unreadable:
        batch.delete(RECORDS, key)
    for key in [key for key in _keys(batch, NAMES) if key.startswith(MENDED)]:
        batch.delete(NAMES, key)  # no row is stale any more
    batch.clear(FEED)
    for key in list(_references(batch)):
        batch.delete(REFERENCES, key)
    state = State()
    try:
        kept = read_state(batch.get(NAMES, STATE_KEY))
        state.clock, state.seq = kept.clock, kept.seq
    except Corrupt as error:
        log.warning("%s; it is made anew", error.message)
    last = max((entry.seq for _, entry in entries), default=0)
    state.seq = max(state.seq, last)
    seen: set[int] = set()
    for key, entry in entries:
        seq = entry.seq
        if seq in seen:  # two records with one number: the second one counts as changed now
            state.seq += 1
            seq = state.seq
            batch.put(RECORDS, key, written_entry(Entry(seq, entry.record)))
        seen.add(seq)
        state.count(entry.record, +1)
        state.clock = max(state.clock, entry.record.timestamp)
        batch.put(FEED, seq.to_bytes(_SEQ_BYTES), key)
        content = content_of(entry.record)
        if content is not None:
            batch.put(REFERENCES, reference_key(content, seq), b"")
    batch.put(NAMES, STATE_KEY, encode(state))
    return len(unreadable)


def _entries(batch: WriteBatch) -> Iterator[tuple[bytes, Entry | None]]:
    """All keys of records, and what is there; None for what is no record of that name."""
    with batch.cursor(RECORDS) as cursor:
        for key, value in cursor:
            entry: Entry | None
            try:
                entry = read_entry_at(value, key)
            except Corrupt:
                entry = None
            yield bytes(key), entry


def _references(batch: WriteBatch) -> Iterator[bytes]:
    """The keys of all references."""
    return filter(is_reference, _keys(batch, REFERENCES))


def _keys(batch: WriteBatch, database: str) -> Iterator[bytes]:
    with batch.cursor(database) as cursor:
        for key in cursor.iternext(values=False):
            yield bytes(key)
