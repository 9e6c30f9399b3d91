"""The routes of the Cask door: what clients ask for, and what nodes ask of each other.

Clients are let in by their token's rights, as through the other doors; nodes by the secret of the
cluster, which is compared in constant time, and which, while it is empty, lets nobody in. Paths
that nothing else takes show the status page and take uploads, as in Cask.
"""

import hmac
import logging
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, Full, NotFound, TierceError, Unavailable
from tierce.core.listen import Listen
from tierce.core.rights import Right
from tierce.core.settings import Settings
from tierce.doors.cask import render
from tierce.doors.cask.calls import PRIVATE_HEADER, SECRET_HEADER
from tierce.doors.cask.errors import (
    JoinRefused,
    NoCluster,
    NotAHeartbeat,
    NotWritten,
    WrongSecret,
    render_error,
)
from tierce.doors.cask.forms import form_fields, parse_heartbeat, small_body
from tierce.doors.cask.keys import NotHere, key_in, parse_key
from tierce.doors.cask.neighbors import NO_URL
from tierce.doors.cask.uploads import ALGORITHM, NAME, Upload
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import MethodNotAllowed, Route, Router
from tierce.doors.shared.sending import head_answer, joined, send_blob
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.status import StatusReporter

log = logging.getLogger(__name__)

SLASHLESS = ("/file", "/local", "/join", "/config", "/heartbeat", "/upload", "/status")
REFUSALS = (Unavailable, Full)


class CaskControl(Protocol):
    """The keeper of the membership, in this process or another; membership.py is one.

    Both may take as long as it takes to ask other nodes, which ask this one meanwhile.
    """

    async def join(self, fields: Mapping[str, str]) -> tuple[int, str]:
        """Join the node at ``fields["url"]``: status and text of the answer. Raises Unavailable."""
        ...

    async def heartbeat(self, body: bytes) -> None:
        """Take a heartbeat. Raises Unavailable."""
        ...


class CaskDoor:
    """Handlers over the service. Each checks the caller before anything else."""

    def __init__(
        self,
        settings: Settings,
        listen: Listen,
        blobs: Blobs,
        access: Access,
        reporter: StatusReporter,
        control: CaskControl | None,
        private_address: str,
    ) -> None:
        self._settings = settings
        self._base_url = render.base_url(settings, listen)
        self._secret = settings.cluster_secret
        self._blobs = blobs
        self._access = access
        self._reporter = reporter
        self._control = control
        self._config_headers = [(PRIVATE_HEADER, private_address)] if private_address else []

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/file/{_*}", self.get_file),
            Route("*", "/local/{_*}", self.any_local),
            Route("*", "/config/", self.any_config),
            Route("GET", "/join/", self.get_join),
            Route("POST", "/join/", self.post_join),
            Route("POST", "/heartbeat/", self.post_heartbeat),
            Route("*", "/heartbeat/", self.any_heartbeat),
            Route("GET", "/status/", self.get_status),
            Route("GET", "/upload/", self.get_upload),
            Route("POST", "/upload/", self.post_file),
            Route("GET", "/debug/vars", self.get_variables),
            Route("*", "/favicon.ico", self.any_icon),
            *(Route("*", path, self.redirect) for path in SLASHLESS),
            Route("GET", "/{_*}", self.get_page),
            Route("POST", "/{_*}", self.post_file),
        ]

    async def get_page(self, request: web.BaseRequest, **_: str) -> Answer:
        self._allow(request, Right.READ)
        return render.status_page(await self._reporter.status(), self._base_url, self._settings)

    async def post_file(self, request: web.BaseRequest, **_: str) -> Answer:
        """Take a client's file. What keeps it from being stored is no error in Cask's words."""
        self._allow(request, Right.WRITE)
        upload = self._upload(request)
        try:
            self._blobs.check_writable(upload.least_bytes, algorithm=ALGORITHM)
        except REFUSALS as refusal:
            log.info("an upload was refused: %s", refusal)
            return await _unstored(upload)
        try:
            return render.uploaded(await self._store(upload, here_only=False), success=True)
        except REFUSALS as refusal:
            # Broken off midway, nobody knows its key; refused by too few nodes, it has one.
            log.info("an upload failed: %s", refusal)
            return render.uploaded(upload.key, success=False)

    async def get_file(self, request: web.BaseRequest, **_: str) -> web.StreamResponse:
        self._allow(request, Right.READ)
        return await self._send(request, parse_key(_key_text(request)), here_only=False)

    async def any_local(self, request: web.BaseRequest, **_: str) -> web.StreamResponse:
        """A node asks for what this one has, or gives it a file."""
        if not self._knows_secret(request.headers.get(SECRET_HEADER)):
            raise WrongSecret("the secret is wrong")
        if request.path == "/local/":
            return await self._take_from_node(request)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(request.method, "GET, HEAD")
        key = parse_key(_key_text(request))
        try:
            return await self._send(request, key, here_only=True)
        except NotFound as error:
            raise NotHere(error.message, hint=error.hint) from error

    async def any_config(self, request: web.BaseRequest) -> Answer:
        writeable = self._blobs.space.why_not() is None
        node_id = self._reporter.identity.node_id
        shown = render.node(node_id, self._base_url, writeable=writeable)
        return render.json_answer(shown, self._config_headers)

    async def get_join(self, request: web.BaseRequest) -> Answer:
        return render.join_page()

    async def post_join(self, request: web.BaseRequest) -> Answer:
        fields = await form_fields(request)
        if not fields.get("url"):
            return render.text(NO_URL)
        if not self._knows_secret(fields.get("secret")):
            raise JoinRefused("the secret is wrong")
        if self._control is None:
            raise _no_cluster("join another")
        status, words = await self._control.join(fields)
        return render.text(words, status)

    async def post_heartbeat(self, request: web.BaseRequest) -> Answer:
        body = await small_body(request)
        if not self._knows_secret(parse_heartbeat(body).secret):
            raise WrongSecret("the secret is wrong")
        if self._control is None:
            raise _no_cluster("take heartbeats")
        await self._control.heartbeat(body)
        return Answer(200)

    async def any_heartbeat(self, request: web.BaseRequest) -> Answer:
        raise NotAHeartbeat(request.method, "POST")

    async def get_status(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        now = await self._reporter.status()
        return render.json_answer(render.status(now, self._base_url, self._settings))

    async def get_upload(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        return render.upload_page()

    async def get_variables(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        return render.variables()

    async def any_icon(self, request: web.BaseRequest) -> Answer:
        return Answer(200)

    async def redirect(self, request: web.BaseRequest) -> Answer:
        return render.redirect(request.rel_url.raw_path_qs)

    def _allow(self, request: web.BaseRequest, right: Right) -> None:
        self._access.check(request.headers.get("Authorization"), right)

    def _knows_secret(self, given: str | None) -> bool:
        """Whether it is the cluster's secret; without one, nothing is."""
        if not self._secret or given is None:
            return False
        return hmac.compare_digest(_as_bytes(given), _as_bytes(self._secret))

    def _upload(self, request: web.BaseRequest) -> Upload:
        return Upload(request, self._settings.blob_limit_bytes)

    async def _store(self, upload: Upload, *, here_only: bool) -> Digest:
        """Keep an upload's file, if the node takes one now, as the caller has asked it.

        Raises what Blobs.receive does, NotWritten for a failing disk.
        """
        try:
            spooling = self._blobs.spooling(upload.content(), ALGORITHM, here_only=here_only)
            async with spooling as spool:
                upload.key = spool.digest
                return (await self._blobs.keep(spool, here_only=here_only)).digest
        except Corrupt as error:
            raise NotWritten(error.message, hint=error.hint) from error

    async def _take_from_node(self, request: web.BaseRequest) -> Answer:
        if request.method != "POST":
            return render.text("show form/handle post\n")
        upload = self._upload(request)
        self._blobs.check_writable(upload.least_bytes, here_only=True)
        return render.text(str(await self._store(upload, here_only=True)))

    async def _send(
        self, request: web.BaseRequest, key: Digest, *, here_only: bool
    ) -> web.StreamResponse:
        """Answer with a file of this node, or of the whole cluster."""
        how = render.presented(key)
        if request.method == "HEAD":
            size = await self._blobs.size(key, here_only=here_only)
            return head_answer(request, size, how, _check_tag)
        blob = await self._blobs.open(key, here_only=here_only)
        return await send_blob(request, blob, how, NAME, _check_tag)


def cask_door(
    settings: Settings,
    listen: Listen,
    blobs: Blobs,
    access: Access,
    reporter: StatusReporter,
    control: CaskControl | None = None,
    private_address: str = "",
) -> Door:
    """The Cask door, ready to serve.

    Without ``control`` there is no cluster. ``private_address`` (HOST:PORT) is where other Tierce
    nodes reach this one, by which they recognize it.
    """
    door = CaskDoor(settings, listen, blobs, access, reporter, control, private_address)
    return Door(NAME, Router(door.routes()), render_error, log_requests=settings.access_log)


async def _unstored(upload: Upload) -> Answer:
    """The answer to an upload that is known to be in vain before its body has come.

    Its key is worked out all the same, as clients may expect one, unless they wait to be asked for
    the body: then it is never sent.
    """
    if upload.is_awaited:
        answer = render.uploaded(None, success=False)
        answer.close()
        return answer
    return render.uploaded(await upload.digest(), success=False)


def _key_text(request: web.BaseRequest) -> str:
    return key_in(request.rel_url.raw_path_qs)


def _check_tag(request: web.BaseRequest, etag: str) -> Answer | None:
    """Only this very tag, alone, counts: no list, no weak tag, no ``*`` (as recorded of Cask)."""
    if joined(request, "If-None-Match") == etag:
        return Answer(304, headers=[("ETag", etag)])
    return None


def _no_cluster(doing: str) -> TierceError:
    return NoCluster(
        f"this node can't {doing}: it runs alone, without a cluster",
        hint="Set a cluster secret, the same on all nodes.",
    )


def _as_bytes(secret: str) -> bytes:
    """A header may hold bytes that are no UTF-8, which arrive as lone surrogates."""
    return secret.encode("utf-8", "surrogatepass")
