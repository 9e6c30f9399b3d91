"""``tierce config``: every setting in force, and where it came from. A dry check of the settings.

It takes what ``tierce serve`` takes and starts nothing. Secrets are masked.
"""

import os
import re
from pathlib import Path

import click
import msgspec

from tierce.cli.options import load_settings, settings_options
from tierce.cloud.address import parse_address
from tierce.cloud.failures import STORE, UPSTREAM
from tierce.core.resolve import Resolved
from tierce.core.settings import SETTINGS, Settings, shown

_HELP = """Show every setting in force and where it came from, and start nothing.

Takes the options of `tierce serve`. When a setting is wrong, says so and ends with exit code 2.
Flags win over environment variables, those over the TOML file, and that over defaults.
A variable is named as its setting, in upper case, after TIERCE_: TIERCE_BLOB_LIMIT_BYTES.

\b
An example of a TOML file:
    data = "/srv/tierce"
    listen = ["native=0.0.0.0:7070", "cask=127.0.0.1:8080"]
    workers = 4
    blob_limit_bytes = "20GiB"
    idle_timeout_seconds = "2m"
    tls_certificate = "/etc/tierce/cert.pem"
    tls_key = "/etc/tierce/key.pem"
    tokens = ["backup:read+write:sha256-HEX"]   # see tierce token new
"""


@click.command(help=_HELP)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(config: Path | None, as_json: bool, **flags: object) -> None:
    resolved = load_settings(config, flags, os.environ)
    click.echo(_json(resolved) if as_json else _table(resolved))
    _check_urls(resolved.settings)


def _check_urls(settings: Settings) -> None:
    """Refuse URLs that a start would refuse. No service is asked. Raises BadRequest."""
    if settings.store:
        parse_address(re.sub(r"^file:", "fs:", settings.store), os.environ, STORE)
    if settings.upstream:
        parse_address(settings.upstream, os.environ, UPSTREAM)


def _table(resolved: Resolved) -> str:
    rows = [("SETTING", "VALUE", "FROM")]
    for name, text in shown(resolved.settings).items():
        rows.append((name, text or "-", resolved.origins[name]))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:<{first}}  {text:<{second}}  {origin}" for name, text, origin in rows)


def _json(resolved: Resolved) -> bytes:
    """Numbers and booleans as such, in the unit of the name; lists as arrays; the rest as text."""
    found = {}
    for name, text in shown(resolved.settings).items():
        value: object = getattr(resolved.settings, name)
        if SETTINGS[name].kind.many:
            value = text.split(",") if text else []
        elif not isinstance(value, (bool, int, float)):
            value = text
        found[name] = {"value": value, "origin": resolved.origins[name]}
    return msgspec.json.format(msgspec.json.encode(found))
