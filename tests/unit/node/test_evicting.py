"""The bound of the near-cache: never passed, whatever comes at once, and found again after a kill."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from tierce.blobs.environment import BLOBS, Environment
from tierce.blobs.local import Disk, make_directories
from tierce.blobs.marks import MARK
from tierce.blobs.packed import row_of
from tierce.blobs.space import SpaceGuard
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Full, Unavailable
from tierce.names.cached import CACHE, LmdbRows, Standing, standing_in
from tierce.names.lmdb_index import DATABASES, LmdbIndex
from tierce.names.record import FULL, LOCAL, NEAR_CACHE_BUCKET, NO_LEVEL, UPSTREAM, Record
from tierce.names.store import LocalObjects, releasing
from tierce.node import arriving, cache_orders, evicting
from tierce.node.cache_orders import RoomOrders, answer_order
from tierce.node.cache_parts import CacheParts, cache_parts
from tierce.node.filling import Filler
from tierce.node.guarding import GuardedObjects
from tierce.node.names_parts import Names
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.upstream.eviction import Entry

LIMIT_BYTES = 100_000
PACKED_BYTES = 4096
DEADLINE_SECONDS = 10.0


class Node:
    """An agent's cache over a real disk, and a watch on the bound at every commit."""

    def __init__(
        self,
        directory: Path,
        limit_bytes: int = LIMIT_BYTES,
        upstream: MemoryUpstream | None = None,
    ) -> None:
        make_directories(directory)
        self.disk = Disk(
            directory,
            pack_limit_bytes=PACKED_BYTES,
            space=SpaceGuard(directory, reserve_bytes=0),
            environment=Environment(directory / "lmdb", databases=(*DATABASES, CACHE)),
        )
        self.store = self.disk.store
        on_change = releasing(self.store, is_limited=True)
        self.index = LmdbIndex(self.disk.environment, "n", on_change=on_change)
        self.rows = LmdbRows(self.disk.environment)
        self.raw = LocalObjects(self.store, self.index)
        self.names = Names(
            index=self.index,
            objects=self.raw,
            cache_limit_bytes=limit_bytes,
            cache_rows=self.rows,
            upstream=upstream,
        )
        self.clock = count(1)
        self.parts: CacheParts = cache_parts(self.names, self.store, self.now)
        assert self.parts.limited is not None
        assert self.parts.room is not None
        self.cache = self.parts.limited
        self.room = self.parts.room
        self.most = 0
        self._watch()

    def now(self) -> int:
        return next(self.clock)

    def _watch(self) -> None:
        environment = self.disk.environment
        commit = environment._commit

        def watched(take: Callable[[], Any]) -> Any:
            done = commit(take)
            self.most = max(self.most, self.cached_bytes())
            return done

        environment._commit = watched  # type: ignore[method-assign]

    def cached_bytes(self) -> int:
        """The sum of the sizes of all cached blobs, looked up from scratch."""
        return sum(self.cached().values())

    def cached(self) -> dict[Digest, int]:
        found = {}
        with self.disk.environment.snapshot() as batch:
            with batch.cursor(BLOBS) as cursor:
                rows = [row_of(bytes(key)) for key in cursor.iternext(values=False)]
            for digest in (row.digest for row in rows if row is not None and row.more == MARK):
                size = self.store.files._size(digest)
                if size is None and (value := batch.get("blobs", bytes_of(digest))) is not None:
                    size = len(value) - 1
                if size is not None and standing_in(batch, digest) is Standing.CACHED:
                    found[digest] = size
        return found

    async def put(self, key: str, data: bytes, objects: Any = None, **fields: Any) -> Digest:
        """Keep content and record as a put, a fill or a copy does."""
        record = safe(key, timestamp=self.now(), **fields)
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await (objects or self.parts.objects).restore(spool, record)
            return spool.digest

    async def put_raw(self, record: Record, data: bytes) -> None:
        """Keep what the upstream has not, past all guards, as workers do."""
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await self.raw.restore(spool, record)

    async def give(self, data: bytes) -> None:
        """Take a managed blob as another node gives it."""
        async with self.disk.spooler.holding(data, "blake3") as spool:
            await self.parts.store.put(spool, managed=True)

    async def has(self, digest: Digest) -> bool:
        return (await self.store.sizes([digest])) != [None]

    def entries(self) -> list[Entry[Digest]]:
        return list(self.cache._policy.entries())


def bytes_of(digest: Digest) -> bytes:
    return digest.algorithm.encode() + b":" + digest.raw


def safe(key: str, **fields: Any) -> Record:
    """A record of level 1 that the upstream has."""
    standard = {"bucket": NEAR_CACHE_BUCKET, "level": UPSTREAM, "is_upstream": True}
    return Record(key=key, **{**standard, **fields})


def data_of(random: Random, most: int = LIMIT_BYTES // 6) -> bytes:
    sizes = [random.randrange(200), random.randrange(most), random.randrange(most)]
    return random.randbytes(random.choice(sizes))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    await node.cache.rebuild()
    yield node
    await node.disk.close()


async def settled(node: Node) -> None:
    """Wait until all grants have ended."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await node.cache.tick()
        while node.cache._done or node.cache._held or node.cache._lock.locked():
            await asyncio.sleep(0.01)
            await node.cache.tick()


async def test_the_oldest_go_when_there_is_no_room(node: Node) -> None:
    digests = [await node.put(f"k{each}", bytes([each]) * 30_000) for each in range(5)]
    await settled(node)
    assert node.most <= LIMIT_BYTES
    assert [await node.has(digest) for digest in digests] == [False, False, True, True, True]
    kept = node.index.get(NEAR_CACHE_BUCKET, "k0")
    assert kept is not None
    assert kept.digest == digests[0]
    status = node.cache.status()
    assert status["bytes"] == 90_000
    assert status["blobs"] == 3
    assert status["evicted"] == 2
    assert status["evicted_bytes"] == 60_000


async def test_what_is_larger_than_the_limit_is_known_and_not_kept(node: Node) -> None:
    small = await node.put("small", b"small")
    digest = await node.put("k", bytes(LIMIT_BYTES + 1))
    assert not await node.has(digest)
    assert await node.has(small)
    record = node.index.get(NEAR_CACHE_BUCKET, "k")
    assert record is not None
    assert (record.digest, record.size) == (digest, LIMIT_BYTES + 1)
    assert node.cache.status()["refused"] == 1


@pytest.mark.parametrize("seed", range(6))
async def test_the_bound_holds_while_all_kinds_of_things_come_at_once(
    node: Node, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "PROMISED_SECONDS", 0.01)
    monkeypatch.setattr(evicting, "ROOM_PATIENCE_SECONDS", 0.1)
    random = Random(seed)
    contents = [data_of(random) for _ in range(60)]
    contents += [random.randbytes(LIMIT_BYTES + 1), random.randbytes(LIMIT_BYTES * 2 // 3)]

    def draft(data: bytes) -> Record:
        is_shared = contents.index(data) < 4
        kind = random.choice(["safe", "queued", "local", "ring"]) if is_shared else "safe"
        levels = {"safe": FULL, "queued": UPSTREAM, "local": LOCAL, "ring": NO_LEVEL}
        return Record(
            bucket="bucket" if kind == "ring" else NEAR_CACHE_BUCKET,
            # What needs its content here goes on doing so: see the test of what loses a record.
            key=f"{kind}{random.randrange(40) if kind == 'safe' else contents.index(data)}",
            level=levels[kind],
            timestamp=node.now(),
            digest=Digest.of(data, "blake3"),
            size=len(data),
            is_upstream=kind == "safe",
        )

    async def step() -> None:
        data = random.choice(contents)
        kind = random.randrange(5)
        if kind == 0:
            await node.put(f"safe{random.randrange(40)}", data)
        elif kind == 1:
            await node.put(f"safe{random.randrange(40)}", data, node.parts.modest)
        elif kind == 2:
            await node.parts.index.merge(
                [draft(random.choice(contents)) for _ in range(random.randrange(1, 6))]
            )
        elif kind == 3:
            try:
                await node.give(data)
            except Full:
                return
        else:
            data = random.choice(contents[:4])
            key = f"queued{contents.index(data)}"
            queued = msgspec.structs.replace(draft(data), key=key, is_upstream=False)
            async with node.disk.spooler.holding(data, "blake3") as spool:
                await node.parts.objects.restore(spool, queued)
            if queued.level >= UPSTREAM:
                await node.parts.index.merge([msgspec.structs.replace(queued, is_upstream=True)])

    at_once = asyncio.Semaphore(12)

    async def gated() -> None:
        async with at_once:
            await step()

    await asyncio.gather(*(gated() for _ in range(150)))
    await settled(node)
    await node.cache.tick()
    assert node.most <= LIMIT_BYTES
    assert node.cache.evicted > 0, node.cache.status()
    assert node.cache.status()["bytes"] <= LIMIT_BYTES
    assert set(node.cached()) <= {entry.key for entry in node.entries() if entry.place < 2}


@pytest.mark.parametrize("kind", ["level 0", "ring", "not uploaded"])
async def test_what_another_record_needs_is_not_dropped_but_is_counted(
    node: Node, kind: str
) -> None:
    data = b"!" * 40_000
    other = {
        "level 0": Record(bucket=NEAR_CACHE_BUCKET, key="other", level=LOCAL, timestamp=1),
        "ring": Record(bucket="bucket", key="other", level=NO_LEVEL, timestamp=1),
        "not uploaded": Record(bucket=NEAR_CACHE_BUCKET, key="other", level=UPSTREAM, timestamp=1),
    }[kind]
    shared = await node.put("k", data)
    await node.put_raw(other, data)
    digests = [await node.put(f"k{each}", bytes([each]) * 29_000) for each in range(4)]
    await settled(node)
    assert await node.has(shared)
    assert [await node.has(each) for each in digests] == [False, False, True, True]
    assert node.cache.status()["pinned_bytes"] == 40_000
    # It needs it no more: then it may go as any other.
    whole = msgspec.structs.replace(other, timestamp=node.now() + 10, deleted=True)
    assert await node.index.merge([whole]) == [True]
    await settled(node)
    assert [each.key for each in node.index.refers(shared)] == ["k"]
    assert node.cache.status()["ready"]
    assert node.cache.status()["pinned_bytes"] == 0
    for each in range(10):
        await node.put(f"l{each}", bytes([100 + each]) * 29_000)
    assert not await node.has(shared)
    assert node.most <= LIMIT_BYTES


async def test_what_somebody_claims_is_never_dropped_and_not_counted(node: Node) -> None:
    data = b"!" * 40_000
    digest = await node.put("k", data)
    async with node.disk.spooler.holding(data, "blake3") as spool:
        await node.store.put(spool)
    for each in range(6):
        await node.put(f"k{each}", bytes([each]) * 30_000)
    await settled(node)
    assert await node.has(digest)
    assert node.cache.status()["bytes"] == 90_000


async def test_what_loses_the_record_that_needed_it_is_counted_or_dropped_at_the_next_look(
    node: Node,
) -> None:
    data, big = b"!" * 10_000, b"?" * (LIMIT_BYTES + 1)
    ring = Record(bucket="bucket", key="ring", level=NO_LEVEL, timestamp=1)
    for key, content in ("a", data), ("b", big):
        await node.put_raw(msgspec.structs.replace(ring, key=key), content)
        await node.put(f"safe {key}", content)
    held, dropped = Digest.of(data), Digest.of(big)
    await settled(node)
    assert await node.has(dropped)
    for key in "a", "b":
        gone = msgspec.structs.replace(ring, key=key, timestamp=node.now() + 10, deleted=True)
        await node.index.merge([gone])
    await node.cache.tick()
    assert await node.has(held)
    assert not await node.has(dropped)
    assert node.cached_bytes() == 10_000


async def test_a_record_of_level_0_may_come_between_choice_and_drop(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = await node.put("k", b"!" * 60_000)
    await settled(node)
    evict = node.raw.evict

    async def late(digest: Digest, heard: Any = ()) -> Any:
        if digest == chosen:
            await node.index.merge(
                [Record(bucket=NEAR_CACHE_BUCKET, key="o", level=LOCAL, timestamp=5, digest=chosen)]
            )
        return await evict(digest, heard)

    monkeypatch.setattr(node.raw, "evict", late)
    other = await node.put("other", b"?" * 60_000)
    assert await node.has(chosen)
    assert not await node.has(other)
    assert node.cache.status()["refused"] == 1


async def test_a_record_that_arrives_makes_room_or_drops_what_it_would_make_cached(
    node: Node,
) -> None:
    first = await node.put("first", b"!" * 60_000)
    given, large = b"?" * 50_000, b"!" * (LIMIT_BYTES + 1)
    await node.give(given)
    await node.give(large)
    assert await node.has(first)
    heard = [
        safe(f"k{len(data)}", timestamp=9, digest=Digest.of(data), size=len(data))
        for data in (given, large)
    ]
    assert await node.parts.index.merge(heard) == [True, True]
    assert not await node.has(first)
    assert await node.has(Digest.of(given))
    assert not await node.has(Digest.of(large))
    assert node.most <= LIMIT_BYTES


async def test_bytes_that_come_for_a_known_record_are_refused_if_there_is_no_room(
    node: Node,
) -> None:
    large = b"!" * (LIMIT_BYTES + 1)
    heard = safe("k", timestamp=9, digest=Digest.of(large), size=len(large))
    await node.parts.index.merge([heard])
    with pytest.raises(Full):
        await node.give(large)
    assert not await node.has(Digest.of(large))


async def test_catching_up_drops_nothing(node: Node) -> None:
    kept = await node.put("k", b"!" * 60_000)
    await settled(node)
    assert node.parts.may_keep(40_000)
    assert not node.parts.may_keep(40_001)
    copied = await node.put("copy", b"?" * 60_000, node.parts.modest)
    assert await node.has(kept)
    assert not await node.has(copied)
    assert node.index.get(NEAR_CACHE_BUCKET, "copy") is not None


async def test_a_put_that_is_given_up_still_counts_what_it_kept(node: Node) -> None:
    tasks = [asyncio.create_task(node.put(f"k{i}", bytes([i]) * 20_000)) for i in range(12)]
    for task in tasks[::2]:
        await asyncio.sleep(0.002)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settled(node)
    assert node.most <= LIMIT_BYTES
    assert node.cached_bytes() == node.cache.status()["bytes"]


# Restarts


async def again(node: Node, limit_bytes: int = LIMIT_BYTES) -> Node:
    """The node after a kill: a new process on the same directory."""
    directory = node.disk.spooler.directory.parent
    await node.disk.close()
    return Node(directory, limit_bytes)


async def test_the_order_is_kept_over_a_restart(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.cache.rebuild()
    random = Random(1)
    for each in range(40):
        await node.put(f"k{each}", random.randbytes(random.randrange(5_000)))
        node.room.touched(random.choice(list(node.cached())))
    await settled(node)
    before = node.entries()
    assert any(entry.counter for entry in before)
    await node.cache.close()
    node = await again(node)
    await node.cache.rebuild()
    assert node.entries() == before
    await node.disk.close()


async def test_after_a_kill_the_cache_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.cache.rebuild()
    old = [await node.put(f"old{each}", bytes([each]) * 10_000) for each in range(4)]
    await settled(node)
    await node.cache.save()
    await node.raw.evict(old[1])
    new = [await node.put(f"new{each}", bytes([50 + each]) * 10_000) for each in range(2)]
    node = await again(node)
    assert not node.cache.status()["ready"]
    with pytest.raises(Unavailable):
        node.parts.may_keep(1)
    await node.cache.rebuild()
    kept = [entry.key for entry in node.entries()]
    assert kept == [old[0], old[2], old[3], *new]
    assert node.cache.status()["bytes"] == node.cached_bytes() == 50_000
    await node.disk.close()


async def test_a_lowered_limit_holds_before_any_room_is_granted(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.cache.rebuild()
    digests = [await node.put(f"k{each}", bytes([each]) * 10_000) for each in range(9)]
    node = await again(node, 35_000)
    waiting = asyncio.create_task(node.put("more", b"!" * 10_000))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await node.cache.rebuild()
    assert node.cached_bytes() <= 35_000
    node.most = 0
    await waiting
    assert node.most <= 35_000
    assert not await node.has(digests[0])
    await node.disk.close()


async def test_shared_blobs_over_a_lowered_limit_stay(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.cache.rebuild()
    data = b"!" * 50_000
    digest = await node.put("k", data)
    await node.put_raw(Record(bucket=NEAR_CACHE_BUCKET, key="o", level=LOCAL, timestamp=1), data)
    node = await again(node, 35_000)
    await node.cache.rebuild()
    assert await node.has(digest)
    assert node.cached_bytes() == 0
    await node.disk.close()


async def test_room_is_not_granted_while_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evicting, "CACHE_READY_SECONDS", 0.05)
    node = Node(tmp_path)
    digest = await node.put("k", b"!")
    assert not await node.has(digest)
    await node.disk.close()


async def test_if_dropping_fails_all_is_counted_anew(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.put("k", b"!" * 60_000)
    await settled(node)

    async def fails(digest: Digest, heard: Any = ()) -> Any:
        raise Unavailable("the disk fails")

    with monkeypatch.context() as patched:
        patched.setattr(node.raw, "evict", fails)
        with pytest.raises(Unavailable):
            await node.put("other", b"?" * 60_000)
    assert not node.cache.status()["ready"]
    await node.cache.rebuild()
    assert node.cache.status()["bytes"] == node.cached_bytes() == 60_000
    await node.put("other", b"?" * 60_000)
    assert node.most == 60_000


# Workers


class Worker:
    """A worker's way to the room, by orders that go through JSON's types."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.calls: list[str] = []
        self.time = 0.0
        self.orders = RoomOrders(self.call, node.rows, monotonic=lambda: self.time)
        self.objects = GuardedObjects(node.raw, node.index, self.orders)

    async def call(
        self, name: str, arguments: dict[str, Any], seconds: float = 0.0
    ) -> dict[str, Any]:
        self.calls.append(name)
        told = msgspec.json.decode(msgspec.json.encode(arguments))
        return await answer_order(self.node.cache, self.node.room, name, told)


async def test_a_worker_gets_room_by_orders(node: Node) -> None:
    worker = Worker(node)
    running = asyncio.create_task(worker.orders.run())
    digests = [
        await node.put(f"k{each}", bytes([each]) * 30_000, worker.objects) for each in range(5)
    ]
    large = await node.put("large", bytes(LIMIT_BYTES + 1), worker.objects)
    await settled(node)
    assert [await node.has(each) for each in digests] == [False, False, True, True, True]
    assert not await node.has(large)
    assert node.index.get(NEAR_CACHE_BUCKET, "large") is not None
    assert node.most <= LIMIT_BYTES
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_grant_is_void_after_a_time_and_in_another_run(node: Node) -> None:
    worker = Worker(node)
    grant = await worker.orders.reserve(Digest.of(b"a"), 1)
    assert grant is not None
    assert grant.check is not None
    grant.check()
    await node.cache.rebuild()
    with pytest.raises(Unavailable):
        grant.check()
    late = await worker.orders.reserve(Digest.of(b"b"), 1)
    assert late is not None
    assert late.check is not None
    worker.time += cache_orders.GRANT_SECONDS + 1
    with pytest.raises(Unavailable):
        late.check()


async def test_nothing_is_kept_once_its_grant_is_void(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(node)
    reserve = worker.orders.reserve

    async def then_the_agent_dies(*given: Any, **named: Any) -> Any:
        grant = await reserve(*given, **named)
        await node.cache.rebuild()
        return grant

    monkeypatch.setattr(worker.orders, "reserve", then_the_agent_dies)
    for data in b"small", b"large" * PACKED_BYTES:
        with pytest.raises(Unavailable):
            await node.put("k", data, worker.objects)
    assert node.index.get(NEAR_CACHE_BUCKET, "k") is None
    assert node.cached_bytes() == 0


async def test_a_grant_of_a_worker_that_died_ends_by_itself(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_orders, "GRANT_SECONDS", 0.01)
    worker = Worker(node)
    await worker.orders.reserve(Digest.of(b"a"), 70_000)
    assert node.cache.status()["pinned_bytes"] == 70_000
    await settled(node)
    assert node.cache.status()["bytes"] == 0


async def test_hits_of_a_worker_are_sent_together_and_bounded(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_orders, "TOUCHED_SECONDS", 0.02)
    monkeypatch.setattr(cache_orders, "TOUCHED_COUNT", 10)
    worker = Worker(node)
    digest = await node.put("k", b"!" * 50)
    await settled(node)
    for _ in range(100):
        worker.orders.touched(digest)
    for each in range(100):
        worker.orders.touched(Digest.of(str(each).encode()))
    assert len(worker.orders._touched) == 10
    running = asyncio.create_task(worker.orders.run())
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not node.entries()[0].counter:
            await asyncio.sleep(0.01)
    assert node.entries()[0].counter == 1
    assert worker.calls == [cache_orders.TOUCHED]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# Fills


async def test_fills_keep_to_the_bound_and_refuse_what_is_too_large(node: Node) -> None:
    upstream = MemoryUpstream(Random(1), seconds=0.0)
    for each in range(8):
        upstream.put_foreign(f"k{each}", bytes([each]) * 30_000, {}, 1)
    upstream.put_foreign("large", bytes(LIMIT_BYTES + 1), {}, 1)
    filler = Filler(
        node.store,
        node.disk.spooler,
        node.parts.objects,
        node.index,
        upstream,
        bucket=NEAR_CACHE_BUCKET,
        may_hold=node.parts.may_hold,
    )
    records = await asyncio.gather(*(filler.fill(f"k{each}") for each in range(8)))
    await settled(node)
    assert node.most <= LIMIT_BYTES
    assert sum([await node.has(each.content) for each in records]) == 3
    with pytest.raises(Conflict) as refused:
        await filler.fill("large")
    assert "cache_limit_bytes" in refused.value.hint
    await filler.close()
