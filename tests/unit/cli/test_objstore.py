"""``tierce objstore``: from the command line to settings, and what it says."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from tierce.cli import objstore, options
from tierce.core.errors import BadRequest
from tierce.core.rights import Right
from tierce.core.settings import Settings
from tierce.doors.objstore.environment import FLAGS
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
        return 0

    for name in list(os.environ):
        if name.startswith("TIERCE_"):
            monkeypatch.delenv(name)
    for flag in FLAGS.values():
        monkeypatch.delenv(flag.environment or "NONE", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "USUAL_FILES", (Path("tierce.toml"),))
    monkeypatch.setattr(objstore, "serve", serve)
    monkeypatch.setattr(objstore, "own_host", lambda hosts: "10.0.0.5")
    return found


def run(*words: str) -> int:
    """As ``main`` runs it, whatever commands there are."""
    try:
        objstore.command.main(words, prog_name="tierce objstore", standalone_mode=False)
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def test_the_example_of_the_readme_starts_two_nodes(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-d", "1") == 0
    first = started.settings
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"tierce: node ID: {NODE_ID}", "tierce: objstore=0.0.0.0:10999"]
    assert "no additional cluster nodes specified, current node starts solo" in err
    assert first.private.address == "127.0.0.1:11999"
    assert run("-d", "1", "-N", "localhost:11999", "--private-addr=0.0.0.0:11997",
               "--public-addr=0.0.0.0:10997") == 0  # fmt: skip
    second = started.settings
    assert second.join == ("localhost:11999",)
    assert second.private.address == "127.0.0.1:11997"
    assert [str(each) for each in second.listen] == ["objstore=0.0.0.0:10997"]
    assert "joining to cluster [localhost:11999]" in capsys.readouterr().err


def test_a_node_that_was_told_nothing_has_objstores_defaults(started: Started) -> None:
    assert run() == 0
    found = started.settings
    assert (found.data, found.files) == (Path("state"), Path("files"))
    assert found.upstream == "s3://00-objstore-test?region=us-east-1"
    assert (found.access_log, found.log_level) == (False, "info")
    assert found.objstore_debug is None
    assert found.cluster_tag == ""
    assert found.anonymous_rights == frozenset({Right.READ, Right.WRITE})
    check_exposure(found)


def test_every_flag_is_taken(started: Started) -> None:
    words = (
        "--debug 1 --nodes a --nodes b:1 --tag blue --private-addr 127.0.0.1:1 --state-dir s "
        "--debug-addr 127.0.0.1:2 --public-addr 127.0.0.1:3 --files-dir f --region r --bucket mine "
        "--endpoint http://10.0.0.9"
    )
    assert run(*words.split()) == 0
    found = started.settings
    assert (found.data, found.files) == (Path("s"), Path("f"))
    assert (found.access_log, found.log_level) == (True, "debug")
    assert found.join == ("a:11999", "b:1")
    assert found.cluster_tag == "blue"
    assert found.private.address == "127.0.0.1:1"
    assert found.objstore_debug is not None
    assert found.objstore_debug.address == "127.0.0.1:2"
    assert [str(each) for each in found.listen] == ["objstore=127.0.0.1:3"]
    assert found.upstream == "s3://mine?region=r&endpoint=http%3A%2F%2F10.0.0.9"


def test_short_flags_are_taken(started: Started) -> None:
    assert run("-d", "0", "-N", "a", "-T", "default", "-R", "r", "-B", "mine") == 0
    assert started.settings.upstream == "s3://mine?region=r"
    assert started.settings.join == ("a:11999",)
    assert started.settings.cluster_tag == ""


@pytest.mark.parametrize(
    ("words", "upstream"), [(["--no-upstream"], ""), (["--upstream", "gcs://mine"], "gcs://mine")]
)
def test_another_upstream_is_taken(started: Started, words: list[str], upstream: str) -> None:
    assert run(*words) == 0
    assert started.settings.upstream == upstream


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if flag.environment])
def test_every_variable_is_taken(
    started: Started, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words = ["-d", "1"] if name == "debug_addr" else []
    assert run(*words) == 0
    before = started.settings
    values = {"debug": "1", "endpoint": "http://10.0.0.9"}
    value = "127.0.0.1:5" if name.endswith("addr") else values.get(name, "something")
    monkeypatch.setenv(FLAGS[name].environment, value)
    assert run(*words) == 0
    changed = [
        each.name
        for each in dataclasses.fields(Settings)
        if getattr(started.settings, each.name) != getattr(before, each.name)
    ]
    assert len(changed) == (2 if name == "debug" else 1)


def test_the_secret_and_tokens_are_tierces(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERCE_CLUSTER_SECRET", "not-a-real-secret")
    monkeypatch.setenv("TIERCE_TOKENS", f"reader:read:sha256-{64 * '0'}")
    assert run() == 0
    assert started.settings.private.address == "0.0.0.0:11999"
    assert started.settings.advertise == "10.0.0.5:11999"
    assert started.settings.anonymous_rights is None
    check_exposure(started.settings)


def test_a_secret_may_stand_in_a_file(started: Started, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not-a-real-secret")
    (tmp_path / "tierce.toml").write_text('cluster_secret_file = "secret"')
    assert run() == 0
    assert started.settings.private.address == "0.0.0.0:11999"


def test_a_bad_value_is_refused_by_the_name_of_its_flag(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadRequest, match="private, from flag --private-addr"):
        run("--private-addr", "nonsense")


def test_notes_are_on_standard_error(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    out, err = capsys.readouterr()
    assert "TIERCE_CLUSTER_SECRET" not in out
    assert "tierce: TIERCE_CLUSTER_SECRET is not set" in err


def test_help_names_every_flag_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")
    text = " ".join(capsys.readouterr().out.split())
    for flag in FLAGS.values():
        assert flag.flag in text
        assert flag.environment in text
        assert flag.default in text


def test_this_machines_address_is_one_that_it_has() -> None:
    assert objstore.own_host(["127.0.0.1"]) == "127.0.0.1"
    assert objstore.own_host(["host name that\0is none", "127.0.0.1"]) == "127.0.0.1"
    assert objstore.own_host([])
