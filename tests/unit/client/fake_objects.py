"""The fake server's named objects: enough of them to fail in the middle of things."""

from collections import deque
from collections.abc import Callable
from urllib.parse import unquote

from aiohttp import web

from tierce.core.digest import Digest

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class FakeObjects:
    """Objects by bucket and key. ``cuts`` has for some reads after how many bytes they end."""

    def __init__(self, cuts: deque[int]) -> None:
        self.held: dict[tuple[str, str], bytes] = {}
        self.cuts = cuts
        # Whether conditions are looked at, and the tag that is told in place of the true one.
        self.knows_conditions = True
        self.told: Digest | None = None
        # Called before each read and each write.
        self.before: Callable[[], None] = lambda: None
        # How many writes are carried out without an answer.
        self.silent_writes = 0
        # Answers to /v1/changes, one after the other, and the queries that came.
        self.feed: deque[dict[str, object]] = deque()
        self.asked: list[dict[str, str]] = []

    def add_routes(self, app: web.Application) -> None:
        app.router.add_route("*", "/v1/buckets/{bucket}/objects/{key:.+}", self._object)
        app.router.add_get("/v1/changes", self._changes)

    async def _object(self, request: web.Request) -> web.StreamResponse:
        self.before()
        name = _name(request)
        refused = self._refused(request, self.held.get(name))
        if refused:
            return web.Response(status=412)
        if request.method == "PUT":
            data = await request.read()
            status = 200 if name in self.held else 201
            self.held[name] = data
            return self._answered(request, web.json_response(self._described(name), status=status))
        if name not in self.held:
            return web.Response(status=404)
        if request.method == "DELETE":
            del self.held[name]
            return self._answered(request, web.Response(status=204))
        return await self._read(request, self.held[name])

    async def _read(self, request: web.Request, data: bytes) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {
            "ETag": f'"{self.told or Digest.of(data)}"',
            "Last-Modified": DATE,
            "Content-Type": "text/plain",
            "Tierce-Meta-A": "%C3%BC",
            "Content-Length": str(len(data) - start),
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.cuts:
            await response.write(data[start : start + self.cuts.popleft()])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[start:])
        return response

    async def _changes(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        return web.json_response(self.feed.popleft())

    def _refused(self, request: web.Request, held: bytes | None) -> bool:
        if not self.knows_conditions:
            return False
        tag = None if held is None else f'"{Digest.of(held)}"'
        wanted = request.headers.get("If-Match")
        return (wanted is not None and wanted != tag) or (
            "If-None-Match" in request.headers and held is not None
        )

    def _answered(self, request: web.Request, response: web.Response) -> web.Response:
        if self.silent_writes:
            self.silent_writes -= 1
            assert request.transport is not None
            request.transport.close()
        return response

    def _described(self, name: tuple[str, str]) -> dict[str, object]:
        data = self.held[name]
        return {
            "bucket": name[0],
            "key": name[1],
            "digest": str(self.told or Digest.of(data)),
            "size": len(data),
            "content_type": "text/plain",
            "metadata": {},
            "modified": "2026-01-01T00:00:00.000000000Z",
            "timestamp": "1767225600000000000",
            "node": "n1",
        }


def _name(request: web.Request) -> tuple[str, str]:
    _, _, _, bucket, _, key = request.rel_url.raw_path.split("/", 5)
    return unquote(bucket), unquote(key)
