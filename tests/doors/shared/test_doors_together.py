"""Several doors of one node stand before one store."""

from pathlib import Path

import aiohttp

from tierce.core.digest import Digest
from tierce.core.limits import PACK_LIMIT_BYTES
from tierce.testing.serving import serving


async def test_what_came_in_by_one_door_goes_out_by_another(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, doors=("native", "cask")) as node,
        aiohttp.ClientSession() as client,
    ):
        for size in (11, PACK_LIMIT_BYTES + 1):
            content = bytes(size)
            form = aiohttp.FormData()
            form.add_field("file", content, filename="file.dat")
            async with client.post(f"{node.cask}/", data=form) as answer:
                key = (await answer.json(content_type=None))["key"]
            assert key == str(Digest.of(content, "sha1"))
            async with client.get(f"{node.native}/v1/blobs/{key}") as answer:
                assert await answer.read() == content
            async with client.post(
                f"{node.native}/v1/blobs", params={"algorithm": "sha1"}, data=content + b"native"
            ) as answer:
                digest = (await answer.json())["digest"]
            async with client.get(f"{node.cask}/file/{digest}/") as answer:
                assert await answer.read() == content + b"native"


async def test_each_door_counts_its_own_requests(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, doors=("native", "cask")) as node,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"{node.cask}/config/") as answer:
            await answer.read()
        async with client.get(f"{node.native}/metrics") as answer:
            page = await answer.text()
        assert (
            'tierce_requests_total{door="cask",method="GET",route="/config/",status="200"}' in page
        )
