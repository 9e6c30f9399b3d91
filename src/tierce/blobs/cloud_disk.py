"""A node whose bytes live in the cloud: what it has on its own disk, and the bucket."""

from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeAlias

from tierce.blobs import cloud_listing, cloud_owner
from tierce.blobs.catalogue import CLOUD_DATABASES
from tierce.blobs.cloud import CloudStore
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_names import Layout
from tierce.blobs.environment import Environment
from tierce.blobs.holds import Holds
from tierce.blobs.marks import Marking
from tierce.blobs.quarantine import Quarantine
from tierce.blobs.read_cache import CachePlan, ReadCache
from tierce.blobs.space import SpaceGuard
from tierce.blobs.spool import Spooler
from tierce.blobs.turns import Turns
from tierce.cloud.bucket import Bucket
from tierce.core.limits import (
    BLOB_LIMIT_BYTES,
    CLOUD_RANGE_BYTES,
    CLOUD_SETTLE_SECONDS,
    CLOUD_WHOLE_READ_BYTES,
    DISK_THREADS,
    PACK_LIMIT_BYTES,
)

Proof: TypeAlias = Literal["auto", "read", "tags"]


class CloudDisk:
    """The Storage (marked.py) of such a node; ``data`` is its data directory.

    ``proof`` says whether the service's entity tags prove anything; ``auto`` believes those that are
    known to look after their bytes. ``cached`` says how what was read is cached on the disk; None caches
    nothing. The environment must have been opened with CLOUD_DATABASES.
    """

    def __init__(
        self,
        data: Path,
        bucket: Bucket,
        *,
        layout: Layout = "tierce",
        pack_limit_bytes: int = PACK_LIMIT_BYTES,
        blob_limit_bytes: int = BLOB_LIMIT_BYTES,
        space: SpaceGuard | None = None,
        environment: Environment | None = None,
        whole_bytes: int = CLOUD_WHOLE_READ_BYTES,
        range_bytes: int = CLOUD_RANGE_BYTES,
        settle_seconds: float = CLOUD_SETTLE_SECONDS,
        cached: CachePlan | None = None,
        proof: Proof = "auto",
    ) -> None:
        self.pool: Executor = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self.space = space or SpaceGuard(data)
        self.environment = environment or Environment(data / "lmdb", databases=CLOUD_DATABASES)
        self.space.index_room = self.environment.free_bytes
        self.spooler = Spooler(
            data / "tmp",
            pool=self.pool,
            space=self.space,
            memory_limit_bytes=pack_limit_bytes,
            blob_limit_bytes=blob_limit_bytes,
        )
        cache = None
        if cached is not None:
            cache = ReadCache(data / "cache", cached, self.space, self.pool)
        marking = Marking()
        ground = Ground(
            bucket=bucket,
            environment=self.environment,
            layout=layout,
            pool=self.pool,
            now=lambda: marking.now(),
            whole_bytes=whole_bytes,
            range_bytes=range_bytes,
            settle_seconds=settle_seconds,
        )
        self.store = CloudStore(
            ground,
            marking=marking,
            quarantine=Quarantine(data / "quarantine"),
            holds=Holds(data / "holds"),
            turns=Turns(data / "holds" / "uploads"),
            cache=cache,
            by_tags=proof == "tags" or (proof == "auto" and bucket.checks_itself),
        )

    async def prepare(self, node_id: str) -> None:
        """Once at each start, before anyone else has the data directory: see that the bucket is ours.

        Ends the uploads of the last run, and makes the catalogue from the listing if it has none.
        Raises BadRequest if the bucket is another node's, and Unavailable if it can't be asked at the
        first start.
        """
        is_new = await cloud_owner.take(self.store.bucket, self.environment, node_id)
        await cloud_listing.adopt(self.store, self.environment, is_new=is_new)
        await self.store.end_uploads()

    async def close(self) -> None:
        """Finish what threads and commits have under way, then let go of the directory."""
        await self.store.aclose()
        self.pool.shutdown()
        await self.environment.close()
