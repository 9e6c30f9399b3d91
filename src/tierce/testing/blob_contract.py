"""The contract of a blob store (blobs/store.py) as tests. Subclass it and give it a ``disk`` fixture.

A new implementation's test is: a subclass whose ``bench`` fixture yields a Workbench.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobStore, Counts
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import Corrupt, NotFound
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES


@dataclass
class Workbench:
    """A store under test, and what a test needs to feed and to harm it.

    ``harm(digest, at)`` changes the byte of the stored content at offset ``at``; ``quarantined``
    counts the copies set aside; ``sizes`` are the body sizes, in bytes, that the store takes.
    """

    store: BlobStore
    spooler: Spooler
    harm: Callable[[Digest, int], None]
    quarantined: Callable[[], int]
    sizes: list[int] = field(default_factory=list)

    async def put(self, data: bytes, algorithm: str = "blake3") -> tuple[Digest, bool]:
        async with self.spooler.holding(data, algorithm) as spool:
            return spool.digest, await self.store.put(spool)

    async def put_as(self, data: bytes, managed: bool | None) -> Digest:
        """Put a body for the sake of records (True), for its own (False), or as a copy (None)."""
        async with self.spooler.holding(data, "blake3") as spool:
            await self.store.put(spool, managed=managed)
            return spool.digest

    async def get(self, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
        return await read_blob(self.store, digest, start, stop)


async def read_blob(
    store: BlobStore, digest: Digest, start: int = 0, stop: int | None = None
) -> bytes:
    """A blob's bytes. Raises what opening and reading do."""
    blob = await store.open(digest)
    try:
        return b"".join([piece async for piece in blob.stream(start, stop)])
    finally:
        await blob.aclose()


def write_now(environment: Environment, change: Callable[[WriteBatch], None]) -> None:
    """Change the index behind the store's back, as damage does."""
    with environment._lmdb.begin(write=True, buffers=True) as transaction:
        change(WriteBatch(transaction, environment._databases))


SMALL = [0, 1, 4096, 65536]
LARGE = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7]


def body(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, made from a seed."""
    block = bytes((seed * 31 + number * 7 + number // 251) % 256 for number in range(9973))
    return (block * (size // len(block) + 1))[:size]


class BlobStoreContract:
    """Every line of the protocol's comments that can be seen from outside."""

    @pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
    async def test_what_was_put_is_read_back(self, bench: Workbench, algorithm: str) -> None:
        for size in bench.sizes:
            digest, created = await bench.put(body(size), algorithm)
            assert created
            assert digest == Digest.of(body(size), algorithm)
            assert await bench.get(digest) == body(size)
            assert await bench.store.stat(digest) == size

    async def test_any_part_is_read_back(self, bench: Workbench) -> None:
        size = bench.sizes[-1]
        digest, _ = await bench.put(body(size))
        borders = sorted({0, 1, size // 2, size - 1, size, min(CHUNK_BYTES, size)})
        for start in borders:
            for stop in borders:
                if start <= stop:
                    assert await bench.get(digest, start, stop) == body(size)[start:stop]

    async def test_data_is_the_whole_body_or_none(self, bench: Workbench) -> None:
        digest, _ = await bench.put(body(100))
        blob = await bench.store.open(digest)
        assert blob.data in (None, body(100))
        assert blob.size == 100
        await blob.aclose()

    async def test_putting_again_is_not_new(self, bench: Workbench) -> None:
        for size in bench.sizes:
            _, first = await bench.put(body(size))
            _, second = await bench.put(body(size))
            assert (first, second) == (True, False)

    async def test_of_concurrent_puts_exactly_one_is_new(self, bench: Workbench) -> None:
        for size in bench.sizes:
            results = await asyncio.gather(*(bench.put(body(size)) for _ in range(8)))
            assert sum(created for _, created in results) == 1
            assert await bench.get(results[0][0]) == body(size)

    async def test_a_blob_never_put_is_not_found(self, bench: Workbench) -> None:
        missing = Digest.of(b"never put")
        with pytest.raises(NotFound):
            await bench.store.open(missing)
        with pytest.raises(NotFound):
            await bench.store.stat(missing)
        with pytest.raises(NotFound):
            await bench.store.verify(missing, repair=True)
        assert not await bench.store.delete(missing)

    async def test_sizes_are_told_of_many_at_once(self, bench: Workbench) -> None:
        stored = [(await bench.put(body(size)))[0] for size in bench.sizes]
        missing = Digest.of(b"never stored")
        asked = [missing, *stored, missing]
        assert await bench.store.sizes(asked) == [None, *bench.sizes, None]
        assert await bench.store.sizes([]) == []

    async def test_deleting_removes_once(self, bench: Workbench) -> None:
        digest, _ = await bench.put(body(bench.sizes[-1]))
        assert await bench.store.delete(digest)
        assert not await bench.store.delete(digest)
        with pytest.raises(NotFound):
            await bench.store.open(digest)

    async def test_an_open_blob_outlives_its_deletion(self, bench: Workbench) -> None:
        data = body(bench.sizes[-1])
        digest, _ = await bench.put(data)
        blob = await bench.store.open(digest)
        await bench.store.delete(digest)
        assert b"".join([piece async for piece in blob.stream()]) == data
        await blob.aclose()

    async def test_a_spool_in_progress_is_not_visible(self, bench: Workbench) -> None:
        spool = bench.spooler.new("blake3")
        await spool.write(body(bench.sizes[-1]))
        await spool.finish()
        with pytest.raises(NotFound):
            await bench.store.open(spool.digest)
        await spool.discard()
        assert await bench.store.list_after(None, 10) == []

    @pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
    async def test_a_bad_copy_is_never_read_whole(self, bench: Workbench, at: float) -> None:
        for size in [size for size in bench.sizes if size > 0]:
            data = body(size, seed=1)
            digest, _ = await bench.put(data)
            bench.harm(digest, int(at * (size - 1)))
            before = bench.quarantined()
            with pytest.raises((NotFound, Corrupt)):
                await bench.get(digest)
            assert bench.quarantined() == before + 1
            with pytest.raises(NotFound):
                await bench.store.open(digest)

    async def test_no_wrong_byte_leaves_a_bad_copy(self, bench: Workbench) -> None:
        size = bench.sizes[-1]
        data = body(size, seed=2)
        digest, _ = await bench.put(data)
        bench.harm(digest, size - 1)
        seen = b""
        with pytest.raises((NotFound, Corrupt)):
            blob = await bench.store.open(digest)
            try:
                async for piece in blob.stream():
                    seen += piece
            finally:
                await blob.aclose()
        assert data.startswith(seen)
        assert len(seen) < size

    async def test_a_part_of_a_bad_copy_is_not_served_where_it_is_bad(
        self, bench: Workbench
    ) -> None:
        size = bench.sizes[-1]
        digest, _ = await bench.put(body(size, seed=3))
        bench.harm(digest, size // 2)
        with pytest.raises((NotFound, Corrupt)):
            await bench.get(digest, size // 2, size // 2 + 1)

    async def test_verify_finds_and_sets_aside_a_bad_copy(self, bench: Workbench) -> None:
        for size in [size for size in bench.sizes if size > 0]:
            digest, _ = await bench.put(body(size, seed=4))
            assert await bench.store.verify(digest, repair=True) == size
            bench.harm(digest, size - 1)
            before = bench.quarantined()
            with pytest.raises(Corrupt):
                await bench.store.verify(digest, repair=False)
            assert bench.quarantined() == before
            with pytest.raises(Corrupt):
                await bench.store.verify(digest, repair=True)
            assert bench.quarantined() == before + 1
            with pytest.raises(NotFound):
                await bench.store.verify(digest, repair=True)

    async def test_a_proof_is_of_a_whole_and_right_copy(self, bench: Workbench) -> None:
        for size in [size for size in bench.sizes if size > 0]:
            digest, _ = await bench.put(body(size, seed=8))
            assert await bench.store.prove(digest) == size
            bench.harm(digest, size - 1)
            before = bench.quarantined()
            with pytest.raises(Corrupt):
                await bench.store.prove(digest)
            assert bench.quarantined() == before + 1
            with pytest.raises(NotFound):
                await bench.store.prove(digest)

    async def test_putting_over_a_bad_copy_heals_it(self, bench: Workbench) -> None:
        for size in [size for size in bench.sizes if size > 0]:
            data = body(size, seed=5)
            digest, _ = await bench.put(data)
            bench.harm(digest, 0)
            await bench.put(data)
            assert await bench.get(digest) == data

    async def test_listing_is_in_digest_order_and_resumes(self, bench: Workbench) -> None:
        put = [
            (await bench.put(body(bench.sizes[-1] % 1000 + number), algorithm))[0]
            for number in range(12)
            for algorithm in sorted(ALGORITHMS)
        ]
        expected = sorted(put)
        assert expected == sorted(put, key=str)
        whole = await bench.store.list_after(None, 1000)
        assert [info.digest for info in whole] == expected
        paged: list[Digest] = []
        while page := await bench.store.list_after(paged[-1] if paged else None, 5):
            assert len(page) <= 5
            paged += [info.digest for info in page]
        assert paged == expected
        for info in whole:
            assert info.size == await bench.store.stat(info.digest)

    async def test_counts_follow_puts_and_deletes(self, bench: Workbench) -> None:
        digests = [(await bench.put(body(size)))[0] for size in bench.sizes]
        await bench.put(body(bench.sizes[0]))
        await self._counts_become(bench, Counts(len(bench.sizes), sum(bench.sizes)))
        await bench.store.delete(digests[-1])
        await self._counts_become(bench, Counts(len(bench.sizes) - 1, sum(bench.sizes[:-1])))

    async def _counts_become(self, bench: Workbench, expected: Counts) -> None:
        async with asyncio.timeout(10):
            while await bench.store.counts() != expected:
                await asyncio.sleep(0)

    @pytest.mark.parametrize(
        ("puts", "is_managed"),
        [
            # How it was put, one after the other: what it is then. Who claims it, claims it for good.
            ([False], False),
            ([True], True),
            ([None], False),
            ([True, True], True),
            ([True, None], True),
            ([True, False], False),
            ([False, True], False),
            ([False, None], False),
            ([None, True], False),
            ([True, False, True, None], False),
        ],
    )
    async def test_a_blob_is_managed_only_if_nobody_put_it_for_its_own_sake(
        self, bench: Workbench, puts: list[bool | None], is_managed: bool
    ) -> None:
        for size in bench.sizes:
            for managed in puts:
                digest = await bench.put_as(body(size, seed=6), managed)
            assert bench.store.managed([digest]) == [is_managed]
            assert await bench.get(digest) == body(size, seed=6)

    async def test_claiming_ends_the_management_of_those_that_are_named(
        self, bench: Workbench
    ) -> None:
        digests = [await bench.put_as(body(size, seed=7), True) for size in bench.sizes]
        missing = Digest.of(b"never put")
        await bench.store.claim([])
        await bench.store.claim([missing, digests[0], digests[-1], digests[0]])
        expected = [True] * len(digests)
        expected[0] = expected[-1] = False
        assert bench.store.managed(digests) == expected
        assert bench.store.managed([missing, digests[0]]) == [False, False]
        assert await bench.store.sizes([missing]) == [None]

    async def test_of_a_managed_and_a_plain_put_at_once_the_claim_wins(
        self, bench: Workbench
    ) -> None:
        for size in bench.sizes:
            for number in range(4):
                data = body(size, seed=20 + number)
                puts = [True, False, True] if number % 2 else [False, True, True]
                digest, *_ = await asyncio.gather(*(bench.put_as(data, each) for each in puts))
                assert bench.store.managed([digest]) == [False]

    async def test_what_is_deleted_and_put_again_is_as_it_was_put_last(
        self, bench: Workbench
    ) -> None:
        for size in bench.sizes:
            for first in (True, False):
                digest = await bench.put_as(body(size, seed=9), first)
                await bench.store.delete(digest)
                assert bench.store.managed([digest]) == [False]
                await bench.put_as(body(size, seed=9), not first)
                assert bench.store.managed([digest]) == [not first]
                await bench.store.delete(digest)

    @pytest.mark.parametrize("is_managed", [True, False])
    async def test_a_bad_copy_that_is_made_again_is_what_it_was(
        self, bench: Workbench, is_managed: bool
    ) -> None:
        for size in [size for size in bench.sizes if size > 0]:
            digest = await bench.put_as(body(size, seed=10), is_managed)
            bench.harm(digest, 0)
            with pytest.raises(Corrupt):
                await bench.store.verify(digest, repair=True)
            await bench.put_as(body(size, seed=10), None)
            assert bench.store.managed([digest]) == [is_managed]
            assert await bench.get(digest) == body(size, seed=10)
