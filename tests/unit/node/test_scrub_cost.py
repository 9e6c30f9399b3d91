"""What the scrub of a store in the cloud costs in a month, by plain sums."""

import pytest

from tierce.blobs.cloud_proof import Vouched
from tierce.blobs.store import Counts
from tierce.core.limits import KIB, MIB
from tierce.node.scrub_cost import MONTH_SECONDS, ScrubMonth, ScrubPace, by_reading, by_tags

PACE = ScrubPace(2.0, 256 * KIB, 600.0, 4 * MIB)


def vouched(unproved: int = 0, unproved_bytes: int = 0, *, has_tags: bool = True) -> Vouched:
    return Vouched(0, "place", unproved, unproved_bytes, has_tags)


def test_a_few_blobs_are_read_once_in_each_pass_and_passes_rest() -> None:
    # 10 blobs take 20 seconds, and the scrub rests for 600.
    passes = MONTH_SECONDS / 620
    assert by_reading(Counts(10, 1000), PACE, 12) == ScrubMonth(
        30 * 12, 0, int(passes * 10), int(passes * 1000)
    )


def test_many_blobs_are_read_as_fast_as_is_allowed() -> None:
    many = by_reading(Counts(1000, 1000 * 40 * MIB), PACE, 1)
    assert many.read_bytes == pytest.approx(MONTH_SECONDS * 256 * KIB, rel=0.01)
    assert many.read_requests == pytest.approx(many.read_bytes / (4 * MIB) * 1.1, rel=0.01)


def test_what_has_a_tag_is_read_every_180_days() -> None:
    assert by_tags(Counts(1200, 12_000), vouched(), PACE, 100) == ScrubMonth(3000, 200, 200, 2000)


def test_what_has_no_tag_is_read_once_more() -> None:
    assert by_tags(Counts(1200, 12_000), vouched(600, 6000), PACE, 100) == ScrubMonth(
        3000, 700, 700, 7000
    )


def test_before_the_first_comparison_nothing_has_a_tag() -> None:
    assert by_tags(Counts(1200, 12_000), None, PACE, 100) == ScrubMonth(3000, 1200, 1200, 12_000)


def test_no_more_is_read_than_the_pace_allows() -> None:
    many = by_tags(Counts(10_000_000, 10_000_000), None, PACE, 100)
    assert many.read_requests == many.look_requests == MONTH_SECONDS / 2


def test_a_listing_without_tags_saves_nothing() -> None:
    counts = Counts(1200, 12_000)
    assert by_tags(counts, vouched(has_tags=False), PACE, 9) == by_reading(counts, PACE, 9)


def test_an_empty_store_costs_its_listing() -> None:
    for month in (by_tags(Counts(0, 0), None, PACE, 2), by_reading(Counts(0, 0), PACE, 2)):
        assert month == ScrubMonth(60, 0, 0, 0)
