"""Room for a worker: orders to the agent, and the agent's answers to them.

What a worker says afterwards (that it is done, what it served from here) waits for nothing, and
is sent together, on no request's way.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, TierceError, Unavailable
from tierce.names.cached import CacheRows
from tierce.names.record import Record
from tierce.node.arriving import Arriving
from tierce.node.evicting import Evicting
from tierce.node.guarding import Grant
from tierce.node.names_messages import check_record

log = logging.getLogger(__name__)

GRANT_SECONDS = 60.0
"""How long a worker may use what it was granted. It counts for twice as long."""
TOUCHED_COUNT = 4096
TOUCHED_SECONDS = 1.0
ROOM, ROOM_USED, ROOM_MERGE, TOUCHED = "room", "room_used", "room_merge", "touched"
CACHE_ORDERS = (ROOM, ROOM_USED, ROOM_MERGE, TOUCHED)

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class RecordMessage(msgspec.Struct, array_like=True):
    """A record, as an order has it."""

    record: Record


class RoomOrders:
    """The Room of a worker. ``run`` sends what was gathered, and is to be run beside it."""

    def __init__(
        self, call: Call, rows: CacheRows, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._rows = rows
        self._monotonic = monotonic
        self._used: list[Grant] = []
        self._touched: set[Digest] = set()
        self._woken = asyncio.Event()

    async def reserve(self, digest: Digest, size: int, *, may_evict: bool = True) -> Grant | None:
        """See Room."""
        until = self._monotonic() + GRANT_SECONDS
        asked = {"digest": str(digest), "size": size, "may_evict": may_evict}
        answer = await self._call(ROOM, asked)
        number, run = int(answer["grant"]), str(answer["run"])
        if not number:
            return None

        def check() -> None:
            # In the transaction that needs the room: the agent begins a run in one of its own.
            if self._monotonic() > until or self._rows.run() != run:
                raise Unavailable("the room in the cache was given away", hint="Try again.")

        return Grant(digest, number, check)

    def release(self, grant: Grant) -> None:
        """See Room."""
        self._used.append(grant)
        self._woken.set()

    async def merge(self, record: Record) -> bool:
        """See Room."""
        told = base64.b64encode(encode(RecordMessage(record))).decode()
        return bool((await self._call(ROOM_MERGE, {"record": told}))["changed"])

    def touched(self, digest: Digest) -> None:
        """See Room. Beyond a bound, hits of the same second are not counted."""
        if len(self._touched) < TOUCHED_COUNT:
            self._touched.add(digest)

    async def run(self) -> None:
        """Send what was gathered, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_used())
            tasks.create_task(self._send_touched())

    async def _send_used(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            used, self._used = self._used, []
            await self._tell(
                ROOM_USED, {"grants": [[str(each.digest), each.number] for each in used]}
            )

    async def _send_touched(self) -> None:
        while True:
            await asyncio.sleep(TOUCHED_SECONDS)
            if self._touched:
                touched, self._touched = self._touched, set()
                await self._tell(TOUCHED, {"digests": list(map(str, touched))})

    async def _tell(self, name: str, arguments: dict[str, Any]) -> None:
        try:
            await self._call(name, arguments)
        except TierceError as error:  # a grant ends by itself, and a hit is a hint
            log.info("the agent did not hear of the cache: %s", error.message)


async def answer_order(
    cache: Evicting, room: Arriving, name: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Carry out a worker's order about the cache. Raises BadRequest."""
    if name == ROOM:
        digest = Digest.parse(str(arguments["digest"]))
        grant = await room.reserve(
            digest, int(arguments["size"]), may_evict=bool(arguments["may_evict"])
        )
        if grant is not None:
            cache.end_later(grant, 2 * GRANT_SECONDS)
        return {"grant": 0 if grant is None else grant.number, "run": cache.run_name}
    if name == ROOM_USED:
        for digest, number in arguments["grants"]:
            room.release(Grant(Digest.parse(str(digest)), int(number)))
        return {}
    if name == ROOM_MERGE:
        message = base64.b64decode(str(arguments["record"]))
        record = decode(message, RecordMessage, "message").record
        check_record(record)
        return {"changed": await room.merge(record)}
    if name == TOUCHED:
        for digest in arguments["digests"]:
            room.touched(Digest.parse(str(digest)))
        return {}
    raise BadRequest(f"{name!a} is no order")
