"""Every error has its status at each SOS door, in the words of that door."""

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest

import tierce.doors.shared
import tierce.doors.sos
from tierce.core.errors import (
    BadRequest,
    Corrupt,
    Full,
    NotFound,
    ReadOnly,
    TierceError,
    TooSlow,
    Unauthenticated,
    Unavailable,
)
from tierce.doors.shared.answers import REASONS, lines
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed, NoSuchPath
from tierce.doors.sos.errors import STATUS, blob_error, download_error, upload_error

# What a handler may raise. Other doors have errors of their own, which never get here.
RAISED_IN = ("tierce.core.", "tierce.blobs.", "tierce.doors.shared.", "tierce.doors.sos.")

for package in (tierce.doors.shared, tierce.doors.sos):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

DOORS = [upload_error, download_error, blob_error]


def kinds(base: type[TierceError] = TierceError) -> Iterator[type[TierceError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(RAISED_IN):
            yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(set(kinds()), key=str))
def test_every_error_is_in_the_table(kind: type[TierceError]) -> None:
    assert 400 <= STATUS[kind] < 600
    assert STATUS[kind] in REASONS


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (BadRequest("it is wrong", hint="Do right."), 400, "it is wrong. Do right."),
        (ReadOnly("read-only"), 503, "read-only"),
        (Unavailable("later"), 503, "later"),
        (Full("full"), 507, "full"),
        (Corrupt("bad \udcff"), 500, "bad \udcff"),
        (None, 500, "the node failed to answer: see its log"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_told_as_json_or_as_text(
    error: TierceError | None, status: int, text: str
) -> None:
    for render in (upload_error, blob_error):
        answer = render(error)
        assert answer.status == status
        assert json.loads(answer.body) == {"error": text, "status": "FAILED"}
    answer = download_error(error)
    assert (answer.status, answer.body) == (status, text.encode(errors="backslashreplace"))


@pytest.mark.parametrize(
    "error", [NotFound("x"), NoSuchPath("x"), MethodNotAllowed("PUT", "GET, HEAD")]
)
def test_what_is_not_there_is_404_in_three_bytes(error: TierceError) -> None:
    for render in (download_error, blob_error):
        answer = render(error)
        assert (answer.status, answer.body) == (404, b"404")
        assert "Allow" not in answer.head
    assert upload_error(error).status == 404
    assert json.loads(upload_error(error).body)["status"] == "FAILED"


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Unauthenticated("x"), ("WWW-Authenticate", 'Bearer realm="tierce"')),
        (UnsatisfiableRange(5), ("Content-Range", "bytes */5")),
        (Unavailable("x"), ("Retry-After", "1")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_in_a_header_what_would_do(
    error: TierceError, header: tuple[str, str]
) -> None:
    for render in DOORS:
        assert lines([header]) in render(error).head


def test_a_slow_client_is_let_go() -> None:
    assert all(render(TooSlow("x"))._close for render in DOORS)
