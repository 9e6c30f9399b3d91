"""A native door made of a dict, which fails on demand: enough of one to test a client against."""

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler
from tests.unit.client.fake_objects import FakeObjects
from tests.unit.client.on_loopback import on_loopback

from tierce.core.digest import Digest
from tierce.core.errors import BadRequest
from tierce.testing.in_thread import held_in_thread


class Seen(NamedTuple):
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, str]


class FakeServer:
    """The state that tests prepare and look at. ``url`` is set while it serves."""

    def __init__(self) -> None:
        self.url = ""
        self.blobs: dict[Digest, bytes] = {}
        self.seen: list[Seen] = []
        self.token: str | None = None
        # Each is used up by one request: a problem to answer, or None to drop the connection.
        self.problems: deque[tuple[int, dict[str, str]] | None] = deque()
        # Each is used up by one GET of a blob, which ends after so many bytes of its body.
        self.cuts: deque[int] = deque()
        self.ranges = True
        self.status: dict[str, object] = {"id": "n1"}
        # The orders that were carried out: method, order, and node.
        self.orders: list[tuple[str, str, str]] = []
        self.comparisons = 0
        # What is said of the cluster: one after the other, the last one for ever.
        self.overviews: list[dict[str, Any]] = [{"nodes": []}]
        self.page_limit = 1000
        # What an upload is acknowledged as, in place of the truth.
        self.acknowledged: Digest | None = None
        self.objects = FakeObjects(self.cuts)
        # Called after the first bytes of an upload came.
        self.on_upload: Callable[[], None] = lambda: None

    def add(self, data: bytes, algorithm: str = "blake3") -> Digest:
        """Put a blob in place."""
        digest = Digest.of(data, algorithm)
        self.blobs[digest] = data
        return digest

    def methods(self) -> list[str]:
        """The methods of the requests so far."""
        return [each.method for each in self.seen]

    def starts(self) -> list[int]:
        """Where each GET of a blob began. A client may lose the last bytes before a cut."""
        ranges = [each.headers.get("range", "bytes=0-") for each in self.seen if each[0] == "GET"]
        return [int(each.removeprefix("bytes=").removesuffix("-")) for each in ranges]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeServer"]:
        """Serve on a free port of the running loop."""
        app = web.Application(middlewares=[self._gate])
        app.router.add_put("/v1/blobs/{digest}", self._put)
        app.router.add_post("/v1/blobs", self._post)
        app.router.add_get("/v1/blobs/{digest}", self._get)
        app.router.add_delete("/v1/blobs/{digest}", self._delete)
        app.router.add_get("/v1/blobs", self._list)
        self.objects.add_routes(app)
        app.router.add_get("/v1/health/live", self._live)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/cluster", self._overview)
        app.router.add_route("*", "/v1/cluster/nodes/{node_id}/{order}", self._order)
        app.router.add_post("/v1/store/compare", self._compare)
        async with on_loopback(app) as self.url:
            yield self

    @contextmanager
    def serving_in_thread(self) -> Iterator["FakeServer"]:
        """Serve from another thread, for code that runs a loop of its own."""
        with held_in_thread(self.serving):
            yield self

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path, headers, dict(request.query)))
        if self.problems:
            problem = self.problems.popleft()
            if problem is None:
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            status, headers = problem
            return _problem(status, "planned", headers)
        if self.token is not None and request.headers.get("Authorization") != (
            f"Bearer {self.token}"
        ):
            return _problem(401, "a token is needed")
        try:
            return await handler(request)
        except BadRequest as error:
            return _problem(400, error.message)

    async def _put(self, request: web.Request) -> web.Response:
        digest = Digest.parse(request.match_info["digest"])
        data = await self._body(request)
        if Digest.of(data, digest.algorithm) != digest:
            return _problem(422, "the bytes don't match")
        return self._stored(digest, data)

    async def _post(self, request: web.Request) -> web.Response:
        data = await self._body(request)
        return self._stored(Digest.of(data, request.query["algorithm"]), data)

    async def _body(self, request: web.Request) -> bytes:
        data = b""
        async for piece in request.content.iter_any():
            if not data:
                self.on_upload()
            data += piece
        return data

    def _stored(self, digest: Digest, data: bytes) -> web.Response:
        status = 200 if digest in self.blobs else 201
        self.blobs[digest] = data
        shown = self.acknowledged or digest
        return web.json_response({"digest": str(shown), "size": len(data)}, status=status)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        digest = Digest.parse(request.match_info["digest"])
        data = self.blobs.get(digest)
        if data is None:
            return _problem(404, f"{digest} is not here")
        status, start, headers = 200, 0, {"ETag": f'"{digest}"'}
        wanted = request.headers.get("Range")
        if wanted is not None and self.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return _problem(416, "beyond the end")
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        headers["Content-Length"] = str(len(body))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.cuts:
            await response.write(body[: self.cuts.popleft()])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        await response.write_eof()
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        digest = Digest.parse(request.match_info["digest"])
        if self.blobs.pop(digest, None) is None:
            return _problem(404, f"{digest} is not here")
        return web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        after = request.query.get("after", "")
        limit = min(self.page_limit, int(request.query.get("limit", self.page_limit)))
        names = sorted(digest for digest in self.blobs if str(digest) > after)
        page = [{"digest": str(name), "size": len(self.blobs[name])} for name in names[:limit]]
        more = str(names[limit - 1]) if len(names) > limit else None
        return web.json_response({"blobs": page, "next": more})

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self.status)

    async def _overview(self, request: web.Request) -> web.Response:
        more = len(self.overviews) > 1
        return web.json_response(self.overviews.pop(0) if more else self.overviews[0])

    async def _compare(self, request: web.Request) -> web.Response:
        self.comparisons += 1
        return web.json_response({"comparison": self.comparisons}, status=202)

    async def _order(self, request: web.Request) -> web.Response:
        node_id, order = request.match_info["node_id"], request.match_info["order"]
        if node_id not in [node["node_id"] for node in self.overviews[0]["nodes"]]:
            return _problem(404, f"{node_id} is not a node of the cluster")
        self.orders.append((request.method, order, node_id))
        if order == "forget":
            return web.Response(status=204)
        begun = request.method == "POST"
        return web.json_response(
            {"node_id": node_id, "draining": begun}, status=202 if begun else 200
        )


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"type": "https://tierce.dev/problems/x", "detail": detail, "hint": "Do better."}
    return web.Response(
        body=json.dumps(body).encode(),
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )
