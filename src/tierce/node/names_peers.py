"""What this node asks other ones about records: messages over a transport, pushes in batches.

What comes back is checked for its form, and that it leads on: a peer that answers nonsense is
Unavailable. The records themselves are for the caller to check, one by one, so that a bad one doesn't
keep the others out.
"""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from tierce.cluster.member import Member
from tierce.cluster.sync import Bound, Mark, Summary, weight
from tierce.core.codec import decode, encode
from tierce.core.errors import BadRequest, TierceError, Unavailable
from tierce.core.limits import (
    PEER_BATCHES_IN_FLIGHT,
    PEER_STALL_SECONDS,
    RANGE_READ_RECORDS,
    RANGE_RECORDS,
)
from tierce.names.changes import Position
from tierce.names.record import Record
from tierce.node import names_messages as messages
from tierce.node.batcher import Batcher
from tierce.node.peers import Transport

T = TypeVar("T")


class NamesPeers:
    """Asks members by the address of their private door, as the node ``me``. Close it.

    May be used concurrently, from one event loop. Every method raises Unavailable, or the peer's
    refusal.
    """

    def __init__(self, transport: Transport, *, me: str) -> None:
        self._transport = transport
        self._me = me
        self._pushes: dict[tuple[str, str], Batcher[Record, bool]] = {}

    async def push(self, member: Member, records: Sequence[Record]) -> int:
        """Let a member merge records; how many were new there. Durable there.

        Pushes to the same member travel together, one message at a time.
        """
        key = member.node_id, member.private
        batcher = self._pushes.get(key)
        if batcher is None:
            batcher = self._pushes[key] = self._push_batcher(*key)
        return sum(await asyncio.gather(*map(batcher.submit, records)))

    async def pull(
        self, member: Member, position: Position | None, limit: int
    ) -> messages.PullAnswer:
        """Up to ``limit`` changes of a member's feed after a position (None: from the start).

        The position must be durable here: a tombstone that all have read may be forgotten.
        """
        answer = await self._exchange(
            member,
            messages.PULL,
            messages.PullRequest(position, limit, self._me, member.node_id),
            messages.PullAnswer,
        )
        try:
            messages.check_position(answer.position)
        except BadRequest as error:
            raise _nonsense(member, error.message) from error
        if len(answer.records) > limit or (answer.more and not answer.records):
            raise _nonsense(member, f"{len(answer.records)} changes, where {limit} were asked for")
        if answer.last < answer.position.seq:
            raise _nonsense(member, "a position after the end of its feed")
        return answer

    async def ranges(
        self, member: Member, lower: Bound | None, uppers: Sequence[Bound | None], horizon: int
    ) -> list[Summary]:
        """What a member has in ranges, in short; see RangesRequest."""
        answer = await self._exchange(
            member,
            messages.RANGES,
            messages.RangesRequest(lower, list(uppers), horizon, member.node_id),
            messages.RangesAnswer,
        )
        if len(answer.summaries) != len(uppers):
            raise _nonsense(member, f"{len(answer.summaries)} of {len(uppers)} ranges")
        return answer.summaries

    async def range(
        self,
        member: Member,
        lower: Bound | None,
        upper: Bound | None,
        known: Sequence[Mark],
        horizon: int,
    ) -> messages.RangeAnswer:
        """The records of a range that a member has newer than known; see RangeRequest."""
        answer = await self._exchange(
            member,
            messages.RANGE,
            messages.RangeRequest(lower, upper, list(known), horizon, member.node_id),
            messages.RangeAnswer,
        )
        reached = answer.looked_to
        if len(answer.records) > RANGE_READ_RECORDS + RANGE_RECORDS:
            raise _nonsense(member, f"{len(answer.records)} records for a range")
        if reached is not None and (
            (lower is not None and reached <= lower) or (upper is not None and reached > upper)
        ):
            raise _nonsense(member, "a name outside of the range asked for")
        return answer

    async def close(self) -> None:
        """Give up what is under way."""
        for pushing in self._pushes.values():
            await pushing.close()

    def _push_batcher(self, node_id: str, address: str) -> Batcher[Record, bool]:
        async def send(records: list[Record]) -> list[bool | TierceError]:
            answer = await self._transport.exchange(
                address,
                messages.PUSH,
                encode(messages.PushRequest(records, node_id)),
                timeout_seconds=PEER_STALL_SECONDS,
            )
            merged = _read(answer, messages.PushAnswer, address).merged
            if len(merged) != len(records):
                raise Unavailable(f"{address} answered for {len(merged)} of {len(records)} records")
            return list(merged)

        return Batcher(send, weigh=weight, in_flight=PEER_BATCHES_IN_FLIGHT)

    async def _exchange(self, member: Member, path: str, request: object, kind: type[T]) -> T:
        answer = await self._transport.exchange(
            member.private, path, encode(request), timeout_seconds=PEER_STALL_SECONDS
        )
        return _read(answer, kind, member.private)


def _read(answer: bytes, kind: type[T], address: str) -> T:
    try:
        return decode(answer, kind, f"answer of {address}")
    except TierceError as error:
        raise Unavailable(error.message, hint=error.hint) from error


def _nonsense(member: Member, what: str) -> Unavailable:
    return Unavailable(
        f"{member.node_id} answered with {what}", hint="Run the same version on both nodes."
    )
