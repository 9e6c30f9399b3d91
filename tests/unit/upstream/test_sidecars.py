"""A sidecar counts for the content that it was written for, and for no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.upstream.sidecars import Mark, pack, unpack

MARK = Mark(7, '"e"', 1_503_965_375_000_000_000)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(TEXT, TEXT))
def test_entries_come_back(entries: dict[str, str]) -> None:
    assert unpack(pack(MARK, entries), MARK) == entries


@pytest.mark.parametrize("other", [Mark(8, MARK.etag, MARK.modified), Mark(7, "", MARK.modified)])
def test_of_another_content_nothing_is_told(other: Mark) -> None:
    assert unpack(pack(MARK, {"a": "b"}), other) == {}
    assert unpack(pack(MARK, {"a": "b"}), MARK._replace(modified=1)) == {}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff", b'{"version":1}', pack(MARK, {"a": "b"})[:-3]],
    ids=["empty", "open", "list", "binary", "short", "cut"],
)
def test_what_can_not_be_read_tells_nothing(data: bytes) -> None:
    assert unpack(data, MARK) == {}


def test_a_later_version_tells_nothing() -> None:
    assert unpack(pack(MARK, {}).replace(b'"version":1', b'"version":2'), MARK) == {}
