"""A simulated service of objects, and operators through which processes ask it, in place of OpenDAL's.

A request is carried out by the service, whoever still waits for it: so it may be carried out though its
sender has given up or died, and two may overtake each other. What goes wrong is drawn from a seed by the
``weather``. The retries, paces and circuits in between are the production's (cloud/bucket.py).

The service promises what the store relies on: what was carried out is seen by all later requests but
listings, which may be late; and no request is carried out later than LATEST_SECONDS after it was sent.
"""

import asyncio
import contextvars
import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

from opendal import exceptions

from tierce.cloud.address import Address
from tierce.cloud.bucket import Bucket
from tierce.cloud.failures import OPENDAL_ERRORS, STORE
from tierce.cloud.pacing import RequestPace
from tierce.cloud.retrying import Patience, Retrying
from tierce.cloud.writing import Writer
from tierce.core.limits import CLOUD_SETTLE_SECONDS
from tierce.testing.sim_process import current

LATEST_SECONDS = CLOUD_SETTLE_SECONDS - 1.0
"""How long after it was sent a request may still be carried out."""
HARM_SECONDS = 120.0
"""Bytes of one object come damaged once in so long at most: twice in a row is believed."""
_OUTSIDE = contextvars.Context()
"""Of no process: what the service does goes on when a process dies."""


class Stored(NamedTuple):
    """An object: its bytes, what the service tells of them, and when it was put, simulated seconds."""

    data: bytes
    etag: str
    at: float


@dataclass
class Weather:
    """How often what goes wrong, as parts of 1 of all requests. All calm at first.

    ``late_listing_seconds``: a listing may be as things were so long ago.
    """

    refused: float = 0.0
    lost: float = 0.0
    silent: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    slow_down: float = 0.0
    denied: float = 0.0
    cut: float = 0.0
    flipped: float = 0.0
    late_listing_seconds: float = 0.0
    is_out: bool = False


@dataclass
class SimService:
    """A bucket, seen by everyone who asks. ``note`` hears of what is done to objects.

    ``has_tags``: entity tags are the MD5 of what was put; else there are none.
    """

    random: Random
    has_tags: bool = True
    note: Callable[[str], None] = lambda event: None
    weather: Weather = field(default_factory=Weather)
    objects: dict[str, Stored] = field(default_factory=dict)
    under_way: int = 0

    def __post_init__(self) -> None:
        self._changes: list[tuple[float, str, Stored | None]] = []
        self._harmed_at: dict[str, float] = {}

    # What is done to objects

    def put(self, path: str, data: bytes) -> None:
        """Carry out a put."""
        sum_of = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._set(path, Stored(data, sum_of if self.has_tags else "", _now()))
        self.note(f"service put {path}")

    def delete(self, path: str) -> None:
        """Carry out a deletion."""
        if path in self.objects:
            self._set(path, None)
            self.note(f"service delete {path}")

    def rot(self, path: str, data: bytes) -> None:
        """The object has other bytes from now on, and the service has not noticed."""
        self._set(path, self.objects[path]._replace(data=data))
        self.note(f"service rot {path}")

    def vanish(self, path: str) -> None:
        """The object is gone, and nobody has deleted it."""
        self._set(path, None)
        self.note(f"service vanish {path}")

    def listing(self, prefix: str) -> dict[str, Stored | None]:
        """What is directly below a prefix, as it is now or was a while ago; None for prefixes."""
        seen = dict(self.objects)
        for at, path, before in reversed(self._changes):
            if at < _now() - self.weather.late_listing_seconds:
                break
            if self.random.random() < 0.5:  # of each object by itself
                continue
            if before is None:
                seen.pop(path, None)
            else:
                seen[path] = before
        found: dict[str, Stored | None] = {}
        for path, stored in sorted(seen.items()):
            if path.startswith(prefix):
                head, slash, _ = path.removeprefix(prefix).partition("/")
                found[prefix + head + slash] = None if slash else stored
        return found

    def _set(self, path: str, stored: Stored | None) -> None:
        self._changes.append((_now(), path, self.objects.get(path)))
        if stored is None:
            self.objects.pop(path, None)
        else:
            self.objects[path] = stored

    # Requests

    async def ask(self, doing: str, carry_out: Callable[[], Any]) -> Any:
        """One request: what ``carry_out`` returns or raises once it is carried out, or a failure."""
        process = current()
        if process is not None and not process.is_alive:
            raise asyncio.CancelledError
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        weather, luck = self.weather, self.random.random()
        there, back = self.random.expovariate(50), self.random.expovariate(50)
        fate = _fate(weather, luck)
        if weather.is_out:
            fate = self.random.choice(["refused", "silent"])
        if fate == "slow":
            there, back = self.random.uniform(0, 12), self.random.uniform(0, 12)
        if fate == "late":
            there = self.random.uniform(0, LATEST_SECONDS)
        if fate != "":
            self.note(f"fault {fate} {doing}")
        if fate in ("refused", "slow_down", "denied") or (
            fate in ("silent", "late") and self.random.random() < 0.5
        ):
            self._later(back, lambda: _settle(answer, _failure(fate), None))
        if fate not in ("refused", "slow_down", "denied", "silent"):
            self.under_way += 1
            self._later(there, lambda: self._carry_out(carry_out, answer, fate, back))
        return await answer

    def _carry_out(
        self, carry_out: Callable[[], Any], answer: asyncio.Future[Any], fate: str, back: float
    ) -> None:
        self.under_way -= 1
        failure: Exception | None = None
        result = None
        try:
            result = carry_out()
        except OPENDAL_ERRORS as error:
            failure = error
        if fate == "lost":
            failure = _failure(fate)
        if fate != "late":
            self._later(back, lambda: _settle(answer, failure, result))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, work, context=_OUTSIDE.copy())

    def read(self, path: str, start: int, length: int) -> bytes:
        """Some bytes of an object, fewer at its end, or damaged on their way."""
        data = self.stat(path).data
        if start >= len(data):
            raise _error(exceptions.RangeNotSatisfied, "RangeNotSatisfied", "permanent")
        piece = data[start : start + length]
        if self.random.random() < self.weather.cut:
            return piece[: self.random.randrange(len(piece))]
        if self.random.random() < self.weather.flipped and self._may_harm(path):
            self.note(f"fault flipped {path}")
            return flipped(piece, self.random)
        return piece

    def stat(self, path: str) -> Stored:
        """An object. Raises NotFound."""
        try:
            return self.objects[path]
        except KeyError:
            raise _error(exceptions.NotFound, "NotFound", "permanent") from None

    def _may_harm(self, path: str) -> bool:
        if _now() < self._harmed_at.get(path, -HARM_SECONDS) + HARM_SECONDS:
            return False
        self._harmed_at[path] = _now()
        return True


class SimOperator:
    """What cloud/bucket.py asks of an operator of OpenDAL."""

    def __init__(self, service: SimService) -> None:
        self._service = service

    def capability(self) -> Any:
        """What it can do."""
        return SimpleNamespace(
            copy=True, write_with_if_not_exists=True, rename=True, write_can_multi=True,
            write_multi_min_size=None,
        )  # fmt: skip

    def layer(self, layer: object) -> "SimOperator":
        """Itself: parts are sent once."""
        return self

    def write(self, path: str, data: bytes, *, if_not_exists: bool = False) -> Awaitable[None]:
        """Put an object."""

        def carry_out() -> None:
            if if_not_exists and path in self._service.objects:
                raise _error(exceptions.ConditionNotMatch, "ConditionNotMatch", "permanent")
            self._service.put(path, data)

        return self._service.ask(f"write {path}", carry_out)

    def read(self, path: str, offset: int, size: int) -> Awaitable[bytes]:
        """Read some bytes."""
        return self._service.ask(
            f"read {path}", functools.partial(self._service.read, path, offset, size)
        )

    def stat(self, path: str) -> Awaitable[Any]:
        """What the service tells of an object."""
        return self._service.ask(f"look {path}", lambda: _metadata(self._service.stat(path)))

    def delete(self, path: str) -> Awaitable[None]:
        """Delete an object, if it is there."""
        return self._service.ask(f"delete {path}", functools.partial(self._service.delete, path))

    def copy(self, path: str, to: str) -> Awaitable[None]:
        """Copy an object."""
        return self._service.ask(
            f"copy {path}", lambda: self._service.put(to, self._service.stat(path).data)
        )

    async def list(self, prefix: str) -> "_Listing":
        """A listing, as one page."""
        found = await self._service.ask(
            f"list {prefix}", functools.partial(self._service.listing, prefix)
        )
        return _Listing(found)

    async def open(self, path: str, mode: str, *, chunk: int, **options: Any) -> "_File":
        """Begin an object that is put in parts. That is no request yet."""
        return _File(self._service, path, chunk)


class _Listing:
    def __init__(self, found: dict[str, Stored | None]) -> None:
        self._entries = iter(found.items())

    def __aiter__(self) -> "_Listing":
        return self

    async def __anext__(self) -> Any:
        for path, stored in self._entries:
            return SimpleNamespace(path=path, metadata=_metadata(stored or Stored(b"", "", 0)))
        raise StopAsyncIteration


class _File:
    def __init__(self, service: SimService, path: str, chunk: int) -> None:
        self._service = service
        self._path = path
        self._chunk = chunk
        self._sent = bytearray()
        self._parts = 0

    async def write(self, piece: bytes) -> None:
        """Send a piece: a request whenever a part is full."""
        self._sent += piece
        if len(self._sent) // self._chunk > self._parts:
            self._parts = len(self._sent) // self._chunk
            await self._service.ask(f"part of {self._path}", lambda: None)

    async def close(self) -> None:
        """Make it an object."""
        data = bytes(self._sent)
        await self._service.ask(
            f"complete {self._path}", functools.partial(self._service.put, self._path, data)
        )


class SimBucket(Bucket):
    """The production's bucket over a simulated service, as one process has it."""

    def __init__(self, service: SimService, random: Random, part_bytes: int) -> None:
        address = Address("s3", {}, "s3://bucket/node")
        operator: Any = SimOperator(service)
        pace = RequestPace(what=STORE, luck=random.random)
        super().__init__(operator, address, patience=Patience(), part_bytes=part_bytes, pace=pace)
        # The same again, but with luck that comes from the seed.
        self._retrying = Retrying(
            Patience(), what=STORE, luck=random.random, pace=pace, on_answer=self._answered
        )
        self._writer = Writer(operator, address.service, part_bytes, self._retrying)


def flipped(data: bytes, random: Random) -> bytes:
    """The same bytes, but for one bit."""
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def _fate(weather: Weather, luck: float) -> str:
    for name in ("refused", "lost", "silent", "late", "slow", "slow_down", "denied"):
        luck -= getattr(weather, name)
        if luck < 0:
            return name
    return ""


def _error(kind: type[Exception], name: str, lasting: str, reason: str = "simulated") -> Exception:
    return kind(f"{name} ({lasting}) at request => {reason}")


def _failure(fate: str) -> Exception:
    if fate == "slow_down":
        return _error(exceptions.RateLimited, "RateLimited", "temporary")
    if fate == "denied":
        return _error(exceptions.PermissionDenied, "PermissionDenied", "permanent")
    return _error(exceptions.Unexpected, "Unexpected", "temporary")


def _settle(answer: "asyncio.Future[Any]", failure: Exception | None, result: Any) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)


def _metadata(stored: Stored) -> Any:
    return SimpleNamespace(
        content_length=len(stored.data),
        etag=f'"{stored.etag}"' if stored.etag else None,
        content_md5=None,
        last_modified=datetime.fromtimestamp(stored.at, UTC),
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
