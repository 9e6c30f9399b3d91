"""Healing: the right number of copies, on the right nodes, and numbers that say how far that is.

A survey lists all local blobs, asks peers in batches which of them they hold, and plans for each blob
(cluster/healing.py). What is to be done is done in order of danger, fewest copies first, in portions
of HEAL_QUEUE_BLOBS so that memory stays bounded. A survey starts at once when the cluster changes,
and otherwise after a rest that grows with the time it takes. Blobs that someone found missing or bad
are seen to at once.

A copy given to a peer counts as healed only when the peer has read it back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tierce.blobs.copying import copying
from tierce.blobs.spool import Spooler
from tierce.blobs.store import BlobInfo, BlobStore
from tierce.cloud.pacing import background
from tierce.cluster.healing import RING, Keep, needs_plan, plan, whom_to_ask
from tierce.cluster.member import Member
from tierce.cluster.placement import Placement
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.core.limits import (
    HEAL_QUEUE_BLOBS,
    HINT_REST_SECONDS,
    SURVEY_BLOBS_PER_SECOND,
    SURVEY_PAGE_BLOBS,
    SURVEY_REST_FACTOR,
    SURVEY_REST_MAX_SECONDS,
    SURVEY_REST_SECONDS,
    SURVEY_SECOND_LOOK_SECONDS,
    SURVEY_UNSETTLED_FACTOR,
    SURVEY_UNSETTLED_MAX_SECONDS,
    SURVEY_UNSETTLED_SECONDS,
)
from tierce.node.fetcher import Fetcher
from tierce.node.heal_numbers import Numbers
from tierce.node.keeping import Keeping
from tierce.node.pacing import Pace
from tierce.node.peers import Peers
from tierce.node.pushing import Pusher, Task, unclaimed

log = logging.getLogger(__name__)


class Healer:
    """Looks after the blobs of one node. ``condemned`` are the copies that it is about to remove."""

    def __init__(
        self,
        store: BlobStore,
        peers: Peers,
        placement: Callable[[], Placement],
        fetcher: Fetcher,
        spooler: Spooler,
        *,
        bytes_per_second: int,
        on_whole: Callable[[bool], None] = lambda _: None,
        was_deleted: Callable[[Digest], bool] = lambda _: False,
        keeping: Keeping | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._peers = peers
        self._placement = placement
        self._fetcher = fetcher
        self._spooler = spooler
        self._on_whole = on_whole
        self._was_deleted = was_deleted
        self._keeping = keeping
        self._wall_clock = wall_clock
        self._silent = False
        self._pusher = Pusher(store, peers, placement, Pace(bytes_per_second), self._is_needed_here)
        self._changed = asyncio.Event()
        self._hinted: dict[Digest, None] = {}
        self._hinted_until: dict[Digest, float] = {}
        self._seen_below: dict[Digest, int] = {}
        self._numbers = Numbers()
        self._phase = "starting"
        self._last_pass = ""
        self._last_pass_seconds = 0.0
        self._is_emptied = False
        self._last_error = ""

    @property
    def condemned(self) -> dict[Digest, None]:
        return self._pusher.condemned

    @property
    def is_drained(self) -> bool:
        """Whether this node is being emptied, and the last survey since then found nothing left."""
        return self._placement().me.draining and self._is_emptied

    def not_emptied(self) -> None:
        """The order to drain has been given or called off: what was found before does not count."""
        self._is_emptied = False

    def changed(self) -> None:
        """The cluster has changed: survey at once."""
        self._changed.set()

    def hint(self, digest: Digest) -> None:
        """Someone found a blob missing or bad here: see to it at once.

        But not again and again: it may be that nothing can be done now, as on a full disk.
        """
        now = asyncio.get_running_loop().time()
        if self._hinted_until.get(digest, 0.0) > now:
            return
        if len(self._hinted) < HEAL_QUEUE_BLOBS:
            if len(self._hinted_until) >= HEAL_QUEUE_BLOBS:
                self._hinted_until.clear()
            self._hinted_until[digest] = now + HINT_REST_SECONDS
            self._hinted[digest] = None
            self._changed.set()
            self._on_whole(False)

    def status(self) -> dict[str, Any]:
        """The numbers of the last survey, kept up to date as healing goes on."""
        return {
            "phase": self._phase,
            **asdict(self._numbers),
            "estimated_seconds": self._pusher.estimated_seconds(self._numbers.bytes_to_move),
            "last_pass": self._last_pass or None,
            "last_pass_seconds": round(self._last_pass_seconds, 3),
            **asdict(self._pusher.done),
        }

    async def run(self) -> None:
        """Heal until cancelled."""
        with background():
            await self._run()

    async def _run(self) -> None:
        due = 0.0
        surveyed: object = None
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            # Taken before the survey: what changes in its midst calls for another one.
            substance = self._placement().substance
            urgent = substance != surveyed
            try:
                await self._see_to_hints()
                if urgent or loop.time() >= due:
                    started = loop.time()
                    await self.survey(urgent=urgent)
                    surveyed = substance
                    due = loop.time() + self._rest_seconds(loop.time() - started)
                    if self._hinted:  # for their sake the healing was broken off
                        due = loop.time()
            except TierceError as error:
                if error.message != self._last_error:
                    log.error("healing was interrupted: %s. %s", error.message, error.hint)
                self._last_error = error.message
                surveyed, due = substance, loop.time() + SURVEY_REST_SECONDS
            self._phase = "resting"
            try:
                async with asyncio.timeout(max(0.0, due - loop.time())):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _rest_seconds(self, seconds: float) -> float:
        """How long to rest after a survey that took so long: less while something is to be mended."""
        numbers = self._numbers
        unsettled = numbers.below_target or numbers.over_target or numbers.bytes_to_move
        if unsettled or self._seen_below:
            rest = max(SURVEY_UNSETTLED_SECONDS, SURVEY_UNSETTLED_FACTOR * seconds)
            return min(rest, SURVEY_UNSETTLED_MAX_SECONDS)
        return min(max(SURVEY_REST_SECONDS, SURVEY_REST_FACTOR * seconds), SURVEY_REST_MAX_SECONDS)

    async def survey(self, *, urgent: bool = True) -> None:
        """One pass over all local blobs: count them, and mend what can be mended."""
        started = asyncio.get_running_loop().time()
        if self._placement().is_alone:
            await self._survey_alone()
            return
        pace = Pace(0 if urgent else SURVEY_BLOBS_PER_SECOND)
        substance = self._placement().substance
        draining = self._placement().me.draining
        self._phase = "surveying"
        self._silent = False
        found = Numbers()
        seen_below: dict[Digest, int] = {}
        tasks: list[Task] = []
        again: list[BlobInfo] | None = None if urgent else []
        local = 0
        after: Digest | None = None
        while page := await self._store.list_after(after, SURVEY_PAGE_BLOBS):
            local += len(page)
            tasks += await self._examine(page, found, seen_below, again)
            if len(tasks) >= HEAL_QUEUE_BLOBS:
                self._numbers = found
                self._on_whole(False)
                await self._heal(tasks)
                tasks = []
            await pace.spend(len(page))
            after = page[-1].digest
        if again:
            # What lacked copies may have been on its way just then. Only what still does is counted.
            await asyncio.sleep(SURVEY_SECOND_LOOK_SECONDS)
            for start in range(0, len(again), SURVEY_PAGE_BLOBS):
                page = again[start : start + SURVEY_PAGE_BLOBS]
                tasks += await self._examine(page, found, seen_below)
        self._numbers = found
        self._seen_below = seen_below
        if found.below_target:
            self._on_whole(False)
        await self._heal(tasks)
        self._is_emptied = draining and not local
        if self._placement().substance == substance:
            self._tell_whether_whole()
        self._ended(started)

    async def _survey_alone(self) -> None:
        """There is nobody to ask, and every blob is where it belongs."""
        counts = await self._store.counts()
        self._numbers = Numbers(responsible_blobs=counts.blobs, at_target=counts.blobs)
        self._is_emptied = False
        self._tell_whether_whole()
        self._ended(asyncio.get_running_loop().time())

    def _tell_whether_whole(self) -> None:
        """Once everyone could be asked: whether all blobs here have their copies."""
        view = self._placement().view
        away = [each for each in view.members if not each.is_up and each.node_id not in view.gone]
        if not away and not self._silent:
            self._on_whole(not self._numbers.below_target)

    def _ended(self, started: float) -> None:
        self._last_pass = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall_clock()))
        self._last_pass_seconds = asyncio.get_running_loop().time() - started

    async def _examine(
        self,
        page: Sequence[BlobInfo],
        found: Numbers,
        seen_below: dict[Digest, int],
        again: list[BlobInfo] | None = None,
    ) -> list[Task]:
        """Ask who else has these blobs, count them into ``found``, and say what is to be done.

        With ``again``, those that lack copies are left for a second look, and put there.
        """
        placement = self._placement()
        keeps = self._keeps([info.digest for info in page])
        wanted = {
            info: keep
            for info, keep in zip(page, keeps, strict=True)
            if needs_plan(keep, placement)
        }
        holders, silent = await self._ask(wanted, placement)
        tasks = []
        for info, keep in wanted.items():
            decided = plan(info.digest, placement, holders[info.digest], silent, keep)
            if not keep.by_ring:
                tasks.append(Task(info, decided))
                continue
            if again is not None and decided.push_to and len(again) < HEAL_QUEUE_BLOBS:
                again.append(info)
                continue
            if decided.rank == 0:
                found.add(info, decided, placement)
            if decided.push_to and decided.rank:
                # It is another one's to push; but if that one does not get around to it, this does.
                seen = seen_below[info.digest] = self._seen_below.get(info.digest, 0) + 1
                if seen <= decided.rank:
                    continue
            if decided.push_to or decided.witnesses:
                tasks.append(Task(info, decided))
        return tasks

    async def _ask(
        self, wanted: Mapping[BlobInfo, Keep], placement: Placement
    ) -> tuple[dict[Digest, list[str]], list[str]]:
        """The ids of each blob's holders, this node's among them, and of those that were silent."""
        silent: list[str] = []
        holders = {info.digest: [placement.view.me] for info in wanted}
        marks = dict(zip(holders, await unclaimed(self._store, list(holders)), strict=True))
        questions: dict[str, list[Digest]] = {}
        for info, keep in wanted.items():
            for member in whom_to_ask(info.digest, placement, keep):
                questions.setdefault(member.node_id, []).append(info.digest)

        async def ask(member: Member, digests: list[Digest]) -> None:
            try:
                managed = [marks[digest] for digest in digests]
                sizes = await self._peers.find(member, digests, managed=managed)
            except TierceError as error:
                log.info("%s could not be asked what it holds: %s", member.node_id, error)
                silent.append(member.node_id)
                self._silent = True
                return
            for digest, size in zip(digests, sizes, strict=True):
                if size is not None:
                    holders[digest].append(member.node_id)

        members = placement.view.by_id
        await asyncio.gather(*(ask(members[each], digests) for each, digests in questions.items()))
        return holders, silent

    async def _heal(self, tasks: Iterable[Task], *, counted: bool = True) -> None:
        """Push first, fewest copies first; then remove what is surplus."""
        self._phase = "healing"
        tasks = sorted(tasks, key=lambda task: (task.plan.copies, task.info))
        await self._pusher.push_all(
            [task for task in tasks if task.plan.push_to],
            self._pushed if counted else lambda task, proved: None,
            lambda: bool(self._hinted),
        )
        await self._pusher.trim_all([task for task in tasks if task.plan.witnesses])

    def _pushed(self, task: Task, proved: int) -> None:
        """So many of a task's pushes have been read back."""
        if task.plan.rank or task.plan.proofs:  # what only a level keeps is not counted
            return
        numbers = self._numbers
        numbers.bytes_to_move = max(0, numbers.bytes_to_move - proved * task.info.size)
        placement = self._placement()
        numbers.count(task.plan.copies, placement, -1)
        numbers.count(task.plan.copies + proved, placement, +1)

    async def _see_to_hints(self) -> None:
        """Get what should be here and is not; look after what is."""
        hinted, self._hinted = list(self._hinted), {}
        here: list[BlobInfo] = []
        for digest in hinted:
            size: int | None
            try:
                size = await self._store.verify(digest, repair=True)
            except (NotFound, Corrupt):
                size = await self._pull(digest)
            except Unavailable as error:
                # The others' turn comes all the same; this one is found again by the scrub.
                log.warning("%s could not be verified: %s", digest, error)
                continue
            if size is not None:
                here.append(BlobInfo(digest, size))
        if here:
            # Not counted: the last survey's numbers know nothing of what was found since.
            await self._heal(await self._examine(here, Numbers(), {}), counted=False)

    def _keeps(self, digests: Sequence[Digest]) -> list[Keep]:
        return self._keeping.keeps(digests) if self._keeping else [RING] * len(digests)

    def _is_needed_here(self, digest: Digest) -> bool:
        """Whether a level wants the copy just here, wherever else it is."""
        (keep,) = self._keeps([digest])
        return keep.by_level and not self._placement().me.draining

    def _wants(self, digest: Digest, placement: Placement) -> bool:
        if self._keeping is not None:
            return self._keeping.wants(digest, placement)
        return placement.me in placement.owners(digest)

    async def _pull(self, digest: Digest) -> int | None:
        """Fetch a blob that this node should have; its size in bytes, or None if that failed."""
        placement = self._placement()
        if placement.me.draining or not self._wants(digest, placement):
            return None
        try:
            async with copying(self._spooler, await self._fetcher.open(digest)) as spool:
                if self._was_deleted(digest):
                    return None
                mark = self._keeping.mark_for(digest) if self._keeping else None
                await self._store.put(spool, managed=mark)
                size = spool.size
        except TierceError as error:
            log.warning("%s is missing here and could not be fetched: %s", digest, error)
            return None
        log.info("%s was missing here, and was fetched", digest)
        return size
