"""``tierce put``: store files, several at a time, and print the digest of each.

Names are found lazily and taken by a fixed number of workers, so that a directory of any size needs
the memory of those few files. What concerns one file is reported and the others go on; what
concerns the node (refused, unavailable, full) ends the command, because it would meet them all.
"""

import asyncio
import errno
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

import click

from tierce.cli.progress import Meter, plain_name, reason_of
from tierce.cli.remote import Remote, remote_options, run
from tierce.client import Client, Stored
from tierce.core.digest import ALGORITHMS, DEFAULT_ALGORITHM
from tierce.core.errors import Full, Refused, TierceError, Unavailable
from tierce.core.limits import PIECE_BYTES

JOBS_DEFAULT = 8
JOBS_MAX = 256
STDIN = "-"


class Found(NamedTuple):
    """A name, and what speaks against storing it, if anything; ``harmless`` is only a warning."""

    path: str
    reason: str = ""
    harmless: bool = False


@click.command(
    epilog="""\b
Examples:
  tierce put photo.jpg
  tierce put -r backups/ --jobs 16
  tierce put --algorithm sha256 *.iso
  tar c project | tierce put -
  tierce put -r site/ --json > stored.jsonl"""
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Store the files in directories too.")
@click.option(
    "--algorithm",
    type=click.Choice(list(ALGORITHMS)),
    default=DEFAULT_ALGORITHM,
    show_default=True,
    help="Name the blobs by this digest.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, JOBS_MAX),
    default=JOBS_DEFAULT,
    show_default=True,
    help="Files to send at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@remote_options
def command(
    paths: tuple[str, ...],
    recursive: bool,
    algorithm: str,
    jobs: int,
    as_json: bool,
    remote: Remote,
) -> None:
    """Store files, and print `DIGEST SIZE NAME` for each as soon as the node has it on disk.

    PATH may be `-` for stdin. Symbolic links named here are followed. Those that -r finds, and
    sockets, devices and the like, are skipped with a warning.

    A file that can't be stored is reported on stderr, the others go on, and the exit code is 1.
    """
    if paths.count(STDIN) > 1:
        raise click.UsageError("`-` can be given once only.")
    with Meter() as meter:
        batch = _Batch(meter, algorithm, as_json)
        run(batch.run(remote.client(), find(paths, recursive), jobs))
    if batch.failed:
        click.echo(f"tierce: {batch.failed} not stored, {batch.stored} stored", err=True)
        raise SystemExit(1)


def find(paths: tuple[str, ...], recursive: bool) -> Iterator[Found]:
    """The files to store, and what can't be, in the order in which they are met."""
    for path in paths:
        try:
            mode = stat.S_IFREG if path == STDIN else os.stat(path).st_mode
        except OSError as error:
            yield Found(path, reason_of(error))
            continue
        if stat.S_ISREG(mode):
            yield Found(path)
        elif not stat.S_ISDIR(mode):
            yield Found(path, f"{_kind(mode)}, not a file")
        elif recursive:
            yield from _walk(path)
        else:
            yield Found(path, "it is a directory; -r stores the files in it")


def _walk(root: str) -> Iterator[Found]:
    # Directories wait in a list, so that one is open at a time, however deep the tree is.
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield _met(entry)
        except OSError as error:
            yield Found(folder, reason_of(error))


def _met(entry: os.DirEntry[str]) -> Found:
    """What to do with an entry of a directory; other kinds than files are no failure there."""
    try:
        if entry.is_file(follow_symlinks=False):
            return Found(entry.path)
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError as error:
        return Found(entry.path, reason_of(error))
    return Found(entry.path, _kind(mode), harmless=True)


def _kind(mode: int) -> str:
    kinds: list[tuple[Callable[[int], bool], str]] = [
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ]
    return "it is " + next((name for test, name in kinds if test(mode)), "a device")


class _Batch:
    """The files of one command: who takes the next, and how many ended how."""

    def __init__(self, meter: Meter, algorithm: str, as_json: bool) -> None:
        self._meter = meter
        self._algorithm = algorithm
        self._as_json = as_json
        self._turn = asyncio.Lock()
        self._fatal: TierceError | None = None
        self.stored = 0
        self.failed = 0

    async def run(self, client: Client, names: Iterator[Found], jobs: int) -> None:
        """Store all. Raises the error that concerns the node, once what was under way has ended."""
        async with client:
            workers = [asyncio.create_task(self._work(client, names)) for _ in range(jobs)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if self._fatal is not None:
            if self.stored:
                self._meter.complain(f"tierce: stopped; {self.stored} stored")
            raise self._fatal

    async def _work(self, client: Client, names: Iterator[Found]) -> None:
        while self._fatal is None:
            async with self._turn:
                found = await asyncio.to_thread(next, names, None)
            if found is None:
                return
            if found.harmless:
                self._meter.complain(f"tierce: skipped {plain_name(found.path)}: {found.reason}")
            elif found.reason:
                self._fail(found.path, found.reason)
            else:
                await self._store(client, found.path)

    async def _store(self, client: Client, path: str) -> None:
        try:
            with self._meter.transfer(path) as report:
                if path == STDIN:
                    source = _stdin_pieces()
                    stored = await client.put_stream(source, self._algorithm, progress=report)
                else:
                    stored = await client.put_file(path, self._algorithm, progress=report)
        except (Refused, Unavailable, Full) as error:
            self._fatal = self._fatal or error
        except (TierceError, OSError) as error:
            self._fail(path, reason_of(error))
        else:
            self.stored += 1
            self._meter.count(stored.size)
            self._meter.say(self._line(path, stored))

    def _fail(self, path: str, reason: str) -> None:
        self.failed += 1
        self._meter.complain(f"tierce: {plain_name(path)}: {reason}")

    def _line(self, path: str, stored: Stored) -> str:
        if not self._as_json:
            return f"{stored.digest} {stored.size} {plain_name(path)}"
        # Bytes that are no UTF-8 stay what Python made of them, lone surrogates written as \udcXX:
        # json.loads and os.fsencode give the exact name back.
        return json.dumps(
            {
                "digest": str(stored.digest),
                "size": stored.size,
                "created": stored.created,
                "name": path,
            }
        )


async def _stdin_pieces() -> AsyncIterator[bytes]:
    """Stdin, read when there is something to read, so that an interruption needn't wait for it."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "stdin is closed")
    fd = sys.stdin.fileno()
    mode = os.fstat(fd).st_mode
    waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
    while True:
        if waits:
            await _readable(fd)
        piece = await asyncio.to_thread(os.read, fd, PIECE_BYTES)
        if not piece:
            return
        yield piece


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
