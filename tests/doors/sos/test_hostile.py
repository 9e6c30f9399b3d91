"""Whatever is sent has an answer, and nothing but ids and X- headers gets in."""

import re
from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doors.cask.wire import RawAnswer, request, talk
from tests.doors.sos.node import HELLO, ID, SosNode

from tierce.service.sos_blobs import SOS_BUCKET, is_id

FUZZ = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EXPECTED = {200, 206, 304, 400, 404, 412, 413, 416, 431}
# What may stand in a header, or in a target, without ending it.
header_bytes = st.binary(max_size=60).map(
    lambda data: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", data)
)
target_bytes = st.one_of(
    st.binary(max_size=60).map(lambda data: quote_from_bytes(data, safe="/%?&=;:@+~")),
    st.text("./%2eEfF\\a", max_size=12),
)


async def send(url: str, data: bytes) -> RawAnswer:
    async with talk(url) as connection:
        await connection.send(data)
        return await connection.answer()


@FUZZ
@given(target=target_bytes, method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]))
async def test_any_path_has_an_answer(node: SosNode, target: str, method: str) -> None:
    for start in ("/", "/blob/", "/fetch/", "/upload/"):
        for url in (node.upload, node.download, node.blob):
            answer = await send(url, request(method, start + target, body=HELLO[:0]))
            assert answer.status in EXPECTED
    for record in await node.index.list_after(SOS_BUCKET, "", "", 1000):
        assert is_id(record.key)
    assert {each.name for each in node.disk.store.files._directory.parent.iterdir()} <= {
        "files", "lmdb", "quarantine", "tmp",
    }  # fmt: skip


@FUZZ
@given(
    name=st.from_regex(r"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{0,20}", fullmatch=True), value=header_bytes
)
async def test_any_header_of_a_post_is_taken_or_refused(
    node: SosNode, name: str, value: bytes
) -> None:
    head = request("POST", "/upload", body=HELLO).removesuffix(b"\r\n\r\n" + HELLO)
    answer = await send(
        node.upload, head + b"\r\n" + name.encode() + b": " + value + b"\r\n\r\n" + HELLO
    )
    assert answer.status in (200, 400)
    got = await send(node.download, request("GET", f"/fetch/{ID}"))
    if answer.status == 200:
        assert (got.status, got.body) == (200, HELLO)
        others = {each for each in got.headers if not each.startswith("x-")}
        assert others <= {
            "accept-ranges", "etag", "last-modified", "content-type", "content-length", "date",
            "connection",
        }  # fmt: skip


@FUZZ
@given(
    field=st.sampled_from(
        ["Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since", "Authorization"]
    ),
    value=st.one_of(
        header_bytes, st.from_regex(r"bytes=[0-9,-]{0,12}", fullmatch=True).map(str.encode)
    ),
)
async def test_any_header_of_a_get_has_an_answer(node: SosNode, field: str, value: bytes) -> None:
    await node.post("X-A: 1")
    for url, path in ((node.download, f"/fetch/{ID}.jpg"), (node.blob, f"/blob/{ID}")):
        head = request("GET", path).removesuffix(b"\r\n")
        answer = await send(url, head + field.encode() + b": " + value + b"\r\n\r\n")
        assert answer.status in (200, 206, 304, 412, 416)


async def test_a_body_that_breaks_off_is_not_kept(node: SosNode) -> None:
    for url, path in ((node.upload, "/upload"), (node.blob, f"/blob/{ID}")):
        async with talk(url) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: sos\r\nContent-Length: 11\r\n\r\n"
            await connection.send(head.encode() + HELLO)
            connection.end()
            assert b" 200 " not in await connection._reader.read(100)
    assert [each async for each in node.sos.ids()] == []
