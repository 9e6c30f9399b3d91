"""What the client commands write: results to stdout, everything else to stderr, one line each.

On a terminal, bars at the bottom of stderr show what is under way. Names from the file system may
hold anything; :func:`plain_name` keeps each in its line and its terminal unharmed.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tierce.client import Progress as Report
from tierce.core.errors import TierceError
from tierce.core.limits import MIB

# A smaller transfer is over before a bar of its own could be read.
BAR_MIN_BYTES = 1 * MIB
NAME_WIDTH_CHARACTERS = 32
TALLY_SECONDS = 30.0


class Meter:
    """A command's output. Without a terminal there are no bars, and the lines are the same.

    ``say`` raises BrokenPipeError when whoever read stdout went away.
    """

    def __init__(self, *, shown: bool | None = None) -> None:
        """``shown`` overrides whether stderr is found to be a terminal."""
        self._console = Console(stderr=True)
        if shown is None:
            shown = sys.stderr.isatty() and not self._console.is_dumb_terminal
        self._bars = _bars(self._console) if shown else None
        self._both = shown and sys.stdout.isatty()
        self._sum: TaskID | None = None
        self._count = 0
        self._next_tally = time.monotonic() + TALLY_SECONDS

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Write a line of results to stdout."""
        if self._both:
            # Both are one terminal: a line written past the bars would be torn by them.
            self._above(line)
        else:
            click.echo(line.encode())

    def complain(self, line: str) -> None:
        """Write a line to stderr."""
        if self._bars is not None:
            self._above(line)
        else:
            click.echo(line, err=True)

    def count(self, size: int) -> None:
        """Count something of ``size`` bytes as stored; the sum stays on show."""
        self._count += 1
        if self._bars is not None:
            self._show(f"{self._count} stored", size)

    def tally(self, sums: str, size: int) -> None:
        """Show the sums so far, ``size`` more bytes among them; without bars, a line now and then."""
        if self._bars is not None:
            self._show(sums, size)
        elif time.monotonic() >= self._next_tally:
            self._next_tally = time.monotonic() + TALLY_SECONDS
            self.complain(f"tierce: {sums} so far")

    @contextmanager
    def transfer(self, name: str) -> Iterator[Report | None]:
        """Show a bar during the block; give the callback that moves it, None if there is none."""
        bars = self._bars
        if bars is None:
            yield None
            return
        task: TaskID | None = None

        def report(done: int, total: int | None) -> None:
            nonlocal task
            if task is None and (total is None or total >= BAR_MIN_BYTES):
                task = bars.add_task(_shortened(name), total=total)
            if task is not None:
                bars.update(task, completed=done, total=total)

        try:
            yield report
        finally:
            if task is not None:
                bars.remove_task(task)

    def _show(self, sums: str, size: int) -> None:
        assert self._bars is not None, "sums are shown on a bar"
        if self._sum is None:
            self._sum = self._bars.add_task("", total=None)
        self._bars.update(self._sum, description=sums, advance=size)

    def _above(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def plain_name(name: str) -> str:
    r"""A name made fit for one line: backslashes, control characters and stray bytes escaped.

    What ``os.fsdecode`` could not decode is shown as the byte it was, ``\xff``.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def reason_of(error: TierceError | OSError) -> str:
    """Why something failed, in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error.message}. {error.hint}" if error.hint else error.message


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{os.fsencode(character)[0]:02x}"
    return character.encode("unicode_escape").decode()


def _shortened(name: str) -> str:
    plain = plain_name(name)
    if len(plain) <= NAME_WIDTH_CHARACTERS:
        return plain
    return "..." + plain[3 - NAME_WIDTH_CHARACTERS :]


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
