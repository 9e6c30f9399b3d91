"""One door at work: find the route, run its handler, turn errors into the door's words, count.

A handler raises core errors and knows no status for them; the door's own table does. What is not a
core error is our mistake: it is logged with its traceback, and the client gets a plain 500.
"""

import logging
import time
from collections.abc import Callable, Mapping

from aiohttp import web

from tierce.core.errors import TierceError
from tierce.core.metrics import REQUEST_SECONDS, REQUESTS
from tierce.core.tallies import CounterTally, HistogramTally
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.connection import DoorServer, Pace, connection_of
from tierce.doors.shared.router import Router
from tierce.service.rates import Rates

log = logging.getLogger(__name__)
access_log = logging.getLogger("tierce.access")

StatusTable = Mapping[type[TierceError], int]
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


class Door:
    """A named dialect: its routes, and how it words an error (None stands for our own mistake)."""

    def __init__(
        self,
        name: str,
        router: Router,
        render_error: Callable[[TierceError | None], Answer],
        *,
        log_requests: bool = False,
    ) -> None:
        self.name = name
        self._router = router
        self._render_error = render_error
        self._log_requests = log_requests
        self._counters: dict[tuple[str, str, int], tuple[CounterTally, HistogramTally]] = {}
        self._latencies: dict[str, HistogramTally] = {}
        self._rates: Rates | None = None

    def limit(self, rates: Rates) -> None:
        """Count this door's requests, and refuse those that are too many."""
        self._rates = rates

    def server(self, pace: Pace) -> DoorServer:
        """A server whose requests come here."""
        return DoorServer(self.handle, self._render_error, pace)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        label = "none"
        answer: web.StreamResponse
        try:
            match = self._router.find(request.method, request.path)
            label = match.route.label
            if self._rates is not None:
                headers = request.headers
                self._rates.check(
                    request.remote, headers.get("X-Forwarded-For"), headers.get("Authorization")
                )
            answer = await match.route.handler(request, **match.arguments)
        except TierceError as error:
            answer = self._answer_error(request, error)
        except ConnectionError:
            self._count(request, label, 499, started)
            raise
        except Exception:
            log.exception("a handler of the %s door failed", self.name)
            answer = self._answer_error(request, None)
        self._count(request, label, answer.status, started)
        return answer

    def _answer_error(self, request: web.BaseRequest, error: TierceError | None) -> Answer:
        answer = self._render_error(error)
        # A client that was told to wait before it sends its body now need not send it.
        if "Expect" in request.headers and not request.content.is_eof():
            answer.close()
        return answer

    def _count(self, request: web.BaseRequest, label: str, status: int, started: float) -> None:
        seconds = time.perf_counter() - started
        method = request.method if request.method in METHODS else "other"
        counters = self._counters.get((label, method, status))
        if counters is None:
            counters = self._new_counters(label, method, status)
        counters[0].add()
        counters[1].observe(seconds)
        if self._log_requests:
            access_log.info(
                "%s %s %s %d %.1f ms %s",
                self.name, method, ascii(request.path)[1:-1], status, seconds * 1000, request.remote,
                extra={
                    "door": self.name, "method": method, "path": request.path, "status": status,
                    "seconds": round(seconds, 6), "client": request.remote,
                    "received_bytes": connection_of(request).received_bytes,
                    "sent_bytes": connection_of(request).sent_bytes,
                },
            )  # fmt: skip

    def _new_counters(
        self, label: str, method: str, status: int
    ) -> tuple[CounterTally, HistogramTally]:
        if label not in self._latencies:
            self._latencies[label] = HistogramTally(REQUEST_SECONDS.labels(self.name, label))
        requests = CounterTally(REQUESTS.labels(self.name, label, method, str(status)))
        counters = self._counters[label, method, status] = requests, self._latencies[label]
        return counters


def status_of(error: TierceError, table: StatusTable) -> int:
    """The status of the nearest class in a door's table."""
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    raise AssertionError(f"no status for {type(error).__name__}")
