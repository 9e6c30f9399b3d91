"""Limits on requests, as clients of the doors meet them: each door in its own words."""

from pathlib import Path

import aiohttp
import pytest

from tierce.testing.serving import serving

DOORS = {
    "native": "/v1/blobs?limit=1",
    "cask": "/config/",
    "objstore": "/api/v1/version",
}


@pytest.mark.parametrize("door", DOORS)
async def test_too_many_requests_are_429_and_say_when_to_come_again(
    tmp_path: Path, door: str
) -> None:
    async with (
        serving(tmp_path, doors=(door,), requests_per_second=2.0) as node,
        aiohttp.ClientSession() as client,
    ):
        statuses = []
        for _ in range(30):
            async with client.get(node.urls[door] + DOORS[door]) as answer:
                statuses.append(answer.status)
                text = await answer.text()
                headers = answer.headers
        assert set(statuses) == {200, 429}
        assert statuses[:5] == [200] * 5
        assert 1 <= int(headers["Retry-After"]) <= 2
        assert "requests a second that are allowed" in text


async def test_a_token_has_a_limit_of_its_own_and_doors_count_together(tmp_path: Path) -> None:
    settings = {"token_requests_per_second": 1.0}
    async with (
        serving(tmp_path, doors=("native", "cask"), **settings) as node,
        aiohttp.ClientSession() as client,
    ):
        statuses = []
        for at in range(12):
            url = (f"{node.native}/v1/blobs", f"{node.cask}/config/")[at % 2]
            async with client.get(url, headers={"Authorization": "Bearer mine"}) as answer:
                statuses.append(answer.status)
        async with client.get(url, headers={"Authorization": "Bearer other"}) as answer:
            assert answer.status == 200
        async with client.get(url) as answer:
            assert answer.status == 200
    assert 429 in statuses
    assert statuses.index(429) >= 5


async def test_an_upload_is_refused_before_its_body_comes(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, requests_per_second=0.01) as node,
        aiohttp.ClientSession() as client,
    ):
        async with client.post(f"{node.native}/v1/blobs", data=b"first") as answer:
            assert answer.status == 201
        async with client.post(
            f"{node.native}/v1/blobs", data=bytes(100_000), expect100=True
        ) as answer:
            assert answer.status == 429
            problem = await answer.json(content_type=None)
        assert problem["type"].endswith("too-many-requests")
        assert int(answer.headers["Retry-After"]) > 60
