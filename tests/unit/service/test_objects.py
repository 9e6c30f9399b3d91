"""Named objects as doors see them: what is refused and when, pages, buckets, the feed of changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.fakes import member
from tests.unit.node.object_bench import Bench, content_of, now, on_bench
from tests.unit.node.record_nodes import passes

from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    DigestMismatch,
    NotFound,
    ReadOnly,
    TierceError,
    TooLarge,
)
from tierce.core.limits import (
    BLOB_LIMIT_BYTES,
    CONTENT_TYPE_BYTES,
    METADATA_BYTES,
    METADATA_ENTRIES_COUNT,
    OBJECT_KEY_BYTES,
)
from tierce.names.record import NEAR_CACHE_BUCKET, Record
from tierce.service.blobs import Blobs
from tierce.service.objects import Objects, check_bucket, check_key, check_metadata


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


class Service:
    """The objects of a node that is alone."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.blobs = Blobs(
            bench.store,
            bench.spools,
            bench.room,
            bench.blobs,
            is_named=lambda digest: bool(bench.index.refers(digest)),
        )
        self.objects = Objects(self.blobs, bench.index, bench.objects)

    async def put(self, key: str, *data: bytes, bucket: str = "bucket", **more: Any) -> Record:
        draft = Record(bucket=bucket, key=key)
        return await self.objects.put(draft, pieces(*data), **more)


def on_service(directory: Path, test: Callable[[Service], Awaitable[None]]) -> None:
    async def check(bench: Bench) -> None:
        await test(Service(bench))

    on_bench(directory, check, [member("a", replication=1)])


def test_what_was_put_is_found_opened_and_deleted(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        put = await service.put("key", b"da", b"ta", expected=[Digest.of(b"data")])
        assert (put.digest, put.size, put.deleted) == (Digest.of(b"data"), 4, False)
        assert service.objects.find("bucket", "key") == put
        assert await content_of(await service.objects.open(put)) == b"data"
        gone = await service.objects.delete("bucket", "key")
        assert gone.deleted
        for key in ("key", "other"):
            with pytest.raises(NotFound):
                service.objects.find("bucket", key)
        with pytest.raises(NotFound):
            await service.objects.delete("bucket", "key")

    on_service(tmp_path, check)


def test_a_check_is_asked_before_the_body_comes_and_again_when_it_is_there(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        seen: list[Record | None] = []
        read: list[int] = []

        def absent(known: Record | None) -> None:
            seen.append(known)
            if known is not None:
                raise Conflict("it is there")

        async def body() -> AsyncIterator[bytes]:
            read.append(len(seen))
            yield b"data"

        draft = Record(bucket="bucket", key="key")
        put = await service.objects.put(draft, body(), check=absent)
        assert (seen, read) == ([None, None], [1])
        with pytest.raises(Conflict):
            await service.objects.put(draft, body(), check=absent)
        assert read == [1]
        assert service.objects.find("bucket", "key") == put

    on_service(tmp_path, check)


def test_of_two_puts_that_must_be_the_first_one_is(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        def absent(known: Record | None) -> None:
            if known is not None:
                raise Conflict("it is there")

        async def slowly(data: bytes) -> AsyncIterator[bytes]:
            await passes(1)
            yield data

        draft = Record(bucket="bucket", key="key")
        found = await asyncio.gather(
            *(service.objects.put(draft, slowly(each), check=absent) for each in (b"1", b"2")),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in found) == ["Conflict", "Record"]

    on_service(tmp_path, check)


def test_a_check_that_is_not_early_is_asked_only_when_the_body_is_there(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        asked: list[bool] = []
        read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal read
            yield b"data"
            read = True

        draft = Record(bucket="bucket", key="key")
        await service.objects.put(draft, body(), check=lambda _: asked.append(read), early=False)
        assert asked == [True]

    on_service(tmp_path, check)


def test_a_delete_with_a_check_sees_the_record_in_force(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        put = await service.put("key", b"data")
        seen: list[Record | None] = []

        def refuse(known: Record | None) -> None:
            seen.append(known)
            raise Conflict("no")

        with pytest.raises(Conflict):
            await service.objects.delete("bucket", "key", check=refuse)
        assert seen == [put]
        assert service.objects.find("bucket", "key") == put

    on_service(tmp_path, check)


async def _broken() -> AsyncIterator[bytes]:
    yield b"da"
    raise BadRequest("the body broke off")


@pytest.mark.parametrize(
    ("key", "body", "more", "error"),
    [
        ("key", pieces(b"data"), {"expected": [Digest.of(b"other")]}, DigestMismatch),
        ("key", pieces(b"data"), {"announced_bytes": BLOB_LIMIT_BYTES + 1}, TooLarge),
        ("", pieces(b"data"), {}, BadRequest),
        ("key", _broken(), {}, BadRequest),
    ],
    ids=["digest", "size", "key", "body"],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path,
    key: str,
    body: AsyncIterator[bytes],
    more: dict[str, Any],
    error: type[TierceError],
) -> None:
    async def check(service: Service) -> None:
        with pytest.raises(error):
            await service.objects.put(Record(bucket="bucket", key=key), body, **more)
        assert service.bench.index.last_seq() == 0
        assert service.bench.store.blobs == {}

    on_service(tmp_path, check)


def test_a_read_only_node_takes_none(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        service.bench.room._read_only = True
        with pytest.raises(ReadOnly):
            await service.put("key", b"data")

    on_service(tmp_path, check)


def test_the_content_of_an_object_can_not_be_deleted_as_a_blob(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        put = await service.put("key", b"data")
        with pytest.raises(Conflict):
            await service.blobs.delete(put.content)
        assert await content_of(await service.objects.open(put)) == b"data"
        await service.objects.delete("bucket", "key")
        assert await service.blobs.delete(put.content)

    on_service(tmp_path, check)


GOOD_BUCKETS = ["abc", "a-b", "a.b", "0" * 63, "objstore"]
BAD_BUCKETS = ["", "ab", "a" * 64, "-ab", "ab-", "a..b", "Abc", "a_b", "a/b", "abc\n", "äbc", "a b"]


@pytest.mark.parametrize("bucket", GOOD_BUCKETS)
def test_good_buckets(bucket: str) -> None:
    check_bucket(bucket)


@pytest.mark.parametrize("bucket", BAD_BUCKETS)
def test_bad_buckets(bucket: str) -> None:
    with pytest.raises(BadRequest):
        check_bucket(bucket)


def test_the_near_caches_bucket_is_read_only_here() -> None:
    with pytest.raises(BadRequest):
        check_bucket(NEAR_CACHE_BUCKET, writing=True)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", BadRequest),
        ("a\0b", BadRequest),
        ("\udcff", BadRequest),
        ("a" * (OBJECT_KEY_BYTES + 1), TooLarge),
        ("é" * (OBJECT_KEY_BYTES // 2) + "a", TooLarge),
    ],
    ids=["empty", "zero", "no UTF-8", "long", "long in bytes"],
)
def test_bad_keys(key: str, error: type[TierceError]) -> None:
    with pytest.raises(error):
        check_key(key)
    check_key("é" * (OBJECT_KEY_BYTES // 2))


def entries(count: int) -> dict[str, str]:
    return {str(number): "" for number in range(count)}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"metadata": {"k": "v" * METADATA_BYTES}}, TooLarge),
        ({"metadata": entries(METADATA_ENTRIES_COUNT + 1)}, TooLarge),
        ({"content_type": "t" * (CONTENT_TYPE_BYTES + 1)}, TooLarge),
        ({"name": "é" * (CONTENT_TYPE_BYTES // 2 + 1)}, TooLarge),
        ({"metadata": {"k": "\udcff"}}, BadRequest),
        ({"metadata": {"\udcff": "v"}}, BadRequest),
        ({"content_type": "\udcff"}, BadRequest),
        ({"name": "\udcff"}, BadRequest),
    ],
    ids=["metadata", "entries", "type", "name", "value", "key", "type no UTF-8", "name no UTF-8"],
)
def test_bad_metadata(fields: dict[str, Any], error: type[TierceError]) -> None:
    with pytest.raises(error):
        check_metadata(Record(bucket="bucket", key="key", **fields))
    check_metadata(Record(bucket="bucket", key="key", metadata={"k": "v" * (METADATA_BYTES - 1)}))
    check_metadata(Record(bucket="bucket", key="key", metadata=entries(METADATA_ENTRIES_COUNT)))


# Lists and changes


def test_buckets_are_those_with_objects(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        for bucket in ("bbb", "aaa", "ccc"):
            for key in ("1", "2", "\U0010ffff" * 9):
                await service.put(key, b"data", bucket=bucket)
        await service.put("only", b"data", bucket="empty")
        await service.objects.delete("empty", "only")
        assert await service.objects.buckets() == ["aaa", "bbb", "ccc"]

    on_service(tmp_path, check)


def test_changes_are_read_on_from_where_the_last_page_ended(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        for number in range(5):
            await service.put(f"key {number}", b"data")
        seen = []
        since = ""
        while (page := await service.objects.changes(since, 2, 0)).changes:
            seen += [change.record.key for change in page.changes]
            since = page.next
        assert seen == [f"key {number}" for number in range(5)]
        assert page.next == since

    on_service(tmp_path, check)


def test_whoever_waits_for_changes_hears_at_once_or_after_the_time(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        since = (await service.objects.changes("", 10, 0)).next
        waiting = asyncio.create_task(service.objects.changes(since, 10, 30.0))
        await passes(10)
        put = await service.put("key", b"data")
        page = await waiting
        assert [change.record for change in page.changes] == [put]
        assert 10 <= now() < 11
        assert (await service.objects.changes(page.next, 10, 5.0)).changes == []
        assert 15 <= now() < 16

    on_service(tmp_path, check)


def test_a_position_of_another_history_is_told_from_one_that_is_over(tmp_path: Path) -> None:
    async def check(service: Service) -> None:
        await service.put("key", b"data")
        since = (await service.objects.changes("", 10, 0)).next
        await service.bench.index.begin_epoch("second")
        await service.put("other", b"data")
        page = await service.objects.changes(since, 10, 0)
        assert [change.record.key for change in page.changes] == ["other"]
        for wrong in ("unknown-1", "first-2", "second-3"):
            with pytest.raises(Conflict):
                await service.objects.changes(wrong, 10, 0)
        with pytest.raises(BadRequest):
            await service.objects.changes("nonsense", 10, 0)

    on_service(tmp_path, check)
