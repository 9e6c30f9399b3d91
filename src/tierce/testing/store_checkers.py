"""What must be true of a store in the cloud, told by observers that see more than the store does.

They hear what clients asked and were answered, and of what harm was done; and they look straight at the
simulated service (sim_bucket.py). Times are simulated seconds.

- *Kept*: a blob that was acknowledged is there, unless somebody may have removed it since, or its object
  was harmed. Wrong bytes are never read, and no blob is collected that anybody needs.
- *In order*: in the end, rows and objects are the same, and nothing is left over.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tierce.blobs import catalogue
from tierce.blobs.cloud_names import BLOBS_PREFIX, OWNER_PATH, QUARANTINE_PREFIX, digest_of, path_of
from tierce.blobs.environment import Environment
from tierce.blobs.holds import Holds
from tierce.blobs.store import Counts
from tierce.core.digest import Digest
from tierce.testing.checkers import Violation, is_good
from tierce.testing.sim_bucket import SimService


@dataclass
class Doing:
    """Something that a client asked for. Its effect comes between ``start`` and ``end``."""

    start: float
    end: float = math.inf


@dataclass
class _History:
    plain: list[Doing] = field(default_factory=list)
    managed: list[Doing] = field(default_factory=list)
    removals: list[Doing] = field(default_factory=list)
    records: list[Doing] = field(default_factory=list)
    releases: list[Doing] = field(default_factory=list)
    harmed_at: float = -math.inf

    def is_there(self, puts: Iterable[Doing], start: float, end: float) -> bool:
        """Whether one of these puts, all acknowledged, makes sure that a blob is there all the time."""
        return any(
            put.end < start
            and put.start > self.harmed_at
            and _is_untouched(put, self.removals, end)
            for put in puts
        )

    def is_referred_to(self, now: float) -> bool:
        """Whether a record certainly refers to the blob."""
        return any(put.end < now and _is_untouched(put, self.releases, now) for put in self.records)


class Kept:
    """Follows what clients did. Puts are told when they are acknowledged, removals when they begin."""

    def __init__(self, service: SimService) -> None:
        self._service = service
        self._bodies: dict[Digest, bytes] = {}
        self._histories: dict[Digest, _History] = {}

    def body(self, digest: Digest, data: bytes) -> None:
        """Somebody is going to put this."""
        self._bodies[digest] = data
        self._histories.setdefault(digest, _History())

    @property
    def digests(self) -> list[Digest]:
        """Whatever anybody tried to put."""
        return list(self._bodies)

    def acknowledged(self, digest: Digest, put: Doing, *, managed: bool, record: bool) -> None:
        """A put was acknowledged."""
        found = self._histories[digest]
        (found.managed if managed else found.plain).append(put)
        if record:
            found.records.append(put)

    def removing(self, digest: Digest, removal: Doing) -> None:
        """Somebody asks for a blob to be removed."""
        self._histories[digest].removals.append(removal)

    def releasing(self, digest: Digest, release: Doing) -> None:
        """Somebody asks for a blob's record to be removed."""
        self._histories[digest].releases.append(release)

    def lost_directory(self) -> None:
        """Records are gone."""
        for found in self._histories.values():
            found.records.clear()

    def harmed(self, digest: Digest, now: float) -> None:
        """The object has other bytes from now on, or is gone."""
        self._histories[digest].harmed_at = now

    def collecting(self, removal: Doing) -> set[Digest]:
        """A collection begins: the blobs that it may remove."""
        may_go = set()
        for digest, found in self._histories.items():
            is_claimed = found.is_there(found.plain, removal.start, removal.start)
            if not is_claimed and not found.is_referred_to(removal.start):
                found.removals.append(removal)
                may_go.add(digest)
        return may_go

    def collected(self, removed: Iterable[Digest], may_go: set[Digest]) -> None:
        """It is done."""
        for digest in removed:
            if digest not in may_go:
                raise Violation(f"{digest} was collected, and it is needed")

    def was_read(self, digest: Digest, data: bytes, start: int, *, whole: bool) -> None:
        """Bytes from ``start`` on were read; not ``whole`` if the answer broke off, as was seen."""
        body = self._bodies[digest]
        expected = body[start : start + len(data)]
        if data != expected or (whole and start + len(data) != len(body)):
            raise Violation(f"{digest} was read with other bytes")

    def was_sized(self, digest: Digest, size: int) -> None:
        """A size was told of a blob that was verified."""
        if size != len(self._bodies[digest]):
            raise Violation(f"{digest} has {size} bytes, it is told")

    def was_missed(self, digest: Digest, start: float, end: float, what: str) -> None:
        """Between these times somebody asked for a blob, and was told that there is none."""
        found = self._histories[digest]
        if found.is_there([*found.plain, *found.managed], start, end):
            raise Violation(f"{digest} is not found: {what}")

    def is_harmed(self, digest: Digest) -> bool:
        """Whether the blob's object is missing or wrong just now."""
        stored = self._service.objects.get(path_of(digest, "tierce"))
        return stored is None or not is_good(digest, stored.data)

    def kept(self, now: float) -> Iterator[Digest]:
        """The blobs that must be there."""
        for digest, found in self._histories.items():
            if found.is_there([*found.plain, *found.managed], now, now):
                yield digest


def _is_untouched(put: Doing, undone: Iterable[Doing], until: float) -> bool:
    """Whether none of these can have undone a put by some time."""
    return all(each.end < put.start or each.start > until for each in undone)


def disorder(service: SimService, environment: Environment, directory: Path) -> list[str]:
    """Everything that is not as it should be in a store that had time to settle."""
    return [
        *_rows_and_objects(service, environment),
        *_leftovers(service, environment),
        *_held(directory / "holds"),
    ]


def _rows_and_objects(service: SimService, environment: Environment) -> Iterator[str]:
    rows = dict(catalogue.listed(environment, None, 1_000_000))
    for digest, size in rows.items():
        stored = service.objects.get(path_of(digest, "tierce"))
        if stored is None:
            yield f"{digest} has a row and no object"
        elif len(stored.data) != size or not is_good(digest, stored.data):
            yield f"{digest} has a row and a bad object"
    for path in service.objects:
        named = digest_of(path, "tierce")
        # What has another content than its name says is left alone.
        if named is not None and named not in rows and is_good(named, service.objects[path].data):
            yield f"{path} has no row"
    counts = Counts(len(rows), sum(rows.values()))
    if environment.counts(catalogue.KIND) != counts:
        yield f"counts are {environment.counts(catalogue.KIND)}, and should be {counts}"


def _leftovers(service: SimService, environment: Environment) -> Iterator[str]:
    with environment.snapshot() as batch:
        for digest, _ in catalogue.dead_uploads_in(batch, lambda pid: True):
            yield f"an upload of {digest} has no end"
        for digest in catalogue.leftovers_in(batch, None, 1_000_000):
            yield f"{digest} is left over"
    for path in service.objects:
        if not path.startswith((BLOBS_PREFIX, QUARANTINE_PREFIX)) and path != OWNER_PATH:
            yield f"{path} is nothing of ours"


def _held(directory: Path) -> Iterator[str]:
    """Locks that somebody has. Files of processes that died may lie there until the next start."""
    holds = Holds(directory)
    for each in list(directory.iterdir()):
        if "-" in each.name:
            digest = Digest.parse(each.name.replace("-", ":"))
            hold = holds.alone(digest)
            if hold is None:
                yield f"{digest} is held"
            else:
                holds.release(digest, hold)
