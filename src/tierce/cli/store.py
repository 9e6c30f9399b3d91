"""``tierce store``: a store in the cloud compared with its catalogue now, or taken over."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import click

from tierce.cli.amounts import count_text, duration_text
from tierce.cli.options import load_settings
from tierce.cli.progress import plain_name
from tierce.cli.remote import Remote, remote_options, run
from tierce.client import Client
from tierce.core.errors import BadRequest, Unavailable
from tierce.core.limits import CLOUD_OWNER_SECONDS, CLOUD_SETTLE_SECONDS
from tierce.node.store_opening import taking_over

POLL_SECONDS = 1.0
LEASE_SECONDS = CLOUD_OWNER_SECONDS + CLOUD_SETTLE_SECONDS
"""So long a former owner may delete objects, if it should run after all (cloud_owner.py)."""
_TOLD = {
    "adopted": "taken into the catalogue, which did not know {them}",
    "missing": "missing in the store, to be healed",
    "changed": "told of otherwise than before, to be read",
    "swept": "parts of uploads that were broken off, removed",
    "strange": "no blob's, left alone",
    "unread": "not in the catalogue and not readable now, to be tried again",
}


@click.group()
def command() -> None:
    """Compare a store in the cloud with its catalogue, or take over that of a lost node.

    `tierce doctor --store URL` examines one.
    """


@command.command(
    epilog="""\b
Examples:
  tierce store compare
  tierce store compare --url http://node2:7070 --json"""
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--no-wait", is_flag=True, help="Don't wait until it is done.")
@remote_options
def compare(as_json: bool, no_wait: bool, remote: Remote) -> None:
    """Have a running node compare its store with its catalogue now.

    It does so once a day by itself. A blob whose object is missing is healed from other nodes, an
    object that is not known is taken into the catalogue. Nothing in the store is deleted.
    """
    found = run(_compare(remote.client(), wait=not no_wait))
    if found is None:
        click.echo(
            "It is being compared. `tierce stat --json` shows the result, under agent.store."
        )
    else:
        click.echo(json.dumps(found) if as_json else _text(found))


@command.command(
    name="take-over",
    epilog="""\b
Examples:
  tierce store take-over 01JZ8PGS0M5Q4V5YB2Q1X8ZK3C --data /srv/new --store s3://BUCKET/node-1""",
)
@click.argument("former", metavar="NODE-ID")
@click.option("--data", metavar="DIRECTORY", help="The new node's data directory.  [default: data]")
@click.option("--store", metavar="URL", help="The store that is taken over.")
@click.option("--node-id", metavar="ID", help="The new node's id, if it is not to be made.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML settings.")
@click.option("--no-wait", is_flag=True, help="The former node is known not to run: don't wait.")
def take_over(
    former: str,
    data: str | None,
    store: str | None,
    node_id: str | None,
    config: Path | None,
    no_wait: bool,
) -> None:
    """Make the store of a node that is gone for good this node's.

    NODE-ID is the id of that node, as a guard against mistakes; `tierce serve` names it when it
    refuses the store. The data directory must be new or empty. Start the node afterwards: it makes
    its catalogue from the listing, and all that is in the store is kept.

    Should the former node run after all, it ends when it notices, within a minute or so. This
    command waits until it can't delete anything any more.
    """
    given = {"data": data, "store": store, "node_id": node_id}
    settings = load_settings(config, given, os.environ).settings
    if not settings.store:
        raise BadRequest(
            "no store is given", hint="Name it with --store URL, or give the settings by --config."
        )
    with taking_over(settings, former) as taken:
        name = plain_name(taken.node_id)
        if not taken.is_new:
            click.echo(f"The store is {name}'s already.")
            return
        if not no_wait:
            click.echo(
                f"tierce: the store is {name}'s now; waiting {duration_text(LEASE_SECONDS)}, so that"
                f" {plain_name(former)} can't delete anything any more, should it run",
                err=True,
            )
            time.sleep(LEASE_SECONDS)
    click.echo(f"The store is {name}'s now. Start the node on {settings.data}.")


async def _compare(client: Client, *, wait: bool) -> dict[str, Any] | None:
    """Give the order; what was found, or None without waiting for it. Raises Unavailable."""
    async with client:
        number = await client.compare_store()
        while wait:
            store = ((await client.status()).get("agent") or {}).get("store") or {}
            if store.get("comparisons", 0) >= number:
                if store["compare_error"]:
                    raise Unavailable(
                        f"the comparison failed: {store['compare_error']}",
                        hint="Look at the node's log and at `tierce stat --json`, under agent.store.",
                    )
                return dict(store["compared"])
            if store and not store["comparing"]:
                raise Unavailable(
                    "the comparison was broken off, as the node's agent was started anew",
                    hint="Give the order again.",
                )
            await asyncio.sleep(POLL_SECONDS)
    return None


def _text(found: dict[str, Any]) -> str:
    lines = [f"{count_text(found['objects'], 'object')} in the store"]
    for name, text in _TOLD.items():
        if number := found.get(name):
            lines.append(f"{number} {text.format(them='it' if number == 1 else 'them')}")
    if len(lines) == 1:
        lines.append("all as in the catalogue")
    return "\n".join(lines)
