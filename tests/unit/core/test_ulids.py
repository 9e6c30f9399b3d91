"""ULIDs are read strictly, and made from a time and random bytes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core import ulids
from tierce.core.errors import BadRequest

ID = "01BRNMMS1DK3CBD4ZZM2TQ8C5B"
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
FORM = re.compile(r"^[0-9A-HJKMNP-TV-Z]{26}$", re.ASCII)


def test_capitals_and_small_letters_are_the_same_id() -> None:
    assert ulids.parse(ID) == ulids.parse(ID.lower()) == ID


@pytest.mark.parametrize(
    "text",
    [
        "", "nope", ID[:-1], f"{ID}0", f" {ID}", f"{ID}\n", f"8{ID[1:]}", "Z" * 26,
        *(ID[:-1] + wrong for wrong in "ILOUilou-_/.\0é\u0131\u017f\uff21\u0661"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        ulids.parse(text)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("prefix", "is_in"),
    [("014N165Y00", True), ("014N165XZZ", False), ("03QA3ZGPZ7", True), ("03QA3ZGPZ8", False),
     ("0000000000", False), ("7ZZZZZZZZZ", False)],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["0" * 16, "Z" * 16])
def test_the_time_must_lie_within_objstores_window(prefix: str, is_in: bool, rest: str) -> None:
    if is_in:
        assert ulids.parse(prefix + rest) == prefix + rest
    else:
        with pytest.raises(BadRequest):
            ulids.parse(prefix + rest)


@given(st.integers(ulids.EARLIEST_SECONDS * 1000, ulids.LATEST_SECONDS * 1000 + 999),
       st.binary(min_size=10, max_size=10))  # fmt: skip
def test_what_is_made_is_read_again(now: int, randomness: bytes) -> None:
    made = ulids.make(now, randomness)
    assert ulids.parse(made) == made
    assert ulids.milliseconds(made) == now


def test_the_form_is_crockfords() -> None:
    value = 0
    for character in ID:
        value = value * 32 + ALPHABET.index(character)
    now, randomness = value >> 80, (value & (1 << 80) - 1).to_bytes(10, "big")
    assert ulids.make(now, randomness) == ID
    assert ulids.make(0, bytes(10)) == "0" * 26
    assert ulids.make((1 << 48) - 1, b"\xff" * 10) == "7" + "Z" * 25


@given(
    st.text(max_size=30) | st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZabcz", min_size=26, max_size=26)
)
def test_what_comes_out_has_one_form(text: str) -> None:
    try:
        found = ulids.parse(text)
    except BadRequest:
        return
    assert FORM.fullmatch(found)
    assert found[0] <= "7"
    assert found.lower() == text.lower()
