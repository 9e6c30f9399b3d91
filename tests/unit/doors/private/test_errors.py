"""Every error has its status, and travels under a name that the other node can raise."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import tierce.doors.private
import tierce.doors.shared
from tierce.cluster.signing import BadSignature
from tierce.core import codec, errors
from tierce.core.errors import (
    BadRequest,
    Conflict,
    DigestMismatch,
    Forbidden,
    Full,
    NotFound,
    ReadOnly,
    TierceError,
    TooLarge,
    TooSlow,
    Unavailable,
)
from tierce.doors.private.errors import STATUS, render_error
from tierce.doors.shared.answers import REASONS
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.door import status_of
from tierce.doors.shared.router import NoSuchPath
from tierce.node.http_transport import Refusal

# What a handler may raise, by where it is defined.
OWN_STATUS_IN = ("tierce.core.", "tierce.blobs.", "tierce.doors.shared.", "tierce.doors.private.")
RAISED_IN = (*OWN_STATUS_IN, "tierce.cluster.", "tierce.node.", "tierce.service.")

for package in (tierce.doors.shared, tierce.doors.private):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def kinds(base: type[TierceError] = TierceError) -> Iterator[type[TierceError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(RAISED_IN):
            yield kind
        yield from kinds(kind)


def made(kind: type[TierceError]) -> TierceError:
    """An error of that class, whatever its constructor asks for."""
    error = kind.__new__(kind)
    TierceError.__init__(error, "what happened", hint="Do this.")
    for name in inspect.signature(kind.__init__).parameters:
        error.__dict__.setdefault(name, "x")
    error.__dict__["content_range"] = "x"
    error.__dict__["retry_after_seconds"] = 1.5
    return error


ALL = sorted(set(kinds()), key=str)


@pytest.mark.parametrize(
    "kind", [each for each in ALL if each.__module__.startswith(OWN_STATUS_IN)]
)
def test_every_error_is_in_the_table(kind: type[TierceError]) -> None:
    assert 400 <= STATUS[kind] < 600


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_a_status_and_the_name_of_a_core_error(kind: type[TierceError]) -> None:
    answer = render_error(made(kind))
    assert answer.status in REASONS
    assert answer.status == status_of(made(kind), STATUS)
    refusal = codec.decode(answer.body, Refusal, "refusal")
    assert issubclass(kind, getattr(errors, refusal.error))
    assert (refusal.message, refusal.hint) == ("what happened", "Do this.")


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (NotFound("x"), 404, "NotFound"),
        (NoSuchPath("x"), 404, "NotFound"),
        (Conflict("x"), 409, "Conflict"),
        (Full("x"), 507, "Full"),
        (ReadOnly("x"), 503, "ReadOnly"),
        (Forbidden("x"), 403, "Forbidden"),
        (BadSignature("x", reason="wrong", hint="y"), 403, "Forbidden"),
        (TooLarge("x"), 413, "TooLarge"),
        (HeadersTooLarge("x"), 431, "BadRequest"),
        (DigestMismatch("x"), 422, "DigestMismatch"),
        (BadRequest("x"), 400, "BadRequest"),
        (Unavailable("x"), 503, "Unavailable"),
        (None, 500, "Unavailable"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_travels_under_its_nearest_name(
    error: TierceError | None, status: int, name: str
) -> None:
    answer = render_error(error)
    assert answer.status == status
    assert codec.decode(answer.body, Refusal, "refusal").error == name


def test_a_slow_node_is_let_go() -> None:
    assert render_error(TooSlow("x"))._close
