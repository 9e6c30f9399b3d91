"""What a bucket holds for this node, as rows of the index: a blob is here if its row is.

So stat, listing, marks, collection and eviction are transactions, as for packed blobs; only bytes are
the service's. A row appears after the object, and goes before it. In between:

- An *intent* says that somebody is uploading an object. While there is one, nobody deletes the object.
- A *leftover* is an object that no row needs any more, or perhaps needs, after an upload that failed.
  It is deleted by whoever comes first to do so. An upload of the same blob may begin all the same, and
  ends it.
- It is *going* once a request to delete it may have been sent. An upload waits then: a deletion that the
  network held up must not remove what was put after it. If nobody knows whether such a request is
  still under way, it stays so until a time when it can't be any more.

The databases: ``cloud`` has a row for each blob, ``cloud-sums`` the checksums of large ones as in the
table of a file (layout.py), ``cloud-work`` the rest. docs/disk-format.md describes them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.marks import key_of
from tierce.blobs.packed import row_of
from tierce.blobs.store import BlobInfo
from tierce.cloud.telling import tag_of
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt

CLOUD = "cloud"
CLOUD_SUMS = "cloud-sums"
CLOUD_WORK = "cloud-work"
CLOUD_DATABASES = (CLOUD, CLOUD_SUMS, CLOUD_WORK)
KIND = "cloud"

_VERSION = 1
_ROW_VERSION = 2
_INTENT = b"intent/"
_LEFT = b"left/"
_META = b"meta/"
_WAITING = 0
_GOING = 1
_TOKEN_BYTES = 16


class Row(NamedTuple):
    """A blob: size in bytes, when its object was put in milliseconds since 1970.

    ``tag`` is what the service tells of the object while its content is the one that was verified
    (cloud_proof.py); empty if that is not known. ``proved`` is when it was verified, as ``put``.
    """

    size: int
    put: int
    tag: str
    proved: int


class Left(NamedTuple):
    """A leftover. ``until`` is when it may be forgotten at the earliest, milliseconds since 1970.

    ``is_bad``: its content is bad, and is set aside before it is deleted.
    """

    is_going: bool
    is_bad: bool
    until: int


def token(pid: int, serial: int) -> bytes:
    """The name of an intent of a process."""
    return pid.to_bytes(8) + serial.to_bytes(8)


def row_in(batch: WriteBatch, digest: Digest) -> Row | None:
    """A blob's row. Raises Corrupt for one that can't be read."""
    value = batch.get(CLOUD, key_of(digest))
    return None if value is None else _row(bytes(value))


def same_in(batch: WriteBatch, digest: Digest, row: Row) -> bool:
    """Whether a blob's object is the one of ``row``: it was not removed or put again since.

    What is known of it may have changed.
    """
    now = row_in(batch, digest)
    return now is not None and (now.size, now.put) == (row.size, row.put)


def prove_in(batch: WriteBatch, digest: Digest, row: Row, tag: str, proved: int) -> None:
    """Write down how the object of ``row`` is known again, if it is still that one."""
    if same_in(batch, digest, row):
        batch.put(CLOUD, key_of(digest), _value(row._replace(tag=tag, proved=proved)))


def has_in(batch: WriteBatch, digest: Digest) -> bool:
    """Whether a blob is here, in the eyes of a transaction."""
    return batch.get(CLOUD, key_of(digest)) is not None


def sums_in(batch: WriteBatch, digest: Digest) -> bytes | None:
    """The checksums of a large blob's chunks, if they are known."""
    value = batch.get(CLOUD_SUMS, key_of(digest))
    return None if value is None or value[0] != _VERSION else bytes(value[1:])


def set_sums_in(batch: WriteBatch, digest: Digest, sums: bytes) -> None:
    """Write down checksums, if the blob is here."""
    if has_in(batch, digest):
        batch.put(CLOUD_SUMS, key_of(digest), bytes([_VERSION]) + sums)


def begin_in(batch: WriteBatch, digest: Digest, name: bytes) -> bool:
    """Register an upload; False, and nothing is done, while the object is going."""
    left = left_in(batch, digest)
    if left is not None and left.is_going:
        return False
    batch.put(CLOUD_WORK, _INTENT + key_of(digest) + name, b"")
    return True


def put_in(
    batch: WriteBatch, digest: Digest, row: Row, sums: bytes | None, name: bytes | None
) -> bool:
    """The object is there: write its row and end the upload ``name``; True if there was no row."""
    key = key_of(digest)
    before = row_in(batch, digest)
    batch.put(CLOUD, key, _value(row))
    if before is None:
        batch.count(KIND, 1, row.size)
    elif before.size != row.size:
        batch.count(KIND, 0, row.size - before.size)
    if sums:
        batch.put(CLOUD_SUMS, key, bytes([_VERSION]) + sums)
    else:
        batch.delete(CLOUD_SUMS, key)
    if name is not None:
        batch.delete(CLOUD_WORK, _INTENT + key + name)
    batch.delete(CLOUD_WORK, _LEFT + key)
    return before is None


def abandon_in(batch: WriteBatch, digest: Digest, name: bytes, until: int) -> None:
    """An upload failed, and perhaps there is an object all the same, or will be before ``until``."""
    key = key_of(digest)
    was_begun = batch.delete(CLOUD_WORK, _INTENT + key + name)
    if was_begun and not has_in(batch, digest):
        left = left_in(batch, digest) or Left(False, False, 0)
        _leave(batch, key, left._replace(until=max(until, left.until)))


def remove_in(batch: WriteBatch, digest: Digest, *, is_bad: bool = False) -> Row | None:
    """A blob is here no more: remove its row, and leave its object over. None if there was no row."""
    row = lose_in(batch, digest)
    if row is not None:
        _leave(batch, key_of(digest), Left(False, is_bad, 0))
    return row


def lose_in(batch: WriteBatch, digest: Digest) -> Row | None:
    """A blob's object is missing: remove its row. None if there was no row.

    Nothing is left over to be deleted: should the object turn up again, it may be the only copy.
    """
    row = row_in(batch, digest)
    if row is None:
        return None
    key = key_of(digest)
    batch.delete(CLOUD, key)
    batch.delete(CLOUD_SUMS, key)
    batch.count(KIND, -1, -row.size)
    return row


def left_in(batch: WriteBatch, digest: Digest) -> Left | None:
    """What is known of a blob's object as a leftover."""
    value = batch.get(CLOUD_WORK, _LEFT + key_of(digest))
    return None if value is None else _left(bytes(value))


def go_in(batch: WriteBatch, digest: Digest, until: int) -> Left | None:
    """A request to delete a leftover is about to be sent: what was known of it until now.

    None if it must not be: nothing is left over, or somebody is uploading it. The request may be
    carried out before ``until``. No time that was written down earlier is later, if not by a clock
    that was set back since.
    """
    key = key_of(digest)
    left = left_in(batch, digest)
    if left is None or has_in(batch, digest) or (not left.is_going and _has_intent(batch, key)):
        return None
    _leave(batch, key, Left(True, left.is_bad, until))
    return left._replace(until=min(until, left.until))


def unanswered_in(batch: WriteBatch, digest: Digest, until: int) -> None:
    """The request got no answer, and may be carried out before ``until``, as is known now."""
    left = left_in(batch, digest)
    if left is not None and left.is_going:
        _leave(batch, key_of(digest), left._replace(until=until))


def gone_in(batch: WriteBatch, digest: Digest, before: Left, now: int) -> bool:
    """The request was answered; True if the object is gone for good, and the leftover with it.

    ``before`` is what go_in gave: until its time an earlier request may still be under way, to delete
    the object or to put it, and it is deleted once more then.
    """
    key = key_of(digest)
    if before.until > now:
        _leave(batch, key, before)
        return False
    batch.delete(CLOUD_WORK, _LEFT + key)
    return True


def leftovers_in(batch: WriteBatch, after: Digest | None, limit: int) -> list[Digest]:
    """Leftovers in digest order, after one of them."""
    start = _LEFT if after is None else _LEFT + key_of(after) + b"\0"
    found = []
    for key in _keys(batch, _LEFT, start):
        row = row_of(key)
        if row is not None:
            found.append(row.digest)
        if len(found) == limit:
            break
    return found


def dead_uploads_in(
    batch: WriteBatch, is_dead: Callable[[int], bool]
) -> list[tuple[Digest, bytes]]:
    """The uploads of processes that are no more, by digest and name. ``is_dead`` is asked of each."""
    found = []
    for key in _keys(batch, _INTENT, _INTENT):
        row = row_of(key)
        if (
            row is not None
            and len(row.more) == _TOKEN_BYTES
            and is_dead(int.from_bytes(row.more[:8]))
        ):
            found.append((row.digest, row.more))
    return found


def is_uploaded_in(batch: WriteBatch, digest: Digest) -> bool:
    """Whether somebody is uploading a blob."""
    return _has_intent(batch, key_of(digest))


def is_known_in(batch: WriteBatch, digest: Digest) -> bool:
    """Whether a blob is here, was deleted lately, or is being put."""
    return (
        has_in(batch, digest) or left_in(batch, digest) is not None or is_uploaded_in(batch, digest)
    )


def meta_in(batch: WriteBatch, name: str) -> str | None:
    """A fact about the catalogue as a whole."""
    value = batch.get(CLOUD_WORK, _META + name.encode())
    return None if value is None else bytes(value).decode()


def set_meta_in(batch: WriteBatch, name: str, value: str) -> None:
    """Write such a fact down."""
    batch.put(CLOUD_WORK, _META + name.encode(), value.encode())


def listed(environment: Environment, after: Digest | None, limit: int) -> list[BlobInfo]:
    """Blobs in digest order. Blocks."""
    found: list[BlobInfo] = []
    with environment.snapshot() as batch, batch.cursor(CLOUD) as cursor:
        more = cursor.first() if after is None else cursor.set_range(key_of(after) + b"\0")
        while more and len(found) < limit:
            row = row_of(bytes(cursor.key()))
            if row is not None and not row.more:
                found.append(BlobInfo(row.digest, _row(bytes(cursor.value())).size))
            more = cursor.next()
    return found


def _has_intent(batch: WriteBatch, key: bytes) -> bool:
    return next(_keys(batch, _INTENT + key, _INTENT + key), None) is not None


def _keys(batch: WriteBatch, prefix: bytes, start: bytes) -> Iterator[bytes]:
    """The keys of ``cloud-work`` with a prefix, without its first word, from ``start`` on."""
    word = prefix.index(b"/") + 1
    with batch.cursor(CLOUD_WORK) as cursor:
        more = cursor.set_range(start)
        while more and (key := bytes(cursor.key())).startswith(prefix):
            yield key[word:]
            more = cursor.next()


def _leave(batch: WriteBatch, key: bytes, left: Left) -> None:
    flags = _GOING if left.is_going else _WAITING
    value = bytes([_VERSION, flags, left.is_bad]) + left.until.to_bytes(8)
    batch.put(CLOUD_WORK, _LEFT + key, value)


def _left(value: bytes) -> Left:
    if value[0] != _VERSION:
        raise _unknown(value[0])
    return Left(value[1] == _GOING, bool(value[2]), int.from_bytes(value[3:11]))


def _value(row: Row) -> bytes:
    numbers = row.size.to_bytes(8) + row.put.to_bytes(8) + row.proved.to_bytes(8)
    return bytes([_ROW_VERSION]) + numbers + row.tag.encode()


def _row(value: bytes) -> Row:
    size, put = int.from_bytes(value[1:9]), int.from_bytes(value[9:17])
    if value[0] == _VERSION:
        # It has the tag as the service quoted it, and was verified when it was put.
        return Row(size, put, tag_of(value[17:].decode()), put)
    if value[0] != _ROW_VERSION:
        raise _unknown(value[0])
    return Row(size, put, value[25:].decode(), int.from_bytes(value[17:25]))


def _unknown(version: int) -> Corrupt:
    return Corrupt(
        f"the catalogue of the cloud has a row of unknown version {version}",
        hint="Use the version of Tierce that wrote it, or a newer one.",
    )
