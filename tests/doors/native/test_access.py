"""Tokens over HTTP: who is let in where, and how the others are turned away."""

from collections.abc import Iterator

import pytest
from tests.doors.native.node import Node, node_in_thread, problem

from tierce.core.digest import Digest
from tierce.core.rights import Right, Token
from tierce.testing.processes import wait_for

DATA = b"guarded"
BLOB = f"/v1/blobs/{Digest.of(DATA)}"
OTHER = f"/v1/blobs/{Digest.of(b'not here')}"

# Each request with the right that it needs, and its status once it is let in.
REQUESTS = [
    ("GET", BLOB, Right.READ, 200),
    ("HEAD", BLOB, Right.READ, 200),
    ("GET", "/v1/blobs", Right.READ, 200),
    ("GET", "/v1/status", Right.READ, 200),
    ("GET", "/metrics", Right.READ, 200),
    ("PUT", BLOB, Right.WRITE, 200),
    ("POST", "/v1/blobs", Right.WRITE, 201),
    ("DELETE", OTHER, Right.ADMIN, 404),
]
OPEN = ["/", "/v1/health/live", "/v1/health/ready", "/v1/openapi.json"]
EACH = pytest.mark.parametrize(
    ("method", "path", "right", "status"), REQUESTS, ids=[f"{r[0]} {r[1][:11]}" for r in REQUESTS]
)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer the-token-to-{name}"}


def tokens() -> tuple[Token, ...]:
    return tuple(Token.of(r, frozenset({r}), f"the-token-to-{r}") for r in Right)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    data = tmp_path_factory.mktemp("closed") / "data"
    with node_in_thread(data, tokens=tokens()) as running:
        assert running.call("PUT", BLOB, DATA, bearer("write")).status == 201
        yield running


def body_for(method: str) -> bytes | None:
    return DATA if method in ("PUT", "POST") else None


@EACH
def test_the_right_token_lets_in(
    closed: Node, method: str, path: str, right: Right, status: int
) -> None:
    assert closed.call(method, path, body_for(method), bearer(right)).status == status


@EACH
def test_no_other_right_includes_it(
    closed: Node, method: str, path: str, right: Right, status: int
) -> None:
    for other in set(Right) - {right}:
        reply = closed.call(method, path, body_for(method), bearer(other))
        assert reply.status == 403
        assert method == "HEAD" or problem(reply) == "forbidden"
        assert "www-authenticate" not in reply.headers


@EACH
@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic dTpw", "the-token-to-read",
        "Bearer the-token-to-read,", "Bearer \xff\xfe", "Bearer THE-TOKEN-TO-READ",
    ],
)  # fmt: skip
def test_without_a_known_token_it_is_401(
    closed: Node, method: str, path: str, right: Right, status: int, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    reply = closed.call(method, path, body_for(method), headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="tierce"'
    assert method == "HEAD" or problem(reply) == "unauthenticated"


@pytest.mark.parametrize("path", OPEN)
def test_some_pages_are_for_everyone(closed: Node, path: str) -> None:
    assert closed.call("GET", path).status == 200


@pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "Bearer   {}"])
def test_the_scheme_is_read_as_the_standard_says(closed: Node, form: str) -> None:
    headers = {"Authorization": form.format("the-token-to-read")}
    assert closed.call("GET", BLOB, None, headers).status == 200


def test_who_may_not_read_learns_nothing_of_what_is_here(closed: Node) -> None:
    there, not_there = closed.call("GET", BLOB), closed.call("GET", OTHER)
    assert (there.status, there.body) == (not_there.status, not_there.body)
    assert closed.call("GET", "/v1/blobs/nonsense").status == 401


def test_a_token_is_asked_for_before_the_body_is(closed: Node) -> None:
    with closed.wire() as wire:
        wire.request("PUT", OTHER, Content_Length=10**9, Expect="100-continue")
        assert wire.head()[0] == 401
    wait_for(lambda: not any((closed.data / "tmp").iterdir()), "no spool to be there")


def test_a_token_is_never_shown(closed: Node, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("read", "wrong"):
        reply = closed.call("DELETE", OTHER, None, bearer(name))
        assert "the-token-to" not in reply.body.decode()
    assert "the-token-to" not in caplog.text


def test_anonymous_rights_open_what_they_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("reading") / "data"
    anyone = frozenset({Right.READ})
    with node_in_thread(data, tokens=tokens(), anonymous_rights=anyone) as node:
        assert node.call("GET", "/v1/blobs").status == 200
        assert node.call("POST", "/v1/blobs", b"").status == 401
        assert node.call("POST", "/v1/blobs", b"", bearer("write")).status == 201


def test_a_node_without_tokens_is_open(node: Node) -> None:
    assert node.call("POST", "/v1/blobs", DATA).status == 201
    assert node.call("DELETE", BLOB).status == 204
    assert node.call("GET", "/v1/blobs", None, {"Authorization": "Bearer any"}).status == 200
