"""Cloud nodes for tests of proofs, over buckets that tell as much, or as little, as a test wants."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import opendal

from tierce.blobs import cloud_listing
from tierce.blobs.cloud_disk import Proof
from tierce.blobs.cloud_listing import Compared
from tierce.cloud.bucket import Bucket, Entry, open_bucket
from tierce.cloud.retrying import Patience
from tierce.cloud.writing import Content
from tierce.core.digest import Digest
from tierce.core.limits import CHUNK_BYTES, MIB, PIECE_BYTES
from tierce.node.scrub import Scrub
from tierce.testing.blob_contract import body
from tierce.testing.cloud_nodes import CloudNode

PART_BYTES = 5 * MIB
BODIES = [b"small", body(300_000, seed=1), body(PART_BYTES + 5, seed=2)]
HOUR, DAY = 3_600_000, 24 * 3_600_000


class TellingBucket(Bucket):
    """In memory, with tags: the MD5 of the content, or, ``is_encrypted``, something else each time."""

    def __init__(self, *, is_encrypted: bool = False, has_tags: bool = True) -> None:
        plain = open_bucket("memory:///", patience=Patience(attempts=1))
        super().__init__(
            plain._operator,
            plain._address,
            patience=plain._retrying.patience,
            part_bytes=PART_BYTES,
        )
        self._is_encrypted = is_encrypted
        self._has_tags = has_tags
        self._writes = 0
        self.tags: dict[str, str] = {}
        self.unlisted: set[str] = set()

    async def write(self, path: str, content: Content, *, is_new: bool = False) -> None:
        await super().write(path, content, is_new=is_new)
        self.replace(path, self.plain().read(path))

    async def look(self, path: str) -> Entry:
        return self._tagged(await super().look(path))

    async def list(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async with aclosing(super().list(prefix)) as found:
            async for entry in found:
                if entry.path not in self.unlisted:
                    yield self._tagged(entry)

    def replace(self, path: str, data: bytes) -> None:
        """Put an object behind the node's back."""
        self.rot(path, data)
        self._writes += 1
        sum_of = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.tags[path] = f"v{self._writes}" if self._is_encrypted else sum_of

    def rot(self, path: str, data: bytes) -> None:
        """Change an object's bytes; the service has noticed nothing."""
        self.plain().write(path, data)

    def plain(self) -> opendal.Operator:
        """The bucket, without tags and counts."""
        return self._operator.to_operator()

    def _tagged(self, entry: Entry) -> Entry:
        return entry._replace(etag=self.tags.get(entry.path, "") if self._has_tags else "")


class Node(CloudNode):
    """A cloud node that compares and scrubs when a test says so."""

    def __init__(self, data: Path, bucket: Bucket, proof: Proof = "tags") -> None:
        super().__init__(
            data,
            bucket,
            now=1_000 * DAY,
            whole_bytes=CHUNK_BYTES,
            range_bytes=PIECE_BYTES,
            proof=proof,
        )
        self.bad: list[Digest] = []

    async def compare(self) -> Compared:
        """What happens once a day; whatever was put an hour ago is old."""
        return await cloud_listing.compare(
            self.store, self.disk.environment, is_old=lambda row: row.put <= self.now - HOUR
        )

    async def scrub(self) -> tuple[int, int]:
        """A pass over all blobs: how many were read whole, and how many were not."""
        scrub = Scrub(
            self.store,
            interval_seconds=0,
            bytes_per_second=1e12,
            on_bad=self.bad.append,
            is_due=self.store.proving.are_due,
        )
        await scrub.scrub_once()
        status = scrub.status()
        return status["checked_blobs"], status["vouched_blobs"]

    def reads(self) -> int:
        return self.bucket.requests["read"]


class Nodes:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.all: list[Node] = []

    async def new(self, bucket: Bucket, proof: Proof = "tags") -> Node:
        node = Node(self._directory / f"data-{len(self.all)}", bucket, proof)
        self.all.append(node)
        await node.disk.prepare("one")
        return node
