"""Ranges over HTTP, on packed blobs and on files, held against slices of the bytes."""

import random
import re
from email.parser import BytesParser
from email.policy import HTTP

import pytest
from tests.doors.native.node import Node, problem

from tierce.core.digest import Digest
from tierce.core.limits import CHUNK_BYTES, PIECE_BYTES, RANGES_COUNT
from tierce.testing.calls import Reply

SMALL = bytes(range(200))
LARGE = random.Random(1).randbytes(3 * PIECE_BYTES + CHUNK_BYTES + 77)
BODIES = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["packed", "file"])


def single(node: Node, digest: Digest, asked: str) -> Reply:
    return node.get(digest, Range=f"bytes={asked}")


def parts_of(reply: Reply) -> list[tuple[str, bytes]]:
    """The Content-Range and the bytes of each part, as a mail program reads them."""
    head = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + reply.body)
    assert message.is_multipart()
    assert not message.defects
    parts = []
    for part in message.iter_parts():
        assert part.get_content_type() == "application/octet-stream"
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        parts.append((str(part["Content-Range"]), content))
    return parts


@BODIES
@pytest.mark.parametrize(
    ("first", "last"), [("0", "0"), ("0", "99"), ("7", "7"), ("199", "199"), ("0", "199")]
)
def test_a_range_is_a_slice(node: Node, data: bytes, first: str, last: str) -> None:
    digest = node.put(data)
    reply = single(node, digest, f"{first}-{last}")
    assert reply.status == 206
    assert reply.body == data[int(first) : int(last) + 1]
    assert reply.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "content-digest" not in reply.headers


@pytest.mark.parametrize("border", [CHUNK_BYTES, PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES])
@pytest.mark.parametrize("before", [0, 1, 300])
@pytest.mark.parametrize("after", [0, 1, 300, PIECE_BYTES])
def test_a_range_across_a_border_is_a_slice(
    node: Node, border: int, before: int, after: int
) -> None:
    digest = node.put(LARGE)
    first, last = border - before, min(border + after, len(LARGE) - 1)
    reply = single(node, digest, f"{first}-{last}")
    assert reply.body == LARGE[first : last + 1]


@BODIES
def test_ranges_at_the_end(node: Node, data: bytes) -> None:
    digest, size = node.put(data), len(data)
    for asked, first in ((f"{size - 1}-", size - 1), ("-1", size - 1), ("-50", size - 50)):
        reply = single(node, digest, asked)
        assert (reply.status, reply.body) == (206, data[first:])
        assert reply.headers["content-range"] == f"bytes {first}-{size - 1}/{size}"


@BODIES
@pytest.mark.parametrize("asked", ["0-", "-999999999", "0-999999999", f"0-{'9' * 60}"])
def test_a_range_of_everything_is_still_a_range(node: Node, data: bytes, asked: str) -> None:
    reply = single(node, node.put(data), asked)
    assert (reply.status, reply.body) == (206, data)


@BODIES
@pytest.mark.parametrize("asked", ["{}-", "{}-{}", "999999999-", "-0", f"{'9' * 60}-"])
def test_a_range_outside_is_416_with_the_size(node: Node, data: bytes, asked: str) -> None:
    reply = single(node, node.put(data), asked.replace("{}", str(len(data))))
    assert (reply.status, problem(reply)) == (416, "unsatisfiable-range")
    assert reply.headers["content-range"] == f"bytes */{len(data)}"


@BODIES
@pytest.mark.parametrize(
    "header",
    [
        "bytes=5-3", "bytes=", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=0-1,x", "bytes=--1",
        "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(RANGES_COUNT + 1)),
    ],
)  # fmt: skip
def test_what_is_no_list_of_ranges_is_ignored(node: Node, data: bytes, header: str) -> None:
    reply = node.get(node.put(data), Range=header)
    assert (reply.status, reply.body) == (200, data)


def test_ranges_of_nothing(node: Node) -> None:
    digest = node.put(b"")
    assert single(node, digest, "0-0").headers["content-range"] == "bytes */0"
    assert single(node, digest, "-1").status == 200


@BODIES
def test_several_ranges_come_as_parts(node: Node, data: bytes) -> None:
    digest, size = node.put(data), len(data)
    reply = single(node, digest, "0-9, 20-29,-5")
    assert reply.status == 206
    assert "content-range" not in reply.headers
    assert re.fullmatch(r"multipart/byteranges; boundary=[\w-]+", reply.headers["content-type"])
    assert parts_of(reply) == [
        (f"bytes 0-9/{size}", data[:10]),
        (f"bytes 20-29/{size}", data[20:30]),
        (f"bytes {size - 5}-{size - 1}/{size}", data[-5:]),
    ]


def test_parts_of_a_file_may_be_large_and_out_of_order(node: Node) -> None:
    spans = [
        (2 * PIECE_BYTES, 3 * PIECE_BYTES + 10), (5, 5), (CHUNK_BYTES - 1, PIECE_BYTES + 1),
    ]  # fmt: skip
    asked = ",".join(f"{first}-{last}" for first, last in spans)
    parts = parts_of(single(node, node.put(LARGE), asked))
    assert [content for _, content in parts] == [LARGE[first : last + 1] for first, last in spans]


def test_ranges_that_overlap_or_touch_are_joined(node: Node) -> None:
    reply = single(node, node.put(SMALL), "0-9,5-19,20-29")
    assert (reply.status, reply.body) == (206, SMALL[:30])
    assert reply.headers["content-range"] == f"bytes 0-29/{len(SMALL)}"


def test_ranges_outside_are_left_out_of_several(node: Node) -> None:
    reply = single(node, node.put(SMALL), "10-19,900-")
    assert (reply.status, reply.body) == (206, SMALL[10:20])


def test_each_answer_has_a_boundary_of_its_own(node: Node) -> None:
    digest = node.put(SMALL)
    kinds = {single(node, digest, "0-1,5-6").headers["content-type"] for _ in range(3)}
    assert len(kinds) == 3


@BODIES
def test_random_ranges_are_slices(node: Node, data: bytes) -> None:
    digest, chance = node.put(data), random.Random(2)
    for _ in range(20):
        first, last = sorted(chance.choices(range(len(data)), k=2))
        assert single(node, digest, f"{first}-{last}").body == data[first : last + 1]


@BODIES
@pytest.mark.parametrize(
    ("form", "status"),
    [("{}", 206), ("W/{}", 200), ('"x"', 200), ("Sat, 29 Oct 1994 19:43:31 GMT", 200)],
)
def test_if_range(node: Node, data: bytes, form: str, status: int) -> None:
    digest = node.put(data)
    reply = node.get(digest, Range="bytes=10-19", If_Range=form.format(f'"{digest}"'))
    assert reply.status == status
    assert reply.body == (data[10:20] if status == 206 else data)


def test_if_range_of_another_tag_hides_that_a_range_is_outside(node: Node) -> None:
    assert node.get(node.put(SMALL), Range="bytes=900-", If_Range='"x"').status == 200


def test_conditions_come_before_ranges(node: Node) -> None:
    digest = node.put(SMALL)
    assert node.get(digest, Range="bytes=900-", If_None_Match="*").status == 304
    assert node.get(digest, Range="bytes=0-1", If_Match='"x"').status == 412


def test_head_ignores_ranges(node: Node) -> None:
    digest = node.put(SMALL)
    reply = node.call("HEAD", f"/v1/blobs/{digest}", headers={"Range": "bytes=0-1"})
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(SMALL)))


def test_a_range_of_a_bad_chunk_is_not_sent_and_of_a_good_one_is(node: Node) -> None:
    data = LARGE[::-1]
    digest = node.put(data, "sha256")
    (file,) = [name for name in node.files() if name.endswith(digest.hex)]
    with (node.data / file).open("r+b") as content:
        content.write(bytes([data[0] ^ 1]))
    good = single(node, digest, f"{2 * CHUNK_BYTES}-{2 * CHUNK_BYTES + 9}")
    assert good.body == data[2 * CHUNK_BYTES : 2 * CHUNK_BYTES + 10]
    reply = single(node, digest, "5-9")
    assert (reply.status, problem(reply)) == (404, "not-found")
