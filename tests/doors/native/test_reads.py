"""GET, HEAD and DELETE of blobs, whole, and with conditions."""

import pytest
from tests.doors.native.node import Node, problem

from tierce.core.digest import ALGORITHMS, Digest
from tierce.doors.shared import digest_fields

LARGE = bytes(range(251)) * 10_000  # 2.4 MiB: a file of several pieces, none like the next
BODIES = pytest.mark.parametrize("data", [b"", b"read me", LARGE], ids=["empty", "small", "large"])
VARYING = {"date", "connection"}


def path(digest: Digest) -> str:
    return f"/v1/blobs/{digest}"


@BODIES
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_get_and_head_say_the_same(node: Node, data: bytes, algorithm: str) -> None:
    digest = node.put(data, algorithm)
    got, head = (node.call(method, path(digest)) for method in ("GET", "HEAD"))
    assert (got.status, got.body, head.status, head.body) == (200, data, 200, b"")
    for each in (got, head):
        assert {name: each.headers[name] for name in set(each.headers) - VARYING} == {
            "accept-ranges": "bytes",
            "cache-control": "max-age=31536000, immutable",
            "content-digest": digest_fields.render(digest),
            "content-length": str(len(data)),
            "content-type": "application/octet-stream",
            "etag": f'"{digest}"',
            "repr-digest": digest_fields.render(digest),
            "x-content-type-options": "nosniff",
        }


@pytest.mark.parametrize("colon", ["%3A", "%3a"])
def test_the_colon_may_be_percent_encoded(node: Node, colon: str) -> None:
    digest = node.put(b"percent")
    target = path(digest).replace(":", colon)
    assert node.call("GET", target).body == b"percent"
    assert node.call("PUT", target, b"percent").status == 200
    assert node.call("DELETE", target).status == 204


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_what_is_not_here_is_404(node: Node, method: str) -> None:
    reply = node.call(method, path(Digest.of(b"never put")))
    assert reply.status == 404
    assert method == "HEAD" or problem(reply) == "not-found"


def test_the_same_bytes_under_another_algorithm_are_another_blob(node: Node) -> None:
    node.put(b"one name", "sha256")
    assert not node.has(Digest.of(b"one name", "sha1"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "name",
    [
        "nothing", "blake3:", ":", "md5:" + "0" * 32, "sha1:" + "0" * 39, "sha1:" + "0" * 41,
        "sha1:" + "A" * 40, "SHA1:" + "a" * 40, "sha1:" + "0" * 39 + "g", "sha1:" + "%0a" * 40,
        "sha1:" + "0" * 40 + "%0a", "sha1:" + "%D9%A0" * 40, "%00",
    ],
)  # fmt: skip
def test_what_is_no_digest_is_400(node: Node, method: str, name: str) -> None:
    reply = node.call(method, f"/v1/blobs/{name}", b"" if method == "PUT" else None)
    assert reply.status == 400
    assert method == "HEAD" or problem(reply) == "bad-request"


@BODIES
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', 'W/"x", W/{}', "*", ' {} ,, "y"'])
def test_if_none_match_of_it_is_304(node: Node, data: bytes, method: str, form: str) -> None:
    digest = node.put(data)
    tag = f'"{digest}"'
    reply = node.call(method, path(digest), headers={"If-None-Match": form.format(tag)})
    assert (reply.status, reply.headers["etag"]) == (304, tag)
    assert "content-length" not in reply.headers
    assert reply.headers["repr-digest"] == digest_fields.render(digest)


@pytest.mark.parametrize("form", ['"x"', 'W/"x", "y"', "x", "{}", "", '"'])
def test_if_none_match_of_others_sends_the_blob(node: Node, form: str) -> None:
    digest = node.put(b"unlike")
    assert node.get(digest, If_None_Match=form.format(digest)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("form", "status"), [
    ("{}", 200), ("*", 200), ('"x", {}', 200), ('"x"', 412), ("W/{}", 412), ("nonsense", 412),
])  # fmt: skip
def test_if_match(node: Node, method: str, form: str, status: int) -> None:
    digest = node.put(b"if match")
    headers = {"If-Match": form.format(f'"{digest}"')}
    reply = node.call(method, path(digest), headers=headers)
    assert reply.status == status
    assert status == 200 or method == "HEAD" or problem(reply) == "precondition-failed"


def test_conditions_in_several_lines_count_together(node: Node) -> None:
    digest = node.put(b"two lines")
    with node.wire() as wire:
        lines = f'If-None-Match: "x"\r\nIf-None-Match: "{digest}"\r\n'
        wire.send(f"GET {path(digest)} HTTP/1.1\r\nHost: n\r\n{lines}\r\n".encode())
        assert wire.head()[0] == 304


def test_conditions_do_not_hide_that_a_blob_is_not_here(node: Node) -> None:
    digest = Digest.of(b"not here either")
    assert node.get(digest, If_None_Match="*").status == 404
    assert node.get(digest, If_Match="*").status == 404


@BODIES
def test_a_blob_that_is_deleted_is_gone(node: Node, data: bytes) -> None:
    digest = node.put(data, "sha512")
    assert [node.call("DELETE", path(digest)).status for _ in range(2)] == [204, 404]
    assert node.get(digest).status == 404
    assert not node.has(digest)
    assert str(digest) not in node.call("GET", "/v1/blobs").body.decode()
    assert not any(digest.hex in name for name in node.files())


def test_a_blob_that_is_deleted_while_it_is_sent_still_comes_whole(node: Node) -> None:
    data = LARGE * 4  # more than the buffers of a connection hold
    digest = node.put(data)
    with node.wire() as wire:
        wire.request("GET", path(digest))
        status, headers = wire.head()
        first = wire.rest(1000)
        assert node.call("DELETE", path(digest)).status == 204
        assert not node.has(digest)
        assert status == 200
        assert first + wire.rest(int(headers["content-length"]) - 1000) == data
        # The connection is of further use.
        wire.request("GET", path(digest))
        assert wire.reply().status == 404


def test_a_blob_that_is_deleted_can_be_put_again(node: Node) -> None:
    digest = node.put(b"back again")
    node.call("DELETE", path(digest))
    assert node.call("PUT", path(digest), b"back again").status == 201
    assert node.get(digest).body == b"back again"


def test_a_bad_copy_is_never_sent(node: Node) -> None:
    digest = node.put(LARGE, "sha1")
    (file,) = [name for name in node.files() if name.endswith(digest.hex)]
    with (node.data / file).open("r+b") as content:
        content.write(b"\xff")
    reply = node.get(digest)
    assert (reply.status, problem(reply)) == (404, "not-found")
    assert not node.has(digest)
    assert any(name.startswith("quarantine/") for name in node.files())


def test_a_blob_that_goes_bad_midway_breaks_the_connection_off(node: Node) -> None:
    digest = node.put(LARGE, "sha256")
    (file,) = [name for name in node.files() if name.endswith(digest.hex)]
    with (node.data / file).open("r+b") as content:
        content.seek(len(LARGE) - 1)
        content.write(b"\xff")
    reply = node.get(digest)
    assert reply.status == 200
    assert not reply.complete
    assert LARGE.startswith(reply.body)
    assert node.get(digest).status == 404
