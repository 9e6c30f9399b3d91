"""What the commands that talk to a node share: its address and the token.

A token never stands on the command line, where every user of the machine could read it.
"""

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import click

from tierce.client import Client, Retry

DEFAULT_URL = "http://127.0.0.1:7070"
TOKEN_VARIABLE = "TIERCE_TOKEN"  # noqa: S105 (a variable's name)
RETRY = Retry()

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Remote(NamedTuple):
    """The node that a command was told to use."""

    url: str
    token: str | None

    def client(self) -> Client:
        """A client of it. Raises BadRequest for an address or a token that can't be one."""
        return Client(self.url, self.token, retry=RETRY)


def remote_options(function: F) -> Callable[..., Any]:
    """Give a command ``--url`` and ``--token-file``; it gets ``remote: Remote`` for them."""

    @functools.wraps(function)
    def with_remote(*arguments: Any, url: str, token_file: str | None, **options: Any) -> Any:
        return function(*arguments, remote=Remote(url, read_token(token_file)), **options)

    url_option = click.option(
        "--url",
        envvar="TIERCE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="The node to talk to.",
    )
    token_option = click.option(
        "--token-file",
        type=click.Path(),
        metavar="FILE",
        help=f"File that holds the token. Without it, the token is taken from {TOKEN_VARIABLE}.",
    )
    return url_option(token_option(with_remote))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it, then raises KeyboardInterrupt."""
    return asyncio.run(coroutine)


def read_token(file: str | None) -> str | None:
    """The token in a file, or else in TIERCE_TOKEN; None without one. Raises BadRequest."""
    if file is None:
        # Scripts that empty the variable mean "no token".
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        with open(file, encoding="ascii") as opened:
            return opened.read().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise click.BadParameter(
            f"can't read {file}: {reason}", param_hint="--token-file"
        ) from error
