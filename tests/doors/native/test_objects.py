"""Named objects: put, read, replace, delete, and the headers that go with them."""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from tests.doors.native.node import Node, object_path, problem
from tests.doors.native.object_node import NODE_ID, ObjectNode

from tierce.core.digest import Digest
from tierce.core.errors import Full, Unavailable
from tierce.core.limits import METADATA_BYTES, OBJECT_KEY_BYTES
from tierce.names.record import Record
from tierce.testing.calls import Reply

DATA = b"what an object holds"
LARGE = bytes(range(256)) * 4096
TYPE = "text/plain; charset=utf-8"


@pytest.fixture
def node(objects: ObjectNode) -> Node:
    return objects.node


def get(node: Node, bucket: str, key: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return node.call("GET", object_path(bucket, key), headers=named)


def test_what_is_put_is_got(node: Node) -> None:
    reply = node.put_object("photos", "a/b.txt", DATA, Content_Type=TYPE)
    assert reply.status == 201
    etag = f'"{Digest.of(DATA)}"'
    assert reply.headers["etag"] == etag
    assert reply.headers["location"] == "/v1/buckets/photos/objects/a/b.txt"
    found = get(node, "photos", "a/b.txt")
    assert (found.status, found.body) == (200, DATA)
    assert found.headers["content-type"] == TYPE
    assert found.headers["etag"] == etag
    assert found.headers["cache-control"] == "no-cache"
    assert found.headers["repr-digest"] == found.headers["content-digest"]


def test_the_answer_to_an_upload_says_all_of_it(objects: ObjectNode) -> None:
    headers = {"Content-Type": TYPE, "Tierce-Meta-Camera": "X100"}
    reply = objects.node.call("PUT", object_path("photos", "says"), DATA, headers)
    record = objects.index.get("photos", "says")
    assert record is not None
    content = json.loads(reply.body)
    seconds, rest = content.pop("modified").split(".")
    assert content == {
        "bucket": "photos",
        "key": "says",
        "digest": str(Digest.of(DATA)),
        "size": len(DATA),
        "content_type": TYPE,
        "metadata": {"camera": "X100"},
        "timestamp": str(record.timestamp),
        "node": NODE_ID,
    }
    whole = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
    assert rest.endswith("Z")
    assert whole * 10**9 + int(rest[:-1]) == record.timestamp


def test_a_second_upload_replaces_and_says_so(node: Node) -> None:
    assert node.put_object("photos", "again", b"one", Content_Type=TYPE).status == 201
    assert node.put_object("photos", "again", b"two").status == 200
    reply = get(node, "photos", "again")
    assert reply.body == b"two"
    assert reply.headers["content-type"] == "application/octet-stream"


def test_a_large_object_comes_whole_and_in_ranges(node: Node) -> None:
    node.put_object("photos", "large", LARGE, Content_Type="image/png")
    assert get(node, "photos", "large").body == LARGE
    part = get(node, "photos", "large", Range="bytes=1000-1999")
    assert (part.status, part.body) == (206, LARGE[1000:2000])
    assert part.headers["content-type"] == "image/png"
    several = get(node, "photos", "large", Range="bytes=0-9,100-109")
    assert several.status == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert several.body.count(b"Content-Type: image/png") == 2
    assert get(node, "photos", "large", Range=f"bytes={len(LARGE)}-").status == 416


def test_a_range_of_another_version_is_not_sent(node: Node) -> None:
    etag = node.put_object("photos", "if-range", b"first").headers["etag"]
    node.put_object("photos", "if-range", b"second")
    reply = get(node, "photos", "if-range", Range="bytes=0-1", If_Range=etag)
    assert (reply.status, reply.body) == (200, b"second")


def test_head_tells_what_get_would(node: Node) -> None:
    node.put_object("photos", "head", DATA, Content_Type=TYPE, Tierce_Meta_A="b")
    head = node.call("HEAD", object_path("photos", "head"))
    found = get(node, "photos", "head")
    left_out = {"date"}
    assert head.status == 200
    assert {k: v for k, v in head.headers.items() if k not in left_out} == {
        k: v for k, v in found.headers.items() if k not in left_out
    }


def test_an_empty_object_is_an_object(node: Node) -> None:
    assert node.put_object("photos", "empty").status == 201
    assert get(node, "photos", "empty").body == b""


def test_a_browser_runs_nothing_of_an_object(node: Node) -> None:
    node.put_object("photos", "page.html", b"<script>", Content_Type="text/html")
    for method in ("GET", "HEAD"):
        headers = node.call(method, object_path("photos", "page.html")).headers
        assert headers["content-security-policy"] == "sandbox"
        assert headers["x-content-type-options"] == "nosniff"


def test_deleted_is_gone(node: Node) -> None:
    node.put_object("photos", "gone", DATA)
    assert node.call("DELETE", object_path("photos", "gone")).status == 204
    for method in ("GET", "HEAD", "DELETE"):
        assert node.call(method, object_path("photos", "gone")).status == 404
    assert node.put_object("photos", "gone", DATA).status == 201


def test_what_never_was_is_not_found(node: Node) -> None:
    assert problem(get(node, "photos", "never")) == "not-found"
    assert problem(get(node, "no-bucket", "never")) == "not-found"


@pytest.mark.parametrize(
    "key",
    ["..", ".", "a/../b", "../a", "a//b", "/a", "a/", "a b", "a+b", "a%2Fb", "%", "%zz", "ü", "日本",
     "?", "a?b=c", "#", "a#b", "a;b", "&=", "\x01\x7f", "\r\n", "'\"<>", "~", "\U0001f600", "\ufeff"],
    ids=ascii,
)  # fmt: skip
def test_any_key_comes_back_as_it_was(objects: ObjectNode, key: str) -> None:
    data = key.encode()
    reply = objects.node.put_object("odd-keys", key, data)
    assert reply.status == 201
    assert json.loads(reply.body)["key"] == key
    record = objects.index.get("odd-keys", key)
    assert record is not None
    assert record.digest == Digest.of(data)
    assert get(objects.node, "odd-keys", key).body == data
    assert objects.node.call("GET", reply.headers["location"]).body == data


def test_slashes_and_dots_may_stand_in_the_path_as_they_are(objects: ObjectNode) -> None:
    path = "/v1/buckets/plain-keys/objects/a/../b//c"
    assert objects.node.call("PUT", path, DATA).status == 201
    assert objects.index.get("plain-keys", "a/../b//c") is not None
    assert objects.index.get("plain-keys", "b/c") is None


def test_a_location_has_no_part_that_clients_resolve(node: Node) -> None:
    location = node.put_object("odd-keys", "x/../y", DATA).headers["location"]
    assert location.endswith("/objects/x%2F..%2Fy")


@pytest.mark.parametrize("escaped", ["%ff", "%", "%2", "a%zz", "%C3", "%ED%A0%80", "%00", "a%00b"])
def test_a_key_that_can_not_be_unescaped_is_refused(node: Node, escaped: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        reply = node.call(method, f"/v1/buckets/photos/objects/{escaped}")
        assert problem(reply) == "bad-request"


def test_an_empty_key_is_refused(node: Node) -> None:
    assert problem(node.call("PUT", "/v1/buckets/photos/objects/", DATA)) == "bad-request"


def test_a_bucket_with_an_escaped_slash_is_no_other_bucket(node: Node) -> None:
    node.put_object("aaa", "objects/k", DATA)
    reply = node.call("GET", "/v1/buckets/aaa%2Fobjects%2Fbbb/objects/k")
    assert problem(reply) == "bad-request"
    for path in ("/v1/buckets%2Faaa/objects/objects/k", "/v1/buckets/aaa/objects%2Fobjects/k"):
        assert problem(node.call("GET", path)) == "no-such-path"


def test_keys_have_a_limit_in_bytes(node: Node) -> None:
    longest = "ü" * (OBJECT_KEY_BYTES // 2)
    assert node.put_object("photos", longest, DATA).status == 201
    assert get(node, "photos", longest).body == DATA
    for method in ("GET", "PUT", "DELETE"):
        reply = node.call(method, object_path("photos", longest + "x"))
        assert problem(reply) == "too-large"


@pytest.mark.parametrize("bucket", ["ab", "Photos", "-ab", "a..b", "a_b", "a" * 64, "ü12"])
def test_what_can_not_name_a_bucket_is_refused(node: Node, bucket: str) -> None:
    escaped = "%C3%BC12" if bucket == "ü12" else bucket
    for method in ("GET", "PUT", "DELETE"):
        assert problem(node.call(method, f"/v1/buckets/{escaped}/objects/k")) == "bad-request"
    assert problem(node.call("GET", f"/v1/buckets/{escaped}/objects")) == "bad-request"


def test_the_near_cache_is_read_here_and_not_written(objects: ObjectNode) -> None:
    node = objects.node
    assert problem(node.put_object("objstore", "k", DATA)) == "bad-request"
    node.put_object("photos", "twin", DATA)
    odd = Record(
        bucket="objstore",
        key="k",
        digest=Digest.of(DATA),
        size=len(DATA),
        level=1,
        content_type="no\r\ntype",
        metadata={"Mixed Case": " a%\r\nSet-Cookie: ü "},
    )
    objects.write(odd)
    reply = get(node, "objstore", "k")
    assert reply.body == DATA
    assert reply.headers["content-type"] == "application/octet-stream"
    value = reply.headers["tierce-meta-%4dixed%20%43ase"]
    assert value == "%20a%25%0D%0ASet-Cookie: %C3%BC%20"
    assert "set-cookie" not in reply.headers
    # What was sent comes back as the same names and values when it is sent on.
    headers = {name: value for name, value in reply.headers.items() if "tierce-meta" in name}
    node.call("PUT", object_path("photos", "copy"), DATA, headers)
    copy = objects.index.get("photos", "copy")
    assert copy is not None
    assert copy.metadata == odd.metadata
    assert node.call("DELETE", object_path("objstore", "k")).status == 204


def test_metadata_comes_back_without_regard_to_case(node: Node) -> None:
    headers = {
        "TIERCE-META-Title": "Gr%C3%BC%C3%9Fe, 100%25",
        "tierce-meta-x": "",
        "Tierce-Meta-Raw": "grün".encode().decode("latin-1"),
    }
    reply = node.call("PUT", object_path("photos", "meta"), DATA, headers)
    expected = {"title": "Grüße, 100%", "x": "", "raw": "grün"}
    assert json.loads(reply.body)["metadata"] == expected
    found = get(node, "photos", "meta").headers
    assert found["tierce-meta-title"] == "Gr%C3%BC%C3%9Fe, 100%25"
    assert found["tierce-meta-x"] == ""
    assert found["tierce-meta-raw"] == "gr%C3%BCn"


@pytest.mark.parametrize(
    "headers",
    [{"Tierce-Meta-": "a"}, {"Tierce-Meta-A": "100%"}, {"Tierce-Meta-A": "%ff"},
     {"Tierce-Meta-A": "\xff"}, {"Tierce-Meta-A": "1", "tierce-meta-%41": "2", "TIERCE-META-%61": ""},
     {"Content-Type": "text"}, {"Content-Type": "te xt/plain"}, {"Content-Range": "bytes 0-1/2"}],
    ids=str,
)  # fmt: skip
def test_headers_that_can_not_be_kept_are_refused(
    objects: ObjectNode, headers: dict[str, str]
) -> None:
    reply = objects.node.call("PUT", object_path("photos", "refused"), DATA, headers)
    assert problem(reply) == "bad-request"
    assert objects.index.get("photos", "refused") is None


def test_metadata_has_a_limit(node: Node) -> None:
    fits = {"Tierce-Meta-A": "x" * (METADATA_BYTES - 1)}
    assert node.call("PUT", object_path("photos", "long"), DATA, fits).status == 201
    too_much = {**fits, "Tierce-Meta-B": ""}
    assert problem(node.call("PUT", object_path("photos", "long"), DATA, too_much)) == "too-large"


def test_an_encoded_body_is_refused(node: Node) -> None:
    reply = node.put_object("photos", "gzip", DATA, Content_Encoding="gzip")
    assert problem(reply) == "unsupported-encoding"


def test_a_digest_that_does_not_fit_keeps_what_there_was(node: Node) -> None:
    node.put_object("photos", "checked", b"old")
    wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    for name in ("Content-Digest", "Repr-Digest"):
        reply = node.call("PUT", object_path("photos", "checked"), DATA, {name: wrong})
        assert problem(reply) == "digest-mismatch"
    assert get(node, "photos", "checked").body == b"old"
    assert node.put_object("photos", "checked", b"", Content_Digest=wrong).status == 200


def test_a_body_over_the_limit_is_refused(fresh_objects: ObjectNode) -> None:
    assert problem(fresh_objects.node.put_object("photos", "k", bytes(4097))) == "too-large"
    chunked = iter([bytes(4000), bytes(97)])
    reply = fresh_objects.node.call("PUT", object_path("photos", "k"), chunked)
    assert problem(reply) == "too-large"
    assert get(fresh_objects.node, "photos", "k").status == 404


def test_errors_of_the_way_are_passed_on(fresh_objects: ObjectNode) -> None:
    fresh_objects.node.put_object("photos", "k", DATA)
    for error, kind, status in (
        (Unavailable("too few nodes", hint="Wait."), "unavailable", 503),
        (Full("no room", hint="Add a disk."), "full", 507),
    ):
        fresh_objects.path.trouble = error
        for method in ("PUT", "DELETE"):
            reply = fresh_objects.node.call(method, object_path("photos", "k"), b"new")
            assert (problem(reply), reply.status) == (kind, status)
    fresh_objects.path.trouble = None
    assert get(fresh_objects.node, "photos", "k").body == DATA


def test_if_none_match_star_creates_only(node: Node) -> None:
    assert node.put_object("photos", "once", b"1", If_None_Match="*").status == 201
    reply = node.put_object("photos", "once", b"2", If_None_Match="*")
    assert problem(reply) == "precondition-failed"
    assert get(node, "photos", "once").body == b"1"
    node.call("DELETE", object_path("photos", "once"))
    assert node.put_object("photos", "once", b"3", If_None_Match="*").status == 201


def test_if_match_replaces_only_what_is_known(node: Node) -> None:
    assert problem(node.put_object("photos", "cas", b"0", If_Match="*")) == "precondition-failed"
    first = node.put_object("photos", "cas", b"1").headers["etag"]
    second = node.put_object("photos", "cas", b"2", If_Match=first).headers["etag"]
    reply = node.put_object("photos", "cas", b"3", If_Match=first)
    assert problem(reply) == "precondition-failed"
    assert problem(node.put_object("photos", "cas", b"3", If_None_Match=second)) == (
        "precondition-failed"
    )
    assert node.put_object("photos", "cas", b"3", If_Match=f'"x", {second}').status == 200
    assert node.put_object("photos", "cas", b"4", If_Match="*").status == 200


def test_a_delete_may_have_a_condition(node: Node) -> None:
    etag = node.put_object("photos", "cad", b"1").headers["etag"]
    other = node.put_object("photos", "cad", b"2").headers["etag"]
    path = object_path("photos", "cad")
    reply = node.call("DELETE", path, headers={"If-Match": etag})
    assert problem(reply) == "precondition-failed"
    assert node.call("DELETE", path, headers={"If-Match": other}).status == 204
    assert node.call("DELETE", path, headers={"If-Match": other}).status == 404


def test_a_condition_is_weighed_when_the_write_takes_place(fresh_objects: ObjectNode) -> None:
    """Another writer comes between the first look and the change."""
    node = fresh_objects.node
    etag = node.put_object("photos", "race", b"1").headers["etag"]
    other = Record(bucket="photos", key="race", digest=Digest.of(b"other"), size=5)
    done: list[bool] = []

    def interfere() -> None:
        if not done:
            done.append(True)
            write = fresh_objects.index.write(other, now=0)
            with pytest.raises(StopIteration):  # it waits for nothing
                write.send(None)

    fresh_objects.path.before_write = interfere
    reply = node.put_object("photos", "race", b"2", If_Match=etag)
    assert problem(reply) == "precondition-failed"
    record = fresh_objects.index.get("photos", "race")
    assert record is not None
    assert record.digest == other.digest


def test_created_is_what_the_write_saw(fresh_objects: ObjectNode) -> None:
    other = Record(bucket="photos", key="race", digest=Digest.of(b"other"), size=5)

    def interfere() -> None:
        with pytest.raises(StopIteration):
            fresh_objects.index.write(other, now=0).send(None)

    fresh_objects.path.before_write = interfere
    assert fresh_objects.node.put_object("photos", "race", b"2").status == 200


def test_a_failed_condition_is_answered_before_the_body(node: Node) -> None:
    node.put_object("photos", "early", DATA)
    with node.wire() as wire:
        wire.request(
            "PUT", "/v1/buckets/photos/objects/early", Content_Length=5, If_None_Match="*",
            Expect="100-continue",
        )  # fmt: skip
        assert wire.reply().status == 412


def test_unchanged_is_304(node: Node) -> None:
    etag = node.put_object("photos", "same", DATA).headers["etag"]
    for method in ("GET", "HEAD"):
        path = object_path("photos", "same")
        reply = node.call(method, path, headers={"If-None-Match": etag})
        assert reply.status == 304
        assert reply.headers["etag"] == etag
        assert node.call(method, path, headers={"If-None-Match": '"x"'}).status == 200
        assert node.call(method, path, headers={"If-Match": '"x"'}).status == 412


def test_dates_count_where_there_are_no_tags(node: Node) -> None:
    etag = node.put_object("photos", "dated", DATA).headers["etag"]
    modified = get(node, "photos", "dated").headers["last-modified"]
    earlier = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)
    for headers, status in (
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": earlier}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": modified, "If-None-Match": '"x"'}, 200),
        ({"If-Modified-Since": earlier, "If-None-Match": etag}, 304),
        ({"If-Unmodified-Since": modified}, 200),
        ({"If-Unmodified-Since": earlier}, 412),
        ({"If-Unmodified-Since": earlier, "If-Match": etag}, 200),
        ({"If-Unmodified-Since": "yesterday"}, 200),
    ):
        for method in ("GET", "HEAD"):
            reply = node.call(method, object_path("photos", "dated"), headers=headers)
            assert reply.status == status, headers
    old = {"If-Unmodified-Since": earlier}
    assert node.call("PUT", object_path("photos", "dated"), b"x", old).status == 412
    assert node.call("DELETE", object_path("photos", "dated"), headers=old).status == 412
    assert node.call("PUT", object_path("photos", "undated"), b"x", old).status == 201
    new = {"If-Unmodified-Since": modified}
    assert node.call("DELETE", object_path("photos", "dated"), headers=new).status in (204, 412)


def test_last_modified_is_when_the_content_was_written(objects: ObjectNode) -> None:
    objects.node.put_object("photos", "twin", DATA)
    long_ago = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
    objects.write(
        Record(
            bucket="photos",
            key="old",
            digest=Digest.of(DATA),
            size=len(DATA),
            modified=int(long_ago.timestamp()) * 10**9 + 5,
        )
    )
    headers = get(objects.node, "photos", "old").headers
    assert headers["last-modified"] == "Mon, 03 Feb 2020 04:05:06 GMT"
    page = objects.node.call("GET", "/v1/buckets/photos/objects?prefix=old").json
    assert page["objects"][0]["modified"] == "2020-02-03T04:05:06.000000005Z"


def test_last_modified_is_never_in_the_future(objects: ObjectNode) -> None:
    objects.node.put_object("photos", "twin", DATA)
    ahead = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 10**9
    objects.write(
        Record(bucket="photos", key="ahead", digest=Digest.of(DATA), size=len(DATA), modified=ahead)
    )
    headers = get(objects.node, "photos", "ahead").headers
    assert parsedate_to_datetime(headers["last-modified"]) <= parsedate_to_datetime(headers["date"])


RIGHTS = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "write"}


@pytest.mark.parametrize("method", RIGHTS)
def test_each_method_needs_its_right(guarded_objects: ObjectNode, method: str) -> None:
    path = "/v1/buckets/photos/objects/%zz"  # rights are checked before the name is read
    node = guarded_objects.node
    assert node.call(method, path).status == 401
    for right in ("read", "write", "admin"):
        reply = node.call(method, path, headers={"Authorization": f"Bearer {right}"})
        assert reply.status == (400 if right == RIGHTS[method] else 403)


@pytest.mark.parametrize("path", ["/v1/buckets/A/objects", "/v1/buckets", "/v1/changes?wait=x"])
def test_lists_need_the_right_to_read(guarded_objects: ObjectNode, path: str) -> None:
    node = guarded_objects.node
    assert node.call("GET", path).status == 401
    for right in ("write", "admin"):
        assert node.call("GET", path, headers={"Authorization": f"Bearer {right}"}).status == 403
    assert node.call("GET", path, headers={"Authorization": "Bearer read"}).status in (200, 400)


def test_other_methods_are_refused(node: Node) -> None:
    assert problem(node.call("POST", object_path("photos", "k"))) == "method-not-allowed"
    allowed = node.call("PUT", "/v1/buckets/photos/objects").headers["allow"]
    assert re.split(", ", allowed) == ["GET", "HEAD"]
