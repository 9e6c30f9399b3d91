"""``tierce stat``: the sizes of blobs, or without any, the state of the node."""

import json
from collections.abc import Iterator
from typing import Any

import click

from tierce.cli.amounts import duration_text, size_text
from tierce.cli.progress import plain_name
from tierce.cli.remote import Remote, remote_options, run
from tierce.client import Client
from tierce.core.digest import Digest
from tierce.core.errors import NotFound


@click.command(
    epilog="""\b
Examples:
  tierce stat
  tierce stat blake3:af13...49f2
  tierce stat --json --url http://node2:7070"""
)
@click.argument("digests", metavar="[DIGEST]...", type=Digest.parse, nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object a line for blobs.")
@remote_options
def command(digests: tuple[Digest, ...], as_json: bool, remote: Remote) -> None:
    """Print `DIGEST SIZE` for each blob, or without a DIGEST how the node is.

    A blob that isn't there is reported on stderr. The exit code is then 3 if it was the only one
    asked for, else 1.
    """
    if not digests:
        run(_node(remote.client(), as_json))
    elif run(_blobs(remote.client(), digests, as_json)):
        raise SystemExit(1)


async def _blobs(client: Client, digests: tuple[Digest, ...], as_json: bool) -> int:
    """Print what is there; how many are not."""
    missing = 0
    async with client:
        for digest in digests:
            try:
                size = await client.stat(digest)
            except NotFound as error:
                if len(digests) == 1:
                    raise
                missing += 1
                click.echo(f"tierce: {error.message}", err=True)
                continue
            if as_json:
                click.echo(json.dumps({"digest": str(digest), "size": size}))
            else:
                click.echo(f"{digest} {size}")
    return missing


async def _node(client: Client, as_json: bool) -> None:
    async with client:
        status = await client.status()
    if as_json:
        click.echo(json.dumps(status))
    else:
        for line in _lines(status, ""):
            click.echo(line)


def _lines(status: dict[str, Any], indent: str) -> Iterator[str]:
    """A JSON object for people: a member a line, units told by the ends of the names."""
    width = max((len(_label(name)) for name in status), default=0)
    for name, value in status.items():
        if isinstance(value, dict):
            yield f"{indent}{_label(name)}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            yield f"{indent}{_label(name)}:"
            for each in value:
                lines = _lines(each if isinstance(each, dict) else {"value": each}, "")
                for number, line in enumerate(lines):
                    yield f"{indent}  {'  ' if number else '- '}{line}"
        else:
            yield f"{indent}{_label(name) + ':':<{width + 1}} {_value(name, value)}"


# What would not be clear, or not be unique, without the end of the name.
_LABELS = {
    "blob_bytes": "stored",
    "bytes_to_move": "to move",
    "last_pass_seconds": "last pass took",
    "down_seconds": "down for",
}


def _label(name: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    for ending in ("_bytes", "_seconds"):
        name = name.removesuffix(ending)
    return plain_name(name.replace("_", " "))


def _value(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_value(name, each) for each in value) or "-"
    if isinstance(value, (int, float)) and (name.endswith("_bytes") or name == "bytes_to_move"):
        return size_text(value)
    if isinstance(value, (int, float)) and name.endswith("_seconds"):
        return duration_text(value)
    return plain_name(str(value)) or "-"
