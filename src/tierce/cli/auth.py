"""``tierce auth``: get permission to keep blobs in an account at Dropbox or Google Drive.

The conversation is on stderr; what was done is on stdout. Secrets are neither taken from the command
line, where every user of the machine could read them, nor shown.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

from tierce.blobs.credentials import (
    CLIENT_ID,
    CLIENT_SECRET,
    Credentials,
    check_value,
    from_environment,
    prepare,
    write_credentials,
)
from tierce.cli.options import load_settings
from tierce.cli.remote import run
from tierce.client.oauth import DROPBOX, GDRIVE, App, Authorization, Service
from tierce.client.oauth_redirect import authorized
from tierce.core.errors import BadRequest
from tierce.core.wording import quoted

PASTE_URL = "http://127.0.0.1:53682/"
"""Where the browser of another machine ends: nothing needs to be there, its address bar is read."""
_FILE_LIMIT_CHARACTERS = 64 * 1024

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def command() -> None:
    """Get permission to keep blobs at Dropbox or Google Drive.

    The credentials are kept in the node's data directory, in a file for its user alone.
    """


def _common(function: F) -> F:
    """The options that both commands have. The hidden ones name a stand-in of the service."""
    for option in (
        click.option("--token-url", hidden=True),
        click.option("--authorize-url", hidden=True),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML settings."
        ),
        click.option(
            "--data", metavar="DIRECTORY", help="The node's data directory.  [default: data]"
        ),
    ):
        function = option(function)
    return function


@command.command(
    epilog="""\b
Examples:
  tierce auth dropbox --data /srv/tierce
  tierce auth dropbox --app-key abc123 --app-secret-file /root/app-secret"""
)
@_common
@click.option("--app-key", metavar="KEY", help="The app's key.  [default: asked for]")
@click.option("--app-secret-file", metavar="FILE", help="File that holds the app's secret.")
def dropbox(
    data: str | None,
    config: Path | None,
    authorize_url: str | None,
    token_url: str | None,
    app_key: str | None,
    app_secret_file: str | None,
) -> None:
    """Get permission to keep blobs at Dropbox.

    Make an app of your own first, at https://www.dropbox.com/developers/apps, with the permissions
    files.metadata.read, files.content.read and files.content.write. Its key and secret are taken
    from the options, else from CASK_DROPBOX_ACCESS_KEY and CASK_DROPBOX_SECRET_KEY (or
    OPENDAL_DROPBOX_CLIENT_ID and _CLIENT_SECRET), else they are asked for.

    Open the address that is printed, on any machine, permit access, and give the code.
    """
    service = _service(DROPBOX, authorize_url, token_url)
    place = _place(service, data, config)
    secret = _read(app_secret_file, "--app-secret-file").strip() if app_secret_file else ""
    app = _app(service, app_key or "", secret, ("App key", "App secret"))
    asked = Authorization(service, app)
    _show(service, asked.address)
    code = click.prompt("Code", err=True)
    _keep(place, app, service, run(asked.redeem(code)))


@command.command(
    epilog="""\b
Examples:
  tierce auth gdrive --client-file client_secret.json --data /srv/tierce
  tierce auth gdrive --paste"""
)
@_common
@click.option(
    "--client-file", metavar="FILE", help="The client as a JSON file, from Google's console."
)
@click.option("--paste", is_flag=True, help="The browser is on another machine: give its address.")
def gdrive(
    data: str | None,
    config: Path | None,
    authorize_url: str | None,
    token_url: str | None,
    client_file: str | None,
    paste: bool,
) -> None:
    """Get permission to keep blobs at Google Drive.

    Make a client of your own first, of type "Desktop app", at
    https://console.cloud.google.com/auth/clients, in a project with the Google Drive API. Its id and
    secret are taken from --client-file, else from OPENDAL_GDRIVE_CLIENT_ID and _CLIENT_SECRET, else
    they are asked for. The client sees the files that it made, and no others.

    Open the address that is printed in a browser on this machine and permit access. With --paste, use
    any browser: it ends at a page that it can't show. Give the address of that page.
    """
    service = _service(GDRIVE, authorize_url, token_url)
    place = _place(service, data, config)
    client_id, secret = _google_client(client_file) if client_file else ("", "")
    app = _app(service, client_id, secret, ("Client id", "Client secret"))
    if paste:
        asked = Authorization(service, app, PASTE_URL)
        _show(service, asked.address)
        code = asked.code_in(click.prompt("Address of the page where it ends", err=True))
        token = run(asked.redeem(code))
    else:
        token = run(
            authorized(
                lambda url: Authorization(service, app, url), lambda url: _show(service, url)
            )
        )
    _keep(place, app, service, token)


def _place(service: Service, data: str | None, config: Path | None) -> Path:
    """The data directory, ready for the credentials."""
    place = load_settings(config, {"data": data}, os.environ).settings.data
    prepare(place, service.name)
    return place


def _app(service: Service, client_id: str, secret: str, titles: tuple[str, str]) -> App:
    """What was given, else what the environment has, else what the user says."""
    client_id = client_id or from_environment(service.name, CLIENT_ID, os.environ)
    secret = secret or from_environment(service.name, CLIENT_SECRET, os.environ)
    if not client_id:
        client_id = click.prompt(titles[0], err=True)
    if not secret:
        secret = click.prompt(f"{titles[1]} (not shown)", hide_input=True, err=True)
    app = App(client_id.strip(), secret.strip())
    check_value(service.name, CLIENT_ID, app.client_id)
    check_value(service.name, CLIENT_SECRET, app.client_secret)
    return app


def _show(service: Service, address: str) -> None:
    click.echo(
        f"Open this address in a browser, and permit access to {service.title}:\n\n  {address}\n",
        err=True,
    )


def _keep(data: Path, app: App, service: Service, token: str) -> None:
    path = write_credentials(
        data, Credentials(service.name, app.client_id, app.client_secret, token)
    )
    click.echo(f"The credentials are in {path}. A running node takes them at its next start.")


def _google_client(file: str) -> tuple[str, str]:
    """Id and secret in the file that Google's console offers. Raises BadParameter."""
    text = _read(file, "--client-file")
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
        client = found["installed"]
        return str(client["client_id"]), str(client["client_secret"])
    except (ValueError, KeyError, TypeError):
        raise click.BadParameter(
            f"{file} is not the file of a client of type Desktop app", param_hint="--client-file"
        ) from None


def _read(file: str, option: str) -> str:
    try:
        with open(file, encoding="ascii") as opened:
            return opened.read(_FILE_LIMIT_CHARACTERS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise click.BadParameter(f"can't read {file}: {reason}", param_hint=option) from None


def _service(service: Service, authorize_url: str | None, token_url: str | None) -> Service:
    """The service, or a stand-in: by TLS, or on this machine, as secrets are sent there."""
    for url in filter(None, (authorize_url, token_url)):
        parts = urlsplit(url)
        is_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if parts.scheme != "https" and not is_here:
            raise BadRequest(f"{quoted(url)} is not reached by TLS", hint="Write https://.")
    return dataclasses.replace(
        service,
        authorize_url=authorize_url or service.authorize_url,
        token_url=token_url or service.token_url,
    )
