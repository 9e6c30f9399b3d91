"""The client of blob servers, against both generations of them."""

import json
import random
from collections.abc import AsyncIterator

import pytest

from tierce.client.sos import SosAnswer, SosClient, blob_path, metadata_of
from tierce.client.sos_lists import ListReader
from tierce.client.wire import Body
from tierce.core.errors import BadRequest, NotFound, TierceError, Unavailable
from tierce.testing.sos_servers import GO, PERL, SosServer, serving_sos

LARGE = random.Random(1).randbytes(300_000)


@pytest.fixture
async def client() -> AsyncIterator[SosClient]:
    async with SosClient(stall_seconds=5) as client:
        yield client


@pytest.fixture(params=[PERL, GO])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[SosServer]:
    server = SosServer(request.param)
    async with serving_sos(server):
        yield server


def body(data: bytes) -> Body:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    return Body(len(data), pieces)


async def fetched(
    client: SosClient, url: str, sos_id: str, start: int = 0
) -> tuple[SosAnswer, bytes]:
    async with client.open(url, sos_id, start) as answer:
        return answer, b"".join([piece async for piece in answer.pieces])


async def ids(client: SosClient, url: str) -> list[str]:
    return [each async for each in client.ids(url)]


@pytest.mark.parametrize("data", [b"", b"sos", LARGE], ids=["empty", "small", "large"])
async def test_what_was_posted_is_read(client: SosClient, server: SosServer, data: bytes) -> None:
    await client.post(server.url, "abc", body(data))
    assert server.objects == {"abc": data}
    assert (await fetched(client, server.url, "abc"))[1] == data


async def test_a_form_in_the_body_names_no_other_id(client: SosClient, server: SosServer) -> None:
    await client.post(server.url, "abc", body(b"id=fromform"))
    assert server.objects == {"abc": b"id=fromform"}


async def test_metadata_travels_both_ways(client: SosClient) -> None:
    server = SosServer(GO)
    async with serving_sos(server):
        await client.post(server.url, "abc", body(b"x"), {"X-Mime-Type": "image/png"})
        answer, _ = await fetched(client, server.url, "abc")
    assert dict(answer.metadata) == {"X-Mime-Type": "image/png"}


async def test_the_servers_own_headers_are_no_metadata(client: SosClient) -> None:
    server = SosServer(PERL, objects={"abc": b"x"})
    async with serving_sos(server):
        answer, _ = await fetched(client, server.url, "abc")
    assert dict(answer.metadata) == {}
    assert answer.modified == 1448083043 * 10**9


def test_names_of_metadata_are_canonical_and_the_first_value_counts() -> None:
    sent = {"x-mime-TYPE": "a", "X-Mime-Type": "b", "X-Forwarded-For": "c", "Accept": "d"}
    assert metadata_of(sent) == {"X-Mime-Type": "a"}


@pytest.mark.parametrize(
    ("sent", "understood"), [(b"\xe4b", "\xe4b"), ("\xe4b".encode(), "\xe4b"), (b"a\tb", "a\tb")]
)
def test_metadata_in_an_older_encoding_is_not_lost(sent: bytes, understood: str) -> None:
    # This is how the HTTP library gives bytes that are no UTF-8.
    received = {"X-A": sent.decode(errors="surrogateescape")}
    assert metadata_of(received) == {"X-A": understood}


async def test_what_is_not_there_is_not_found(client: SosClient, server: SosServer) -> None:
    with pytest.raises(NotFound):
        await fetched(client, server.url, "abc")
    with pytest.raises(NotFound):
        await client.head(server.url, "abc")


async def test_the_size_is_known_where_the_server_tells_it(client: SosClient) -> None:
    servers = [SosServer(kind, objects={"abc": LARGE}) for kind in (PERL, GO)]
    async with serving_sos(*servers):
        assert [await client.head(each.url, "abc") for each in servers] == [len(LARGE), None]
        told = [(await fetched(client, each.url, "abc"))[0].size for each in servers]
        assert told == [len(LARGE), None]


@pytest.mark.parametrize("has_ranges", [False, True])
@pytest.mark.parametrize("start", [0, 1, 299_999])
async def test_reading_may_begin_anywhere(
    client: SosClient, server: SosServer, has_ranges: bool, start: int
) -> None:
    server.objects["abc"], server.has_ranges = LARGE, has_ranges
    assert (await fetched(client, server.url, "abc", start))[1] == LARGE[start:]


async def test_a_part_must_reach_to_the_end(client: SosClient, server: SosServer) -> None:
    server.objects["abc"] = LARGE
    with pytest.raises(Unavailable):
        await fetched(client, server.url, "abc", len(LARGE) + 1)
    server.has_ranges, server.faults.range_limit = True, 1000
    with pytest.raises(Unavailable):
        await fetched(client, server.url, "abc", 1)


@pytest.mark.parametrize("count", [0, 1, 5000])
async def test_both_lists_are_read(client: SosClient, server: SosServer, count: int) -> None:
    server.objects = {f"{number:05}": b"" for number in range(count)}
    assert await ids(client, server.url) == sorted(server.objects)


@pytest.mark.parametrize("count", [0, 1, 5000])
async def test_a_list_that_breaks_off_is_no_list(
    client: SosClient, server: SosServer, count: int
) -> None:
    server.objects = {f"{number:05}": b"" for number in range(count)}
    server.faults.cuts_lists = True
    with pytest.raises(Unavailable):
        await ids(client, server.url)


async def test_both_are_alive(client: SosClient, server: SosServer) -> None:
    await client.alive(server.url)
    server.faults.answers_500 = True
    with pytest.raises(Unavailable):
        await fetched(client, server.url, "abc")


async def test_a_server_that_is_gone_is_not_alive(client: SosClient) -> None:
    server = SosServer(GO)
    async with serving_sos(server):
        pass
    with pytest.raises(Unavailable, match="can't connect"):
        await client.alive(server.url)


@pytest.mark.parametrize(
    "fault",
    [{"is_full": True}, {"answers_500": True}, {"loses_uploads": True}, {"claims_size": 1},
     {"claims_size": len(LARGE), "claims_status": "FAILED"},
     {"answers_early": True, "is_full": True}, {"dies_after_taking": 0},
     {"dies_after_taking": 150_000}],
    ids=lambda fault: "-".join(fault),
)  # fmt: skip
async def test_an_upload_counts_only_if_the_server_has_it(
    client: SosClient, server: SosServer, fault: dict[str, object]
) -> None:
    for name, value in fault.items():
        setattr(server.faults, name, value)
    with pytest.raises(Unavailable):
        await client.post(server.url, "abc", body(LARGE))
    assert server.objects == {}


async def test_the_servers_reason_is_told(client: SosClient) -> None:
    server = SosServer(GO)
    server.faults.is_full = True
    async with serving_sos(server):
        with pytest.raises(Unavailable, match="failed to write to storage"):
            await client.post(server.url, "abc", body(b"x"))


async def test_an_id_that_the_server_cant_name_is_refused(client: SosClient) -> None:
    server = SosServer(GO)
    async with serving_sos(server):
        with pytest.raises(BadRequest, match="alphanumeric"):
            await client.post(server.url, "A.b", body(b"x"))
        with pytest.raises(BadRequest, match="alphanumeric"):
            await fetched(client, server.url, "A.b")


@pytest.mark.parametrize("length", [0, 1, 150_000])
async def test_a_body_that_breaks_off_is_an_error(
    client: SosClient, server: SosServer, length: int
) -> None:
    server.objects["abc"] = LARGE
    server.faults.dies_after_sending = length
    with pytest.raises(Unavailable):
        await fetched(client, server.url, "abc")


async def test_an_error_of_the_body_is_raised_as_it_is(
    client: SosClient, server: SosServer
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise TierceError("mine")

    with pytest.raises(TierceError, match="mine"):
        await client.post(server.url, "abc", Body(5, pieces))
    assert server.objects == {}


@pytest.mark.parametrize("sos_id", ["", ".", "..", "a/b", "a\nb", "a" * 256])
def test_what_is_no_piece_of_a_path_is_no_id(sos_id: str) -> None:
    with pytest.raises(BadRequest):
        blob_path(sos_id)


async def test_an_old_server_takes_any_id(client: SosClient) -> None:
    server = SosServer(PERL)
    async with serving_sos(server):
        await client.post(server.url, "ä b?c%2F", body(b"x"))
        assert await ids(client, server.url) == ["ä b?c%2F"]
        assert (await fetched(client, server.url, "ä b?c%2F"))[1] == b"x"


NAMES = ["", "a", 'q"u\\o,t]e', "ä", "[", "x" * 1000]


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("names", [[], NAMES[:1], NAMES], ids=["none", "one", "many"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_list_is_read_in_pieces_of_any_size(
    names: list[str], indent: int | None, size: int
) -> None:
    text = (json.dumps(names, indent=indent) + "\n").encode()
    reader, found = ListReader(), []
    for start in range(0, len(text), size):
        found += reader.feed(text[start : start + size])
    reader.finish()
    assert found == names


@pytest.mark.parametrize(
    "text",
    ["", " ", "[", '["a"', '["a",', '["a",]', "[,]", "[1]", '{"a":1}', "<html>", '["a"]x', '["a" "b"]',
     '[["a"]]', "[null]", '["a"]]', '["' + "x" * 10_000 + '"]', '["\\x"]', '["a\nb"]'],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 20_000])
def test_what_is_no_list_is_refused(text: str, size: int) -> None:
    reader = ListReader()
    with pytest.raises(Unavailable):
        for start in range(0, len(text), size):
            reader.feed(text.encode()[start : start + size])
        reader.finish()
