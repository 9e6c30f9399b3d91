"""Uploads that are large, slow, cut off, refused or malformed, and who may send them."""

import asyncio
import hashlib
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from tests.doors.cask.wire import (
    BOUNDARY,
    FORM,
    HELLO,
    HELLO_KEY,
    KNOCK,
    SECRET,
    ask,
    failure,
    form,
    post,
    request,
    success,
    talk,
)

from tierce.blobs import spool
from tierce.core.errors import Corrupt, Full
from tierce.core.rights import Right, Token
from tierce.testing.serving import Served, serving

UNAVAILABLE = "HTTP/1.1 503 Service Unavailable"
EXPECT = "Expect: 100-continue"
CHUNKED = "Transfer-Encoding: chunked"
MIB = 1 << 20


def key_of(content: bytes) -> str:
    return f"sha1:{hashlib.sha1(content).hexdigest()}"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def files(node: Served) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{node.cask}/status/") as answer:
        return int((await answer.json())["files"])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_large_upload_is_streamed(node: Served) -> None:
    """40 MiB come in, and neither they nor a large part of them are ever held in memory."""
    piece = random.Random(1).randbytes(MIB)
    content = piece * 40
    head, _, tail = form(b"CONTENT").partition(b"CONTENT")
    spools = node.data / "tmp"
    tracemalloc.start()
    try:
        async with talk(node.cask) as connection:
            await connection.send(request("POST", "/", FORM, CHUNKED) + chunk(head))
            for count in range(40):
                await connection.send(chunk(piece))
                if count == 20:
                    await until(lambda: any(f.stat().st_size > 8 * MIB for f in spools.iterdir()))
            await connection.send(chunk(tail) + chunk(b""))
            answer = await connection.answer()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.body == success(key_of(content))
    assert peak < 12 * MIB
    answer = await ask(node.cask, "GET", f"/file/{key_of(content)}/")
    assert answer.headers["content-length"] == str(40 * MIB)
    assert answer.body == content


@pytest.mark.parametrize("step", [1, 7, 100])
async def test_a_body_may_come_in_small_steps(node: Served, step: int) -> None:
    body = form(HELLO)
    chunks = b"".join(chunk(body[at : at + step]) for at in range(0, len(body), step))
    answer = await ask(node.cask, "POST", "/", FORM, CHUNKED, body=chunks + b"0\r\n\r\n")
    assert answer.body == success(HELLO_KEY)


@pytest.mark.parametrize(
    ("header", "body", "status", "complaint"),
    [
        (FORM, form(HELLO, field="data"), 400, b"`file` is not there"),
        (FORM, form(HELLO, name=""), 400, b"has no file name"),
        (FORM, form(HELLO)[:-4], 400, b"without its closing delimiter"),
        (FORM, form(HELLO)[:50], 400, b"without its closing delimiter"),
        (FORM, b"", 400, b"without its closing delimiter"),
        (FORM, HELLO, 400, b"without its closing delimiter"),
        (FORM, bytes(100_000), 400, b"belong to no file"),
        (FORM, form(HELLO, name="x" * 100_000), 400, b"headers of a part"),
        ("X: y", HELLO, 400, b"not multipart/form-data"),
        ("Content-Type: multipart/mixed; boundary=x", HELLO, 400, b"not multipart/form-data"),
        ("Content-Type: multipart/form-data", HELLO, 400, b"not a boundary"),
        (f"{FORM}\r\nContent-Encoding: gzip", form(HELLO), 415, b"Content-Encoding"),
    ],
)
@pytest.mark.parametrize("target", ["/", "/local/"])
async def test_a_bad_upload_is_refused_with_a_text(
    node: Served, target: str, header: str, body: bytes, status: int, complaint: bytes
) -> None:
    answer = await ask(node.cask, "POST", target, header, KNOCK, body=body)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert complaint in answer.body
    assert answer.body.endswith(b"\n")
    assert await files(node) == 0


async def test_an_upload_that_is_cut_off_leaves_nothing(node: Served) -> None:
    async with talk(node.cask) as connection:
        head = request("POST", "/", FORM, CHUNKED)
        await connection.send(head + chunk(form(bytes(4 * MIB))[: 3 * MIB]))
        await until(lambda: any((node.data / "tmp").iterdir()))
    await until(lambda: not any((node.data / "tmp").iterdir()))
    assert await files(node) == 0


async def test_a_chunked_body_that_is_malformed_is_refused(node: Served) -> None:
    body = chunk(form(HELLO)[:40]) + b"not a chunk\r\n"
    answer = await ask(node.cask, "POST", "/", FORM, CHUNKED, body=body)
    assert answer.status == 400
    assert await files(node) == 0


async def test_a_slow_upload_is_ended(tmp_path: Path) -> None:
    pace = {"min_progress_bytes_per_second": 1 << 20, "progress_window_seconds": 0.1}
    async with (
        serving(tmp_path, doors=("cask",), **pace) as node,
        talk(node.cask) as connection,
    ):
        head = request("POST", "/", FORM, CHUNKED)
        await connection.send(head + chunk(form(HELLO)[:100]))
        answer = await connection.answer()
    assert answer.line == "HTTP/1.1 408 Request Timeout"


class TestLimit:
    """A node that takes 100 KB at most; the frame around a file does not count."""

    LIMIT = 100_000

    async def post(self, tmp_path: Path, content: bytes, *headers: str, **settings: bool) -> bytes:
        limits = {"blob_limit_bytes": self.LIMIT, **settings}
        async with serving(tmp_path, doors=("cask",), cluster_secret=SECRET, **limits) as node:
            answers = [
                await post(node.cask, content, at, KNOCK, *headers) for at in ("/", "/local/")
            ]
        assert {answer.status == 413 for answer in answers} == {len(content) > self.LIMIT}
        return answers[0].body

    async def test_a_file_of_just_the_limit_is_taken(self, tmp_path: Path) -> None:
        content = bytes(self.LIMIT)
        assert await self.post(tmp_path, content) == success(key_of(content))

    @pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 20 * LIMIT])
    async def test_a_larger_one_is_not(self, tmp_path: Path, size: int) -> None:
        assert await self.post(tmp_path, bytes(size)) == b"file too large\n"

    async def test_it_holds_for_what_is_only_hashed(self, tmp_path: Path) -> None:
        content = bytes(self.LIMIT + 1)
        async with serving(
            tmp_path, doors=("cask",), blob_limit_bytes=self.LIMIT, read_only=True
        ) as node:
            assert (await post(node.cask, content)).body == b"file too large\n"
            assert (await post(node.cask, content[1:])).body == failure(key_of(content[1:]))

    async def test_a_small_file_in_a_frame_above_the_limit_is_taken(self, tmp_path: Path) -> None:
        async with serving(tmp_path, doors=("cask",), blob_limit_bytes=1) as node:
            assert (await post(node.cask, b"x")).body == success(key_of(b"x"))


async def test_a_client_that_waits_is_told_to_go_on(node: Served) -> None:
    body = form(HELLO)
    async with talk(node.cask) as connection:
        head = request("POST", "/", FORM, EXPECT, body=body).removesuffix(body)
        await connection.send(head)
        assert await connection.head() == ("HTTP/1.1 100 Continue", {})
        await connection.send(body)
        assert (await connection.answer()).body == success(HELLO_KEY)


async def test_a_client_that_waits_is_refused_before_it_sends(read_only: Served) -> None:
    body = form(HELLO)
    async with talk(read_only.cask) as connection:
        await connection.send(request("POST", "/", FORM, EXPECT, body=body).removesuffix(body))
        line, headers = await connection.head()
        connection.end()  # else the node waits for the body that is still to come
        assert (line, await connection.rest()) == (UNAVAILABLE, failure(""))
    assert headers["connection"] == "close"


async def test_a_disk_that_fills_up_midway_fails_without_a_key(
    node: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Full("no space left")

    monkeypatch.setattr(spool.Spool, "_write_piece", full)
    answer = await post(node.cask, bytes(3 * MIB))
    assert (answer.line, answer.body) == (UNAVAILABLE, failure(""))
    answer = await post(node.cask, bytes(3 * MIB), "/local/", KNOCK)
    assert (answer.line, answer.body) == (UNAVAILABLE, b"this node is full\n")


@pytest.mark.parametrize("target", ["/", "/local/"])
async def test_a_disk_that_fails_says_that_it_could_not_write(
    node: Served, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def broken(*_: object) -> None:
        raise Corrupt("an input/output error")

    monkeypatch.setattr(spool.Spool, "_write_piece", broken)
    answer = await post(node.cask, bytes(3 * MIB), target, KNOCK)
    assert (answer.status, answer.body) == (500, b"could not write file\n")


async def test_copies_that_can_not_be_made_are_no_success(tmp_path: Path) -> None:
    async with serving(tmp_path, doors=("cask",), replication=2) as node:
        answer = await post(node.cask, HELLO)
        assert (answer.line, answer.body) == (UNAVAILABLE, failure(HELLO_KEY))
        assert await files(node) == 0


async def test_a_blob_from_another_door_is_a_file(node: Served) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{node.native}/v1/blobs/{HELLO_KEY}", data=HELLO) as answer,
    ):
        assert answer.status == 201
    assert (await ask(node.cask, "GET", f"/file/{HELLO_KEY}/")).body == HELLO


async def test_a_range_of_a_file(node: Served) -> None:
    await post(node.cask, HELLO)
    answer = await ask(node.cask, "GET", f"/file/{HELLO_KEY}/", "Range: bytes=6-")
    assert (answer.status, answer.body) == (206, b"cask\n")
    answer = await ask(node.cask, "GET", f"/file/{HELLO_KEY}/", "Range: bytes=99-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */11")


@pytest.mark.parametrize(("place", "text"), [("file", b"not found\n"), ("local", b"not found\n\n")])
async def test_a_bad_copy_is_not_served(node: Served, place: str, text: bytes) -> None:
    content = random.Random(2).randbytes(MIB)
    await post(node.cask, content)
    (file,) = (path for path in (node.data / "files").rglob("*") if path.is_file())
    damaged = bytearray(file.read_bytes())
    damaged[1000] ^= 1
    file.write_bytes(damaged)
    answer = await ask(node.cask, "GET", f"/{place}/{key_of(content)}/", KNOCK)
    assert (answer.status, answer.body) == (404, text)


async def test_an_empty_secret_lets_nobody_in(tmp_path: Path) -> None:
    form_type = "Content-Type: application/x-www-form-urlencoded"
    async with serving(tmp_path, doors=("cask",)) as node:
        for knock in ("X-Cask-Cluster-Secret:", "X-Cask-Cluster-Secret: ", "X: y"):
            assert (await ask(node.cask, "GET", "/local/", knock)).status == 403
        for body in (b"url=http://h&secret=", b"url=http://h"):
            assert (await ask(node.cask, "POST", "/join/", form_type, body=body)).status == 403
        for body in (b'{"secret":""}', b'{"secret":null}', b"{}"):
            assert (await ask(node.cask, "POST", "/heartbeat/", body=body)).status == 403


async def test_a_form_has_a_limit(node: Served) -> None:
    body = b"url=http://h&secret=" + bytes(70_000)
    form_type = "Content-Type: application/x-www-form-urlencoded"
    chunked = chunk(body) + chunk(b"")
    assert (await ask(node.cask, "POST", "/join/", form_type, body=body)).status == 400
    assert (await ask(node.cask, "POST", "/join/", form_type, CHUNKED, body=chunked)).status == 400
    assert (await ask(node.cask, "POST", "/heartbeat/", CHUNKED, body=chunked)).status == 400


async def test_clients_need_rights_and_nodes_the_secret(tmp_path: Path) -> None:
    token = Token.of("reader", frozenset({Right.READ}), "open-sesame")
    bearer = "Authorization: Bearer open-sesame"
    async with serving(tmp_path, doors=("cask",), tokens=(token,), cluster_secret=SECRET) as node:
        assert (await post(node.cask, HELLO, "/local/", KNOCK)).body == HELLO_KEY.encode()
        for target in ("/", f"/file/{HELLO_KEY}/", "/status/", "/upload/", "/debug/vars"):
            refused = await ask(node.cask, "GET", target)
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == 'Bearer realm="tierce"'
            assert (await ask(node.cask, "GET", target, bearer)).status == 200
        assert (await post(node.cask, HELLO)).status == 401
        assert (await post(node.cask, HELLO, "/", bearer)).status == 403
        for target in ("/config/", "/join/", "/favicon.ico"):
            assert (await ask(node.cask, "GET", target)).status == 200


async def test_the_page_shows_text_as_text(tmp_path: Path) -> None:
    node_id = "<script>alert(1)</script>&'"
    async with serving(tmp_path, doors=("cask",), node_id=node_id) as node:
        page = (await ask(node.cask, "GET", "/")).body
    assert b"<script>" not in page
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;" in page


async def test_a_boundary_inside_the_file_is_kept(node: Served) -> None:
    content = f"\r\n--{BOUNDARY}x\r\n--{BOUNDARY[:-1]}\r\n".encode()
    assert (await post(node.cask, content)).body == success(key_of(content))
