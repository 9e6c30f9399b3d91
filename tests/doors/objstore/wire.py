"""Talking to an objstore node byte by byte."""

from tests.doors.cask.wire import RawAnswer, ask
from tests.doors.objstore.near_cache import CONTENT, ID, Node

EMPTY = ("HTTP/1.1 404 Not Found", None, b"")
NO_PAGE = ("HTTP/1.1 404 Not Found", "text/plain; charset=utf-8", b"404 page not found")


async def put(
    node: Node, *headers: str, object_id: str = ID, body: bytes = CONTENT, name: str = "test.txt"
) -> RawAnswer:
    """Put a file as curl does for ``-d @FILE``; further headers may follow."""
    sent = [f"X-Meta-ID: {object_id}", *headers]
    sent += [f"X-Meta-Name: {name}"] * bool(name)
    sent.append("Content-Type: application/x-www-form-urlencoded")
    return await ask(node.url, "POST", "/api/v1/put", *sent, body=body)


async def get(node: Node, *headers: str, object_id: str = ID, method: str = "GET") -> RawAnswer:
    return await ask(node.url, method, f"/api/v1/get/{object_id}", *headers)


def plain(answer: RawAnswer) -> tuple[str, str | None, bytes]:
    """First line, type and body."""
    return answer.line, answer.headers.get("content-type"), answer.body


def metadata(answer: RawAnswer) -> dict[str, str]:
    """The X-Meta-* headers, by their names in lower case; their bytes as Latin-1."""
    return {name: text for name, text in answer.headers.items() if name.startswith("x-meta-")}
