"""What healing counts, for those who look after the cluster."""

from dataclasses import dataclass

from tierce.blobs.store import BlobInfo
from tierce.cluster.healing import Plan
from tierce.cluster.placement import Placement


@dataclass
class Numbers:
    """What a survey found, for the blobs that this node is responsible for. Sizes in bytes."""

    responsible_blobs: int = 0
    below_target: int = 0
    at_target: int = 0
    over_target: int = 0
    bytes_to_move: int = 0

    def count(self, copies: int, placement: Placement, blobs: int = 1) -> None:
        """Count ``blobs`` with so many copies each."""
        if copies < placement.replication:
            self.below_target = max(0, self.below_target + blobs)
        elif copies > placement.max_replication:
            self.over_target = max(0, self.over_target + blobs)
        else:
            self.at_target = max(0, self.at_target + blobs)

    def add(self, info: BlobInfo, decided: Plan, placement: Placement) -> None:
        """Count a blob that this node is responsible for."""
        self.responsible_blobs += 1
        self.bytes_to_move += len(decided.push_to) * info.size
        self.count(decided.copies, placement)
