"""What a server's answers mean: the one table from statuses to errors, and the shapes of its JSON.

Pure: bytes and numbers in, values and errors out. Text from the server ends up on terminals, so
it is cut and stripped of control characters here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from tierce.client.retrying import TryAgain, parse_retry_after
from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    Corrupt,
    DigestMismatch,
    Forbidden,
    Full,
    NotFound,
    ReadOnly,
    TierceError,
    TooLarge,
    TooSlow,
    Unauthenticated,
    Unavailable,
)

TEXT_LIMIT_CHARACTERS = 1000

_T = TypeVar("_T")


class Stored(NamedTuple):
    """A blob that the server has: ``size`` in bytes; ``created`` is False if it was there before.

    After a connection that broke, ``created`` may be False though this call stored the blob; of a
    stream the server says True in either case.
    """

    digest: Digest
    size: int
    created: bool


class Entry(NamedTuple):
    """One line of a listing: ``size`` in bytes."""

    digest: Digest
    size: int


class Page(NamedTuple):
    """A part of a listing; pass ``next`` as ``after`` to get what follows. None: nothing follows."""

    entries: tuple[Entry, ...]
    next: Digest | None


class Healing(msgspec.Struct, frozen=True):
    """How healing goes on a node: ``below_target`` counts blobs; ``last_pass`` is None or in UTC."""

    below_target: int
    last_pass: str | None = None


class Disk(msgspec.Struct, frozen=True):
    """A node's disk: room on it in bytes."""

    free_bytes: int


class NodeStatus(msgspec.Struct, frozen=True):
    """A node's own account: its blobs, and their size together in bytes."""

    blobs: int
    blob_bytes: int
    disk: Disk
    healing: Healing | None = None


class ClusterNode(msgspec.Struct, frozen=True):
    """A node of the cluster. ``state`` is alive, suspect or down; without a status it gave none."""

    node_id: str
    state: str
    dialect: str = "tierce"
    private: str = ""
    native: str = ""
    cask: str = ""
    zone: str = ""
    writable: bool = True
    draining: bool = False
    drained: bool = False
    down_seconds: float | None = None
    status: NodeStatus | None = None


class Overview(msgspec.Struct, frozen=True):
    """The cluster as a node sees it. ``settled`` says that healing has nothing to do."""

    replication: int
    max_replication: int
    blobs: int
    below_target: int
    at_target: int
    over_target: int
    bytes_to_move: int
    estimated_seconds: float | None
    settled: bool
    nodes: list[ClusterNode]
    warnings: list[str] = []


class _StoredAnswer(msgspec.Struct):
    digest: str
    size: int


class _PageAnswer(msgspec.Struct):
    blobs: list[_StoredAnswer]
    next: str | None = None


class _Problem(msgspec.Struct):
    """An RFC 9457 problem; every member is optional, and a wrong one spoils only the message."""

    type: str = ""
    title: str = ""
    detail: str = ""
    hint: str = ""
    reason: str = ""  # CouchDB's own
    error: str = ""  # that of SOS's doors; CouchDB's says less than its reason


# What an error is when the server gives no reason of its own.
_ERRORS: dict[int, tuple[type[TierceError], str, str]] = {
    400: (BadRequest, "the server can't carry out the request", ""),
    401: (
        Unauthenticated,
        "the server asks for a token that it knows",
        "Give the client a valid token.",
    ),
    403: (Forbidden, "the token lacks the right to do this", "Use a token with that right."),
    404: (NotFound, "not found", ""),
    408: (TooSlow, "the bytes came too slowly for the server", "Try again on a better connection."),
    409: (Conflict, "the state of the store forbids it", ""),
    412: (Conflict, "a precondition failed", ""),
    413: (TooLarge, "larger than the server accepts", ""),
    414: (TooLarge, "larger than the server accepts", ""),
    422: (DigestMismatch, "the bytes that came don't match the digest", "Send them again."),
    429: (TryAgain, "the server is too busy", "Try again later."),
    431: (TooLarge, "larger than the server accepts", ""),
    500: (Unavailable, "the server failed", "Look at the server's log."),
    502: (TryAgain, "a gateway can't reach the server", "Try again later."),
    503: (TryAgain, "the server can't do this now", "Try again later."),
    504: (TryAgain, "a gateway can't reach the server", "Try again later."),
    507: (Full, "the server has no room left", "Free some space or add a disk on the server."),
}
# Problems whose name says more than their status.
_ERRORS_BY_NAME: dict[str, type[TierceError]] = {"corrupt": Corrupt, "read-only": ReadOnly}


def error(subject: str, status: int, headers: Mapping[str, str], body: bytes) -> TierceError:
    """The error that an answer of 300 or more stands for. ``subject`` names what was asked."""
    if status < 400:
        return BadRequest(
            f"the server sends us on to {_plain(headers.get('Location', 'elsewhere'))}",
            hint="Use the address of the node itself.",
        )
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    kind, message, hint = _ERRORS.get(status) or (
        (BadRequest if status < 500 else Unavailable),
        f"the server answered {status}",
        "",
    )
    kind = _ERRORS_BY_NAME.get(problem.type.rpartition("/")[2], kind)
    told = _plain(problem.detail or problem.title)
    if not told and (problem.reason or problem.error):
        told = f"{subject}: {_plain(problem.reason or problem.error)}"
    if not told and headers.get("Content-Type", "").startswith("text/plain"):
        said = _plain(body[:TEXT_LIMIT_CHARACTERS].decode(errors="replace").strip())
        told = f"{subject}: {said}" if said else ""
    message = told or f"{subject}: {message}"
    hint = _plain(problem.hint) or hint
    if kind is TryAgain:
        wait = parse_retry_after(headers.get("Retry-After"), datetime.now(UTC))
        return TryAgain(message, hint=hint, retry_after_seconds=wait)
    return kind(message, hint=hint)


def stored(status: int, body: bytes) -> Stored:
    """Read the answer to an upload. Raises Unavailable if a node can't have written it."""
    answer = decoded(body, _StoredAnswer)
    return Stored(parsed_digest(answer.digest), answer.size, created=status == 201)


def page(body: bytes) -> Page:
    """Read one page of a listing. Raises Unavailable if a node can't have written it."""
    answer = decoded(body, _PageAnswer)
    return Page(
        tuple(Entry(parsed_digest(blob.digest), blob.size) for blob in answer.blobs),
        None if answer.next is None else parsed_digest(answer.next),
    )


def json_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises Unavailable if it is none."""
    return decoded(body, dict[str, Any])


def overview(content: dict[str, Any]) -> Overview:
    """Read what ``Client.cluster`` gave. Raises Unavailable if a node can't have written it."""
    try:
        return msgspec.convert(content, Overview)
    except msgspec.ValidationError as problem:
        raise foreign(str(problem)) from problem


def foreign(reason: str) -> Unavailable:
    """The error for an answer that isn't one of ours."""
    return Unavailable(
        f"the answer is not a Tierce node's: {_plain(reason)}",
        hint="Check that the address is that of a native door.",
    )


def decoded(body: bytes, kind: type[_T]) -> _T:
    """Read JSON. Raises Unavailable if a node can't have written it."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as problem:
        raise foreign(str(problem)) from problem


def parsed_digest(text: str) -> Digest:
    """Read a digest that a server sent. Raises Unavailable if it is none."""
    try:
        return Digest.parse(text)
    except BadRequest as problem:
        raise foreign(problem.message) from problem


def _plain(text: str) -> str:
    """Foreign text made fit for a terminal: cut, and nothing but printable characters in one line."""
    cut = text[:TEXT_LIMIT_CHARACTERS]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
