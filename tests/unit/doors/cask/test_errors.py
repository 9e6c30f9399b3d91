"""Every error has its status and text in Cask's words."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import tierce.doors.cask
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
)
from tierce.doors.cask.errors import (
    TEXTS,
    JoinRefused,
    NotAHeartbeat,
    NotWritten,
    WrongSecret,
    render_error,
)
from tierce.doors.cask.forms import NotJson
from tierce.doors.cask.keys import BadPath, InvalidKey, NotHere
from tierce.doors.shared.answers import REASONS, lines
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed

# What a handler may raise. Other doors have errors of their own, as has the client library.
RAISED_IN = (
    "tierce.core.", "tierce.blobs.", "tierce.service.", "tierce.doors.shared.", "tierce.doors.cask.",
)  # fmt: skip
OTHERS = ("tierce.service.near_cache", "tierce.service.dtfc")

for package in (tierce.doors.shared, tierce.doors.cask):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def kinds(base: type[TierceError] = TierceError) -> Iterator[type[TierceError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(RAISED_IN) and not kind.__module__.startswith(OTHERS):
            yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str))
def test_every_error_is_in_the_table(kind: type[TierceError]) -> None:
    status, _ = TEXTS[kind]
    assert 400 <= status < 600
    assert status in REASONS


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (InvalidKey("x"), 400, b"invalid key\n\n"),
        (BadPath("x"), 400, b"bad request\n"),
        (NotFound("x"), 404, b"not found\n"),
        (NotHere("x"), 404, b"not found\n\n"),
        (WrongSecret("x"), 403, b"sorry, need the secret knock\n"),
        (JoinRefused("x"), 403, b"need to know the secret knock\n"),
        (ReadOnly("x", hint="y"), 503, b"this node is read-only\n"),
        (Full("x"), 503, b"this node is full\n"),
        (NotWritten("x"), 500, b"could not write file\n"),
        (Corrupt("x"), 500, b"error reading file\n"),
        (NotJson("EOF"), 500, b"EOF\n"),
        (NotAHeartbeat("GET", "POST"), 405, b"method not allowed\n"),
        (MethodNotAllowed("PUT", "GET, HEAD"), 405, b"method not supported\n"),
        (TooLarge("x"), 413, b"file too large\n"),
        (BadRequest("it is wrong", hint="Do right."), 400, b"it is wrong\nDo right.\n"),
        (Forbidden("no"), 403, b"no\n"),
        (None, 500, b"internal server error\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_of_an_error_is_exact(error: TierceError | None, status: int, body: bytes) -> None:
    answer = render_error(error)
    assert (answer.status, answer.body) == (status, body)
    assert "Content-Type: text/plain; charset=utf-8\r\n" in answer.head
    assert "X-Content-Type-Options: nosniff\r\n" in answer.head


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Unauthenticated("x"), ("WWW-Authenticate", 'Bearer realm="tierce"')),
        (MethodNotAllowed("PUT", "GET, HEAD"), ("Allow", "GET, HEAD")),
        (UnsatisfiableRange(5), ("Content-Range", "bytes */5")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_in_a_header_what_would_do(
    error: TierceError, header: tuple[str, str]
) -> None:
    assert lines([header]) in render_error(error).head


def test_a_slow_client_is_let_go() -> None:
    assert render_error(TooSlow("x"))._close
