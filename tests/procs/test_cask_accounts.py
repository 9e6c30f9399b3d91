"""Nodes that keep their blobs in an account, as Cask could at Dropbox: with and without a token."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.procs.test_cask_command import CONTENT, KEY, CaskProcess, upload

from tierce.blobs.credentials import Credentials, write_credentials
from tierce.core.digest import Digest
from tierce.testing.calls import call, get, put, status
from tierce.testing.dropbox import (
    ACCESS_TOKEN,
    APP_KEY,
    APP_SECRET,
    REFRESH_TOKEN,
    DropboxServer,
    serve_dropbox,
)
from tierce.testing.processes import NodeProcess

pytestmark = pytest.mark.procs

UUID = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
SECRETS = (APP_SECRET, REFRESH_TOKEN, ACCESS_TOKEN)


@pytest.fixture
def account(tmp_path: Path) -> Iterator[DropboxServer]:
    with serve_dropbox(tmp_path) as account:
        yield account


@pytest.mark.parametrize("command", ["cask", "serve"])
@pytest.mark.parametrize("service", ["dropbox", "gdrive"])
def test_a_node_without_a_token_says_how_to_get_one(
    tmp_path: Path, service: str, command: str
) -> None:
    data = tmp_path / "data"
    environment = {"PATH": os.environ["PATH"], "TIERCE_DATA": str(data)}
    environment |= {"TIERCE_STORE": f"{service}:///node"}
    if command == "cask":
        environment = {
            "CASK_PORT": "0",
            "CASK_UUID": UUID,
            "CASK_BACKEND": service,
            "CASK_DISK_BACKEND_ROOT": str(data),
            "CASK_DROPBOX_ACCESS_KEY": "an-app",
            "CASK_DROPBOX_SECRET_KEY": "hush-hush",
        }
    ended = subprocess.run(
        [sys.executable, "-m", "tierce", command],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert (
        f"tierce: {service}: there is no token, neither in the environment nor in" in ended.stderr
    )
    assert f"Run `tierce auth {service} --data {data}`" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hush-hush" not in ended.stderr


def test_a_cask_node_keeps_its_blobs_at_dropbox(tmp_path: Path, account: DropboxServer) -> None:
    data = tmp_path / "data"
    write_credentials(data, Credentials("dropbox", APP_KEY, APP_SECRET, REFRESH_TOKEN))
    environment = {
        **{name: account.environment[name] for name in ("HTTPS_PROXY", "SSL_CERT_FILE")},
        "CASK_UUID": UUID,
        "CASK_BACKEND": "dropbox",
        "CASK_DROPBOX_ACCESS_KEY": APP_KEY,
        "CASK_DROPBOX_SECRET_KEY": APP_SECRET,
    }
    with CaskProcess(data, **environment).start() as node:
        assert upload(node.address).json == {"key": KEY, "success": True}
        assert call(node.address, "GET", f"/file/{KEY}/").body == CONTENT
        assert f"The blobs are in dropbox:///tierce/{UUID}." in node.log
        digest = Digest.parse(KEY)
        path = f"/tierce/{UUID}/blobs/sha1/{digest.hex[:2]}/{digest.hex}"
        assert account.files[path] == CONTENT
        assert not any(secret in node.log for secret in SECRETS)


def test_a_token_that_is_revoked_is_told_with_what_to_do(
    tmp_path: Path, account: DropboxServer
) -> None:
    with NodeProcess(
        tmp_path / "data", store="dropbox:///node", environment=account.environment
    ).start() as node:

        def problem() -> str:
            store = status(node.address)["agent"]["store"]
            return str(store["problem"])

        digest = put(node.address, b"before")
        account.is_revoked = True
        before = account.requests.count("/2/files/upload")
        reply = call(node.address, "POST", "/v1/blobs", b"after")
        assert reply.status == 503
        assert "its credentials are refused" in reply.body.decode()
        assert account.requests.count("/2/files/upload") == before + 1  # it is not tried again
        assert "tierce auth dropbox" in problem()
        account.is_revoked = False
        put(node.address, b"after")
        assert get(node.address, digest).body == b"before"
        assert problem() == ""
        assert not any(secret in node.log for secret in SECRETS)
