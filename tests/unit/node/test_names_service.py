"""What a node answers about records: bounded, checked, and durable where it says so."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tierce.cluster.sync import TOO_MANY, Mark, mark_of, summarize
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, NotFound, TierceError, Unavailable
from tierce.core.limits import (
    DAY_NANOSECONDS,
    METADATA_IN_RECORD_BYTES,
    NAME_BYTES,
    OBJECT_KEY_BYTES,
    PULL_RECORDS,
    PUSH_RECORDS,
)
from tierce.names.changes import Position
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.node import names_messages as messages
from tierce.node import names_service
from tierce.node.names_service import NamesService, merge_heard
from tierce.testing import virtual_time

T = TypeVar("T")

DIGEST = Digest.of(b"content")
NOW = 100 * DAY_NANOSECONDS
LONG_AGO = NOW - 31 * DAY_NANOSECONDS


def record(key: str = "k", timestamp: int = NOW, **fields: object) -> Record:
    fields = {"digest": DIGEST, "node": "b", **fields}
    return Record(bucket="bucket", key=key, timestamp=timestamp, **fields)  # type: ignore[arg-type]


def tombstone(key: str, timestamp: int) -> Record:
    return record(key, timestamp, digest=None, deleted=True)


def made(index: MemoryIndex) -> NamesService:
    return NamesService(index, node_id="a", now_ns=lambda: NOW)


def asked(service: NamesService, path: str, request: object, kind: type[T]) -> T:
    async def main() -> bytes:
        return await service.exchange(path, encode(request))

    return decode(virtual_time.run(main()), kind, "answer")


def pull(service: NamesService, position: Position | None, limit: int = 100) -> messages.PullAnswer:
    request = messages.PullRequest(position, limit, "b", "a")
    return asked(service, messages.PULL, request, messages.PullAnswer)


def filled(*records: Record) -> MemoryIndex:
    index = MemoryIndex("a", epoch="e1")
    done(index.merge(records))
    return index


def done(work: Coroutine[Any, Any, T]) -> T:
    return virtual_time.run(work)


def test_what_is_pushed_is_in_the_index_when_it_is_answered() -> None:
    index = filled(record("old"))
    request = messages.PushRequest([record("new"), record("old")], "a")
    answer = asked(made(index), messages.PUSH, request, messages.PushAnswer)
    assert answer.merged == [True, False]
    assert index.get("bucket", "new") == record("new")


def test_what_is_known_already_costs_no_transaction() -> None:
    class Watched(MemoryIndex):
        merged = 0

        async def merge(self, records: Any) -> list[bool]:
            self.merged += len(records)
            return await super().merge(records)

    index = Watched("a")
    assert done(merge_heard(index, [record("k"), record("m")], 0)) == [True, True]
    assert done(merge_heard(index, [record("k"), record("m")], 0)) == [False, False]
    assert index.merged == 2


def test_an_old_tombstone_of_an_unknown_name_is_not_taken_back() -> None:
    index = filled(record("known", LONG_AGO - 5))
    request = messages.PushRequest([tombstone("known", LONG_AGO), tombstone("gone", LONG_AGO)], "a")
    answer = asked(made(index), messages.PUSH, request, messages.PushAnswer)
    assert answer.merged == [True, False]
    assert index.get("bucket", "gone") is None


BAD_RECORDS = {
    "no bucket": Record(bucket="", key="k", digest=DIGEST),
    "no key": record(""),
    "a long key": record("k" * (OBJECT_KEY_BYTES + 1)),
    "a zero byte in the key": record("k\0"),
    "a long bucket": Record(bucket="b" * 300, key="k", digest=DIGEST),
    "a long node": record(node="n" * 300),
    "a negative time": record(timestamp=-1),
    "a time beyond all clocks": record(timestamp=2**63),
    "a negative size": record(size=-1),
    "a negative time of change": record(modified=-1),
    "an unknown level": record(level=3),
    "a level below all": record(level=-2),
    "a tombstone with a digest": record(deleted=True),
    "a record without a digest": record(digest=None),
    "an unknown algorithm": record(digest=Digest("../x", b"1" * 32)),
    "a digest of the wrong length": record(digest=Digest("sha1", b"1" * 32)),
    "a long name": record(name="n" * (NAME_BYTES + 1)),
    "much metadata": record(metadata={"a": "m" * METADATA_IN_RECORD_BYTES}),
}


@pytest.mark.parametrize("what", list(BAD_RECORDS))
def test_a_malformed_record_is_refused_and_nothing_of_its_message_kept(what: str) -> None:
    index = filled()
    request = messages.PushRequest([record("good"), BAD_RECORDS[what]], "a")
    with pytest.raises(BadRequest):
        asked(made(index), messages.PUSH, request, messages.PushAnswer)
    assert index.last_seq() == 0


REQUESTS: dict[str, tuple[str, object]] = {
    "too many records": (
        messages.PUSH, messages.PushRequest([record()] * (PUSH_RECORDS + 1))
    ),
    "no limit": (messages.PULL, messages.PullRequest(None, 0)),
    "a high limit": (messages.PULL, messages.PullRequest(None, PULL_RECORDS + 1)),
    "a bad position": (messages.PULL, messages.PullRequest(Position("../e", 3), 10)),
    "a negative position": (messages.PULL, messages.PullRequest(Position("e1", -3), 10)),
    "a long reader": (messages.PULL, messages.PullRequest(None, 1, "r" * 300)),
    "no range": (messages.RANGES, messages.RangesRequest(None, [], 0)),
    "too many ranges": (
        messages.RANGES,
        messages.RangesRequest(None, [("b", f"{n}") for n in range(1, 10)], 0),
    ),
    "ranges out of order": (
        messages.RANGES, messages.RangesRequest(None, [("b", "m"), ("b", "k")], 0)
    ),
    "an end in the middle": (messages.RANGES, messages.RangesRequest(None, [None, ("b", "k")], 0)),
    "an empty name": (messages.RANGE, messages.RangeRequest(("b", ""), None, [], 0)),
    "an empty range": (messages.RANGE, messages.RangeRequest(("b", "k"), ("b", "k"), [], 0)),
    "too much that is known": (
        messages.RANGE,
        messages.RangeRequest(None, None, [Mark("b", "k", 0, "", False, False)] * 1001, 0),
    ),
    "another message": (messages.PUSH, ["no", "push"]),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REQUESTS))
def test_a_malformed_message_is_refused(what: str) -> None:
    path, request = REQUESTS[what]
    with pytest.raises(BadRequest):
        asked(made(filled(record())), path, request, messages.PushAnswer)


@pytest.mark.parametrize(
    ("path", "request_to_b"),
    [
        (messages.PUSH, messages.PushRequest([record()], "b")),
        (messages.PULL, messages.PullRequest(None, 10, "c", "b")),
        (messages.RANGES, messages.RangesRequest(None, [None], 0, "b")),
        (messages.RANGE, messages.RangeRequest(None, None, [], 0, "b")),
    ],
)
def test_what_is_meant_for_another_node_is_refused(path: str, request_to_b: object) -> None:
    index = filled()
    with pytest.raises(Unavailable, match="b is meant"):
        asked(made(index), path, request_to_b, messages.PushAnswer)
    assert index.last_seq() == 0


def test_further_messages_have_their_own_handlers_and_unknown_ones_none() -> None:
    async def fill(body: bytes) -> bytes:
        return body * 2

    service = NamesService(filled(), node_id="a", more={"/names/fill": fill})
    assert done(service.exchange("/names/fill", b"x")) == b"xx"
    with pytest.raises(NotFound):
        done(service.exchange("/names/other", b""))


def test_a_feed_is_read_page_by_page_to_its_end() -> None:
    index = filled(*(record(f"{number}") for number in range(25)))
    service = made(index)
    first = pull(service, None, 10)
    assert [each.key for each in first.records] == [f"{number}" for number in range(10)]
    assert (first.position, first.last, first.more) == (Position("e1", 10), 25, True)
    second = pull(service, first.position, 10)
    third = pull(service, second.position, 10)
    assert [each.key for each in third.records] == [f"{number}" for number in range(20, 25)]
    assert (third.position, third.more) == (Position("e1", 25), False)
    assert pull(service, third.position).records == []


def test_a_page_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_service, "SYNC_MESSAGE_BYTES", 10_000)
    index = filled(*(record(f"{number}", name="n" * 900) for number in range(25)))
    answer = pull(made(index), None)
    assert answer.more
    assert 0 < len(answer.records) < 12
    assert answer.position.seq == len(answer.records)


def test_a_reader_passes_the_numbers_of_dropped_tombstones() -> None:
    index = filled(record("k"), tombstone("m", NOW))
    done(index.drop("bucket", "m", NOW))
    answer = pull(made(index), None)
    assert (answer.position.seq, answer.last, answer.more) == (2, 2, False)


def test_an_unknown_position_is_served_from_the_start_and_told_so() -> None:
    answer = pull(made(filled(record())), Position("other", 5))
    assert answer.restarted
    assert [each.key for each in answer.records] == ["k"]
    assert not pull(made(filled(record())), None).restarted


def test_after_an_older_copy_was_restored_a_reader_goes_on_where_the_copy_ends() -> None:
    index = filled(record("k"), record("m"))
    done(index.begin_epoch("e2"))
    done(index.merge([record("new")]))
    answer = pull(made(index), Position("e1", 40))
    assert [each.key for each in answer.records] == ["new"]
    assert (answer.position, answer.restarted) == (Position("e2", 3), False)


def test_how_far_members_have_read_is_remembered_until_they_know_nothing() -> None:
    service = made(filled(record()))
    pull(service, Position("e1", 1))
    assert service.readers == {"b": Position("e1", 1)}
    pull(service, Position("other", 1))
    assert service.readers == {}
    pull(service, Position("e1", 1))
    pull(service, None)
    assert service.readers == {}


def test_ranges_are_told_in_short() -> None:
    some = [record(key) for key in "kmpz"]
    request = messages.RangesRequest(
        ("bucket", "k"), [("bucket", "m"), ("bucket", "n"), None], 0, "a"
    )
    answer = asked(made(filled(*some)), messages.RANGES, request, messages.RangesAnswer)
    expected = [summarize(map(mark_of, part), 0) for part in (some[1:2], [], some[2:])]
    assert answer.summaries == expected


@pytest.mark.parametrize("lower", [None, ("bucket", "3")])
def test_a_range_is_read_over_several_pages_of_the_index(
    monkeypatch: pytest.MonkeyPatch, lower: tuple[str, str] | None
) -> None:
    monkeypatch.setattr(names_service, "RANGE_RECORDS", 3)
    some = [record(f"{number}") for number in range(10)]
    request = messages.RangesRequest(lower, [("bucket", "8"), None], 0, "a")
    answer = asked(made(filled(*some)), messages.RANGES, request, messages.RangesAnswer)
    first = some[4:9] if lower else some[:9]
    assert answer.summaries == [summarize(map(mark_of, part), 0) for part in (first, some[9:])]


def test_a_range_with_too_much_in_it_is_only_said_to_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names_service, "RANGE_RECORDS", 3)
    monkeypatch.setattr(names_service, "RANGE_READ_RECORDS", 6)
    some = [record(f"{number}") for number in range(10)]
    request = messages.RangesRequest(None, [None], 0, "a")
    answer = asked(made(filled(*some)), messages.RANGES, request, messages.RangesAnswer)
    assert answer.summaries == [TOO_MANY]


def test_a_range_is_sent_without_what_the_asker_has() -> None:
    some = [record("k"), record("m", NOW + 5), record("p"), tombstone("t", LONG_AGO)]
    known = [mark_of(each) for each in (record("k"), record("m"))]
    request = messages.RangeRequest(None, None, known, NOW - 5, "a")
    answer = asked(made(filled(*some)), messages.RANGE, request, messages.RangeAnswer)
    assert answer.records == some[1:3]
    assert answer.looked_to is None


@pytest.mark.parametrize("bounded_by", ["SYNC_MESSAGE_BYTES", "RANGE_READ_RECORDS"])
def test_a_large_range_is_sent_in_parts_that_miss_nothing(
    monkeypatch: pytest.MonkeyPatch, bounded_by: str
) -> None:
    monkeypatch.setattr(names_service, bounded_by, 1000 if bounded_by.endswith("BYTES") else 3)
    monkeypatch.setattr(names_service, "RANGE_RECORDS", 3)
    service = made(filled(*(record(f"{number:02}") for number in range(20))))
    got: list[str] = []
    lower: tuple[str, str] | None = None
    rounds = 0
    while True:
        rounds += 1
        request = messages.RangeRequest(lower, ("bucket", "17"), [], 0, "a")
        answer = asked(service, messages.RANGE, request, messages.RangeAnswer)
        got += [each.key for each in answer.records]
        if answer.looked_to is None:
            break
        lower = answer.looked_to
    assert got == [f"{number:02}" for number in range(18)]
    assert 3 < rounds < 12


def test_an_error_of_the_index_reaches_the_asker() -> None:
    class Broken(MemoryIndex):
        async def merge(self, records: Any) -> list[bool]:
            raise TierceError("the disk is gone")

    request = messages.PushRequest([record()], "a")
    with pytest.raises(TierceError, match="the disk is gone"):
        asked(made(Broken("a")), messages.PUSH, request, messages.PushAnswer)
