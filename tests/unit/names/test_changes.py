"""Where a reader of a feed goes on, whatever became of the disk that it read from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierce.core.errors import BadRequest
from tierce.names.changes import Epoch, Position, resume

RUNS = (Epoch("A", 0), Epoch("B", 100), Epoch("C", 250))

names = st.text("0123456789ABCXYZabcxyz", min_size=1, max_size=40)


@given(names, st.integers(0, 10**19 - 1))
def test_a_position_is_read_back_as_it_was_written(name: str, seq: int) -> None:
    assert Position.parse(str(Position(name, seq))) == Position(name, seq)


@pytest.mark.parametrize(
    "text",
    ["", "A", "A-", "-5", "A-5-6", "A--5", "A-5 ", " A-5", "A-5\n", "A-x", "A_B-5", "Ä-5", "A-\u0665",
     "A" * 41 + "-5", "A-" + "9" * 20],
)  # fmt: skip
def test_anything_else_is_no_position(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Position.parse(text)
    assert "since" in caught.value.hint


@given(st.text(max_size=60))
def test_hostile_text_is_refused_or_read_exactly(text: str) -> None:
    try:
        position = Position.parse(text)
    except BadRequest:
        return
    assert position.epoch == text.partition("-")[0]
    assert position.seq == int(text.partition("-")[2])


@pytest.mark.parametrize("seq", [250, 251, 300])
def test_in_the_run_in_force_a_reader_goes_on_where_it_was(seq: int) -> None:
    assert resume(RUNS, 300, Position("C", seq)) == seq


@pytest.mark.parametrize("seq", [0, 99, 100])
def test_over_a_restart_a_reader_goes_on_where_it_was(seq: int) -> None:
    assert resume(RUNS, 300, Position("A", seq)) == seq


@pytest.mark.parametrize(
    ("name", "seq", "end"), [("A", 101, 100), ("A", 999, 100), ("B", 300, 250)]
)
def test_what_a_restored_disk_has_lost_is_read_again(name: str, seq: int, end: int) -> None:
    assert resume(RUNS, 300, Position(name, seq)) == end


def test_beyond_the_last_change_a_reader_goes_on_at_it() -> None:
    assert resume(RUNS, 300, Position("C", 301)) == 300


def test_on_another_disk_a_reader_begins_at_the_start() -> None:
    assert resume(RUNS, 300, Position("D", 0)) is None
    assert resume((), 0, Position("A", 0)) is None


class Disk:
    """A feed in obvious lines: which change has which number, and the runs it was written in."""

    def __init__(self) -> None:
        self.changes: list[int] = []
        self.epochs: tuple[Epoch, ...] = ()

    def copy(self) -> "Disk":
        other = Disk()
        other.changes, other.epochs = list(self.changes), self.epochs
        return other


@given(
    st.lists(
        st.sampled_from(["write", "write", "write", "read", "restart", "copy", "restore", "empty"]),
        max_size=40,
    )
)
def test_a_reader_misses_no_change_whatever_happens_to_the_disk(steps: list[str]) -> None:
    """It may read a change twice, but what the disk has at the end, it has read."""
    disk, kept, runs, written = Disk(), Disk(), 0, 0
    position: Position | None = None
    read: set[int] = set()

    def restart() -> None:
        nonlocal runs
        runs += 1
        disk.epochs = (*disk.epochs, Epoch(f"E{runs}", len(disk.changes)))

    restart()
    for step in [*steps, "read"]:
        if step == "write":
            written += 1
            disk.changes.append(written)
        elif step == "read":
            start = position and resume(disk.epochs, len(disk.changes), position)
            read.update(disk.changes[start or 0 :])
            position = Position(disk.epochs[-1].name, len(disk.changes))
            assert read.issuperset(disk.changes)
        elif step == "copy":
            kept = disk.copy()
        elif step in ("restore", "empty"):
            disk = kept.copy() if step == "restore" else Disk()
            restart()
        else:
            restart()
