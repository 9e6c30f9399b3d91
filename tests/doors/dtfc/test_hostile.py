"""Whatever comes, there is an answer, none of them 500, and the node lives on."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.doors.dtfc.wire import HASH, HELLO, Dtfc

from tierce.testing.serving import serving

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Anything that may stand in a request's first line; and what paths here are made of.
TARGETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
PIECES = st.lists(
    st.sampled_from(["/", HASH, HASH.upper(), HASH[:-1], "%00", "%2F", "%FF", "..", "nopeerload",
                     "ffmetadata", "allpeers", "health.html", "refreshpeers.html", "?", "#", "%C3%A9"]),
    max_size=5,
).map("".join)  # fmt: skip
METHODS = st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS"])
VALUES = st.binary(max_size=30).map(
    lambda value: value.translate(None, bytes(range(32)) + b"\x7f").decode("latin-1")
)
NAMES = ["Range", "If-Range", "If-None-Match", "If-Modified-Since", "Content-Disposition",
         "X-Forwarded-Proto", "Authorization", "Expect", "Content-Encoding"]  # fmt: skip


@quick
@given(target=TARGETS | PIECES, method=METHODS)
async def test_any_path_has_an_answer(node: Dtfc, target: str, method: str) -> None:
    answer = await node.call(method, f"/{target}", body=HELLO if method == "PUT" else b"")
    assert answer.status in (200, 400, 404, 415)
    assert (await node.get("/health.html")).status == 200


@quick
@given(name=st.sampled_from(NAMES), value=VALUES, method=st.sampled_from(["GET", "HEAD", "PUT"]))
async def test_any_header_has_an_answer(node: Dtfc, name: str, value: str, method: str) -> None:
    await node.put()
    answer = await node.call(
        method, f"/{HASH}", f"{name}: {value}", body=HELLO if method == "PUT" else b""
    )
    assert 200 <= answer.status < 500


@pytest.mark.parametrize("host", ["", "a b", "x\x80y", "/evil", ":", "[", "@"])
async def test_any_host_has_an_answer(tmp_path: Path, host: str) -> None:
    async with serving(tmp_path, ("dtfc",), dtfc_https_redirect=True) as served:
        answer = await Dtfc(served.urls["dtfc"]).call("GET", f"/{HASH}", host=host)
        assert answer.status in (301, 400, 404)


async def test_a_body_that_breaks_off_is_not_kept(node: Dtfc) -> None:
    answer = await node.call(
        "PUT", "/a", "Transfer-Encoding: chunked\r\nX: y", body=b"zz\r\nno\r\n"
    )
    assert answer.status == 400
    assert (await node.get()).status == 404


async def test_an_encoded_body_is_refused(node: Dtfc) -> None:
    answer = await node.put("a", HELLO, "Content-Encoding: gzip")
    assert answer.status == 415


async def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, ("dtfc",), blob_limit_bytes=10) as served:
        answer = await Dtfc(served.urls["dtfc"]).put()
        assert answer.status == 413


async def test_a_node_that_is_read_only_takes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, ("dtfc",), read_only=True) as served:
        answer = await Dtfc(served.urls["dtfc"]).put()
        assert answer.status == 503
        assert "retry-after" in answer.headers
