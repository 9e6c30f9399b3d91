"""Tierce nodes as peers: what is asked arrives, small blobs travel together, and answers are checked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.unit.node.fakes import (
    FakeCluster,
    FakeTransport,
    cluster,
    content,
    left_running,
    members,
)

from tierce.blobs.packed import SmallBlob
from tierce.core.codec import encode
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt, DigestMismatch, NotFound, Unavailable
from tierce.core.limits import PACK_LIMIT_MAX_BYTES, PEER_ANSWER_SECONDS, PEER_BATCH_BLOBS
from tierce.node import peer_messages as messages
from tierce.node.tierce_peers import TiercePeers
from tierce.testing import virtual_time

A, B, C = members(3)
DATA = content(1)
DIGEST = Digest.of(DATA)


class Streamed(NamedTuple):
    """A source that is not in memory."""

    digest: Digest
    whole: bytes
    data: None = None

    @property
    def size(self) -> int:
        return len(self.whole)

    async def stream(self) -> AsyncIterator[bytes]:
        yield self.whole


def between_nodes(
    directory: Path, test: Callable[[FakeCluster, TiercePeers], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with cluster(directory, [A, B, C]) as made:
            await test(made, made.nodes["a"].peers)
        assert await left_running() == []

    virtual_time.run(main())


def answering(test: Callable[[TiercePeers], Awaitable[None]], answer: bytes) -> None:
    """Peers whose every message is answered with these bytes."""

    class Odd(FakeTransport):
        async def exchange(
            self, address: str, path: str, body: bytes, *, timeout_seconds: float
        ) -> bytes:
            return answer

    async def main() -> None:
        peers = TiercePeers(Odd())
        await test(peers)
        await peers.close()

    virtual_time.run(main())


def test_a_small_blob_is_stored_and_read_back(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        assert await peers.store(B, SmallBlob(DIGEST, DATA))
        assert not await peers.store(B, SmallBlob(DIGEST, DATA))
        assert await peers.read(B, DIGEST) == DATA
        assert made.holders(DIGEST) == ["b"]

    between_nodes(tmp_path, check)


def test_a_large_blob_is_uploaded_and_streamed_back(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        assert await peers.store(B, Streamed(DIGEST, DATA))  # type: ignore[arg-type]
        assert made.transport.sent == [("b:7071", f"/blobs/{DIGEST}?new&to=b")]
        async with peers.open(B, DIGEST, start=3, stop=9) as incoming:
            assert b"".join([piece async for piece in incoming.pieces]) == DATA[3:9]

    between_nodes(tmp_path, check)


def test_what_is_too_large_for_a_message_is_uploaded(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        data = bytes(PACK_LIMIT_MAX_BYTES + 1)
        await peers.store(B, SmallBlob(Digest.of(data), data))
        assert made.transport.sent[0][1].startswith("/blobs/blake3:")

    between_nodes(tmp_path, check)


def test_small_blobs_for_the_same_peer_travel_together(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        blobs = [SmallBlob(Digest.of(content(n)), content(n)) for n in range(40)]
        assert all(await asyncio.gather(*(peers.store(B, blob) for blob in blobs)))
        assert len(made.transport.sent) <= 3
        assert len(made.nodes["b"].store.blobs) == 40

    between_nodes(tmp_path, check)


def test_reads_from_the_same_peer_travel_together_and_each_gets_its_own(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        digests = [made.nodes["b"].put(content(n)) for n in range(40)]
        found = await asyncio.gather(*(peers.read(B, digest) for digest in digests))
        assert found == [content(n) for n in range(40)]
        assert len(made.transport.sent) <= 3

    between_nodes(tmp_path, check)


def test_one_bad_blob_of_a_batch_fails_alone_with_its_own_error(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        good, bad = await asyncio.gather(
            peers.store(B, SmallBlob(DIGEST, DATA)),
            peers.store(B, SmallBlob(Digest.of(b"x"), b"wrong")),
            return_exceptions=True,
        )
        assert good is True
        assert isinstance(bad, DigestMismatch)

    between_nodes(tmp_path, check)


@pytest.mark.parametrize("streamed", [False, True])
def test_healing_is_told_apart_from_writing(tmp_path: Path, streamed: bool) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        await peers.delete(B, DIGEST)
        source = Streamed(DIGEST, DATA) if streamed else SmallBlob(DIGEST, DATA)
        with pytest.raises(Conflict):
            await peers.store(B, source, healing=True)  # type: ignore[arg-type]
        assert await peers.store(B, source)  # type: ignore[arg-type]

    between_nodes(tmp_path, check)


def test_what_a_peer_has_not_is_not_found(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        with pytest.raises(NotFound, match="is not on b"):
            await peers.read(B, DIGEST)

    between_nodes(tmp_path, check)


def test_many_digests_are_asked_for_in_several_messages(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        digests = [Digest.of(content(n)) for n in range(PEER_BATCH_BLOBS + 5)]
        made.nodes["b"].put(content(PEER_BATCH_BLOBS + 4))
        sizes = await peers.find(B, digests)
        assert sizes == [None] * (PEER_BATCH_BLOBS + 4) + [20]
        assert len(made.transport.sent) == 2

    between_nodes(tmp_path, check)


def test_a_deletion_tells_whether_there_was_a_copy(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        made.nodes["b"].put(DATA)
        assert await peers.delete(B, DIGEST)
        assert not await peers.delete(B, DIGEST)

    between_nodes(tmp_path, check)


def test_a_silent_peer_is_unavailable_in_time(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        made.transport.silent.append("b:7071")
        for asking in (peers.find(B, [DIGEST]), peers.read(B, DIGEST), peers.delete(B, DIGEST)):
            before = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable):
                await asking
            assert asyncio.get_running_loop().time() - before == PEER_ANSWER_SECONDS

    between_nodes(tmp_path, check)


def test_a_silent_peer_does_not_hold_up_requests_to_others(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        made.transport.silent.append("b:7071")
        waiting = asyncio.create_task(peers.store(B, SmallBlob(DIGEST, DATA)))
        await peers.store(C, SmallBlob(DIGEST, DATA))
        assert asyncio.get_running_loop().time() < 0.1
        waiting.cancel()

    between_nodes(tmp_path, check)


def test_wrong_bytes_are_corrupt() -> None:
    async def check(peers: TiercePeers) -> None:
        with pytest.raises(Corrupt, match="what b sent"):
            await peers.read(B, DIGEST)

    answering(check, encode(messages.ReadAnswer([b"something else"])))


@pytest.mark.parametrize("answer", [b"", b"\x01\xff", b"\x09", encode([3])], ids=repr)
def test_a_broken_answer_is_unavailable_and_no_mistake_of_the_asker(answer: bytes) -> None:
    async def check(peers: TiercePeers) -> None:
        asked: Sequence[Awaitable[object]] = (
            peers.find(B, [DIGEST]),
            peers.read(B, DIGEST),
            peers.delete(B, DIGEST),
            peers.store(B, SmallBlob(DIGEST, DATA)),
        )
        for asking in asked:
            with pytest.raises(Unavailable, match="b:7071"):
                await asking

    answering(check, answer)


def test_an_answer_to_another_number_of_questions_is_unavailable() -> None:
    async def check(peers: TiercePeers) -> None:
        with pytest.raises(Unavailable, match="answered 2 of 1"):
            await peers.find(B, [DIGEST])

    answering(check, encode(messages.FindAnswer([1, 2])))


def test_an_error_of_a_class_that_is_not_known_here_is_unavailable() -> None:
    async def check(peers: TiercePeers) -> None:
        with pytest.raises(Unavailable, match="odd"):
            await peers.store(B, SmallBlob(DIGEST, DATA))

    answering(check, encode(messages.StoreAnswer([messages.Fault("Odd", "odd", "")])))


@pytest.mark.parametrize("healing", [False, True])
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_copies_arrive_managed_or_claimed_even_at_the_same_time(
    tmp_path: Path, healing: bool, is_large: bool
) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        wanted = {}
        tasks = []
        for number in range(8):
            data = content(number)
            digest = Digest.of(data)
            wanted[digest] = managed = number % 3 == 0
            tasks.append(
                peers.store(B, Streamed(digest, data), healing=healing, managed=managed)  # type: ignore[arg-type]
                if is_large
                else peers.store(B, SmallBlob(digest, data), healing=healing, managed=managed)
            )
        await asyncio.gather(*tasks)
        store = made.nodes["b"].store
        assert dict(zip(wanted, store.managed(list(wanted)), strict=True)) == wanted
        assert set(store.blobs) == set(wanted)

    between_nodes(tmp_path, check)


def test_claims_reach_the_right_blobs_over_several_messages(tmp_path: Path) -> None:
    async def check(made: FakeCluster, peers: TiercePeers) -> None:
        store = made.nodes["b"].store
        digests = [made.nodes["b"].put(content(number)) for number in range(PEER_BATCH_BLOBS + 9)]
        store.marks.update(digests)
        await peers.find(B, digests)
        assert all(store.managed(digests))
        managed = [number % 7 != 0 for number in range(len(digests))]
        await peers.find(B, digests, managed=managed)
        assert store.managed(digests) == managed

    between_nodes(tmp_path, check)
