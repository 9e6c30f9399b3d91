"""A seed is a run: whoever runs it, whenever, sees the same events at the same simulated times."""

import os
import subprocess
import sys

import pytest

from tierce.testing.checkers import Violation
from tierce.testing.scenarios import command
from tierce.testing.soak import main


def outcome(seed: int, hash_seed: str, *more: str) -> str:
    """What a process of its own says of a seed: the trace's digest among it."""
    done = subprocess.run(
        [sys.executable, "-m", "tierce.testing.soak", *more, "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"seed {seed}: " in done.stdout
    assert ", trace " in done.stdout
    return done.stdout


@pytest.mark.parametrize("seed", [4, 8])
def test_the_same_seed_runs_the_same_whatever_the_hash_seed(seed: int) -> None:
    assert outcome(seed, "1") == outcome(seed, "2")


@pytest.mark.parametrize("seed", [3])
def test_so_does_a_seed_of_named_objects(seed: int) -> None:
    assert outcome(seed, "1", "--names") == outcome(seed, "2", "--names")


@pytest.mark.parametrize("seed", [0])
def test_so_does_one_of_a_store_in_the_cloud(seed: int) -> None:
    assert outcome(seed, "1", "--stores") == outcome(seed, "2", "--stores")


def test_a_failing_seed_tells_how_to_run_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(self: object) -> None:
        raise Violation("planted")

    monkeypatch.setattr("tierce.testing.sim_cluster.SimCluster.check", find)
    assert main(["--seed", "12345"]) == 1
    said = capsys.readouterr().out
    assert "FAILED seed 12345: Violation: planted" in said
    assert command(12345) in said
