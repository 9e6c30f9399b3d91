"""The three SOS doors: uploads here, downloads there, and the blob server that both may stand before.

They are apart so that each can be open to others: everybody may download, few may upload, and blob
servers are for these two and for ``replicate``. None has the paths of another.
"""

from collections.abc import Callable

from aiohttp import web

from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import RANGES_COUNT
from tierce.core.rights import Right
from tierce.core.sos import SosFound, SosStore
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import announced_bytes, body_of, refuse_encoded
from tierce.doors.shared.chunked import send_pieces
from tierce.doors.shared.dates import dated, whole_seconds
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Route, Router
from tierce.doors.shared.sending import Check, check_conditions, head_answer, send_blob
from tierce.doors.sos import render
from tierce.doors.sos.errors import blob_error, download_error, upload_error
from tierce.doors.sos.uploads import metadata_of
from tierce.service.access import Access
from tierce.service.sos_blobs import SosBlobs, check_id, is_id, is_sha1

UPLOAD = "sos-upload"
DOWNLOAD = "sos-download"
BLOB = "sos-blob"


class UploadDoor:
    """Takes bodies and says their ids."""

    def __init__(self, store: SosStore, access: Access) -> None:
        self._store = store
        self._access = access

    def routes(self) -> list[Route]:
        return [Route("POST", "/upload", self.post)]

    async def post(self, request: web.BaseRequest) -> Answer:
        self._access.check(request.headers.get("Authorization"), Right.WRITE)
        refuse_encoded(request)
        done = await self._store.put(
            body_of(request, UPLOAD),
            metadata_of(request),
            announced_bytes=announced_bytes(request),
        )
        return render.stored(done)


class DownloadDoor:
    """Gives the bytes of ids."""

    def __init__(self, store: SosStore, access: Access) -> None:
        self._store = store
        self._access = access

    def routes(self) -> list[Route]:
        return [Route("GET", "/fetch/{name}", self.fetch)]

    async def fetch(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        self._access.check(request.headers.get("Authorization"), Right.READ)
        return await _send(request, await self._find(name), DOWNLOAD)

    async def _find(self, name: str) -> SosFound:
        """Open an id, or one that was asked for with an extension. Raises NotFound, Unavailable.

        Who can't say whether there is ``SHA1.jpg`` must not keep others from giving the bytes that
        have this SHA-1: they are right in any case. Other ids could mean other bytes.
        """
        if not is_id(name):
            raise NotFound(f"{name[:80]!a} is not an id")
        bare, dot, _ = name.rpartition(".")
        try:
            return await self._store.open(name)
        except NotFound:
            if not dot:
                raise
        except Unavailable as error:
            if not is_sha1(bare):
                raise
            try:
                return await self._store.open(bare)
            except NotFound:
                raise error from None
        return await self._store.open(bare)


class BlobDoor:
    """Keeps bodies under any id, gives them back, and lists them."""

    def __init__(self, blobs: SosBlobs, access: Access) -> None:
        self._blobs = blobs
        self._access = access

    def routes(self) -> list[Route]:
        blob = "/blob/{sos_id}"
        return [
            Route("POST", blob, self.post_blob),
            Route("GET", blob, self.get_blob),
            Route("HEAD", blob, self.head_blob),
            Route("GET", "/blob", self.list_ids),
            Route("GET", "/blob/", self.list_ids),
            Route("GET", "/blobs", self.list_ids),
            Route("GET", "/alive", self.get_alive),
        ]

    async def post_blob(self, request: web.BaseRequest, sos_id: str) -> Answer:
        self._allow(request, Right.WRITE)
        check_id(sos_id)
        refuse_encoded(request)
        done = await self._blobs.put_as(
            sos_id,
            body_of(request, BLOB),
            metadata_of(request),
            announced_bytes=announced_bytes(request),
        )
        return render.stored(done)

    async def get_blob(self, request: web.BaseRequest, sos_id: str) -> web.StreamResponse:
        self._allow(request, Right.READ)
        check_id(sos_id)
        return await _send(request, await self._blobs.open(sos_id), BLOB)

    async def head_blob(self, request: web.BaseRequest, sos_id: str) -> Answer:
        self._allow(request, Right.READ)
        check_id(sos_id)
        known = await self._blobs.know(sos_id)
        how = render.presented(known.metadata, known.modified, known.etag)
        return head_answer(request, known.size, how, _check(known.modified))

    async def list_ids(self, request: web.BaseRequest) -> Answer:
        self._allow(request, Right.READ)
        pieces = render.id_list(self._blobs.ids())
        return await send_pieces(request, render.LIST_HEADERS, pieces, BLOB)

    async def get_alive(self, request: web.BaseRequest) -> Answer:
        return render.text(200, "alive")

    def _allow(self, request: web.BaseRequest, right: Right) -> None:
        self._access.check(request.headers.get("Authorization"), right)


def upload_door(store: SosStore, access: Access, *, log_requests: bool) -> Door:
    """The upload door, ready to serve."""
    return _door(UPLOAD, UploadDoor(store, access).routes(), upload_error, log_requests)


def download_door(store: SosStore, access: Access, *, log_requests: bool) -> Door:
    """The download door, ready to serve."""
    return _door(DOWNLOAD, DownloadDoor(store, access).routes(), download_error, log_requests)


def blob_door(blobs: SosBlobs, access: Access, *, log_requests: bool) -> Door:
    """The blob door, ready to serve."""
    return _door(BLOB, BlobDoor(blobs, access).routes(), blob_error, log_requests)


def _door(
    name: str, routes: list[Route], render_error: Callable[..., Answer], log_requests: bool
) -> Door:
    return Door(name, Router(routes), render_error, log_requests=log_requests)


async def _send(request: web.BaseRequest, found: SosFound, door: str) -> web.StreamResponse:
    """Answer GET or HEAD with what was found, and close it."""
    content = found.content
    how = render.presented(found.metadata, found.modified, found.etag)
    check = _check(found.modified)
    if request.method != "HEAD":
        limit = 1 if found.is_read_whole else RANGES_COUNT
        return await send_blob(request, content, how, door, check, ranges_limit=limit)
    try:
        return head_answer(request, content.size, how, check)
    finally:
        await content.aclose()


def _check(modified: int) -> Check:
    """The check of a request's conditions. Those on dates count where the date is known."""
    return dated(whole_seconds(modified)) if modified else check_conditions
