"""``tierce config``, the search for the TOML file, and what the command line does with errors."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tierce.cli import main as main_module
from tierce.cli import options
from tierce.cli.config import command
from tierce.cli.main import EXIT_CODES, exit_code_of, group, main
from tierce.cli.options import load_settings
from tierce.core import errors
from tierce.core.errors import BadRequest, TierceError
from tierce.core.settings import SETTINGS

ALL_ERRORS = [each for each in vars(errors).values() if isinstance(each, type)]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, no file in /etc, and no variables of ours."""
    for name in os.environ:
        if name.startswith("TIERCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    usual = (Path("tierce.toml"), tmp_path / "etc" / "tierce.toml")
    monkeypatch.setattr(options, "USUAL_FILES", usual)


def run(*arguments: str, **environ: str) -> Result:
    result = CliRunner().invoke(command, arguments, env=environ)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def row(result: Result, name: str) -> list[str]:
    return next(line.split() for line in result.stdout.splitlines() if line.startswith(name + " "))


# tierce config


def test_every_setting_is_shown_with_its_origin() -> None:
    lines = run().stdout.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM"]
    assert [line.split()[0] for line in lines[1:]] == list(SETTINGS)
    assert all(line.endswith("default") for line in lines[1:])


def test_columns_are_aligned() -> None:
    lines = run("--data", "/a/rather/long/path/to/the/data").stdout.splitlines()
    column = lines[0].index("FROM")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)


def test_flag_environment_and_file_are_named() -> None:
    Path("tierce.toml").write_text('replication = 2\nlisten = ["native=h:1"]\n')
    result = run("--read-only", "--listen", "native=[::1]:0", TIERCE_WORKERS="3")
    assert row(result, "read_only") == ["read_only", "true", "flag", "--read-only"]
    assert row(result, "listen") == ["listen", "native=[::1]:0", "flag", "--listen"]
    assert row(result, "workers") == ["workers", "3", "environment", "TIERCE_WORKERS"]
    assert row(result, "replication") == ["replication", "2", "file", "tierce.toml"]


def test_no_before_a_switch_turns_it_off() -> None:
    result = run("--no-read-only", TIERCE_READ_ONLY="true")
    assert row(result, "read_only") == ["read_only", "false", "flag", "--read-only"]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_secrets_are_masked(form: tuple[str, ...]) -> None:
    token = "a:read:sha256-" + "0123456789abcdef" * 4
    result = run(*form, TIERCE_CLUSTER_SECRET="sesame", TIERCE_TOKENS=token)
    assert "sesame" not in result.stdout
    assert "0123456789" not in result.stdout


def test_json_has_numbers_in_the_unit_of_the_name() -> None:
    found = json.loads(
        run("--json", "--blob-limit-bytes", "1MiB", "--idle-timeout-seconds=2m").stdout
    )
    assert list(found) == list(SETTINGS)
    flag = {"value": 1 << 20, "origin": "flag --blob-limit-bytes"}
    assert found["blob_limit_bytes"] == flag
    assert found["idle_timeout_seconds"]["value"] == 120.0
    assert found["read_only"] == {"value": False, "origin": "default"}
    assert found["listen"]["value"] == ["native=127.0.0.1:7070"]
    assert found["join"]["value"] == []
    assert found["cluster_secret"]["value"] == "not set"


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.is_flag])
def test_every_setting_that_may_be_a_flag_is_an_option(name: str) -> None:
    assert SETTINGS[name].flag in run("--help").stdout


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if not s.is_flag])
def test_what_is_no_flag_is_no_option(name: str) -> None:
    assert run(SETTINGS[name].flag, "x").exit_code == 2


# The TOML file


@pytest.mark.parametrize(
    ("there", "environ", "config", "used"),
    [
        (["tierce.toml", "etc/tierce.toml", "e.toml", "c.toml"], "e.toml", "c.toml", "c.toml"),
        (["tierce.toml", "etc/tierce.toml", "e.toml"], "e.toml", None, "e.toml"),
        (["tierce.toml", "etc/tierce.toml"], "", None, "tierce.toml"),
        (["etc/tierce.toml"], "", None, "etc/tierce.toml"),
        ([], "", None, None),
    ],
)
def test_one_file_is_found(
    there: list[str], environ: str, config: str | None, used: str | None, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    for name in there:
        Path(name).write_text(f'data = "{name}"\n')
    found = load_settings(Path(config) if config else None, {}, {"TIERCE_CONFIG": environ})
    assert str(found.settings.data) == (used or "data")


@pytest.mark.parametrize(
    ("config", "environ", "origin"),
    [(Path("gone.toml"), {}, "--config"), (None, {"TIERCE_CONFIG": "gone.toml"}, "TIERCE_CONFIG")],
)
def test_a_named_file_that_is_not_there_is_refused(
    config: Path | None, environ: dict[str, str], origin: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        load_settings(config, {}, environ)
    assert "gone.toml" in caught.value.message
    assert origin in caught.value.message


@pytest.mark.parametrize("content", [b"data = /srv\n", b"data\n", b'data = "\xff"\n', b"\0"])
def test_a_file_that_is_not_toml_is_refused(content: bytes) -> None:
    Path("tierce.toml").write_bytes(content)
    with pytest.raises(BadRequest, match=r"tierce\.toml is not TOML"):
        load_settings(None, {}, {})


def test_a_file_that_can_not_be_read_is_refused() -> None:
    Path("tierce.toml").mkdir()
    with pytest.raises(BadRequest, match=r"can't read tierce\.toml"):
        load_settings(None, {}, {})


def test_the_secret_file_is_read() -> None:
    Path("secret").write_text("sesame\n")
    found = load_settings(None, {"cluster_secret_file": "secret"}, {})
    assert found.settings.cluster_secret == "sesame"


# The command line around it


def test_a_wrong_setting_ends_with_2_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "--workers", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "tierce: workers, from flag --workers: '0' is below 1\n  " + (
        "Write a whole number from 1 to 256. Or write auto.\n"
    )


def test_bare_tierce_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == bare


def test_help_documents_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{code}  {meaning}" in shown for code, meaning in EXIT_CODES.items())


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tierce ")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["confg"], "Did you mean config?"), (["zzz"], "tierce --help"), (["--nope"], "--nope")],
)
def test_unknown_words_end_with_2(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_has_a_documented_exit_code(kind: type[TierceError]) -> None:
    assert exit_code_of(kind("x")) in EXIT_CODES


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("x"), 3),
        (errors.Forbidden("x"), 4),
        (errors.ReadOnly("x"), 5),
        (errors.Full("x"), 5),
        (errors.DigestMismatch("x"), 6),
        (errors.TooLarge("x"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
        (click.exceptions.Exit(1), 1),
    ],
)
def test_how_a_command_ends_decides_the_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        raise error

    failing = click.Command("config", callback=end)
    monkeypatch.setattr(group, "get_command", lambda _context, _name: failing)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["config"]) == code


def test_a_command_may_return_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    partly = click.Command("config", callback=lambda: main_module.SOME_FAILED)
    monkeypatch.setattr(group, "get_command", lambda _context, _name: partly)
    assert main(["config"]) == 1


def test_help_does_not_import_the_server() -> None:
    program = (
        "import sys; from tierce.cli.main import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('aiohttp', 'asyncio', 'lmdb')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0
    )


def test_a_reader_that_goes_away_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "tierce.cli.main", "--help"]
    try:
        ended = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("setting", ["store", "upstream"])
def test_a_url_that_a_start_would_refuse_is_wrong(
    setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", f"--{setting}", "s3://bucket/x?secret_access_key=HUSH"]) == 2
    told = capsys.readouterr()
    assert "secret 'secret_access_key'" in told.err
    assert "HUSH" not in told.out + told.err
    for url in ("fs:///srv/nowhere", "dropbox:///x", "s3://bucket?region=eu-west-1"):
        assert main(["config", f"--{setting}", url]) == 0
