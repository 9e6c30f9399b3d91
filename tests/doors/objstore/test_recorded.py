"""The answers of objstore's README and program, byte for byte."""

import asyncio
import json
import re
from urllib.parse import urlsplit

import pytest
from tests.doors.cask.wire import ask, request
from tests.doors.objstore.near_cache import (
    CONTENT,
    DATE,
    ETAG,
    ID,
    NODE_ID,
    OTHER_ID,
    TIMESTAMP,
    Node,
)
from tests.doors.objstore.wire import EMPTY, NO_PAGE, get, metadata, plain, put

from tierce.blobs.space import Space
from tierce.core import ulids

BAD = "HTTP/1.1 400 Bad Request"
OK = "HTTP/1.1 200 OK"
TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"


async def raw(node: Node, method: str, target: str, *headers: str) -> bytes:
    """All bytes of an answer, but for the date of the day."""
    where = urlsplit(node.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(request(method, target, *headers))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return re.sub(rb"\r\nDate: [^\r]+", b"", answer)


async def test_a_file_that_was_put_is_got_with_its_metadata(node: Node) -> None:
    stored = await put(node, "X-Meta-ConsistencyLevel: 2")
    assert plain(stored) == (OK, None, b"")
    assert stored.headers["content-length"] == "0"
    assert metadata(stored) == {}
    assert await raw(node, "GET", f"/api/v1/get/{ID}") == (
        b"HTTP/1.1 200 OK\r\n"
        b"Accept-Ranges: bytes\r\n"
        b"ETag: " + ETAG.encode() + b"\r\n"
        b"Last-Modified: " + DATE.encode() + b"\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"X-Meta-Consistencylevel: 2\r\n"
        b"X-Meta-Id: " + ID.encode() + b"\r\n"
        b"X-Meta-Name: test.txt\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 9\r\n"
        b"Connection: close\r\n\r\n"
        b"It works!"
    )


async def test_head_is_get_without_the_body(node: Node) -> None:
    await put(node)
    got, head = await get(node), await get(node, method="HEAD")
    assert head.body == b""
    assert (head.line, head.headers) == (got.line, got.headers)


async def test_the_file_of_a_lost_state_comes_back_only_with_the_fetch_flag(node: Node) -> None:
    await put(node, "X-Meta-ConsistencyLevel: 2")
    node.cache.records.clear()
    assert plain(await get(node)) == EMPTY
    node.cache.now = TIMESTAMP + 2262 * 10**9
    for flag in ("0", "yes", "false", "11"):
        assert plain(await get(node, f"X-Meta-Fetch: {flag}")) == EMPTY
    fetched = await get(node, "X-Meta-Fetch: 1")
    assert plain(fetched) == (OK, TEXT, CONTENT)
    assert fetched.headers["last-modified"] == "Tue, 29 Aug 2017 00:49:17 GMT"
    assert metadata(fetched) == {
        "x-meta-consistencylevel": "2",
        "x-meta-fetched": "true",
        "x-meta-id": ID,
        "x-meta-name": "test.txt",
    }


@pytest.mark.parametrize("flag", ["1", "true", "True", "TRUE"])
async def test_the_fetch_flag_may_be_written_in_any_case(node: Node, flag: str) -> None:
    await put(node, "X-Meta-ConsistencyLevel: 1")
    node.cache.records.clear()
    assert (await get(node, f"x-meta-fetch: {flag}")).headers["x-meta-fetched"] == "true"
    assert "x-meta-fetched" not in (await get(node)).headers


async def test_a_file_of_another_node_is_marked(node: Node) -> None:
    await put(node)
    node.cache.elsewhere.add(ID)
    assert (await get(node)).headers["x-meta-symlink"] == "true"


@pytest.mark.parametrize("name", ["meta", "get"])
async def test_an_unknown_id_is_404_without_a_body(node: Node, name: str) -> None:
    answer = await ask(node.url, "GET", f"/api/v1/{name}/{ID}")
    assert plain(answer) == EMPTY
    assert answer.headers["content-length"] == "0"
    assert metadata(answer) == {}


async def test_deleting_tells_what_was_deleted_and_may_be_repeated(node: Node) -> None:
    await put(node, "X-Meta-ConsistencyLevel: 2", 'X-Meta-UserMeta: {"a":"b"}')
    for _ in range(2):
        answer = await ask(node.url, "POST", f"/api/v1/delete/{ID}")
        assert plain(answer) == (OK, None, b"")
        assert metadata(answer) == {
            "x-meta-consistencylevel": "2",
            "x-meta-deleted": "true",
            "x-meta-id": ID,
            "x-meta-name": "test.txt",
            "x-meta-usermeta": '{"a":"b"}',
        }
    assert plain(await ask(node.url, "POST", f"/api/v1/delete/{OTHER_ID}")) == EMPTY


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_deleted_file_is_404_with_its_metadata(node: Node, method: str) -> None:
    await put(node)
    await ask(node.url, "POST", f"/api/v1/delete/{ID}")
    answer = await get(node, method=method)
    assert plain(answer) == EMPTY
    assert metadata(answer) == {
        "x-meta-consistencylevel": "0",
        "x-meta-deleted": "true",
        "x-meta-id": ID,
        "x-meta-name": "test.txt",
    }


async def test_metadata_is_told_as_json_in_objstores_order(node: Node) -> None:
    await put(node, "X-Meta-ConsistencyLevel: 2")
    answer = await ask(node.url, "GET", f"/api/v1/meta/{ID}")
    assert plain(answer) == (
        OK,
        JSON,
        b'{"id":"01BRNMMS1DK3CBD4ZZM2TQ8C5B","name":"test.txt","size":9,'
        b'"timestamp":1503965495000000000,"user_meta":null,"is_symlink":false,"consistency":2,'
        b'"is_deleted":false,"is_fetched":false}',
    )


async def test_the_metadata_of_a_tombstone_is_told_too(node: Node) -> None:
    await put(node, 'X-Meta-UserMeta: {"b":"<&>","a":"é"}')
    node.cache.elsewhere.add(ID)
    node.cache.now += 5
    await ask(node.url, "POST", f"/api/v1/delete/{ID}")
    answer = await ask(node.url, "GET", f"/api/v1/meta/{ID}")
    assert answer.status == 200
    assert '"user_meta":{"a":"é","b":"\\u003c\\u0026\\u003e"}' in answer.body.decode()
    told = json.loads(answer.body)
    assert told["is_deleted"] is True
    assert told["is_symlink"] is True
    assert told["timestamp"] == TIMESTAMP + 5


async def test_an_id_is_a_new_ulid_each_time(node: Node) -> None:
    answers = [await ask(node.url, "GET", "/api/v1/id") for _ in range(5)]
    assert {each.line for each in answers} == {OK}
    assert {each.headers["content-type"] for each in answers} == {TEXT}
    found = [each.body.decode() for each in answers]
    assert [ulids.parse(each) for each in found] == found
    assert len(set(found)) == 5


async def test_ping_tells_the_node_and_version_the_program(node: Node) -> None:
    assert plain(await ask(node.url, "GET", "/api/v1/ping")) == (OK, TEXT, NODE_ID.encode())
    assert plain(await ask(node.url, "GET", "/api/v1/version")) == (OK, TEXT, b"0.1.0")


async def test_stats_are_those_of_the_file_system(node: Node) -> None:
    node.reporter.space = Space(3 << 30, (1 << 30) + 512, 0)
    assert plain(await ask(node.url, "GET", "/api/v1/stats")) == (
        OK,
        JSON,
        b'{"disk_stats":{"bytes_all":3221225472,"bytes_used":2147483136,"bytes_free":1073742336,'
        b'"kb_all":3145728,"kb_used":2097151.5,"kb_free":1048576.5,'
        b'"mb_all":3072,"mb_used":2047.99951171875,"mb_free":1024.00048828125,'
        b'"gb_all":3,"gb_used":1.9999995231628418,"gb_free":1.0000004768371582}}',
    )
    node.reporter.space = None
    answer = await ask(node.url, "GET", "/api/v1/stats")
    assert plain(answer) == (OK, JSON, b'{"disk_stats":null}')


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ((), b"error: ID not specified, use /id to get one"),
        (("X-Meta-ID:",), b"error: ID not specified, use /id to get one"),
        (("X-Meta-ID: nope",), b"error: objstore: not a valid ULID: nope"),
        (
            (f"X-Meta-ID: {ID}", "X-Meta-ConsistencyLevel: 3"),
            b"error: objstore: invalid consistency level",
        ),
        (
            (f"X-Meta-ID: {ID}", "X-Meta-ConsistencyLevel: full"),
            b"error: objstore: invalid consistency level",
        ),
    ],
)
async def test_a_wrong_put_is_told_in_objstores_words(
    node: Node, headers: tuple[str, ...], text: bytes
) -> None:
    answer = await ask(node.url, "POST", "/api/v1/put", *headers, body=b"x")
    assert plain(answer) == (BAD, TEXT, text)
    assert node.cache.records == {}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/api/v1"),
        ("GET", "/api/v1/get"),
        ("GET", "/api/v1/get/"),
        ("GET", f"/api/v1/get/{ID}/more"),
        ("GET", "/api/v1/put"),
        ("POST", "/api/v1/id"),
        ("PUT", "/api/v1/put"),
        ("DELETE", f"/api/v1/get/{ID}"),
        ("GET", f"/api/v1/delete/{ID}"),
        ("OPTIONS", "/api/v1/id"),
        ("POST", "/api/v1/id/"),
        ("GET", "/private/v1/ping"),
        ("GET", "/API/v1/id"),
    ],
)
async def test_other_paths_and_methods_are_not_found(node: Node, method: str, target: str) -> None:
    answer = await ask(node.url, method, target)
    assert plain(answer) == NO_PAGE
    assert "allow" not in answer.headers


@pytest.mark.parametrize(
    ("method", "target", "status", "location"),
    [
        ("GET", "/api/v1/id/", 301, "/api/v1/id"),
        ("GET", f"/api/v1/get/{ID}/?a=b/", 301, f"/api/v1/get/{ID}?a=b/"),
        ("POST", "/api/v1/put/", 307, "/api/v1/put"),
        ("POST", f"/api/v1/delete/{ID}/", 307, f"/api/v1/delete/{ID}"),
        ("GET", "/api/v1/get/%2e%2e%0d%0aX-Evil:%201/", 301, "/api/v1/get/%2e%2e%0d%0aX-Evil:%201"),
    ],
)
async def test_an_end_slash_too_many_leads_on(
    node: Node, method: str, target: str, status: int, location: str
) -> None:
    answer = await ask(node.url, method, target)
    assert (answer.status, answer.headers["location"]) == (status, location)
    assert "x-evil" not in answer.headers
