"""Uploads of SOS to blob servers that fail in every way they can."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.node.fakes import Room, spooler
from tests.unit.node.sos_bench import (
    LARGE,
    LOW_LIMIT_BYTES,
    SMALL,
    Bench,
    fetch,
    pieces,
    running,
    sha1,
)

from tierce.client.sos import SosClient
from tierce.client.sos_config import FLAT_GROUP
from tierce.core.errors import Full, TierceError, TooLarge, Unavailable
from tierce.core.sos import SosStore
from tierce.node import sos_avoiding, sos_gateway
from tierce.node.sos_gateway import SosGateway
from tierce.testing.sos_servers import GO, PERL, Faults, SosServer, serving_sos


@pytest.fixture(autouse=True)
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sos_gateway, "WHOLE_LIMIT_BYTES", LOW_LIMIT_BYTES)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Three servers in a flat list."""
    async with running(tmp_path, [PERL, GO, PERL], lambda urls: {FLAT_GROUP: urls}) as bench:
        yield bench


@pytest.fixture
async def grouped(tmp_path: Path) -> AsyncIterator[Bench]:
    """Three groups of 2, 2 and 3 servers."""
    async with running(
        tmp_path,
        [PERL, GO, PERL, GO, PERL, GO, PERL],
        lambda urls: {"1": urls[:2], "2": urls[2:4], "3": urls[4:]},
    ) as bench:
        yield bench


def test_it_is_a_store(tmp_path: Path) -> None:
    store: SosStore = SosGateway({"g": ["http://a:1"]}, spooler(tmp_path))
    assert isinstance(store, SosGateway)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_an_upload_is_on_one_server_and_comes_back(bench: Bench, data: bytes) -> None:
    stored = await bench.gateway.put(pieces(data), {})
    assert stored == (sha1(data), len(data))
    assert len(bench.holders(data)) == 1
    assert await fetch(bench.gateway, stored.id) == data


async def test_uploads_to_a_flat_list_go_to_all_of_them(bench: Bench) -> None:
    for number in range(20):
        await bench.gateway.put(pieces(b"%d" % number), {})
    assert all(each.objects for each in bench.servers)


async def test_metadata_goes_along(grouped: Bench) -> None:
    grouped.servers[0].faults.is_full = True
    grouped.servers[2].faults.is_full = True
    grouped.servers[4].faults.is_full = True
    stored = await grouped.gateway.put(pieces(SMALL), {"X-Mime-Type": "text/plain"})
    found = await grouped.gateway.open(stored.id)
    assert dict(found.metadata) == {"X-Mime-Type": "text/plain"}
    assert (found.etag, found.content.data) == (f'"{stored.id}"', SMALL)
    await found.content.aclose()


async def test_uploads_to_groups_go_in_the_order_of_the_wire_sheet(grouped: Bench) -> None:
    urls = [each.url for each in grouped.servers]
    groups = {"1": urls[:2], "2": urls[2:4], "3": urls[4:]}
    for number in [0, 2, 4, 1, 3, 5, 6]:
        gateway = SosGateway(groups, spooler(grouped.directory))
        await gateway.start()
        stored = await gateway.put(pieces(SMALL), {})
        await gateway.close()
        assert [stored.id in each.objects for each in grouped.servers].index(True) == number
        grouped.servers[number].objects.clear()
        grouped.servers[number].faults.is_full = True


UPLOAD_FAULTS = {
    "dies at once": Faults(dies_after_taking=0),
    "dies midway": Faults(dies_after_taking=300_000),
    "full": Faults(is_full=True),
    "full before the end": Faults(is_full=True, answers_early=True),
    "says OK without keeping it": Faults(loses_uploads=True),
    "keeps less": Faults(claims_size=7),
    "500": Faults(answers_500=True),
    "hangs": Faults(slow_seconds=60),
}


@pytest.mark.parametrize("fault", UPLOAD_FAULTS.values(), ids=UPLOAD_FAULTS.keys())
async def test_the_next_server_takes_what_one_fails_to_keep(grouped: Bench, fault: Faults) -> None:
    first, second = grouped.servers[0], grouped.servers[2]
    first.faults = second.faults = fault
    stored = await grouped.gateway.put(pieces(LARGE), {})
    assert stored == (sha1(LARGE), len(LARGE))
    assert grouped.holders(LARGE) == [4]


@pytest.mark.parametrize("fault", UPLOAD_FAULTS.values(), ids=UPLOAD_FAULTS.keys())
async def test_an_upload_that_no_server_has_is_no_success(bench: Bench, fault: Faults) -> None:
    for each in bench.servers:
        each.faults = fault
    with pytest.raises(Unavailable, match="no blob server took") as error:
        await bench.gateway.put(pieces(LARGE), {})
    assert all(each.url in error.value.message for each in bench.servers)
    assert all(each.objects == {} for each in bench.servers)


async def test_a_server_that_failed_is_tried_last_for_a_while(grouped: Bench) -> None:
    grouped.servers[0].faults.is_full = True
    for number in range(3):
        await grouped.gateway.put(pieces(b"%d" % number), {})
    assert [len(each.methods()) for each in grouped.servers[:4]] == [1, 0, 3, 0]


@pytest.mark.parametrize("others", [Faults(is_full=True), Faults(answers_500=True)])
async def test_full_servers_are_logged_and_told(
    bench: Bench, caplog: pytest.LogCaptureFixture, others: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post(_: object, url: str, *__: object) -> None:
        raise Unavailable("500") if others.answers_500 and url != urls[0] else Full("no room left")

    urls = [each.url for each in bench.servers]
    monkeypatch.setattr(SosClient, "post", post)
    with pytest.raises(Unavailable if others.answers_500 else Full, match="no blob server took"):
        await bench.gateway.put(pieces(SMALL), {})
    assert f"{urls[0]} failed: no room left" in caplog.text


async def test_others_turn_elsewhere_while_an_upload_waits_for_a_silent_server(
    grouped: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sos_avoiding, "SILENT_SECONDS", 0.02)
    grouped.servers[0].faults.slow_seconds = 60
    first = asyncio.create_task(grouped.gateway.put(pieces(SMALL), {}))
    await asyncio.sleep(0.1)
    await grouped.gateway.put(pieces(b"another"), {})
    assert not first.done()
    assert (await first).id in grouped.servers[2].objects


async def test_a_body_that_breaks_off_reaches_no_server(bench: Bench) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise TierceError("the client went away")

    with pytest.raises(TierceError, match="went away"):
        await bench.gateway.put(broken(), {})
    assert not any(each.seen for each in bench.servers)


async def test_an_upload_given_up_leaves_nothing_here(bench: Bench) -> None:
    for each in bench.servers:
        each.faults.slow_seconds = 60
    upload = asyncio.create_task(bench.gateway.put(pieces(LARGE), {}))
    while not any(each.seen for each in bench.servers):
        await asyncio.sleep(0.01)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert list(bench.directory.iterdir()) == []


async def test_what_is_too_large_is_refused_before_it_comes(bench: Bench) -> None:
    with pytest.raises(TooLarge):
        await bench.gateway.put(pieces(SMALL), {}, announced_bytes=1 << 50)


async def test_a_full_disk_here_blames_no_server(tmp_path: Path) -> None:
    server = SosServer(GO, objects={sha1(LARGE): LARGE})
    async with serving_sos(server):
        room = Room()
        gateway = SosGateway({"g": [server.url]}, spooler(tmp_path, room))
        await gateway.start()
        room.is_full = True
        with pytest.raises(Full):
            await gateway.put(pieces(LARGE), {})
        assert server.seen == []
        await gateway.close()


async def test_a_large_upload_refused_early_by_all_is_unavailable(bench: Bench) -> None:
    # The answer comes when the sender waits for the socket: what it was sending must be let go.
    for each in bench.servers:
        each.faults = Faults(is_full=True, answers_early=True, slow_seconds=0.05)
    with pytest.raises(Unavailable):
        await bench.gateway.put(pieces(bytes(12_000_000)), {})


async def test_servers_that_die_between_uploads_lose_nothing_acknowledged(grouped: Bench) -> None:
    luck = random.Random(7)
    kept: dict[str, bytes] = {}
    for number in range(40):
        for each in grouped.servers:
            each.faults = luck.choice([*UPLOAD_FAULTS.values()][:7] + [Faults()] * 4)
        data = luck.randbytes(luck.choice([10, 5_000, 70_000])) + b"%d" % number
        try:
            stored = await grouped.gateway.put(pieces(data), {})
        except Unavailable:
            continue
        kept[stored.id] = data
    for each in grouped.servers:
        each.faults = Faults()
    assert len(kept) > 10
    for sos_id, data in kept.items():
        assert await fetch(grouped.gateway, sos_id) == data
