"""``tierce dtfc``: run a node in place of a dtfc node, with the flags that it had."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from tierce.app import serve
from tierce.cli.options import load_settings
from tierce.cli.serve import announce
from tierce.core.errors import BadRequest
from tierce.core.resolve import DEFAULT
from tierce.core.wording import quoted
from tierce.doors.dtfc.environment import FLAGS, from_dtfc_flags

F = TypeVar("F", bound=Callable[..., Any])

_STANDARD_ERROR = 2

_HELP = {
    "port": "Port on all addresses; 0 picks a free one.",
    "basedir": "Directory of all that is stored; required.",
    "temp": "Not used: what is on its way rests below the base directory.",
    "log": "File that the log is appended to, in place of standard error.",
    "provider": "Where files are kept: only local.",
    "deny": "Path before put, get, head or delete to a file that forbids that method.",
    "me": "This node's own URL, as in the peer list.",
    "melist": "File whose first line is the own URL, if --me is not given.",
    "peerlist": "File with the URL of a peer in each line.",
}
_METAVARS = {
    "port": "PORT", "basedir": "DIR", "temp": "DIR", "log": "FILE", "provider": "NAME",
    "deny": "PATH", "me": "URL", "melist": "FILE", "peerlist": "FILE",
}  # fmt: skip


def dtfc_options(function: F) -> F:
    """Give a command dtfc's flags, in both forms that it takes: ``-port`` and ``--port``."""
    for name in reversed(FLAGS):
        default = FLAGS[name].default
        text = _HELP[name] + (f"  [default: {default}]" if default else "")
        option = click.option(
            f"-{name}", f"--{name}", name, type=str, metavar=_METAVARS[name], help=text
        )
        function = option(function)
    return function


@contextlib.contextmanager
def logging_to(path: str) -> Iterator[None]:
    """Have what is written to standard error appended to a file, also by the processes started.

    An empty path leaves it. Raises BadRequest for a file that can't be written.
    """
    if not path:
        yield
        return
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadRequest(
            f"flag --log: {quoted(path)} can't be written: {reason}",
            hint="Name a file in a directory that is there.",
        ) from error
    sys.stderr.flush()
    before = os.dup(_STANDARD_ERROR)
    try:
        os.dup2(file, _STANDARD_ERROR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, _STANDARD_ERROR)
        os.close(before)
        os.close(file)


@click.command(
    context_settings={"help_option_names": ["-h", "-help", "--help"]},
    epilog="""\b
Examples:
  tierce dtfc --basedir ./data
  tierce dtfc -port 8001 -basedir ./d1 -me http://10.0.0.5:8001/ -peerlist ./peers
""",
)
@dtfc_options
def command(**flags: str | None) -> None:
    """Run a node with the flags of a dtfc node.

    It takes dtfc's flags, and answers to its clients and to other dtfc nodes. What Tierce does
    otherwise is said on standard error. TIERCE_* variables and the TOML file set what dtfc has no
    flag for.
    """
    base = load_settings(None, {}, os.environ)
    elsewhere = {name for name, origin in base.origins.items() if origin != DEFAULT}
    given, notes = from_dtfc_flags(flags, elsewhere, Path.read_text)
    settings = load_settings(None, given, os.environ).settings
    for note in notes:
        click.echo(f"tierce: {note}", err=True)
    with logging_to(flags["log"] or ""):
        code = serve(settings, announce)
    raise SystemExit(code)
