"""Every error has its status and text in objstore's words."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import tierce.doors.objstore
import tierce.doors.shared
from tierce.core.errors import (
    BadRequest,
    Corrupt,
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
from tierce.doors.objstore.errors import TEXTS, BadLevel, NoId, NotJson, NoUlid, render_error
from tierce.doors.shared.answers import REASONS, lines
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.names.record import Record
from tierce.service.near_cache import Deleted

# What a handler may raise. Other doors have errors of their own, which never get here.
RAISED_IN = (
    "tierce.core.", "tierce.blobs.", "tierce.service.", "tierce.doors.shared.",
    "tierce.doors.objstore.",
)  # fmt: skip

for package in (tierce.doors.shared, tierce.doors.objstore):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def kinds(base: type[TierceError] = TierceError) -> Iterator[type[TierceError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(RAISED_IN) and kind.__module__ != "tierce.service.dtfc":
            yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str))
def test_every_error_is_in_the_table(kind: type[TierceError]) -> None:
    status, text = TEXTS[kind]
    assert 400 <= status < 600
    assert status in REASONS
    assert not text or text.startswith("error: ") or text == "404 page not found"


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (NotFound("x", hint="y"), 404, b""),
        (NoSuchPath("x", hint="y"), 404, b"404 page not found"),
        (MethodNotAllowed("PUT", "GET, HEAD"), 404, b"404 page not found"),
        (NoId("x"), 400, b"error: ID not specified, use /id to get one"),
        (NoUlid("objstore: not a valid ULID: x"), 400, b"error: objstore: not a valid ULID: x"),
        (BadLevel("x"), 400, b"error: objstore: invalid consistency level"),
        (NotJson("x"), 400, b""),
        (BadRequest("it is wrong", hint="Do right."), 400, b"error: it is wrong\nDo right."),
        (TooLarge("too large"), 413, b"error: too large"),
        (Forbidden("no"), 403, b"error: no"),
        (ReadOnly("read-only"), 503, b"error: read-only"),
        (Unavailable("later", hint="Try again."), 503, b"error: later\nTry again."),
        (Full("full"), 507, b"error: full"),
        (Corrupt("bad"), 500, b"error: bad"),
        (NoUlid("\udcff"), 400, b"error: \xff"),
        (None, 500, b""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_of_an_error_is_exact(error: TierceError | None, status: int, body: bytes) -> None:
    answer = render_error(error)
    assert (answer.status, answer.body) == (status, body)
    assert ("Content-Type: text/plain; charset=utf-8\r\n" in answer.head) is bool(body)


def test_a_deleted_file_is_told_by_its_headers() -> None:
    tombstone = Record(bucket="objstore", key="ID", name="a.txt", level=1, deleted=True)
    answer = render_error(Deleted(tombstone))
    assert (answer.status, answer.body) == (404, b"")
    assert answer.head == (
        "X-Meta-Consistencylevel: 1\r\nX-Meta-Deleted: true\r\nX-Meta-Id: ID\r\n"
        "X-Meta-Name: a.txt\r\n"
    )


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Unauthenticated("x"), ("WWW-Authenticate", 'Bearer realm="tierce"')),
        (UnsatisfiableRange(5), ("Content-Range", "bytes */5")),
        (Unavailable("x"), ("Retry-After", "1")),
        (Unavailable("x", retry_after_seconds=7.2), ("Retry-After", "8")),
        (ReadOnly("x"), ("Retry-After", "1")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_in_a_header_what_would_do(
    error: TierceError, header: tuple[str, str]
) -> None:
    assert lines([header]) in render_error(error).head


def test_a_slow_client_is_let_go() -> None:
    assert render_error(TooSlow("x"))._close
