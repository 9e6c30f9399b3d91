"""Ranges, conditions and types of what is got."""

import msgspec
import pytest
from tests.doors.objstore.near_cache import CONTENT, DATE, ETAG, ID, Node
from tests.doors.objstore.wire import EMPTY, get, metadata, plain, put

LATER = "Tue, 29 Aug 2017 00:11:36 GMT"
EARLIER = "Tue, 29 Aug 2017 00:11:34 GMT"


@pytest.fixture(params=[False, True], ids=["in memory", "streamed"])
async def stored(node: Node, request: pytest.FixtureRequest) -> Node:
    node.cache.streamed = request.param
    await put(node)
    return node


@pytest.mark.parametrize(
    ("asked", "body", "told"),
    [
        ("bytes=3-7", b"works", "bytes 3-7/9"),
        ("bytes=-6", b"works!", "bytes 3-8/9"),
        ("bytes=3-", b"works!", "bytes 3-8/9"),
        ("bytes=0-99", CONTENT, "bytes 0-8/9"),
    ],
)
async def test_a_range_is_a_part_with_its_metadata(
    stored: Node, asked: str, body: bytes, told: str
) -> None:
    answer = await get(stored, f"Range: {asked}")
    assert (answer.status, answer.body, answer.headers["content-range"]) == (206, body, told)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert metadata(answer)["x-meta-id"] == ID


async def test_several_ranges_are_a_multipart_answer(stored: Node) -> None:
    answer = await get(stored, "Range: bytes=0-1,3-4")
    assert answer.status == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert b"Content-Range: bytes 0-1/9\r\n\r\nIt\r\n" in answer.body
    assert b"Content-Range: bytes 3-4/9\r\n\r\nwo\r\n" in answer.body
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_a_range_beyond_the_end_is_416(stored: Node) -> None:
    answer = await get(stored, "Range: bytes=9-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */9")
    assert answer.body.startswith(b"error: ")


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), (DATE, 200)],
)
async def test_if_range_counts_by_the_tag(stored: Node, condition: str, status: int) -> None:
    answer = await get(stored, "Range: bytes=0-1", f"If-Range: {condition}")
    assert answer.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((f"If-Modified-Since: {DATE}",), 304),
        ((f"If-Modified-Since: {LATER}",), 304),
        ((f"If-Modified-Since: {EARLIER}",), 200),
        (("If-Modified-Since: yesterday",), 200),
        (("If-Modified-Since: Tue, 29 Aug 99999999999 00:11:35 GMT",), 200),
        (("If-Modified-Since: Tue, 99 Aug 2017 00:11:35 GMT",), 200),
        ((f"If-None-Match: {ETAG}",), 304),
        ((f"If-None-Match: W/{ETAG}",), 304),
        (('If-None-Match: "other"',), 200),
        (('If-None-Match: "other"', f"If-Modified-Since: {DATE}"), 200),
        ((f"If-None-Match: {ETAG}", f"If-Modified-Since: {EARLIER}"), 304),
        ((f"If-Match: {ETAG}",), 200),
        (('If-Match: "other"',), 412),
        ((f"If-Unmodified-Since: {DATE}",), 200),
        ((f"If-Unmodified-Since: {EARLIER}",), 412),
        ((f"If-Match: {ETAG}", f"If-Unmodified-Since: {EARLIER}"), 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_conditions(stored: Node, method: str, headers: tuple[str, ...], status: int) -> None:
    answer = await get(stored, *headers, method=method)
    assert answer.status == status
    if status == 304:
        assert answer.body == b""
        assert answer.headers["etag"] == ETAG
        assert answer.headers["last-modified"] == DATE


async def test_the_date_is_that_of_the_content(stored: Node) -> None:
    record = stored.cache.records[ID]
    raised = msgspec.structs.replace(
        record, level=2, timestamp=record.timestamp + 10**12, modified=record.timestamp
    )
    stored.cache.records[ID] = raised
    assert (await get(stored)).headers["last-modified"] == DATE


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", b"{}", "application/json"),
        ("A.PNG", b"text", "image/png"),
        ("a.b.tar.gz", b"text", "application/gzip"),
        ("", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("README", b"plain", "text/plain; charset=utf-8"),
        ("what.everythere", b"\0", "application/octet-stream"),
        ("", b"", "text/plain; charset=utf-8"),
        ("", b"x" * 3000, "text/plain; charset=utf-8"),
        ("", b"x" * 513 + b"\0" * 3000, "text/plain; charset=utf-8"),
    ],
)
async def test_the_type_is_that_of_the_name_or_the_content(
    stored: Node, name: str, content: bytes, kind: str
) -> None:
    await put(stored, name=name, body=content)
    for method in ("GET", "HEAD"):
        answer = await get(stored, method=method)
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-length"] == str(len(content))
    assert (await get(stored)).body == content


@pytest.mark.parametrize("name", ["a.txt", "unknown"])
async def test_a_bad_copy_is_not_served(node: Node, name: str) -> None:
    node.cache.streamed, node.cache.bad_at = True, 0
    await put(node, name=name)
    assert plain(await get(node)) == EMPTY
    assert node.cache.lasting == 0


async def test_a_copy_that_is_bad_midway_is_broken_off(node: Node) -> None:
    node.cache.streamed, node.cache.bad_at = True, 5000
    await put(node, body=b"x" * 10_000)
    try:
        body = (await get(node)).body
    except ConnectionError:
        body = b""
    assert len(body) < 10_000
