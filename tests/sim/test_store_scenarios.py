"""A store in the cloud under faults of every kind: some seeds.

``python -m tierce.testing.soak --stores`` runs thousands.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from tierce.blobs import cloud
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_checking import Checking
from tierce.blobs.cloud_clearing import Clearing
from tierce.blobs.cloud_uploading import Uploads
from tierce.blobs.environment import WriteBatch
from tierce.blobs.spool import SpoolSource
from tierce.core.digest import Digest
from tierce.testing.scenarios import Failed
from tierce.testing.soak import main
from tierce.testing.store_scenarios import command, run_store_seed

SEEDS = 3
ENOUGH_SEEDS = 30
"""A mistake of the store's is found within so many."""


run = lru_cache(run_store_seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_acknowledged_is_lost_and_all_is_in_order_in_the_end(seed: int) -> None:
    assert run(seed).counts["put done"] > 0


def test_most_of_what_is_asked_gets_through() -> None:
    reports = [run(seed) for seed in range(SEEDS)]
    for what in ("put", "get", "check", "delete", "collect"):
        done = sum(report.counts[f"{what} done"] for report in reports)
        failed = sum(report.counts.get(f"{what} unavailable", 0) for report in reports)
        assert done > max(50, 2 * failed)


async def _unverified(self: Checking, digest: Digest, row: Row) -> bytes | None:
    return await self._bucket.read(self._ground.path(digest), 0, row.size)


async def _nothing_sent(self: Uploads, source: SpoolSource) -> tuple[str, int]:
    return "", 0


async def _nothing(self: Clearing, is_dead: Callable[[int], bool]) -> None:
    pass


Mistake = tuple[object, str, Callable[..., Any], str]
MISTAKES: dict[str, Mistake] = {
    "unverified reads": (Checking, "read_small", _unverified, "other bytes"),
    "uploads that send nothing": (Uploads, "_send", _nothing_sent, "is not found"),
    "uploads of the dead": (Clearing, "end_uploads", _nothing, "an upload of .* has no end"),
    "counts that stand still": (WriteBatch, "count", lambda *given: None, "counts are"),
    "collected claims": (cloud, "is_due", lambda *given: True, "was collected"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_of_the_store_is_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong, told = mistake
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(Failed, match=told):
        for seed in range(ENOUGH_SEEDS):
            run_store_seed(seed)


def test_a_failing_seed_tells_how_to_run_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*given: object) -> list[str]:
        return ["planted"]

    monkeypatch.setattr("tierce.testing.store_scenarios.disorder", find)
    assert main(["--stores", "--seed", "3"]) == 1
    said = capsys.readouterr().out
    assert "FAILED seed 3: Violation: not in order: planted" in said
    assert command(3) in said
