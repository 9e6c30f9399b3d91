"""``tierce token new``: a random token, and the line of settings that lets a node accept it.

The token is printed once and kept nowhere; the line holds only its SHA-256.
"""

import secrets

import click

from tierce.core.rights import Token, parse_rights
from tierce.core.settings import SETTINGS

_PREFIX = "tierce_"
_RANDOM_BYTES = 24  # 32 characters of URL-safe base64, 192 bits


@click.group()
def command() -> None:
    """Make access tokens."""


@command.command()
@click.option("--name", required=True, help="Who or what the token is for; shown in logs.")
@click.option(
    "--rights", required=True, metavar="RIGHTS", help="read, write, admin, joined by +: read+write."
)
def new(name: str, rights: str) -> None:
    """Make a token and print it, once, with the line for the node's settings.

    A client sends it as `Authorization: Bearer TOKEN`; the client commands take it from
    TIERCE_TOKEN.
    """
    text = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    line = str(Token.of(name, parse_rights(rights), text))
    click.echo(
        f"The token, which is shown only this once:\n  {text}\n\n"
        f'In the TOML file of the node:\n  tokens = ["{line}"]\n\n'
        f"Or in its environment:\n  {SETTINGS['tokens'].environment}={line}"
    )
