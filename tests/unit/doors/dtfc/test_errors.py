"""Every error has its status and text in dtfc's words."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import tierce.doors.dtfc
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
from tierce.doors.dtfc.errors import TEXTS, Denied, render_error
from tierce.doors.shared.answers import REASONS, lines
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.node.media_probe import NoProber, NotMedia
from tierce.node.peer_loading import Busy
from tierce.node.source_race import Nowhere
from tierce.service.dtfc import Marked

# What a handler may raise. Other doors have errors of their own, which never get here.
RAISED_IN = (
    "tierce.core.", "tierce.blobs.", "tierce.service.dtfc", "tierce.doors.shared.",
    "tierce.doors.dtfc.", "tierce.node.media_", "tierce.node.dtfc_", "tierce.node.loads_reading",
    "tierce.node.peer_loading", "tierce.node.source_race",
)  # fmt: skip

for package in (tierce.doors.shared, tierce.doors.dtfc):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def kinds(base: type[TierceError] = TierceError) -> Iterator[type[TierceError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(RAISED_IN):
            yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str))
def test_every_error_is_in_the_table(kind: type[TierceError]) -> None:
    status, text = TEXTS[kind]
    assert 400 <= status < 600
    assert status in REASONS
    assert text is None or text.endswith(".")


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (NotFound("x", hint="y"), 404, b"404 Not Found.\n"),
        (NoSuchPath("x", hint="y"), 404, b"404 Not Found.\n"),
        (MethodNotAllowed("PATCH", "GET, HEAD"), 404, b"404 Not Found.\n"),
        (Marked("x"), 403, b"403 Forbidden.\n"),
        (Denied("403 Forbidden. Uploading is disabled."), 403,
         b"403 Forbidden. Uploading is disabled.\n"),
        (Busy("x", hint="y"), 503, b"Service Unavailable. Try again in 2 minutes.\n"),
        (Nowhere("x", hint="y"), 502, b"Could not retrieve file.\n"),
        (NotMedia("it is none", hint="y"), 415, b"it is none\ny\n"),
        (NoProber("there is none", hint="y"), 501, b"there is none\ny\n"),
        (BadRequest("it is wrong", hint="Do right."), 400, b"it is wrong\nDo right.\n"),
        (TooLarge("too large"), 413, b"too large\n"),
        (Forbidden("no"), 403, b"no\n"),
        (ReadOnly("read-only"), 503, b"read-only\n"),
        (Unavailable("later", hint="Try again."), 503, b"later\nTry again.\n"),
        (Full("full"), 507, b"full\n"),
        (Corrupt("bad \udcff"), 500, b"bad ?\n"),
        (None, 500, b"Internal server error.\n"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_text_of_an_error_is_exact(error: TierceError | None, status: int, body: bytes) -> None:
    answer = render_error(error)
    assert (answer.status, answer.body) == (status, body)
    assert answer.head.startswith(
        "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
    )


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Unauthenticated("x"), ("WWW-Authenticate", 'Bearer realm="tierce"')),
        (UnsatisfiableRange(5), ("Content-Range", "bytes */5")),
        (Unavailable("x"), ("Retry-After", "1")),
        (Busy("x"), ("Retry-After", "120")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_in_a_header_what_would_do(
    error: TierceError, header: tuple[str, str]
) -> None:
    assert render_error(error).head.endswith(lines([header]))


@pytest.mark.parametrize(
    "error", [MethodNotAllowed("PATCH", "GET"), Nowhere("x"), NoProber("x")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_no_use_is_not_told(error: TierceError) -> None:
    head = render_error(error).head
    assert "Allow" not in head
    assert "Retry-After" not in head


def test_a_slow_client_is_let_go() -> None:
    assert render_error(TooSlow("x"))._close
