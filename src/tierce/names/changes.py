"""Positions in a feed of changes, and from where a reader goes on. Pure.

A node numbers the changes that it accepts: 1, 2, 3 and so on. Each run of the node begins an epoch. A
reader remembers the number it has read and the epoch in force then. If the node's disk is replaced by
an older copy, or by an empty one, numbers are given a second time, for other changes; then the epoch
the reader remembers is unknown to the node, or ended before the reader's number, and it is told so.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tierce.core.errors import BadRequest

_POSITION = re.compile(r"([0-9A-Za-z]{1,40})-([0-9]{1,19})", re.ASCII)


class Epoch(NamedTuple):
    """A run of the node: its name, and the number of the last change before it began."""

    name: str
    begins_after: int


class Position(NamedTuple):
    """How far a feed has been read: the epoch that was in force, and the number of the last change."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read the written form. Raises BadRequest for anything else."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise BadRequest(
                f"{text[:60]!a} is no position in a feed",
                hint="Send `since` as `next` was in the last answer, or leave it out to read from "
                "the start.",
            )
        return cls(found[1], int(found[2]))


def resume(epochs: Sequence[Epoch], last_seq: int, position: Position) -> int | None:
    """The number after which a reader at ``position`` goes on; None if it must read from the start.

    What it read beyond the end of its epoch is not part of this history: it goes on at that end.
    """
    for number, epoch in enumerate(epochs):
        if epoch.name == position.epoch:
            later = epochs[number + 1 :]
            end = later[0].begins_after if later else last_seq
            return min(position.seq, end)
    return None
