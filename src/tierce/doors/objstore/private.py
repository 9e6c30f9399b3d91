"""objstore's private API: what its nodes ask of each other, for programs that speak it over HTTP.

Tierce nodes don't use it: they read each other's feeds of changes. What another program announces
here has no digest, so it can't become a record; it is a hint to read the feeds again. The same
handlers serve twice: behind the cluster's signature on the private door, where answers are signed
too, and unsigned on the address for debugging, where callers need rights as on the public door.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from aiohttp import web
from blake3 import blake3

from tierce.cluster import signing
from tierce.cluster.signing import BadSignature, Signed, Verifier
from tierce.core.errors import NotFound, TierceError, TooLarge
from tierce.core.limits import (
    FORM_LIMIT_BYTES,
    MESSAGE_KEPT_BYTES,
    PEER_MESSAGE_BYTES,
    SYNC_LIMIT_RECORDS,
    SYNC_PAGE_RECORDS,
)
from tierce.core.metrics import REFUSED_REQUESTS
from tierce.core.rights import Right
from tierce.core.wording import quoted
from tierce.doors.objstore import gojson, render
from tierce.doors.objstore.errors import NotJson, render_error
from tierce.doors.objstore.routes import send_found, store, with_redirects
from tierce.doors.objstore.uploads import NAME, known_key
from tierce.doors.shared.answers import Answer, lines
from tierce.doors.shared.bodies import body_of
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Handler, Route, Router
from tierce.names.record import Record
from tierce.service.access import Access
from tierce.service.near_cache import Deleted, Found, Known, NearCache

log = logging.getLogger(__name__)

T = TypeVar("T")

API = "/private/v1"
DEBUG_NAME = "objstore-debug"
EVENT_ADDED, EVENT_DELETED, EVENT_MESSAGE, EVENT_STOP = 1, 2, 3, 999


class NodeInfo(NamedTuple):
    """A node: its id, its host without a port, and HOST:PORT where its private API answers."""

    id: str
    addr: str
    vaddr: str


class FileMeta(msgspec.Struct):
    """What a node says of a file. ``timestamp`` is in nanoseconds since 1970, ``size`` in bytes."""

    id: str = ""
    name: str = ""
    size: int = 0
    timestamp: int = 0
    user_meta: dict[str, str] | None = None
    is_symlink: bool = False
    consistency: int = 0
    is_deleted: bool = False
    is_fetched: bool = False


class EventAnnounce(msgspec.Struct):
    """News from another node; ``data`` is base64 on the wire."""

    type: int = 0
    meta: FileMeta | None = None
    data: bytes | None = None


_EVENT = msgspec.json.Decoder(EventAnnounce)
_LIST = msgspec.json.Decoder(list[FileMeta] | None)


class Journal(Protocol):
    """The records of this node's near-cache, and the nodes around it. All may be called at once."""

    async def nodes(self) -> list[NodeInfo]:
        """All nodes of the cluster that are up, this one among them."""
        ...

    async def records_after(self, key: str, limit: int) -> list[Known]:
        """Up to ``limit`` records after a key ("" is before all), in the order of their keys.

        Tombstones are among them. Fewer come only at the end.
        """
        ...

    async def open_here(self, key: str) -> Found:
        """Open an object whose bytes this node has itself. Raises NotFound, also for one deleted."""
        ...

    async def announced(self, meta: FileMeta) -> None:
        """Another node says that it has news of a file: read the others' feeds soon.

        A hint and no more: nothing of what it says is kept. Returns at once.
        """
        ...

    async def tell(self, message: bytes) -> None:
        """Pass a message on to the other nodes, which log it. Returns at once."""
        ...


class Call(NamedTuple):
    """A request's body, and what signs the answer to it: header lines from status and digest."""

    body: AsyncIterator[bytes]
    sign: Callable[[int, str], str]


class Operation(NamedTuple):
    """A row of the API. ``right`` is what a caller needs where requests are not signed."""

    method: str
    path: str
    right: Right | None
    handle: Callable[..., Awaitable[web.StreamResponse]]


class PrivateApi:
    """The handlers, whoever may call them."""

    def __init__(self, cache: NearCache, journal: Journal, node_id: str) -> None:
        self._cache = cache
        self._journal = journal
        self._node_id = node_id

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", f"{API}/ping", None, self.get_ping),
            Operation("GET", f"{API}/nodes", Right.READ, self.get_nodes),
            Operation("POST", f"{API}/announce", Right.WRITE, self.post_announce),
            Operation("POST", f"{API}/message", Right.WRITE, self.post_message),
            Operation("POST", f"{API}/sync", Right.READ, self.post_sync),
            Operation("GET", f"{API}/get/{{object_id}}", Right.READ, self.get_file),
            Operation("POST", f"{API}/put", Right.WRITE, self.put_file),
            Operation("POST", f"{API}/delete/{{object_id}}", Right.WRITE, self.delete_file),
        ]

    async def get_ping(self, request: web.BaseRequest, call: Call) -> Answer:
        return render.text(self._node_id)

    async def get_nodes(self, request: web.BaseRequest, call: Call) -> Answer:
        nodes = [each._asdict() for each in await self._journal.nodes()]
        return render.json_answer(gojson.encode(nodes or None))

    async def post_announce(self, request: web.BaseRequest, call: Call) -> Answer:
        event = _decoded(await _whole(call.body, FORM_LIMIT_BYTES), _EVENT)
        if event.type in (EVENT_ADDED, EVENT_DELETED) and event.meta is not None:
            await self._journal.announced(event.meta)
        elif event.type == EVENT_MESSAGE:
            _log_message(event.data or b"")
        elif event.type != EVENT_STOP:
            log.info("an announcement of the type %d was dropped", event.type)
        return Answer(200)

    async def post_message(self, request: web.BaseRequest, call: Call) -> Answer:
        message = (await _whole(call.body, PEER_MESSAGE_BYTES))[:MESSAGE_KEPT_BYTES]
        _log_message(message)
        await self._journal.tell(message)
        return Answer(200)

    async def post_sync(self, request: web.BaseRequest, call: Call) -> Answer:
        """Tell what the two lists don't have in common. Nothing is changed here.

        Of a file that both have, the side with the later timestamp has it, tombstones included.
        """
        sent = _decoded(await _whole(call.body, PEER_MESSAGE_BYTES), _LIST) or []
        theirs = {meta.id: meta for meta in sent}
        added: list[dict[str, object]] = []
        after = ""
        while page := await self._journal.records_after(after, SYNC_PAGE_RECORDS):
            after = page[-1].record.key
            for record, is_symlink in page:
                meta = theirs.get(record.key)
                if meta is None or meta.timestamp < record.timestamp:
                    shape = render.file_meta(
                        record, is_symlink=is_symlink, timestamp=record.timestamp
                    )
                    added.append(shape)
                if meta is not None and meta.timestamp <= record.timestamp:
                    del theirs[record.key]
            if len(added) > SYNC_LIMIT_RECORDS:
                raise TooLarge(f"the lists differ by more than {SYNC_LIMIT_RECORDS} files")
        newer = [msgspec.to_builtins(theirs[key]) for key in sorted(theirs)]
        content = {"list_added": added or None, "list_deleted": newer or None}
        return render.json_answer(gojson.encode(content))

    async def get_file(
        self, request: web.BaseRequest, call: Call, object_id: str
    ) -> web.StreamResponse:
        """This node's own files only; of others nothing is told, not even that they are known."""
        try:
            found = await self._journal.open_here(known_key(object_id))
        except Deleted as error:
            raise NotFound(error.message, hint=error.hint) from error

        def signature(record: Record) -> str:
            return call.sign(200, str(record.digest))

        return await send_found(request, found, whole=signature)

    async def put_file(self, request: web.BaseRequest, call: Call) -> Answer:
        return await store(request, self._cache, call.body)

    async def delete_file(self, request: web.BaseRequest, call: Call, object_id: str) -> Answer:
        return render.deleted(await self._cache.delete(known_key(object_id)))


def private_routes(
    api: PrivateApi, verifier: Verifier, *, wall_clock: Callable[[], float] = time.time
) -> list[Route]:
    """The routes for the private door, whose verifier it must be. ``wall_clock`` gives seconds.

    Errors are worded as objstore's nodes do; only a wrong signature is raised, for the door to tell.
    """
    guarded = _Guarded(api, verifier, wall_clock)
    return [Route(each.method, each.path, guarded.handler(each)) for each in api.operations()]


def debug_door(api: PrivateApi, access: Access, *, log_requests: bool) -> Door:
    """The same API without signatures, ready to serve on an address of its own."""

    def handler(operation: Operation) -> Handler:
        async def handle(request: web.BaseRequest, **arguments: str) -> web.StreamResponse:
            if operation.right is not None:
                access.check(request.headers.get("Authorization"), operation.right)
            call = Call(body_of(request, NAME), lambda status, digest: "")
            return await operation.handle(request, call, **arguments)

        return handle

    routes = [Route(each.method, each.path, handler(each)) for each in api.operations()]
    return Door(DEBUG_NAME, Router(with_redirects(routes)), render_error, log_requests=log_requests)


class _Guarded:
    """Nothing is done for a request whose signature is not right."""

    def __init__(
        self, api: PrivateApi, verifier: Verifier, wall_clock: Callable[[], float]
    ) -> None:
        self._api = api
        self._verifier = verifier
        self._wall_clock = wall_clock

    def handler(self, operation: Operation) -> Handler:
        # The bytes of a file are signed by their digest, in the head that goes before them.
        signs_itself = operation.handle == self._api.get_file

        async def handle(request: web.BaseRequest, **arguments: str) -> web.StreamResponse:
            header = request.headers.get(signing.HEADER)
            try:
                signed = self._verifier.verify(
                    header, request.method, request.raw_path, self._wall_clock()
                )
            except BadSignature as error:
                REFUSED_REQUESTS.labels(error.reason).inc()
                raise

            def sign(status: int, digest: str) -> str:
                value = self._verifier.sign_answer(signed, status, digest)
                return lines([(signing.HEADER, value)])

            call = Call(_checked(body_of(request, NAME), signed), sign)
            try:
                answer = await operation.handle(request, call, **arguments)
            except TierceError as error:
                answer = render_error(error)
            else:
                if signs_itself:
                    return answer
            assert isinstance(answer, Answer), "only files are streamed"
            answer.add_block(sign(answer.status, signing.digest_of(answer.body)))
            return answer

        return handle


async def _checked(pieces: AsyncIterator[bytes], signed: Signed) -> AsyncIterator[bytes]:
    """Pass a body on. Raises BadSignature at its end if it is not the one that was signed."""
    hasher = blake3()
    async for piece in pieces:
        hasher.update(piece)
        yield piece
    signing.check_body(signed, f"blake3:{hasher.hexdigest()}")


async def _whole(body: AsyncIterator[bytes], limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for piece in body:
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(f"the body has more than {limit_bytes} bytes", hint="Send less at once.")
        parts.append(piece)
    return b"".join(parts)


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(f"the body is not what was expected: {error}") from None


def _log_message(message: bytes) -> None:
    log.info("message: %s", quoted(message.decode("utf-8", "replace")))
