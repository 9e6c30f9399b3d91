"""PUT and POST: what is stored, what is refused, and that nothing is left of what was refused."""

import hashlib
from base64 import b64encode

import pytest
from tests.doors.native.node import Node, problem

from tierce.core.digest import ALGORITHMS, Digest
from tierce.testing.processes import wait_for

LARGE = bytes(range(256)) * 4096 * 3  # 3 MiB: several pieces, and a file


def path(digest: Digest) -> str:
    return f"/v1/blobs/{digest}"


def field(data: bytes, name: str = "sha-256") -> str:
    return f"{name}=:{b64encode(hashlib.new(name.replace('-', ''), data).digest()).decode()}:"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", b"put", LARGE], ids=["empty", "small", "large"])
def test_put_answers_201_and_then_200(node: Node, data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    replies = [node.call("PUT", path(digest), data) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 200]
    for reply in replies:
        assert reply.json == {"digest": str(digest), "size": len(data)}
        assert reply.headers["location"] == path(digest)
        assert reply.headers["etag"] == f'"{digest}"'
    assert node.get(digest).body == data


@pytest.mark.parametrize("data", [b"not this", LARGE[1:]], ids=["small", "large"])
def test_put_of_other_bytes_stores_nothing(node: Node, data: bytes) -> None:
    digest = Digest.of(b"announced")
    before = node.files(), node.call("GET", "/v1/blobs").json
    reply = node.call("PUT", path(digest), data)
    assert (reply.status, problem(reply)) == (422, "digest-mismatch")
    assert str(Digest.of(data)) in reply.json["detail"]
    assert not node.has(digest)
    assert not node.has(Digest.of(data))
    assert (node.files(), node.call("GET", "/v1/blobs").json) == before


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_post_names_the_blob_by_the_algorithm(node: Node, algorithm: str) -> None:
    data = f"posted as {algorithm}".encode()
    reply = node.call("POST", f"/v1/blobs?algorithm={algorithm}", data)
    digest = Digest.of(data, algorithm)
    assert (reply.status, reply.json) == (201, {"digest": str(digest), "size": len(data)})
    assert reply.headers["location"] == path(digest)
    assert node.call("GET", reply.headers["location"]).body == data


def test_post_uses_blake3_unless_told_otherwise(node: Node) -> None:
    reply = node.call("POST", "/v1/blobs", b"by default")
    assert reply.json["digest"] == str(Digest.of(b"by default", "blake3"))


def test_post_of_what_is_here_is_201_again(node: Node) -> None:
    assert [node.call("POST", "/v1/blobs", b"twice").status for _ in range(2)] == [201, 201]


@pytest.mark.parametrize("algorithm", ["md5", "BLAKE3", "", "blake3%00", "sha256:"])
def test_post_with_an_unknown_algorithm_is_refused(node: Node, algorithm: str) -> None:
    reply = node.call("POST", f"/v1/blobs?algorithm={algorithm}", b"by what?")
    assert (reply.status, problem(reply)) == (400, "bad-request")
    assert "blake3, sha1, sha256, sha512" in reply.json["hint"]


@pytest.mark.parametrize("data", [b"chunked", LARGE[::-1]], ids=["small", "large"])
def test_a_chunked_body_is_stored(node: Node, data: bytes) -> None:
    digest = Digest.of(data, "sha512")
    pieces = (data[start : start + 100_000] for start in range(0, len(data), 100_000))
    assert node.call("PUT", path(digest), pieces).status == 201
    assert node.get(digest).body == data


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
def test_a_right_digest_field_is_taken(node: Node, method: str, name: str) -> None:
    data = f"{method} with a right {name}".encode()
    target = path(Digest.of(data)) if method == "PUT" else "/v1/blobs"
    value = f"unknown=:AA==:, {field(data)}, {field(data, 'sha-512')}"
    assert node.call(method, target, data, {name: value}).status == 201


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
def test_a_wrong_digest_field_stores_nothing(node: Node, method: str, name: str) -> None:
    data = f"{method} with a wrong {name}".encode()
    target = path(Digest.of(data)) if method == "PUT" else "/v1/blobs"
    value = f"{field(data)}, {field(b'other', 'sha-512')}"
    reply = node.call(method, target, data, {name: value})
    assert (reply.status, problem(reply)) == (422, "digest-mismatch")
    assert not node.has(Digest.of(data))


@pytest.mark.parametrize("value", ["sha-256", "sha-256=:AAAA:", "sha-256=AAAA", ",,", "=", "\xff"])
def test_a_digest_field_that_is_none_is_refused(node: Node, value: str) -> None:
    reply = node.call("POST", "/v1/blobs", b"digest field", {"Repr-Digest": value})
    assert (reply.status, problem(reply)) == (400, "bad-request")
    assert not node.has(Digest.of(b"digest field"))


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "nonsense"])
def test_an_encoded_body_is_refused(node: Node, method: str, encoding: str) -> None:
    data = b"encoded, perhaps"
    target = path(Digest.of(data)) if method == "PUT" else "/v1/blobs"
    reply = node.call(method, target, data, {"Content-Encoding": encoding})
    assert (reply.status, problem(reply)) == (415, "unsupported-encoding")
    assert not node.has(Digest.of(data))


def test_an_encoding_in_a_second_line_is_refused(node: Node) -> None:
    with node.wire() as wire:
        wire.send(
            b"POST /v1/blobs HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n"
            b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\nabc"
        )
        assert wire.reply().status == 415


def test_a_transfer_coding_that_is_not_undone_is_refused(node: Node) -> None:
    """Its bytes would be stored as they are, compressed: not what the client means by the blob."""
    with node.wire() as wire:
        wire.request("POST", "/v1/blobs", Transfer_Encoding="gzip, chunked")
        wire.send(b"5\r\nfunny\r\n0\r\n\r\n")
        reply = wire.reply()
    assert (reply.status, problem(reply)) == (415, "unsupported-encoding")
    assert not node.has(Digest.of(b"funny"))


def test_the_encoding_identity_is_none(node: Node) -> None:
    assert node.call("POST", "/v1/blobs", b"as is", {"Content-Encoding": "Identity"}).status == 201


def test_a_part_can_not_be_put(node: Node) -> None:
    data = b"a part"
    headers = {"Content-Range": "bytes 0-5/100"}
    reply = node.call("PUT", path(Digest.of(data)), data, headers)
    assert (reply.status, problem(reply)) == (400, "bad-request")
    assert not node.has(Digest.of(data))


def test_put_unless_it_is_here(node: Node) -> None:
    data = b"only once"
    target = path(Digest.of(data))
    replies = [node.call("PUT", target, data, {"If-None-Match": "*"}) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 412]
    assert problem(replies[1]) == "precondition-failed"


def test_put_only_if_it_is_here(node: Node) -> None:
    data = b"only again"
    target = path(Digest.of(data))
    assert node.call("PUT", target, data, {"If-Match": "*"}).status == 412
    assert not node.has(Digest.of(data))
    node.put(data)
    assert node.call("PUT", target, data, {"If-Match": "*"}).status == 200


def test_a_body_over_the_limit_is_refused_before_it_comes(small_node: Node) -> None:
    with small_node.wire() as wire:
        wire.request("POST", "/v1/blobs", Content_Length=4097, Expect="100-continue")
        reply = wire.reply()
        assert (reply.status, problem(reply)) == (413, "too-large")
        assert reply.headers["connection"] == "close"


def test_a_chunked_body_over_the_limit_leaves_nothing(small_node: Node) -> None:
    pieces = [bytes([number]) * 1000 for number in range(5)]
    reply = small_node.call("POST", "/v1/blobs", iter(pieces))
    assert (reply.status, problem(reply)) == (413, "too-large")
    assert small_node.call("GET", "/v1/blobs").json["blobs"] == []
    wait_for(lambda: not any((small_node.data / "tmp").iterdir()), "the spool to be removed")


def test_a_body_is_asked_for_only_once_it_is_wanted(node: Node) -> None:
    with node.wire() as wire:
        wire.request("POST", "/v1/blobs", Content_Length=7, Expect="100-continue")
        assert wire.head() == (100, {})
        wire.send(b"awaited")
        assert wire.reply().status == 201


def test_a_read_only_node_refuses_uploads_and_serves_the_rest(frozen_node: Node) -> None:
    for method, target in (("POST", "/v1/blobs"), ("PUT", path(Digest.of(b"no")))):
        reply = frozen_node.call(method, target, b"no")
        assert (reply.status, problem(reply)) == (503, "read-only")
        assert int(reply.headers["retry-after"]) >= 1
    assert frozen_node.call("GET", "/v1/health/ready").json == {"ready": True, "writable": False}
    status = frozen_node.call("GET", "/v1/status").json
    assert (status["writable"], status["read_only_reason"]) == (False, "this node is read-only")


def test_a_full_node_says_so(full_node: Node) -> None:
    reply = full_node.call("POST", "/v1/blobs", b"no room")
    assert (reply.status, problem(reply)) == (507, "full")
    assert full_node.call("GET", "/v1/health/ready").json["writable"] is False


def test_copies_that_no_cluster_can_hold_are_refused(lonely_node: Node) -> None:
    reply = lonely_node.call("POST", "/v1/blobs", b"two, please")
    assert (reply.status, problem(reply)) == (503, "unavailable")
    assert int(reply.headers["retry-after"]) >= 1
