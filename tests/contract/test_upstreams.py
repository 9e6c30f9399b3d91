"""Every upstream keeps the one contract (tierce.testing.upstream_contract)."""

import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from tierce.core.errors import BadRequest, NotFound, Refused, TooLarge, Unavailable
from tierce.core.limits import MIB
from tierce.names.record import FULL, UPSTREAM
from tierce.testing.blob_contract import body
from tierce.testing.memory_upstream import MemoryUpstream
from tierce.testing.rclone import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    RcloneServer,
    serve_webdav,
)
from tierce.testing.upstream_contract import (
    KEY,
    NANOSECONDS,
    BytesSource,
    UpstreamBench,
    UpstreamContract,
    record_of,
)
from tierce.upstream.cloud import CloudUpstream, open_upstream

PART_BYTES = 5 * MIB


def files(directory: Path) -> list[str]:
    """All that is stored, except parts of uploads that never were completed."""
    found = [each.relative_to(directory) for each in directory.rglob("*") if each.is_file()]
    return sorted(str(each) for each in found if not each.name.startswith(".rclone_temp"))


@pytest.fixture(scope="module")
def webdav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with serve_webdav(tmp_path_factory.mktemp("rclone") / "webdav") as server:
        yield server


@pytest.fixture
async def s3(s3_keys: None, s3_server: RcloneServer, prefix: str) -> AsyncIterator[CloudUpstream]:
    url = f"s3://{BUCKET}/{prefix}?endpoint={s3_server.endpoint}"
    upstream = open_upstream(url, part_bytes=PART_BYTES)
    yield upstream
    await upstream.aclose()


@pytest.fixture
def boto(s3_server: RcloneServer) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


class TestMemory(UpstreamContract):
    @pytest.fixture
    def bench(self) -> UpstreamBench:
        upstream = MemoryUpstream(Random(1), seconds=0.0)

        def put_foreign(key: str, data: bytes) -> None:
            known = upstream.objects.get(key)
            upstream.put_foreign(key, data, known[0].entries if known else {}, NANOSECONDS)

        return UpstreamBench(upstream, put_foreign, lambda: sorted(upstream.objects))


class TestOpendalMemory(UpstreamContract):
    @pytest.fixture
    def bench(self) -> UpstreamBench:
        upstream = open_upstream("memory:///")

        def put_foreign(key: str, data: bytes) -> None:
            upstream._operator.to_operator().write(key, data)

        def names() -> list[str]:
            listed = upstream._operator.to_operator().list("/", recursive=True)
            return sorted(entry.path for entry in listed if not entry.path.endswith("/"))

        return UpstreamBench(upstream, put_foreign, names)


class TestDirectory(UpstreamContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> UpstreamBench:
        upstream = open_upstream(f"fs://{tmp_path}", part_bytes=MIB)

        def put_foreign(key: str, data: bytes) -> None:
            (tmp_path / key).write_bytes(data)

        return UpstreamBench(upstream, put_foreign, lambda: files(tmp_path), [0, 1, 3 * MIB + 1])


class TestS3(UpstreamContract):
    @pytest.fixture
    def bench(
        self, s3: CloudUpstream, s3_server: RcloneServer, prefix: str, boto: Any
    ) -> UpstreamBench:
        def put_foreign(key: str, data: bytes) -> None:
            boto.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=data)

        return UpstreamBench(
            s3,
            put_foreign,
            lambda: files(s3_server.directory / prefix),
            [0, 1, PART_BYTES, 2 * PART_BYTES + 1],
        )


class TestWebdav(UpstreamContract):
    @pytest.fixture
    def bench(self, webdav_server: RcloneServer, prefix: str) -> UpstreamBench:
        root = webdav_server.directory / prefix
        root.mkdir()
        url = f"webdav:///{prefix}?endpoint={webdav_server.endpoint}"

        def put_foreign(key: str, data: bytes) -> None:
            (root / key).write_bytes(data)

        return UpstreamBench(
            open_upstream(url, part_bytes=MIB), put_foreign, lambda: files(root), [0, 1, MIB + 1]
        )


async def test_the_bucket_holds_what_objstore_would_have_put_there(
    s3: CloudUpstream, boto: Any, prefix: str
) -> None:
    source = BytesSource(b"hello")
    record = record_of(source, name="page.html", metadata={"Color": "Red"}, level=FULL)
    await s3.upload(record, source)
    head = boto.head_object(Bucket=BUCKET, Key=f"{prefix}/{KEY}")
    stored = {name.lower(): value for name, value in head["Metadata"].items()}
    extra = stored.pop("tierce")
    assert stored == {
        "id": KEY,
        "name": "page.html",
        "size": "5",
        "timestamp": str(NANOSECONDS),
        "consistency": "2",
        "usermeta-color": "Red",
    }
    assert head["ContentType"] == "text/html; charset=utf-8"
    assert '"Color":"Red"' in extra
    assert str(source.digest) in extra


async def test_an_object_of_objstore_is_restored(s3: CloudUpstream, boto: Any, prefix: str) -> None:
    metadata = {
        "id": KEY, "name": "test.css", "size": "0", "timestamp": "1503965375000000000",
        "consistency": "0", "usermeta-color": "red", "something": "else",
    }  # fmt: skip
    boto.put_object(
        Bucket=BUCKET,
        Key=f"{prefix}/{KEY}",
        Body=b"hello",
        Metadata=metadata,
        ContentType="text/css",
    )
    found = await s3.stat(KEY)
    assert found == record_of(
        BytesSource(b"hello"),
        bucket="",
        node="",
        digest=None,
        size=5,
        name="test.css",
        timestamp=1503965375000000000,
        metadata={"color": "red"},
        level=UPSTREAM,
        is_upstream=True,
    )


async def test_a_foreign_object_has_the_time_and_type_that_the_service_tells(
    s3: CloudUpstream, boto: Any, prefix: str
) -> None:
    boto.put_object(Bucket=BUCKET, Key=f"{prefix}/a", Body=b"x", ContentType="image/png")
    modified = boto.head_object(Bucket=BUCKET, Key=f"{prefix}/a")["LastModified"]
    found = await s3.stat("a")
    assert found.timestamp == int(modified.timestamp()) * 10**9
    assert found.content_type == "image/png"


async def test_a_server_without_tags_is_never_sent_any(
    s3: CloudUpstream, boto: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        source = BytesSource(b"content %d" % number)
        await s3.upload(record_of(source, metadata={"a": "b"}, key=f"k{number}"), source)
        stored = boto.get_object(Bucket=BUCKET, Key=f"{prefix}/k{number}")
        assert stored["Body"].read() == source.data
    assert str(s3.status()["tags"]).startswith("off: the server knows no tags")
    assert caplog.text.count("No tags are set") == 1


async def test_a_missing_bucket_is_no_missing_object(
    s3_keys: None, s3_server: RcloneServer
) -> None:
    upstream = open_upstream(f"s3://no-such-bucket?endpoint={s3_server.endpoint}")
    source = BytesSource(b"x")
    for request in (
        upstream.check(),
        upstream.stat("a"),
        upstream.upload(record_of(source), source),
    ):
        with pytest.raises(Unavailable, match="bucket does not exist") as caught:
            await request
        assert "URL" in caught.value.hint


async def test_wrong_keys_are_refused_and_never_shown(
    s3_server: RcloneServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-wrong-secret")
    upstream = open_upstream(f"s3://{BUCKET}?endpoint={s3_server.endpoint}")
    source = BytesSource(b"x")
    for request in (
        upstream.check(),
        upstream.stat("a"),
        upstream.upload(record_of(source), source),
    ):
        with pytest.raises(Refused) as caught:
            await request
        assert "very-wrong-secret" not in str(caught.value)
        assert re.search("AWS_SECRET_ACCESS_KEY|rights", caught.value.hint)
    assert "very-wrong-secret" not in str(upstream.status())


async def test_too_much_metadata_for_s3_is_refused(s3: CloudUpstream) -> None:
    source = BytesSource(b"x")
    record = record_of(source, metadata={"a": "é" * 400})
    with pytest.raises(TooLarge, match="2048"):
        await s3.upload(record, source)
    with pytest.raises(NotFound):
        await s3.stat(KEY)


async def test_a_service_that_takes_no_parts_has_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tierce.upstream.cloud.UPSTREAM_WHOLE_BYTES", 1000)
    upstream = open_upstream("memory:///")
    source = BytesSource(body(1001), is_streamed=True)
    with pytest.raises(TooLarge, match="1001 bytes"):
        await upstream.upload(record_of(source), source)


async def test_a_directory_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    root.mkdir()
    upstream = open_upstream(f"fs://{root}")
    root.rmdir()
    source = BytesSource(b"x")
    for request in (
        upstream.check(),
        upstream.stat("a"),
        upstream.upload(record_of(source), source),
    ):
        with pytest.raises(Unavailable, match="is not there"):
            await request
    assert not os.path.exists(root)
    with pytest.raises(BadRequest, match="is not there"):
        open_upstream(f"fs://{root}")


async def test_a_crash_between_content_and_its_sidecar_leaves_no_wrong_metadata(
    tmp_path: Path,
) -> None:
    upstream = open_upstream(f"fs://{tmp_path}")
    first, second = BytesSource(b"first"), BytesSource(b"other")
    await upstream.upload(record_of(first), first)
    sidecar = (tmp_path / f"{KEY}.tierce-meta").read_bytes()
    await upstream.upload(record_of(second, timestamp=NANOSECONDS + 1), second)
    (tmp_path / f"{KEY}.tierce-meta").write_bytes(sidecar)
    found = await upstream.stat(KEY)
    assert (found.digest, found.name, found.size) == (None, "", 5)
