"""Tierce nodes as Peers (peers.py): messages over a transport, small blobs in batches."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from urllib.parse import quote

from tierce.cluster.member import Member
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.core.limits import (
    PACK_LIMIT_MAX_BYTES,
    PEER_ANSWER_SECONDS,
    PEER_BATCH_BLOBS,
    PEER_BATCHES_IN_FLIGHT,
    PEER_PROOF_BYTES_PER_SECOND,
    PEER_STALL_SECONDS,
)
from tierce.node import peer_messages as messages
from tierce.node.batcher import Batcher
from tierce.node.peers import Incoming, Small, Source, Transport

T = TypeVar("T")


class TiercePeers:
    """Asks members by the address of their private door. Close it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stores: dict[tuple[str, str, bool, bool], Batcher[Small, bool]] = {}
        self._reads: dict[tuple[str, str], Batcher[Digest, bytes | int | None]] = {}

    async def store(
        self, member: Member, source: Source, *, healing: bool = False, managed: bool = False
    ) -> bool:
        if source.data is not None and source.size <= PACK_LIMIT_MAX_BYTES:
            key = member.node_id, member.private, healing, managed
            batcher = self._stores.get(key)
            if batcher is None:
                batcher = self._stores[key] = self._store_batcher(*key)
            return await batcher.submit(Small(source.digest, source.data))
        kind = messages.upload_kind(healing, managed)
        receiver = quote(member.node_id, safe="")
        path = f"{messages.BLOBS}{source.digest}{kind}{messages.TO}{receiver}"
        answer = await self._transport.upload(
            member.private, path, source.size, source.stream(), source.digest
        )
        return _answer(answer, messages.StoreAnswer, member.private).created == [True]

    async def find(
        self,
        member: Member,
        digests: Sequence[Digest],
        *,
        prove: bool = False,
        proof_bytes: int = 0,
        managed: Sequence[bool] | None = None,
    ) -> list[int | None]:
        seconds = PEER_ANSWER_SECONDS
        if prove:
            seconds += proof_bytes / PEER_PROOF_BYTES_PER_SECOND
        sizes: list[int | None] = []
        for start in range(0, len(digests), PEER_BATCH_BLOBS):
            part = list(digests[start : start + PEER_BATCH_BLOBS])
            answer = await self._exchange(
                member.private,
                messages.FIND,
                messages.FindRequest(
                    part,
                    prove,
                    member.node_id,
                    None
                    if managed is None
                    else [at for at in range(len(part)) if managed[start + at]],
                ),
                messages.FindAnswer,
                seconds,
            )
            sizes += _each(answer.sizes, part, member.private)
        return sizes

    async def read(self, member: Member, digest: Digest) -> bytes | int:
        key = member.node_id, member.private
        batcher = self._reads.get(key)
        if batcher is None:
            batcher = self._reads[key] = self._read_batcher(*key)
        found = await batcher.submit(digest)
        if found is None:
            raise NotFound(f"{digest} is not on {member.node_id}")
        if isinstance(found, bytes) and not digest.fits(found):
            raise Corrupt(
                f"what {member.node_id} sent as {digest} has another digest",
                hint="Look at that node's log, and at its memory and network.",
            )
        return found

    def open(
        self, member: Member, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        path = f"{messages.BLOBS}{digest}"
        return self._transport.download(member.private, path, start=start, stop=stop)

    async def delete(self, member: Member, digest: Digest) -> bool:
        answer = await self._exchange(
            member.private,
            messages.DELETE,
            messages.DeleteRequest([digest], member.node_id),
            messages.DeleteAnswer,
            PEER_ANSWER_SECONDS,
        )
        return answer.deleted == [True]

    async def control(self, member: Member, name: str, arguments: bytes) -> bytes:
        """Ask a member's agent for something; arguments and answer are JSON."""
        request = encode(messages.ControlRequest(name, arguments))
        return await self._transport.exchange(
            member.private, messages.CONTROL, request, timeout_seconds=PEER_ANSWER_SECONDS
        )

    async def close(self) -> None:
        """Give up what is under way."""
        for storing in self._stores.values():
            await storing.close()
        for reading in self._reads.values():
            await reading.close()

    def _store_batcher(
        self, node_id: str, address: str, healing: bool, managed: bool
    ) -> Batcher[Small, bool]:
        async def send(items: list[Small]) -> list[bool | TierceError]:
            answer = await self._exchange(
                address,
                messages.STORE,
                messages.StoreRequest(items, healing, node_id, managed),
                messages.StoreAnswer,
                PEER_STALL_SECONDS,
            )
            return [
                each.error if isinstance(each, messages.Fault) else each
                for each in _each(answer.created, items, address)
            ]

        return Batcher(send, weigh=lambda item: len(item.data), in_flight=PEER_BATCHES_IN_FLIGHT)

    def _read_batcher(self, node_id: str, address: str) -> Batcher[Digest, bytes | int | None]:
        async def send(items: list[Digest]) -> list[bytes | int | TierceError | None]:
            answer = await self._exchange(
                address,
                messages.READ,
                messages.ReadRequest(items, node_id),
                messages.ReadAnswer,
                PEER_ANSWER_SECONDS,
            )
            return [
                each.error if isinstance(each, messages.Fault) else each
                for each in _each(answer.blobs, items, address)
            ]

        return Batcher(send, weigh=lambda _: 0, in_flight=PEER_BATCHES_IN_FLIGHT)

    async def _exchange(
        self, address: str, path: str, request: object, kind: type[T], timeout_seconds: float
    ) -> T:
        answer = await self._transport.exchange(
            address, path, encode(request), timeout_seconds=timeout_seconds
        )
        return _answer(answer, kind, address)


def _answer(answer: bytes, kind: type[T], address: str) -> T:
    try:
        return decode(answer, kind, f"answer of {address}")
    except TierceError as error:
        raise Unavailable(error.message, hint=error.hint) from error


def _each(results: list[T], asked: Sequence[Any], address: str) -> list[T]:
    if len(results) != len(asked):
        raise Unavailable(f"{address} answered {len(results)} of {len(asked)} questions")
    return results
