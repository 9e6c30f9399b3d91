"""``tierce objstore``: run a node in place of an objstore node, with the flags that it had."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from tierce.app import serve
from tierce.cli.options import load_settings
from tierce.core.listen import Listen
from tierce.core.resolve import DEFAULT
from tierce.doors.objstore.environment import FLAGS, from_objstore_environment

F = TypeVar("F", bound=Callable[..., Any])

# Of the block for documentation: nothing is sent there, but there is a way to it if there is any.
_ELSEWHERE = "192.0.2.1"

_HELP = {
    "debug": "Debug level: 0, or 1 to log each request.",
    "nodes": "Nodes to join, as HOST[:PORT].  May be repeated.",
    "tag": "Name of the cluster; nodes with other tags are none of it.",
    "private_addr": "Where other nodes reach this one.",
    "debug_addr": "Where the private API answers without signatures, with a debug level above 0.",
    "public_addr": "Where clients reach this node.",
    "state_dir": "Directory of the node's index and of small files.",
    "files_dir": "Directory of large files.",
    "region": "Region of the S3 bucket.",
    "bucket": "S3 bucket.",
    "endpoint": "URL of an S3-compatible service other than AWS.",
    "upstream": "Another upstream than S3, as a URL.",
    "no_upstream": "Run without an upstream; levels 1 and 2 are refused then.",
}
_METAVARS = {
    "debug": "LEVEL", "nodes": "HOST[:PORT]", "tag": "TAG", "private_addr": "HOST:PORT",
    "debug_addr": "HOST:PORT", "public_addr": "HOST:PORT", "state_dir": "PATH",
    "files_dir": "PATH", "region": "REGION", "bucket": "NAME", "endpoint": "URL", "upstream": "URL",
}  # fmt: skip


def objstore_options(function: F) -> F:
    """Give a command objstore's flags; what was given comes under the names in FLAGS."""
    for name in reversed(FLAGS):
        function = _option(name)(function)
    return function


def own_host(hosts: Sequence[str]) -> str:
    """This machine's address as seen from the first of the hosts that there is a way to.

    Without hosts, from elsewhere; 127.0.0.1 if there is no way out. Nothing is sent.
    """
    for host in (*hosts, _ELSEWHERE):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, 9, type=socket.SOCK_DGRAM
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0]).partition("%")[0]
        except (OSError, UnicodeError):
            continue
    return "127.0.0.1"


def announce(node_id: str, listen: tuple[Listen, ...]) -> None:
    """Say on standard output that the node answers, and where."""
    click.echo(f"tierce: node ID: {node_id}")
    for each in listen:
        click.echo(f"tierce: {each}")


def _option(name: str) -> Callable[[F], F]:
    flag = FLAGS[name]
    words = flag.flag.split(", ")
    text = _HELP[name]
    if flag.default:
        text += f"  [default: {flag.default}]"
    if flag.environment:
        text += f"  ({flag.environment})"
    if name == "no_upstream":
        return click.option(*words, name, is_flag=True, help=text)
    return click.option(
        *words, name, type=str, metavar=_METAVARS[name], multiple=name == "nodes", help=text
    )


@click.command(
    epilog="""\b
Examples:
  tierce objstore -B my-bucket -R eu-central-1
  tierce objstore -d 1 --no-upstream
  tierce objstore -N localhost:11999 --private-addr 0.0.0.0:11997 --public-addr 0.0.0.0:10997 \\
      --state-dir state2/ --files-dir files2/
"""
)
@objstore_options
def command(**flags: Any) -> None:
    """Run a node with the flags of an objstore node.

    It takes objstore's flags and environment variables, and answers to objstore's clients. What
    Tierce does otherwise is said on standard error. TIERCE_* variables and the TOML file set what
    objstore has no flag for: TIERCE_CLUSTER_SECRET above all.
    """
    base = load_settings(None, {}, os.environ)
    elsewhere = {name for name, origin in base.origins.items() if origin != DEFAULT}
    given, notes = from_objstore_environment(flags, os.environ, elsewhere, own_host)
    settings = load_settings(None, given, os.environ).settings
    for note in notes:
        click.echo(f"tierce: {note}", err=True)
    raise SystemExit(serve(settings, announce))
