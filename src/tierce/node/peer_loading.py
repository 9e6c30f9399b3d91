"""Files of dtfc that are loaded from peers: one load for all who wait, followed as it comes, kept.

The agent loads, so there is one load a file on this node, whatever the number of its processes. What
comes is written to a spool, which the readers follow (loads_reading.py); nobody gets the last byte
before the digest of the whole was found right. A source that stops is replaced midway. One that was
alone and gave wrong bytes is left out. Then, and where sources disagree, each is asked alone.

A load goes on to its end though nobody waits for it any more.
"""

import asyncio
import copy
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from tierce.blobs.spool import Spool, Spooler
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Full, NotFound, TierceError, Unavailable
from tierce.core.limits import (
    DTFC_HEDGE_SECONDS,
    DTFC_LOADS_AT_ONCE,
    DTFC_PROGRESS_SECONDS,
    DTFC_SEARCHES_AT_ONCE,
)
from tierce.node.dtfc_source import Source
from tierce.node.load_attempt import Attempt, Wrong
from tierce.node.source_race import Nowhere, Race

log = logging.getLogger(__name__)

LOAD, PROGRESS = "load", "load_progress"
BUSY, NOWHERE = "busy", "nowhere"
LOADING_ORDERS = frozenset({LOAD, PROGRESS})

Sources = Callable[[Digest], Sequence[Source]]
Keep = Callable[[Spool, str], Awaitable[None]]

_ENDED_KEPT_COUNT = 1000


class Busy(Unavailable):
    """As many files are being loaded as may be at a time."""


class Outcome(NamedTuple):
    """How a load ended: the name of its file, or its failure."""

    name: str
    failure: TierceError | None

    def begun(self) -> dict[str, Any]:
        """See PeerLoading.load. Raises the failure."""
        if self.failure is not None:
            raise copy.copy(self.failure)
        return {"number": "", "path": "", "size": None, "name": self.name}


class PeerLoading:
    """The loads of a node. ``sources`` gives those to ask now; ``keep`` stores a verified spool.

    Belongs to one event loop. Answers the orders of the node's processes by :meth:`call`.
    """

    def __init__(
        self,
        sources: Sources,
        spooler: Spooler,
        keep: Keep,
        *,
        hedge_seconds: float = DTFC_HEDGE_SECONDS,
        loads_at_once: int = DTFC_LOADS_AT_ONCE,
        searches_at_once: int = DTFC_SEARCHES_AT_ONCE,
    ) -> None:
        self._sources = sources
        self._spooler = spooler
        self._keep = keep
        self._loads_at_once = loads_at_once
        self._searches_at_once = searches_at_once
        self._loads: dict[Digest, Load] = {}
        # How the last ones ended, for those who were told to wait shortly before.
        self._ended: OrderedDict[Digest, Outcome] = OrderedDict()
        self._is_closed = False
        self.race = Race(hedge_seconds)
        self.loaded = self.loaded_bytes = 0

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out an order (LOADING_ORDERS) of this node's doors."""
        digest = Digest.parse(str(arguments["digest"]))
        try:
            if name == LOAD:
                return await self.load(digest, again=bool(arguments.get("again", False)))
            if name == PROGRESS:
                number, position = str(arguments["number"]), int(arguments["position"])
                return await self.progress(digest, number, position)
        except (Busy, Nowhere) as error:
            # Between processes an error is known by its core class, and these have none of their own.
            kind = BUSY if isinstance(error, Busy) else NOWHERE
            return {"failed": kind, "message": error.message, "hint": error.hint}
        raise BadRequest(f"{name!a} is no order")

    async def load(self, digest: Digest, *, again: bool = False) -> dict[str, Any]:
        """Begin to load a file, or join in; returns when a source has answered with it.

        The answer has ``number`` of the attempt, ``path`` of the file that it goes to, ``size`` (None
        if it is not known yet), and ``name``. One that is in the store by now has no number. After
        some seconds the answer is ``waiting``: ask ``again``, which begins no second load where the
        first has just ended. Raises NotFound, Nowhere, Busy, or what the load does.
        """
        load = self._loads.get(digest)
        if load is None and again and digest in self._ended:
            return self._ended[digest].begun()
        if load is None:
            if self._is_closed:
                raise Unavailable("the node is stopping", hint="Try again.")
            sources = self._sources(digest)
            if not sources:
                raise NotFound(f"{digest} is not here, and there are no peers to ask")
            if len(self._loads) >= self._searches_at_once:
                raise Busy(
                    f"{len(self._loads)} files are being looked for", hint="Try again later."
                )
            load = self._loads[digest] = self._new(digest, sources)
        try:
            async with asyncio.timeout(DTFC_PROGRESS_SECONDS):
                return await load.begun()
        except TimeoutError:
            return {"waiting": True}

    async def progress(self, digest: Digest, number: str, position: int) -> dict[str, Any]:
        """How far an attempt has come, once that is beyond a position, or after some seconds.

        The answer has ``readable`` (bytes from the beginning; all of them once they are verified),
        and ``over``: the attempt has ended, well or not. Without a number it is the load's end that
        is waited for, and its failure is raised.
        """
        load = self._loads.get(digest)
        if load is None:
            if not number and digest in self._ended:
                self._ended[digest].begun()
            return {"readable": 0, "over": True}
        try:
            async with asyncio.timeout(DTFC_PROGRESS_SECONDS):
                return await load.progress(number, position)
        except TimeoutError:
            return {"readable": 0, "over": False}

    async def drop(self, digest: Digest) -> None:
        """Give up loading a file that is deleted; who waits for it gets NotFound."""
        load = self._loads.get(digest)
        if load is not None:
            await load.give_up(NotFound("it was deleted meanwhile"))

    async def close(self) -> None:
        """Give up what is under way, and begin nothing more."""
        self._is_closed = True
        stopping = Unavailable("the node is stopping", hint="Try again.")
        await asyncio.gather(*(each.give_up(stopping) for each in self._loads.values()))

    def status(self) -> dict[str, int]:
        """What was loaded since the start, and what is being loaded."""
        return {
            "loading": len(self._loads),
            "loaded": self.loaded,
            "loaded_bytes": self.loaded_bytes,
        }

    def _new(self, digest: Digest, sources: Sequence[Source]) -> "Load":
        def check_room() -> None:
            receiving = sum(each.is_receiving for each in self._loads.values())
            if receiving >= self._loads_at_once:
                raise Busy(
                    f"{receiving} files are being loaded from peers", hint="Try again later."
                )

        def on_over(outcome: Outcome) -> None:
            del self._loads[digest]
            self._ended[digest] = outcome
            if len(self._ended) > _ENDED_KEPT_COUNT:
                self._ended.popitem(last=False)

        self._ended.pop(digest, None)
        return Load(
            digest, list(sources), self._spooler, self._kept, self.race, check_room, on_over
        )

    async def _kept(self, spool: Spool, name: str) -> None:
        size = spool.size
        await self._keep(spool, name)
        self.loaded += 1
        self.loaded_bytes += size


class Load:
    """One file on its way here, from its first request to its being kept; ``on_over`` is told then.

    ``check_room`` raises Busy if no more files may come now; to look for one takes no room.
    """

    def __init__(
        self,
        digest: Digest,
        sources: list[Source],
        spooler: Spooler,
        keep: Keep,
        race: Race,
        check_room: Callable[[], None],
        on_over: Callable[[Outcome], None],
    ) -> None:
        self._digest = digest
        self._sources = sources
        self._spooler = spooler
        self._keep = keep
        self._race = race
        self._check_room = check_room
        self._on_over = on_over
        self.is_receiving = False
        self._attempt: Attempt | None = None
        self._failure: TierceError | None = None
        self._is_over = False
        self._given_up: TierceError = Unavailable("the load was given up", hint="Try again.")
        self._name = ""
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def begun(self) -> dict[str, Any]:
        """See PeerLoading.load."""
        while self._attempt is None:
            self._raise_failure()
            if self._is_over:
                return Outcome(self._name, None).begun()
            await self._news.wait()
        return self._attempt.begun()

    async def progress(self, number: str, position: int) -> dict[str, Any]:
        """See PeerLoading.progress."""
        while True:
            attempt = self._attempt
            if number:
                if attempt is None or attempt.number != number:
                    return {"readable": 0, "over": True}
                if attempt.readable > position:
                    return {"readable": attempt.readable, "over": False}
            elif self._is_over:
                self._raise_failure()
                return {"readable": 0, "over": True}
            await self._news.wait()

    async def give_up(self, why: TierceError) -> None:
        """Stop; who waits gets ``why``. What is being kept at that moment may be kept."""
        self._given_up = why
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self._is_over:  # it had not begun
            self._failure = why
            self._end()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _end(self) -> None:
        self._is_over = True
        # A copy: with an error all its frames stay, and the bytes of the file in them.
        self._on_over(Outcome(self._name, copy.copy(self._failure)))
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits; those that wait next wait for what comes next."""
        self._news.set()
        self._news = asyncio.Event()

    async def _run(self) -> None:
        try:
            await self._load()
        except TierceError as error:
            if not isinstance(error, NotFound):
                log.info("%s could not be loaded: %s", self._digest, error.message)
            self._failure = error
        except asyncio.CancelledError:
            self._failure = self._given_up
            raise
        except Exception:
            log.exception("loading %s failed", self._digest)
            self._failure = Unavailable("the load failed", hint="See the node's log.")
        finally:
            self._end()

    async def _load(self) -> None:
        attempt = await self._verified()
        try:
            await self._keep(attempt.spool, attempt.name)
        finally:
            await self._close(attempt)

    async def _verified(self) -> Attempt:
        """Attempt after attempt, until one gave the right bytes, or nobody is left to ask."""
        alone = self._sources
        failures: list[TierceError] = []
        try:
            return await self._try(self._sources)
        except Wrong as wrong:
            alone = [each for each in alone if each is not wrong.culprit]
            failures.append(wrong)
        for source in alone:
            try:
                return await self._try([source])
            except (Wrong, NotFound, Nowhere) as error:
                failures.append(error)
        for each in failures:
            if isinstance(each.__cause__, Full):  # there is room, but not for as much as was told
                raise each.__cause__
        for each in failures:
            if isinstance(each, NotFound):
                raise each
        raise Nowhere(
            f"no peer sent the right bytes of {self._digest}; the last failure:"
            f" {failures[-1].message}",
            hint="Look at the peers' disks.",
        )

    async def _try(self, sources: Sequence[Source]) -> Attempt:
        """Load from the beginning; close what is returned. Raises Wrong, NotFound, Nowhere, or what
        the spool does.
        """
        first = await self._race.first(self._digest, sources, 0)
        try:
            if not self.is_receiving:
                self._check_room()
        except Busy:
            await first.held.aclose()
            raise
        self.is_receiving = True
        attempt = Attempt(self._digest, first, self._spooler, self._tell)
        try:
            await attempt.open()
            self._attempt = attempt
            self._tell()
            await attempt.receive(sources, self._race)
        except BaseException as error:
            if isinstance(error, Wrong):
                self._race.failed(first.source)
            await self._close(attempt)
            raise
        self._name = attempt.name
        self._tell()
        return attempt

    async def _close(self, attempt: Attempt) -> None:
        self._attempt = None
        self._tell()
        await attempt.close()
