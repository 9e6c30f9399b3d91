"""The cluster for people: a table of its nodes, its numbers, and in words what is wrong.

Pure: an overview in, things for rich to show out. It decides what counts as healthy. What nodes say
of themselves is shown as plain text, whatever it holds.
"""

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tierce.cli.amounts import count_text, duration_text, size_text
from tierce.cli.progress import plain_name
from tierce.client.answers import ClusterNode, Overview

_STATE_STYLES = {"alive": "green", "suspect": "yellow", "down": "red"}
_NOTHING = "-"


def problems(overview: Overview) -> list[str]:
    """Why the cluster is not healthy, in sentences; none if it is.

    Healthy is a cluster of which it is known that each blob has its copies, with all nodes up.
    """
    found = []
    for node in overview.nodes:
        name = plain_name(node.node_id)
        if node.state == "down":
            since = "" if node.down_seconds is None else f" for {duration_text(node.down_seconds)}"
            found.append(f"{name} is down{since}.")
        elif node.status is None and node.dialect == "tierce":
            found.append(f"{name} gives no account of itself.")
        elif _is_in_the_dark(node):
            found.append(f"{name} has not yet looked at all its blobs.")
    if overview.below_target:
        have = "has" if overview.below_target == 1 else "have"
        found.append(f"{count_text(overview.below_target, 'blob')} {have} too few copies.")
    return found


def _is_in_the_dark(node: ClusterNode) -> bool:
    """Whether its numbers are none yet: it counts as it looks at its blobs, after each start."""
    healing = None if node.status is None else node.status.healing
    return node.status is not None and (healing is None or healing.last_pass is None)


def rendered(overview: Overview) -> Group:
    """All that is to be seen at a glance."""
    return Group(_table(overview), *_numbers(overview), *_words(overview))


def _table(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    # An id is needed whole, by who copies it: it may take several lines, and is never cut.
    table.add_column("NODE", overflow="fold")
    table.add_column("STATE", no_wrap=True)
    has_zones = any(node.zone for node in overview.nodes)
    if has_zones:
        table.add_column("ZONE", overflow="fold")
    table.add_column("ADDRESS", overflow="fold")
    for heading in ("BLOBS", "SIZE", "FREE"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("WRITES", no_wrap=True)
    table.add_column("BELOW", justify="right", no_wrap=True)
    for node in overview.nodes:
        cells = list(_cells(node))
        if not has_zones:
            del cells[2]
        table.add_row(*cells)
    return table


def _cells(node: ClusterNode) -> Iterator[Text]:
    status = node.status
    yield _plain(node.node_id)
    yield Text(plain_name(node.state), style=_STATE_STYLES.get(node.state, ""))
    yield _plain(node.zone or _NOTHING)
    yield _plain(node.native or node.cask or node.private or _NOTHING)
    if status is None:
        yield from (Text(_NOTHING),) * 3
    else:
        yield Text(str(status.blobs))
        yield Text(size_text(status.blob_bytes))
        yield Text(size_text(status.disk.free_bytes))
    yield _writes(node)
    healing = None if status is None else status.healing
    if healing is None:
        yield Text(_NOTHING)
    else:
        yield Text(str(healing.below_target), style="red" if healing.below_target else "")


def _writes(node: ClusterNode) -> Text:
    if node.state == "down":
        return Text(_NOTHING)
    if node.drained:
        return Text("drained", style="yellow")
    if node.draining:
        return Text("draining", style="yellow")
    return Text("yes") if node.writable else Text("no", style="yellow")


def _numbers(overview: Overview) -> Iterator[Text]:
    copies = str(overview.replication)
    if overview.max_replication > overview.replication:
        copies += f", surplus removed above {overview.max_replication}"
    yield Text()
    yield _line("replication", copies)
    yield _line(
        "blobs",
        f"{overview.blobs}: {overview.below_target} below target, {overview.at_target} at target,"
        f" {overview.over_target} over",
    )
    if overview.bytes_to_move:
        seconds = overview.estimated_seconds
        time = "" if seconds is None else f", about {duration_text(seconds)}"
        yield _line("to move", f"{size_text(overview.bytes_to_move)}{time}")
    yield _line("last pass", _last_pass(overview))


def _last_pass(overview: Overview) -> str:
    """That of the node whose last full pass is the longest ago: older is what is known of it."""
    accounts = [node.status.healing for node in overview.nodes if node.status is not None]
    passes = [None if healing is None else healing.last_pass for healing in accounts]
    finished = [each for each in passes if each is not None]
    if not finished or len(finished) < len(passes):
        return "not yet finished everywhere"
    return plain_name(min(finished))


def _words(overview: Overview) -> Iterator[Text]:
    for warning in overview.warnings:
        yield _line("warning", plain_name(warning), "yellow")
    for node in overview.nodes:
        if node.drained:
            yield _line("drained", f"{plain_name(node.node_id)} may be stopped.", "yellow")
        elif node.draining:
            yield _line("draining", f"{plain_name(node.node_id)}: {blobs_left(node)}.", "yellow")
    wrong = problems(overview)
    yield Text()
    if not wrong:
        more = "" if overview.settled else " Healing is at work."
        yield Text(f"All healthy.{more}", style="green")
    for problem in wrong:
        yield Text(problem, style="red")


def blobs_left(node: ClusterNode) -> str:
    """How much is still on a node that is being emptied."""
    return (
        "it does not answer"
        if node.status is None
        else (f"{count_text(node.status.blobs, 'blob')} left")
    )


def _line(name: str, value: str, style: str = "") -> Text:
    return Text(f"{name:<12}{value}", style=style)


def _plain(text: str) -> Text:
    return Text(plain_name(text))
