"""``tierce cluster``: show the cluster, empty a node before it leaves, strike one that is lost."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.status import Status
from rich.text import Text

from tierce.cli.amounts import count_text, duration_text, size_text
from tierce.cli.overview import blobs_left, problems, rendered
from tierce.cli.progress import plain_name
from tierce.cli.remote import Remote, remote_options, run
from tierce.client import Client
from tierce.client.answers import ClusterNode, Overview, overview
from tierce.core import kinds
from tierce.core.errors import BadRequest, Conflict, NotFound, Unavailable
from tierce.core.wording import did_you_mean, quoted

WATCH_DEFAULT_SECONDS = 2
WATCH_MIN_SECONDS = 0.1
POLL_SECONDS = 1.0
# Without a terminal a line is written at every so many polls, rather than a spinner turned.
POLLS_PER_LINE = 10
# Wide enough that nothing is folded or cut where no terminal sets a width.
UNBOUNDED_CHARACTERS = 10_000


@click.group()
def command() -> None:
    """Show the cluster, empty a node before it leaves, or strike one that is lost.

    Any node of the cluster may be asked. NODE is the id of a node, or the beginning of one.
    """


@command.command(
    epilog="""\b
Examples:
  tierce cluster status
  tierce cluster status --watch
  tierce cluster status --watch 10s --url http://node2:7070
  tierce cluster status --json | jq .below_target

\b
Exit code 0 when all is healthy. 1 when a node is down or says nothing, when
a blob has too few copies, or when that is not known: after its start, a node
has to look at all its blobs first."""
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@click.option(
    "--watch",
    "watch_seconds",
    is_flag=False,
    flag_value=str(WATCH_DEFAULT_SECONDS),
    type=kinds.duration(WATCH_MIN_SECONDS).parse,
    metavar="[SECONDS]",
    help=f"Show it anew every so often, or every {WATCH_DEFAULT_SECONDS} s, until Ctrl-C.",
)
@remote_options
def status(as_json: bool, watch_seconds: float | None, remote: Remote) -> None:
    """Show the nodes, how many copies the blobs have, and what healing has to do."""
    if watch_seconds is not None:
        run(_watch(remote.client(), watch_seconds, as_json))
    elif run(_show_once(remote.client(), as_json)):
        raise SystemExit(1)


@command.command(
    epilog="""\b
Examples:
  tierce cluster drain 01JZ8PGS
  tierce cluster drain 01JZ8PGS --yes --no-wait
  tierce cluster drain 01JZ8PGS --cancel"""
)
@click.argument("node", metavar="NODE")
@click.option("--cancel", is_flag=True, help="Call it off: use the node again.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--no-wait", is_flag=True, help="Don't wait until the node is empty.")
@remote_options
def drain(node: str, cancel: bool, yes: bool, no_wait: bool, remote: Remote) -> None:
    """Empty a node before it leaves, and wait until that is done.

    The node takes no new blobs, and all that it holds is copied to others. Nothing is lost if this
    is interrupted: the nodes go on by themselves.
    """
    client = remote.client()
    found = run(_find(client, node))
    name = plain_name(found.node_id)
    if cancel:
        run(_order_drain(client, found.node_id, cancel=True))
        click.echo(f"{name} is in use again.")
        return
    if not yes and not _agreed(found):
        raise click.ClickException("nothing was changed")
    run(_order_drain(client, found.node_id))
    if no_wait:
        click.echo(f"{name} is being emptied. `tierce cluster status` shows how far it is.")
        return
    hint = f"This goes on if you leave; `tierce cluster drain --cancel {name}` calls it off."
    click.echo(hint, err=True)
    run(_wait_until_drained(client, found.node_id))
    click.echo(
        f"{name} is drained. Stop it now: a drained node leaves the cluster when it stops,\n"
        "and `tierce cluster forget` is not needed."
    )


@command.command(
    epilog="""\b
Examples:
  tierce cluster forget 01JZ8PGS"""
)
@click.argument("node", metavar="NODE")
@remote_options
def forget(node: str, remote: Remote) -> None:
    """Strike a node that is down and will not come back.

    Its blobs are copied from other nodes at once, without waiting for `down_grace_seconds`.
    """
    client = remote.client()
    found = run(_find(client, node))
    run(_forget(client, found.node_id))
    click.echo(
        f"{plain_name(found.node_id)} is no member any more."
        " `tierce cluster status` shows how its blobs are copied."
    )


async def _show_once(client: Client, as_json: bool) -> bool:
    """Print the overview; whether there is a problem."""
    async with client:
        content = await client.cluster()
    found = overview(content)
    click.echo(json.dumps(content) if as_json else _text(found), nl=as_json)
    return bool(problems(found))


async def _watch(client: Client, interval_seconds: float, as_json: bool) -> None:
    console = _console()
    async with client:
        if as_json or not console.is_terminal:
            await _repeat(client, interval_seconds, lambda content: _print(content, as_json), _sigh)
            return
        with Live(console=console, auto_refresh=False) as live:
            await _repeat(
                client,
                interval_seconds,
                lambda content: live.update(rendered(overview(content)), refresh=True),
                lambda error: live.update(Text(_sentence(error), style="red"), refresh=True),
            )


async def _repeat(
    client: Client,
    interval_seconds: float,
    show: Callable[[dict[str, Any]], None],
    complain: Callable[[Unavailable], None],
) -> None:
    """Show the overview again and again. A node that is away for a while may come back."""
    while True:
        try:
            show(await client.cluster())
        except Unavailable as error:
            complain(error)
        await asyncio.sleep(interval_seconds)


def _print(content: dict[str, Any], as_json: bool) -> None:
    click.echo(json.dumps(content) if as_json else _text(overview(content)))


def _sigh(error: Unavailable) -> None:
    click.echo(f"tierce: {_sentence(error)}", err=True)


def _sentence(error: Unavailable) -> str:
    return f"{error.message}. {error.hint}".rstrip()


async def _find(client: Client, text: str) -> ClusterNode:
    """The node whose id is ``text``, or else the only one whose id begins with it."""
    async with client:
        nodes = overview(await client.cluster()).nodes
    ids = [node.node_id for node in nodes]
    found = [node for node in nodes if text and node.node_id.startswith(text)]
    exact = [node for node in found if node.node_id == text]
    if not found:
        raise NotFound(
            f"{quoted(text)} is not the beginning of a node's id",
            hint=plain_name(did_you_mean(text, ids, "`tierce cluster status` lists the nodes.")),
        )
    if len(found) > 1 and not exact:
        names = ", ".join(plain_name(node.node_id) for node in found)
        raise BadRequest(
            f"{quoted(text)} is the beginning of more than one node's id: {names}",
            hint="Write more of it.",
        )
    return (exact or found)[0]


def _agreed(node: ClusterNode) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("There is no one here to ask whether you are sure; add --yes.")
    held = ""
    if node.status is not None:
        held = f" ({count_text(node.status.blobs, 'blob')}, {size_text(node.status.blob_bytes)})"
    return click.confirm(
        f"Move all blobs of {plain_name(node.node_id)}{held} to other nodes?", err=True
    )


async def _order_drain(client: Client, node_id: str, *, cancel: bool = False) -> None:
    async with client:
        await client.drain(node_id, cancel)


async def _forget(client: Client, node_id: str) -> None:
    async with client:
        await client.forget(node_id)


async def _wait_until_drained(client: Client, node_id: str) -> None:
    """Show how it goes, until there is nothing left. Raises NotFound or Conflict if it can't end."""
    begun = False
    name = plain_name(node_id)
    async with client:
        with _Waiting() as waiting:
            while True:
                now = overview(await client.cluster())
                node = next((each for each in now.nodes if each.node_id == node_id), None)
                if node is None:
                    raise NotFound(
                        f"{name} left before it was drained",
                        hint="`tierce cluster status` shows whether copies are missing. "
                        "If so, start it again.",
                    )
                if node.drained:
                    return
                if begun and not node.draining:
                    raise Conflict(f"the draining of {name} was called off")
                # The node that is asked may hear of the order a moment later than we gave it.
                begun = begun or node.draining
                waiting.tell(_progress(now, node))
                await asyncio.sleep(POLL_SECONDS)


def _progress(now: Overview, node: ClusterNode) -> str:
    line = f"{plain_name(node.node_id)}: {blobs_left(node)}"
    if now.bytes_to_move and now.estimated_seconds is not None:
        line += f", about {duration_text(now.estimated_seconds)}"
    return line


class _Waiting:
    """What is shown on stderr during a wait: a spinner on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal and not console.is_dumb_terminal
        self._spinner = Status("", console=console) if shown else None
        self._count = 0

    def __enter__(self) -> "_Waiting":
        if self._spinner is not None:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def tell(self, line: str) -> None:
        """Show how it is now."""
        if self._spinner is not None:
            self._spinner.update(Text(line))
        elif self._count % POLLS_PER_LINE == 0:
            click.echo(line, err=True)
        self._count += 1


def _console() -> Console:
    """Stdout: as wide as its terminal, and without bounds where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUNDED_CHARACTERS
    return console


def _text(found: Overview) -> str:
    """The overview as text. It is written by click, which lets a reader that left be noticed."""
    console = _console()
    with console.capture() as captured:
        console.print(rendered(found))
    return captured.get()
