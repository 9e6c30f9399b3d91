"""What becomes of a load when its file is put or deleted meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.doors.dtfc.wire import HASH, HELLO, NOT_FOUND, Dtfc

from tierce.testing.dtfc_peers import DtfcPeer, serving_dtfc
from tierce.testing.serving import serving


class Loading(NamedTuple):
    """A node that loads from a slow peer, and who waits for it."""

    node: Dtfc
    peer: DtfcPeer
    url: str

    async def wait(self) -> None:
        for _ in range(500):
            if self.peer.asked("GET"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the peer was not asked")


@pytest.fixture
async def loading(tmp_path: Path) -> AsyncIterator[Loading]:
    peer = DtfcPeer().has(HELLO, "theirs.txt")
    async with (
        serving_dtfc(peer),
        serving(tmp_path / "data", ("dtfc",), dtfc_peers=(peer.url,)) as served,
    ):
        yield Loading(Dtfc(served.urls["dtfc"]), peer, peer.url)


async def test_a_file_that_is_put_while_it_is_loaded_has_the_name_of_the_put(
    loading: Loading,
) -> None:
    loading.peer.faults.answers_after_seconds = 0.3
    reading = asyncio.create_task(loading.node.get())
    await loading.wait()
    await loading.node.put("ours.txt")
    assert (await reading).body == HELLO
    found = await loading.node.get(f"/{HASH}/nopeerload")
    assert found.headers["content-disposition"] == 'attachment; filename="ours.txt"'


async def test_a_file_that_is_deleted_everywhere_while_it_is_loaded_is_not_kept(
    loading: Loading,
) -> None:
    loading.peer.faults.answers_after_seconds = 0.3
    reading = asyncio.create_task(loading.node.get())
    await loading.wait()
    answer = await loading.node.delete(f"/{HASH}/allpeers")
    assert json.loads(answer.body)["peers"] == {loading.url: "deleted"}
    assert (await reading).text == NOT_FOUND
    assert (await loading.node.get()).text == NOT_FOUND


async def test_what_a_peer_is_still_to_delete_is_not_loaded_from_it_again(
    loading: Loading,
) -> None:
    loading.peer.faults.answers_500 = True
    await loading.node.delete(f"/{HASH}/allpeers")
    assert loading.peer.asked("DELETE") == [f"/{HASH}"]
    loading.peer.faults.answers_500 = False
    assert (await loading.node.get()).text == NOT_FOUND
    assert loading.peer.asked("GET") == []
