"""Secrets do not get into what people see: errors' texts and tracebacks in logs."""

import logging
import subprocess
import sys
import textwrap

import pytest

from tierce.cloud import hiding
from tierce.cloud.address import parse_address
from tierce.cloud.hiding import hide, without_secrets
from tierce.node.logs import JsonFormatter, TextFormatter


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "_hidden", set())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://h/p?sv=1&sig=abc: no", "at https://h/p?... no"),
        ("(https://h/t?refresh_token=x) said", "(https://h/t?...) said"),
        ("at redis://:hush@h:1/0", "at redis://...@h:1/0"),
        ("at mysql://me:h@u/sh@h/d", "at mysql://...@h/d"),
        ("client_secret=hush&client_id=me", "client_secret=...&client_id=me"),
        ('{"access_token": "sl.hush", "a": 1}', '{"access_token": "...", "a": 1}'),
        ("Authorization: Bearer ya29.hush-hush", "Authorization: Bearer ..."),
        ("missing field `access_token` at line 1", "missing field `access_token` at line 1"),
        ("the security token is expired: ask again", "the security token is expired: ask again"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("mail to a@b", "mail to a@b"),
    ],
)
def test_what_stands_where_a_secret_does_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_known_secret_is_taken_out_wherever_it_stands_and_however_it_is_written() -> None:
    hide(["a/b +c", "abc"])
    assert (
        without_secrets("x a/b +c, a/b%20%2Bc, a%2Fb%20%2Bc, a%2Fb+%2Bc") == "x ..., ..., ..., ..."
    )
    assert without_secrets("abc") == "abc"  # too short to be told from a word


def test_secrets_that_a_url_is_given_are_known() -> None:
    parse_address("webdav://h?username=alice", {"OPENDAL_WEBDAV_PASSWORD": "hush-hush"})
    keys = {"AWS_ACCESS_KEY_ID": "AKID-1234", "AWS_SECRET_ACCESS_KEY": "SKEY-1234"}
    parse_address("s3://b", keys)
    assert without_secrets("alice hush-hush AKID-1234 SKEY-1234") == "alice ... ... ..."


@pytest.mark.parametrize("formatter", [TextFormatter("worker"), JsonFormatter("worker")])
def test_a_traceback_in_the_log_has_no_secret(formatter: logging.Formatter) -> None:
    try:
        raise RuntimeError("at https://h/token?refresh_token=hush")
    except RuntimeError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    line = formatter.format(record)
    assert "RuntimeError" in line
    assert "hush" not in line


def test_google_drives_secrets_stay_hidden_when_its_token_can_not_be_renewed() -> None:
    """OpenDAL's own text has them: in a process of its own, as it reads the proxy's address once."""
    program = """
        import asyncio, os, sys, opendal
        from tierce.cloud.bucket import open_bucket
        from tierce.cloud.retrying import Patience
        from tierce.core.errors import Unavailable

        async def main():
            bucket = open_bucket("gdrive:///p", patience=Patience(attempts=1))
            try:
                await bucket.look("a")
            except Unavailable as error:
                print("SHOWN", error.message, error.hint, bucket.status())
                print(error.__cause__, error.__context__)
            try:
                await bucket._operator.stat("a")
            except Exception as error:
                print("RAW", error)

        asyncio.run(main())
        sys.stdout.flush()
        os._exit(0)  # a thread of OpenDAL that is still at work would abort the interpreter's end
    """
    environment = {f"OPENDAL_GDRIVE_{name.upper()}": f"hush-{name}" for name in ("client_id",)}
    environment |= {"OPENDAL_GDRIVE_CLIENT_SECRET": "hush-secret"}
    environment |= {"OPENDAL_GDRIVE_REFRESH_TOKEN": "hush-token"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"HTTPS_PROXY": "http://127.0.0.1:9", "PYTHONPATH": "src", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown, _, raw = ended.stdout.partition("RAW")
    assert "SHOWN the store failed while looking at a" in shown
    assert "hush-" not in shown + ended.stderr
    assert "refresh_token=hush-token" in raw  # else this test guards nothing
