"""``tierce serve``: run a node."""

import os
from pathlib import Path
from typing import Any

import click

from tierce.app import serve
from tierce.cli.options import load_settings, settings_options
from tierce.core.listen import Listen


def announce(node_id: str, listen: tuple[Listen, ...]) -> None:
    """Say on standard output that the node answers, and where."""
    click.echo(f"tierce: node {node_id} is ready")
    for each in listen:
        click.echo(f"tierce: {each}")


@click.command(
    epilog="""\b
Examples:
  tierce serve
  tierce serve --data /srv/tierce --listen native=127.0.0.1:7070 --workers 4
  tierce serve --listen native=127.0.0.1:7070 --listen cask=127.0.0.1:8080
  TIERCE_READ_ONLY=true tierce serve --config /etc/tierce/tierce.toml
"""
)
@settings_options
def command(config: Path | None, **flags: Any) -> None:
    """Run a node until it is stopped.

    It keeps everything below one data directory, and answers on each --listen address. SIGTERM or
    Ctrl-C stop it in order: requests under way may finish.
    """
    settings = load_settings(config, flags, os.environ).settings
    raise SystemExit(serve(settings, announce))
