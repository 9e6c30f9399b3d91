"""What the programs of SOS answer, as recorded, and where Tierce keeps what their README promised."""

import json

import pytest
from tests.doors.cask.wire import RawAnswer, ask
from tests.doors.sos.node import FORM, HELLO, ID, OK, UNKNOWN, SosNode

MISSING = ("HTTP/1.1 404 Not Found", b"404")


def plain(answer: RawAnswer) -> tuple[str, bytes]:
    """First line and body of a text."""
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.line, answer.body


async def test_an_upload_is_told_its_id_as_in_the_readme(node: SosNode) -> None:
    answer = await node.post()
    assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", OK)
    assert answer.headers["content-type"] == "application/json"


async def test_a_download_is_the_same_bytes(node: SosNode) -> None:
    await node.post()
    answer = await node.fetch()
    assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", HELLO)
    assert answer.headers["content-length"] == "10"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_head_of_a_download_is_that_of_get(node: SosNode) -> None:
    await node.post("X-A: 1")
    whole = await node.fetch()
    for head in (await node.fetch(method="HEAD"), await node.get(method="HEAD")):
        assert head.status == 200
        assert head.body == b""
        assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


@pytest.mark.parametrize(
    "body", [b"", bytes(range(256)), "Grüße\r\n".encode(), b"id=fromform", b"x" * 300_000]
)
async def test_any_bytes_come_back_unchanged(node: SosNode, body: bytes) -> None:
    answer = json.loads((await node.post(body=body)).body)
    assert answer["size"] == len(body)
    assert (await node.fetch(name=answer["id"])).body == body
    assert (await node.get(sos_id=answer["id"])).body == body


async def test_a_form_is_stored_as_it_was_sent(node: SosNode) -> None:
    body = b"--b\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\nx\r\n--b--\r\n"
    sent = "Content-Type: multipart/form-data; boundary=b"
    answer = await ask(node.upload, "POST", "/upload", sent, body=body)
    assert json.loads(answer.body)["size"] == len(body)


@pytest.mark.parametrize("name", [f"{ID}.jpg", f"{ID}.", ID])
async def test_an_extension_is_cut_off_to_find_an_id(node: SosNode, name: str) -> None:
    await node.post()
    assert (await node.fetch(name=name)).body == HELLO


async def test_an_id_with_a_dot_is_found_before_it_is_cut(node: SosNode) -> None:
    await node.post(sos_id="a", body=b"bare")
    await node.post(sos_id="a.txt", body=b"with extension")
    assert (await node.fetch(name="a.txt")).body == b"with extension"
    assert (await node.fetch(name="a.jpg")).body == b"bare"


@pytest.mark.parametrize("name", ["0000", UNKNOWN, f"{ID}.x.jpg", ".jpg", "a%2Fb", "..", "%00"])
async def test_what_is_not_there_is_404(node: SosNode, name: str) -> None:
    await node.post()
    assert plain(await node.fetch(name=name)) == MISSING


@pytest.mark.parametrize(
    ("door", "method", "path"),
    [
        ("download", "GET", "/"),
        ("download", "GET", "/fetch/"),
        ("download", "POST", f"/fetch/{ID}"),
        ("download", "POST", "/upload"),
        ("download", "GET", f"/blob/{ID}"),
        ("upload", "GET", "/upload"),
        ("upload", "PUT", "/upload"),
        ("upload", "GET", f"/fetch/{ID}"),
        ("upload", "POST", f"/blob/{ID}"),
        ("upload", "GET", "/"),
        ("blob", "GET", "/"),
        ("blob", "DELETE", f"/blob/{ID}"),
        ("blob", "PUT", f"/blob/{ID}"),
        ("blob", "POST", "/blob"),
        ("blob", "GET", f"/fetch/{ID}"),
        ("blob", "POST", "/upload"),
        ("blob", "GET", "/blob/a%2Fb"),
    ],
)
async def test_each_door_has_its_own_paths_only(
    node: SosNode, door: str, method: str, path: str
) -> None:
    await node.post()
    answer = await ask(getattr(node, door), method, path, body=b"x" if method == "POST" else b"")
    assert answer.status == 404
    assert "allow" not in answer.headers
    if door == "upload":
        assert json.loads(answer.body)["status"] == "FAILED"
    else:
        assert plain(answer) == MISSING


async def test_a_blob_is_stored_under_any_id(node: SosNode) -> None:
    answer = await ask(node.blob, "POST", "/blob/any-Name_1.txt", body=b"xx")
    assert answer.body == b'{"id":"any-Name_1.txt","size":2,"status":"OK"}'
    assert (await node.get(sos_id="any-Name_1.txt")).body == b"xx"


async def test_the_id_is_taken_from_the_path_and_not_from_a_form(node: SosNode) -> None:
    answer = await ask(node.blob, "POST", "/blob/abc", FORM, body=b"id=../fromform")
    assert answer.body == b'{"id":"abc","size":14,"status":"OK"}'
    assert (await ask(node.blob, "GET", "/blobs")).body.endswith(b'["abc"]\r\n0\r\n\r\n')


async def test_posting_again_overwrites(node: SosNode) -> None:
    for body in (b"first", b"second"):
        await node.post(sos_id="steve", body=body)
    assert (await node.get(sos_id="steve")).body == b"second"


async def test_what_was_posted_to_the_blob_server_is_fetched(node: SosNode) -> None:
    assert (await node.post(sos_id=ID)).body == OK
    assert (await node.fetch()).body == HELLO


async def test_a_blob_that_is_missing_is_404(node: SosNode) -> None:
    assert plain(await node.get()) == MISSING
    assert (await node.get(method="HEAD")).status == 404


@pytest.mark.parametrize("sos_id", [".hidden", "..", "%00", "%20", "a%0A", "%C3%A4", "a" * 256])
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
async def test_an_id_that_is_none_is_400_and_never_stored(
    node: SosNode, method: str, sos_id: str
) -> None:
    answer = await ask(node.blob, method, f"/blob/{sos_id}", body=b"x" if method == "POST" else b"")
    assert answer.status == 400
    if method != "HEAD":
        told = json.loads(answer.body)
        assert told["status"] == "FAILED"
        assert "is not an id" in told["error"]
    assert [each async for each in node.sos.ids()] == []


async def test_it_is_alive(node: SosNode) -> None:
    assert plain(await ask(node.blob, "GET", "/alive")) == ("HTTP/1.1 200 OK", b"alive")


async def test_perl_finds_it_alive_at_its_root(node: SosNode) -> None:
    """The older programs take a server for alive that answers this with 200 or 404."""
    assert (await ask(node.blob, "GET", "/")).status == 404
