"""What the client commands write."""

import pytest

from tierce.cli import progress
from tierce.cli.progress import Meter, plain_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.txt", "plain name.txt"),
        ("caf\u00e9", "caf\u00e9"),
        ("a\\b", "a\\\\b"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\u2028\u202e", "\\u2028\\u202e"),
    ],
)
def test_a_name_stays_in_its_line(name: str, shown: str) -> None:
    assert plain_name(name) == shown
    assert shown.encode()


def test_lines_are_the_same_with_and_without_bars(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (False, True):
        with Meter(shown=shown) as meter, meter.transfer("[bold]x") as report:
            if report is not None:
                report(1, 2 << 20)
            meter.count(7)
            meter.say("result")
            meter.complain("complaint [red]")
        captured = capsys.readouterr()
        assert captured.out == "result\n"
        assert "complaint [red]\n" in captured.err


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_without_bars_sums_are_told_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(progress, "TALLY_SECONDS", seconds)
    with Meter(shown=False) as meter:
        meter.tally("1 imported", 7)
        meter.tally("2 imported", 7)
    lines = ["tierce: 1 imported so far", "tierce: 2 imported so far"]
    assert capsys.readouterr().err.splitlines() == ([] if seconds else lines)


def test_bars_show_sums(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(shown=True) as meter:
        meter.tally("1 imported", 7)
        assert "1 imported so far" not in capsys.readouterr().err


def test_without_a_terminal_there_is_nothing_to_report_to() -> None:
    with Meter(shown=False) as meter, meter.transfer("x") as report:
        assert report is None
