"""The ring: in which order nodes are asked to keep a blob (consistent hashing).

Each node has points on a ring of 160-bit numbers: point i is the SHA-1 of its id, followed at once by
the decimal i. A blob's position is the first 20 bytes of its digest. The order of nodes for a blob is
that of their first points after its position, once round. With 16 points and SHA-1 digests that is
exactly Cask's ring (its strings compare as these bytes do). A node of weight w has w times the points.

With zones, the order is rearranged: each place goes to the next node whose zone has had the fewest
places so far. So the first n nodes, whatever n, are spread over as many zones as can be.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

from tierce.core.digest import Digest

POSITION_BYTES = 20


def point(node_id: str, number: int) -> bytes:
    """The place of a node's point on the ring."""
    return hashlib.sha1(f"{node_id}{number}".encode(), usedforsecurity=False).digest()


@lru_cache(maxsize=1024)
def _points(node_id: str, count: int) -> tuple[bytes, ...]:
    """A node's points; asked for again with each change of the cluster."""
    return tuple(point(node_id, number) for number in range(count))


def point_count(points: int, weight: float) -> int:
    """How many points a node of this weight has, where one of weight 1 has ``points``."""
    return max(1, round(points * weight))


class Ring:
    """An immutable ring of (node id, weight, zone). ``points`` is for a node of weight 1."""

    def __init__(self, nodes: Iterable[tuple[str, float, str]], points: int) -> None:
        placed = []
        self._zones: dict[str, str] = {}
        for node_id, weight, zone in nodes:
            self._zones[node_id] = zone
            placed += [(each, node_id) for each in _points(node_id, point_count(points, weight))]
        placed.sort()
        self._positions = [position for position, _ in placed]
        self._nodes = [node_id for _, node_id in placed]
        self._zone_count = len(set(self._zones.values()))

    def __len__(self) -> int:
        return len(self._zones)

    def start(self, digest: Digest) -> int:
        """Where the walk for a digest begins. Digests of the same start have the same order."""
        return bisect_right(self._positions, digest.raw[:POSITION_BYTES])

    def walk(self, digest: Digest) -> Iterator[str]:
        """The node ids in ring order, each once, without regard to zones."""
        start = self.start(digest)
        seen: set[str] = set()
        for index in range(start, start + len(self._nodes)):
            node_id = self._nodes[index % len(self._nodes)]
            if node_id not in seen:
                seen.add(node_id)
                yield node_id
                if len(seen) == len(self._zones):
                    return

    def order(self, digest: Digest, count: int | None = None) -> list[str]:
        """The first ``count`` node ids (all, without one) in the order of placement."""
        wanted = len(self._zones) if count is None else count
        if self._zone_count <= 1:
            return list(islice(self.walk(digest), wanted))
        waiting = list(self.walk(digest))
        places = dict.fromkeys(self._zones.values(), 0)
        ordered: list[str] = []
        while waiting and len(ordered) < wanted:
            # Zones that have nobody left to offer must not be waited for: hence the least of those
            # that are in line, and of these the first in ring order.
            chosen = min(waiting, key=lambda node_id: places[self._zones[node_id]])
            waiting.remove(chosen)
            places[self._zones[chosen]] += 1
            ordered.append(chosen)
        return ordered
