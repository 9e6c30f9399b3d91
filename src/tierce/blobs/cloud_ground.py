"""What all parts of a store in the cloud stand on: its bucket, its index, a clock, and some bounds."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_names import Layout, path_of
from tierce.blobs.environment import Environment
from tierce.blobs.processes import HOST, Host
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """``now`` gives milliseconds since 1970. What takes a while is done in ``pool``.

    Blobs up to ``whole_bytes`` are read by one request, larger ones in ranges of ``range_bytes``. A
    request that got no answer may be carried out for ``settle_seconds``.
    """

    bucket: Bucket
    environment: Environment
    layout: Layout
    pool: Executor
    now: Callable[[], int]
    whole_bytes: int
    range_bytes: int
    settle_seconds: float
    host: Host = HOST

    def path(self, digest: Digest) -> str:
        """The path of a blob's object."""
        return path_of(digest, self.layout)

    def row(self, digest: Digest) -> Row | None:
        """What the catalogue says of a blob now."""
        with self.environment.snapshot() as batch:
            return catalogue.row_in(batch, digest)

    def settled_at(self) -> int:
        """When a request that is sent now, or was before, can't be carried out any more."""
        return self.now() + int(self.settle_seconds * 1000)
