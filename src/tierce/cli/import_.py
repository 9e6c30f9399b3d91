"""``tierce import``: move another store's files into a running node, each verified against its name.

Items are found lazily and taken by a fixed number of workers, so that a source of any size needs the
memory of those few. What concerns one item is reported and the others go on; what concerns the node, or
the source as a whole, ends the command. Nothing is remembered between runs: the node says what it has.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import NamedTuple

import click

from tierce.cli import remote as remotes
from tierce.cli.import_bucket import CaskBucket
from tierce.cli.progress import Meter, plain_name, reason_of
from tierce.cli.put import JOBS_DEFAULT, JOBS_MAX
from tierce.cli.remote import Remote, remote_options, run
from tierce.client.importing.doors import Door, DtfcDoor, NativeDoor, SosBlobDoor
from tierce.client.importing.flat import SosDirectory
from tierce.client.importing.items import (
    Damaged,
    Item,
    Met,
    Passed,
    Source,
    SourceTrouble,
    digest_of,
    verified,
)
from tierce.client.importing.trees import CaskTree, DtfcTree
from tierce.client.retrying import Retry
from tierce.client.uploads import Progress
from tierce.core.digest import Digest
from tierce.core.errors import Full, Refused, TierceError, Unavailable

LISTED_COUNT = 100
"""So many paths of each kind are repeated at the end; all are told when they are met."""
TROUBLES_IN_A_ROW = 20


class Kind(NamedTuple):
    """A kind of store: how its source is made from PLACE, and the door that takes its items."""

    source: Callable[[str], Source]
    door: Callable[[str, str | None, Retry], Door]


KINDS = {
    "cask-disk": Kind(CaskTree, NativeDoor),
    "cask-s3": Kind(lambda url: CaskBucket(url, os.environ), NativeDoor),
    "dtfc": Kind(DtfcTree, DtfcDoor),
    "sos": Kind(SosDirectory, SosBlobDoor),
}


@click.command(
    epilog="""\b
Examples:
  tierce import --from cask-disk /srv/cask/
  tierce import --from cask-disk /srv/cask/ --dry-run
  tierce import --from cask-s3 's3://my-cask?region=us-east-1'
  tierce import --from dtfc /srv/dtfc --url http://127.0.0.1:8080
  tierce import --from sos /srv/sos --url http://127.0.0.1:3001
"""
)
@click.option(
    "--from",
    "kind",
    type=click.Choice(list(KINDS)),
    required=True,
    help="What PLACE is: a node's directory (cask-disk, dtfc, sos), or the URL of its bucket.",
)
@click.argument("place", metavar="PLACE")
@click.option(
    "--jobs",
    type=click.IntRange(1, JOBS_MAX),
    default=JOBS_DEFAULT,
    show_default=True,
    help="Files to send at once.",
)
@click.option("--dry-run", is_flag=True, help="Read and verify only; no node is asked.")
@remote_options
def command(kind: str, place: str, jobs: int, dry_run: bool, remote: Remote) -> int:
    """Move the files of a Cask, dtfc or SOS node into this store.

    Each is verified against the digest in its name; what is corrupt is named and not stored. What the
    node has already is not sent, so stop it at any time, and run it again. Nothing in PLACE is
    changed. Files of Cask go to a native door, others to one of their own kind: name it with --url.

    The exit code is 1 if something could not be imported. docs/importing.md tells more.
    """
    source = KINDS[kind].source(place)
    door = None if dry_run else KINDS[kind].door(remote.url, remote.token, remotes.RETRY)
    with Meter() as meter:
        importing = _Import(source, door, meter)
        try:
            run(importing.run(jobs))
        except KeyboardInterrupt:
            meter.complain(f"tierce: stopped; {importing.sums()}")
            raise
    if importing.fatal is None or importing.has_begun:
        for line in importing.summary():
            click.echo(line)
    if importing.fatal is not None:
        raise importing.fatal
    return 1 if importing.corrupt.count or importing.failed.count else 0


class _Named:
    """Counts places, and remembers the first ones."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, place: str) -> None:
        self.count += 1
        if self.count <= LISTED_COUNT:
            self.first.append(place)


class _Import:
    """The items of one command: who takes the next, and how many ended how.

    ``door`` is None if nothing is to be stored. ``fatal`` is what ended it early.
    """

    def __init__(self, source: Source, door: Door | None, meter: Meter) -> None:
        self._source = source
        self._door = door
        self._meter = meter
        self._turn = asyncio.Lock()
        self._troubles_in_a_row = 0
        self.fatal: TierceError | None = None
        self.has_begun = False
        self.good, self.good_bytes, self.unverified, self.there, self.skipped = 0, 0, 0, 0, 0
        self.corrupt, self.failed = _Named(), _Named()

    async def run(self, jobs: int) -> None:
        """Take all. Raises what the door has to say before the first; later that is in ``fatal``."""
        async with AsyncExitStack() as stack:
            if self._door is not None:
                await stack.enter_async_context(self._door)
                await self._door.check()
            items = await stack.enter_async_context(aclosing(self._source.items()))
            workers = [asyncio.create_task(self._work(items)) for _ in range(jobs)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def sums(self) -> str:
        """How many ended how, so far."""
        done = "imported" if self._door is not None else "read"
        parts = [f"{self.good} {done} ({self.good_bytes} bytes)"]
        if self.unverified:
            parts[0] += f", {self.unverified} of them without a digest to verify by"
        if self._door is not None:
            parts.append(f"{self.there} there already")
        parts.append(f"{self.corrupt.count} corrupt")
        if self.failed.count:
            parts.append(f"{self.failed.count} failed")
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        return ", ".join(parts)

    def summary(self) -> list[str]:
        """The last lines: the sums, and what is left to look after."""
        lines = [self.sums()]
        for word, named in (("corrupt", self.corrupt), ("failed", self.failed)):
            lines += [f"  {word}: {plain_name(place)}" for place in named.first]
            if more := named.count - len(named.first):
                lines.append(f"  {word}: {more} more, told above")
        return lines

    async def _work(self, items: AsyncGenerator[Met, None]) -> None:
        while self.fatal is None:
            try:
                async with self._turn:
                    met = await anext(items, None)
            except TierceError as error:
                self._end(error)
                return
            if met is None:
                return
            self.has_begun = True
            if isinstance(met, Item):
                await self._take(met)
            else:
                self._pass(met)

    def _pass(self, passed: Passed) -> None:
        if passed.is_failure:
            self._fail(self.failed, passed.place, passed.reason)
        else:
            self.skipped += 1
            self._meter.complain(f"tierce: skipped {plain_name(passed.place)}: {passed.reason}")

    async def _take(self, item: Item) -> None:
        try:
            with self._meter.transfer(item.place) as report:
                size = await self._carry(item, report)
        except (Refused, Unavailable, Full) as error:
            self._end(error)
            return
        except Damaged as error:
            self._fail(self.corrupt, item.place, reason_of(error))
        except SourceTrouble as error:
            self._fail(self.failed, item.place, reason_of(error))
            if error.is_remote:
                self._count_trouble(error)
                return
        except TierceError as error:
            self._fail(self.failed, item.place, reason_of(error))
        else:
            self._meter.tally(self.sums(), size)
        self._troubles_in_a_row = 0

    async def _carry(self, item: Item, report: Progress | None) -> int:
        """Verify an item, and store it unless it is there. Returns how many bytes were stored."""

        async def compare(algorithm: str) -> Digest:
            async with self._source.open(item) as content:
                return await digest_of(content, algorithm)

        if self._door is not None and await self._door.has(item, compare):
            self.there += 1
            return 0
        async with self._source.open(item) as content:
            body = await verified(content, item, report)
            if self._door is None:
                async for _ in body.pieces():
                    pass
            elif not await self._door.put(item, body):
                self.there += 1
                return 0
            self.good += 1
            self.good_bytes += content.size
            self.unverified += item.digest is None
            return content.size

    def _count_trouble(self, error: SourceTrouble) -> None:
        self._troubles_in_a_row += 1
        if self._troubles_in_a_row >= TROUBLES_IN_A_ROW:
            self._end(
                Unavailable(
                    f"{self._troubles_in_a_row} files in a row could not be read: {error.message}",
                    hint="Run it again when the reason is gone: what is done stays done.",
                )
            )

    def _end(self, error: TierceError) -> None:
        if self.fatal is None:
            self.fatal = error

    def _fail(self, named: _Named, place: str, reason: str) -> None:
        named.add(place)
        self._meter.complain(f"tierce: {plain_name(place)}: {reason}")
