"""JSON in Go's form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.doors.objstore import gojson


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"b": 1, "a": None}, '{"b":1,"a":null}'),
        ([True, False, [], {}], "[true,false,[],{}]"),
        ("<a href='x'>&amp;</a>", "\"\\u003ca href='x'\\u003e\\u0026amp;\\u003c/a\\u003e\""),
        ("\u2028\u2029é😀\x7f", '"\\u2028\\u2029é😀\x7f"'),
        ("\n\r\t\b\f\x00\x1f", '"\\n\\r\\t\\u0008\\u000c\\u0000\\u001f"'),
        ("\\b\\\\f\"", '"\\\\b\\\\\\\\f\\""'),
        ("\\<", '"\\\\\\u003c"'),
        (1_503_965_375_000_000_001, "1503965375000000001"),
    ],
)  # fmt: skip
def test_json_is_as_go_writes_it(content: object, text: str) -> None:
    assert gojson.encode(content) == text


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_json_reads_back(content: object) -> None:
    text = gojson.encode(content)
    assert json.loads(text) == content
    assert not set("<>&\u2028\u2029") & set(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (100.0, "100"), (0.5, "0.5"), (1e20, "100000000000000000000"),
        (1e21, "1e+21"), (1.5e300, "1.5e+300"), (1e-6, "0.000001"), (9.3e-7, "9.3e-7"),
        (1e-10, "1e-10"), (-2.5, "-2.5"), (1 / 3, "0.3333333333333333"),
    ],
)  # fmt: skip
def test_numbers_are_as_go_writes_them(value: float, text: str) -> None:
    assert gojson.number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back(value: float) -> None:
    text = gojson.number(value)
    assert float(text) == value
    assert isinstance(json.loads(text), int | float)
