"""``tierce sos``: the programs of SOS, each with its flags."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tierce.app import serve
from tierce.cli.options import load_settings
from tierce.cli.serve import announce
from tierce.cli.sos_replicate import replicate
from tierce.cli.sos_servers import config_option, listed_servers, servers_option
from tierce.client.sos_config import as_settings
from tierce.core.resolve import DEFAULT, Given
from tierce.doors.sos import environment
from tierce.doors.sos.environment import ALL_ADDRESSES, Program, Servers

F = TypeVar("F", bound=Callable[..., Any])

_SHA1_NAME = re.compile(r"[0-9a-f]{40}", re.ASCII)


@click.group(
    epilog="""\b
Examples:
  tierce sos blob-server --port 4040 ./data1
  tierce sos upload-server
  tierce sos download-server --blob-server http://localhost:4040,http://localhost:4041
  tierce sos replicate --verbose --min-copies=3
"""
)
def command() -> None:
    """Run the programs of SOS, the Simple Object Storage.

    They answer to its clients and to each other, and mix with its own programs. What Tierce does
    otherwise is said on standard error. TIERCE_* variables and the TOML file set what SOS has no
    flag for.
    """


command.add_command(replicate)


def _host_option(*names: str) -> Callable[[F], F]:
    return click.option(
        *names,
        "host",
        metavar="HOST",
        help=f"Address to listen on.  [default: {ALL_ADDRESSES}]",
    )


def _port_option(flag: str, name: str, port: int) -> Callable[[F], F]:
    return click.option(
        flag, name, metavar="PORT", help=f"Port; 0 picks a free one.  [default: {port}]"
    )


def _data_option(function: F) -> F:
    return click.option(
        "--data",
        metavar="DIR",
        help="Directory for bodies on their way; without a list of blob servers, for all that is "
        "stored.  [default: in ~/.local/state/tierce]",
    )(function)


@command.command("blob-server")
@_port_option("--port", "port", 3001)
@_host_option("--host")
@click.argument("directory", metavar="DIR")
def blob_server(port: str | None, host: str | None, directory: str) -> None:
    """Keep objects in DIR, which is made if it is missing."""
    program = environment.BLOB_SERVER
    flags, notes = environment.common(program, host, {"sos-blob": port}, _elsewhere())
    flags["data"] = Given(directory, "the argument DIR")
    _serve(flags, [*notes, *_notes_on(Path(directory))])


@command.command("upload-server")
@_port_option("--port", "port", 9991)
@_host_option("--host")
@servers_option
@config_option
@_data_option
def upload_server(port: str | None, host: str | None, **where: Any) -> None:
    """Take uploads, and pass them to a blob server."""
    _gateway(environment.UPLOAD_SERVER, host, {"sos-upload": port}, **where)


@command.command("download-server")
@_port_option("--port", "port", 9992)
@_host_option("--host")
@servers_option
@config_option
@_data_option
def download_server(port: str | None, host: str | None, **where: Any) -> None:
    """Fetch objects from the blob servers."""
    _gateway(environment.DOWNLOAD_SERVER, host, {"sos-download": port}, **where)


@command.command("api-server")
@_port_option("--upload-port", "upload_port", 9991)
@_port_option("--download-port", "download_port", 9992)
@_host_option("--host", "--api-host")
@servers_option
@config_option
@_data_option
def api_server(
    upload_port: str | None, download_port: str | None, host: str | None, **where: Any
) -> None:
    """Upload and download server in one."""
    ports = {"sos-upload": upload_port, "sos-download": download_port}
    _gateway(environment.API_SERVER, host, ports, **where)


def _gateway(
    program: Program,
    host: str | None,
    ports: Mapping[str, str | None],
    *,
    blob_server: str | None,
    config: Sequence[Path],
    data: str | None,
) -> None:
    elsewhere = _elsewhere()
    flags, notes = environment.common(program, host, ports, elsewhere)
    servers = None
    if blob_server or config or "sos_servers" not in elsewhere:
        listed, origin = listed_servers(blob_server, config, os.environ)
        notes += listed.notes
        if listed.groups:
            servers = Servers(as_settings(listed.groups), origin)
    flags |= environment.gateway(program, data, servers, ports, os.environ, elsewhere)
    _serve(flags, notes)


def _serve(flags: Mapping[str, Given], notes: Sequence[str]) -> None:
    settings = load_settings(None, flags, os.environ).settings
    for note in notes:
        click.echo(f"tierce: {note}", err=True)
    raise SystemExit(serve(settings, announce))


def _elsewhere() -> set[str]:
    """The settings that Tierce's own variables and file set."""
    base = load_settings(None, {}, os.environ)
    return {name for name, origin in base.origins.items() if origin != DEFAULT}


def _notes_on(directory: Path) -> list[str]:
    """What the operator should know of a directory that a blob server of SOS has used."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        if not any(_SHA1_NAME.fullmatch(each.name) for each in entries):
            return []
    return [
        f"{directory} looks like the directory of another blob server of SOS. This one does not read "
        "its files: run that server as well, and copy them with `tierce sos replicate`."
    ]
