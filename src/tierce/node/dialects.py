"""Peers of several dialects as one: each request goes to whoever speaks the member's dialect."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from tierce.cluster.member import Dialect, Member
from tierce.core.digest import Digest
from tierce.node.peers import Incoming, Peers, Source


class DialectPeers:
    """The protocol Peers (peers.py) over one implementation for each dialect."""

    def __init__(self, by_dialect: Mapping[Dialect, Peers]) -> None:
        self._by_dialect = by_dialect

    async def store(
        self, member: Member, source: Source, *, healing: bool = False, managed: bool = False
    ) -> bool:
        speaker = self._by_dialect[member.dialect]
        return await speaker.store(member, source, healing=healing, managed=managed)

    async def find(
        self,
        member: Member,
        digests: Sequence[Digest],
        *,
        prove: bool = False,
        proof_bytes: int = 0,
        managed: Sequence[bool] | None = None,
    ) -> list[int | None]:
        speaker = self._by_dialect[member.dialect]
        return await speaker.find(
            member, digests, prove=prove, proof_bytes=proof_bytes, managed=managed
        )

    async def read(self, member: Member, digest: Digest) -> bytes | int:
        return await self._by_dialect[member.dialect].read(member, digest)

    def open(
        self, member: Member, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        return self._by_dialect[member.dialect].open(member, digest, start=start, stop=stop)

    async def delete(self, member: Member, digest: Digest) -> bool:
        return await self._by_dialect[member.dialect].delete(member, digest)
