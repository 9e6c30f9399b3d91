"""The reserve: writes are refused below it, and accepted again above it."""

from pathlib import Path

import pytest

from tierce.blobs.space import Space, SpaceGuard
from tierce.core.errors import Full, ReadOnly
from tierce.core.limits import (
    INDEX_MARGIN_BYTES,
    RESERVE_BYTES,
    RESERVE_PERCENT,
    SPACE_CHECK_SECONDS,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_default_reserve_is_the_smaller_of_two(tmp_path: Path) -> None:
    space = SpaceGuard(tmp_path).look()
    assert space.reserve == min(RESERVE_BYTES, space.total * RESERVE_PERCENT // 100)


def test_a_body_that_would_eat_into_the_reserve_is_refused(tmp_path: Path) -> None:
    free = SpaceGuard(tmp_path).look().free
    guard = SpaceGuard(tmp_path, reserve_bytes=free // 2)
    guard.check(free // 8)
    with pytest.raises(Full) as caught:
        guard.check(free)
    assert "reserve" in caught.value.hint


def test_room_that_comes_back_is_seen_within_a_moment(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = SpaceGuard(tmp_path, reserve_bytes=1 << 60, monotonic=clock)
    assert isinstance(guard.why_not(), Full)
    monkeypatch.setattr(guard, "_reserve_bytes", 0)
    assert isinstance(guard.why_not(), Full)
    clock.now += SPACE_CHECK_SECONDS
    assert guard.why_not() is None


def test_a_node_set_read_only_says_so_even_with_room(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly):
        SpaceGuard(tmp_path, reserve_bytes=0, read_only=True).check()


def test_the_figures_are_those_of_the_file_system(tmp_path: Path) -> None:
    space = SpaceGuard(tmp_path, reserve_bytes=5).look()
    assert isinstance(space, Space)
    assert 0 < space.free <= space.total
    assert space.reserve == 5


def test_small_blobs_fit_into_freed_pages_of_the_index_on_a_full_disk(tmp_path: Path) -> None:
    guard = SpaceGuard(tmp_path, reserve_bytes=1 << 60)
    guard.index_room = lambda: 2 * INDEX_MARGIN_BYTES
    guard.check(4096)
    with pytest.raises(Full):
        guard.check(4096, in_file=True)
    with pytest.raises(Full):
        guard.check(INDEX_MARGIN_BYTES)
