"""``tierce doctor``: check a data directory, and repair it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import click

from tierce.cli.main import CORRUPT
from tierce.cli.options import load_settings
from tierce.cli.progress import Meter
from tierce.node.doctor import Report, examine

_SHOWN = 100


@click.command(
    epilog="""\b
Examples:
  tierce doctor --data /srv/tierce
  tierce doctor --data /srv/tierce --json
  systemctl stop tierce && tierce doctor --data /srv/tierce --repair

\b
Exit code 0 when all is well, 6 when a blob or the index is bad, even if it
was repaired, since a blob in quarantine must be put again."""
)
@click.option("--data", metavar="DIRECTORY", help="The node's data directory.  [default: data]")
@click.option("--files", metavar="DIRECTORY", help="Where large blobs are, if not below it.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML settings.")
@click.option("--repair", is_flag=True, help="Repair what can be; the node must be stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    context: click.Context,
    data: str | None,
    files: str | None,
    config: Path | None,
    repair: bool,
    as_json: bool,
) -> None:
    """Verify every blob in a data directory.

    Without --repair nothing is changed, and the node may be running. With it, bad copies are moved
    to quarantine/, damaged checksum tables are made anew, leftovers are swept, the counts are made
    right, and an index of names that contradicts itself is made anew from its records.
    """
    settings = load_settings(config, {"data": data, "files": files}, os.environ).settings
    with Meter() as meter, meter.transfer("verifying") as move:

        def progress(blobs: int, size: int) -> None:
            if move is not None:
                move(size, None)

        report = asyncio.run(
            examine(settings.data, repair=repair, files=settings.files, progress=progress)
        )
    click.echo(json.dumps(_as_json(report), indent=2) if as_json else _as_text(report))
    context.exit(0 if report.is_healthy else CORRUPT)


def _as_text(report: Report) -> str:
    lines = [f"{report.blobs} blobs, {report.bytes} bytes verified; {report.names} names"]
    if report.node_runs:
        lines.append("a node runs here: the index's structure and the counts were not checked")
    for digest, problem in report.bad[:_SHOWN]:
        lines.append(f"bad: {digest}: {problem}")
    if len(report.bad) > _SHOWN:
        lines.append(f"... and {len(report.bad) - _SHOWN} more; --json lists them all")
    lines += [f"index: {problem}" for problem in report.index_problems[:_SHOWN]]
    lines += [f"names: {problem}" for problem in report.name_problems[:_SHOWN]]
    if len(report.name_problems) > _SHOWN:
        lines.append(f"... and {len(report.name_problems) - _SHOWN} more")
    lines += [f"stray file: {path}" for path in report.stray[:_SHOWN]]
    for name, (kept, counted) in report.counts_off.items():
        lines.append(
            f"counts of {name}: {kept.blobs} blobs, {kept.bytes} bytes kept;"
            f" {counted.blobs} blobs, {counted.bytes} bytes found"
        )
    if report.in_store.blobs:
        lines.append(f"in the store in the cloud, not examined: {report.in_store.blobs} blobs")
    if report.unfinished:
        lines.append(f"unfinished uploads: {report.unfinished}")
    if report.quarantined:
        lines.append(f"in quarantine: {report.quarantined}")
    lines.append(_verdict(report))
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    if report.index_problems:
        return (
            "the index is damaged: records and small blobs here can't be used. Stop the node; then put"
            " back a copy of the whole directory, or move lmdb/ away, run `tierce doctor --repair`, and"
            " start it again: the other nodes give it what they have; what only this node had is lost"
        )
    if report.name_problems and not report.repaired:
        return (
            "the index of names contradicts itself. Stop the node and run `tierce doctor --repair` with"
            " the same options: it makes the index anew from the records, and drops those that can't be"
            " read. Start the node again: other nodes give these back; what only this node had is lost"
        )
    if report.name_problems:
        dropped = report.names_dropped
        lost = (
            f"; {dropped} records could not be read and were dropped. Start the node: other nodes give"
            " them back within ten minutes, and what only this node had is lost"
        )
        return f"the index of names was made anew{lost if dropped else ''}"
    if report.bad:
        count = len(report.bad)
        moved = "moved to quarantine/: put them again" if report.repaired else "--repair moves them"
        return f"{count} bad {'copy' if count == 1 else 'copies'}; {moved}"
    if report.counts_off or report.unfinished:
        return "the blobs are well" + ("; the rest was put right" if report.repaired else
                                       "; --repair puts the rest right")  # fmt: skip
    return "all is well"


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "healthy": report.is_healthy,
        "repaired": report.repaired,
        "node_runs": report.node_runs,
        "blobs": report.blobs,
        "bytes": report.bytes,
        "bad": [{"digest": str(digest), "problem": problem} for digest, problem in report.bad],
        "index_problems": report.index_problems,
        "names": report.names,
        "name_problems": report.name_problems,
        "names_dropped": report.names_dropped,
        "stray": [os.fsdecode(path) for path in report.stray],
        "counts_off": {
            name: {"kept": kept._asdict(), "found": found._asdict()}
            for name, (kept, found) in report.counts_off.items()
        },
        "in_store": report.in_store._asdict(),
        "unfinished": report.unfinished,
        "quarantined": report.quarantined,
    }
