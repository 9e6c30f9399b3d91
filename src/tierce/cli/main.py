"""The command ``tierce``: finds the command asked for, and turns how it ended into an exit code.

Commands are named in a table and imported when they are used, so that ``tierce --help`` and quick
commands start without the server's libraries. A command raises TierceError and this module alone
says it to the user, as ``tierce: MESSAGE`` with the hint below it. The exit codes are EXIT_CODES.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click

from tierce.cloud.leaving import end
from tierce.core import errors
from tierce.core.collecting import collect_seldom
from tierce.core.errors import TierceError
from tierce.core.wording import did_you_mean


class Command(NamedTuple):
    """Where a command is, as ``module:attribute``, and what the overview says of it."""

    target: str
    summary: str


COMMANDS = {
    "serve": Command("tierce.cli.serve:command", "Run a node."),
    "cask": Command("tierce.cli.cask:command", "Run a node with the settings of a Cask node."),
    "objstore": Command(
        "tierce.cli.objstore:command", "Run a node with the flags of an objstore node."
    ),
    "sos": Command("tierce.cli.sos:command", "Run the programs of SOS, with their flags."),
    "dtfc": Command("tierce.cli.dtfc:command", "Run a node with the flags of a dtfc node."),
    "put": Command("tierce.cli.put:command", "Store files and print their digests."),
    "get": Command("tierce.cli.get:command", "Fetch a blob to a file or to stdout."),
    "ls": Command("tierce.cli.ls:command", "List the blobs that a node holds."),
    "stat": Command("tierce.cli.stat:command", "Show the sizes of blobs, or the state of a node."),
    "import": Command(
        "tierce.cli.import_:command", "Move the files of a Cask, dtfc or SOS node into this store."
    ),
    "couch": Command(
        "tierce.cli.couch:command",
        "Move attachments of a CouchDB database into the store, or back.",
    ),
    "cluster": Command(
        "tierce.cli.cluster:command", "Show the cluster, empty a node, or strike one that is lost."
    ),
    "store": Command("tierce.cli.store:command", "Compare a store in the cloud, or take one over."),
    "doctor": Command("tierce.cli.doctor:command", "Check and repair a data directory."),
    "token": Command("tierce.cli.token:command", "Make access tokens."),
    "auth": Command(
        "tierce.cli.auth:command", "Get permission to keep blobs at Dropbox or Google Drive."
    ),
    "config": Command("tierce.cli.config:command", "Show the settings in force, or what is wrong."),
}

SUCCESS = 0
SOME_FAILED = 1
USAGE = 2
NOT_FOUND = 3
REFUSED = 4
TRY_AGAIN = 5
CORRUPT = 6
FATAL_CODE = 9
INTERRUPTED = 130
READER_GONE = 141

EXIT_CODES = {
    SUCCESS: "success",
    SOME_FAILED: "some items failed",
    USAGE: "usage or settings are wrong",
    NOT_FOUND: "not found",
    REFUSED: "refused: the token lacks the right, or a service refuses the credentials",
    TRY_AGAIN: "unavailable or full: try again later",
    CORRUPT: "corrupt, or not matching its digest",
    FATAL_CODE: "the node can't be a member of its cluster, or another one took its store over",
    INTERRUPTED: "interrupted",
    READER_GONE: "whoever read the output went away",
}

# The nearest class in the error's family decides.
_CODE_OF_ERROR: dict[type[TierceError], int] = {
    TierceError: SOME_FAILED,
    errors.BadRequest: USAGE,
    errors.NotFound: NOT_FOUND,
    errors.Refused: REFUSED,
    errors.Conflict: TRY_AGAIN,
    errors.Unavailable: TRY_AGAIN,
    errors.Full: TRY_AGAIN,
    errors.TooSlow: TRY_AGAIN,
    errors.Corrupt: CORRUPT,
    errors.DigestMismatch: CORRUPT,
}

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
        assert isinstance(loaded, click.Command), f"{module}:{attribute} is no command"
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS, "`tierce --help` lists the commands.")
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.summary) for name, each in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="tierce", prog_name="tierce", message="%(prog)s %(version)s")
@click.pass_context
def group(context: click.Context) -> None:
    """Tierce, a self-hosted, content-addressed object store.

    `tierce COMMAND --help` tells more about a command.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def exit_code_of(error: TierceError) -> int:
    """The exit code for an error: that of the nearest of its classes."""
    return next(_CODE_OF_ERROR[each] for each in type(error).__mro__ if each in _CODE_OF_ERROR)


def entry() -> NoReturn:
    """The program ``tierce``."""
    collect_seldom()  # before a command is loaded
    end(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``tierce`` and return its exit code. A command may return one, or exit with it."""
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return READER_GONE
    return code


def _run(arguments: list[str]) -> int:
    try:
        with group.make_context("tierce", arguments) as context:
            code = group.invoke(context)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TierceError as error:
        _report(error)
        return exit_code_of(error)
    except (KeyboardInterrupt, EOFError, click.Abort):
        click.echo("tierce: interrupted", err=True)
        return INTERRUPTED
    return code if isinstance(code, int) else SUCCESS


def _report(error: TierceError) -> None:
    click.echo(f"tierce: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's last flush can't fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
