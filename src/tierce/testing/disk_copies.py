"""What lies on a simulated disk, as checkers look at it, and copies of it for later."""

import copy
from dataclasses import dataclass

from tierce.core.digest import Digest
from tierce.names.cached import Look, standing_of
from tierce.names.memory import MemoryIndex
from tierce.names.record import Record
from tierce.testing.name_checkers import Name
from tierce.testing.sim_disk import SimDisk


@dataclass(frozen=True)
class DiskCopy:
    """An older copy of a disk."""

    blobs: dict[Digest, bytes]
    written: dict[Digest, bytes]
    marks: dict[Digest, int]
    index: MemoryIndex | None


def copy_of(disk: SimDisk) -> DiskCopy:
    """Copy a disk of a node that does not run."""
    return DiskCopy(dict(disk.blobs), dict(disk.written), dict(disk.marks), copied(disk.index))


def copied(index: MemoryIndex | None) -> MemoryIndex | None:
    """An index that is changed no more by what changes the one given."""
    if index is None:
        return None
    other = copy.copy(index)
    other.changed = dict(index.changed)
    other._checkpoints = dict(index._checkpoints)
    return other


def standings_of(disk: SimDisk) -> dict[Digest, Look]:
    """How each blob on a disk stands to its cache."""
    refers = {digest: disk.index.refers(digest) for digest in disk.blobs} if disk.index else {}
    return {
        digest: Look(standing_of(digest in disk.marks, records), len(disk.blobs[digest]))
        for digest, records in refers.items()
    }


def records_of(index: MemoryIndex | None) -> dict[Name, Record]:
    """The records in force, tombstones included."""
    return {} if index is None else {name: each.record for name, each in index.changed.items()}
