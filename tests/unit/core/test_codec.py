"""Records travel with a version, and what can't be read is refused with what to do about it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.codec import VERSION, decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest


class Older(msgspec.Struct, array_like=True):
    name: str


class Newer(msgspec.Struct, array_like=True):
    name: str
    extra: int = 7


def test_a_record_begins_with_its_version() -> None:
    assert encode(Older("x"))[0] == VERSION


def test_what_was_encoded_is_decoded() -> None:
    assert decode(encode(Newer("x", 3)), Newer, "thing") == Newer("x", 3)


def test_a_digest_survives() -> None:
    digest = Digest.of(b"x")
    assert decode(encode([digest]), list[Digest], "list") == [digest]


def test_a_memoryview_can_be_decoded() -> None:
    assert decode(memoryview(encode(Older("x"))), Older, "thing") == Older("x")


def test_a_newer_program_reads_what_an_older_one_wrote() -> None:
    assert decode(encode(Older("x")), Newer, "thing") == Newer("x", 7)


def test_an_older_program_reads_what_a_newer_one_wrote() -> None:
    assert decode(encode(Newer("x", 3)), Older, "thing") == Older("x")


def test_nothing_at_all_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="the thing is empty"):
        decode(b"", Older, "thing")


def test_another_version_is_refused_and_both_are_told() -> None:
    with pytest.raises(BadRequest, match=f"has version 9, and this program reads {VERSION}") as it:
        decode(b"\x09" + encode(Older("x"))[1:], Older, "thing")
    assert "Upgrade" in it.value.hint


def test_what_has_another_shape_is_refused() -> None:
    with pytest.raises(BadRequest, match="the thing can't be read"):
        decode(encode([1]), Older, "thing")


def test_text_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest):
        decode(bytes([VERSION]) + b"\x91\xa2\xff\xfe", Older, "thing")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_as_a_bad_request(data: bytes) -> None:
    try:
        decode(bytes([VERSION]) + data, list[Newer | int | str | None], "thing")
    except BadRequest:
        return


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BadRequest):
        decode(bytes([VERSION]) + b"\x91" * 100_000 + b"\xc0", object, "thing")
