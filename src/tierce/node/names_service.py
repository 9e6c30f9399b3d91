"""What this node answers to other nodes about records: merge, its feed, and what is in ranges.

Each answer is bounded in records and bytes, and reads a bounded part of the index: whoever wants more
asks again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tierce.cluster.sync import (
    TOO_MANY,
    Bound,
    Summary,
    fitting,
    is_news,
    lacking,
    mark_of,
    summarize,
)
from tierce.core.codec import decode, encode
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import (
    DAY_NANOSECONDS,
    PULL_RECORDS,
    PUSH_RECORDS,
    RANGE_READ_RECORDS,
    RANGE_RECORDS,
    READERS_COUNT,
    SYNC_MESSAGE_BYTES,
    TOMBSTONE_DAYS,
)
from tierce.names.changes import Position, resume
from tierce.names.damage import known_record
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node import names_messages as messages

Handler = Callable[[bytes], Awaitable[bytes]]

_YIELD_RECORDS = 200


async def merge_heard(index: Index, records: Sequence[Record], horizon: int) -> list[bool]:
    """Merge checked records from a peer; for each whether that changed anything. Durable.

    What is known already is left out beforehand: it needs no transaction, and most of what is
    pulled was pushed before. So are tombstones older than ``horizon`` (nanoseconds since 1970) of
    names that are not known (cluster/sync.py says why). A record that is damaged here is not known.
    """
    news = []
    for number, record in enumerate(records):
        if number % _YIELD_RECORDS == _YIELD_RECORDS - 1:
            await asyncio.sleep(0)
        if is_news(known_record(index, record.bucket, record.key), record, horizon):
            news.append(number)
    changed = [False] * len(records)
    if news:
        merged = await index.merge([records[number] for number in news])
        for number, is_changed in zip(news, merged, strict=True):
            changed[number] = is_changed
    return changed


class NamesService:
    """The answers of a node. ``more`` has those to further messages, by path.

    ``readers`` tells how far each node has read this one's feed, as it said itself when it asked
    last; those whose position was unknown are not in there.
    """

    def __init__(
        self,
        index: Index,
        *,
        node_id: str,
        more: Mapping[str, Handler] | None = None,
        tombstone_days: float = TOMBSTONE_DAYS,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._index = index
        self._node_id = node_id
        self._tombstone_nanoseconds = int(tombstone_days * DAY_NANOSECONDS)
        self._now_ns = now_ns
        self._handlers: dict[str, Handler] = {
            messages.PUSH: self._push,
            messages.PULL: self._pull,
            messages.RANGES: self._ranges,
            messages.RANGE: self._range,
            **(more or {}),
        }
        self.readers: dict[str, Position] = {}

    async def exchange(self, path: str, body: bytes) -> bytes:
        """Answer a message. Raises BadRequest, Unavailable, and what the index does."""
        handler = self._handlers.get(path)
        if handler is None:
            raise NotFound(
                f"{path[:80]!a} is no message", hint="Run the same version on both nodes."
            )
        return await handler(body)

    def check_meant(self, node_id: str) -> None:
        """Raise Unavailable if another node is meant, whose address this one has now."""
        if node_id not in ("", self._node_id):
            raise Unavailable(
                f"this is {self._node_id}, and {node_id[:80]} is meant",
                hint="Wait until the nodes have found out, or forget the old one.",
            )

    async def _push(self, body: bytes) -> bytes:
        request = decode(body, messages.PushRequest, "message")
        self.check_meant(request.to)
        messages.check_count("records", len(request.records), PUSH_RECORDS)
        for record in request.records:
            messages.check_record(record)
        horizon = self._now_ns() - self._tombstone_nanoseconds
        return encode(messages.PushAnswer(await merge_heard(self._index, request.records, horizon)))

    async def _pull(self, body: bytes) -> bytes:
        request = decode(body, messages.PullRequest, "message")
        self.check_meant(request.to)
        messages.check_count("records", request.limit, PULL_RECORDS, at_least=1)
        messages.check_node_id(request.reader)
        position = request.position
        epochs = self._index.epochs()
        # Taken first: all changes up to here are among those that are read next.
        last = self._index.last_seq()
        since = None
        if position is not None:
            messages.check_position(position)
            since = resume(epochs, last, position)
        self._note_reader(request.reader, position if since is not None else None)
        changes = await self._index.changes(since or 0, request.limit)
        sent = changes[: fitting([each.record for each in changes], SYNC_MESSAGE_BYTES)]
        more = len(sent) < len(changes) or len(changes) == request.limit
        seq = sent[-1].seq if sent else since or 0
        if not more:  # the last numbers may be those of tombstones that were dropped
            seq = max(seq, last)
        answer = messages.PullAnswer(
            [each.record for each in sent],
            Position(epochs[-1].name, seq),
            max(last, seq),
            more,
            restarted=position is not None and since is None,
        )
        return encode(answer)

    def _note_reader(self, reader: str, position: Position | None) -> None:
        if position is None:
            self.readers.pop(reader, None)
        elif reader in self.readers or len(self.readers) < READERS_COUNT:
            self.readers[reader] = position

    async def _ranges(self, body: bytes) -> bytes:
        request = decode(body, messages.RangesRequest, "message")
        self.check_meant(request.to)
        messages.check_bounds(request.lower, request.uppers)
        lower = request.lower
        found: list[Summary] = []
        for upper in request.uppers:
            records, is_whole = await self._read(lower, upper)
            marks = map(mark_of, records)
            found.append(summarize(marks, request.horizon) if is_whole else TOO_MANY)
            lower = upper
        return encode(messages.RangesAnswer(found))

    async def _range(self, body: bytes) -> bytes:
        request = decode(body, messages.RangeRequest, "message")
        self.check_meant(request.to)
        messages.check_bounds(request.lower, [request.upper])
        messages.check_count("names", len(request.known), RANGE_RECORDS)
        records, is_whole = await self._read(request.lower, request.upper)
        found = lacking(records, request.known, request.horizon)
        sent = found[: fitting(found, SYNC_MESSAGE_BYTES)]
        looked_to = None
        if len(sent) < len(found):
            looked_to = _name(sent[-1])
        elif not is_whole:
            looked_to = _name(records[-1])
        return encode(messages.RangeAnswer(sent, looked_to))

    async def _read(self, lower: Bound | None, upper: Bound | None) -> tuple[list[Record], bool]:
        """The records of a range, RANGE_READ_RECORDS or a few more; and whether that is all."""
        found: list[Record] = []
        while len(found) < RANGE_READ_RECORDS:
            page = await self._index.scan_after(lower, RANGE_RECORDS)
            inside = [each for each in page if upper is None or _name(each) <= upper]
            found += inside
            if len(page) < RANGE_RECORDS or (upper and _name(page[-1]) >= upper):
                return found, True
            lower = _name(page[-1])
        return found, False


def _name(record: Record) -> Bound:
    return record.bucket, record.key
