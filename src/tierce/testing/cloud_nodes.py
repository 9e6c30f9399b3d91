"""Nodes of tests whose blobs are in the cloud: a data directory, and any bucket."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tierce.blobs import catalogue
from tierce.blobs.catalogue import CLOUD_DATABASES, Row
from tierce.blobs.cloud_disk import CloudDisk
from tierce.blobs.environment import Environment
from tierce.blobs.local import make_directories
from tierce.blobs.space import SpaceGuard
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest
from tierce.testing.blob_contract import read_blob


def cloud_disk(
    data: Path, bucket: Bucket, *, databases: Sequence[str] = CLOUD_DATABASES, **options: Any
) -> CloudDisk:
    """What such a node has, without a reserve. ``options`` are those of CloudDisk."""
    make_directories(data)
    return CloudDisk(
        data,
        bucket,
        space=SpaceGuard(data, reserve_bytes=0),
        environment=Environment(data / "lmdb", databases=databases),
        **options,
    )


class CloudNode:
    """Such a node, to be prepared. ``now`` is its clock, which a test sets, in milliseconds."""

    def __init__(self, data: Path, bucket: Bucket, *, now: int = 1_000_000, **options: Any) -> None:
        self.data = data
        self.bucket = bucket
        self.now = now
        self.disk = cloud_disk(data, bucket, **options)
        self.store = self.disk.store
        self.store.marking.now = lambda: self.now

    async def put(self, data: bytes, algorithm: str = "blake3") -> Digest:
        """Put a blob."""
        async with self.disk.spooler.holding(data, algorithm) as spool:
            await self.store.put(spool)
            return spool.digest

    async def get(self, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
        """A blob's bytes. Raises what opening and reading do."""
        return await read_blob(self.store, digest, start, stop)

    async def digests(self) -> set[Digest]:
        """What the node has."""
        return {each.digest for each in await self.store.list_after(None, 1000)}

    def row(self, digest: Digest) -> Row | None:
        """What the catalogue says of a blob."""
        return self.store.ground.row(digest)

    def leftovers(self) -> list[Digest]:
        """Objects that are still to be deleted."""
        with self.disk.environment.snapshot() as batch:
            return catalogue.leftovers_in(batch, None, 100)

    def quarantined(self) -> int:
        """How many bad copies were set aside here."""
        return len(list((self.data / "quarantine").iterdir()))
