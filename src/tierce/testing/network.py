"""A network between simulated nodes, with all that goes wrong in one.

Messages take their time, get lost, arrive twice or out of order; links are slow, or cut in one
direction or both; hosts are down, or dark. A request and its answer are two messages, so a peer may
have done what it was asked to though its answer never came. Who waits in vain waits until its own
limit, as with a real network.

All chance comes from one random.Random, drawn in the order of events; every message is in the trace,
and is counted for the host that sent it. What a handler raises beyond the core errors is a defect of
the program: it is kept in ``defects``, and the caller sees what a server's failure looks like.

Hosts are the part of an address before the colon: that is what links and cuts are between.
"""

import asyncio
import contextvars
import zlib
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from tierce.core.errors import TierceError, Unavailable
from tierce.node.peers import PeerService
from tierce.testing.channel import Channel
from tierce.testing.sim_process import Process
from tierce.testing.trace import Trace

MESSAGE_OVERHEAD_BYTES = 200
"""Roughly what the head of a signed request or of its answer adds."""


def host_of(address: str) -> str:
    """The host of HOST:PORT."""
    return address.rpartition(":")[0]


@dataclass(frozen=True)
class Conditions:
    """How one direction of a link is. Chances are from 0 to 1; a rate of 0 is without limit.

    A message takes ``latency_seconds`` and, at random, up to ``jitter_seconds`` more.
    """

    latency_seconds: float = 0.001
    jitter_seconds: float = 0.002
    loss: float = 0.0
    duplication: float = 0.0
    bytes_per_second: float = 0.0
    is_cut: bool = False


class Sent(NamedTuple):
    """What is counted of a message: when it was sent, by which host, what it was, and its bytes."""

    second: int
    host: str
    path: str


@dataclass
class Tally:
    """Messages, and the bytes in them."""

    messages: int = 0
    bytes: int = 0


@dataclass
class _Server:
    """What listens at an address: the service, and the process whose it is."""

    service: PeerService
    process: Process


@dataclass
class SimNetwork:
    """All links and all listening addresses. The fields below may be changed at any time.

    ``links`` holds the conditions of links, from host to host, that are unlike ``conditions``;
    ``dark`` are hosts without power: nothing comes from them, not even a refusal.
    """

    random: Random
    trace: Trace
    conditions: Conditions = field(default_factory=Conditions)
    links: dict[tuple[str, str], Conditions] = field(default_factory=dict)
    dark: dict[str, None] = field(default_factory=dict)
    sent: dict[Sent, Tally] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._servers: dict[str, _Server] = {}
        self._busy_until: dict[tuple[str, str], float] = {}
        # Messages on their way belong to nobody: they arrive though their sender is paused or dead.
        self._context = contextvars.Context()

    # What happens to hosts and links

    def listen(self, address: str, service: PeerService, process: Process) -> None:
        """Answer at an address from now on, as the process."""
        assert address not in self._servers, f"{address} is taken"
        self._servers[address] = _Server(service, process)

    def close(self, address: str) -> None:
        """Refuse connections to an address from now on."""
        self._servers.pop(address, None)

    def cut(self, source: str, target: str) -> None:
        """Lose everything from host to host, in this direction."""
        self.change(source, target, is_cut=True)

    def change(self, source: str, target: str, **changed: float | bool) -> None:
        """Change some conditions of one direction of a link (the fields of Conditions)."""
        now = self.links.get((source, target), self.conditions)
        self.links[source, target] = Conditions(**{**vars(now), **changed})

    def mend(self, conditions: Conditions | None = None) -> None:
        """Make all links alike again."""
        self.links.clear()
        self.conditions = conditions or Conditions()

    # How messages travel

    def between(self, source: str, target: str) -> Conditions:
        """The conditions of one direction of a link."""
        return self.links.get((source, target), self.conditions)

    def count(self, host: str, path: str, size: int) -> None:
        """Count a message of ``size`` bytes for the host that sends it."""
        second = int(asyncio.get_running_loop().time())
        tally = self.sent.setdefault(Sent(second, host, path), Tally())
        tally.messages += 1
        tally.bytes += size

    def draw_delay(self, source: str, target: str, size: int) -> float | None:
        """How many seconds a message takes; None if it gets lost."""
        if source in self.dark or target in self.dark:
            return None
        link = self.between(source, target)
        if link.is_cut or (link.loss and self.random.random() < link.loss):
            return None
        delay = link.latency_seconds + link.jitter_seconds * self.random.random()
        if link.bytes_per_second:
            now = asyncio.get_running_loop().time()
            begins = max(now, self._busy_until.get((source, target), now))
            ends = begins + (size + MESSAGE_OVERHEAD_BYTES) / link.bytes_per_second
            self._busy_until[source, target] = ends
            delay += ends - now
        return delay

    def send(
        self, source: str, target: str, what: str, size: int, arrive: Callable[[], object]
    ) -> None:
        """Send a message; ``arrive`` is called when it does, once, twice or never."""
        self.count(source, what, size + MESSAGE_OVERHEAD_BYTES)
        delay = self.draw_delay(source, target, size)
        if delay is None:
            self.outcomes["lost"] += 1
            self.trace.note(f"lost {source}>{target} {what} {size}")
            return
        self.trace.note(f"sent {source}>{target} {what} {size}")
        self.later(delay, arrive)
        duplication = self.between(source, target).duplication
        if duplication and self.random.random() < duplication:
            again = self.draw_delay(source, target, size)
            if again is not None:
                self.outcomes["duplicated"] += 1
                self.later(again, arrive)

    def later(self, delay_seconds: float, arrive: Callable[[], object]) -> None:
        """Do something after a time, as the network, which no process can hold up."""
        loop = asyncio.get_running_loop()
        loop.call_later(delay_seconds, arrive, context=self._context)

    # Requests and answers

    def ask(
        self, source: str, address: str, path: str, body: bytes
    ) -> "asyncio.Future[bytes | TierceError]":
        """Send a request from a host to an address; the future gets the answer, if one comes."""
        answer: asyncio.Future[bytes | TierceError] = asyncio.get_running_loop().create_future()
        target = host_of(address)
        what = f"{path} {zlib.crc32(body):08x}"

        def answered(result: bytes | TierceError) -> None:
            if not answer.done():
                answer.set_result(result)

        def reply(result: bytes | TierceError) -> None:
            size = len(result) if isinstance(result, bytes) else len(result.message)
            self.send(target, source, f"{path} answer", size, lambda: answered(result))

        def arrive() -> None:
            server = self._servers.get(address)
            if server is None:
                reply(refused(address))
            else:
                work = server.service.exchange(path, body)
                self._serve(server, path, work, reply)

        self.send(source, target, what, len(body), arrive)
        return answer

    def _serve(
        self,
        server: _Server,
        path: str,
        work: Coroutine[Any, Any, bytes],
        reply: Callable[[bytes | TierceError], None],
    ) -> None:
        """Run a handler in its process, and reply with what comes out of it."""

        def done(task: "asyncio.Task[bytes]") -> None:
            if task.cancelled() or not server.process.is_alive:
                # The kernel of a killed process's host resets its connections.
                reply(broken("the peer's process ended"))
                return
            error = task.exception()
            if error is None:
                reply(task.result())
            else:
                reply(self.translate(path, error))

        server.process.spawn(work).add_done_callback(done, context=self._context)

    def translate(self, path: str, error: BaseException) -> TierceError:
        """A handler's error as its caller sees it."""
        if isinstance(error, TierceError):
            return type(error)(error.message, hint=error.hint)
        self.defects.append(f"{path} raised {error!r}")
        return broken("the peer failed")

    # Streams: a request, then bytes in order

    def connect(
        self,
        source: str,
        address: str,
        what: str,
        serve: Callable[[PeerService, Channel, Channel], Coroutine[Any, Any, None]],
    ) -> tuple[Channel, Channel]:
        """Open a connection: a channel to the peer, and one back. ``serve`` runs in its process."""
        target = host_of(address)
        up = Channel(self, source, target, what)
        down = Channel(self, target, source, f"{what} answer")

        def arrive() -> None:
            server = self._servers.get(address)
            if server is None:
                down.fail(refused(address))
                return
            task = server.process.spawn(serve(server.service, up, down))
            down.on_close = lambda: task.cancel()
            task.add_done_callback(
                lambda done: self._served(what, server, done, up, down), context=self._context
            )

        self.send(source, target, what, 0, _once(arrive))
        return up, down

    def _served(
        self, what: str, server: _Server, task: "asyncio.Task[None]", up: Channel, down: Channel
    ) -> None:
        up.close()
        if task.cancelled() or not server.process.is_alive:
            down.fail(broken("the connection broke off"))
        elif (error := task.exception()) is not None:
            told = self.translate(what, error)
            # Once an answer has begun, an error can only break it off.
            down.fail(broken("the connection broke off") if down.has_sent else told)


def _once(arrive: Callable[[], None]) -> Callable[[], None]:
    """A stream's request may be sent twice, but a connection is opened once only."""
    waiting = deque([arrive])
    return lambda: waiting.popleft()() if waiting else None


def refused(address: str) -> Unavailable:
    """What a caller sees when nothing listens at an address."""
    return Unavailable(f"{address} refused the connection", hint="Is the node running?")


def broken(what: str) -> Unavailable:
    """What a caller sees when a peer answers no more."""
    return Unavailable(what, hint="Look at the peer's log.")
