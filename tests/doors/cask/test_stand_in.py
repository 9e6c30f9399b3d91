"""The stand-in is what it stands for: the wire sheet's vectors and recorded answers, to the byte."""

import json

import pytest
from tests.doors.cask.stand_in import CaskNode, ring_order
from tests.doors.cask.wire import (
    EMPTY_KEY,
    HELLO,
    HELLO_KEY,
    KNOCK,
    ONLY,
    ONLY_KEY,
    SECRET,
    UNKNOWN_KEY,
    ask,
    post,
    success,
)

A = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
B = "ead52d6c-f423-4c0a-a762-37bacac88d4f"
C = "f864ab85-2cd1-4cc7-a541-3e34ec6fc18f"
D = "53a5e5f2-9de4-4e72-a71e-fcc8c4e4a03e"
PLAIN = "text/plain; charset=utf-8"
OK = "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("key", "order", "without_d"),
    [
        ("sha1:" + 40 * "0", [D, A, B, C], [A, B, C]),
        ("sha1:016e48d0b5f07f270368a1876f617f3f4ab1b86d", [A, B, C, D], [A, B, C]),
        ("sha1:4" + 39 * "0", [A, B, C, D], [A, B, C]),
        ("sha1:8" + 39 * "0", [C, B, D, A], [C, B, A]),
        ("sha1:" + 40 * "f", [D, A, B, C], [A, B, C]),
        (HELLO_KEY, [D, A, B, C], [A, B, C]),
        (ONLY_KEY, [C, D, B, A], [C, B, A]),
        (EMPTY_KEY, [B, A, D, C], [B, A, C]),
    ],
)
def test_the_ring(key: str, order: list[str], without_d: list[str]) -> None:
    assert ring_order(key, [C, A, D, B]) == order
    assert ring_order(key, [C, A, B]) == without_d


async def test_the_recorded_answers() -> None:
    async with CaskNode(A, secret=SECRET) as node:
        url = node.base_url
        answer = await post(url, HELLO)
        assert answer.text == (OK, PLAIN, success(HELLO_KEY))
        answer = await post(url, ONLY, "/local/", KNOCK)
        assert answer.text == (OK, PLAIN, ONLY_KEY.encode())
        answer = await ask(url, "GET", f"/local/{HELLO_KEY}/", KNOCK)
        assert answer.text == (OK, "application/octet", HELLO)
        assert answer.headers["etag"] == f'"{HELLO_KEY}"'
        answer = await ask(url, "HEAD", f"/local/{HELLO_KEY}/", KNOCK)
        assert answer.line == OK
        answer = await ask(url, "GET", f"/local/{UNKNOWN_KEY}/", KNOCK)
        assert (answer.status, answer.body) == (404, b"not found\n\n")
        answer = await ask(url, "GET", f"/file/{UNKNOWN_KEY}/")
        assert (answer.status, answer.body) == (404, b"not found\n")
        answer = await ask(url, "GET", "/local/sha1:zz/", KNOCK)
        assert (answer.status, answer.body) == (400, b"invalid key\n\n")
        answer = await ask(url, "GET", f"/local/{HELLO_KEY}/")
        assert (answer.status, answer.body) == (403, b"sorry, need the secret knock\n")
        answer = await ask(url, "GET", "/config/")
        assert answer.text[:2] == (OK, "application/json")
        assert list(json.loads(answer.body)) == [
            "uuid", "base_url", "writeable", "last_seen", "last_failed",
        ]  # fmt: skip


async def test_a_large_file_has_no_length() -> None:
    async with CaskNode(A, secret=SECRET) as node:
        await post(node.base_url, bytes(3000), "/local/", KNOCK)
        (key,) = node.files
        answer = await ask(node.base_url, "GET", f"/local/{key}/", KNOCK)
        assert "content-length" not in answer.headers
        assert answer.headers["transfer-encoding"] == "chunked"
