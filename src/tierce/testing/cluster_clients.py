"""Clients of a cluster of processes: threads that work until they are told to stop, and the ledger of
what they were promised.

The ledger keeps the bytes of all that was acknowledged, for these must come back; and the names of
all that was sent, for nothing else may ever be found. It knows nothing of nodes.
"""

import contextlib
import http.client
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from tierce.core.digest import Digest
from tierce.core.limits import KIB, MIB
from tierce.testing.calls import Reply, connect, exchange
from tierce.testing.processes import Address

SMALL_SIZES = (500, 4 * KIB, 4 * KIB, 12 * KIB, 40 * KIB)
LARGE_SIZES = (100_000, 700_000, 3 * MIB)
LARGE_EVERY = 25


class Ledger:
    """What clients tried to store, and what of it was acknowledged. Any thread may use it."""

    def __init__(self) -> None:
        self.acknowledged: dict[Digest, bytes] = {}
        self.attempted: dict[Digest, None] = {}
        self.refused: list[str] = []

    def put(self, address: Address, data: bytes) -> Reply:
        """Store a blob through a node of the cluster, on a connection of its own."""
        with contextlib.closing(connect(address)) as connection:
            return self.put_on(connection, data)

    def put_on(self, connection: http.client.HTTPConnection, data: bytes) -> Reply:
        """The same on an open connection. Raises OSError or HTTPException if there is no answer."""
        digest = Digest.of(data)
        self.attempted[digest] = None
        reply = exchange(connection, "PUT", f"/v1/blobs/{digest}", data)
        if reply.status in (200, 201):
            self.acknowledged[digest] = data
        else:
            self.refused.append(reply.body.decode(errors="replace"))
        return reply


class Clients:
    """Threads that work on a cluster until the context is left; what they raise is raised there."""

    def __init__(self, count: int, work: Callable[[int, threading.Event], None]) -> None:
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._running = [self._pool.submit(work, number, self._over) for number in range(count)]

    def __enter__(self) -> "Clients":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._pool.shutdown()
        if error is None:
            for each in self._running:
                each.result()


def blob_bytes(chance: random.Random, number: int) -> int:
    """The size of a client's next blob: mostly small, now and then large."""
    return chance.choice(LARGE_SIZES if number % LARGE_EVERY == LARGE_EVERY - 1 else SMALL_SIZES)
