"""The file with a store's credentials, and what goes before it."""

import os
import stat
from pathlib import Path

import msgspec
import opendal
import pytest

from tierce.blobs import credentials as module
from tierce.blobs.credentials import (
    SERVICES,
    Credentials,
    credentials_path,
    prepare,
    read_credentials,
    service_options,
    write_credentials,
)
from tierce.core.errors import BadRequest, TierceError
from tierce.node.directory import DataDirectory

SECRET = "the-secret-of-the-app"
TOKEN = "1//the-refresh-token"
OF_CASK = {"CASK_DROPBOX_ACCESS_KEY": "key", "CASK_DROPBOX_SECRET_KEY": SECRET}


def some(service: str = "dropbox", token: str = TOKEN) -> Credentials:
    return Credentials(service, "key", SECRET, token)


def said(error: TierceError) -> str:
    return f"{error.message} {error.hint}"


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_written_is_read(tmp_path: Path, service: str) -> None:
    path = write_credentials(tmp_path / "data", some(service))
    assert path == tmp_path / "data" / "credentials" / f"{service}.json"
    assert read_credentials(service, tmp_path / "data") == some(service)


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write_credentials(tmp_path / "data", some())
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_new_ones_take_the_place_of_old_ones(tmp_path: Path) -> None:
    write_credentials(tmp_path, some())
    path = write_credentials(tmp_path, some(token="another"))
    assert read_credentials("dropbox", tmp_path).refresh_token == "another"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_ones_outlive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_credentials(tmp_path, some())

    def fails(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(TierceError, match="no space left"):
        write_credentials(tmp_path, some(token="another"))
    assert read_credentials("dropbox", tmp_path) == some()
    assert list(path.parent.iterdir()) == [path]


def test_a_node_starts_on_a_directory_that_has_them_only(tmp_path: Path) -> None:
    write_credentials(tmp_path / "data", some())
    DataDirectory.open(tmp_path / "data").close()
    assert read_credentials("dropbox", tmp_path / "data") == some()


@pytest.mark.parametrize("service", SERVICES)
def test_opendal_takes_them(tmp_path: Path, service: str) -> None:
    write_credentials(tmp_path, some(service))
    operator = opendal.AsyncOperator(service, **service_options(service, tmp_path, {}))
    assert service in repr(operator)


def test_without_a_token_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        service_options("dropbox", tmp_path, OF_CASK)
    assert caught.value.message.startswith("dropbox: there is no token")
    assert f"`tierce auth dropbox --data {tmp_path}`" in caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_credentials(tmp_path, some())
    path.chmod(mode)
    with pytest.raises(BadRequest, match=f"its mode is {mode:04o}") as caught:
        read_credentials("dropbox", tmp_path)
    assert f"chmod 600 {path}" in caught.value.hint


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_credentials(tmp_path, some())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        os.chown(credentials_path(tmp_path, "dropbox"), 4321, -1)
    with pytest.raises(BadRequest, match="belongs to another user"):
        read_credentials("dropbox", tmp_path)


def test_root_writes_no_credentials_for_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if os.geteuid() == 0:
        os.chown(data, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(BadRequest, match="belongs to another user"):
        prepare(data, "dropbox")
    assert list(data.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"service": "dropbox", "client_id": "key"}',
        '{"service": "gdrive", "client_id": "k", "client_secret": "s", "refresh_token": "t"}',
        '{"service": "dropbox", "client_id": "k", "client_secret": "s", "refresh_token": "t",'
        ' "version": 2}',
        '{"service": "dropbox", "client_id": "k", "client_secret": "s", "refresh_token": 5}',
        '{"service": "dropbox", "client_id": "k", "client_secret": "s", "refresh_token": ""}',
        '{"service": "dropbox", "client_id": "k", "client_secret": "s&a", "refresh_token": "t"}',
        " " * module.FILE_LIMIT_BYTES + "{}",
    ],
    ids=range(11),
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = write_credentials(tmp_path, some())
    path.write_text(text)
    with pytest.raises(BadRequest, match="is damaged") as caught:
        read_credentials("dropbox", tmp_path)
    assert str(path) in caught.value.message
    assert "tierce auth dropbox" in caught.value.hint


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    path = credentials_path(tmp_path, "dropbox")
    prepare(tmp_path, "dropbox")
    os.mkfifo(path, 0o600)
    with pytest.raises(BadRequest, match="is not a file"):
        read_credentials("dropbox", tmp_path)


def test_a_place_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(BadRequest, match="can't be used"):
        prepare(tmp_path / "data", "dropbox")
    with pytest.raises(BadRequest, match="no token"):
        read_credentials("dropbox", tmp_path / "data")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    write_credentials(tmp_path, some())
    environ = {
        "OPENDAL_DROPBOX_CLIENT_ID": "theirs",
        "OPENDAL_DROPBOX_CLIENT_SECRET": "s",
        "OPENDAL_DROPBOX_REFRESH_TOKEN": "t",
        "CASK_DROPBOX_TOKEN": "old",
    }
    expected = {"client_id": "theirs", "client_secret": "s", "refresh_token": "t"}
    assert service_options("dropbox", tmp_path, environ) == expected


def test_the_token_of_a_cask_node_is_used(tmp_path: Path) -> None:
    environ = {**OF_CASK, "CASK_DROPBOX_TOKEN": " a-token-of-old \n"}
    assert service_options("dropbox", tmp_path, environ) == {"access_token": "a-token-of-old"}


def test_a_token_that_ends_in_hours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="CASK_DROPBOX_TOKEN holds for a few hours") as caught:
        service_options("dropbox", tmp_path, {"CASK_DROPBOX_TOKEN": "sl.secret"})
    assert "tierce auth dropbox" in caught.value.hint
    assert "sl.secret" not in said(caught.value)


def test_the_file_has_the_token_for_casks_keys(tmp_path: Path) -> None:
    write_credentials(tmp_path, some())
    environ = {**OF_CASK, "CASK_DROPBOX_SECRET_KEY": "a-new-secret"}
    assert service_options("dropbox", tmp_path, environ) == {
        "client_id": "key",
        "client_secret": "a-new-secret",
        "refresh_token": TOKEN,
    }


def test_a_token_for_another_app_is_refused(tmp_path: Path) -> None:
    write_credentials(tmp_path, some())
    with pytest.raises(BadRequest, match="not for the app that CASK_DROPBOX_ACCESS_KEY names"):
        service_options("dropbox", tmp_path, {"CASK_DROPBOX_ACCESS_KEY": "another"})


@pytest.mark.parametrize("lacking", ["CLIENT_ID", "CLIENT_SECRET"])
def test_a_token_without_its_app_is_refused(tmp_path: Path, lacking: str) -> None:
    environ = {
        f"OPENDAL_GDRIVE_{name}": "x" for name in ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN")
    }
    del environ[f"OPENDAL_GDRIVE_{lacking}"]
    with pytest.raises(BadRequest, match=f"without OPENDAL_GDRIVE_{lacking}"):
        service_options("gdrive", tmp_path, environ)


@pytest.mark.parametrize("bad", ["a b", "a&b", "a+b", "a%b", "a#b", '"a"', "a\nb", "ä", "a" * 5000])
def test_what_would_not_arrive_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(BadRequest, match="client secret has characters") as caught:
        Credentials("dropbox", "key", bad, TOKEN)
    assert bad not in said(caught.value)


def test_no_secret_is_shown() -> None:
    for secret in (SECRET, TOKEN):
        assert secret not in repr(some())
        assert secret in msgspec.json.encode(some()).decode()
