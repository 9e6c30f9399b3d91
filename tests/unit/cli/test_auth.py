"""``tierce auth``: the conversation, what it leaves behind, and its exit codes."""

import json
import logging
import os
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import click
import pytest
from aiohttp import web
from tests.unit.client.fake_oauth import (
    ACCESS_TOKEN,
    APP,
    REFRESH_TOKEN,
    FakeOAuth,
    code_shown_at,
)

from tierce.blobs.credentials import Credentials, credentials_path, read_credentials
from tierce.cli.main import main

SECRETS = (APP.client_secret, REFRESH_TOKEN, ACCESS_TOKEN)


class Ran(NamedTuple):
    """How a run ended, and all that was shown."""

    code: int
    out: str
    err: str


class Person:
    """Runs the command, and answers what it asks. ``answers`` are by the beginning of the question."""

    def __init__(self, server: FakeOAuth, data: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self.data = data
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[], str]] = {
            "App key": lambda: APP.client_id,
            "App secret": lambda: APP.client_secret,
            "Client id": lambda: APP.client_id,
            "Client secret": lambda: APP.client_secret,
            "Code": lambda: code_shown_at(self.address()),
            "Address": lambda: end_of(self.address()),
        }
        self._capture = capture
        self._out = self._err = ""

    def run(self, *words: str) -> Ran:
        """Run ``tierce auth`` with the stand-in."""
        self._capture.readouterr()
        self.asked.clear()
        self._out = self._err = ""
        options = {
            "--authorize-url": f"{self.server.url}/authorize",
            "--token-url": f"{self.server.url}/token",
            "--data": str(self.data),
        }
        code = main(["auth", *words, *(each for pair in options.items() for each in pair)])
        self._look()
        for secret in SECRETS:
            assert secret not in self._out + self._err
        return Ran(code, self._out, self._err)

    def answer(self, question: str) -> str:
        """What is typed."""
        self.asked.append(question)
        (found,) = (self.answers[each] for each in self.answers if question.startswith(each))
        return found()

    def address(self) -> str:
        """The address that was shown."""
        self._look()
        return address_in(self._err)

    def kept(self, service: str) -> Credentials:
        return read_credentials(service, self.data)

    @property
    def has_kept(self) -> bool:
        return any((self.data / "credentials").iterdir())

    def _look(self) -> None:
        out, err = self._capture.readouterr()
        self._out += out
        self._err += err


class _Stay(urllib.request.HTTPRedirectHandler):
    """Notes where it is sent, and does not go there."""

    def redirect_request(self, *arguments: object, **_: object) -> None:
        self.aim = str(arguments[-1])


def end_of(address: str) -> str:
    """Where a browser on another machine ends."""
    stay = _Stay()
    with pytest.raises(urllib.request.HTTPError, match="302"):
        urllib.request.build_opener(stay).open(address, timeout=10)
    return stay.aim


def address_in(text: str) -> str:
    (address,) = (line.strip() for line in text.splitlines() if line.strip().startswith("http"))
    return address


@pytest.fixture
def person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Person]:
    for name in list(os.environ):
        if name.startswith(("TIERCE_", "CASK_", "OPENDAL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with FakeOAuth().serving_in_thread() as server:
        person = Person(server, tmp_path / "data", capsys)
        monkeypatch.setattr(click.termui, "visible_prompt_func", person.answer)
        monkeypatch.setattr(click.termui, "hidden_prompt_func", person.answer)
        yield person


def test_dropbox(person: Person, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ran = person.run("dropbox")
    path = credentials_path(person.data, "dropbox")
    assert ran.code == 0
    assert ran.out == (
        f"The credentials are in {path}. A running node takes them at its next start.\n"
    )
    assert person.asked == ["App key: ", "App secret (not shown): ", "Code: "]
    assert person.kept("dropbox") == Credentials(
        "dropbox", APP.client_id, APP.client_secret, REFRESH_TOKEN
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(secret in caplog.text for secret in SECRETS)


def test_the_secret_is_asked_for_unseen(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def shown(question: str) -> str:
        seen.append(question)
        return person.answer(question)

    monkeypatch.setattr(click.termui, "visible_prompt_func", shown)
    assert person.run("dropbox").code == 0
    assert seen == ["App key: ", "Code: "]


def test_the_keys_of_a_cask_node_are_used(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASK_DROPBOX_ACCESS_KEY", APP.client_id)
    monkeypatch.setenv("CASK_DROPBOX_SECRET_KEY", APP.client_secret)
    assert person.run("dropbox").code == 0
    assert person.asked == ["Code: "]


def test_options_go_before_the_environment(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENDAL_DROPBOX_CLIENT_ID", "another")
    monkeypatch.setenv("OPENDAL_DROPBOX_CLIENT_SECRET", "another")
    file = tmp_path / "secret"
    file.write_text(f"{APP.client_secret}\n")
    assert (
        person.run("dropbox", "--app-key", APP.client_id, "--app-secret-file", str(file)).code == 0
    )
    assert person.kept("dropbox").client_secret == APP.client_secret


def test_gdrive_with_a_browser_elsewhere(person: Person) -> None:
    assert person.run("gdrive", "--paste").code == 0
    assert person.asked[-1] == "Address of the page where it ends: "
    assert person.kept("gdrive").refresh_token == REFRESH_TOKEN


def test_the_file_of_googles_console_is_read(person: Person, tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    client = {"client_id": APP.client_id, "client_secret": APP.client_secret, "auth_uri": "x"}
    file.write_text(json.dumps({"installed": client}))
    assert person.run("gdrive", "--paste", "--client-file", str(file)).code == 0
    assert person.asked == ["Address of the page where it ends: "]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"web": {"client_id": "a", "client_secret": "b"}}', '{"installed": []}', "ä"],
    ids=range(6),
)
def test_another_file_is_refused(person: Person, tmp_path: Path, text: str) -> None:
    file = tmp_path / "client.json"
    file.write_text(text)
    ran = person.run("gdrive", "--client-file", str(file))
    assert ran.code == 2
    assert "--client-file" in ran.err
    assert person.asked == []


@pytest.mark.parametrize(
    ("service", "option"), [("dropbox", "--app-secret-file"), ("gdrive", "--client-file")]
)
def test_a_file_that_is_not_there(person: Person, service: str, option: str) -> None:
    ran = person.run(service, option, "missing")
    assert ran.code == 2
    assert "can't read missing: No such file or directory" in ran.err


def test_a_wrong_code_is_exit_code_2(person: Person) -> None:
    person.answers["Code"] = lambda: "wrong"
    ran = person.run("dropbox")
    assert ran.code == 2
    assert "tierce: Dropbox does not take the code" in ran.err
    assert not person.has_kept


def test_a_wrong_secret_is_exit_code_4(person: Person) -> None:
    person.answers["App secret"] = lambda: "wrong"
    ran = person.run("dropbox")
    assert ran.code == 4
    assert "its secret is another" in ran.err
    assert not person.has_kept


def test_a_user_who_says_no_is_exit_code_4(person: Person) -> None:
    person.server.permits = False
    ran = person.run("gdrive", "--paste")
    assert ran.code == 4
    assert "access was not permitted at Google Drive" in ran.err


def test_missing_rights_are_exit_code_4(person: Person) -> None:
    person.server.granted = "files.content.read"
    ran = person.run("dropbox")
    assert ran.code == 4
    assert "files.content.write, files.metadata.read missing" in ran.err
    assert not person.has_kept


def test_a_service_that_is_down_is_exit_code_5(person: Person) -> None:
    person.server.answers[0] = web.Response(status=503)
    ran = person.run("dropbox")
    assert ran.code == 5
    assert "Dropbox answers 503" in ran.err


def test_what_failed_leaves_the_old_credentials(person: Person) -> None:
    assert person.run("dropbox").code == 0
    before = person.kept("dropbox")
    person.answers["Code"] = lambda: "wrong"
    assert person.run("dropbox").code == 2
    assert person.kept("dropbox") == before


def test_the_place_is_looked_at_before_anything_is_asked(person: Person) -> None:
    person.data.write_text("a file")
    ran = person.run("dropbox")
    assert ran.code == 2
    assert "can't be used" in ran.err
    assert person.asked == []


def test_a_secret_that_was_copied_badly_is_told_at_once(person: Person) -> None:
    person.answers["App secret"] = lambda: "two words"
    ran = person.run("dropbox")
    assert ran.code == 2
    assert "the client secret has characters that can't be sent" in ran.err
    assert "two words" not in ran.err


def test_giving_up_is_exit_code_130(person: Person) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    person.answers["Code"] = interrupt
    assert person.run("dropbox").code == 130
    assert not person.has_kept


@pytest.mark.parametrize(
    "url", ["http://example.org/token", "ftp://127.0.0.1/", "token", "http://"]
)
def test_secrets_go_by_tls_only(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["auth", "dropbox", "--token-url", url]) == 2
    assert "is not reached by TLS" in capsys.readouterr().err


def test_the_stand_ins_are_no_part_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["auth", "gdrive", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--client-file" in shown
    assert "-url" not in shown


def next_address(stream: IO[str]) -> str:
    return next(line.strip() for line in stream if line.strip().startswith("http"))


@pytest.mark.procs
@pytest.mark.parametrize("service", ["dropbox", "gdrive"])
def test_a_process_and_a_browser(person: Person, service: str) -> None:
    variables = {
        f"OPENDAL_{service.upper()}_CLIENT_ID": APP.client_id,
        f"OPENDAL_{service.upper()}_CLIENT_SECRET": APP.client_secret,
    }
    url = person.server.url
    words = ["--authorize-url", f"{url}/authorize", "--token-url", f"{url}/token"]
    with subprocess.Popen(
        [sys.executable, "-m", "tierce", "auth", service, "--data", str(person.data), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stderr is not None
        page = code_shown_at(next_address(process.stderr))
        out, err = process.communicate(f"{page}\n" if service == "dropbox" else "", timeout=30)
    assert process.returncode == 0, err
    assert str(credentials_path(person.data, service)) in out
    assert not any(secret in out + err for secret in SECRETS)
    assert person.kept(service).refresh_token == REFRESH_TOKEN
