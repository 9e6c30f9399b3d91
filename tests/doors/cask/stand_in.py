"""A Cask node of the version whose README Tierce implements, written from the wire sheet alone.

It knows nothing of Tierce: what it sends, what it answers, and above all what it checks, is what was
recorded of the real program, its crashes included (section numbers are the sheet's). Files are in
memory, intervals may be fractions of a second, and a file is rebalanced when the test says so.
"""

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

ZERO_TIME = "0001-01-01T00:00:00Z"
PLAIN = "text/plain; charset=utf-8"
POINTS = 16
COPIES_OF_AN_UPLOAD = 4


class Crash(Exception):
    """The handler of a request ends in a panic: the connection closes without an answer."""


@dataclass
class Known:
    """A node in the table of another. Times are of the event loop's clock."""

    uuid: str
    base_url: str
    writeable: bool
    last_seen: float
    last_failed: float = 0.0


def key_of(content: bytes) -> str:
    return f"sha1:{hashlib.sha1(content).hexdigest()}"


def ring_order(key: str, uuids: list[str]) -> list[str]:
    """Section 6: points sorted as strings, from the first that is strictly greater, once round."""
    points = sorted(
        (hashlib.sha1(f"{uuid}{number}".encode()).hexdigest(), uuid)
        for uuid in uuids
        for number in range(POINTS)
    )
    start = next((at for at, (point, _) in enumerate(points) if f"sha1:{point}" > key), 0)
    return list(dict.fromkeys(uuid for _, uuid in points[start:] + points[:start]))


def error(status: int, text: str) -> web.Response:
    response = web.Response(status=status, body=f"{text}\n".encode())
    response.headers["Content-Type"] = PLAIN
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def plain(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": PLAIN})


class CaskNode:
    """A node on a free port of loopback, from ``async with`` until :meth:`stop` or its end."""

    def __init__(
        self,
        uuid: str,
        *,
        secret: str,
        interval_seconds: float = 60.0,
        jitter_seconds: float = 0.0,
        writeable: bool = True,
        replication: int = 3,
        max_replication: int = 3,
        neighbors: tuple[str, ...] = (),
    ) -> None:
        self.uuid = uuid
        self.secret = secret
        self.interval_seconds = interval_seconds
        self.jitter_seconds = jitter_seconds
        self.writeable = writeable
        self.replication = max(1, replication)
        self.max_replication = max(self.replication, max_replication)
        self.seeds = neighbors
        self.files: dict[str, bytes] = {}
        self.known: dict[str, Known] = {}
        self.received: Counter[str] = Counter()
        self.port = 0
        self._runner: web.ServerRunner | None = None
        self._client: aiohttp.ClientSession | None = None
        self._loops: list[asyncio.Task[None]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> aiohttp.ClientSession:
        assert self._client is not None
        return self._client

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start, on the port of the last time if there was one, with an empty table."""
        self.known.clear()
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=20), headers={"User-Agent": "Go-http-client/1.1"}
        )
        server = web.Server(self._answer, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        self._loops = [
            asyncio.create_task(each) for each in (self._join_seeds(), self._beat(), self._reap())
        ]

    async def stop(self) -> None:
        """Be gone at once, as after a crash. The files stay."""
        for each in self._loops:
            each.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()
        self._client = self._runner = None

    # -- What it sends to others

    async def _get(self, url: str) -> bytes | None:
        """Sections 2.2, 8: the body if the status line says ``200 OK``. A dead peer is a crash."""
        try:
            async with self.client.get(url, headers=self._knock) as answer:
                if f"{answer.status} {answer.reason}" != "200 OK":
                    return None
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise Crash from problem

    async def _has(self, url: str, key: str) -> bool:
        """Section 2.2: HEAD wants ``200 OK`` too, within a second."""
        timeout = aiohttp.ClientTimeout(total=1)
        try:
            async with self.client.head(
                f"{url}/local/{key}/", headers=self._knock, timeout=timeout
            ) as answer:
                return f"{answer.status} {answer.reason}" == "200 OK"
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _copy(self, uuid: str, key: str, content: bytes) -> bool:
        """Section 7: status 200 and a body equal to the key, or the node has failed."""
        url = self.base_url if uuid == self.uuid else self.known[uuid].base_url
        form = aiohttp.FormData()
        form.add_field(
            "file", BytesIO(content), filename="file.dat", content_type="application/octet-stream"
        )
        try:
            async with self.client.post(f"{url}/local/", data=form, headers=self._knock) as answer:
                worked = answer.status == 200 and (await answer.read()).decode() == key
        except (aiohttp.ClientError, TimeoutError):
            worked = False
        known = self.known.get(uuid)
        if known is not None:
            now = asyncio.get_running_loop().time()
            if worked:
                known.last_seen = now
            else:
                known.writeable, known.last_failed = False, now
        return worked

    async def _post_join(self, at: str, url: str) -> str:
        """Why it could not be sent, or nothing."""
        try:
            async with self.client.post(
                f"{at}/join/", data={"secret": self.secret, "url": url}
            ) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as problem:
            return f"Post {at}/join/: {problem}"
        return ""

    @property
    def _knock(self) -> dict[str, str]:
        return {"X-Cask-Cluster-Secret": self.secret}

    # -- What it does by itself

    async def _join_seeds(self) -> None:
        for url in self.seeds:
            await self.join(url)

    async def _pause(self, intervals: int = 1) -> None:
        jitter = random.random() * self.jitter_seconds
        await asyncio.sleep(intervals * self.interval_seconds + jitter)

    async def _beat(self) -> None:
        """Section 5: to all known nodes, one after another; the answer means nothing."""
        while True:
            await self._pause()
            content = self._shown(self) | {
                "secret": self.secret,
                "neighbors": [self._shown(each) for each in self.known.values()],
            }
            for each in list(self.known.values()):
                try:
                    async with self.client.post(f"{each.base_url}/heartbeat/", json=content):
                        pass
                except (aiohttp.ClientError, TimeoutError):
                    continue

    async def _reap(self) -> None:
        await self._pause(3)
        while True:
            limit = asyncio.get_running_loop().time() - 3 * self.interval_seconds
            for each in [each for each in self.known.values() if each.last_seen < limit]:
                del self.known[each.uuid]
            await self._pause()

    async def join(self, url: str) -> str:
        """Section 4, and the text of the answer."""
        try:
            async with self.client.get(f"{url}/config/") as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return "error retrieving config"
        try:
            node = parsed_node(json.loads(body))
        except ValueError:
            return "error parsing json"
        if node.uuid == self.uuid:
            return "I can't join myself, silly!"
        if node.uuid in self.known:
            return "already have a node with that UUID in the cluster"
        others = list(self.known.values())
        self.known[node.uuid] = node
        for each in others:
            await self._post_join(each.base_url, url)
        problem = await self._post_join(node.base_url, self.base_url)
        return problem or f"Added node [{node.uuid}]"

    async def write(self, content: bytes) -> bool:
        """Section 7: an upload of a client's."""
        key = key_of(content)
        writeable = [each.uuid for each in self.known.values() if each.writeable]
        copies = 0
        for uuid in ring_order(key, writeable + [self.uuid] * self.writeable):
            copies += await self._copy(uuid, key, content)
            if copies >= COPIES_OF_AN_UPLOAD:
                break
        return copies > 0

    async def read(self, key: str) -> bytes | None:
        """Section 8: a download of a client's. Bytes from others are not checked."""
        if key in self.files:
            return self.files[key]
        for uuid in ring_order(key, [*self.known, self.uuid]):
            if uuid != self.uuid:
                content = await self._get(f"{self.known[uuid].base_url}/local/{key}/")
                if content is not None:
                    return content
        return None

    async def rebalance(self, key: str) -> None:
        """Section 9."""
        found, met_myself = 0, False
        for uuid in ring_order(key, [*self.known, self.uuid]):
            if uuid == self.uuid:
                found, met_myself = found + 1, True
            elif await self._has(self.known[uuid].base_url, key):
                found += 1
            elif found < self.replication:
                found += await self._copy(uuid, key, self.files[key])
            if found >= self.max_replication:
                break
        if found >= self.replication and not met_myself:
            del self.files[key]

    # -- What it answers

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = request.raw_path.split("/")
        place = parts[1].partition("?")[0]
        handlers: dict[str, Callable[..., Awaitable[web.Response]]] = {
            "file": self._file, "local": self._local, "config": self._config, "join": self._joined,
            "heartbeat": self._heartbeat, "favicon.ico": self._icon,
        }  # fmt: skip
        self.received[f"{request.method} /{place}/" if place else f"{request.method} /"] += 1
        try:
            return await handlers.get(place, self._any)(request, parts)
        except (Crash, UnicodeDecodeError):
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)

    async def _any(self, request: web.BaseRequest, _: list[str]) -> web.Response:
        if request.method == "GET":
            return web.Response(text=f"<h1>{self.uuid}</h1>", content_type="text/html")
        if request.method != "POST":
            return error(405, "method not supported")
        content = await uploaded(request)
        success = await self.write(content)
        return plain(
            json.dumps({"key": key_of(content), "success": success}, separators=(",", ":"))
        )

    async def _file(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        if len(parts) != 4:
            return error(400, "bad request")
        key = parts[2]
        refusal = self._before_disk(request, key)
        if refusal is not None:
            return refusal
        local = key in self.files
        content = await self.read(key)
        if content is None:
            return error(404, "not found")
        headers = {"Content-Type": "application/octet"} if local else {"ETag": f'"{key}"'}
        return file_answer(content, headers)

    async def _local(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        if request.headers.get("X-Cask-Cluster-Secret", "") != self.secret:
            return error(403, "sorry, need the secret knock")
        if len(parts) == 3:
            if request.method != "POST":
                return plain("show form/handle post\n")
            if not self.writeable:
                return error(503, "this node is read-only")
            content = await uploaded(request)
            self.files.setdefault(key_of(content), content)
            return plain(key_of(content))
        if len(parts) > 4:
            return web.Response()
        key = parts[2]
        refusal = self._before_disk(request, key)
        if refusal is not None:
            return refusal
        if key not in self.files:
            return error(404, "not found\n")
        if request.method == "GET":
            headers = {"Content-Type": "application/octet", "ETag": f'"{key}"'}
            return file_answer(self.files[key], headers)
        return web.Response()

    def _before_disk(self, request: web.BaseRequest, key: str) -> web.Response | None:
        if ":" not in key:
            raise Crash
        algorithm, digits = key.split(":")[:2]
        if algorithm != "sha1" or len(digits.encode()) != 40:
            return error(400, "invalid key\n")
        if request.headers.get("If-None-Match") == f'"{key}"':
            return web.Response(status=304)
        return None

    async def _config(self, *_: object) -> web.Response:
        content = self._shown(self) | {"last_seen": ZERO_TIME, "last_failed": ZERO_TIME}
        return web.Response(
            body=json.dumps(content, separators=(",", ":")).encode(),
            headers={"Content-Type": "application/json"},
        )

    async def _joined(self, request: web.BaseRequest, _: list[str]) -> web.Response:
        if request.method == "GET":
            return web.Response(text="<form></form>", content_type="text/html")
        fields = parse_qs(request.rel_url.query_string) | parse_qs((await request.read()).decode())
        url = fields.get("url", [""])[0]
        if not url:
            return plain("no url specified")
        if fields.get("secret", [""])[0] != self.secret:
            return error(403, "need to know the secret knock")
        return plain(await self.join(url))

    async def _heartbeat(self, request: web.BaseRequest, _: list[str]) -> web.Response:
        if request.method != "POST":
            return error(405, "method not allowed")
        try:
            beat = json.loads(await request.read())
            sender = parsed_node(beat)
            others = [parsed_node(each) for each in beat.get("neighbors") or []]
        except ValueError as problem:
            return error(500, str(problem))
        if beat.get("secret") != self.secret:
            return error(403, "sorry, need the secret knock")
        known = self.known.get(sender.uuid)
        if known is not None:
            known.base_url, known.writeable = sender.base_url, sender.writeable
            known.last_seen = asyncio.get_running_loop().time()
        for each in others:
            if each.uuid != self.uuid and each.uuid not in self.known:
                await self.join(each.base_url)
        return web.Response()

    async def _icon(self, *_: object) -> web.Response:
        return web.Response()

    @staticmethod
    def _shown(node: "CaskNode | Known") -> dict[str, Any]:
        return {"uuid": node.uuid, "base_url": node.base_url, "writeable": node.writeable}


def parsed_node(content: Any) -> Known:
    """Section 3, as strict as Go's decoder: right types, and times that are times if they are there."""
    if not isinstance(content, dict):
        raise ValueError("json: cannot unmarshal into Go value")
    uuid, url = content.get("uuid", ""), content.get("base_url", "")
    writeable = content.get("writeable", False)
    if not (isinstance(uuid, str) and isinstance(url, str) and isinstance(writeable, bool)):
        raise ValueError("json: cannot unmarshal into Go struct field")
    for name in ("last_seen", "last_failed"):
        datetime.fromisoformat(content.get(name, ZERO_TIME))
    return Known(uuid, url, writeable, asyncio.get_running_loop().time())


def file_answer(content: bytes, headers: dict[str, str]) -> web.Response:
    """Section 2.1: bodies over 2 KiB go out chunked, without a length."""
    response = web.Response(body=content, headers=headers)
    if len(content) > 2048:
        response.enable_chunked_encoding()
    return response


async def uploaded(request: web.BaseRequest) -> bytes:
    """The form's file, read whole. Without one the handler crashes (section 1.2)."""
    if not request.content_type.startswith("multipart/form-data"):
        raise Crash
    async for part in await request.multipart():
        if isinstance(part, aiohttp.BodyPartReader) and part.name == "file" and part.filename:
            content = bytearray()
            while piece := await part.read_chunk(1 << 20):
                content += piece
            return bytes(content)
    raise Crash
