"""A node in a thread, with an event loop of the kind that nodes run on, for tests that block.

Every answer that a test gets by :meth:`Node.call` is held against the OpenAPI document: its status
must be declared there, with its headers and its content type. So the document can't fall behind.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import uvloop
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tierce import __version__
from tierce.core.digest import Digest
from tierce.doors.native.openapi import document
from tierce.doors.native.render import PROBLEM_BASE
from tierce.testing.calls import Body, Reply, Wire, call
from tierce.testing.processes import Address
from tierce.testing.serving import serving

T = TypeVar("T")

DOCUMENT = document(__version__)
_PARTS = DOCUMENT["components"]
_TEMPLATES = [
    (re.compile(re.sub(r"\{\w+\}", "[^/]+", path.replace("{key}", ".*"))), item)
    for path, item in DOCUMENT["paths"].items()
]


class Node:
    """Where a node answers, and its data directory."""

    def __init__(self, data: Path, address: Address) -> None:
        self.data = data
        self.address = address

    def call(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own, and an answer that is as documented."""
        reply = call(self.address, method, path, body, headers)
        check_documented(method, path, reply)
        return reply

    def put(self, data: bytes, algorithm: str = "blake3") -> Digest:
        digest = Digest.of(data, algorithm)
        assert self.call("PUT", f"/v1/blobs/{digest}", data).status in (200, 201)
        return digest

    def get(self, digest: Digest, **headers: str) -> Reply:
        """Read a blob. Underscores in the names of headers stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("GET", f"/v1/blobs/{digest}", headers=named)

    def put_object(self, bucket: str, key: str, data: bytes = b"", **headers: str) -> Reply:
        """Store an object. Underscores in the names of headers stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("PUT", object_path(bucket, key), data, named)

    def has(self, digest: Digest) -> bool:
        return self.call("HEAD", f"/v1/blobs/{digest}").status == 200

    def samples(self) -> list[Sample]:
        """All samples of the metrics page. Nodes of one test process share their counters."""
        page = self.call("GET", "/metrics").body.decode()
        return [each for family in text_string_to_metric_families(page) for each in family.samples]

    def wire(self) -> Wire:
        return Wire(self.address)

    def files(self) -> set[str]:
        """What there is in the data directory, but for the index's own files and empty folders."""
        found = {path for path in self.data.rglob("*") if not path.is_dir()}
        return {str(path.relative_to(self.data)) for path in found}


@asynccontextmanager
async def _whole(data: Path, settings: Mapping[str, Any]) -> AsyncIterator[Node]:
    async with serving(data, **settings) as served:
        yield Node(served.data, Address(served.native.removeprefix("http://")))


def node_in_thread(data: Path, **settings: Any) -> AbstractContextManager[Node]:
    """Run a node; keyword arguments are its settings."""
    return in_thread(_whole(data, settings))


@contextmanager
def in_thread(running: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Run what runs while a context lasts, in a thread with an event loop of its own."""
    ready = threading.Event()
    ended: list[BaseException] = []
    made: list[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        async with running as node:
            stop = asyncio.Event()
            made.append((node, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        except BaseException as error:
            ended.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="node")
    thread.start()
    ready.wait()
    try:
        if made:
            yield made[0][0]
    finally:
        if made:
            _, loop, stop = made[0]
            if thread.is_alive():
                loop.call_soon_threadsafe(stop.set)
        thread.join()
        if ended:
            raise ended[0]


def object_path(bucket: str, key: str) -> str:
    """The path of an object, with all of the key escaped."""
    return f"/v1/buckets/{bucket}/objects/{quote(key, safe='')}"


def problem(reply: Reply) -> str:
    """The last part of a problem's type, once the whole is seen to be well-formed."""
    assert reply.headers["content-type"] == "application/problem+json", reply
    content = json.loads(reply.body)
    assert set(content) == {"type", "title", "status", "detail", "hint"}
    assert content["status"] == reply.status
    assert content["title"]
    assert content["detail"]
    kind: str = content["type"]
    assert kind in _PARTS["schemas"]["Problem"]["properties"]["type"]["enum"]
    return kind.removeprefix(PROBLEM_BASE)


def check_documented(method: str, path: str, reply: Reply) -> None:
    """Hold an answer against the OpenAPI document."""
    declared = _declared(method, path.partition("?")[0], reply.status)
    for name in declared.get("headers", {}):
        header = _PARTS["headers"][name]
        value = reply.headers.get(name.lower())
        assert value is not None or not header["required"], f"{name} is missing from {reply}"
        if value is not None:
            _check_value(value, header["schema"])
    content: dict[str, Any] = declared.get("content", {})
    if content and method != "HEAD":
        kind = reply.headers["content-type"].partition(";")[0]
        assert kind in content or "*/*" in content, (
            f"{kind} is not declared for {method} {path}: {reply.status}"
        )
    if reply.status >= 400 and method != "HEAD":
        named = content["application/problem+json"]["schema"]["allOf"][1]["properties"]["type"]
        assert PROBLEM_BASE + problem(reply) in named["enum"]
    if method == "HEAD" or reply.status in (204, 304):
        assert reply.body == b""


def _declared(method: str, path: str, status: int) -> dict[str, Any]:
    found = [item for template, item in _TEMPLATES if template.fullmatch(path)]
    if not found:
        assert status == 404, f"{path} is not documented"
        return dict(_PARTS["responses"]["NoSuchPath"])
    operation = found[0].get(method.lower()) or (found[0].get("get") if method == "HEAD" else None)
    if operation is None:
        assert status == 405, f"{method} {path} is not documented"
        return dict(_PARTS["responses"]["MethodNotAllowed"])
    assert str(status) in operation["responses"], f"{method} {path}: {status} is not documented"
    return dict(operation["responses"][str(status)])


def _check_value(value: str, schema: Mapping[str, Any]) -> None:
    if "const" in schema:
        assert value == schema["const"]
    if "enum" in schema:
        assert value in schema["enum"]
    if "pattern" in schema:
        assert re.search(schema["pattern"], value)
    if schema.get("type") == "integer":
        assert int(value) >= schema["minimum"]
