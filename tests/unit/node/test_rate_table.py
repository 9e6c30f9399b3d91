"""The table that counts requests: what it lets in, who shares a place, and what processes share."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.core.limits import RATE_TABLE_PLACES
from tierce.node.rate_table import RateTable


@pytest.fixture
def table() -> Iterator[RateTable]:
    found = RateTable.open(None)
    yield found
    found.close()


def test_a_burst_is_let_in_then_one_request_an_interval(table: RateTable) -> None:
    let_in = [table.take(b"me", 100.0, 0.5, 2.0) == 0 for _ in range(6)]
    assert let_in == [True, True, True, True, True, False]
    assert table.take(b"me", 100.0, 0.5, 2.0) == pytest.approx(0.5)
    assert table.take(b"me", 100.5, 0.5, 2.0) == 0
    assert table.take(b"me", 100.6, 0.5, 2.0) == pytest.approx(0.4)


def test_who_was_refused_need_not_wait_longer_for_it(table: RateTable) -> None:
    assert table.take(b"me", 0.0, 1.0, 0.0) == 0
    for _ in range(50):
        assert table.take(b"me", 0.5, 1.0, 0.0) == pytest.approx(0.5)
    assert table.take(b"me", 1.0, 1.0, 0.0) == 0


def test_callers_do_not_count_for_each_other(table: RateTable) -> None:
    refused = [n for n in range(2000) if table.take(f"{n}".encode(), 5.0, 1.0, 0.0)]
    assert refused == []


def test_with_more_callers_than_places_the_longest_silent_give_way(table: RateTable) -> None:
    for n in range(3 * RATE_TABLE_PLACES):
        table.take(f"{n}".encode(), 1.0, 1.0, 0.0)
    assert table.take(b"newcomer", 5.0, 1.0, 0.0) == 0
    assert table.take(b"newcomer", 5.0, 1.0, 0.0) > 0


def test_processes_share_what_is_in_the_file(tmp_path: Path) -> None:
    one, other = RateTable.open(tmp_path / "rates"), RateTable.open(tmp_path / "rates")
    assert one.take(b"me", 1.0, 1.0, 0.0) == 0
    assert other.take(b"me", 1.0, 1.0, 0.0) == pytest.approx(1.0)
    one.close()
    other.close()


def test_without_room_on_the_disk_each_process_counts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    table = RateTable.open(tmp_path / "rates")
    assert table.take(b"me", 1.0, 1.0, 0.0) == 0
    assert table.take(b"me", 1.0, 1.0, 0.0) == pytest.approx(1.0)
    assert "each worker counts requests by itself" in caplog.text
    table.close()
