"""The answers that were recorded of a Cask node, to the byte."""

import json
import re

import pytest
from tests.doors.cask.wire import (
    EMPTY_KEY,
    FORM,
    HELLO,
    HELLO_KEY,
    KNOCK,
    ONLY,
    ONLY_KEY,
    UNKNOWN_KEY,
    ask,
    failure,
    form,
    post,
    success,
)

from tierce.testing.serving import Served

PLAIN = "text/plain; charset=utf-8"
URLENCODED = "Content-Type: application/x-www-form-urlencoded"
OK = "HTTP/1.1 200 OK"
BAD = "HTTP/1.1 400 Bad Request"
FORBIDDEN = "HTTP/1.1 403 Forbidden"
NOT_FOUND = "HTTP/1.1 404 Not Found"
NOT_ALLOWED = "HTTP/1.1 405 Method Not Allowed"
BROKEN = "HTTP/1.1 500 Internal Server Error"
UNAVAILABLE = "HTTP/1.1 503 Service Unavailable"


async def test_an_upload_answers_with_its_key(node: Served) -> None:
    answer = await post(node.cask, HELLO)
    assert answer.text == (OK, PLAIN, success(HELLO_KEY))
    assert answer.headers["content-length"] == "70"


async def test_an_empty_file_has_a_key(node: Served) -> None:
    assert (await post(node.cask, b"")).body == success(EMPTY_KEY)
    answer = await ask(node.cask, "GET", f"/file/{EMPTY_KEY}/")
    assert answer.text == (OK, "application/octet", b"")


@pytest.mark.parametrize("end", ["/", "", "/extra", "/?a=b", "?a=b"])
async def test_a_file_is_served(node: Served, end: str) -> None:
    await post(node.cask, HELLO)
    answer = await ask(node.cask, "GET", f"/file/{HELLO_KEY}{end}")
    assert answer.text == (OK, "application/octet", HELLO)
    assert answer.headers["etag"] == f'"{HELLO_KEY}"'
    assert answer.headers["content-length"] == "11"


async def test_head_says_what_get_would(node: Served) -> None:
    await post(node.cask, HELLO)
    got = await ask(node.cask, "GET", f"/file/{HELLO_KEY}/")
    said = await ask(node.cask, "HEAD", f"/file/{HELLO_KEY}/")
    assert said.line == OK
    assert said.headers | {"date": ""} == got.headers | {"date": ""}
    assert said.body == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("place", ["file", "local"])
async def test_the_exact_tag_is_not_modified(node: Served, method: str, place: str) -> None:
    await post(node.cask, HELLO)
    tag = f'If-None-Match: "{HELLO_KEY}"'
    answer = await ask(node.cask, method, f"/{place}/{HELLO_KEY}/", KNOCK, tag)
    assert answer.line == "HTTP/1.1 304 Not Modified"
    assert answer.body == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "tag", ["*", HELLO_KEY, f'W/"{HELLO_KEY}"', f'"{HELLO_KEY}", "x"', f'"{ONLY_KEY}"']
)
async def test_no_other_tag_counts(node: Served, method: str, tag: str) -> None:
    await post(node.cask, HELLO)
    headers = (f"If-None-Match: {tag}", 'If-Match: "x"')
    answer = await ask(node.cask, method, f"/file/{HELLO_KEY}/", *headers)
    assert answer.line == OK


async def test_a_tag_does_not_stand_for_a_file(node: Served) -> None:
    """Cask answers 304 here; a client that believes it would never fetch the file."""
    tag = f'If-None-Match: "{UNKNOWN_KEY}"'
    assert (await ask(node.cask, "GET", f"/file/{UNKNOWN_KEY}/", tag)).line == NOT_FOUND


@pytest.mark.parametrize(
    "text",
    [
        "sha1:zz", "md5:d41d8cd98f00b204e9800998ecf8427e", HELLO_KEY[5:], "sha1", HELLO_KEY.upper(),
        "sha1:" + HELLO_KEY[5:].upper(), f"{HELLO_KEY}:junk", "sha1:..%2f..%2f..%2fnode.toml",
        "sha1:" + 13 * "..%2f" + "x", "%00", "sha256:" + 64 * "0", "sha1:" + 40 * "%C0",
    ],
)  # fmt: skip
async def test_what_is_no_key_is_refused(node: Served, text: str) -> None:
    for place in ("file", "local"):
        answer = await ask(node.cask, "GET", f"/{place}/{text}/", KNOCK)
        assert answer.text == (BAD, PLAIN, b"invalid key\n\n")
        assert answer.headers["content-length"] == "13"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "target",
    ["/file/", f"/file/{HELLO_KEY}/a/b", "/file/../../etc/passwd", "/file/..%2f..%2fnode.toml"],
)
async def test_an_address_of_other_parts_is_refused(node: Served, target: str) -> None:
    answer = await ask(node.cask, "GET", target)
    assert answer.line == BAD
    assert answer.body in (b"bad request\n", b"invalid key\n\n")
    assert answer.body == b"bad request\n" or "%2f" in target


async def test_an_unknown_key_is_not_found(node: Served) -> None:
    answer = await ask(node.cask, "GET", f"/file/{UNKNOWN_KEY}/")
    assert answer.text == (NOT_FOUND, PLAIN, b"not found\n")
    assert answer.headers["content-length"] == "10"
    answer = await ask(node.cask, "GET", f"/local/{UNKNOWN_KEY}/", KNOCK)
    assert answer.text == (NOT_FOUND, PLAIN, b"not found\n\n")
    assert answer.headers["content-length"] == "11"


@pytest.mark.parametrize("knock", ["X: y", f"{KNOCK}x", KNOCK[:-1], KNOCK.upper(), f"{KNOCK}\xff"])
@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", f"/local/{HELLO_KEY}/"), ("HEAD", f"/local/{HELLO_KEY}/"), ("POST", "/local/"),
     ("GET", "/local/"), ("GET", "/local/x"), ("PUT", "/local/")],
)  # fmt: skip
async def test_nodes_must_know_the_secret(
    node: Served, knock: str, method: str, target: str
) -> None:
    body = form(HELLO) if method == "POST" else b""
    answer = await ask(node.cask, method, target, knock, FORM, body=body)
    assert answer.line == FORBIDDEN
    assert answer.headers["content-length"] == "29"
    assert answer.body == (b"" if method == "HEAD" else b"sorry, need the secret knock\n")


async def test_a_node_reads_a_local_file(node: Served) -> None:
    await post(node.cask, HELLO)
    for method, body in (("GET", HELLO), ("HEAD", b"")):
        answer = await ask(node.cask, method, f"/local/{HELLO_KEY}/", KNOCK)
        assert answer.text == (OK, "application/octet", body)
        assert answer.headers["etag"] == f'"{HELLO_KEY}"'
        assert answer.headers["content-length"] == "11"


async def test_a_node_gives_a_file(node: Served) -> None:
    for _ in range(2):
        answer = await post(node.cask, ONLY, "/local/", KNOCK)
        assert answer.text == (OK, PLAIN, ONLY_KEY.encode())
        assert answer.headers["content-length"] == "45"
    assert (await ask(node.cask, "GET", f"/file/{ONLY_KEY}/")).body == ONLY


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_the_local_form(node: Served, method: str) -> None:
    answer = await ask(node.cask, method, "/local/", KNOCK)
    assert answer.text == (OK, PLAIN, b"show form/handle post\n")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_the_config(node: Served, method: str) -> None:
    answer = await ask(node.cask, method, "/config/")
    assert answer.text == (
        OK,
        "application/json",
        b'{"uuid":"111b1f38-4a30-4bc1-9341-ea0a1c7976e2","base_url":"http://localhost:8080",'
        b'"writeable":true,"last_seen":"0001-01-01T00:00:00Z",'
        b'"last_failed":"0001-01-01T00:00:00Z"}',
    )
    assert answer.headers["content-length"] == "171"


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/join/", b"url=http://localhost:8083&secret=wrong"),
        ("/join/", b"url=http://localhost:8083"),
        ("/join/?url=http://localhost:8083&secret=not-a-real-secret", b"secret=wrong"),
    ],
)
async def test_joining_needs_the_secret(node: Served, target: str, body: bytes) -> None:
    answer = await ask(node.cask, "POST", target, URLENCODED, body=body)
    assert answer.text == (FORBIDDEN, PLAIN, b"need to know the secret knock\n")


@pytest.mark.parametrize("body", [b"secret=not-a-real-secret", b"url=&secret=x", b""])
async def test_joining_needs_a_url(node: Served, body: bytes) -> None:
    answer = await ask(node.cask, "POST", "/join/", URLENCODED, body=body)
    assert answer.text == (OK, PLAIN, b"no url specified")


@pytest.mark.parametrize(
    ("body", "line", "text"),
    [
        (b'{"uuid":"ead5","secret":"wrong"}', FORBIDDEN, b"sorry, need the secret knock\n"),
        (b"{}", FORBIDDEN, b"sorry, need the secret knock\n"),
        (b"junk", BROKEN, b"invalid character 'j' looking for beginning of value\n"),
        (b"", BROKEN, b"EOF\n"),
    ],
)
async def test_a_bad_heartbeat(node: Served, body: bytes, line: str, text: bytes) -> None:
    answer = await ask(node.cask, "POST", "/heartbeat/", body=body)
    assert answer.text == (line, PLAIN, text)


@pytest.mark.parametrize(
    ("method", "target", "text", "allowed"),
    [
        ("PUT", "/", b"method not supported\n", "GET, HEAD, POST"),
        ("DELETE", "/any/path", b"method not supported\n", "GET, HEAD, POST"),
        ("POST", f"/file/{HELLO_KEY}/", b"method not supported\n", "GET, HEAD"),
        ("DELETE", f"/local/{HELLO_KEY}/", b"method not supported\n", "GET, HEAD"),
        ("GET", "/heartbeat/", b"method not allowed\n", "POST"),
        ("PUT", "/heartbeat/", b"method not allowed\n", "POST"),
        ("PUT", "/join/", b"method not supported\n", "GET, HEAD, POST"),
    ],
)
async def test_other_methods_are_refused(
    node: Served, method: str, target: str, text: bytes, allowed: str
) -> None:
    answer = await ask(node.cask, method, target, KNOCK)
    assert answer.text == (NOT_ALLOWED, PLAIN, text)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("name", ["file", "local", "join", "config", "heartbeat", "upload"])
async def test_a_path_without_its_end_slash_leads_on(node: Served, name: str) -> None:
    answer = await ask(node.cask, "GET", f"/{name}?a=b")
    assert answer.line == "HTTP/1.1 301 Moved Permanently"
    assert answer.headers["location"] == f"/{name}/?a=b"


@pytest.mark.parametrize("target", ["/", "/any/path", "/?a=b", "//", "/files/", "/metrics"])
async def test_every_other_path_shows_the_status(node: Served, target: str) -> None:
    answer = await ask(node.cask, "GET", target)
    assert answer.text[:2] == (OK, "text/html; charset=utf-8")
    assert b"111b1f38-4a30-4bc1-9341-ea0a1c7976e2" in answer.body
    said = await ask(node.cask, "HEAD", target)
    assert (said.line, said.body) == (OK, b"")


@pytest.mark.parametrize("target", ["/any/path", "/upload/", "/?a=b"])
async def test_every_other_path_takes_uploads(node: Served, target: str) -> None:
    assert (await post(node.cask, HELLO, target)).body == success(HELLO_KEY)


@pytest.mark.parametrize(
    ("target", "fields"), [("/join/", {"url", "secret"}), ("/upload/", {"file"})]
)
async def test_the_forms_for_people(node: Served, target: str, fields: set[str]) -> None:
    answer = await ask(node.cask, "GET", target)
    assert answer.text[:2] == (OK, "text/html; charset=utf-8")
    found = re.findall(r'<input [^>]*name="(\w+)"', answer.body.decode())
    assert set(found) == fields


async def test_the_icon_is_empty(node: Served) -> None:
    answer = await ask(node.cask, "GET", "/favicon.ico")
    assert (answer.line, answer.body) == (OK, b"")


async def test_the_status_as_json(node: Served) -> None:
    await post(node.cask, HELLO)
    answer = await ask(node.cask, "GET", "/status/")
    assert answer.text[:2] == (OK, "application/json")
    status = json.loads(answer.body)
    assert status["node"] == json.loads((await ask(node.cask, "GET", "/config/")).body)
    assert status["neighbors"] == []
    assert (status["files"], status["file_bytes"]) == (1, len(HELLO))
    assert status["settings"]["replication"] is None


async def test_the_variables_of_the_process(node: Served) -> None:
    answer = await ask(node.cask, "GET", "/debug/vars")
    assert answer.text[:2] == (OK, "application/json")
    variables = json.loads(answer.body)
    assert variables["cmdline"] == ["tierce"]
    assert all(number > 0 for number in variables["memstats"].values())


async def test_the_secret_is_nowhere_to_be_read(node: Served) -> None:
    for target in ("/", "/status/", "/config/", "/debug/vars", "/join/", "/upload/"):
        assert b"not-a-real-secret" not in (await ask(node.cask, "GET", target)).body


async def test_a_read_only_node(read_only: Served) -> None:
    answer = await post(read_only.cask, HELLO)
    assert answer.text == (UNAVAILABLE, PLAIN, failure(HELLO_KEY))
    answer = await post(read_only.cask, HELLO, "/local/", KNOCK)
    assert answer.text == (UNAVAILABLE, PLAIN, b"this node is read-only\n")
    config = json.loads((await ask(read_only.cask, "GET", "/config/")).body)
    assert config["writeable"] is False
    assert config["base_url"] == read_only.cask


async def test_a_full_node(full: Served) -> None:
    answer = await post(full.cask, HELLO)
    assert answer.text == (UNAVAILABLE, PLAIN, failure(HELLO_KEY))
    answer = await post(full.cask, HELLO, "/local/", KNOCK)
    assert answer.text == (UNAVAILABLE, PLAIN, b"this node is full\n")
    config = json.loads((await ask(full.cask, "GET", "/config/")).body)
    assert config["writeable"] is False
