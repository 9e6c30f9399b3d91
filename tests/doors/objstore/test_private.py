"""objstore's private API, unsigned on the address for debugging, and behind the signature."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.doors.cask.wire import RawAnswer, ask
from tests.doors.objstore.near_cache import (
    CONTENT,
    ID,
    NODE_ID,
    OTHER_ID,
    TIMESTAMP,
    FakeCache,
    Node,
    listening,
)
from tests.doors.objstore.wire import EMPTY, NO_PAGE, metadata, plain

from tierce.cluster import signing
from tierce.cluster.signing import HEADER, NO_BODY, Signed, Verifier, digest_of, is_answer_signed
from tierce.core.digest import Digest
from tierce.core.rights import ALL_RIGHTS, Right
from tierce.doors.objstore import private
from tierce.doors.objstore.private import NodeInfo, PrivateApi, debug_door, private_routes
from tierce.doors.private.errors import render_error
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Router
from tierce.names.record import Record
from tierce.service.access import Access

SECRET = "not-a-real-secret"
NOW = 1_700_000_000.0
BAD = ("HTTP/1.1 400 Bad Request", None, b"")
JSON = "application/json; charset=utf-8"


@asynccontextmanager
async def debugged(rights: frozenset[Right] = ALL_RIGHTS) -> AsyncIterator[Node]:
    node = Node()
    api = PrivateApi(node.cache, node.cache, NODE_ID)
    door = debug_door(api, Access((), rights), log_requests=False)
    async with listening(door) as node.url:
        yield node
    assert node.cache.lasting == 0


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with debugged() as running:
        yield running


@pytest.fixture
async def guarded() -> AsyncIterator[Node]:
    """A door with the routes behind the signature, as the private door has them."""
    node = Node()
    api = PrivateApi(node.cache, node.cache, NODE_ID)
    routes = private_routes(api, Verifier(SECRET), wall_clock=lambda: NOW)
    async with listening(Door("private", Router(routes), render_error)) as node.url:
        yield node
    assert node.cache.lasting == 0


def add(cache: FakeCache, key: str, timestamp: int, **more: Any) -> Record:
    content = key.encode()
    digest = None if more.get("deleted") else Digest.of(content, "blake3")
    record = Record(bucket="objstore", key=key, timestamp=timestamp, digest=digest, level=1, **more)
    cache.records[key], cache.contents[key] = record, content
    return record


def meta(key: str, timestamp: int, **more: Any) -> dict[str, Any]:
    return {
        "id": key, "name": "", "size": 0, "timestamp": timestamp, "user_meta": None,
        "is_symlink": False, "consistency": 1, "is_deleted": False, "is_fetched": False, **more,
    }  # fmt: skip


async def call(node: Node, method: str, name: str, *headers: str, body: bytes = b"") -> RawAnswer:
    return await ask(node.url, method, f"/private/v1/{name}", *headers, body=body)


async def sync(node: Node, sent: object) -> dict[str, Any]:
    answer = await call(node, "POST", "sync", body=json.dumps(sent).encode())
    assert answer.status == 200
    told: dict[str, Any] = json.loads(answer.body)
    return told


async def test_ping_tells_the_node(node: Node) -> None:
    answer = await call(node, "GET", "ping")
    assert plain(answer) == ("HTTP/1.1 200 OK", "text/plain; charset=utf-8", NODE_ID.encode())


async def test_nodes_are_told_as_json(node: Node) -> None:
    assert plain(await call(node, "GET", "nodes")) == ("HTTP/1.1 200 OK", JSON, b"null")
    node.cache.cluster = [NodeInfo(NODE_ID, "10.0.0.5", "10.0.0.5:11999")]
    assert (await call(node, "GET", "nodes")).body == (
        b'[{"id":"%b","addr":"10.0.0.5","vaddr":"10.0.0.5:11999"}]' % NODE_ID.encode()
    )


@pytest.mark.parametrize("sent", [b"[]", b"null"])
async def test_two_empty_lists_have_no_difference(node: Node, sent: bytes) -> None:
    answer = await call(node, "POST", "sync", body=sent)
    assert plain(answer) == (
        "HTTP/1.1 200 OK",
        JSON,
        b'{"list_added":null,"list_deleted":null}',
    )


async def test_sync_tells_what_each_side_lacks(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "SYNC_PAGE_RECORDS", 2)
    keys = [f"01BRNMMS1DK3CBD4ZZM2TQ8C5{end}" for end in "0123456"]
    for key, timestamp in zip(keys[:5], (10, 20, 30, 40, 50), strict=True):
        add(node.cache, key, timestamp, deleted=key == keys[3])
    node.cache.elsewhere.add(keys[0])
    before = dict(node.cache.records)
    sent = [
        meta(keys[6], 5, is_deleted=True, user_meta={"a": "<"}),  # unknown here
        meta(keys[5], 5),
        meta(keys[1], 20),  # the same
        meta(keys[2], 31),  # newer there
        meta(keys[3], 39),  # deleted here since
    ]
    told = await sync(node, sent)
    assert told["list_added"] == [
        meta(keys[0], 10, is_symlink=True),
        meta(keys[3], 40, is_deleted=True),
        meta(keys[4], 50),
    ]
    assert told["list_deleted"] == [sent[3], sent[1], sent[0]]
    assert node.cache.records == before


async def test_lists_that_differ_too_much_are_refused(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "SYNC_LIMIT_RECORDS", 1)
    add(node.cache, ID, 1)
    assert (await call(node, "POST", "sync", body=b"[]")).status == 200
    add(node.cache, OTHER_ID, 1)
    assert (await call(node, "POST", "sync", body=b"[]")).status == 413


@pytest.mark.parametrize("name", ["sync", "announce"])
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"[" * 50_000, b"\xff"])
async def test_what_is_not_json_is_400_without_a_body(node: Node, name: str, body: bytes) -> None:
    assert plain(await call(node, "POST", name, body=body)) == BAD


@pytest.mark.parametrize("kind", [1, 2])
async def test_an_announced_file_is_a_hint(node: Node, kind: int) -> None:
    event = {"type": kind, "meta": meta(ID, 5), "data": None}
    answer = await call(node, "POST", "announce", body=json.dumps(event).encode())
    assert plain(answer) == ("HTTP/1.1 200 OK", None, b"")
    assert [(each.id, each.timestamp) for each in node.cache.metas] == [(ID, 5)]
    assert node.cache.records == {}


@pytest.mark.parametrize("kind", [0, 4, 999])
async def test_other_events_are_dropped(node: Node, kind: int) -> None:
    event = {"type": kind, "meta": meta(ID, 5), "data": None}
    answer = await call(node, "POST", "announce", body=json.dumps(event).encode())
    assert answer.status == 200
    assert node.cache.metas == []


async def test_messages_are_logged_escaped_and_passed_on(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = b"hello\r\nfake: line\xff"
    event = {"type": 3, "data": base64.b64encode(text).decode()}
    assert (await call(node, "POST", "announce", body=json.dumps(event).encode())).status == 200
    assert node.cache.messages == []
    assert (await call(node, "POST", "message", body=text + b"x" * 9000)).status == 200
    assert node.cache.messages == [(text + b"x" * 9000)[:8192]]
    logged = [each.getMessage() for each in caplog.records if "hello" in each.getMessage()]
    assert len(logged) == 2
    assert not any("\n" in each for each in logged)


async def test_a_file_is_put_got_and_deleted(node: Node) -> None:
    headers = (f"X-Meta-ID: {ID}", "X-Meta-Name: a.txt", "X-Meta-ConsistencyLevel: 2")
    assert plain(await call(node, "POST", "put", *headers, body=CONTENT)) == (
        "HTTP/1.1 200 OK",
        None,
        b"",
    )
    got = await call(node, "GET", f"get/{ID}")
    assert (got.body, metadata(got)["x-meta-id"]) == (CONTENT, ID)
    assert (await call(node, "GET", f"get/{ID}", "Range: bytes=0-1")).body == CONTENT[:2]
    deleted = await call(node, "POST", f"delete/{ID}")
    assert metadata(deleted)["x-meta-deleted"] == "true"
    answer = await call(node, "GET", f"get/{ID}")
    assert plain(answer) == EMPTY
    assert metadata(answer) == {}


async def test_only_local_files_are_got(node: Node) -> None:
    add(node.cache, ID, TIMESTAMP)
    node.cache.elsewhere.add(ID)
    for each in (ID, OTHER_ID, "nope", "..%2Fx"):
        answer = await call(node, "GET", f"get/{each}")
        assert answer.status == 404
        assert metadata(answer) == {}


async def test_errors_are_those_of_the_public_door(node: Node) -> None:
    assert (await call(node, "POST", "put")).body == (
        b"error: ID not specified, use /id to get one"
    )
    assert plain(await call(node, "GET", "sync")) == NO_PAGE
    assert (await call(node, "GET", "ping/")).status == 301


@pytest.mark.parametrize(
    ("method", "name"),
    [("GET", "nodes"), ("GET", f"get/{ID}"), ("POST", "sync"), ("POST", "announce"),
     ("POST", "message"), ("POST", "put"), ("POST", f"delete/{ID}")],
)  # fmt: skip
async def test_without_signatures_callers_need_rights(method: str, name: str) -> None:
    async with debugged(frozenset()) as node:
        node.cache.refusal = AssertionError("the cache was asked")
        assert (await call(node, method, name)).status == 401
        assert (await call(node, "GET", "ping")).status == 200


# Behind the signature


def signature(method: str, name: str, body: bytes | None, nonce: str = "1f" * 8) -> Signed:
    digest = NO_BODY if body is None else digest_of(body)
    time_ms = int(NOW * 1000)
    mac = signing.sign(SECRET, method, f"/private/v1/{name}", time_ms, nonce, digest)
    return Signed(time_ms, nonce, digest, mac)


async def signed_call(
    node: Node, method: str, name: str, *headers: str, body: bytes = b"", nonce: str = "1f" * 8
) -> RawAnswer:
    """A call whose answer's signature is looked at too."""
    given = signature(method, name, body if method == "POST" else None, nonce)
    answer = await call(node, method, name, f"{HEADER}: {given}", *headers, body=body)
    mac = answer.headers[HEADER.lower()]
    assert is_answer_signed(SECRET, mac, nonce, answer.status, digest_of(answer.body))
    return answer


@pytest.mark.parametrize("value", [None, "v1 nonsense", "wrong secret"])
async def test_without_a_right_signature_nothing_is_done(guarded: Node, value: str | None) -> None:
    guarded.cache.refusal = AssertionError("the cache was asked")
    if value == "wrong secret":
        value = str(signature("GET", "ping", None)._replace(mac="0" * 64))
    headers = [f"{HEADER}: {value}"] * (value is not None)
    for method, name in (("GET", "ping"), ("POST", "put"), ("POST", "sync"), ("GET", f"get/{ID}")):
        answer = await call(guarded, method, name, *headers)
        assert answer.status in (400, 403)
        assert NODE_ID.encode() not in answer.body


async def test_a_signed_request_has_a_signed_answer(guarded: Node) -> None:
    answer = await signed_call(guarded, "GET", "ping")
    assert answer.body == NODE_ID.encode()
    put = (f"X-Meta-ID: {ID}",)
    assert (
        await signed_call(guarded, "POST", "put", *put, body=CONTENT, nonce="2a" * 8)
    ).status == 200
    got = await signed_call(guarded, "GET", f"get/{ID}", nonce="3b" * 8)
    assert (got.status, got.body) == (200, CONTENT)
    refused = await signed_call(guarded, "GET", f"get/{OTHER_ID}", nonce="4c" * 8)
    assert plain(refused) == EMPTY
    refused = await signed_call(guarded, "POST", "put", body=CONTENT, nonce="5d" * 8)
    assert refused.body == b"error: ID not specified, use /id to get one"


async def test_a_request_is_taken_once(guarded: Node) -> None:
    await signed_call(guarded, "GET", "ping")
    given = signature("GET", "ping", None)
    assert (await call(guarded, "GET", "ping", f"{HEADER}: {given}")).status == 403


@pytest.mark.parametrize("name", ["put", "sync", "message", "announce"])
async def test_a_body_that_was_not_signed_changes_nothing(guarded: Node, name: str) -> None:
    given = signature("POST", name, b"another body")
    headers = (f"{HEADER}: {given}", f"X-Meta-ID: {ID}")
    answer = await call(guarded, "POST", name, *headers, body=b'{"type":1,"meta":{}}')
    assert answer.status == 403
    assert b"the body is not the one that was signed" in answer.body
    assert guarded.cache.records == {}
    assert guarded.cache.messages == []
    assert guarded.cache.metas == []
