"""``tierce ls``: the blobs that a node holds, in the order of their digests."""

import json
import sys
from collections.abc import AsyncIterator, Sequence

import click

from tierce.cli.remote import Remote, remote_options, run
from tierce.client import Client, Entry
from tierce.core.digest import Digest
from tierce.core.limits import LIST_LIMIT_MAX


@click.command(
    epilog="""\b
Examples:
  tierce ls
  tierce ls --limit 10
  tierce ls --after blake3:af13...49f2
  tierce ls --json | jq .size"""
)
@click.option("--after", type=Digest.parse, metavar="DIGEST", help="Begin behind this digest.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="List N blobs at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@remote_options
def command(after: Digest | None, limit: int | None, as_json: bool, remote: Remote) -> None:
    """List the blobs that the node itself holds: `DIGEST SIZE`, in the order of their digests."""
    run(_list(remote.client(), after, limit, as_json))


async def _list(client: Client, after: Digest | None, limit: int | None, as_json: bool) -> None:
    async with client:
        async for entries in _pages(client, after, limit):
            # A page in one write: a store may hold millions of blobs.
            sys.stdout.write("".join(_line(entry, as_json) for entry in entries))
            sys.stdout.flush()


async def _pages(
    client: Client, after: Digest | None, limit: int | None
) -> AsyncIterator[Sequence[Entry]]:
    while limit is None or limit > 0:
        page = await client.list(after, min(limit or LIST_LIMIT_MAX, LIST_LIMIT_MAX))
        yield page.entries[:limit]
        if page.next is None:
            return
        after = page.next
        if limit is not None:
            limit -= len(page.entries)


def _line(entry: Entry, as_json: bool) -> str:
    if as_json:
        return json.dumps({"digest": str(entry.digest), "size": entry.size}) + "\n"
    return f"{entry.digest} {entry.size}\n"
