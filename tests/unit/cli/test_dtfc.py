"""``tierce dtfc``: the flags of dtfc in both forms, and what the operator is told."""

import os
from pathlib import Path
from typing import Any

import pytest

from tierce.cli import dtfc, options
from tierce.cli.main import main
from tierce.core.errors import BadRequest
from tierce.core.settings import Settings
from tierce.doors.dtfc.environment import FLAGS
from tierce.wiring import check_exposure

NODE_ID = "01BRNEKEZGKFSPAT10KZM5A141"


class Started:
    """What the last node was started with."""

    settings: Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """Take the place of a node that runs. Nothing that this machine has set counts."""
    found = Started()

    def serve(settings: Settings, announce: Any) -> int:
        found.settings = settings
        announce(NODE_ID, settings.listen)
        os.write(2, b"from the node\n")
        return 0

    for name in list(os.environ):
        if name.startswith("TIERCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "USUAL_FILES", (Path("tierce.toml"),))
    monkeypatch.setattr(dtfc, "serve", serve)
    return found


def run(*words: str) -> int:
    """The code that ``tierce dtfc`` ends with."""
    try:
        return main(["dtfc", *words])
    except SystemExit as ending:
        return int(ending.code or 0)


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "8001", "--basedir", "d", "--me", "http://a/", "--peerlist", "p", "--deny", "x"],
        ["-port", "8001", "-basedir", "d", "-me", "http://a/", "-peerlist", "p", "-deny", "x"],
        ["-port=8001", "--basedir=d", "-me=http://a/", "--peerlist=p", "-deny=x", "-temp=t"],
    ],
    ids=["two dashes", "one dash", "equals signs"],
)
def test_flags_are_taken_in_each_form(started: Started, words: list[str]) -> None:
    assert run(*words) == 0
    found = started.settings
    assert [str(each) for each in found.listen] == ["dtfc=0.0.0.0:8001"]
    assert found.data == Path("d")
    assert found.dtfc_me.rstrip("/") == "http://a"
    assert found.dtfc_peer_list == Path("p")
    assert found.dtfc_deny == "x"
    check_exposure(found)


def test_the_node_says_where_it_answers_and_notes_are_elsewhere(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-basedir", "d") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"tierce: node {NODE_ID} is ready", "tierce: dtfc=0.0.0.0:8080"]
    assert "tierce: everyone who reaches 0.0.0.0:8080 may read" in err
    assert "--me is not needed" in err


def test_a_missing_directory_is_an_error_of_usage(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 2
    assert "tierce: the base directory is not set\n  Name it" in capsys.readouterr().err


def test_the_log_is_appended_to_a_file(
    started: Started, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run("-basedir", "d", "-log", "log.txt") == 0
    assert (tmp_path / "log.txt").read_text() == "from the node\n" * 2
    assert "from the node" not in capfd.readouterr().err
    os.write(2, b"after it\n")
    assert "after it" in capfd.readouterr().err


def test_what_keeps_the_node_from_starting_is_told_in_spite_of_a_log(
    started: Started, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def serve(settings: Settings, announce: Any) -> int:
        raise BadRequest("it can't be")

    monkeypatch.setattr(dtfc, "serve", serve)
    assert run("-basedir", "d", "-log", "log.txt") == 2
    assert "tierce: it can't be" in capfd.readouterr().err


def test_a_log_that_can_not_be_written_is_refused(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-basedir", "d", "-log", "nowhere/log.txt") == 2
    assert "flag --log: 'nowhere/log.txt' can't be written" in capsys.readouterr().err


def test_tierces_own_variables_count(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCE_DTFC_PEERS", "http://10.0.0.9:8080")
    monkeypatch.setenv("TIERCE_TOKENS", f"reader:read:sha256-{64 * '0'}")
    assert run("-basedir", "d") == 0
    assert started.settings.dtfc_peers == ("http://10.0.0.9:8080",)
    assert started.settings.anonymous_rights is None


@pytest.mark.parametrize("word", ["-help", "--help", "-h"])
def test_help_names_every_flag(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(word) == 0
    text = capsys.readouterr().out
    for name, flag in FLAGS.items():
        assert f"-{name}, --{name} " in text
        assert flag.default in text
