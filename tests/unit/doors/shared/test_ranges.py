"""Range parsing and multipart framing, against RFC 9110's examples and a set of byte positions."""

import time
from email.message import Message
from email.parser import BytesParser
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tierce.core.errors import BadRequest
from tierce.core.limits import RANGES_COUNT
from tierce.doors.shared.ranges import (
    ByteRange,
    Multipart,
    UnsatisfiableRange,
    content_range,
    multipart_parts,
    parse_range,
)

HUGE = "9" * 1000

Spec = tuple[int | None, int | None]

sizes = st.integers(0, 60)
positions = st.integers(0, 80)
specs: st.SearchStrategy[Spec] = st.one_of(
    st.tuples(positions, positions).map(lambda pair: (min(pair), max(pair))),
    st.tuples(positions, st.none()),
    st.tuples(st.none(), positions),
)
spec_lists = st.lists(specs, min_size=1, max_size=RANGES_COUNT)


def written(spec: Spec) -> str:
    first, last = spec
    return f"{'' if first is None else first}-{'' if last is None else last}"


def header_of(asked: list[Spec]) -> str:
    return "bytes=" + ",".join(written(spec) for spec in asked)


def naive_positions(spec: Spec, size: int) -> set[int]:
    """The positions that one range-spec names, straight from the words of section 14.1.2."""
    first, last = spec
    if first is None:
        assert last is not None
        return {position for position in range(size) if size - position <= last}
    return {
        position
        for position in range(size)
        if first <= position and (last is None or position <= last)
    }


def positions_of(ranges: list[ByteRange]) -> list[int]:
    return [position for part in ranges for position in range(part.start, part.stop)]


def served(asked: list[Spec], size: int) -> list[ByteRange] | None:
    """What is served, with an unsatisfiable set as no ranges at all."""
    try:
        return parse_range(header_of(asked), size)
    except UnsatisfiableRange:
        return []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # The examples of RFC 9110, section 14.1.2, for a representation of 10000 bytes.
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-0, -1", [(0, 1), (9999, 10000)]),
        ("bytes=0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-600,601-999", [(500, 1000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),
        # Clamped to the size
        ("bytes=0-", [(0, 10000)]),
        ("bytes=9999-", [(9999, 10000)]),
        ("bytes=9999-10000", [(9999, 10000)]),
        ("bytes=-10001", [(0, 10000)]),
        (f"bytes=1-{HUGE}", [(1, 10000)]),
        (f"bytes=-{HUGE}", [(0, 10000)]),
        ("bytes=00000000000001-0000000000000002", [(1, 3)]),
        # What can't be satisfied is left out when something else can
        ("bytes=10000-,-0,7-7", [(7, 8)]),
        (f"bytes={HUGE}-,7-7", [(7, 8)]),
        # Lenient spelling: the unit in any case, empty list members, spaces about commas
        ("BYTES=1-2", [(1, 3)]),
        (" bytes=1-2 ", [(1, 3)]),
        ("bytes=,1-2 ,\t, 5-6,", [(1, 3), (5, 7)]),
    ],
)
def test_ranges_of_ten_thousand_bytes(header: str, expected: list[tuple[int, int]]) -> None:
    assert parse_range(header, 10_000) == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes 0-1",
        "bytes =0-1",
        "items=0-1",
        "bytes=-",
        "bytes=5",
        "bytes=a-b",
        "bytes=2-1",
        f"bytes={HUGE}-1",
        f"bytes=1{HUGE}-{HUGE}",
        "bytes=0-1,2-1",
        "bytes=0-1,x",
        "bytes=0-1;2-3",
        "bytes=0-1-2",
        "bytes=--1",
        "bytes=+0-1",
        "bytes=0 - 1",
        "bytes=0x0-0x1",
        "bytes=1_0-2_0",
        "bytes=0-1\n",
        "bytes=\u0661-\u0662",
    ],
)
def test_a_header_that_makes_no_sense_means_the_whole(header: str | None) -> None:
    assert parse_range(header, 10_000) is None


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-12", "bytes=-0", f"bytes={HUGE}-", "bytes=-000,99-"]
)
def test_a_set_without_a_byte_is_unsatisfiable(header: str) -> None:
    with pytest.raises(UnsatisfiableRange) as caught:
        parse_range(header, 10)
    assert caught.value.size == 10
    assert caught.value.content_range == "bytes */10"
    assert caught.value.hint


def test_an_unsatisfiable_range_is_a_bad_request() -> None:
    assert issubclass(UnsatisfiableRange, BadRequest)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=5-9", "bytes=-0"])
def test_no_position_of_an_empty_representation_can_be_served(header: str) -> None:
    with pytest.raises(UnsatisfiableRange):
        parse_range(header, 0)


@pytest.mark.parametrize("header", ["bytes=-1", "bytes=-10", f"bytes=-{HUGE}", "bytes=0-,-1"])
def test_the_last_bytes_of_an_empty_representation_are_the_whole(header: str) -> None:
    assert parse_range(header, 0) is None


def test_as_many_ranges_as_the_limit_are_served() -> None:
    header = header_of([(2 * index, 2 * index) for index in range(RANGES_COUNT)])
    ranges = parse_range(header, 10_000)
    assert ranges is not None
    assert len(ranges) == RANGES_COUNT


def test_one_range_over_the_limit_means_the_whole() -> None:
    assert parse_range(header_of([(0, 0)] * (RANGES_COUNT + 1)), 10_000) is None


def test_merged_ranges_come_where_the_first_of_them_was_named() -> None:
    assert parse_range("bytes=80-89,20-29,50-59,25-35,90-99", 100) == [
        (80, 100),
        (20, 36),
        (50, 60),
    ]


def test_a_range_that_closes_a_gap_merges_both_sides() -> None:
    assert parse_range("bytes=0-9,20-29,10-19", 100) == [(0, 30)]


def test_enormous_headers_are_read_quickly() -> None:
    began = time.process_time()
    for text in (f"{'9' * 1_000_000}-{'9' * 1_000_000}", f"-{'0' * 1_000_000}", "," * 1_000_000):
        try:
            parse_range(f"bytes={text}", 10)
        except UnsatisfiableRange:
            continue
    assert time.process_time() - began < 2


@given(spec_lists, sizes)
def test_the_bytes_served_are_the_bytes_asked_for_each_once(asked: list[Spec], size: int) -> None:
    expected = set().union(*(naive_positions(spec, size) for spec in asked))
    ranges = served(asked, size)
    if ranges is None:
        assert size == 0
    else:
        assert sorted(positions_of(ranges)) == sorted(expected)


@given(spec_lists, sizes)
def test_ranges_are_within_the_size_not_empty_and_apart(asked: list[Spec], size: int) -> None:
    ranges = served(asked, size) or []
    assert all(0 <= part.start < part.stop <= size for part in ranges)
    ascending = sorted(ranges)
    assert all(before.stop < after.start for before, after in pairwise(ascending))


@given(spec_lists, sizes)
def test_ranges_come_in_the_order_in_which_they_were_first_named(
    asked: list[Spec], size: int
) -> None:
    ranges = served(asked, size) or []
    named = [naive_positions(spec, size) for spec in asked]
    places = [
        next(place for place, wanted in enumerate(named) if wanted & set(range(*part)))
        for part in ranges
    ]
    assert places == sorted(places)


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="0123456789-, =\t").map("bytes={}".format),
        st.text(alphabet="bytes=0-9, ").map("bytes=0-0,{}".format),
    ),
    st.integers(0, 1 << 70),
)
def test_any_text_gives_ranges_or_the_whole_or_unsatisfiable(header: str, size: int) -> None:
    try:
        ranges = parse_range(header, size)
    except UnsatisfiableRange:
        ranges = None
    assert ranges is None or ranges
    assert all(0 <= part.start < part.stop <= size for part in ranges or [])


def test_content_range_names_the_last_byte() -> None:
    assert content_range(ByteRange(42, 1234), 1234) == "bytes 42-1233/1234"


def test_length_counts_bytes() -> None:
    assert ByteRange(42, 45).length == 3


def test_the_multipart_body_reads_as_in_the_rfc() -> None:
    """RFC 9110, section 15.3.7.2, but for its shortened content."""
    frame = multipart_parts(
        [ByteRange(500, 503), ByteRange(7000, 7002)],
        8000,
        "application/pdf",
        "THIS_STRING_SEPARATES",
    )
    body = frame.parts[0][0] + b"one" + frame.parts[1][0] + b"2!" + frame.closing
    assert frame.content_type == "multipart/byteranges; boundary=THIS_STRING_SEPARATES"
    assert body == (
        b"--THIS_STRING_SEPARATES\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 500-502/8000\r\n"
        b"\r\n"
        b"one\r\n"
        b"--THIS_STRING_SEPARATES\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 7000-7001/8000\r\n"
        b"\r\n"
        b"2!\r\n"
        b"--THIS_STRING_SEPARATES--\r\n"
    )


def framed(data: bytes, ranges: list[ByteRange]) -> tuple[Multipart, bytes]:
    """A frame, and the body that a door would send with it."""
    frame = multipart_parts(ranges, len(data), "text/plain", "a-boundary_0123456789")
    body = b"".join(head + data[slice(*part)] for head, part in frame.parts) + frame.closing
    return frame, body


@given(st.binary(min_size=1, max_size=60), spec_lists)
def test_a_multipart_body_is_as_long_as_announced(data: bytes, asked: list[Spec]) -> None:
    ranges = served(asked, len(data)) or []
    assume(ranges)
    frame, body = framed(data, ranges)
    assert len(body) == frame.length_bytes


@given(st.text("abc-", min_size=1, max_size=60).map(str.encode), spec_lists)
def test_a_mail_parser_reads_the_parts_back(data: bytes, asked: list[Spec]) -> None:
    ranges = served(asked, len(data)) or []
    assume(ranges)
    frame, body = framed(data, ranges)
    message = BytesParser().parsebytes(f"Content-Type: {frame.content_type}\n\n".encode() + body)
    found: list[tuple[str, object]] = []
    for part in message.get_payload():
        assert isinstance(part, Message)
        found.append((str(part["Content-Range"]), part.get_payload(decode=True)))
    assert found == [
        (content_range(part, len(data)), data[part.start : part.stop]) for part in ranges
    ]


def test_a_frame_without_ranges_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        multipart_parts([], 1, "text/plain", "boundary")


@pytest.mark.parametrize("boundary", ["", "a b", 'a"b', "a\r\nb", "x" * 71])
def test_a_boundary_that_needs_quotes_is_our_own_mistake(boundary: str) -> None:
    with pytest.raises(AssertionError):
        multipart_parts([ByteRange(0, 1)], 1, "text/plain", boundary)


def test_a_content_type_cannot_break_out_of_its_line() -> None:
    with pytest.raises(AssertionError):
        multipart_parts([ByteRange(0, 1)], 1, "text/plain\r\nX: y", "boundary")
