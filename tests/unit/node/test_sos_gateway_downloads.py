"""Downloads of SOS from blob servers that fail in every way they can."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest
from tests.unit.node.fakes import spooler
from tests.unit.node.sos_bench import (
    LARGE,
    LOW_LIMIT_BYTES,
    SMALL,
    Bench,
    fetch,
    pieces,
    read,
    running,
    sha1,
)

from tierce.client.sos_config import FLAT_GROUP
from tierce.core.errors import NotFound, Unavailable
from tierce.node import sos_avoiding, sos_gateway
from tierce.node.sos_bodies import Memory
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


def put_on(servers: Sequence[SosServer], data: bytes) -> str:
    for each in servers:
        each.objects[sha1(data)] = data
    return sha1(data)


async def test_the_first_server_that_has_it_gives_it(bench: Bench) -> None:
    sos_id = put_on(bench.servers[1:], SMALL)
    assert await fetch(bench.gateway, sos_id) == SMALL
    assert bench.gets() == [1, 1, 0]


@pytest.mark.parametrize("sos_id", [sha1(SMALL), "0000", "name.jpg", "A"])
async def test_what_no_server_has_is_not_found(bench: Bench, sos_id: str) -> None:
    with pytest.raises(NotFound):
        await bench.gateway.open(sos_id)


@pytest.mark.parametrize("sos_id", ["a/b", "..", "a\nb", ""])
async def test_what_is_no_id_is_not_found(bench: Bench, sos_id: str) -> None:
    with pytest.raises(NotFound):
        await bench.gateway.open(sos_id)


async def test_not_found_needs_an_answer_of_every_server(bench: Bench) -> None:
    bench.servers[1].faults.answers_500 = True
    with pytest.raises(Unavailable, match="can't be fetched now"):
        await bench.gateway.open(sha1(SMALL))


async def test_with_no_server_left_it_is_unavailable(tmp_path: Path) -> None:
    server = SosServer(GO)
    async with serving_sos(server):
        pass
    gateway = SosGateway({"g": [server.url]}, spooler(tmp_path))
    await gateway.start()
    with pytest.raises(Unavailable):
        await gateway.open(sha1(SMALL))
    with pytest.raises(Unavailable):
        await gateway.put(pieces(SMALL), {})
    await gateway.close()


DOWNLOAD_FAULTS = {
    "dies at once": Faults(dies_after_sending=0),
    "dies midway": Faults(dies_after_sending=5),
    "dies midway, unseen": Faults(dies_after_sending=5, is_cut_unseen=True),
    "kept less": Faults(truncates_to=3),
    "wrong bytes": Faults(gives_wrong_bytes=True),
    "500": Faults(answers_500=True),
    "hangs": Faults(slow_seconds=60),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS.values(), ids=DOWNLOAD_FAULTS.keys())
@pytest.mark.parametrize("data", [SMALL, LARGE[:100_000]], ids=["small", "middling"])
async def test_a_failing_server_is_passed_over_before_a_byte_goes_out(
    bench: Bench, data: bytes, fault: Faults
) -> None:
    sos_id = put_on(bench.servers, data)
    bench.servers[0].faults = bench.servers[1].faults = fault
    assert await fetch(bench.gateway, sos_id) == data


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS.values(), ids=DOWNLOAD_FAULTS.keys())
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_wrong_bytes_are_never_a_whole_body(bench: Bench, data: bytes, fault: Faults) -> None:
    sos_id = put_on(bench.servers, data)
    for each in bench.servers:
        each.faults = fault
    with pytest.raises(Unavailable):
        await fetch(bench.gateway, sos_id)


@pytest.mark.parametrize("has_ranges", [False, True])
@pytest.mark.parametrize("length", [1, 300_000, len(LARGE) - 1])
async def test_a_large_body_goes_on_at_the_next_server(
    bench: Bench, has_ranges: bool, length: int
) -> None:
    sos_id = put_on(bench.servers, LARGE)
    for each in bench.servers:
        each.has_ranges = has_ranges
    bench.servers[0].faults = Faults(dies_after_sending=length)
    assert await fetch(bench.gateway, sos_id) == LARGE
    assert bench.gets()[0] == 1


async def test_a_large_body_goes_on_where_others_are_short(bench: Bench) -> None:
    sos_id = put_on(bench.servers, LARGE)
    bench.servers[0].faults.dies_after_sending = 100_000
    for each in bench.servers[1:]:
        each.faults.truncates_to = 300_000
    with pytest.raises(Unavailable):
        await fetch(bench.gateway, sos_id)
    bench.servers[2].faults = Faults()
    bench.gateway.answered(bench.servers[0].url)
    assert await fetch(bench.gateway, sos_id) == LARGE


async def test_a_large_body_goes_on_where_every_server_dies_once(bench: Bench) -> None:
    sos_id = put_on(bench.servers, LARGE)
    for number, each in enumerate(bench.servers):
        each.has_ranges = True
        each.faults = Faults(dies_after_sending=100_000 + number, dies_once=True)
    assert await fetch(bench.gateway, sos_id) == LARGE


async def test_a_large_body_of_unknown_size_is_verified_first(tmp_path: Path) -> None:
    wrong, right = (SosServer(GO, objects={sha1(LARGE): LARGE}) for _ in range(2))
    wrong.faults.gives_wrong_bytes = True
    async with serving_sos(wrong, right):
        gateway = SosGateway({"g": [wrong.url, right.url]}, spooler(tmp_path))
        await gateway.start()
        found = await gateway.open(sha1(LARGE))
        assert found.content.size == len(LARGE)
        assert await read(found, 10, 400_000) == LARGE[10:400_000]
        await gateway.close()
    assert list(tmp_path.iterdir()) == []


async def test_the_last_piece_of_a_large_body_waits_until_all_is_right(bench: Bench) -> None:
    sos_id = put_on(bench.servers[:1], LARGE)
    bench.servers[0].faults.gives_wrong_bytes = True
    found = await bench.gateway.open(sos_id)
    got = b""
    with pytest.raises(Unavailable, match="another SHA-1"):
        async with aclosing(found.content.stream()) as stream:
            async for piece in stream:
                got += piece
    assert 0 < len(got) < len(LARGE)
    await found.content.aclose()


@pytest.mark.parametrize("part", [(0, 1), (5, 300_000), (499_999, 500_000), (7, None), (3, 3)])
async def test_parts_of_a_large_body_are_verified_too(
    bench: Bench, part: tuple[int, int | None]
) -> None:
    sos_id = put_on(bench.servers[:1], LARGE)
    assert await read(await bench.gateway.open(sos_id), *part) == LARGE[slice(*part)]
    bench.servers[0].faults.gives_wrong_bytes = True
    with pytest.raises(Unavailable, match="another SHA-1"):
        await read(await bench.gateway.open(sos_id), *part)


async def test_after_wrong_bytes_another_server_gives_the_right_ones(bench: Bench) -> None:
    sos_id = put_on(bench.servers, LARGE)
    bench.servers[0].faults.gives_wrong_bytes = True
    with pytest.raises(Unavailable, match="another SHA-1"):
        await fetch(bench.gateway, sos_id)
    assert await fetch(bench.gateway, sos_id) == LARGE


async def test_a_server_that_lies_about_a_size_does_not_discredit_the_others(bench: Bench) -> None:
    sos_id = put_on(bench.servers, LARGE)
    bench.servers[0].objects[sos_id] = LARGE * 2
    bench.servers[0].faults.dies_after_sending = 1000
    with pytest.raises(Unavailable, match="broke off"):
        await fetch(bench.gateway, sos_id)
    assert await fetch(bench.gateway, sos_id) == LARGE


async def test_who_keeps_silent_is_asked_again_after_all_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sos_avoiding, "SILENT_SECONDS", 0.02)
    sos_id = put_on(bench.servers[:2], SMALL)
    bench.servers[0].faults.slow_seconds = 0.1
    assert await fetch(bench.gateway, sos_id) == SMALL
    assert bench.gets() == [1, 1, 0]
    del bench.servers[1].objects[sos_id]
    assert await fetch(bench.gateway, sos_id) == SMALL
    assert bench.gets() == [2, 2, 1]
    for each in bench.servers:
        each.faults.slow_seconds = 0.1
    assert await fetch(bench.gateway, sos_id) == SMALL


async def test_a_silent_server_leaves_unsaid_what_it_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sos_avoiding, "SILENT_SECONDS", 0.02)
    bench.servers[0].faults.slow_seconds = 60
    with pytest.raises(Unavailable):
        await bench.gateway.open(sha1(b"nowhere"))


async def test_what_the_public_is_told_names_no_server(bench: Bench) -> None:
    sos_id = put_on(bench.servers, LARGE)
    bench.servers[0].faults.answers_500 = True
    for each in bench.servers[1:]:
        each.faults.dies_after_sending = 1000
    with pytest.raises(Unavailable) as midway:
        await fetch(bench.gateway, sos_id)
    for each in bench.servers:
        each.faults.answers_500 = True
    with pytest.raises(Unavailable) as at_once:
        await fetch(bench.gateway, sos_id)
    for error in (midway, at_once):
        assert "127.0.0.1" not in str(error.value)


async def test_only_parts_of_large_verified_bodies_cost_the_whole(bench: Bench) -> None:
    bench.servers[0].objects["large"] = LARGE
    for sos_id, is_read_whole in (
        (put_on(bench.servers[:1], LARGE), True),
        (put_on(bench.servers[:1], SMALL), False),
        ("large", False),
    ):
        found = await bench.gateway.open(sos_id)
        assert found.is_read_whole is is_read_whole
        await found.content.aclose()


async def test_a_large_body_may_be_read_several_times(bench: Bench) -> None:
    sos_id = put_on(bench.servers[:1], LARGE)
    found = await bench.gateway.open(sos_id)
    cuts = [0, 10, 300_000, len(LARGE)]
    got = b""
    for start, stop in pairwise(cuts):
        async with aclosing(found.content.stream(start, stop)) as stream:
            got += b"".join([each async for each in stream])
    await found.content.aclose()
    assert got == LARGE


async def test_a_body_that_nobody_read_is_let_go(bench: Bench) -> None:
    sos_id = put_on(bench.servers[:1], LARGE)
    found = await bench.gateway.open(sos_id)
    assert (found.content.size, found.content.data) == (len(LARGE), None)
    await found.content.aclose()


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("start", [0, 4])
async def test_other_ids_come_as_they_are(bench: Bench, data: bytes, start: int) -> None:
    bench.servers[2].objects["name"] = data
    found = await bench.gateway.open("name")
    assert found.etag == ""
    assert await read(found, start) == data[start:]


async def test_a_large_body_of_another_id_is_not_put_together_from_two(bench: Bench) -> None:
    for number, each in enumerate(bench.servers):
        each.objects["name"] = bytes([number]) * len(LARGE)
    bench.servers[0].faults.dies_after_sending = 400_000
    with pytest.raises(Unavailable, match="broke off"):
        await fetch(bench.gateway, "name")


async def test_bodies_that_wait_for_slow_readers_are_not_all_in_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = LARGE[:200_000]
    sos_id = put_on(bench.servers[:1], data)
    monkeypatch.setattr(bench.gateway, "_memory", Memory(len(data) * 2))
    found = []
    for _ in range(3):
        found.append(await bench.gateway.open(sos_id))
        assert found[-1].content.data is None, "it would be sent without waiting for its reader"
    held = [each.content._source.data is not None for each in found]  # type: ignore[attr-defined]
    assert held == [True, True, False]
    await found.pop(0).content.aclose()
    found.append(await bench.gateway.open(sos_id))
    assert found[-1].content._source.data is not None  # type: ignore[attr-defined]
    for each in found:
        assert await read(each, 10, 190_000) == data[10:190_000]
