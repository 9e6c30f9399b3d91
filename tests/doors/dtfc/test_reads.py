"""HEAD, conditions and ranges; files of other doors; what is said of media files."""

import io
import struct
import wave

import pytest
from tests.doors.dtfc.wire import HASH, HELLO, NOT_FOUND, UNKNOWN, Dtfc, content_of, hash_of

from tierce.core.digest import Digest
from tierce.doors.dtfc import render
from tierce.node import media_probe
from tierce.testing.serving import Served

ETAG = f'"sha512:{HASH}"'
LONG_AGO = "Sat, 01 Jan 2000 00:00:00 GMT"
LATER = "Fri, 01 Jan 2100 00:00:00 GMT"


@pytest.mark.parametrize("option", ["", "/nopeerload"])
async def test_head_says_what_get_says(node: Dtfc, option: str) -> None:
    await node.put()
    whole, head = await node.get(f"/{HASH}{option}"), await node.head(f"/{HASH}{option}")
    assert (head.status, head.body) == (200, b"")
    whole.headers.pop("date")
    head.headers.pop("date")
    assert head.headers == whole.headers


async def test_head_of_what_is_not_there_has_no_text(node: Dtfc) -> None:
    answer = await node.head(f"/{UNKNOWN}")
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"If-None-Match: {ETAG}", 304),
        ('If-None-Match: "other"', 200),
        (f"If-Modified-Since: {LATER}", 304),
        (f"If-Modified-Since: {LONG_AGO}", 200),
        (f"If-Match: {ETAG}", 200),
        ('If-Match: "other"', 412),
        (f"If-Unmodified-Since: {LATER}", 200),
        (f"If-Unmodified-Since: {LONG_AGO}", 412),
    ],
)
async def test_conditions_count(node: Dtfc, method: str, header: str, status: int) -> None:
    await node.put()
    answer = await node.call(method, f"/{HASH}", header)
    assert answer.status == status
    if status == 304:
        assert answer.headers["content-disposition"] == 'attachment; filename="foo.bin"'
        assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=6-", 206, b"dtfc\n"),
        ("bytes=-5", 206, b"dtfc\n"),
        ("bytes=0-99", 206, HELLO),
        ("bytes=99-", 416, None),
        ("lines=1-2", 200, HELLO),
    ],
)
async def test_ranges_are_answered(node: Dtfc, asked: str, status: int, body: bytes | None) -> None:
    await node.put()
    answer = await node.get(f"/{HASH}", f"Range: {asked}")
    assert answer.status == status
    assert body is None or answer.body == body
    if status == 416:
        assert answer.headers["content-range"] == "bytes */11"


async def test_what_another_door_stored_is_served_without_a_name(
    node: Dtfc, served: Served
) -> None:
    assert (
        await Dtfc(served.native).call("PUT", f"/v1/blobs/sha512:{HASH}", body=HELLO)
    ).status == 201
    answer = await node.get()
    assert (answer.status, answer.body) == (200, HELLO)
    assert answer.headers["content-disposition"] == 'attachment; filename=""'
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "last-modified" not in answer.headers
    assert (await node.head()).headers["content-length"] == "11"


async def test_a_file_is_an_object_for_the_other_doors(node: Dtfc, served: Served) -> None:
    await node.put()
    native = Dtfc(served.native)
    assert (await native.get(f"/v1/buckets/dtfc/objects/{HASH}")).body == HELLO
    assert (await native.get(f"/v1/blobs/sha512:{HASH}")).body == HELLO


async def test_another_content_under_the_name_of_a_hash_is_not_served(
    node: Dtfc, served: Served
) -> None:
    put = await Dtfc(served.native).call(
        "PUT", f"/v1/buckets/dtfc/objects/{HASH}", body=b"something else"
    )
    assert put.status in (200, 201)
    assert (await node.get()).text == NOT_FOUND


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("plain.txt", 'attachment; filename="plain.txt"'),
        ('a"b\\c', "attachment; filename=\"a-b-c\"; filename*=UTF-8''a%22b%5Cc"),
        ("é\r\nX: y", "attachment; filename=\"---X: y\"; filename*=UTF-8''%C3%A9%0D%0AX%3A%20y"),
        ("\ud800", "attachment; filename=\"-\"; filename*=UTF-8''%3F"),
    ],
    ids=["plain", "quotes", "line end", "no text"],
)
def test_a_name_can_not_leave_its_header(name: str, sent: str) -> None:
    how = render.presented(Digest.of(b"", "sha512"), name, 0)
    assert how.block.startswith(f"Content-Disposition: {sent}\r\nAccept-Ranges: bytes\r\n")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("A.MD", "text/x-markdown; charset=utf-8"),
        ("a.Mkv", "video/webm"),
        ("a.tar.gz", "application/gzip"),
        ("a.", "application/octet-stream"),
        ("md", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_the_extension_gives_the_type_also_of_names_from_elsewhere(name: str, kind: str) -> None:
    assert render.content_type(name) == kind


def sound() -> bytes:
    """A tenth of a second of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(struct.pack("<800h", *[0] * 800))
    return made.getvalue()


async def test_media_files_are_described(node: Dtfc) -> None:
    content = sound()
    await node.put("silence.wav", content)
    target = f"/{hash_of(content)}/ffmetadata"
    found = content_of(await node.get(target))
    assert found["format"]["name"] == "wav"
    assert found["streams"][0]["sample_rate"] == 8000
    head = await node.head(target)
    assert (head.status, head.headers["content-type"]) == (200, "application/json")


async def test_what_is_no_media_is_told_so(node: Dtfc) -> None:
    await node.put()
    answer = await node.get(f"/{HASH}/ffmetadata")
    assert answer.status == 415
    assert b"is no media file" in answer.body


async def test_a_node_without_the_extra_says_what_to_install(
    node: Dtfc, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missing(self: media_probe.MediaProbe, blob: object) -> dict[str, object]:
        return {"missing": True}

    monkeypatch.setattr(media_probe.MediaProbe, "_probe", missing)
    await node.put()
    answer = await node.get(f"/{HASH}/ffmetadata")
    assert answer.line == "HTTP/1.1 501 Not Implemented"
    assert b"pip install 'tierce[media]'" in answer.body
