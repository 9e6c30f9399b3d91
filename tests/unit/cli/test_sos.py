"""``tierce sos``: from the command lines of SOS's programs to settings, and what they say."""

import os
from pathlib import Path
from typing import Any

import pytest

from tierce.cli import options, sos, sos_servers
from tierce.cli.main import USAGE, main
from tierce.core.rights import Right
from tierce.core.settings import Settings
from tierce.wiring import check_exposure

FLAT = "http://localhost:4040\nhttp://localhost:4041\n"
FOUND = ("default=http://localhost:4040", "default=http://localhost:4041")


class Started:
    """What the last node was started with."""

    settings: Settings

    @property
    def servers(self) -> tuple[str, ...]:
        return self.settings.sos_servers


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """Take the place of a node that runs. Nothing that this machine has set counts."""
    found = Started()

    def serve(settings: Settings, announce: Any) -> int:
        check_exposure(settings)
        found.settings = settings
        announce("ID", settings.listen)
        return 0

    for name in list(os.environ):
        if name.startswith("TIERCE_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "USUAL_FILES", (Path("tierce.toml"),))
    monkeypatch.setattr(sos_servers, "USUAL_FILES", ("~/.sos.conf", str(tmp_path / "etc-sos.conf")))
    monkeypatch.setattr(sos, "serve", serve)
    return found


def run(*words: str) -> int:
    """As ``main`` runs it."""
    try:
        return main(["sos", *words])
    except SystemExit as ending:
        return int(ending.code or 0)


def test_the_programs_of_the_readme_start(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("blob-server", "--port", "4040", "./data1") == 0
    assert started.settings.data == Path("data1")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["tierce: node ID is ready", "tierce: sos-blob=0.0.0.0:4040"]
    assert "everyone who reaches 0.0.0.0:4040 may read and write, as in SOS" in err
    (tmp_path / ".sos.conf").write_text(FLAT)
    assert run("upload-server") == 0
    assert started.servers == FOUND
    assert started.settings.data == tmp_path / ".local/state/tierce/sos-upload-9991"
    assert started.settings.anonymous_rights == frozenset({Right.WRITE})
    assert run("download-server") == 0
    assert started.servers == FOUND
    assert started.settings.anonymous_rights == frozenset({Right.READ})
    assert run("api-server", "--api-host=127.0.0.1", "--upload-port=1", "--download-port=2") == 0
    assert [str(each) for each in started.settings.listen] == [
        "sos-upload=127.0.0.1:1", "sos-download=127.0.0.1:2",
    ]  # fmt: skip


def test_a_blob_server_asks_for_its_directory(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("blob-server", "--port", "4040") == USAGE
    assert "Missing argument 'DIR'" in capsys.readouterr().err


def test_files_of_another_blob_server_are_told_of(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert run("blob-server", "data") == 0
    assert "another blob server" not in capsys.readouterr().err
    (tmp_path / "data" / ("0" * 40)).write_bytes(b"")
    assert run("blob-server", "data") == 0
    assert "data looks like the directory of another blob server" in capsys.readouterr().err


def test_both_usual_files_count_and_doubles_are_told(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".sos.conf").write_text(FLAT)
    (tmp_path / "etc-sos.conf").write_text("localhost:4041/\nserver1.storage.lan:2001\n")
    assert run("upload-server") == 0
    assert started.servers == (*FOUND, "default=http://server1.storage.lan:2001")
    assert "http://localhost:4041 is listed twice, and is used once." in capsys.readouterr().err


@pytest.mark.parametrize("program", ["upload-server", "download-server", "api-server"])
def test_flags_come_in_place_of_the_usual_files(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / ".sos.conf").write_text("no server at all")
    (tmp_path / "own.conf").write_text("[1]\n-: http://a:1\n[2]\n-: http://b:2\n")
    assert run(program, "--config", "own.conf") == 0
    assert started.servers == ("1=http://a:1", "2=http://b:2")
    assert run(program, "--config=own.conf", "--blob-server", "http://c:3,http://d:4") == 0
    assert started.servers == ("default=http://c:3", "default=http://d:4")
    monkeypatch.setenv("TIERCE_SOS_SERVERS", "http://e:5")
    assert run(program) == 0
    assert list(started.servers) == ["http://e:5"]


@pytest.mark.parametrize("program", ["upload-server", "download-server", "api-server"])
def test_without_servers_a_store_of_its_own_must_be_named(
    started: Started, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    assert run(program) == USAGE
    said = capsys.readouterr().err
    for word in ("~/.sos.conf", "/etc/sos.conf", "--blob-server", "--data"):
        assert word in said
    assert run(program, "--data", "own") == 0
    assert (started.settings.data, started.settings.sos_servers) == (Path("own"), ())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "missing.conf"], "that --config names is not there"),
        (["--config", "."], "can't read ."),
        (["--config", "binary.conf"], "it is not text"),
        (["--blob-server", "ftp://a"], "is not the address of a blob server"),
    ],
)
def test_a_list_that_can_not_be_read_is_refused(
    started: Started,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    (tmp_path / "binary.conf").write_bytes(b"\xff\xfe\x00")
    assert run("upload-server", *words) == USAGE
    assert said in capsys.readouterr().err


def test_a_home_that_is_not_set_has_no_file(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HOME")
    (tmp_path / "etc-sos.conf").write_text(FLAT)
    assert run("upload-server", "--data", "own") == 0
    assert started.servers == FOUND
