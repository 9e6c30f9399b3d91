"""Lists of ids: on every path that one generation asks for, of any length, and never cut in silence."""

import json
from collections.abc import AsyncGenerator

import aiohttp
import pytest
from tests.doors.cask.wire import ask, talk
from tests.doors.sos.node import ID, SosNode

from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.core.limits import SOS_IDS_AT_ONCE
from tierce.doors.sos.render import id_list


async def fetched(url: str) -> object:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/json"
        return await answer.json()


@pytest.mark.parametrize("path", ["/blob", "/blob/", "/blobs"])
async def test_all_ids_are_listed_in_order(node: SosNode, path: str) -> None:
    assert await fetched(node.blob + path) == []
    await node.post(sos_id="steve")
    await node.post()
    await node.post("X-A: 1", sos_id="Alpha")
    assert await fetched(node.blob + path) == [ID, "Alpha", "steve"]


async def test_a_client_of_http_1_0_gets_a_list_that_ends_with_the_connection(
    node: SosNode,
) -> None:
    await node.post()
    async with talk(node.blob) as connection:
        await connection.send(b"GET /blob HTTP/1.0\r\nHost: sos\r\n\r\n")
        answer = await connection.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.body == f'["{ID}"]'.encode()


async def test_the_head_of_a_list_has_no_body_and_the_connection_goes_on(node: SosNode) -> None:
    async with talk(node.blob) as connection:
        await connection.send(b"HEAD /blobs HTTP/1.1\r\nHost: sos\r\n\r\n")
        line, headers = await connection.head()
        assert line == "HTTP/1.1 200 OK"
        assert headers["transfer-encoding"] == "chunked"
        await connection.send(b"GET /alive HTTP/1.1\r\nHost: sos\r\nConnection: close\r\n\r\n")
        assert (await connection.answer()).body == b"alive"


@pytest.mark.parametrize("count", [0, 1, SOS_IDS_AT_ONCE, SOS_IDS_AT_ONCE + 1, 3 * SOS_IDS_AT_ONCE])
async def test_a_list_of_any_length_is_one_array(count: int) -> None:
    async def ids() -> AsyncGenerator[str, None]:
        for number in range(count):
            yield f"{number}"

    pieces = [piece async for piece in id_list(ids())]
    assert json.loads(b"".join(pieces)) == [f"{number}" for number in range(count)]
    assert all(pieces)
    assert len(pieces) <= count // SOS_IDS_AT_ONCE + 1


async def test_a_list_that_fails_midway_does_not_look_complete(
    node: SosNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ids() -> AsyncGenerator[str, None]:
        for number in range(SOS_IDS_AT_ONCE):
            yield f"{number}"
        raise Unavailable("the disk fails")

    monkeypatch.setattr(node.sos, "ids", ids)
    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await fetched(f"{node.blob}/blobs")


async def test_a_list_that_fails_at_once_is_an_error(
    node: SosNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ids(count: int = 0) -> AsyncGenerator[str, None]:
        for _ in range(count):
            yield ""
        raise Unavailable("the disk fails")

    monkeypatch.setattr(node.sos, "ids", ids)
    answer = await ask(node.blob, "GET", "/blobs")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"


async def test_blobs_of_other_doors_are_listed_if_they_have_a_sha1(node: SosNode) -> None:
    for algorithm in ("sha1", "blake3", "sha256"):
        async with node.disk.spooler.holding(b"x", algorithm) as spool:
            await node.disk.store.put(spool)
    assert await fetched(f"{node.blob}/blobs") == [Digest.of(b"x", "sha1").hex]
