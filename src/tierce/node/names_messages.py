"""What nodes say to each other about records: messages and their answers, and how they are checked.

Each message goes to a path of its own. ``to`` is the id of the node that is meant: another one may
have taken over its address. Nothing that comes from a peer is trusted to be well-formed: a record
that was checked here can be merged into an index.
"""

from collections.abc import Sequence

import msgspec

from tierce.cluster.sync import Bound, Mark, Summary
from tierce.core.errors import BadRequest
from tierce.core.limits import (
    BUCKET_BYTES,
    METADATA_IN_RECORD_BYTES,
    NAME_BYTES,
    NODE_ID_BYTES,
    NUMBER_MAX,
    OBJECT_KEY_BYTES,
    RANGES_IN_MESSAGE,
)
from tierce.names.changes import Position
from tierce.names.keys import check_holdable
from tierce.names.record import FULL, NO_LEVEL, Record

NAMES = "/names/"
PUSH = "/names/push"
PULL = "/names/pull"
RANGES = "/names/ranges"
RANGE = "/names/range"

_HINT = "Run the same version on both nodes."


class PushRequest(msgspec.Struct, array_like=True):
    """Merge these."""

    records: list[Record]
    to: str = ""


class PushAnswer(msgspec.Struct, array_like=True):
    """For each record whether it was new, once all are durable."""

    merged: list[bool]


class PullRequest(msgspec.Struct, array_like=True):
    """The changes of your feed after a position, or from the start, please; up to ``limit``.

    ``reader`` is the id of the node that asks: all up to ``position`` is durable there.
    """

    position: Position | None
    limit: int
    reader: str = ""
    to: str = ""


class PullAnswer(msgspec.Struct, array_like=True):
    """The records, in the order of their changes, and the position to ask from next time.

    ``last`` is the number of the feed's last change. ``more``: there is more now. ``restarted``: the
    position was unknown, so this is from the start.
    """

    records: list[Record]
    position: Position
    last: int
    more: bool = False
    restarted: bool = False


class RangesRequest(msgspec.Struct, array_like=True):
    """What do you have in these ranges, in short? Tombstones older than ``horizon`` don't count.

    The first range begins after ``lower``, each other one where the one before it ends, with the
    name in ``uppers``. None: no end; only the last may have none. ``horizon`` is in nanoseconds.
    """

    lower: Bound | None
    uppers: list[Bound | None]
    horizon: int
    to: str = ""


class RangesAnswer(msgspec.Struct, array_like=True):
    """For each range what is in it."""

    summaries: list[Summary]


class RangeRequest(msgspec.Struct, array_like=True):
    """The records of a range, please, that are newer than what is ``known`` or not in there."""

    lower: Bound | None
    upper: Bound | None
    known: list[Mark]
    horizon: int
    to: str = ""


class RangeAnswer(msgspec.Struct, array_like=True):
    """Those records, up to the name ``looked_to``; None: up to the end of the range."""

    records: list[Record]
    looked_to: Bound | None = None


def check_record(record: Record) -> None:
    """Raise BadRequest unless a record can be one that a node wrote, and that an index can hold."""
    check_holdable(record)
    check_node_id(record.node)
    _check_text("name", record.name, NAME_BYTES)
    _check_text("content type", record.content_type, NAME_BYTES)
    metadata = "".join([*record.metadata, *record.metadata.values()])
    _check_text("metadata", metadata, METADATA_IN_RECORD_BYTES)
    if not 0 <= record.size <= NUMBER_MAX or not 0 <= record.modified <= NUMBER_MAX:
        raise BadRequest(
            f"a record of {record.size} bytes, changed at {record.modified} ns", hint=_HINT
        )
    if not NO_LEVEL <= record.level <= FULL:
        raise BadRequest(f"a record of level {record.level}", hint=_HINT)
    if record.deleted != (record.digest is None):
        what = "tombstone with a" if record.deleted else "record without a"
        raise BadRequest(f"a {what} digest", hint=_HINT)


def check_node_id(node_id: str) -> None:
    """Raise BadRequest for what can't be the id of a node."""
    _check_text("node", node_id, NODE_ID_BYTES)


def check_count(what: str, count: int, most: int, *, at_least: int = 0) -> None:
    """Raise BadRequest unless a message has so many of something as it may."""
    if not at_least <= count <= most:
        raise BadRequest(
            f"a message with {count} {what}; it may be {at_least} to {most}", hint=_HINT
        )


def check_bound(bound: Bound | None) -> None:
    """Raise BadRequest for what can't be a name."""
    if bound is not None:
        _check_text("bucket", bound[0], BUCKET_BYTES, at_least=1)
        _check_text("key", bound[1], OBJECT_KEY_BYTES, at_least=1)


def check_bounds(lower: Bound | None, uppers: Sequence[Bound | None]) -> None:
    """Raise BadRequest unless these are ranges that follow each other."""
    check_count("ranges", len(uppers), RANGES_IN_MESSAGE, at_least=1)
    check_bound(lower)
    for number, upper in enumerate(uppers):
        check_bound(upper)
        if upper is None and number < len(uppers) - 1:
            raise BadRequest("a range without an end is not the last one", hint=_HINT)
        if upper is not None and lower is not None and upper <= lower:
            raise BadRequest("ranges are not in order", hint=_HINT)
        lower = upper


def check_position(position: Position) -> None:
    """Raise BadRequest for what can't be a position in a feed."""
    Position.parse(str(position))


def _check_text(what: str, text: str, most_bytes: int, *, at_least: int = 0) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"a {what} that is no UTF-8", hint=_HINT) from None
    if not at_least <= size <= most_bytes:
        raise BadRequest(
            f"a {what} of {size} bytes; it may have {at_least} to {most_bytes}", hint=_HINT
        )
