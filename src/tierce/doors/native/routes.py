"""The routes of the native door."""

from aiohttp import web

from tierce.core.digest import DEFAULT_ALGORITHM, Digest, new_hasher
from tierce.core.errors import BadRequest, Full, NotFound, Unavailable
from tierce.core.limits import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from tierce.core.rights import Right
from tierce.doors.native import openapi, render
from tierce.doors.native.errors import render_error
from tierce.doors.native.gauges import exposition
from tierce.doors.native.object_routes import ObjectRoutes
from tierce.doors.native.requests import NAME, announced_digests, limit_in
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import announced_bytes, body_of, refuse_encoded
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Route, Router
from tierce.doors.shared.sending import check_conditions, head_answer, send_blob
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.cluster import Cluster
from tierce.service.objects import Objects
from tierce.service.status import StatusReporter


class NativeDoor:
    """Handlers over the service. Each checks the caller's right before anything else."""

    def __init__(
        self,
        blobs: Blobs,
        access: Access,
        reporter: StatusReporter,
        cluster: Cluster,
        objects: Objects,
    ) -> None:
        self._blobs = blobs
        self._access = access
        self._reporter = reporter
        self._cluster = cluster
        self._objects = ObjectRoutes(objects, access)

    def routes(self) -> list[Route]:
        blob = "/v1/blobs/{digest}"
        member = "/v1/cluster/nodes/{node_id}"
        return [
            Route("GET", blob, self.get_blob),
            Route("HEAD", blob, self.head_blob),
            Route("PUT", blob, self.put_blob),
            Route("DELETE", blob, self.delete_blob),
            Route("POST", "/v1/blobs", self.post_blob),
            Route("GET", "/v1/blobs", self.list_blobs),
            *self._objects.routes(),
            Route("GET", "/v1/cluster", self.get_cluster),
            Route("POST", f"{member}/drain", self.drain_node),
            Route("DELETE", f"{member}/drain", self.use_node_again),
            Route("POST", f"{member}/forget", self.forget_node),
            Route("POST", "/v1/store/compare", self.compare_store),
            Route("GET", "/v1/status", self.get_status),
            Route("GET", "/v1/health/live", self.get_live),
            Route("GET", "/v1/health/ready", self.get_ready),
            Route("GET", "/v1/openapi.json", self.get_openapi),
            Route("GET", "/metrics", self.get_metrics),
            Route("GET", "/", self.get_root),
        ]

    async def get_blob(self, request: web.BaseRequest, digest: str) -> web.StreamResponse:
        self._allow(request, Right.READ)
        name = Digest.parse(digest)
        blob = await self._blobs.open(name)
        return await send_blob(request, blob, render.presented(name), NAME)

    async def head_blob(self, request: web.BaseRequest, digest: str) -> Answer:
        self._allow(request, Right.READ)
        name = Digest.parse(digest)
        return head_answer(request, await self._blobs.size(name), render.presented(name))

    async def put_blob(self, request: web.BaseRequest, digest: str) -> Answer:
        self._allow(request, Right.WRITE)
        name = Digest.parse(digest)
        if "Content-Range" in request.headers:
            raise BadRequest("a part of a blob can't be put", hint="Send the whole blob at once.")
        await self._check_put_conditions(request, name)
        result = await self._blobs.receive(
            body_of(request, NAME),
            name.algorithm,
            expected=[name, *announced_digests(request)],
            announced_bytes=self._check_upload(request, name.algorithm),
        )
        return render.stored(result, located=False)

    async def post_blob(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.WRITE)
        algorithm = request.query.get("algorithm", DEFAULT_ALGORITHM)
        new_hasher(algorithm)
        result = await self._blobs.receive(
            body_of(request, NAME),
            algorithm,
            expected=announced_digests(request),
            announced_bytes=self._check_upload(request, algorithm),
        )
        return render.stored(result, located=True)

    async def delete_blob(self, request: web.BaseRequest, digest: str) -> Answer:
        self._allow(request, Right.ADMIN)
        name = Digest.parse(digest)
        if not await self._blobs.delete(name):
            raise NotFound(f"{name} is not here")
        return Answer(204)

    async def list_blobs(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        after = request.query.get("after")
        limit = limit_in(request.query.get("limit"), LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX)
        found = await self._blobs.list_after(Digest.parse(after) if after else None, limit)
        return render.listing(found, limit)

    async def get_cluster(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        return render.json_answer(200, await self._cluster.overview())

    async def drain_node(self, request: web.BaseRequest, node_id: str) -> Answer:
        self._allow(request, Right.ADMIN)
        await self._cluster.drain(node_id)
        return render.draining(node_id, begun=True)

    async def use_node_again(self, request: web.BaseRequest, node_id: str) -> Answer:
        self._allow(request, Right.ADMIN)
        await self._cluster.drain(node_id, cancel=True)
        return render.draining(node_id, begun=False)

    async def forget_node(self, request: web.BaseRequest, node_id: str) -> Answer:
        self._allow(request, Right.ADMIN)
        await self._cluster.forget(node_id)
        return Answer(204)

    async def compare_store(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.ADMIN)
        return render.json_answer(202, await self._cluster.compare_store())

    async def get_status(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        return render.json_answer(200, render.status(await self._reporter.status()))

    async def get_live(self, request: web.BaseRequest) -> Answer:
        return render.json_answer(200, {"live": True})

    async def get_ready(self, request: web.BaseRequest) -> Answer:
        """Ready to serve reads; whether it takes writes is said beside it."""
        try:
            self._blobs.check_writable()
        except (Unavailable, Full):
            writable = False
        else:
            writable = True
        return render.json_answer(200, {"ready": True, "writable": writable})

    async def get_openapi(self, request: web.BaseRequest) -> Answer:
        return render.json_answer(200, openapi.document(self._reporter.identity.version))

    async def get_metrics(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        body, content_type = exposition(await self._reporter.status())
        return Answer(200, body, [("Content-Type", content_type), ("Cache-Control", "no-store")])

    async def get_root(self, request: web.BaseRequest) -> Answer:
        identity = self._reporter.identity
        content = {"name": "tierce", "version": identity.version, "openapi": "/v1/openapi.json"}
        return render.json_answer(200, content)

    def _allow(self, request: web.BaseRequest, right: Right) -> None:
        self._access.check(request.headers.get("Authorization"), right)

    def _check_upload(self, request: web.BaseRequest, algorithm: str) -> int | None:
        """Refuse what can be refused before the body comes; returns its announced size."""
        refuse_encoded(request)
        size = announced_bytes(request)
        self._blobs.check_writable(size, algorithm=algorithm)
        return size

    async def _check_put_conditions(self, request: web.BaseRequest, name: Digest) -> None:
        """If-None-Match and If-Match of a PUT: what is there is this very blob, or nothing."""
        if "If-Match" not in request.headers and "If-None-Match" not in request.headers:
            return
        try:
            await self._blobs.size(name)
        except NotFound:
            check_conditions(request, None, safe=False)
        else:
            check_conditions(request, f'"{name}"', safe=False)


def native_door(
    blobs: Blobs,
    access: Access,
    reporter: StatusReporter,
    cluster: Cluster,
    objects: Objects,
    *,
    log_requests: bool,
) -> Door:
    """The native door, ready to serve."""
    router = Router(NativeDoor(blobs, access, reporter, cluster, objects).routes())
    return Door(NAME, router, render_error, log_requests=log_requests)
