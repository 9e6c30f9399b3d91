"""Conditional requests, against RFC 9110's tables and a model that writes the lists itself."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.doors.shared.conditions import Outcome, etag_matches, evaluate, range_applies

ETAG = '"sha1:bec6a3ef"'
DATE = "Sat, 29 Oct 1994 19:43:31 GMT"

opaque = st.text(
    alphabet=st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'),
    max_size=4,
).map('"{}"'.format)
tags = st.tuples(st.booleans(), st.one_of(st.just(ETAG), opaque, st.sampled_from(['"1"', '","'])))
commas = st.sampled_from([",", ", ", " , ", ",,", "\t, ,"])


@pytest.mark.parametrize(
    ("first", "second", "strong", "weak"),
    [
        # RFC 9110, section 8.8.3.2, its four rows; our own tags are always strong.
        ('W/"1"', '"1"', False, True),
        ('W/"2"', '"1"', False, False),
        ('"1"', '"1"', True, True),
        ('"2"', '"1"', False, False),
    ],
)
def test_the_comparison_table_of_the_rfc(first: str, second: str, strong: bool, weak: bool) -> None:
    assert etag_matches(first, second, weak=False) is strong
    assert etag_matches(first, second, weak=True) is weak


@pytest.mark.parametrize(
    "header",
    [
        "*",
        " * ",
        ETAG,
        f" {ETAG}\t",
        f'"xyzzy", {ETAG}, "c3piozzzz"',
        f'"xyzzy",{ETAG},"c3piozzzz"',
        f",, {ETAG} , ,",
        f'"a,b", "", {ETAG}',
        f'W/"xyzzy", {ETAG}',
        f'"\u00e9\udc80", {ETAG}',
        f"{ETAG}, {ETAG}",
    ],
)
def test_lists_that_name_the_tag(header: str) -> None:
    assert etag_matches(header, ETAG, weak=False)
    assert etag_matches(header, ETAG, weak=True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        ",",
        '"xyzzy"',
        '""',
        "sha1:bec6a3ef",
        '"sha1:bec6a3ef',
        'sha1:bec6a3ef"',
        "'sha1:bec6a3ef'",
        f"w/{ETAG}",
        f"W/ {ETAG}",
        f"WW/{ETAG}",
        f'"x" {ETAG}',
        f"{ETAG}{ETAG}",
        f"{ETAG}; {ETAG}",
        f"{ETAG}, sha1:bec6a3ef",
        f"*, {ETAG}",
        "*, *",
        "**",
        '"*"',
        ETAG.upper(),
        f"{ETAG}\n",
        f'"a b", {ETAG}',
        f'"a\\"b", {ETAG}',
        f'"{ETAG},{ETAG}"',
        DATE,
    ],
)
def test_garbage_and_other_tags_match_nothing(header: str) -> None:
    assert not etag_matches(header, ETAG, weak=False)
    assert not etag_matches(header, ETAG, weak=True)


def test_a_tag_inside_the_quotes_of_another_does_not_count() -> None:
    assert not etag_matches('"a,b"', '"b"', weak=True)
    assert etag_matches('"a,b"', '"a,b"', weak=False)


@given(st.lists(tags, max_size=6), st.data())
def test_a_list_matches_if_a_member_does(
    members: list[tuple[bool, str]], data: st.DataObject
) -> None:
    header = ""
    for is_weak, tag in members:
        header += ("W/" if is_weak else "") + tag + data.draw(commas)
    assert etag_matches(header, ETAG, weak=True) is any(tag == ETAG for _, tag in members)
    assert etag_matches(header, ETAG, weak=False) is ((False, ETAG) in members)


@given(st.text(alphabet='W/"ab*,\t \\\n'))
def test_a_text_without_the_tag_never_matches_it(header: str) -> None:
    assert etag_matches(header, '"c"', weak=True) is (header.strip(" \t") == "*")


@given(st.text(), st.sampled_from(["If-Match", "If-None-Match"]), st.booleans())
def test_any_text_gives_an_outcome(text: str, name: str, safe: bool) -> None:
    outcome = evaluate({name: text}, ETAG, safe=safe)
    assert outcome is not Outcome.NOT_MODIFIED or (safe and name == "If-None-Match")


@pytest.mark.parametrize("text", [" ", "\t ", ",", '"', '"" ', "W/", '"",'])
def test_floods_are_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    assert not etag_matches(text * 200_000 + "x", ETAG, weak=True)
    assert time.process_time() - began < 2


def test_a_weak_or_unquoted_tag_of_our_own_is_our_mistake() -> None:
    for etag in (f"W/{ETAG}", "bare", '"a b"'):
        with pytest.raises(AssertionError):
            etag_matches("*", etag, weak=True)
        with pytest.raises(AssertionError):
            range_applies(None, etag)


PROCEED, NOT_MODIFIED, FAILED = Outcome


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "read", "change"),
    [
        (None, None, PROCEED, PROCEED),
        (ETAG, None, PROCEED, PROCEED),
        ("*", None, PROCEED, PROCEED),
        ('"other"', None, FAILED, FAILED),
        (f"W/{ETAG}", None, FAILED, FAILED),
        ("garbage", None, FAILED, FAILED),
        ("", None, FAILED, FAILED),
        (None, ETAG, NOT_MODIFIED, FAILED),
        (None, "*", NOT_MODIFIED, FAILED),
        (None, f"W/{ETAG}", NOT_MODIFIED, FAILED),
        (None, '"other"', PROCEED, PROCEED),
        (None, "garbage", PROCEED, PROCEED),
        (None, "", PROCEED, PROCEED),
        (ETAG, ETAG, NOT_MODIFIED, FAILED),
        (ETAG, '"other"', PROCEED, PROCEED),
        ('"other"', ETAG, FAILED, FAILED),
        ('"other"', '"other"', FAILED, FAILED),
    ],
)
def test_if_match_comes_before_if_none_match(
    if_match: str | None, if_none_match: str | None, read: Outcome, change: Outcome
) -> None:
    fields = {"If-Match": if_match, "If-None-Match": if_none_match}
    headers = {name: value for name, value in fields.items() if value is not None}
    assert evaluate(headers, ETAG, safe=True) is read
    assert evaluate(headers, ETAG, safe=False) is change


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Unmodified-Since"])
def test_conditions_with_dates_are_ignored(name: str) -> None:
    assert evaluate({name: DATE}, ETAG, safe=True) is Outcome.PROCEED
    assert evaluate({name: DATE}, ETAG, safe=False) is Outcome.PROCEED


@pytest.mark.parametrize("if_range", [None, ETAG, f" {ETAG} "])
def test_a_range_applies_without_if_range_or_with_the_same_tag(if_range: str | None) -> None:
    assert range_applies(if_range, ETAG)


@pytest.mark.parametrize(
    "if_range", ["", "*", '"other"', f"W/{ETAG}", f"{ETAG}, {ETAG}", "sha1:bec6a3ef", DATE]
)
def test_a_range_does_not_apply_with_anything_else(if_range: str) -> None:
    assert not range_applies(if_range, ETAG)
