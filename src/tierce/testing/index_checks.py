"""Observes an index of records on disk from outside, and says whether it agrees with itself."""

from tierce.blobs.environment import Environment
from tierce.core.codec import encode
from tierce.names.keys import index_key, is_reference, reference_key, whole_key
from tierce.names.lmdb_index import FEED, NAMES, RECORDS, REFERENCES
from tierce.names.values import State, read_entry, read_state

LMDB_KEY_BYTES = 511


def rows(environment: Environment, database: str) -> dict[bytes, bytes]:
    """All that a database holds."""
    with (
        environment.read() as transaction,
        transaction.cursor(db=environment.database(database)) as cursor,
    ):
        return {bytes(key): bytes(value) for key, value in cursor}


def check_whole(environment: Environment) -> None:
    """Assert that what the databases of the index say of each other is true."""
    entries = {
        key: read_entry(memoryview(value)) for key, value in rows(environment, RECORDS).items()
    }
    feed = {int.from_bytes(seq): key for seq, key in rows(environment, FEED).items()}
    assert feed == {entry.seq: key for key, entry in entries.items()}
    in_force = [entry for entry in entries.values() if not entry.record.deleted]
    assert set(filter(is_reference, rows(environment, REFERENCES))) == {
        reference_key(entry.record.digest, entry.seq)
        for entry in in_force
        if entry.record.digest is not None
    }
    state = read_state(memoryview(rows(environment, NAMES).get(b"state", encode(State()))))
    assert (state.objects, state.tombstones) == (len(in_force), len(entries) - len(in_force))
    assert state.seq >= max(feed, default=0)
    assert state.clock >= max((e.record.timestamp for e in entries.values()), default=0)
    for key, entry in entries.items():
        assert key == index_key(whole_key(entry.record.bucket, entry.record.key))
        assert len(key) <= LMDB_KEY_BYTES
