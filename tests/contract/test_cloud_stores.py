"""The blob store's contract, kept by a bucket: in memory, a directory, S3 and WebDAV.

Set TIERCE_TEST_STORE to the URL of a bucket of yours to have it tested too; what is put there, under a
prefix of each test, stays there.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tierce.blobs.cloud_names import path_of
from tierce.cloud.bucket import open_bucket
from tierce.core.digest import Digest
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES
from tierce.testing.blob_contract import LARGE, SMALL, BlobStoreContract, Workbench
from tierce.testing.cloud_nodes import cloud_disk
from tierce.testing.rclone import (
    BUCKET,
    RcloneServer,
    serve_webdav,
)

STORE = os.environ.get("TIERCE_TEST_STORE", "")
SIZES = sorted({*SMALL, *LARGE})


@pytest.fixture(scope="module")
def webdav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with serve_webdav(tmp_path_factory.mktemp("rclone") / "webdav", is_cached=True) as server:
        yield server


@asynccontextmanager
async def workbench(
    data: Path, url: str, harm: Callable[[str, int], None] | None = None
) -> AsyncIterator[Workbench]:
    """A store at a URL. What is larger than a chunk is read in ranges of a piece."""
    bucket = open_bucket(url)
    disk = cloud_disk(data, bucket, whole_bytes=CHUNK_BYTES, range_bytes=PIECE_BYTES)

    def change_object(path: str, at: int) -> None:
        operator = bucket._operator.to_operator()
        found = bytearray(operator.read(path))
        found[at] ^= 1
        operator.write(path, bytes(found))

    harm = harm or change_object
    await disk.prepare("node")
    yield Workbench(
        disk.store,
        disk.spooler,
        lambda digest, at: harm(path_of(digest, "tierce"), at),
        lambda: len(os.listdir(data / "quarantine")),
        SIZES,
    )
    await disk.close()


def file_harm(root: Path) -> Callable[[str, int], None]:
    """Changes a byte of a file that a server's object is in."""

    def harm(path: str, at: int) -> None:
        with (root / path).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    return harm


class TestMemory(BlobStoreContract):
    @pytest.fixture
    async def bench(self, tmp_path: Path) -> AsyncIterator[Workbench]:
        async with workbench(tmp_path, "memory:///") as bench:
            yield bench


class TestDirectory(BlobStoreContract):
    @pytest.fixture
    async def bench(self, tmp_path: Path) -> AsyncIterator[Workbench]:
        root = tmp_path / "bucket"
        root.mkdir()
        async with workbench(tmp_path / "data", f"fs://{root}", file_harm(root)) as bench:
            yield bench


class TestS3(BlobStoreContract):
    @pytest.fixture
    async def bench(
        self,
        tmp_path: Path,
        s3_server: RcloneServer,
        s3_keys: None,
        prefix: str,
    ) -> AsyncIterator[Workbench]:
        url = f"s3://{BUCKET}/{prefix}?endpoint={s3_server.endpoint}"
        async with workbench(tmp_path, url, file_harm(s3_server.directory / prefix)) as bench:
            yield bench


class TestWebdav(BlobStoreContract):
    @pytest.fixture
    async def bench(
        self, tmp_path: Path, webdav_server: RcloneServer, prefix: str
    ) -> AsyncIterator[Workbench]:
        root = webdav_server.directory / prefix
        url = f"webdav:///{prefix}?endpoint={webdav_server.endpoint}"
        async with workbench(tmp_path, url, file_harm(root)) as bench:
            yield bench


if STORE:

    class TestYours(BlobStoreContract):
        @pytest.fixture
        async def bench(self, tmp_path: Path, prefix: str) -> AsyncIterator[Workbench]:
            parts = urlsplit(STORE)
            url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/tierce-test/{prefix}"))
            async with workbench(tmp_path, url) as bench:
                yield bench


def test_the_digest_in_a_path_is_read_back() -> None:
    for digest in (Digest.of(b"x", "blake3"), Digest.of(b"x", "sha1")):
        assert path_of(digest, "tierce").endswith(f"{digest.hex[:2]}/{digest.hex}")
