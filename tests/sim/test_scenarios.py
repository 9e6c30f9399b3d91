"""Clusters under faults of every kind: some dozens of seeds. ``make soak`` runs thousands."""

import pytest

from tierce.testing.scenarios import run_seed

SEEDS = 16


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_lost_or_wrong_and_the_cluster_heals(seed: int) -> None:
    report = run_seed(seed)
    # A seed may draw an hour in which nothing gets through; then it is refused, not forgotten.
    tried = [count for name, count in report.counts.items() if name.startswith("puts ")]
    assert sum(tried) > 0


@pytest.mark.long
def test_most_of_what_is_put_and_read_gets_through() -> None:
    reports = [run_seed(seed) for seed in (1, 2, 3)]
    for what in ("puts acknowledged", "gets answered"):
        assert sum(report.counts.get(what, 0) for report in reports) > 100
