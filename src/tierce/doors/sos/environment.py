"""The programs of SOS as Tierce's settings: their flags, and the list of blob servers that was found.

Names and ports are those of SOS. What Tierce's own variables and file set counts where no flag does,
and before SOS's defaults. Where Tierce does otherwise on purpose, a note says so to the operator.
Pure: the environment and the list are arguments. Values are checked by ``core/resolve.py``.
"""

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from tierce.core.errors import BadRequest
from tierce.core.listen import Listen
from tierce.core.resolve import Given


class Program(NamedTuple):
    """A program of SOS: its doors with their usual ports, and what its callers may do."""

    name: str
    ports: Mapping[str, int]
    rights: str
    may: str


BLOB_SERVER = Program("blob-server", {"sos-blob": 3001}, "read+write", "read and write")
UPLOAD_SERVER = Program("upload-server", {"sos-upload": 9991}, "write", "upload")
DOWNLOAD_SERVER = Program("download-server", {"sos-download": 9992}, "read", "download")
API_SERVER = Program(
    "api-server",
    {**UPLOAD_SERVER.ports, **DOWNLOAD_SERVER.ports},
    "read+write",
    "upload and download",
)
ALL_ADDRESSES = "0.0.0.0"


class Servers(NamedTuple):
    """A list of blob servers, as texts ``[GROUP=]URL``, and where it was found."""

    texts: Sequence[str]
    origin: str


def common(
    program: Program, host: str | None, ports: Mapping[str, str | None], elsewhere: Set[str]
) -> tuple[dict[str, Given], list[str]]:
    """The flags for ``load_settings`` that all programs have, and notes for the operator.

    ``ports`` are those that were given, by door. ``elsewhere`` names the settings that Tierce's own
    variables and file set.
    """
    default = f"default of `tierce sos {program.name}`"
    notes: list[str] = []
    found: dict[str, Given] = {}
    given = [f"--{'host' if host else 'port'}"] if host or any(ports.values()) else []
    if given or "listen" not in elsewhere:
        listen = [
            f"{door}={_bracketed(host or ALL_ADDRESSES)}:{ports.get(door) or port}"
            for door, port in program.ports.items()
        ]
        found["listen"] = Given(listen, f"flag {given[0]}" if given else default)
        # Doors that were set elsewhere are not opened to everyone by this.
        if not elsewhere & {"tokens", "anonymous_rights"}:
            found["anonymous_rights"] = Given(program.rights, "SOS, where everyone has them")
            notes += [_open(each, program) for each in listen if not _is_local(each)][:1]
    if "private" not in elsewhere:
        found["private"] = Given("127.0.0.1:0", default)
    return found, notes


def gateway(
    program: Program,
    data: str | None,
    servers: Servers | None,
    ports: Mapping[str, str | None],
    environ: Mapping[str, str],
    elsewhere: Set[str],
) -> dict[str, Given]:
    """The same of the programs that stand before blob servers, or have a store of their own.

    Without ``servers`` those of the setting ``sos_servers`` count, if there are any. Raises BadRequest
    where nothing says where bytes are to go.
    """
    found: dict[str, Given] = {}
    if servers is not None:
        found["sos_servers"] = Given(list(servers.texts), servers.origin)
    if data is not None:
        found["data"] = Given(data, "flag --data")
    elif "data" not in elsewhere:
        if servers is None and "sos_servers" not in elsewhere:
            raise BadRequest(
                "no blob servers are listed",
                hint="List them in ~/.sos.conf or /etc/sos.conf, a URL a line, or name them with "
                "--blob-server URL,URL; or name a directory with --data to use a store of its own.",
            )
        (door, port), *_ = program.ports.items()
        place = f"sos-{program.name.partition('-')[0]}-{ports.get(door) or port}"
        found["data"] = Given(
            str(_state_directory(environ) / "tierce" / place),
            f"default of `tierce sos {program.name}`",
        )
    return found


def _state_directory(environ: Mapping[str, str]) -> Path:
    """Where programs keep what outlives a restart (XDG Base Directory Specification)."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state
    home = environ.get("HOME", "")
    if not home:
        raise BadRequest(
            "HOME is not set, so there is no place for bodies on their way",
            hint="Name a directory with --data.",
        )
    return Path(home) / ".local" / "state"


def _open(listen: str, program: Program) -> str:
    # The other programs send no tokens to blob servers.
    other = (
        "keep it behind a firewall"
        if program is BLOB_SERVER
        else "set TIERCE_TOKENS to ask for tokens"
    )
    return (
        f"everyone who reaches {listen.partition('=')[2]} may {program.may}, as in SOS; listen on "
        f"127.0.0.1 with --host, or {other}."
    )


def _bracketed(host: str) -> str:
    """An IPv6 address with its brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_local(listen: str) -> bool:
    """Whether only this machine can reach it. A malformed address is refused later."""
    with contextlib.suppress(BadRequest, ValueError):
        host = Listen.parse(listen).host
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    return False
