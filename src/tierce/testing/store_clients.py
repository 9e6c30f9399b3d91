"""What clients do with a simulated store in the cloud, and what they tell the checkers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from random import Random
from typing import Any

from tierce.blobs.environment import WriteBatch
from tierce.blobs.marks import key_of
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.testing.checkers import Violation
from tierce.testing.sim_store import RECORDS, SimStorage, SimStoreNode, run_in
from tierce.testing.store_checkers import Doing, Kept
from tierce.testing.trace import Trace

MOST_BODIES = 12
AFTER_SECONDS = 1.0
"""A commit that was submitted may come so long after its submitter gave up."""


class Clients:
    """What clients share: the node they ask, and the checkers that they tell what came of it."""

    def __init__(self, node: SimStoreNode, kept: Kept, trace: Trace) -> None:
        self.node = node
        self.kept = kept
        self.trace = trace
        self.counts: Counter[str] = Counter()
        self.bodies: list[bytes] = []

    def now(self) -> float:
        """The simulated time."""
        return asyncio.get_running_loop().time()

    def tell(self, event: str, digest: Digest | None = None) -> None:
        """Note what happened, and count it."""
        self.trace.note(event if digest is None else f"{event} {digest}")
        self.counts[event] += 1


async def client(world: Clients, random: Random) -> None:
    """One thing after another, with any process, for as long as its patience lasts."""
    while True:
        await asyncio.sleep(random.expovariate(0.5))
        if not world.node.workers:
            continue
        if not world.bodies or (len(world.bodies) < MOST_BODIES and random.random() < 0.1):
            world.bodies.append(body(random))
            world.kept.body(Digest.of(world.bodies[-1], "blake3"), world.bodies[-1])
        task = asyncio.create_task(_attempt(world, random))
        await asyncio.wait([task], timeout=random.choice([0.5, 5.0, 60.0, 60.0]))
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def _attempt(world: Clients, random: Random) -> None:
    worker, data = random.choice(world.node.workers), random.choice(world.bodies)
    digest = Digest.of(data, "blake3")
    kind = random.choices(list(WORK), [weight for _, weight in WORK.values()])[0]
    world.trace.note(f"{kind} begins {digest} at {worker.process.name}")
    try:
        await WORK[kind][0](world, worker, data, digest, random)
    except asyncio.CancelledError:
        world.tell(f"{kind} gave up", digest)
        raise
    except Unavailable as error:
        if "the index failed" in error.message:
            raise Violation(error.message) from error
        world.tell(f"{kind} unavailable", digest)
    else:
        world.tell(f"{kind} done", digest)


def body(random: Random) -> bytes:
    """Of all sizes that are treated differently."""
    largest = random.choices([100, 900, 2500, 5500, 30_000, 600_000], [30, 20, 15, 15, 18, 2])[0]
    return random.randbytes(random.randint(0, largest))


async def put(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Put a blob: for its own sake, for that of records, or with one."""
    kind = random.choice(["plain", "plain", "managed", "record"])
    doing = Doing(world.now())

    async def work() -> None:
        async with worker.spooler.holding(data, "blake3") as spool:
            if kind == "record":
                await worker.store.put_along(spool, partial(_refer, digest))
            else:
                await worker.store.put(spool, managed=kind == "managed")

    await run_in(worker.process, work())
    doing.end = world.now()
    world.kept.acknowledged(digest, doing, managed=kind != "plain", record=kind == "record")


def _refer(digest: Digest, batch: WriteBatch) -> None:
    batch.put(RECORDS, key_of(digest), b"")


async def release(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Remove the record of a blob."""
    doing = Doing(world.now())
    world.kept.releasing(digest, doing)

    def change(batch: WriteBatch) -> None:
        if batch.delete(RECORDS, key_of(digest)):
            worker.store.marking.release(batch, digest)

    await _removed(world, worker, doing, worker.environment.write(change))


async def _removed(
    world: Clients, worker: SimStorage, doing: Doing, work: Awaitable[object]
) -> None:
    async def in_process() -> None:
        await work

    try:
        await run_in(worker.process, in_process())
        doing.end = world.now()
    finally:
        doing.end = min(doing.end, world.now() + AFTER_SECONDS)


async def delete(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Delete a blob."""
    doing = Doing(world.now())
    world.kept.removing(digest, doing)
    await _removed(world, worker, doing, worker.store.delete(digest))


async def evict(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Drop a blob."""
    doing = Doing(world.now())
    world.kept.removing(digest, doing)
    await _removed(world, worker, doing, worker.store.evict(digest, lambda batch: True))


async def collect(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Collect what nothing refers to."""
    doing = Doing(world.now())
    may_go = world.kept.collecting(doing)
    before = worker.store.marking.now() - random.choice([0, 5_000, 60_000])

    async def work() -> None:
        done = await worker.store.collect(before, random.choice([2, 100]), _is_referred_to)
        world.kept.collected(done.removed, may_go)

    await _removed(world, worker, doing, work())


def _is_referred_to(batch: WriteBatch, digest: Digest) -> bool:
    return batch.get(RECORDS, key_of(digest)) is not None


async def get(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Read a blob, or a part of it."""
    start, stop = 0, None
    if random.random() < 0.4 and data:
        start = random.randrange(len(data))
        stop = random.randint(start + 1, len(data))
    await read(world, worker, digest, start, stop)


async def read(
    world: Clients, worker: SimStorage, digest: Digest, start: int, stop: int | None
) -> None:
    """Read a blob from ``start`` to ``stop``, and have it checked."""
    asked = world.now()
    received = bytearray()

    async def work() -> bool:
        blob = await worker.store.open(digest)
        try:
            if blob.data is not None:
                received.extend(blob.data[start:stop])
                return True
            pieces = blob.stream(start, stop)
            try:
                async for piece in pieces:
                    received.extend(piece)
            finally:
                await pieces.aclose()
            return True
        finally:
            await blob.aclose()

    try:
        await run_in(worker.process, work())
    except (NotFound, Corrupt) as error:
        world.kept.was_missed(digest, asked, world.now(), error.message)
        world.kept.was_read(digest, bytes(received), start, whole=False)
    except (TierceError, asyncio.CancelledError):
        world.kept.was_read(digest, bytes(received), start, whole=False)
        raise
    else:
        world.kept.was_read(digest, bytes(received), start, whole=stop is None)


async def check(
    world: Clients, worker: SimStorage, data: bytes, digest: Digest, random: Random
) -> None:
    """Have a blob verified or proved, or look for it."""
    asked = world.now()
    store = worker.store
    how: list[Callable[[], Awaitable[int]]] = [
        partial(store.verify, digest, repair=True),
        partial(store.verify, digest, repair=False),
        partial(store.prove, digest),
        partial(store.stat, digest),
    ]
    ask = random.choice(how)

    async def work() -> None:
        size = await ask()
        if ask is not how[-1]:  # that one verifies nothing
            world.kept.was_sized(digest, size)

    try:
        await run_in(worker.process, work())
    except (NotFound, Corrupt) as error:
        world.kept.was_missed(digest, asked, world.now(), error.message)


Work = Callable[[Clients, SimStorage, bytes, Digest, Random], Coroutine[Any, Any, None]]
WORK: dict[str, tuple[Work, int]] = {
    "put": (put, 30),
    "get": (get, 30),
    "check": (check, 15),
    "delete": (delete, 10),
    "evict": (evict, 4),
    "release": (release, 4),
    "collect": (collect, 4),
}
