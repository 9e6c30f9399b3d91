"""The routes of the dtfc door. Paths are few and loose: a part that is a hash, and an option behind it.

Clients are let in by their token's rights, as through the other doors; health is for all. What a file
in the place of a setting switches off (``deny``) is looked up at each request, as dtfc does.
"""

import os
from collections.abc import Callable

from aiohttp import web

from tierce.core.digest import Digest
from tierce.core.dtfc import cleaned_name, digest_in
from tierce.core.errors import NotFound
from tierce.core.rights import Right
from tierce.doors.dtfc import render
from tierce.doors.dtfc.errors import Denied, render_error
from tierce.doors.shared import dates
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import announced_bytes, body_of, refuse_encoded
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import NoSuchPath, Route, Router
from tierce.doors.shared.sending import check_conditions, head_answer, send_blob
from tierce.service.access import Access
from tierce.service.dtfc import Files

NAME = "dtfc"
HEALTH, REFRESH = "health.html", "refreshpeers.html"
NO_PEERS, MEDIA, EVERYWHERE = "nopeerload", "ffmetadata", "allpeers"

_DENIED = {
    "put": "403 Forbidden. Uploading is disabled.",
    "get": "403 Forbidden. Downloading is disabled.",
    "delete": "403 Forbidden. Deletion is disabled.",
    "head": "403 Forbidden.",
}
_LOCAL_HOSTS = {"127.0.0.1", "localhost", "[::1]", "::1"}


class DtfcDoor:
    """Handlers over the service. Each checks the caller's right before anything else.

    ``deny`` is put before a method's name to make the path of the file that switches it off.
    """

    def __init__(
        self,
        files: Files,
        access: Access,
        *,
        deny: str,
        to_https: bool,
        exists: Callable[[str], bool] = os.path.exists,
    ) -> None:
        self._files = files
        self._access = access
        self._deny = deny
        self._to_https = to_https
        self._exists = exists

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"/{HEALTH}", self.get_health),
            Route("PUT", f"/{HEALTH}", self.put_health),
            Route("PUT", f"/{REFRESH}", self.put_refresh),
            Route("GET", "/{part}", self.get_file, "/{hash}"),
            Route("HEAD", "/{part}", self.head_file, "/{hash}"),
            Route("PUT", "/{part}", self.put_file, "/{name}"),
            Route("DELETE", "/{part}", self.delete_file, "/{hash}"),
            Route("GET", "/{part}/{option}", self.get_file, "/{hash}/{option}"),
            Route("HEAD", "/{part}/{option}", self.head_file, "/{hash}/{option}"),
            Route("DELETE", "/{part}/{option}", self.delete_on_peers, "/{hash}/{option}"),
        ]

    async def get_health(self, request: web.BaseRequest) -> Answer:
        return render.healthy()

    async def put_refresh(self, request: web.BaseRequest) -> Answer:
        self._access.check(request.headers.get("Authorization"), Right.WRITE)
        await self._files.refresh()
        return Answer(200)

    async def put_health(self, request: web.BaseRequest) -> Answer:
        return await self.put_file(request, HEALTH)  # a name as any other, here

    async def put_file(self, request: web.BaseRequest, part: str) -> Answer:
        self._allow(request, Right.WRITE, "put")
        refuse_encoded(request)
        record = await self._files.put(
            cleaned_name(part), body_of(request, NAME), announced_bytes=announced_bytes(request)
        )
        return render.stored(record.key, record.name, record.size)

    async def get_file(
        self, request: web.BaseRequest, part: str, option: str = ""
    ) -> web.StreamResponse:
        if self._to_https and (elsewhere := _https_address(request, option)):
            return render.redirect(elsewhere)
        self._allow(request, Right.READ, "get")
        digest = self._digest(part)
        if option == MEDIA:
            return render.described(await self._files.describe(digest, load=True))
        found = await self._files.open(digest, load=NO_PEERS not in option)
        how = render.presented(digest, found.name, found.modified)
        return await send_blob(request, found.blob, how, NAME, _dated(found.modified))

    async def head_file(self, request: web.BaseRequest, part: str, option: str = "") -> Answer:
        self._allow(request, Right.READ, "head")
        digest = self._digest(part)
        if option == MEDIA:
            return render.described(await self._files.describe(digest, load=False))
        known = await self._files.know(digest)
        how = render.presented(digest, known.name, known.modified)
        return head_answer(request, known.size, how, _dated(known.modified))

    async def delete_file(self, request: web.BaseRequest, part: str) -> Answer:
        self._allow(request, Right.WRITE, "delete")
        digest = self._digest(part)

        def check(modified: int) -> None:
            dates.check_unmodified(request, dates.whole_seconds(modified))

        return render.deleted(digest.raw.hex(), await self._files.delete(digest, check=check))

    async def delete_on_peers(self, request: web.BaseRequest, part: str, option: str) -> Answer:
        if option != EVERYWHERE:
            raise NoSuchPath("there is no such path")
        self._allow(request, Right.WRITE, "delete")
        digest = self._digest(part)
        found = await self._files.delete_everywhere(digest)
        return render.deleted_everywhere(digest.raw.hex(), found)

    def _allow(self, request: web.BaseRequest, right: Right, method: str) -> None:
        self._access.check(request.headers.get("Authorization"), right)
        if self._deny and self._exists(self._deny + method):
            raise Denied(_DENIED[method])

    def _digest(self, part: str) -> Digest:
        """The digest that a part of the path names. Raises NotFound, or Marked if it is forbidden."""
        digest = digest_in(part)
        if digest is None:
            raise NotFound("the path has no SHA-512 in it")
        self._files.check(digest)
        return digest


def dtfc_door(
    files: Files, access: Access, *, deny: str = "", to_https: bool = False, log_requests: bool
) -> Door:
    """The dtfc door, ready to serve."""
    door = DtfcDoor(files, access, deny=deny, to_https=to_https)
    return Door(NAME, Router(door.routes()), render_error, log_requests=log_requests)


def _dated(modified: int) -> Callable[[web.BaseRequest, str], Answer | None]:
    return dates.dated(dates.whole_seconds(modified)) if modified else check_conditions


def _https_address(request: web.BaseRequest, option: str) -> str:
    """Where a request is to go that did not come by https; empty if it may stay.

    What comes from this machine stays, and what comes from a peer, which asks for no peer load.
    """
    host = request.headers.get("Host", "")
    if request.headers.get("X-Forwarded-Proto") == "https" or request.secure or not host:
        return ""
    name = host.rpartition(":")[0]
    if NO_PEERS in option or {host.lower(), name.lower()} & _LOCAL_HOSTS:
        return ""
    return f"https://{host}{request.rel_url.raw_path_qs}"
