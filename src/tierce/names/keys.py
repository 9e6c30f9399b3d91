"""How names become keys of LMDB, which holds 511 bytes of key, and what can be named at all.

A record's key is its bucket, a zero byte, and its own key. Of a long one the first INDEX_KEY_BYTES
bytes are kept, and a hash of the whole stands behind them. So keys sort as names do, but for those
that share all the bytes kept: they stand side by side, a group, in the order of their hashes, and
whoever lists names sorts each group.

A reference stands beside its blob, in the same database (blobs/packed.py).
"""

from blake3 import blake3

from tierce.blobs.environment import BLOBS
from tierce.blobs.marks import key_of
from tierce.blobs.packed import row_of
from tierce.core.codec import encode
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import BadRequest
from tierce.core.limits import (
    BUCKET_BYTES,
    INDEX_KEY_BYTES,
    OBJECT_KEY_BYTES,
    TIMESTAMP_LIMIT_NANOSECONDS,
)
from tierce.names.record import Record

RECORDS = "records"
FEED = "feed"
REFERENCES = BLOBS
NAMES = "names"

LMDB_KEY_BYTES = 511
HASH_BYTES = 16
SEQ_BYTES = 8
SEQ_MAX = (1 << 8 * SEQ_BYTES) - 1
_END = b"\0"
_REFERENCE = b"/"
MENDED = b"mended/"


def whole_key(bucket: str, key: str) -> bytes:
    """A name in full: such bytes sort by bucket, then by key. Raises BadRequest for no UTF-8."""
    try:
        return bucket.encode() + _END + key.encode()
    except UnicodeEncodeError:
        raise BadRequest(
            f"{bucket[:80]!a} and {key[:200]!a} can't be written as UTF-8",
            hint="Encode the name as UTF-8, then escape it.",
        ) from None


def index_key(whole: bytes) -> bytes:
    """The key of a name in LMDB, from the name in full."""
    kept = seek_key(whole)
    return whole if len(kept) == len(whole) else kept + blake3(whole).digest(length=HASH_BYTES)


def seek_key(whole: bytes) -> bytes:
    """Where to look for a name and those that come after it: the first key of its group."""
    return whole[: _kept_bytes(whole)]


def group_of(key: bytes) -> bytes | None:
    """What all keys of a key's group in LMDB begin with; None for one that is a name in full.

    None, too, for what is no name, as damage can make it.
    """
    if _END not in key:
        return None
    kept = _kept_bytes(key)
    return key[:kept] if len(key) >= kept else None


def feed_key(seq: int) -> bytes:
    """The key of a change in the feed, from its number: such bytes sort as numbers do."""
    return seq.to_bytes(SEQ_BYTES)


def reference_key(digest: Digest, seq: int) -> bytes:
    """The key of a reference from a blob to the record whose last change has this number."""
    return references_of(digest) + feed_key(seq)


def references_of(digest: Digest) -> bytes:
    """What the keys of all references from a blob begin with, and no others."""
    return key_of(digest) + _REFERENCE


def is_reference(key: bytes) -> bool:
    """Whether a key is that of a reference, and not of a blob or its mark."""
    row = row_of(key)
    return row is not None and row.more.startswith(_REFERENCE)


def mended_key(key: bytes) -> bytes:
    """Where ``names`` notes the number from which on the record under a key is sound (damage.py)."""
    return MENDED + blake3(key).digest(length=HASH_BYTES)


def check_holdable(record: Record) -> bytes:
    """Raise BadRequest for a record that an index can't hold, whoever it comes from.

    A change must not fail between its writes, so all that can be wrong is found here. Returns the
    name in full (whole_key).
    """
    whole = whole_key(record.bucket, record.key)
    wrong = _wrong(record, whole)
    if wrong:
        raise _refused(record, wrong)
    return whole


def check_timestamp(record: Record) -> None:
    """Raise BadRequest for a record that an index can't hold only because of its new timestamp."""
    if not 0 <= record.timestamp < TIMESTAMP_LIMIT_NANOSECONDS:
        raise _refused(record, f"its time is {record.timestamp} ns")


def _refused(record: Record, wrong: str) -> BadRequest:
    return BadRequest(
        f"the record of {record.key[:200]!a} in {record.bucket[:80]!a} can't be kept: {wrong}",
        hint="Correct the request. If it came from another node, look at that node's log.",
    )


def _wrong(record: Record, whole: bytes) -> str:
    bucket_bytes = whole.index(_END)
    key_bytes = len(whole) - bucket_bytes - len(_END)
    if not 0 < bucket_bytes <= BUCKET_BYTES or not 0 < key_bytes <= OBJECT_KEY_BYTES:
        return "its name is empty or too long"
    if whole.count(_END) > 1:
        return "there is a zero byte in its name"
    if not 0 <= record.timestamp < TIMESTAMP_LIMIT_NANOSECONDS:
        return f"its time is {record.timestamp} ns"
    if record.digest is not None:
        algorithm = ALGORITHMS.get(record.digest.algorithm)
        if algorithm is None or len(record.digest.raw) != algorithm.size_bytes:
            return "its digest is none that is known here"
    try:
        encode(record)
    except (UnicodeEncodeError, OverflowError) as error:
        return str(error)
    return ""


def _kept_bytes(whole: bytes) -> int:
    return whole.index(_END) + len(_END) + INDEX_KEY_BYTES
