"""User metadata as tags: what fits, what is sent and how it is signed, and servers without tags."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from tierce.cloud.failures import Passing
from tierce.cloud.retrying import Patience
from tierce.core.errors import Unavailable
from tierce.testing.upstream_contract import BytesSource, record_of
from tierce.upstream.cloud import open_upstream
from tierce.upstream.tags import (
    UPSTREAM_TAGS_COUNT,
    CantSign,
    Place,
    Tagger,
    document,
    tags_of,
)

NO_TAGS = '<?xml version="1.0"?><Tagging xmlns="x"><TagSet/></Tagging>'
QUICK = Patience(attempts=3, backoff_min_seconds=0.01, stall_seconds=2.0)
SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=AKID/\d{8}/eu-west-1/s3/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=[0-9a-f]{64}"
)


class Seen(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class StandIn:
    """An S3 that takes objects, and answers requests for tags as it is told."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.get: tuple[int, str, dict[str, str]] = (200, NO_TAGS, {})
        self.put_statuses: list[int] = []
        self.endpoint = ""

    @property
    def tagging(self) -> list[Seen]:
        return [each for each in self.seen if each.path.endswith("?tagging")]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        lowered = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.raw_path, lowered, body))
        if "tagging" not in request.query:
            return web.Response(headers={"ETag": '"e"'})
        if request.method == "GET":
            status, text, headers = self.get
            return web.Response(status=status, text=text, headers=headers)
        return web.Response(status=self.put_statuses.pop(0) if self.put_statuses else 200)


@pytest.fixture
async def stand_in(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandIn]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    stand_in = StandIn()
    application = web.Application()
    handler: Callable[[web.Request], Awaitable[web.Response]] = stand_in.answer
    application.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(application) as server:
        stand_in.endpoint = str(server.make_url("")).rstrip("/")
        yield stand_in


async def upload(stand_in: StandIn, *records: dict[str, object]) -> str:
    """Upload records with these fields; returns what the status says of tags then."""
    url = f"s3://bucket/pre?region=eu-west-1&endpoint={stand_in.endpoint}"
    upstream = open_upstream(url, patience=QUICK)
    source = BytesSource(b"x")
    try:
        for fields in records:
            await upstream.upload(record_of(source, **fields), source)
    finally:
        state = str(upstream.status()["tags"])
        await upstream.aclose()
    return state


async def test_tags_are_set_by_a_signed_request(stand_in: StandIn) -> None:
    state = await upload(
        stand_in, {"key": "a é+b", "metadata": {"Color": "Red & <blue>", "n": "1"}}
    )
    assert state == "on"
    get, put = stand_in.tagging
    assert (get.method, put.method) == ("GET", "PUT")
    assert put.path == "/bucket/pre/a%20%C3%A9%2Bb?tagging"
    signed = SIGNATURE.fullmatch(put.headers["authorization"])
    assert signed is not None
    assert set(signed[1].split(";")) >= {
        "host",
        "x-amz-date",
        "x-amz-content-sha256",
        "content-md5",
    }
    assert put.headers["x-amz-content-sha256"] == hashlib.sha256(put.body).hexdigest()
    md5 = hashlib.md5(put.body).digest()
    assert put.headers["content-md5"] == base64.b64encode(md5).decode()
    assert "very-secret" not in str(put)
    # "&" and "<" are nothing that a tag may have.
    assert [each.text for each in ElementTree.fromstring(put.body).iter() if each.text] == [
        "n",
        "1",
    ]


async def test_a_server_is_asked_for_tags_once(stand_in: StandIn) -> None:
    records: list[dict[str, object]] = [
        {"key": f"k{number}", "metadata": {"a": "b"}} for number in range(3)
    ]
    await upload(stand_in, *records)
    assert [each.method for each in stand_in.tagging] == ["GET", "PUT", "PUT", "PUT"]


async def test_an_object_without_user_metadata_needs_no_request(stand_in: StandIn) -> None:
    assert await upload(stand_in, {"metadata": {}}) == "unknown"
    assert stand_in.tagging == []


@pytest.mark.parametrize(
    "get",
    [
        (200, "<ListBucketResult/>", {}),
        (200, NO_TAGS, {"ETag": '"e"'}),
        (200, NO_TAGS, {"Last-Modified": "Sat, 21 Nov 2026 13:03:12 GMT"}),
        (200, "the content", {}),
        (400, "", {}),
        (403, "", {}),
        (405, "", {}),
        (500, "", {}),
        (501, "", {}),
    ],
)
async def test_a_server_that_does_not_answer_with_tags_is_never_sent_any(
    stand_in: StandIn, get: tuple[int, str, dict[str, str]]
) -> None:
    stand_in.get = get
    fields: dict[str, object] = {"metadata": {"a": "b"}}
    assert (await upload(stand_in, fields, fields)).startswith("off: ")
    assert [each.method for each in stand_in.tagging] == ["GET"]


async def test_setting_tags_is_tried_again_as_the_rest(stand_in: StandIn) -> None:
    stand_in.put_statuses = [503, 500, 200]
    assert await upload(stand_in, {"metadata": {"a": "b"}}) == "on"
    assert [each.method for each in stand_in.tagging] == ["GET", "PUT", "PUT", "PUT"]


async def test_tags_that_never_can_be_set_fail_the_upload(stand_in: StandIn) -> None:
    stand_in.put_statuses = [503] * 9
    with pytest.raises(Unavailable, match="HTTP status 503"):
        await upload(stand_in, {"metadata": {"a": "b"}})


async def test_a_busy_server_is_not_taken_for_one_without_tags(stand_in: StandIn) -> None:
    stand_in.get = (503, "", {})
    with pytest.raises(Unavailable, match="HTTP status 503"):
        await upload(stand_in, {"metadata": {"a": "b"}})


async def test_missing_rights_to_set_tags_do_not_keep_objects_out(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.put_statuses = [403]
    fields: dict[str, object] = {"metadata": {"a": "b"}}
    assert "s3:PutObjectTagging" in await upload(stand_in, fields, fields)
    assert caplog.text.count("No tags are set") == 1


async def test_without_credentials_of_botocore_there_are_no_tags_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, f"{tmp_path}/none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    tagger = Tagger(Place("http://127.0.0.1:1", "b", "r"))
    await tagger.put("k", {"a": "b"})
    assert "botocore finds no credentials" in tagger.state
    await tagger.aclose()


async def test_a_profile_that_is_not_there_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    tagger = Tagger(Place("http://127.0.0.1:1", "b", "r", profile="nobody"))
    await tagger.put("k", {"a": "b"})
    assert "nobody" in tagger.state


class Signing:
    """Signs as botocore does, while it has credentials."""

    def __init__(self, tagger: Tagger) -> None:
        self.has_credentials = True
        self.count = 0
        self._sign = tagger._signed
        tagger._signed = self.sign  # type: ignore[method-assign]

    def sign(self, method: str, url: str, body: bytes) -> dict[str, str]:
        self.count += 1
        if not self.has_credentials:
            raise CantSign("no credentials now")
        return self._sign(method, url, body)


async def test_credentials_missing_at_first_switch_tags_off_for_good(stand_in: StandIn) -> None:
    tagger = Tagger(Place(stand_in.endpoint, "b", "eu-west-1"))
    signing = Signing(tagger)
    signing.has_credentials = False
    for _ in range(2):
        await tagger.put("k", {"a": "b"})
    assert tagger.state == "off: no credentials now"
    assert signing.count == 1
    assert stand_in.seen == []
    await tagger.aclose()


async def test_credentials_missing_later_are_waited_for(stand_in: StandIn) -> None:
    """Those of a role are had from a server, which may be away for a moment."""
    tagger = Tagger(Place(stand_in.endpoint, "b", "eu-west-1"))
    signing = Signing(tagger)
    await tagger.put("one", {"a": "b"})
    signing.has_credentials = False
    with pytest.raises(Passing, match="no credentials now"):
        await tagger.put("two", {"a": "b"})
    assert tagger.state == "on"
    signing.has_credentials = True
    await tagger.put("two", {"a": "b"})
    assert [each.path for each in stand_in.tagging if each.method == "PUT"] == [
        "/b/one?tagging",
        "/b/two?tagging",
    ]
    await tagger.aclose()


def test_places_are_written_by_path_or_by_host() -> None:
    place = Place("https://s3.example:9000/base/", "b", "r", "/pre/")
    assert place.url("a/b c") == "https://s3.example:9000/base/b/pre/a/b%20c?tagging"
    host = Place("https://s3.example", "b", "r", is_virtual_host=True)
    assert host.url("k~") == "https://b.s3.example/k~?tagging"


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("a", "b", True),
        ("a b", "x +-=._:/@", True),
        ("имя", "Зоя 1", True),
        ("a", "", True),
        ("", "b", False),
        ("a" * 128, "b" * 256, True),
        ("a" * 129, "b", False),
        ("a", "b" * 257, False),
        ("aws:a", "b", False),
        ("AWS:a", "b", False),
        ("a&b", "c", False),
        ("a", "<b>", False),
        ("a", "b\n", False),
        ("a", "🛢", False),
    ],
)
def test_what_the_rules_of_s3_do_not_allow_is_left_out(name: str, value: str, fits: bool) -> None:
    assert tags_of({name: value, "ok": "yes"}) == ({name: value} if fits else {}) | {"ok": "yes"}


def test_ten_tags_go_and_no_more() -> None:
    metadata = {f"k{number}": "v" for number in range(15)}
    assert list(tags_of(metadata)) == [f"k{number}" for number in range(UPSTREAM_TAGS_COUNT)]


@given(st.dictionaries(st.text(), st.text()))
def test_what_is_sent_is_good_xml_with_these_tags(metadata: dict[str, str]) -> None:
    tags = tags_of(metadata)
    root = ElementTree.fromstring(document(tags))
    texts = [each.text or "" for each in root.iter() if re.search(r"\}(Key|Value)$", each.tag)]
    assert dict(zip(texts[::2], texts[1::2], strict=True)) == tags
