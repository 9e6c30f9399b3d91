"""Headers that are kept with an object, its type, ranges, conditions, and who may do what."""

import json
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from pathlib import Path

import msgspec
import pytest
from tests.doors.cask.wire import RawAnswer, ask, request, talk
from tests.doors.sos.node import HELLO, ID, OK, UNKNOWN, SosNode, sos_node

from tierce.core.errors import Corrupt, NotFound, TierceError, Unavailable
from tierce.core.limits import METADATA_BYTES
from tierce.core.rights import Right, Token
from tierce.core.sos import SosFound, SosStored
from tierce.names.record import Record
from tierce.service.sos_blobs import SOS_BUCKET

ETAG = f'"sha1:{ID}"'


def kept(answer: RawAnswer) -> dict[str, str]:
    """The X- headers, without the door's own."""
    found = {name: value for name, value in answer.headers.items() if name.startswith("x-")}
    assert found.pop("x-content-type-options") == "nosniff"
    return found


async def test_x_headers_come_back_from_both_doors_by_their_canonical_names(node: SosNode) -> None:
    await node.post("x-OWNER: Steve", "X-Owner: second", "Y-Other: no", "X-B: Grüße")
    for answer in (await node.fetch(), await node.get()):
        assert answer.body == HELLO
        assert kept(answer) == {"x-owner": "Steve", "x-b": "Grüße".encode().decode("latin-1")}
    async with talk(node.download) as connection:
        await connection.send(request("GET", f"/fetch/{ID}"))
        assert b"X-Owner: Steve\r\n" in await connection._reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "X-Real-IP: 10.0.0.1",
        "X-Accel-Redirect: /etc/passwd", "X-Sendfile: /etc/passwd", "X-Sendfile2: /etc/passwd 0-",
        "X-LIGHTTPD-send-file: /etc/passwd", "X-Reproxy-URL: http://10.0.0.1/",
        "X-Content-Type-Options: none",
    ],
)  # fmt: skip
async def test_what_speaks_to_proxies_is_neither_kept_nor_sent(node: SosNode, header: str) -> None:
    await node.post(header)
    assert kept(await node.fetch()) == {}
    name, _, value = header.partition(": ")
    draft = Record(bucket=SOS_BUCKET, key="steve", metadata={name: value, "X-Fine": "yes"})
    await node.post(sos_id="steve")
    known = node.index.get(SOS_BUCKET, "steve")
    assert known is not None
    await node.index.write(msgspec.structs.replace(known, metadata=draft.metadata), now=1)
    assert kept(await node.fetch(name="steve")) == {"x-fine": "yes"}


@pytest.mark.parametrize(
    "metadata", [{"X-A\r\nX-Evil": "1"}, {"X-A": "1\r\nX-Evil: 2"}, {"color": "red"}, {"X-": "1"}]
)
async def test_metadata_from_elsewhere_can_not_add_headers(
    node: SosNode, metadata: dict[str, str]
) -> None:
    await node.post(sos_id="steve")
    known = node.index.get(SOS_BUCKET, "steve")
    assert known is not None
    await node.index.write(msgspec.structs.replace(known, metadata=metadata), now=1)
    answer = await node.fetch(name="steve")
    assert answer.status == 200
    assert set(kept(answer)) <= {"x-a"}
    assert answer.body == HELLO


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("image/png", "image/png"),
        ("text/html; charset=utf-8", "text/html; charset=utf-8"),
        ("nonsense", "application/octet-stream"),
    ],
)
async def test_the_type_is_the_one_that_was_sent(node: SosNode, sent: str, told: str) -> None:
    await node.post(f"X-MIME-Type: {sent}")
    for answer in (await node.fetch(), await node.get()):
        assert answer.headers["content-type"] == told
        assert kept(answer) == {"x-mime-type": sent}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([f"X-A: {'a' * METADATA_BYTES}"], 413),
        ([f"X-A{number}: 1" for number in range(90)], 413),
        (["Content-Encoding: gzip"], 415),
    ],
)
@pytest.mark.parametrize("sos_id", ["", "steve"])
async def test_what_is_too_much_is_refused(
    node: SosNode, headers: list[str], status: int, sos_id: str
) -> None:
    answer = await node.post(*headers, sos_id=sos_id)
    assert answer.status == status
    assert json.loads(answer.body)["status"] == "FAILED"
    assert [each async for each in node.sos.ids()] == []


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        (("Range: bytes=6-8",), 206, b"sos"),
        (("Range: bytes=-4", f"If-Range: {ETAG}"), 206, b"sos\n"),
        (("Range: bytes=6-8", 'If-Range: "other"'), 200, HELLO),
        ((f"If-None-Match: {ETAG}",), 304, b""),
        (("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",), 304, b""),
        (("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",), 200, HELLO),
    ],
)
async def test_ranges_and_conditions_are_answered(
    node: SosNode, headers: tuple[str, ...], status: int, body: bytes
) -> None:
    await node.post("X-A: 1")
    for answer in (await node.fetch(*headers), await node.get(*headers)):
        assert (answer.status, answer.body) == (status, body)
        assert answer.headers["etag"] == ETAG
        assert "last-modified" in answer.headers


async def test_a_range_beyond_the_end_is_416(node: SosNode) -> None:
    await node.post()
    for answer in (await node.fetch("Range: bytes=10-"), await node.get("Range: bytes=10-")):
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10")


async def test_a_blob_without_headers_has_no_date(node: SosNode) -> None:
    await node.post()
    answer = await node.fetch("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT")
    assert answer.status == 200
    assert "last-modified" not in answer.headers


class Content:
    """Bytes of unknown origin, in two pieces; the second may not come."""

    size = 10
    data = None

    def __init__(self, error: TierceError | None) -> None:
        self.error = error
        self.is_open = True

    async def stream(self, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        yield HELLO[start : 5 if stop is None else min(5, stop)]
        if self.error is not None:
            raise self.error
        yield HELLO[max(5, start) : stop]

    async def aclose(self) -> None:
        self.is_open = False


class Elsewhere:
    """A store that is not the cluster. ``error`` is what goes wrong."""

    def __init__(
        self,
        error: TierceError | None = None,
        *,
        midway: bool = False,
        is_read_whole: bool = False,
    ) -> None:
        self.error = error
        self.midway = midway
        self.is_read_whole = is_read_whole
        self.taken: list[tuple[bytes, dict[str, str], int | None]] = []
        self.opened: list[Content] = []

    async def put(
        self,
        body: AsyncIterable[bytes],
        metadata: Mapping[str, str],
        *,
        announced_bytes: int | None = None,
    ) -> SosStored:
        if self.error is not None:
            raise self.error
        data = b"".join([piece async for piece in body])
        self.taken.append((data, dict(metadata), announced_bytes))
        return SosStored(ID, len(data))

    async def open(self, sos_id: str) -> SosFound:
        if self.error is not None and not self.midway:
            raise self.error
        self.opened.append(Content(self.error))
        return SosFound(self.opened[-1], {"X-A": "1"}, is_read_whole=self.is_read_whole)


async def test_uploads_and_downloads_can_go_elsewhere(tmp_path: Path) -> None:
    store = Elsewhere()
    async with sos_node(tmp_path, store=store) as node:
        assert (await node.post("X-A: 1", "X-Real-Ip: no")).body == OK
        assert store.taken == [(HELLO, {"X-A": "1"}, 10)]
        answer = await node.fetch("If-Match: *")
        assert (answer.body, kept(answer)) == (HELLO, {"x-a": "1"})
        assert "etag" not in answer.headers
        assert (await node.fetch(method="HEAD")).headers["content-length"] == "10"
        assert (await node.get()).status == 404
    assert not any(each.is_open for each in store.opened)


@pytest.mark.parametrize("header", ['If-None-Match: "none-of-yours"', 'If-Range: "x"'])
async def test_without_a_tag_no_condition_holds_back_the_bytes(tmp_path: Path, header: str) -> None:
    async with sos_node(tmp_path, store=Elsewhere()) as node:
        answer = await node.fetch(header, "Range: bytes=0-3" if "Range" in header else "X-B: 1")
    assert (answer.status, answer.body) == (200, HELLO)


@pytest.mark.parametrize("error", [Corrupt("wrong bytes"), Unavailable("it died")])
async def test_an_answer_that_goes_wrong_midway_is_broken_off(
    tmp_path: Path, error: TierceError
) -> None:
    store = Elsewhere(error, midway=True)
    async with sos_node(tmp_path, store=store) as node, talk(node.download) as connection:
        await connection.send(request("GET", f"/fetch/{ID}"))
        _, headers = await connection.head()
        assert headers["content-length"] == "10"
        with pytest.raises((ConnectionError, EOFError)):
            await connection._reader.readexactly(10)
    assert not any(each.is_open for each in store.opened)


@pytest.mark.parametrize("is_read_whole", [True, False])
async def test_several_ranges_of_what_is_read_whole_are_the_whole(
    tmp_path: Path, is_read_whole: bool
) -> None:
    store = Elsewhere(is_read_whole=is_read_whole)
    async with sos_node(tmp_path, store=store) as node:
        assert (await node.fetch("Range: bytes=0-1")).body == HELLO[:2]
        answer = await node.fetch("Range: bytes=0-1,3-3")
    assert answer.status == (200 if is_read_whole else 206)
    assert (answer.body == HELLO) is is_read_whole


async def test_what_can_not_be_said_now_is_503(tmp_path: Path) -> None:
    async with sos_node(tmp_path, store=Elsewhere(Unavailable("all are down"))) as node:
        for answer in (await node.post(), await node.fetch(), await node.fetch(name=f"{ID}.jpg")):
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert b"all are down" in answer.body
        assert json.loads((await node.post()).body) == {"error": "all are down", "status": "FAILED"}


async def test_what_is_nowhere_is_404_even_with_an_extension(tmp_path: Path) -> None:
    async with sos_node(tmp_path, store=Elsewhere(NotFound("no"))) as node:
        assert (await node.fetch(name=f"{UNKNOWN}.jpg")).status == 404


class Partly(Elsewhere):
    """A store that knows one id, and can't say of others whether they are there."""

    def __init__(self, known: str) -> None:
        super().__init__()
        self.known = known

    async def open(self, sos_id: str) -> SosFound:
        if sos_id != self.known:
            raise Unavailable("one is down") if sos_id != UNKNOWN else NotFound("no")
        return await super().open(sos_id)


@pytest.mark.parametrize(
    ("known", "name", "status"),
    [
        (ID, ID, 200),
        (ID, f"{ID}.jpg", 200),
        (ID, f"{UNKNOWN}.jpg", 503),
        ("steve", "steve.jpg", 503),
    ],
)
async def test_a_server_that_is_down_does_not_keep_back_a_sha1_with_an_extension(
    tmp_path: Path, known: str, name: str, status: int
) -> None:
    async with sos_node(tmp_path, store=Partly(known)) as node:
        assert (await node.fetch(name=name)).status == status


async def test_a_node_that_is_read_only_takes_nothing(tmp_path: Path) -> None:
    async with sos_node(tmp_path, read_only=True) as node:
        for answer in (await node.post(), await node.post(sos_id="steve")):
            assert answer.status == 503
            assert json.loads(answer.body)["status"] == "FAILED"


@pytest.mark.parametrize(
    ("door", "method", "path", "right"),
    [
        ("upload", "POST", "/upload", Right.WRITE),
        ("download", "GET", f"/fetch/{ID}", Right.READ),
        ("blob", "POST", "/blob/steve", Right.WRITE),
        ("blob", "GET", f"/blob/{ID}", Right.READ),
        ("blob", "HEAD", f"/blob/{ID}", Right.READ),
        ("blob", "GET", "/blobs", Right.READ),
    ],
)
async def test_each_request_needs_its_right(
    tmp_path: Path, door: str, method: str, path: str, right: Right
) -> None:
    tokens = tuple(Token.of(each, frozenset({each}), each) for each in Right)
    async with sos_node(tmp_path, anonymous=frozenset(), tokens=tokens) as node:
        await node.post("Authorization: Bearer write")
        url = getattr(node, door)
        for sent, status in ((None, 401), (Right.ADMIN, 403), (right, 200)):
            headers = [f"Authorization: Bearer {sent}"] if sent else []
            answer = await ask(url, method, path, *headers, body=HELLO if method == "POST" else b"")
            assert answer.status == status
        assert (await ask(node.blob, "GET", "/alive")).status == 200
