"""``tierce doctor``: check a data directory, and repair it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import click

from tierce.cli.amounts import count_text, size_text
from tierce.cli.main import CORRUPT
from tierce.cli.options import load_settings
from tierce.cli.progress import Meter
from tierce.node.doctor import Report, StoreWish, examine
from tierce.node.doctor_store import Cost, StoreReport
from tierce.node.store_opening import open_store

_SHOWN = 100


@click.command(
    epilog="""\b
Examples:
  tierce doctor --data /srv/tierce
  tierce doctor --data /srv/tierce --json
  systemctl stop tierce && tierce doctor --data /srv/tierce --repair
  tierce doctor --data /srv/tierce --store s3://BUCKET/node-1 --listing-only

\b
Exit code 0 when all is well, 6 when a blob or the index is bad, even if it
was repaired, since a blob in quarantine must be put again. 2 when the store is
not this node's, 4 when its service refuses the credentials, 5 when it can't be
reached."""
)
@click.option("--data", metavar="DIRECTORY", help="The node's data directory.  [default: data]")
@click.option("--files", metavar="DIRECTORY", help="Where large blobs are, if not below it.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML settings.")
@click.option("--store", metavar="URL", help="The node's store in the cloud, to examine it too.")
@click.option("--store-layout", metavar="LAYOUT", help="Its store_layout.  [default: tierce]")
@click.option(
    "--listing-only",
    is_flag=True,
    help="Compare the store's listing with the catalogue, and read no blob there.",
)
@click.option("--repair", is_flag=True, help="Repair what can be; the node must be stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    context: click.Context,
    data: str | None,
    files: str | None,
    config: Path | None,
    store: str | None,
    store_layout: str | None,
    listing_only: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Verify every blob in a data directory.

    Without --repair nothing is changed, and the node may be running. With it, bad copies are moved
    to quarantine/, damaged checksum tables are made anew, leftovers are swept, the counts are made
    right, and an index of names that contradicts itself is made anew from its records.

    A store in the cloud is examined if the node's setting store is given: as an option, in the file
    of --config or in TIERCE_STORE, with credentials as the node has them. Each blob is read there
    too, which the service may charge for: what it will be is said first.
    """
    given = {"data": data, "files": files, "store": store, "store_layout": store_layout}
    settings = load_settings(config, given, os.environ).settings
    if listing_only and not settings.store:
        raise click.UsageError("--listing-only is about a store in the cloud, and none is given.")
    with Meter() as meter, meter.transfer("verifying") as move:
        total: int | None = None

        def progress(blobs: int, size: int) -> None:
            if move is not None:
                move(size, total)

        def tell(cost: Cost) -> None:
            nonlocal total
            total = cost.bytes or None
            meter.complain(
                f"tierce: examining the store takes about {cost.requests} requests,"
                f" and reads {size_text(cost.bytes)}"
            )

        wish = None
        if settings.store:
            wish = StoreWish(open_store(settings), settings.store_layout, listing_only, tell)
        report = asyncio.run(
            examine(
                settings.data,
                repair=repair,
                files=settings.files,
                store=wish,
                progress=progress,
            )
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
    if report.store is not None:
        lines += _store_text(report.store)
    elif report.store_url:
        lines.append(
            f"not examined: {count_text(report.in_store.blobs, 'blob')} in the store"
            f" {report.store_url}; give --store with the node's URL to have them examined"
        )
    if report.unfinished:
        lines.append(f"unfinished uploads: {report.unfinished}")
    if report.quarantined:
        lines.append(f"in quarantine: {report.quarantined}")
    lines.append(_verdict(report))
    return "\n".join(lines)


def _store_text(store: StoreReport) -> list[str]:
    how = "listed" if store.is_listing_only else "listed and read"
    lines = [f"in the store {store.url}: {count_text(store.objects, 'object')} {how}"]
    for digest in store.unknown[:_SHOWN]:
        lines.append(f"not in the catalogue: {digest}")
    if len(store.unknown) > _SHOWN:
        lines.append(f"... and {len(store.unknown) - _SHOWN} more; --json lists them all")
    if store.adopted:
        lines.append(f"taken into the catalogue: {count_text(store.adopted, 'blob')}")
    lines += [f"an object that is no blob, left alone: {path!a}" for path in store.strange[:_SHOWN]]
    if len(store.strange) > _SHOWN:
        lines.append(f"... and {len(store.strange) - _SHOWN} more; --json lists them all")
    if store.leftovers:
        lines.append(f"objects in the store that are still to be deleted: {store.leftovers}")
    if store.unfinished or store.parts:
        lines.append(
            f"uploads to the store that were broken off: {store.unfinished + len(store.parts)}"
        )
    return lines


def _has_remainders(store: StoreReport | None) -> bool:
    return store is not None and bool(
        store.unknown or store.adopted or store.leftovers or store.unfinished or store.parts
    )


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
        if report.store_url:
            moved = (
                "--repair removes them from the catalogue, and moves what there is to quarantine/"
            )
            if report.repaired:
                moved = "they are blobs no more: other nodes heal them, or put them again"
        return f"{count} bad {'copy' if count == 1 else 'copies'}; {moved}"
    if report.counts_off or report.unfinished or _has_remainders(report.store):
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
        "in_store": {"url": report.store_url, **report.in_store._asdict()},
        "store": None if report.store is None else _store_json(report.store),
        "unfinished": report.unfinished,
        "quarantined": report.quarantined,
    }


def _store_json(store: StoreReport) -> dict[str, Any]:
    return {
        "url": store.url,
        "listing_only": store.is_listing_only,
        "objects": store.objects,
        "unknown": [str(digest) for digest in store.unknown],
        "adopted": store.adopted,
        "strange": store.strange,
        "leftovers": store.leftovers,
        "unfinished": store.unfinished,
        "parts": store.parts,
        "requests": store.requests,
        "read_bytes": store.read_bytes,
    }
