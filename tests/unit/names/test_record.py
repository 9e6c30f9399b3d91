"""The laws by which records merge and writes are stamped."""

import itertools
from functools import reduce

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.names.record import Record, merge, stamp

CONTENTS = [None, Digest.of(b"one"), Digest.of(b"two", "sha1")]

# Few values, so that many records have one rank, and some of these another body.
records = st.builds(
    Record,
    bucket=st.just("bucket"),
    key=st.just("key"),
    timestamp=st.integers(0, 3),
    node=st.sampled_from(["", "a", "b"]),
    digest=st.sampled_from(CONTENTS),
    size=st.integers(0, 2),
    name=st.sampled_from(["", "ü"]),
    metadata=st.sampled_from([{}, {"a": "1"}]),
    level=st.integers(-1, 2),
    deleted=st.booleans(),
    is_upstream=st.booleans(),
    modified=st.integers(0, 1),
)


@given(records, records)
def test_merging_is_commutative(a: Record, b: Record) -> None:
    assert merge(a, b) == merge(b, a)


@given(records, records, records)
def test_merging_is_associative(a: Record, b: Record, c: Record) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(records, records)
def test_merging_is_idempotent(a: Record, b: Record) -> None:
    assert merge(a, a) is a
    assert merge(None, a) is a
    merged = merge(a, b)
    assert merge(merged, a) is merged
    assert merge(merged, b) is merged


@given(records, records)
def test_what_is_known_is_given_back_itself_if_nothing_is_new(a: Record, b: Record) -> None:
    copy = decode(encode(a), Record, "record")
    assert copy == a
    assert merge(a, copy) is a
    assert merge(a, b) in (a, b)


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_no_order_or_grouping_changes_the_result(heard: list[Record], data: st.DataObject) -> None:
    results = [reduce(merge, order) for order in itertools.permutations(heard)]
    assert all(each == results[0] for each in results)
    cut = data.draw(st.integers(1, len(heard)))
    groups = [group for group in (heard[:cut], heard[cut:], heard) if group]
    assert reduce(merge, (reduce(merge, group) for group in groups)) == results[0]


@given(st.lists(records, min_size=1, max_size=6))
def test_the_greatest_rank_counts_and_no_rank_is_lost(heard: list[Record]) -> None:
    assert reduce(merge, heard).rank == max(each.rank for each in heard)


@given(records, records)
def test_a_later_write_counts_whatever_is_in_it(a: Record, b: Record) -> None:
    later = msgspec.structs.replace(b, timestamp=a.timestamp + 1)
    assert merge(a, later) is later
    assert merge(later, a) is later


@given(records)
def test_of_one_write_the_side_that_knows_of_the_upstream_counts(a: Record) -> None:
    there = msgspec.structs.replace(a, is_upstream=True)
    plain = msgspec.structs.replace(a, is_upstream=False)
    assert merge(plain, there) is there
    assert merge(there, plain) is there


def test_that_the_upstream_has_it_is_not_taken_over_from_another_write() -> None:
    old = Record(bucket="b", key="k", timestamp=1, is_upstream=True)
    new = Record(bucket="b", key="k", timestamp=2)
    assert merge(old, new) is new


@given(st.lists(st.integers(-(10**18), 10**19), min_size=1))
def test_stamps_only_grow_however_the_clock_jumps(clock: list[int]) -> None:
    last = 0
    for now in clock:
        stamped = stamp(now, last)
        assert stamped > last
        assert stamped >= now
        last = stamped


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_a_write_after_another_was_heard_counts_for_all_clocks(steps: list[int]) -> None:
    """Three nodes with clocks far apart write one name in turn; each hears of the write before it."""
    skew = [0, 10**15, -(10**15)]
    seen = [0, 0, 0]
    known: Record | None = None
    for now, node in enumerate(steps):
        seen[node] = max(seen[node], known.timestamp if known else 0)
        timestamp = stamp(10**18 + now + skew[node], seen[node])
        written = Record(bucket="b", key="k", timestamp=timestamp, node="abc"[node])
        assert merge(known, written) is written
        known = written


@pytest.mark.parametrize(("now", "last", "stamped"), [(5, 0, 5), (5, 5, 6), (5, 4, 5), (1, 9, 10)])
def test_a_stamp_is_now_or_just_after_the_last(now: int, last: int, stamped: int) -> None:
    assert stamp(now, last) == stamped


def test_a_record_says_when_its_content_was_written() -> None:
    plain = Record(bucket="b", key="k", timestamp=7, digest=CONTENTS[1])
    assert plain.modified_at == 7
    assert msgspec.structs.replace(plain, modified=3).modified_at == 3
    assert plain.etag == f'"{CONTENTS[1]}"'
