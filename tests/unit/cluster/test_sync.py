"""How records spread: whom to read and when, which ranges differ, and when a tombstone may go."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.cluster import sync
from tierce.cluster.member import Member, State, View
from tierce.cluster.sync import TOO_MANY, Mark, Summary
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.names.changes import Epoch, Position
from tierce.names.index import Change
from tierce.names.record import FULL, LOCAL, NO_LEVEL, UPSTREAM, Record, merge

DIGEST = Digest.of(b"content")
HORIZON = 1000


def record(key: str = "k", timestamp: int = 5, node: str = "a", **fields: object) -> Record:
    return Record(bucket="b", key=key, timestamp=timestamp, node=node, digest=DIGEST, **fields)  # type: ignore[arg-type]


def tombstone(key: str = "k", timestamp: int = 5, node: str = "a", level: int = NO_LEVEL) -> Record:
    return Record(bucket="b", key=key, timestamp=timestamp, node=node, deleted=True, level=level)


def member(node_id: str, **fields: object) -> Member:
    return Member(node_id, private=f"{node_id}:1", **fields)  # type: ignore[arg-type]


records = st.builds(
    record,
    st.sampled_from("kmp"),
    st.integers(0, 4),
    st.sampled_from("ab"),
    is_upstream=st.booleans(),
)
any_record = records | st.builds(
    tombstone,
    st.sampled_from("kmp"),
    st.integers(0, 4),
    level=st.sampled_from([NO_LEVEL, LOCAL, UPSTREAM, FULL]),
)


def in_order(given: dict[str, Record]) -> list[Record]:
    return [given[key] for key in sorted(given)]


def test_records_are_exchanged_with_live_tierce_members_but_not_with_this_node() -> None:
    view = View.of(
        "a",
        [
            member("a"),
            member("b"),
            member("c", state=State.SUSPECT),
            member("d", state=State.DOWN),
            member("e", dialect="cask"),
            Member("f"),
        ],
    )
    assert [each.node_id for each in sync.whom_to_read(view)] == ["b", "c"]


@pytest.mark.parametrize(
    ("failures", "rest"), [(0, 10.0), (1, 0.5), (2, 1.0), (4, 4.0), (9, 10.0), (5000, 10.0)]
)
def test_a_peer_that_fails_is_asked_again_soon_then_ever_later(failures: int, rest: float) -> None:
    assert sync.rest_seconds(10.0, failures, 0.5) == rest
    assert sync.rest_seconds(10.0, failures, 0.0) == 0.75 * rest
    assert sync.rest_seconds(10.0, failures, 1.0) == 1.25 * rest


@pytest.mark.parametrize(
    ("behind", "names", "compares"),
    [
        (1_000_000, 0, True),
        (5_001, 0, True),
        (5_000, 0, False),
        (500_001, 1_000_000, True),
        (500_000, 1_000_000, False),
        (0, 0, False),
    ],
)
def test_who_is_far_behind_compares(behind: int, names: int, compares: bool) -> None:
    assert sync.should_compare(behind, names) is compares


def test_every_candidate_is_checked_at_some_time() -> None:
    candidates = [member("a"), member("b"), member("c")]
    chances = [0.0, 0.34, 0.99, 1.0]
    chosen = [sync.whom_to_check(candidates, chance) for chance in chances]
    assert [each and each.node_id for each in chosen] == ["a", "b", "c", "c"]
    assert sync.whom_to_check([], 0.5) is None


@pytest.mark.parametrize(
    ("known", "heard", "is_news"),
    [
        (None, record(), True),
        (None, tombstone(timestamp=HORIZON), True),
        (None, tombstone(timestamp=HORIZON - 1), False),
        (None, record(timestamp=HORIZON - 1), True),
        (record(timestamp=3), tombstone(timestamp=4), True),
        (record(timestamp=4), tombstone(timestamp=3), False),
        (record(), record(), False),
        (record(), record(is_upstream=True), True),
        (record(is_upstream=True), record(), False),
        (record(node="b"), record(node="a"), False),
    ],
)
def test_what_is_newer_is_taken_but_no_expired_tombstone_of_an_unknown_name(
    known: Record | None, heard: Record, is_news: bool
) -> None:
    assert sync.is_news(known, heard, HORIZON) is is_news


@given(
    st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.text()), st.integers(0, 2**62)
)
def test_no_record_is_larger_than_its_weight(
    key: str, node: str, name: str, metadata: dict[str, str], number: int
) -> None:
    made = Record(
        bucket="b" * 63, key=key, node=node, name=name, content_type=name, metadata=metadata,
        timestamp=number, size=number, modified=number, digest=Digest.of(b"", "sha512"),
    )  # fmt: skip
    assert len(encode(made)) <= sync.weight(made)


def test_a_message_takes_as_many_records_as_fit_and_at_least_one() -> None:
    some = [record(f"{number}") for number in range(10)]
    each = sync.weight(some[0])
    assert sync.fitting(some, 3 * each) == 3
    assert sync.fitting(some, 1) == 1
    assert sync.fitting(some, 100 * each) == 10
    assert sync.fitting([], 1) == 0


def test_ranges_follow_each_other_and_the_last_has_no_end() -> None:
    page = [record("k"), record("m")]
    first = sync.cut(None, page, is_last=False)
    assert (first.lower, first.upper) == (None, ("b", "m"))
    last = sync.cut(first.upper, [record("p")], is_last=True)
    assert (last.lower, last.upper) == (("b", "m"), None)
    assert sync.cut(None, [], is_last=True).upper is None


@given(st.dictionaries(st.sampled_from("kmp"), any_record))
def test_the_same_records_have_the_same_summary(given: dict[str, Record]) -> None:
    named = {key: msgspec.structs.replace(each, key=key) for key, each in given.items()}
    cut = sync.cut(None, in_order(named), is_last=True)
    told = sync.summarize(map(sync.mark_of, in_order(named)), 0)
    assert sync.differing([cut], [told], 0) == []


@pytest.mark.parametrize(
    "other",
    [
        [],
        [record("k")],
        [record("k"), record("m", 6)],
        [record("k"), record("m", node="b")],
        [record("k"), record("m", is_upstream=True)],
        [record("k"), record("m"), record("p")],
        [record("k"), tombstone("m")],
    ],
)
def test_any_difference_shows(other: list[Record]) -> None:
    cut = sync.cut(None, [record("k"), record("m")], is_last=True)
    told = sync.summarize(map(sync.mark_of, other), 0)
    assert sync.differing([cut], [told], 0) == [cut]


def test_expired_tombstones_make_no_difference_and_other_ones_do() -> None:
    cut = sync.cut(None, [record("k")], is_last=True)
    old = [record("k"), tombstone("m", HORIZON - 1)]
    assert sync.differing([cut], [sync.summarize(map(sync.mark_of, old), HORIZON)], HORIZON) == []
    new = [record("k"), tombstone("m", HORIZON)]
    told = sync.summarize(map(sync.mark_of, new), HORIZON)
    assert sync.differing([cut], [told], HORIZON) == [cut]


def test_a_range_with_more_than_is_counted_differs_even_from_itself() -> None:
    cut = sync.cut(None, [], is_last=True)
    assert sync.differing([cut], [TOO_MANY], 0) == [cut]
    assert Summary(0, b"") != TOO_MANY


@given(
    st.dictionaries(st.sampled_from("kmp"), any_record),
    st.dictionaries(st.sampled_from("kmp"), any_record),
    st.integers(0, 5),
)
def test_what_is_lacking_is_just_what_merging_everything_would_change(
    here: dict[str, Record], there: dict[str, Record], horizon: int
) -> None:
    here, there = (
        {key: msgspec.structs.replace(each, key=key) for key, each in side.items()}
        for side in (here, there)
    )
    known: list[Mark] = [sync.mark_of(each) for each in here.values()]
    found = {each.key for each in sync.lacking(in_order(there), known, horizon)}
    for key, heard in there.items():
        mine = here.get(key)
        if (
            mine is not None
            and mine.rank == heard.rank
            and (mine.deleted, mine.level) != (heard.deleted, heard.level)
        ):
            continue  # no node writes such two
        news = sync.is_news(mine, heard, horizon)
        assert (key in found) is news
        if news:
            assert merge(mine, heard) != mine


EPOCHS = [Epoch("e1", 0), Epoch("e2", 50)]


@pytest.mark.parametrize(
    ("readers", "read"),
    [
        ({"b": Position("e2", 80), "c": Position("e2", 70)}, 70),
        ({"b": Position("e2", 80), "c": Position("e1", 70)}, 50),
        ({"b": Position("e2", 80), "c": Position("e2", 900)}, 80),
        ({"b": Position("e2", 80)}, None),
        ({"b": Position("e2", 80), "c": Position("other", 70)}, None),
    ],
)
def test_all_have_read_as_far_as_the_slowest_said(
    readers: dict[str, Position], read: int | None
) -> None:
    view = View.of("a", [member("a"), member("b"), member("c"), member("k", dialect="cask")])
    assert sync.read_by_all(view, readers, EPOCHS, 90) == read


def test_a_member_that_is_down_may_not_have_read_anything() -> None:
    readers = {"b": Position("e2", 80)}
    down = View.of("a", [member("a"), member("b", state=State.DOWN)])
    assert sync.read_by_all(down, readers, EPOCHS, 90) is None
    assert sync.read_by_all(View.of("a", [member("a")]), {}, EPOCHS, 90) == 90
    seeking = View.of("a", [member("a")], is_seeking=True)
    assert sync.read_by_all(seeking, {}, EPOCHS, 90) is None


@pytest.mark.parametrize(
    ("change", "may_go"),
    [
        (Change(5, tombstone(timestamp=HORIZON - 1)), True),
        (Change(6, tombstone(timestamp=HORIZON - 1)), False),
        (Change(5, tombstone(timestamp=HORIZON)), False),
        (Change(5, record(timestamp=1)), False),
    ],
)
def test_only_an_expired_tombstone_that_all_have_read_may_go(change: Change, may_go: bool) -> None:
    assert sync.may_drop(change, HORIZON, 5) is may_go


@pytest.mark.parametrize(
    ("level", "may_go"), [(NO_LEVEL, True), (LOCAL, True), (UPSTREAM, False), (FULL, False)]
)
def test_a_tombstone_of_what_the_upstream_has_never_expires(level: int, may_go: bool) -> None:
    old = tombstone(timestamp=HORIZON - 1, level=level)
    assert sync.may_drop(Change(5, old), HORIZON, 5) is may_go
    assert sync.is_news(None, old, HORIZON) is not may_go
    assert sync.lacking([old], [], HORIZON) == ([] if may_go else [old])
    assert sync.summarize([sync.mark_of(old)], HORIZON).names == (0 if may_go else 1)


def test_no_live_record_is_forgotten() -> None:
    for level in (NO_LEVEL, LOCAL, UPSTREAM, FULL):
        assert not sync.is_forgettable(record(level=level))
    # Its level was lowered before it was deleted: the upstream may have an older content still.
    lowered = msgspec.structs.replace(tombstone(level=0), is_upstream=True)
    assert sync.is_forgettable(tombstone(level=0))
    assert not sync.is_forgettable(lowered)


def test_names_are_compared_in_the_order_of_their_bytes() -> None:
    keys = ["a", "é", "z", "\uffff", "\U0001f600", "aa"]
    random.Random(1).shuffle(keys)
    assert sorted(keys) == sorted(keys, key=str.encode)
