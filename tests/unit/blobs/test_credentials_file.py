"""Credentials of a store from a file of its own."""

from pathlib import Path

import pytest

from tierce.blobs.credentials_file import read_variables
from tierce.cloud.bucket import open_bucket
from tierce.core.errors import BadRequest
from tierce.core.settings import Settings
from tierce.node.store_opening import open_store
from tierce.testing.rclone import ACCESS_KEY, BUCKET, KEYS, SECRET_KEY, RcloneServer

LINES = "".join(f"{name}={value}\n" for name, value in KEYS.items())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    return path


def test_lines_are_read_as_systemd_does(file: Path) -> None:
    file.write_text("# mine\n\nexport AWS_ACCESS_KEY_ID = 'a=b'\n AWS_SECRET_ACCESS_KEY=\"s\"\n")
    assert read_variables(file, "s3") == {
        "AWS_ACCESS_KEY_ID": "a=b",
        "AWS_SECRET_ACCESS_KEY": "s",
    }


def test_other_services_have_names_of_their_own(file: Path) -> None:
    file.write_text("OPENDAL_AZBLOB_ACCOUNT_KEY=a2V5\nOPENDAL_AZBLOB_ACCOUNT_NAME=me\n")
    assert read_variables(file, "azblob") == {
        "OPENDAL_AZBLOB_ACCOUNT_KEY": "a2V5",
        "OPENDAL_AZBLOB_ACCOUNT_NAME": "me",
    }


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "has no credentials", "AWS_ACCESS_KEY_ID"),
        ("secret", "line 1 is not NAME=value", "#"),
        ("\nAWS_SECRET_KEY=secret", "line 2: AWS_SECRET_KEY is no variable for s3", "Did you"),
        ("AWS_ACCESS_KEY_ID=", "AWS_ACCESS_KEY_ID is empty", "value"),
        ("\udcff", "is not text", "UTF-8"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(
    file: Path, text: str, message: str, hint: str
) -> None:
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(BadRequest, match=message) as caught:
        read_variables(file, "s3")
    assert hint in caught.value.hint
    assert "secret" not in f"{caught.value.message} {caught.value.hint}".replace(str(file), "")


def test_a_file_that_others_may_read_is_refused(file: Path) -> None:
    file.write_text(LINES)
    file.chmod(0o640)
    with pytest.raises(BadRequest, match="may be read or written by others"):
        read_variables(file, "s3")


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(BadRequest, match="is not there") as caught:
        read_variables(file.with_name("other"), "s3")
    assert "store_credentials_file" in caught.value.hint


async def test_it_goes_before_the_environment(
    file: Path, s3_server: RcloneServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the upstream")
    file.write_text(LINES)
    url = f"s3://{BUCKET}/{prefix}?endpoint={s3_server.endpoint}"
    settings = Settings(data=file.parent, store=url, store_credentials_file=file)
    bucket = open_store(settings)
    assert [entry async for entry in bucket.list("")] == []
    assert SECRET_KEY not in bucket.shown
    with pytest.raises(Exception, match=r"refused|403"):
        _ = [entry async for entry in open_bucket(url).list("")]
