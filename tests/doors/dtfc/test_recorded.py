"""What the program answered, where the door promises to answer as it did."""

import pytest
from tests.doors.dtfc.wire import DELETED, HASH, HELLO, NOT_FOUND, STORED, UNKNOWN, Dtfc, content_of

from tierce.core.digest import Digest


async def test_an_upload_is_answered_with_hash_and_name(node: Dtfc) -> None:
    answer = await node.put()
    assert answer.line == "HTTP/1.1 200 OK"
    assert answer.body == STORED
    assert answer.headers["content-length"] == "228"
    assert answer.headers["content-type"] == "application/json"


async def test_a_file_comes_with_its_name_and_type(node: Dtfc) -> None:
    await node.put()
    answer = await node.get()
    assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", HELLO)
    found = {name: answer.headers[name] for name in
             ("accept-ranges", "content-disposition", "content-length", "content-type",
              "x-content-type-options", "etag")}  # fmt: skip
    assert found == {
        "accept-ranges": "bytes",
        "content-disposition": 'attachment; filename="foo.bin"',
        "content-length": "11",
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
        "etag": f'"sha512:{HASH}"',
    }
    assert answer.headers["last-modified"].endswith(" GMT")


async def test_capitals_name_the_same_file(node: Dtfc) -> None:
    await node.put()
    assert (await node.get(f"/{HASH.upper()}")).body == HELLO


async def test_the_last_name_counts(node: Dtfc) -> None:
    await node.put("first.txt")
    await node.put("second.txt")
    answer = await node.get()
    assert answer.headers["content-disposition"] == 'attachment; filename="second.txt"'


@pytest.mark.parametrize(
    ("sent", "name", "kind"),
    [
        ("My%20File%20(1)..TXT", "my-file-1txt", "application/octet-stream"),
        ("a_b+c=d.JPG", "a-b-c-d.jpg", "image/jpeg"),
        ("caf%C3%A9.Md", "cafe.md", "text/x-markdown; charset=utf-8"),
        ("%22q%22.txt", "q.txt", "text/plain; charset=utf-8"),
        ("movie.MKV", "movie.mkv", "video/webm"),
        (".hidden", ".hidden", "application/octet-stream"),
        ("%20", "", "application/octet-stream"),
        ("health.html", "health.html", "text/html; charset=utf-8"),
    ],
)
async def test_names_are_cleaned_and_give_the_type(
    node: Dtfc, sent: str, name: str, kind: str
) -> None:
    found = content_of(await node.put(sent, HELLO, "Content-Type: image/x-other"))
    assert (found["filename"], found["content_type"]) == (name, kind)
    answer = await node.get()
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["content-type"] == kind


async def test_a_part_of_a_file_is_sent(node: Dtfc) -> None:
    await node.put()
    answer = await node.get(f"/{HASH}", "Range: bytes=0-4")
    assert (answer.line, answer.body) == ("HTTP/1.1 206 Partial Content", b"hello")
    assert answer.headers["content-range"] == "bytes 0-4/11"
    assert answer.headers["content-length"] == "5"
    assert answer.headers["content-disposition"] == 'attachment; filename="foo.bin"'


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/{UNKNOWN}"),
        ("GET", f"/{HASH}/nopeerload"),
        ("DELETE", f"/{UNKNOWN}"),
        ("DELETE", "/ffff"),
        ("DELETE", f"/{HASH}/allpeers"),
        ("GET", f"/{HASH}/ffmetadata"),
        ("GET", "/ffff"),
        ("GET", "/"),
        ("GET", f"/{HASH}.jpg"),
        ("GET", f"/zz{HASH}"),
        ("GET", f"/{HASH}/x/y"),
        ("GET", "/refreshpeers.html"),
        ("PUT", "/"),
        ("PUT", "/a/b"),
        ("PUT", "/..%2F..%2Fetc%2Fpasswd"),
        ("POST", "/foo.bin"),
        ("PATCH", f"/{HASH}"),
        ("DELETE", "/health.html"),
        ("DELETE", f"/{HASH}/other"),
    ],
)
async def test_what_is_not_there_is_told_so(node: Dtfc, method: str, target: str) -> None:
    answer = await node.call(method, target)
    assert answer.text == NOT_FOUND
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-length"] == "15"


@pytest.mark.parametrize("option", ["nopeerload", "xnopeerload1", "whatever"])
async def test_an_option_changes_nothing_of_what_is_here(node: Dtfc, option: str) -> None:
    await node.put()
    answer = await node.get(f"/{HASH}/{option}")
    assert (answer.status, answer.body) == (200, HELLO)


async def test_health_is_told(node: Dtfc) -> None:
    answer = await node.get("/health.html")
    assert (answer.status, answer.body) == (200, b"All systems go.")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_the_list_of_peers_is_read_again_on_demand(node: Dtfc) -> None:
    answer = await node.call("PUT", "/refreshpeers.html")
    assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", b"")


async def test_a_deletion_tells_what_is_gone(node: Dtfc) -> None:
    await node.put()
    answer = await node.delete()
    assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", DELETED)


async def test_a_deletion_tells_the_type_without_its_encoding(node: Dtfc) -> None:
    await node.put("a.txt")
    assert content_of(await node.delete())["content_type"] == "text/plain"


async def test_an_empty_file_is_a_file(node: Dtfc) -> None:
    found = content_of(await node.put("empty", b""))
    assert found["sha512"] == Digest.of(b"", "sha512").raw.hex()
    answer = await node.get(f"/{found['sha512']}")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
