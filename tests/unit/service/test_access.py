"""Who may do what."""

import pytest

from tierce.core.errors import Forbidden, Unauthenticated
from tierce.core.rights import ALL_RIGHTS, Right, Token, hash_token
from tierce.service.access import Access

READER = Token("reader", frozenset({Right.READ}), hash_token("reader's text"))
WRITER = Token("writer", frozenset({Right.READ, Right.WRITE}), hash_token("writer's text"))
NOBODY: frozenset[Right] = frozenset()


@pytest.fixture
def access() -> Access:
    return Access([READER, WRITER], NOBODY)


def test_a_right_that_everyone_has_needs_no_token() -> None:
    for right in Right:
        Access([], ALL_RIGHTS).check(None, right)


def test_a_token_opens_what_it_has_the_right_to(access: Access) -> None:
    access.check("Bearer reader's text", Right.READ)
    access.check("bearer  writer's text ", Right.WRITE)


def test_a_token_without_the_right_is_forbidden_by_name(access: Access) -> None:
    with pytest.raises(Forbidden, match="reader"):
        access.check("Bearer reader's text", Right.WRITE)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic reader's text",
        "reader's text",
        f"Bearer {READER.sha256.hex()}",
    ],
)
def test_anything_but_a_known_token_is_no_credential(access: Access, header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        access.check(header, Right.READ)
    assert "reader's text" not in caught.value.message + caught.value.hint


def test_what_everyone_may_do_does_not_depend_on_a_bad_token() -> None:
    Access([READER], frozenset({Right.READ})).check("Bearer wrong", Right.READ)
