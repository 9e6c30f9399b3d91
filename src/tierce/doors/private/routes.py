"""The routes of the private door. Nothing is done for a request whose signature is not right.

What is answered to a right one is signed too, refusals included. It knows the cluster's secret only
through the verifier, and what the messages mean only the service does.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from blake3 import blake3

from tierce.cluster import signing
from tierce.cluster.signing import BadSignature, Signed, Verifier
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, TierceError, TooLarge
from tierce.core.limits import PEER_MESSAGE_BYTES
from tierce.core.metrics import REFUSED_REQUESTS
from tierce.doors.private import render
from tierce.doors.private.errors import render_error
from tierce.doors.shared.answers import Answer
from tierce.doors.shared.bodies import announced_bytes, body_of
from tierce.doors.shared.connection import connection_of
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Handler, Route, Router
from tierce.doors.shared.sending import SENT
from tierce.node.peers import Incoming, PeerService

log = logging.getLogger(__name__)

NAME = "private"
MESSAGES = (
    "/gossip", "/blobs/store", "/blobs/find", "/blobs/read", "/blobs/delete", "/control",
    "/names/push", "/names/pull", "/names/ranges", "/names/range", "/names/fill",
)  # fmt: skip
BLOB = "/blobs/{digest}"
# A node with a wrong secret or clock asks for ever; the log needs to say so only now and then.
REFUSED_LOG_SECONDS = 10.0


class PrivateDoor:
    """Handlers over the peer service, each behind the check of the request's signature."""

    def __init__(
        self,
        service: PeerService,
        verifier: Verifier,
        *,
        wall_clock: Callable[[], float] = time.time,
        message_bytes: int = PEER_MESSAGE_BYTES,
    ) -> None:
        self._service = service
        self._verifier = verifier
        self._wall_clock = wall_clock
        self._message_bytes = message_bytes
        self._logged_at = -REFUSED_LOG_SECONDS

    def routes(self) -> list[Route]:
        return [
            *(Route("POST", path, self._behind_signature(self.exchange)) for path in MESSAGES),
            Route("PUT", BLOB, self._behind_signature(self.upload)),
            Route("GET", BLOB, self._behind_signature(self.download)),
        ]

    async def exchange(self, request: web.BaseRequest, signed: Signed) -> Answer:
        body, digest = await self._message(request)
        signing.check_body(signed, digest)
        return self._signed(
            render.message(await self._service.exchange(request.path, body)), signed
        )

    async def upload(self, request: web.BaseRequest, signed: Signed, digest: str) -> Answer:
        """The digest that was signed is what makes sure of the body: the service hashes it."""
        name = Digest.parse(digest)
        signing.check_body(signed, digest)
        size = announced_bytes(request)
        if size is None:
            raise BadRequest("the size is not announced", hint="Send a Content-Length.")
        pieces = body_of(request, NAME)
        answer = await self._service.upload(request.raw_path, size, pieces, name)
        return self._signed(render.message(answer), signed)

    async def download(
        self, request: web.BaseRequest, signed: Signed, digest: str
    ) -> web.StreamResponse:
        Digest.parse(digest)
        start = _offset(request, "start") or 0
        stop = _offset(request, "stop")
        async with self._service.download(request.path, start=start, stop=stop) as incoming:
            length = (incoming.size if stop is None else min(stop, incoming.size)) - start
            if length < 0:
                raise BadRequest(
                    f"the blob has {incoming.size} bytes", hint="Ask for some of them."
                )
            answer = render.blob_head(incoming.size, length)
            self._sign(answer, signed, str(incoming.size))
            await _stream(request, answer, incoming, length)
            return answer

    def _behind_signature(self, handler: Callable[..., Awaitable[web.StreamResponse]]) -> Handler:
        async def handle(request: web.BaseRequest, **arguments: str) -> web.StreamResponse:
            header = request.headers.get(signing.HEADER)
            signed: Signed | None = None
            try:
                signed = self._verifier.verify(
                    header, request.method, request.raw_path, self._wall_clock()
                )
                return await handler(request, signed, **arguments)
            except BadSignature as error:
                self._note(request, error)
                raise
            except TierceError as error:
                if signed is None:
                    raise
                return self._signed(render_error(error), signed)

        return handle

    def _note(self, request: web.BaseRequest, error: BadSignature) -> None:
        REFUSED_REQUESTS.labels(error.reason).inc()
        now = time.monotonic()
        if now - self._logged_at >= REFUSED_LOG_SECONDS:
            self._logged_at = now
            log.warning(
                "refused a request of %s to the private door: %s. %s",
                request.remote, error.message, error.hint,
            )  # fmt: skip

    async def _message(self, request: web.BaseRequest) -> tuple[bytes, str]:
        """The body, whole, and its digest, which is worked out as it comes."""
        if (announced_bytes(request) or 0) > self._message_bytes:
            raise self._too_large()
        hasher = blake3()
        parts: list[bytes] = []
        size = 0
        async for piece in body_of(request, NAME):
            size += len(piece)
            if size > self._message_bytes:
                raise self._too_large()
            hasher.update(piece)
            parts.append(piece)
        return b"".join(parts), f"blake3:{hasher.hexdigest()}"

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"a message has at most {self._message_bytes} bytes", hint="Send it in parts."
        )

    def _signed(self, answer: Answer, signed: Signed) -> Answer:
        self._sign(answer, signed, signing.digest_of(answer.body))
        return answer

    def _sign(self, answer: Answer, signed: Signed, body_digest: str) -> None:
        value = self._verifier.sign_answer(signed, answer.status, body_digest)
        answer.add_block(f"{signing.HEADER}: {value}\r\n")


async def _stream(
    request: web.BaseRequest, answer: Answer, incoming: Incoming, length: int
) -> None:
    """Send head and pieces. The first piece is read before the head is sent: it may be bad."""
    connection = connection_of(request)
    first = await anext(incoming.pieces, b"")
    await answer.prepare(request)
    if request.method == "HEAD":
        return
    sent = 0
    try:
        piece: bytes | None = first
        while piece is not None:
            assert sent + len(piece) <= length, f"more than the {length} bytes announced"
            await connection.send(piece)
            sent += len(piece)
            piece = await anext(incoming.pieces, None)
        assert sent == length, f"{sent} bytes sent, {length} announced"
    except ConnectionError:
        raise
    except Exception as error:
        # Whatever it was, another answer can't follow: it would be taken for bytes of the blob.
        if isinstance(error, TierceError):
            log.error("an answer to another node was broken off: %s", error)
        else:
            log.exception("an answer to another node was broken off")
        connection.abort()
        raise ConnectionResetError("the answer was broken off") from error
    finally:
        SENT[NAME].add(sent)


def private_door(
    service: PeerService,
    verifier: Verifier,
    *,
    log_requests: bool,
    more: Sequence[Route] = (),
    wall_clock: Callable[[], float] = time.time,
) -> Door:
    """The private door, ready to serve. ``wall_clock`` gives seconds.

    ``more`` are routes of another API for nodes, which check signatures themselves.
    """
    own = PrivateDoor(service, verifier, wall_clock=wall_clock).routes()
    router = Router([*own, *more])
    return Door(NAME, router, render_error, log_requests=log_requests)


def _offset(request: web.BaseRequest, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest(f"{name} is not a number", hint="Write it in digits.")
    return int(text)
