"""Whatever is sent has an answer, and nothing reaches the cache but ids."""

import re
from urllib.parse import quote_from_bytes

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doors.cask.wire import RawAnswer, request, talk
from tests.doors.objstore.near_cache import ID, Node
from tests.doors.objstore.wire import EMPTY, NO_PAGE, get, metadata, plain, put

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EXPECTED = {200, 206, 301, 304, 307, 400, 404, 405, 412, 413, 415, 416, 431}
# What may stand in a header, or in a target, without ending it.
header_bytes = st.binary(max_size=60).map(
    lambda data: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", data)
)
target_bytes = st.binary(max_size=60).map(lambda data: quote_from_bytes(data, safe="/%?&=;:@+~"))


async def send(node: Node, data: bytes) -> RawAnswer:
    async with talk(node.url) as connection:
        await connection.send(data)
        return await connection.answer()


@pytest.mark.parametrize(
    ("object_id", "expected"),
    [
        ("..", EMPTY),
        ("%2e%2e", EMPTY),
        ("..%2F..%2Fetc%2Fpasswd", NO_PAGE),
        ("../../../../etc/passwd", NO_PAGE),
        ("%00", EMPTY),
        (f"{ID}%00", EMPTY),
        (f"{ID}%0A", EMPTY),
        (f"{ID}%20", EMPTY),
        ("01BRNMMS1D%2F..%2F..%2Fpasswd0", NO_PAGE),
        ("01BRNMMS1D....passwd000000", EMPTY),
        (f"{ID[:-1]}%C4%B1", EMPTY),
        (f"{ID[:-1]}%EF%BC%A2", EMPTY),
        ("%FF%FE", EMPTY),
        ("0" * 26, EMPTY),
        ("7" + "Z" * 25, EMPTY),
        ("A" * 5000, EMPTY),
    ],
)
@pytest.mark.parametrize("operation", ["GET get", "HEAD get", "GET meta", "POST delete"])
async def test_an_id_that_is_none_is_not_asked_for(
    node: Node, operation: str, object_id: str, expected: tuple[str, str | None, bytes]
) -> None:
    await put(node)
    node.cache.refusal = AssertionError("the cache was asked")
    method, name = operation.split()
    answer = await send(node, request(method, f"/api/v1/{name}/{object_id}"))
    line, kind, body = expected
    assert plain(answer) == (line, kind, b"" if method == "HEAD" else body)
    assert metadata(answer) == {}


@pytest.mark.parametrize("name", ["a\r\nX-Evil: 1", "a\0b\x1b[31m\x7f", " \n "])
async def test_a_name_from_elsewhere_can_not_end_a_line(node: Node, name: str) -> None:
    await put(node)
    node.cache.records[ID] = msgspec.structs.replace(node.cache.records[ID], name=name)
    answer = await get(node)
    assert answer.status == 200
    assert "x-evil" not in answer.headers
    assert answer.headers["x-meta-name"].isprintable()


@FUZZ
@given(target=target_bytes, method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]))
async def test_any_path_has_an_answer(node: Node, target: str, method: str) -> None:
    for start in ("/", "/api/v1/", "/api/v1/get/", "/api/v1/delete/"):
        answer = await send(node, request(method, start + target))
        assert answer.status in EXPECTED
        assert answer.status != 200 or method == "HEAD" or answer.body


@FUZZ
@given(
    name=header_bytes,
    metadata_=st.one_of(header_bytes, st.dictionaries(st.text(max_size=9), st.text(max_size=9)).map(
        msgspec.json.encode)),
    level=st.one_of(header_bytes, st.sampled_from([b"0", b"1", b"2"])),
)  # fmt: skip
async def test_any_header_of_a_put_is_taken_or_refused(
    node: Node, name: bytes, metadata_: bytes, level: bytes
) -> None:
    head = request("POST", "/api/v1/put", f"X-Meta-ID: {ID}").removesuffix(b"\r\n")
    fields = (
        b"X-Meta-Name: " + name,
        b"X-Meta-UserMeta: " + metadata_.replace(b"\x7f", b""),
        b"X-Meta-ConsistencyLevel: " + level,
    )
    answer = await send(node, head + b"\r\n".join(fields) + b"\r\n\r\n")
    assert answer.status in (200, 400)
    got = await get(node)
    if answer.status == 200:
        assert got.status == 200
        assert got.headers.get("x-meta-name", "").encode("latin-1") == name.strip(b" \t").replace(
            b"\t", b" "
        )
        assert not set(got.headers) - {
            "accept-ranges", "etag", "last-modified", "x-content-type-options", "content-type",
            "content-length", "date", "connection", "x-meta-consistencylevel", "x-meta-id",
            "x-meta-name", "x-meta-usermeta",
        }  # fmt: skip


@FUZZ
@given(
    field=st.sampled_from(
        ["Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since",
         "If-Unmodified-Since", "X-Meta-Fetch", "Authorization"]
    ),
    value=st.one_of(
        header_bytes,
        st.from_regex(r"bytes=[0-9,-]{0,12}", fullmatch=True).map(str.encode),
        st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,20} [0-9:]{1,9} GMT",
                      fullmatch=True).map(lambda text: text.encode("ascii", "ignore")),
    ),
)  # fmt: skip
async def test_any_header_of_a_get_has_an_answer(node: Node, field: str, value: bytes) -> None:
    await put(node)
    head = request("GET", f"/api/v1/get/{ID}").removesuffix(b"\r\n")
    answer = await send(node, head + field.encode() + b": " + value + b"\r\n\r\n")
    assert answer.status in EXPECTED
    assert answer.status in (200, 206, 304, 412, 416)
