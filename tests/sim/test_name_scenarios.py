"""Named objects under faults of every kind: some seeds. ``python -m tierce.testing.soak --names``
runs thousands.
"""

from functools import lru_cache

import pytest

from tierce.testing.name_scenarios import command, run_name_seed
from tierce.testing.soak import main

SEEDS = 8


run = lru_cache(run_name_seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost_and_all_nodes_agree(seed: int) -> None:
    report = run(seed)
    tried = [count for name, count in report.counts.items() if name.startswith("object put ")]
    assert sum(tried) > 0


def test_most_of_what_is_put_and_read_gets_through() -> None:
    reports = [run(seed) for seed in (0, 2, 3)]
    for what in ("object put acknowledged", "level 0 put acknowledged", "level get answered"):
        assert sum(report.counts.get(what, 0) for report in reports) > 50


def test_a_failing_seed_tells_how_to_run_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(self: object) -> None:
        raise AssertionError("planted")

    monkeypatch.setattr("tierce.testing.sim_objects.NameCluster.check", find)
    assert main(["--names", "--seed", "12345"]) == 1
    said = capsys.readouterr().out
    assert "FAILED seed 12345: AssertionError: planted" in said
    assert command(12345) in said
