"""What a put takes, what it refuses, and what comes out again as it went in."""

import pytest
from tests.doors.cask.wire import RawAnswer, ask, request, talk
from tests.doors.objstore.near_cache import CONTENT, ID, OTHER_ID, Node, objstore_node
from tests.doors.objstore.wire import get, metadata, plain, put

from tierce.core.errors import Conflict, Full, NotFound, ReadOnly, TooLarge, Unavailable
from tierce.core.rights import Right, Token

TEXT = "text/plain; charset=utf-8"


async def chunked(node: Node, *headers: str) -> RawAnswer:
    async with talk(node.url) as connection:
        head = request(
            "POST", "/api/v1/put", f"X-Meta-ID: {ID}", "Transfer-Encoding: chunked", *headers
        )
        await connection.send(head)
        for piece in (CONTENT[:4], CONTENT[4:]):
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await connection.send(b"0\r\n\r\n")
        return await connection.answer()


async def test_a_chunked_body_is_counted(node: Node) -> None:
    assert (await chunked(node)).status == 200
    assert node.cache.announced_sizes == [None]
    assert b'"size":9' in (await ask(node.url, "GET", f"/api/v1/meta/{ID}")).body
    assert (await get(node)).body == CONTENT


async def test_an_announced_size_is_passed_on(node: Node) -> None:
    await put(node)
    assert node.cache.announced_sizes == [9]


@pytest.mark.parametrize(
    ("text", "level"), [("", 0), ("0", 0), ("1", 1), ("2", 2), ("+2", 2), ("01", 1)]
)
async def test_levels_are_read_as_go_reads_numbers(node: Node, text: str, level: int) -> None:
    assert (await put(node, f"X-Meta-ConsistencyLevel: {text}")).status == 200
    assert (await get(node)).headers["x-meta-consistencylevel"] == str(level)


@pytest.mark.parametrize("text", ["-1", "3", "1.0", "0x1", "1 2", "9" * 5000, "eins", "\u0661"])
async def test_other_levels_are_refused(node: Node, text: str) -> None:
    answer = await put(node, f"X-Meta-ConsistencyLevel: {text}")
    assert (answer.status, answer.body) == (400, b"error: objstore: invalid consistency level")
    assert node.cache.records == {}


async def test_an_id_in_small_letters_is_the_same_id(node: Node) -> None:
    assert (await put(node, object_id=ID.lower())).status == 200
    for each in (ID, ID.lower()):
        answer = await get(node, object_id=each)
        assert (answer.body, answer.headers["x-meta-id"]) == (CONTENT, ID)
    assert (await ask(node.url, "POST", f"/api/v1/delete/{ID.lower()}")).status == 200


@pytest.mark.parametrize(
    "object_id",
    [
        "nope", ID[:-1], f"{ID}0", f"8{ID[1:]}", ID.replace("B", "U", 1), ID.replace("D", "L", 1),
        "014N165XZZ" + 16 * "0", "03QA3ZGPZ8" + 16 * "0", "01BRNMMS1D/../../../../../x"[:26],
        "01BRNMMS1DK3CBD4ZZM2TQ8C5\u0131", "<script>alert(1)</script>",
    ],
)  # fmt: skip
async def test_what_is_no_ulid_is_refused_and_quoted_as_it_came(node: Node, object_id: str) -> None:
    answer = await put(node, object_id=object_id)
    assert plain(answer) == (
        "HTTP/1.1 400 Bad Request",
        TEXT,
        b"error: objstore: not a valid ULID: " + object_id.encode(),
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert node.cache.records == {}


@pytest.mark.parametrize(
    "text", ["notes.txt", "Ré\u4e2d\U0001f600.txt", 'a "b"; c=d.txt', "%0d%0a"]
)
async def test_a_name_comes_back_as_the_bytes_that_were_sent(node: Node, text: str) -> None:
    await put(node, name=text)
    name = (await get(node)).headers["x-meta-name"]
    assert name.encode("latin-1") == text.encode()


async def test_user_metadata_comes_back_compact_and_in_order(node: Node) -> None:
    await put(node, 'X-Meta-UserMeta: {"z": "1", "a<b>": "\\u00e9\\u2028&", "k": "Case"}')
    assert node.cache.records[ID].metadata == {"z": "1", "a<b>": "é\u2028&", "k": "Case"}
    value = (await get(node)).headers["x-meta-usermeta"].encode("latin-1").decode()
    assert value == '{"a\\u003cb\\u003e":"é\\u2028\\u0026","k":"Case","z":"1"}'


async def test_metadata_can_not_end_a_line(node: Node) -> None:
    await put(node, 'X-Meta-UserMeta: {"a\\r\\nX-Evil: 1": "\\n\\u0000\\u007f\\u0085"}')
    answer = await get(node)
    assert "x-evil" not in answer.headers
    value = answer.headers["x-meta-usermeta"].encode("latin-1").decode()
    assert value == '{"a\\r\\nX-Evil: 1":"\\n\\u0000\\u007f\u0085"}'


async def test_values_that_are_no_text_are_kept_as_their_json(node: Node) -> None:
    await put(node, 'X-Meta-UserMeta: {"width": 640, "deep": {"x": [1]}, "none": null}')
    assert node.cache.records[ID].metadata == {"width": "640", "deep": '{"x": [1]}', "none": ""}


@pytest.mark.parametrize("text", ["", "null", "{}"])
async def test_no_user_metadata_is_none(node: Node, text: str) -> None:
    assert (await put(node, f"X-Meta-UserMeta: {text}")).status == 200
    assert "x-meta-usermeta" not in (await get(node)).headers


@pytest.mark.parametrize("text", ["color=red", "[1]", '"x"', "{", '{"a":1}}', '{"a":"\\ud800"}'])
async def test_user_metadata_that_would_be_lost_is_refused(node: Node, text: str) -> None:
    answer = await put(node, f"X-Meta-UserMeta: {text}")
    assert answer.status == 400
    assert answer.body.startswith(b"error: the header X-Meta-UserMeta is not a JSON object\n")
    assert node.cache.records == {}


@pytest.mark.parametrize(
    "headers",
    [
        (b"X-Meta-Name: \xe9.txt",),
        (b'X-Meta-UserMeta: {"a":"\xff"}',),
    ],
)
async def test_metadata_that_is_no_utf8_is_refused(node: Node, headers: tuple[bytes, ...]) -> None:
    async with talk(node.url) as connection:
        head = request("POST", "/api/v1/put", f"X-Meta-ID: {ID}")
        await connection.send(head.removesuffix(b"\r\n") + b"\r\n".join(headers) + b"\r\n\r\n")
        answer = await connection.answer()
    assert answer.status == 400
    assert b"is not UTF-8" in answer.body


@pytest.mark.parametrize(
    "header", [f"X-Meta-Name: {'n' * 1025}", f'X-Meta-UserMeta: {{"k":"{"v" * 2048}"}}']
)
async def test_long_names_and_metadata_are_refused(node: Node, header: str) -> None:
    answer = await put(node, header, name="")
    assert answer.status == 413
    assert answer.body.startswith(b"error: ")
    assert node.cache.records == {}


async def test_an_upload_that_is_still_to_come_is_told(node: Node) -> None:
    node.cache.is_queued = True
    answer = await put(node, "X-Meta-ConsistencyLevel: 1")
    assert plain(answer) == ("HTTP/1.1 200 OK", None, b"")
    assert answer.headers["x-meta-upstream"] == "queued"


async def test_a_level_that_needs_an_upstream_is_a_conflict_without_one(node: Node) -> None:
    node.cache.has_upstream = False
    answer = await put(node, "X-Meta-ConsistencyLevel: 1")
    assert (answer.status, answer.body) == (409, b"error: there is no upstream")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Unavailable("the bucket can't be reached", hint="Look at it."), 503),
        (ReadOnly("this node is read-only"), 503),
        (Full("no space left"), 507),
        (TooLarge("the body is too large"), 413),
        (Conflict("no"), 409),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_keeps_a_file_from_being_stored_is_told(
    node: Node, refusal: Exception, status: int
) -> None:
    node.cache.refusal = refusal
    answer = await put(node)
    assert answer.status == status
    assert answer.body.startswith(f"error: {refusal}".encode())
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_a_mistake_of_ours_is_500_without_a_body(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.cache.refusal = RuntimeError("a defect")
    assert plain(await get(node)) == ("HTTP/1.1 500 Internal Server Error", None, b"")
    assert "a defect" in caplog.text


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Transfer-Encoding: gzip, chunked"])
async def test_a_coded_body_is_refused(node: Node, header: str) -> None:
    answer = await put(node, header)
    assert answer.status in (400, 415)
    assert node.cache.records == {}


async def test_a_body_that_is_cut_off_is_not_stored(node: Node) -> None:
    async with talk(node.url) as connection:
        head = request("POST", "/api/v1/put", f"X-Meta-ID: {ID}", body=CONTENT)
        await connection.send(head[:-1])
        connection.end()
        with pytest.raises(EOFError):
            await connection.answer()
    await put(node, object_id=OTHER_ID)
    assert list(node.cache.records) == [OTHER_ID]


async def test_rights_are_asked_for() -> None:
    reader = Token.of("reader", frozenset({Right.READ}), "r")
    writer = Token.of("writer", frozenset({Right.WRITE}), "w")
    async with objstore_node(frozenset(), (reader, writer)) as node:
        for token, status in (("", 401), ("x", 401), ("r", 403), ("w", 200)):
            bearer = [f"Authorization: Bearer {token}"] * bool(token)
            assert (await put(node, *bearer)).status == status
        for token, status in (("", 401), ("w", 403), ("r", 200)):
            bearer = [f"Authorization: Bearer {token}"] * bool(token)
            for path in (f"get/{ID}", f"meta/{ID}", "stats"):
                assert (await ask(node.url, "GET", f"/api/v1/{path}", *bearer)).status == status
        assert (await ask(node.url, "POST", f"/api/v1/delete/{ID}")).status == 401
        for path in ("id", "version", "ping"):
            assert (await ask(node.url, "GET", f"/api/v1/{path}")).status == 200


async def test_a_refused_caller_does_not_learn_whether_a_file_is_there() -> None:
    async with objstore_node(frozenset()) as node:
        node.cache.refusal = NotFound("never asked")
        answer = await get(node)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="tierce"'
        assert metadata(answer) == {}
