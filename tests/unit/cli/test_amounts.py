"""Sizes, times and counts in words."""

import pytest

from tierce.cli.amounts import count_text, duration_text, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 30, "5 GiB"),
        (1 << 50, "1 PiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_a_size_has_its_unit(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (0.4, "0.4 s"), (59.9, "59.9 s"), (60, "1 min"),
        (93784.2, "1 d 2 h 3 min 4 s"),
    ],
)  # fmt: skip
def test_a_duration_has_its_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_one_is_no_plural() -> None:
    assert [count_text(count, "blob") for count in (0, 1, 2)] == ["0 blobs", "1 blob", "2 blobs"]
