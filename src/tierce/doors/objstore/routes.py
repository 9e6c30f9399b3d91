"""The public routes of the objstore door: files under ULIDs, with their metadata in headers.

Which node has a file, and whether the upstream is asked, is the near-cache's to know. Clients are let
in by their token's rights, as through the other doors; an id, the version and the ping are for all.
"""

import os
import time
from collections.abc import AsyncIterable, Callable

from aiohttp import web

from tierce.core import ulids
from tierce.core.rights import Right
from tierce.doors.objstore import render
from tierce.doors.objstore.errors import render_error
from tierce.doors.objstore.uploads import NAME, draft_of, known_key
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import announced_bytes, body_of, refuse_encoded
from tierce.doors.shared.dates import dated
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Handler, Route, Router
from tierce.doors.shared.sending import head_answer, send_blob
from tierce.names.record import Record
from tierce.service.access import Access
from tierce.service.near_cache import Found, NearCache
from tierce.service.status import StatusReporter

API = "/api/v1"


class ObjstoreDoor:
    """Handlers over the service. Each checks the caller's right before anything else."""

    def __init__(self, cache: NearCache, access: Access, reporter: StatusReporter) -> None:
        self._cache = cache
        self._access = access
        self._reporter = reporter

    def routes(self) -> list[Route]:
        return with_redirects(
            [
                Route("GET", f"{API}/get/{{object_id}}", self.get_file),
                Route("GET", f"{API}/meta/{{object_id}}", self.get_metadata),
                Route("POST", f"{API}/put", self.put_file),
                Route("POST", f"{API}/delete/{{object_id}}", self.delete_file),
                Route("GET", f"{API}/id", self.get_id),
                Route("GET", f"{API}/version", self.get_version),
                Route("GET", f"{API}/ping", self.get_ping),
                Route("GET", f"{API}/stats", self.get_stats),
            ]
        )

    async def get_file(self, request: web.BaseRequest, object_id: str) -> web.StreamResponse:
        self._allow(request, Right.READ)
        fetch = request.headers.get("X-Meta-Fetch", "").lower() in ("1", "true")
        return await send_found(request, await self._cache.open(known_key(object_id), fetch=fetch))

    async def get_metadata(self, request: web.BaseRequest, object_id: str) -> Answer:
        self._allow(request, Right.READ)
        known = await self._cache.know(known_key(object_id))
        return render.metadata(known.record, is_symlink=known.is_symlink)

    async def put_file(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.WRITE)
        return await store(request, self._cache, body_of(request, NAME))

    async def delete_file(self, request: web.BaseRequest, object_id: str) -> Answer:
        self._allow(request, Right.WRITE)
        return render.deleted(await self._cache.delete(known_key(object_id)))

    async def get_id(self, request: web.BaseRequest) -> Answer:
        now = time.time_ns() // 1_000_000
        return render.text(ulids.make(now, os.urandom(ulids.RANDOM_BYTES)))

    async def get_version(self, request: web.BaseRequest) -> Answer:
        return render.text(self._reporter.identity.version)

    async def get_ping(self, request: web.BaseRequest) -> Answer:
        return render.text(self._reporter.identity.node_id)

    async def get_stats(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        try:
            now = await self._reporter.status()
        except OSError:  # the disk doesn't tell; objstore says so with null
            return render.stats(None)
        return render.stats(now.space)

    def _allow(self, request: web.BaseRequest, right: Right) -> None:
        self._access.check(request.headers.get("Authorization"), right)


def objstore_door(
    cache: NearCache, access: Access, reporter: StatusReporter, *, log_requests: bool
) -> Door:
    """The objstore door, ready to serve."""
    router = Router(ObjstoreDoor(cache, access, reporter).routes())
    return Door(NAME, router, render_error, log_requests=log_requests)


def with_redirects(routes: list[Route]) -> list[Route]:
    """The routes, and for each one that leads to it from its path with an end slash."""
    return [*routes, *(_redirect(each) for each in routes)]


async def send_found(
    request: web.BaseRequest, found: Found, *, whole: Callable[[Record], str] = lambda _: ""
) -> web.StreamResponse:
    """Answer GET or HEAD with an object, and close it.

    ``whole`` gives header lines that go only with all of its content.
    """
    blob = found.blob
    modified = render.modified_seconds(found.record)
    try:
        how = await render.presented(found, modified, whole(found.record))
    except BaseException:
        await blob.aclose()
        raise
    check = dated(modified)
    if request.method != "HEAD":
        return await send_blob(request, blob, how, NAME, check)
    try:
        return head_answer(request, blob.size, how, check)
    finally:
        await blob.aclose()


async def store(request: web.BaseRequest, cache: NearCache, body: AsyncIterable[bytes]) -> Answer:
    """Answer a put."""
    refuse_encoded(request)
    draft = draft_of(request)
    kept = await cache.put(draft, body, announced_bytes=announced_bytes(request))
    return render.stored(is_queued=kept.is_queued)


def _redirect(route: Route) -> Route:
    status = 301 if route.method == "GET" else 307

    async def handle(request: web.BaseRequest, **_: str) -> Answer:
        return render.redirect(status, request.rel_url.raw_path_qs)

    handler: Handler = handle
    return Route(route.method, f"{route.path}/", handler)
