"""``tierce cask``: run a node in place of a Cask node, with the environment that Cask had."""

import os

import click

from tierce.app import serve
from tierce.cli.options import load_settings
from tierce.cli.serve import announce
from tierce.core.settings import Settings
from tierce.doors.cask.environment import from_cask_environment, s3_credentials


@click.command(
    epilog="""\b
Examples:
  CASK_PORT=8080 CASK_WRITEABLE=true CASK_DISK_BACKEND_ROOT=/srv/cask tierce cask
  env $(cat cask.env) tierce cask
"""
)
def command() -> None:
    """Run a node with the settings of a Cask node.

    It reads Cask's environment variables, CASK_PORT and the others, and answers to Cask's clients.
    What Tierce does otherwise is said on standard error. TIERCE_* variables and the TOML file
    set what Cask has no variable for.
    """
    flags, notes = from_cask_environment(os.environ)
    os.environ.update(s3_credentials(os.environ))
    settings = load_settings(None, flags, os.environ).settings
    for note in [*notes, *_notes_on(settings)]:
        click.echo(f"tierce: {note}", err=True)
    raise SystemExit(serve(settings, announce))


def _notes_on(settings: Settings) -> list[str]:
    """What the operator should know of settings, and of a directory, that a Cask node has used."""
    notes = []
    tree = settings.data / "sha1"
    if os.path.isdir(tree):
        notes.append(
            f"{tree} looks like the files of a Cask node. They are not served: Tierce keeps its own "
            "beside them. `tierce import --from cask-disk` moves them in; see docs/importing.md."
        )
    return notes
