"""``tierce sos replicate``: copy objects between blob servers until each has enough copies.

Says what SOS's ``replicate`` says (wire/sos.md, section 9), and at the end how it went. It may be run
again at any time: what is there is not copied again.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import click

from tierce.cli.main import SOME_FAILED, SUCCESS, TRY_AGAIN, USAGE
from tierce.cli.progress import Meter, plain_name, reason_of
from tierce.cli.remote import run
from tierce.cli.sos_servers import config_option, listed_servers, servers_option
from tierce.client.sos import SosClient
from tierce.client.sos_config import FLAT_GROUP, USUAL_FILES, Groups
from tierce.client.sos_replicating import Lacking, Lists, Replication, Tally
from tierce.core.errors import TierceError

MIN_COPIES_DEFAULT = 2


@click.command(
    "replicate",
    epilog="""\b
Examples:
  tierce sos replicate --verbose
  tierce sos replicate --min-copies=3
  tierce sos replicate --blob-server http://a:3001,http://b:3001""",
)
@click.option("--verbose", is_flag=True, help="List the servers' objects, and tell each copy.")
@click.option(
    "--min-copies",
    type=click.IntRange(1),
    default=MIN_COPIES_DEFAULT,
    show_default=True,
    metavar="N",
    help="Copies that each object must have within its group.",
)
@servers_option
@config_option
def replicate(
    verbose: bool, min_copies: int, blob_server: str | None, config: tuple[Path, ...]
) -> None:
    """Copy objects between blob servers until each has enough copies.

    Servers in groups are replicated within their group. What is copied is read whole first, into
    memory or the directory for temporary files, and must have the SHA-1 that its id says. Nothing is
    removed, and copies that are there already are not read.

    A server that can't be reached is told on stderr, the rest is done, and the exit code is 1.
    """
    servers, _ = listed_servers(blob_server, config, os.environ)
    for note in servers.notes:
        click.echo(f"tierce: {note}", err=True)
    with Meter() as meter:
        code = run(_Run(meter, verbose, min_copies).run(servers.groups))
    raise SystemExit(code)


class _Run:
    """One run over all groups: what it says, and how it ends."""

    def __init__(self, meter: Meter, verbose: bool, min_copies: int) -> None:
        self._meter = meter
        self._verbose = verbose
        self._min_copies = min_copies
        self._is_troubled = False

    async def run(self, groups: Groups) -> int:
        """Replicate in each group; the exit code."""
        async with SosClient() as client:
            live = await self._live(client, groups)
            if not live:
                self._say_lines(
                    "In order to rebalance/replicate you must define a list of your object-servers.",
                    "",
                    "The list of servers should be placed in either:",
                    "",
                    *USUAL_FILES,
                )
                return TRY_AGAIN if groups else USAGE
            tallies = []
            for group, urls in groups.items():
                members = sorted(url for url in urls if url in live)
                tally = await self._replicate(client, group, members)
                if tally is not None:
                    tallies.append(tally)
        failed = sum(each.failed for each in tallies)
        if tallies:
            objects, copies = (
                sum(each.objects for each in tallies),
                sum(each.copies for each in tallies),
            )
            self._meter.say(f"{objects} objects, {copies} copies made, {failed} failed")
        if failed:
            self._meter.complain(f"tierce: {failed} copies are still lacking; run it again")
        return SOME_FAILED if failed or self._is_troubled else SUCCESS

    async def _live(self, client: SosClient, groups: Groups) -> set[str]:
        """The servers that answer; the others are told on stderr."""
        urls = sorted({url for each in groups.values() for url in each})
        found = await asyncio.gather(*(self._is_live(client, url) for url in urls))
        return {url for url, is_live in zip(urls, found, strict=True) if is_live}

    async def _is_live(self, client: SosClient, url: str) -> bool:
        try:
            await client.alive(url)
        except TierceError as failure:
            self._trouble(f"Server offline {url}: {reason_of(failure)}")
            return False
        return True

    async def _replicate(self, client: SosClient, group: str, members: list[str]) -> Tally | None:
        """Replicate within one group; None if that can't be."""
        if group != FLAT_GROUP:
            self._tell(f"Syncing group: {plain_name(group)}")
        if not self._is_possible(members):
            return None
        with closing(Lists()) as lists:
            for url in members:
                self._tell(f"Downloading contents of blob-server {url}")
                try:
                    await lists.fetch(client, url)
                except TierceError as failure:
                    self._trouble(
                        f"Failed to download contents from server {url}: {reason_of(failure)}"
                    )
            if not self._is_possible(lists.urls):
                return None
            self._tell_lists(lists)
            self._tell("", "Beginning replication scan.")
            watcher = _Watcher(self._meter, self._verbose, self._min_copies)
            luck = random.Random()  # noqa: S311 (no secret)
            replication = Replication(client, lists, self._min_copies, watcher, luck)
            tally = await replication.run()
            self._tell("", "Replication scan complete.")
            return tally

    def _is_possible(self, members: Sequence[str]) -> bool:
        """Whether the group has servers enough; said where it hasn't."""
        if self._min_copies <= len(members):
            return True
        self._is_troubled = True
        self._say_lines(
            "You've asked for an impossible number of replicated-copies:",
            "",
            f"* You have {len(members)} blob-servers available.",
            f"* You've asked for {self._min_copies}.",
        )
        return False

    def _tell_lists(self, lists: Lists) -> None:
        if self._verbose:
            for url in lists.urls:
                self._say_lines("", f"Objects stored on blob-server {url}")
                for sos_id in lists.ids(url):
                    self._meter.say(f"\t{plain_name(sos_id)}")
            self._meter.say("")

    def _tell(self, *lines: str) -> None:
        if self._verbose:
            self._say_lines(*lines)

    def _say_lines(self, *lines: str) -> None:
        for line in lines:
            self._meter.say(line)

    def _trouble(self, line: str) -> None:
        self._is_troubled = True
        self._meter.complain(line)


class _Watcher:
    """Tells what is copied."""

    def __init__(self, meter: Meter, verbose: bool, min_copies: int) -> None:
        self._meter = meter
        self._verbose = verbose
        self._min_copies = min_copies

    def copying(self, lacking: Lacking, targets: Sequence[str]) -> "_Told":
        """One id is copied: its lines begin."""
        told = _Told(self._meter, self._verbose, lacking.sos_id)
        sos_id = plain_name(lacking.sos_id)
        if self._verbose:
            told.lines = [
                f"{len(lacking.holders)} copies of {sos_id} required: {self._min_copies}",
                f"Attempting to replicate {sos_id}",
            ]
        told.lines += [f"\tFound on {url}" for url in lacking.holders]
        told.lines += [f"\t{url} is a possible target for replication" for url in targets]
        return told


class _Told:
    """What is said of one id. Said together at its end, since several are copied at a time."""

    def __init__(self, meter: Meter, verbose: bool, sos_id: str) -> None:
        self._meter = meter
        self._verbose = verbose
        self._stack = ExitStack()
        self.progress = self._stack.enter_context(meter.transfer(sos_id))
        self.lines: list[str] = []

    def trying(self, url: str) -> None:
        if self._verbose:
            self.lines.append(f"\tReplicating to {url}")

    def copied(self, url: str, size: int) -> None:
        self.lines.append("\tReplication successful")
        self._meter.count(size)

    def failed(self, url: str, failure: TierceError) -> None:
        self.lines.append(f"\tFAILED {url}: {reason_of(failure)}")

    def ended(self) -> None:
        self._stack.close()
        for line in self.lines:
            self._meter.say(line)
