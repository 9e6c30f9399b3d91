"""What keeps a quiet cluster from being as its records say. See *converged* in name_checkers.py."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.names.record import FULL, LOCAL, NO_LEVEL, Record
from tierce.testing.checkers import Disks, holders
from tierce.testing.name_checkers import History, Indexes, Name
from tierce.testing.name_kept import top


@dataclass(frozen=True)
class Situation:
    """All that lies on the disks and in the upstream.

    ``managed`` are the blobs with a mark, by node; ``lost`` the copies that were destroyed since the
    node had them; ``upstream`` the content that the upstream has under each key. ``keeps_cached``:
    nodes drop nothing of what the upstream has. ``history`` knows what clients were told.
    ``forgets``: nodes forget tombstones, some earlier than others.
    """

    placement: Placement
    indexes: Indexes
    disks: Disks
    managed: Mapping[str, Collection[Digest]]
    lost: Collection[tuple[str, Digest]]
    upstream: Mapping[str, Digest]
    history: History
    keeps_cached: bool = True
    forgets: bool = False


def unsettled(situation: Situation) -> list[str]:
    """Everything that is not as it should be."""
    in_force = top(situation.indexes)
    return [
        *_of_records(situation, in_force),
        *_of_blobs(situation, in_force),
        *_of_upstream(situation, in_force),
    ]


def _of_records(situation: Situation, in_force: Mapping[Name, Record]) -> list[str]:
    return [
        f"{node} has {_essence(records.get(name))} of {name}, and not {_essence(record)}"
        for name, record in in_force.items()
        for node, records in situation.indexes.items()
        if _essence(records.get(name)) != _essence(record)
        and not (situation.forgets and record.deleted and name not in records)
    ]


def _essence(record: Record | None) -> object:
    if record is None:
        return None
    return record.timestamp, record.node, record.digest, record.deleted, record.is_upstream


def _of_blobs(situation: Situation, in_force: Mapping[Name, Record]) -> list[str]:
    disks = situation.disks
    named: dict[Digest, list[Record]] = {}
    for record in in_force.values():
        if record.digest is not None:
            named.setdefault(record.digest, []).append(record)
    found = []
    for digest in sorted({*named, *(each for blobs in disks.values() for each in blobs)}):
        held = holders(disks, digest)
        bad = [node for node, blobs in disks.items() if digest in blobs and node not in held]
        if bad:
            found.append(f"{digest} is bad on {', '.join(bad)}")
        claimed = [each for each in held if digest not in situation.managed[each]]
        records = named.get(digest, [])
        levels = {record.level for record in records}
        if claimed or NO_LEVEL in levels:
            found += _of_placed(situation, digest, held, is_levelled=bool(levels - {NO_LEVEL}))
        elif not records and held:
            found.append(f"{digest} has no name any more, and is on {', '.join(held)}")
        for record in records:
            found += _of_levelled(situation, record, held)
    return found


def _of_placed(
    situation: Situation, digest: Digest, held: list[str], *, is_levelled: bool
) -> list[str]:
    placement = situation.placement
    owners = [each.node_id for each in placement.owners(digest, held)]
    missing = [each for each in owners if each not in held]
    surplus = [each for each in held if each not in owners]
    found = []
    if missing:
        found.append(f"{digest} is missing on {', '.join(missing)}, held by {held}")
    if len(held) > placement.max_replication and not is_levelled:
        found.append(f"{digest} is on {', '.join(surplus)}, which do not own it")
    return found


def _of_levelled(situation: Situation, record: Record, held: list[str]) -> list[str]:
    members = situation.placement.view.by_id
    content = record.content
    if record.level == NO_LEVEL or (record.is_upstream and not situation.keeps_cached):
        return []
    history = situation.history
    if record.level == FULL:
        wanted = [node for node, each in members.items() if not each.draining]
        if not held and not record.is_upstream:
            wanted = []  # its only copies were destroyed; that they may be is checked elsewhere
    elif record.is_upstream and not history.is_acknowledged(record):
        wanted = []  # fetched from the upstream, as its own node never came to keep it
    else:
        wanted = [record.node] if record.node in members else []
        wanted = [each for each in wanted if (each, content) not in situation.lost]
    missing = [each for each in wanted if each not in held]
    if missing:
        return [f"{record.key} ({content}) is missing on {', '.join(missing)}, held by {held}"]
    return []


def _of_upstream(situation: Situation, in_force: Mapping[Name, Record]) -> list[str]:
    found = []
    members = situation.placement.view.by_id
    for record in in_force.values():
        if record.deleted or record.level <= LOCAL:
            continue
        has = situation.upstream.get(record.key)
        is_held = bool(holders(situation.disks, record.content))
        differs = record.is_upstream and has != record.digest
        if differs and not situation.history.may_be_overwritten(record):
            found.append(f"the upstream has {has} as {record.key}, and not {record.digest}")
        if not record.is_upstream and record.node in members and is_held:
            found.append(f"{record.key} is not in the upstream yet")
    return found
