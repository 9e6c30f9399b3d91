"""``tierce doctor``: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tierce.cli.doctor import command
from tierce.cli.main import CORRUPT, NOT_FOUND, main
from tierce.node.directory import DataDirectory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one large blob in it, laid down by hand in the documented format."""
    directory = DataDirectory.open(tmp_path / "data")
    directory.close()
    return directory.path


def doctor(*words: str) -> Result:
    return CliRunner().invoke(command, words, env={"TIERCE_CONFIG": ""})


def place(data: Path, name: str) -> Path:
    path = data / "files" / "sha1" / name[:2] / name[2:4] / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not what the name says" + bytes(50))
    return path


def test_a_sound_directory_is_told_to_be_well(data: Path) -> None:
    result = doctor("--data", str(data))
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "all is well"


def test_a_bad_blob_is_named_and_ends_with_its_own_code(data: Path) -> None:
    name = "ab" * 20
    place(data, name)
    result = doctor("--data", str(data))
    assert result.exit_code == CORRUPT
    assert f"bad: sha1:{name}" in result.output
    assert "--repair moves them" in result.output


def test_a_repair_moves_the_bad_blob_and_still_says_so(data: Path) -> None:
    path = place(data, "cd" * 20)
    result = doctor("--data", str(data), "--repair")
    assert result.exit_code == CORRUPT
    assert "put them again" in result.output
    assert not path.exists()
    assert doctor("--data", str(data)).exit_code == 0


def test_the_report_is_json_when_asked_for(data: Path) -> None:
    place(data, "ef" * 20)
    report = json.loads(doctor("--data", str(data), "--json").output)
    assert report["healthy"] is False
    assert report["bad"][0]["digest"] == "sha1:" + "ef" * 20


def test_what_is_no_data_directory_is_an_error_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", str(tmp_path)]) == NOT_FOUND
    assert "node.toml" in capsys.readouterr().err
