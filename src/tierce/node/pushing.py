"""The hands of healing: giving copies to peers, having them read back, and removing surplus copies."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tierce.blobs.store import BlobInfo, BlobStore
from tierce.cluster.healing import Plan
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError
from tierce.core.limits import (
    HEAL_LARGE_AT_ONCE,
    HEAL_SMALL_AT_ONCE,
    PACK_LIMIT_BYTES,
    PEER_BATCH_BLOBS,
    PEER_PROOF_BYTES_PER_SECOND,
    PROOF_BYTES,
    PROOF_SECONDS,
)
from tierce.core.metrics import HEALED_BLOBS, HEALED_BYTES, TRIMMED_BLOBS
from tierce.node.pacing import Pace
from tierce.node.peers import Peers

log = logging.getLogger(__name__)


class Task(NamedTuple):
    """A blob that is here, and what is to be done for it."""

    info: BlobInfo
    plan: Plan


@dataclass
class Done:
    """What was done since the start. Sizes in bytes."""

    pushed_blobs: int = 0
    pushed_bytes: int = 0
    proved_blobs: int = 0
    trimmed_blobs: int = 0
    failed_pushes: int = 0


class Pusher:
    """Carries out plans. ``pace`` limits the bytes that are pushed.

    ``is_needed_here`` says whether a copy must stay, though others have enough.
    """

    def __init__(
        self,
        store: BlobStore,
        peers: Peers,
        placement: Callable[[], Placement],
        pace: Pace,
        is_needed_here: Callable[[Digest], bool] = lambda _: False,
    ) -> None:
        self._is_needed_here = is_needed_here
        self._store = store
        self._peers = peers
        self._placement = placement
        self._pace = pace
        self.condemned: dict[Digest, None] = {}
        self.done = Done()
        self._rate = 0.0

    def estimated_seconds(self, size: int) -> float | None:
        """How long it takes to push so many bytes, at the rate seen lately; None if none was seen."""
        if not size:
            return 0.0
        rate = min(filter(None, (self._rate, self._pace.per_second)), default=0.0)
        return round(size / rate, 1) if rate else None

    async def push_all(
        self,
        tasks: Sequence[Task],
        on_proved: Callable[[Task, int], None],
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Push in order, several at a time. ``on_proved`` hears how many copies were read back.

        It stops early when the cluster changes, as another blob may be in more danger now, or when
        ``is_interrupted`` says that something else comes first.
        """
        planned_for = self._placement().substance
        for number, part in enumerate(_by_size(tasks, 4)):
            # One part is always done, or steady interruptions would let nothing be healed.
            if self._placement().substance != planned_for or (number and is_interrupted()):
                return
            started = asyncio.get_running_loop().time()
            before = self.done.pushed_bytes
            stored = await self._push_part(part)
            await self._prove_pushed(part, stored, on_proved)
            seconds = asyncio.get_running_loop().time() - started
            if self.done.pushed_bytes > before and seconds > 0:
                self._rate = (self.done.pushed_bytes - before) / seconds

    async def trim_all(self, tasks: Sequence[Task]) -> None:
        """Remove surplus copies whose witnesses prove theirs."""
        for part in _by_size(tasks):
            for task in part:
                self.condemned[task.info.digest] = None
            # If this is cancelled they stay condemned: the removal of one may be under way.
            try:
                await self._trim_part(part)
            except TierceError as error:
                log.error("a surplus copy could not be removed: %s", error)
            for task in part:
                self.condemned.pop(task.info.digest, None)

    async def _push_part(self, part: Sequence[Task]) -> dict[str, list[tuple[Member, Task]]]:
        """Push; returns what was stored, by the id of the member that has it now."""
        small = asyncio.Semaphore(HEAL_SMALL_AT_ONCE)
        large = asyncio.Semaphore(HEAL_LARGE_AT_ONCE)
        stored = await self._already_there(part)
        there = {
            (node_id, task.info.digest) for node_id, pairs in stored.items() for _, task in pairs
        }

        async def push(task: Task, member: Member) -> None:
            async with large if task.info.size > PACK_LIMIT_BYTES else small:
                await self._pace.spend(task.info.size)
                if await self._push(task.info, member):
                    stored.setdefault(member.node_id, []).append((member, task))

        await asyncio.gather(
            *(
                push(task, member)
                for task in part
                for member in task.plan.push_to
                if (member.node_id, task.info.digest) not in there
            )
        )
        return stored

    async def _already_there(self, part: Sequence[Task]) -> dict[str, list[tuple[Member, Task]]]:
        """What others, or an upload under way, have stored there since the plan was made."""
        asked: dict[str, list[tuple[Member, Task]]] = {}
        for task in part:
            for member in task.plan.push_to:
                asked.setdefault(member.node_id, []).append((member, task))
        found: dict[str, list[tuple[Member, Task]]] = {}
        for node_id, pairs in asked.items():
            try:
                digests = [task.info.digest for _, task in pairs]
                managed = await unclaimed(self._store, digests)
                sizes = await self._peers.find(pairs[0][0], digests, managed=managed)
            except TierceError as error:
                log.info("%s could not be asked what it holds: %s", node_id, error)
                continue
            held = [pair for pair, size in zip(pairs, sizes, strict=True) if size is not None]
            if held:
                found[node_id] = held
        return found

    async def _push(self, info: BlobInfo, member: Member) -> bool:
        try:
            blob = await self._store.open(info.digest)
        except NotFound:
            return False  # deleted, or found bad: then the next survey sees one copy less
        except TierceError as error:
            self.done.failed_pushes += 1
            log.error("%s can't be read here: %s", info.digest, error)
            return False
        try:
            (managed,) = await unclaimed(self._store, [info.digest])
            await self._peers.store(member, blob, healing=True, managed=managed)
        except Corrupt as error:
            log.error("a copy to be pushed was bad: %s", error)
            return False
        except TierceError as error:
            self.done.failed_pushes += 1
            log.info("%s could not be given %s: %s", member.node_id, info.digest, error)
            return False
        finally:
            await blob.aclose()
        self.done.pushed_blobs += 1
        self.done.pushed_bytes += info.size
        return True

    async def _prove_pushed(
        self,
        part: Sequence[Task],
        stored: dict[str, list[tuple[Member, Task]]],
        on_proved: Callable[[Task, int], None],
    ) -> None:
        proved: dict[Digest, int] = {}
        for pairs in stored.values():
            member = pairs[0][0]
            for some in _by_size([task for _, task in pairs]):
                for task in await self._proved(member, some):
                    proved[task.info.digest] = proved.get(task.info.digest, 0) + 1
                    self.done.proved_blobs += 1
                    HEALED_BLOBS.inc()
                    HEALED_BYTES.inc(task.info.size)
        for task in part:
            if task.info.digest in proved:
                on_proved(task, proved[task.info.digest])

    async def _proved(self, member: Member, tasks: Sequence[Task]) -> list[Task]:
        """Those of the blobs that a member has just read and hashed."""
        now = self._placement().view.find(member.node_id)
        if now is None or not now.is_up:
            return []  # gone since: to wait for it would hold everything up
        try:
            digests = [task.info.digest for task in tasks]
            sizes = await self._peers.find(
                member,
                digests,
                prove=True,
                proof_bytes=sum(task.info.size for task in tasks),
                managed=await unclaimed(self._store, digests),
            )
        except TierceError as error:
            log.info("%s did not prove its copies: %s", member.node_id, error)
            return []
        return [
            task
            for task, size in zip(tasks, sizes, strict=True)
            if size is not None and size == task.info.size
        ]

    async def _trim_part(self, part: Sequence[Task]) -> None:
        started = asyncio.get_running_loop().time()
        placement = self._placement()
        asked: dict[str, list[Task]] = {}
        witnesses: dict[str, Member] = {}
        for task in part:
            for member in task.plan.witnesses:
                witnesses[member.node_id] = member
                asked.setdefault(member.node_id, []).append(task)
        digests = [task.info.digest for task in part]
        managed = dict(zip(digests, self._store.managed(digests), strict=True))
        proofs: dict[Digest, int] = {}
        for proved in await asyncio.gather(
            *(self._proved(witnesses[node_id], tasks) for node_id, tasks in asked.items())
        ):
            for task in proved:
                proofs[task.info.digest] = proofs.get(task.info.digest, 0) + 1
        size = sum(task.info.size for task in part)
        patience = PROOF_SECONDS + size / PEER_PROOF_BYTES_PER_SECOND
        for task in part:
            late = asyncio.get_running_loop().time() - started > patience
            # Whoever asks for more copies meanwhile must not find that one was just removed.
            if late or self._placement().substance != placement.substance:
                return
            needed = task.plan.proofs or placement.replication
            if self._is_needed_here(task.info.digest):
                continue  # a record came to need it since the plan was made
            is_proved = proofs.get(task.info.digest, 0) >= needed
            # Claimed since: the witnesses don't know that yet, so that the claim would go with it.
            (is_managed,) = self._store.managed([task.info.digest])
            if managed[task.info.digest] and not is_managed:
                continue
            # It is condemned no more if it was stored anew meanwhile.
            if is_proved and task.info.digest in self.condemned:
                await self._store.delete(task.info.digest)
                self.done.trimmed_blobs += 1
                TRIMMED_BLOBS.inc()


async def unclaimed(store: BlobStore, digests: Sequence[Digest]) -> list[bool]:
    """For each blob whether this node must not claim it on another one: it is managed, or gone.

    What was deleted or collected has no mark, as what is claimed has none.
    """
    managed = store.managed(digests)
    sizes = await store.sizes(digests)
    return [mark or size is None for mark, size in zip(managed, sizes, strict=True)]


def _by_size(tasks: Iterable[Task], times: int = 1) -> Iterator[list[Task]]:
    """Portions that a peer can read and hash in reasonable time, or so many ``times`` that much."""
    part: list[Task] = []
    size = 0
    for task in tasks:
        full = size + task.info.size > times * PROOF_BYTES
        if part and (full or len(part) == times * PEER_BATCH_BLOBS):
            yield part
            part, size = [], 0
        part.append(task)
        size += task.info.size
    if part:
        yield part
