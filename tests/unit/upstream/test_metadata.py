"""A record as metadata in the upstream and back, whatever is in it and whoever wrote it."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.digest import Digest
from tierce.core.errors import TooLarge
from tierce.names.record import FULL, NO_LEVEL, UPSTREAM, Record
from tierce.upstream.metadata import (
    EXTRA,
    UPSTREAM_METADATA_BYTES,
    Held,
    content_type_of,
    entries_of,
    is_same,
    restored,
    type_by_name,
)

DIGEST = Digest.of(b"content")
SIZE = 7
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
METADATA = st.dictionaries(TEXT | st.text("aAbB-", max_size=3), TEXT, max_size=6)


def record(**fields: object) -> Record:
    usual: dict[str, object] = {"bucket": "b", "key": "k", "timestamp": 5, "node": "n", "level": 1}
    return Record(**{**usual, **fields})  # type: ignore[arg-type]  # the fields of a test


def as_a_service_gives_it_back(entries: dict[str, str]) -> dict[str, str]:
    """Names in lower case, values trimmed; and nothing in them that a header can't hold."""
    for name, value in entries.items():
        assert name
        assert set(name) <= set(string.ascii_letters + string.digits + "-._")
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()
        assert "  " not in value, "signatures take runs of spaces for one"
    assert len({name.lower() for name in entries}) == len(entries)
    return {name.lower(): value.strip() for name, value in entries.items()}


@given(
    name=TEXT,
    metadata=METADATA,
    content_type=TEXT,
    level=st.sampled_from([NO_LEVEL, 0, 1, 2]),
    timestamp=st.integers(1, 2**62),
    modified=st.integers(0, 2**62),
    has_user_entries=st.booleans(),
)
def test_a_record_comes_back_as_it_was(
    name: str,
    metadata: dict[str, str],
    content_type: str,
    level: int,
    timestamp: int,
    modified: int,
    has_user_entries: bool,
) -> None:
    sent = record(
        name=name,
        metadata=metadata,
        content_type=content_type,
        level=level,
        timestamp=timestamp,
        modified=modified,
    )
    entries = entries_of(sent, DIGEST, SIZE, limit_bytes=None, has_user_entries=has_user_entries)
    found = restored("k", Held(SIZE, as_a_service_gives_it_back(entries)))
    told_type = "" if content_type == type_by_name(name) else content_type
    assert found == record(
        bucket="",
        name=name,
        metadata=metadata,
        content_type=told_type,
        level=FULL if level == FULL else UPSTREAM,
        timestamp=timestamp,
        modified=modified,
        digest=DIGEST,
        size=SIZE,
        is_upstream=True,
    )
    assert is_same(found, sent, DIGEST, SIZE)


@given(
    st.dictionaries(
        st.sampled_from(["id", "name", "size", "timestamp", "consistency", "usermeta-a", EXTRA]),
        TEXT
        | st.sampled_from(
            ["-1", "²", "9" * 30, "=?UTF-8?B?!?=", "=?x?y?z?=", "[]", "{}", '{"v":1}']
        )
        | st.recursive(
            st.none() | st.integers() | TEXT | st.just(1),
            lambda each: st.dictionaries(
                st.sampled_from(["v", "digest", "node", "name", "metadata", "type", "modified"]),
                each,
            ),
        ).map(
            lambda value: json.dumps(
                {"v": 1, "x": value} | (value if isinstance(value, dict) else {})
            )
        ),
    )
)
def test_whatever_stands_there_makes_a_record(entries: dict[str, str]) -> None:
    found = restored("k", Held(SIZE, entries, "image/png", 77))
    assert (found.key, found.size, found.is_upstream) == ("k", SIZE, True)
    assert found.level in (UPSTREAM, FULL)
    assert 0 <= found.timestamp < 1 << 63
    assert 0 <= found.modified < 1 << 63
    texts = [found.name, found.node, found.content_type, *found.metadata, *found.metadata.values()]
    assert all(isinstance(text, str) for text in texts)


def test_other_programs_get_plain_entries_as_far_as_there_are() -> None:
    sent = record(key="ID", name="n.txt", metadata={"Foo": "bar", "é": "x"}, timestamp=9)
    entries = entries_of(sent, DIGEST, SIZE)
    extra = json.loads(entries.pop(EXTRA))
    assert entries == {
        "id": "ID",
        "name": "n.txt",
        "size": "7",
        "timestamp": "9",
        "consistency": "1",
        "usermeta-foo": "bar",
    }
    assert extra["metadata"] == {"Foo": "bar", "é": "x"}


def test_what_plain_entries_hold_is_not_said_twice() -> None:
    entries = entries_of(record(name="n", metadata={"a": "b"}), DIGEST, SIZE)
    assert set(json.loads(entries[EXTRA])) == {"v", "digest", "node"}


def test_doubled_entries_go_where_there_is_no_room_for_both() -> None:
    metadata = {f"Key-{number}": "v" * 50 for number in range(20)}
    entries = entries_of(record(metadata=metadata), DIGEST, SIZE)
    assert not [name for name in entries if name.startswith("usermeta-")]
    assert restored("k", Held(SIZE, entries)).metadata == metadata


def test_more_than_the_service_holds_is_refused_with_both_numbers() -> None:
    sent = record(metadata={"a": "v" * UPSTREAM_METADATA_BYTES})
    with pytest.raises(TooLarge, match=r"take 2\d\d\d bytes.* 2048") as caught:
        entries_of(sent, DIGEST, SIZE)
    assert caught.value.hint
    assert entries_of(sent, DIGEST, SIZE, limit_bytes=None)


def test_a_digest_holds_only_for_a_content_of_that_size() -> None:
    entries = entries_of(record(), DIGEST, SIZE)
    assert restored("k", Held(SIZE, entries)).digest == DIGEST
    assert restored("k", Held(SIZE + 1, entries)).digest is None


@pytest.mark.parametrize("field", ["timestamp", "node"])
def test_another_write_of_the_same_content_is_not_the_same(field: str) -> None:
    found = restored("k", Held(SIZE, entries_of(record(), DIGEST, SIZE)))
    other: dict[str, object] = {"timestamp": 6} if field == "timestamp" else {"node": "m"}
    assert is_same(found, record(), DIGEST, SIZE)
    assert not is_same(found, record(**other), DIGEST, SIZE)
    assert not is_same(found, record(), Digest.of(b"other"), SIZE)


def test_text_that_a_service_encoded_is_decoded() -> None:
    entries = {"id": "k", "name": "=?UTF-8?B?Wm/DqQ==?=", "usermeta-a": "=?UTF-8?Q?Zo=C3=A9?="}
    found = restored("k", Held(SIZE, entries))
    assert (found.name, found.metadata) == ("Zoé", {"a": "Zoé"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.HTML", "text/html; charset=utf-8"),
        ("dir.d/a.png", "image/png"),
        ("dir.png/a", ""),
        ("none", ""),
        ("a.unheard-of", ""),
        ("", ""),
    ],
)
def test_the_type_is_told_by_the_name(name: str, kind: str) -> None:
    assert type_by_name(name) == kind
    assert content_type_of(record(name=name)) == kind


def test_a_type_that_was_given_counts_if_it_can_be_sent() -> None:
    assert content_type_of(record(name="a.png", content_type="image/own")) == "image/own"
    assert content_type_of(record(name="a.png", content_type="im\nage/own")) == "image/png"
