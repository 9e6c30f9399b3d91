"""What a node answers to others: nothing is trusted, and nothing bad is vouched for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.node.fakes import Room, content, spooler

from tierce.blobs.memory import MemoryStore
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    DigestMismatch,
    Full,
    NotFound,
    ReadOnly,
    TierceError,
    Unavailable,
)
from tierce.core.limits import DELETED_MEMORY_SECONDS, GIB, KIB, PEER_BATCH_BLOBS, PEER_BATCH_BYTES
from tierce.node import peer_messages as messages
from tierce.node.peer_messages import Fault
from tierce.node.peer_service import BlobService
from tierce.node.peers import Small
from tierce.testing import virtual_time

DATA = content(1)
DIGEST = Digest.of(DATA)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryStore()
        self.room = Room()
        self.condemned: dict[Digest, None] = {}
        self.is_draining = False
        self.named: set[Digest] = set()
        self.service = BlobService(
            self.store,
            spooler(directory, self.room, memory_limit_bytes=GIB),
            self.condemned,
            node_id="me",
            is_draining=lambda: self.is_draining,
            gossip=self.gossip,
            control=self.control,
            is_named=lambda digest: digest in self.named,
        )

    async def gossip(self, body: bytes) -> bytes:
        return b"gossip of " + body

    async def control(self, name: str, arguments: bytes) -> bytes:
        return f"{name} ".encode() + arguments

    async def give(
        self, *blobs: tuple[Digest, bytes], healing: bool = False, managed: bool = False
    ) -> list[object]:
        request = messages.StoreRequest([Small(*each) for each in blobs], healing, "", managed)
        answer = await self.service.exchange(messages.STORE, encode(request))
        return list(decode(answer, messages.StoreAnswer, "answer").created)

    async def find(
        self, *digests: Digest, prove: bool = False, managed: list[int] | None = None
    ) -> list[int | None]:
        request = messages.FindRequest(list(digests), prove, "", managed)
        answer = await self.service.exchange(messages.FIND, encode(request))
        return decode(answer, messages.FindAnswer, "answer").sizes

    async def read(self, *digests: Digest) -> list[bytes | int | Fault | None]:
        answer = await self.service.exchange(
            messages.READ, encode(messages.ReadRequest(list(digests)))
        )
        return decode(answer, messages.ReadAnswer, "answer").blobs

    async def delete(self, *digests: Digest) -> list[bool]:
        answer = await self.service.exchange(
            messages.DELETE, encode(messages.DeleteRequest(list(digests)))
        )
        return decode(answer, messages.DeleteAnswer, "answer").deleted

    async def upload(
        self,
        data: bytes = DATA,
        digest: Digest = DIGEST,
        *,
        healing: bool = False,
        managed: bool = False,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> bytes:
        async def pieces() -> AsyncIterator[bytes]:
            yield data[:5]
            if meanwhile is not None:
                await meanwhile()
            yield data[5:]

        path = f"{messages.BLOBS}{digest}{messages.upload_kind(healing, managed)}"
        return await self.service.upload(path, len(data), pieces(), digest)

    async def download(self, start: int = 0, stop: int | None = None) -> tuple[int, bytes]:
        path = f"{messages.BLOBS}{DIGEST}"
        async with self.service.download(path, start=start, stop=stop) as incoming:
            return incoming.size, b"".join([piece async for piece in incoming.pieces])


def on_bench(directory: Path, test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench(directory)
        await test(bench)
        assert list(directory.iterdir()) == []

    virtual_time.run(main())


def test_a_stored_blob_is_kept_and_told_to_be_new_once(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert await bench.give((DIGEST, DATA)) == [True]
        assert await bench.give((DIGEST, DATA)) == [False]
        assert bench.store.blobs == {DIGEST: DATA}

    on_bench(tmp_path, check)


def test_what_is_stored_is_hashed_and_the_wrong_one_is_not_kept(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        other = content(2)
        fault, created = await bench.give((DIGEST, b"wrong"), (Digest.of(other), other))
        assert isinstance(fault, Fault)
        assert isinstance(fault.error, DigestMismatch)
        assert created is True
        assert list(bench.store.blobs) == [Digest.of(other)]

    on_bench(tmp_path, check)


def test_an_upload_is_hashed_and_the_wrong_one_is_not_kept(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(DigestMismatch):
            await bench.upload(b"something wrong")
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


def test_an_upload_is_kept(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert decode(await bench.upload(), messages.StoreAnswer, "answer").created == [True]
        assert bench.store.blobs == {DIGEST: DATA}

    on_bench(tmp_path, check)


def test_an_upload_to_another_path_than_announced_is_refused(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield DATA

        with pytest.raises(BadRequest, match="was announced"):
            await bench.service.upload(
                f"{messages.BLOBS}{DIGEST}", 1, pieces(), Digest.of(b"other")
            )

    on_bench(tmp_path, check)


def test_a_draining_node_takes_nothing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.is_draining = True
        (fault,) = await bench.give((DIGEST, DATA))
        assert isinstance(fault, Fault)
        assert isinstance(fault.error, Unavailable)
        with pytest.raises(Unavailable, match="being drained"):
            await bench.upload()
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


def test_a_draining_node_still_gives(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        bench.is_draining = True
        assert await bench.read(DIGEST) == [DATA]

    on_bench(tmp_path, check)


@pytest.mark.parametrize("kind", [Full, ReadOnly])
def test_a_node_without_room_refuses_each_blob_with_its_reason(
    tmp_path: Path, kind: type[TierceError]
) -> None:
    async def check(bench: Bench) -> None:
        bench.room.is_full = kind is Full
        bench.room._read_only = kind is ReadOnly
        (fault,) = await bench.give((DIGEST, DATA))
        assert isinstance(fault, Fault)
        assert type(fault.error) is kind
        with pytest.raises(kind):
            await bench.upload()

    on_bench(tmp_path, check)


def test_a_deleted_blob_is_not_taken_back_from_healing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA))
        assert await bench.delete(DIGEST, Digest.of(b"other")) == [True, False]
        (fault,) = await bench.give((DIGEST, DATA), healing=True)
        assert isinstance(fault, Fault)
        assert isinstance(fault.error, Conflict)
        with pytest.raises(Conflict):
            await bench.upload(healing=True)
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


def test_a_deleted_blob_is_taken_from_a_client_and_then_from_healing_too(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.delete(DIGEST)
        assert await bench.give((DIGEST, DATA)) == [True]
        bench.store.blobs.clear()
        assert await bench.give((DIGEST, DATA), healing=True) == [True]

    on_bench(tmp_path, check)


def test_a_blob_deleted_while_healing_sends_it_is_not_kept(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(Conflict):
            await bench.upload(healing=True, meanwhile=lambda: bench.delete(DIGEST))
        assert bench.store.blobs == {}

    on_bench(tmp_path, check)


def test_a_deletion_is_forgotten_after_a_while(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.delete(DIGEST)
        await asyncio.sleep(DELETED_MEMORY_SECONDS)
        assert await bench.give((DIGEST, DATA), healing=True) == [True]

    on_bench(tmp_path, check)


def test_a_deletion_that_is_repeated_is_remembered_from_then_on(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.delete(DIGEST)
        await asyncio.sleep(DELETED_MEMORY_SECONDS / 2)
        await bench.delete(Digest.of(b"other"), DIGEST)
        await asyncio.sleep(DELETED_MEMORY_SECONDS * 3 / 4)
        await bench.delete(Digest.of(b"third"))
        (fault,) = await bench.give((DIGEST, DATA), healing=True)
        assert isinstance(fault, Fault)

    on_bench(tmp_path, check)


def test_old_deletions_use_no_memory(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for number in range(PEER_BATCH_BLOBS):
            await bench.delete(Digest.of(content(number)))
        await asyncio.sleep(DELETED_MEMORY_SECONDS)
        await bench.delete(DIGEST)
        assert list(bench.service._deleted) == [DIGEST]

    on_bench(tmp_path, check)


def test_find_tells_sizes_in_the_order_of_the_question(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        other = Digest.of(b"other")
        assert await bench.find(other, DIGEST) == [None, len(DATA)]
        assert await bench.find(other, DIGEST, prove=True) == [None, len(DATA)]

    on_bench(tmp_path, check)


def test_a_proof_finds_a_flipped_byte_and_sets_the_copy_aside(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = b"x" + DATA[1:]
        assert await bench.find(DIGEST) == [len(DATA)]
        assert await bench.find(DIGEST, prove=True) == [None]
        assert [digest for digest, _ in bench.store.quarantined] == [DIGEST]

    on_bench(tmp_path, check)


def test_a_condemned_copy_is_told_of_but_not_vouched_for(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        bench.condemned[DIGEST] = None
        assert await bench.find(DIGEST) == [len(DATA)]
        assert await bench.find(DIGEST, prove=True) == [None]

    on_bench(tmp_path, check)


def test_blobs_are_read_in_the_order_of_the_question(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        assert await bench.read(Digest.of(b"other"), DIGEST) == [None, DATA]

    on_bench(tmp_path, check)


def test_an_answer_is_bounded_and_what_does_not_fit_comes_as_its_size(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        size = 64 * KIB
        digests = []
        for number in range(PEER_BATCH_BYTES // size + 3):
            data = content(number, size)
            digests.append(Digest.of(data))
            bench.store.blobs[digests[-1]] = data
        found = await bench.read(*digests)
        assert sum(len(each) for each in found if isinstance(each, bytes)) == PEER_BATCH_BYTES
        assert found[-3:] == [size] * 3

    on_bench(tmp_path, check)


@pytest.mark.parametrize(
    "bad",
    [
        Digest("md5", bytes(16)),
        Digest("sha1", bytes(19)),
        Digest("../../etc", bytes(32)),
        Digest("blake3", b""),
    ],
    ids=str,
)
def test_bad_digests_are_refused_in_every_message(tmp_path: Path, bad: Digest) -> None:
    async def check(bench: Bench) -> None:
        for ask in (
            bench.give((bad, b"")),
            bench.find(bad),
            bench.find(bad, prove=True),
            bench.read(bad),
            bench.delete(bad),
        ):
            with pytest.raises(BadRequest, match="is not a digest"):
                await ask

    on_bench(tmp_path, check)


def test_too_many_names_are_refused(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert len(await bench.find(*[DIGEST] * PEER_BATCH_BLOBS)) == PEER_BATCH_BLOBS
        with pytest.raises(BadRequest, match="more than"):
            await bench.find(*[DIGEST] * (PEER_BATCH_BLOBS + 1))

    on_bench(tmp_path, check)


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x07abc", b"\x01\x93"], ids=repr)
def test_a_broken_message_is_a_bad_request(tmp_path: Path, body: bytes) -> None:
    async def check(bench: Bench) -> None:
        for path in (messages.STORE, messages.FIND, messages.READ, messages.DELETE):
            with pytest.raises(BadRequest):
                await bench.service.exchange(path, body)

    on_bench(tmp_path, check)


def test_an_unknown_message_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound, match="is no message"):
            await bench.service.exchange("/blobs/other", b"")

    on_bench(tmp_path, check)


@pytest.mark.parametrize("path", ["/blobs/", "/blobs/sha1:00", "/blobs/../../x", "/other"])
def test_a_path_that_names_no_blob_is_a_bad_request(tmp_path: Path, path: str) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(BadRequest):
            async with bench.service.download(path):
                pass

    on_bench(tmp_path, check)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (3, None), (3, 7), (0, 20), (20, 20)])
def test_a_part_of_a_blob_is_sent_with_the_size_of_the_whole(
    tmp_path: Path, start: int, stop: int | None
) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        assert await bench.download(start, stop) == (len(DATA), DATA[start:stop])

    on_bench(tmp_path, check)


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (0, 21), (7, 3), (21, None)])
def test_what_is_no_part_of_a_blob_is_a_bad_request(
    tmp_path: Path, start: int, stop: int | None
) -> None:
    async def check(bench: Bench) -> None:
        bench.store.blobs[DIGEST] = DATA
        with pytest.raises(BadRequest, match="is no part of 20 bytes"):
            await bench.download(start, stop)

    on_bench(tmp_path, check)


def test_a_blob_that_is_not_here_is_not_found(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        with pytest.raises(NotFound):
            await bench.download()

    on_bench(tmp_path, check)


def test_gossip_and_control_go_to_those_who_know(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        assert await bench.service.exchange(messages.GOSSIP, b"x") == b"gossip of x"
        request = encode(messages.ControlRequest("drain", b"{}"))
        assert await bench.service.exchange(messages.CONTROL, request) == b"drain {}"

    on_bench(tmp_path, check)


def test_what_is_meant_for_another_node_is_neither_kept_nor_vouched_for(tmp_path: Path) -> None:
    """A node that took over an address must not be counted as the one that had it."""

    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA))
        requests = {
            messages.STORE: messages.StoreRequest([Small(DIGEST, DATA)], to="other"),
            messages.FIND: messages.FindRequest([DIGEST], True, to="other"),
            messages.READ: messages.ReadRequest([DIGEST], to="other"),
            messages.DELETE: messages.DeleteRequest([DIGEST], to="other"),
        }
        for path, request in requests.items():
            with pytest.raises(Unavailable, match="this is me, and other is meant"):
                await bench.service.exchange(path, encode(request))

        async def pieces() -> AsyncIterator[bytes]:
            yield DATA

        path = f"{messages.BLOBS}{DIGEST}{messages.NEW}{messages.TO}other"
        with pytest.raises(Unavailable, match="other is meant"):
            await bench.service.upload(path, len(DATA), pieces(), DIGEST)
        assert list(bench.store.blobs) == [DIGEST]

    on_bench(tmp_path, check)


def test_a_blob_stored_anew_is_condemned_no_more(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        for store in (bench.give((DIGEST, DATA)), bench.upload(DATA, DIGEST)):
            bench.condemned[DIGEST] = None
            await store
            assert bench.condemned == {}

    on_bench(tmp_path, check)


def test_a_bad_copy_is_not_sent_and_is_no_sign_that_nobody_has_the_blob(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA))
        bench.store.blobs[DIGEST] = b"other"
        (found,) = await bench.read(DIGEST)
        assert isinstance(found, Fault)
        assert found.name == "Unavailable"

    on_bench(tmp_path, check)


@pytest.mark.parametrize("healing", [False, True])
@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_a_copy_is_managed_if_it_was_given_as_such(
    tmp_path: Path, healing: bool, managed: bool, is_large: bool
) -> None:
    async def check(bench: Bench) -> None:
        if is_large:
            await bench.upload(healing=healing, managed=managed)
        else:
            await bench.give((DIGEST, DATA), healing=healing, managed=managed)
        assert bench.store.managed([DIGEST]) == [managed]

    on_bench(tmp_path, check)


@pytest.mark.parametrize("prove", [False, True])
def test_what_a_peer_has_claimed_is_claimed_here(tmp_path: Path, prove: bool) -> None:
    async def check(bench: Bench) -> None:
        other = content(2)
        both = (DIGEST, DATA), (Digest.of(other), other)
        await bench.give(*both, managed=True)
        digests = [digest for digest, _ in both]
        await bench.find(*digests, prove=prove)  # from a node that says nothing of it
        assert bench.store.managed(digests) == [True, True]
        await bench.find(*digests, prove=prove, managed=[1])
        assert bench.store.managed(digests) == [False, True]
        await bench.find(*digests, prove=prove, managed=[0, 1])
        assert bench.store.managed(digests) == [False, True]
        await bench.find(*digests, prove=prove, managed=[])
        assert bench.store.managed(digests) == [False, False]

    on_bench(tmp_path, check)


def test_a_place_beyond_the_list_means_nothing(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA), managed=True)
        assert await bench.find(DIGEST, managed=[0, 7, -1]) == [len(DATA)]
        assert bench.store.managed([DIGEST]) == [True]

    on_bench(tmp_path, check)


def test_no_proof_is_given_by_a_node_that_could_not_take_over_the_claim(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA), managed=True)

        async def fail(digests: object) -> None:
            raise Full("no room to note it")

        bench.store.claim = fail  # type: ignore[method-assign]
        with pytest.raises(Full):
            await bench.find(DIGEST, prove=True, managed=[])

    on_bench(tmp_path, check)


def test_the_content_of_an_object_is_not_deleted_nor_anything_with_it(tmp_path: Path) -> None:
    async def check(bench: Bench) -> None:
        other = content(2)
        await bench.give((DIGEST, DATA), (Digest.of(other), other))
        bench.named.add(DIGEST)
        with pytest.raises(Conflict, match="the content of an object"):
            await bench.delete(Digest.of(other), DIGEST)
        assert len(bench.store.blobs) == 2

    on_bench(tmp_path, check)


@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_what_was_deleted_and_is_an_objects_content_since_is_taken_from_healing(
    tmp_path: Path, is_large: bool
) -> None:
    """Otherwise an object that was put just after could not have its copies for ten minutes."""

    async def check(bench: Bench) -> None:
        await bench.give((DIGEST, DATA))
        await bench.delete(DIGEST)
        assert bench.service.was_deleted(DIGEST)
        bench.named.add(DIGEST)
        assert not bench.service.was_deleted(DIGEST)
        if is_large:
            await bench.upload(healing=True, managed=True)
        else:
            assert await bench.give((DIGEST, DATA), healing=True, managed=True) == [True]
        assert DIGEST in bench.store.blobs
        bench.named.clear()
        assert bench.service.was_deleted(DIGEST)

    on_bench(tmp_path, check)
