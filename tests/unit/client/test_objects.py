"""The client's named objects, against a server that fails: what is repeated, and what is believed."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from tests.unit.client.fake_server import FakeServer

from tierce.client import Client, FetchedObject
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Conflict, Corrupt, NotFound, Unavailable

NAME = ("photos", "a/b c.txt")
DATA = b"tierce"
LARGE = bytes(range(256)) * 1024


async def stream_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def fetched(client: Client) -> bytes:
    async with aclosing(client.stream_object(*NAME)) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_what_is_put_is_got(server: FakeServer, client: Client) -> None:
    info = await client.put_object(*NAME, DATA)
    assert (info.bucket, info.key, info.digest) == (*NAME, Digest.of(DATA))
    found = await client.get_object(*NAME)
    assert found == FetchedObject(found.info, DATA)
    assert found.info.metadata == {"a": "ü"}
    assert found.info == await client.head_object(*NAME)
    assert found.info.modified == info.modified


@pytest.mark.parametrize("key", ["..", ".", "a/../b", "a//b", "%2F", "?#", "ü", "+ "])
async def test_a_key_arrives_to_the_letter(server: FakeServer, client: Client, key: str) -> None:
    await client.put_object("photos", key, DATA)
    assert server.objects.held == {("photos", key): DATA}
    assert (await client.get_object("photos", key)).data == DATA


async def test_a_key_that_is_no_utf_8_is_refused(client: Client) -> None:
    with pytest.raises(BadRequest):
        await client.put_object("photos", "\udcff", DATA)


async def test_headers_say_what_was_asked_for(server: FakeServer, client: Client) -> None:
    await client.put_object(*NAME, DATA, content_type="a/b", metadata={"Title": "ü %"})
    headers = server.seen[-1].headers
    assert headers["content-type"] == "a/b"
    assert headers["tierce-meta-title"] == "%C3%BC%20%25"
    assert headers["content-digest"].startswith("blake3=:")


async def test_a_write_is_tried_again(server: FakeServer, client: Client) -> None:
    server.objects.silent_writes = 2
    await client.put_object(*NAME, DATA)
    assert server.methods() == ["PUT"] * 3


async def test_a_deletion_is_tried_again(server: FakeServer, client: Client) -> None:
    server.objects.held[NAME] = DATA
    server.objects.silent_writes = 1
    await client.delete_object(*NAME)
    assert server.methods() == ["DELETE"] * 2
    with pytest.raises(NotFound):
        await client.delete_object(*NAME)


async def test_a_condition_that_does_not_hold_is_a_conflict(
    server: FakeServer, client: Client
) -> None:
    await client.put_object(*NAME, DATA, if_absent=True)
    with pytest.raises(Conflict) as caught:
        await client.put_object(*NAME, b"other", if_absent=True)
    assert "before this one" not in caught.value.message
    with pytest.raises(Conflict):
        await client.delete_object(*NAME, if_match=Digest.of(b"other"))
    await client.put_object(*NAME, b"other", if_match=Digest.of(DATA))
    await client.delete_object(*NAME, if_match=Digest.of(b"other"))


async def test_a_refusal_of_what_an_earlier_attempt_did_says_so(
    server: FakeServer, client: Client
) -> None:
    server.objects.silent_writes = 1
    with pytest.raises(Conflict, match="before this one broke off"):
        await client.put_object(*NAME, DATA, if_absent=True)
    assert server.objects.held[NAME] == DATA


async def test_a_stream_is_sent_once(server: FakeServer, client: Client) -> None:
    server.problems.append((503, {}))
    with pytest.raises(Unavailable, match="in the middle of a stream"):
        await client.put_object_stream(*NAME, stream_of(DATA, DATA))
    info = await client.put_object_stream(*NAME, stream_of(DATA, DATA))
    assert info.digest == Digest.of(DATA + DATA)


async def test_a_wrong_acknowledgement_is_no_success(server: FakeServer, client: Client) -> None:
    server.objects.told = Digest.of(b"other")
    with pytest.raises(Corrupt):
        await client.put_object(*NAME, DATA)
    with pytest.raises(Corrupt):
        await client.put_object_stream(*NAME, stream_of(DATA))


async def test_wrong_bytes_are_not_believed(server: FakeServer, client: Client) -> None:
    server.objects.held[NAME] = DATA
    server.objects.told = Digest.of(b"other")
    with pytest.raises(Corrupt):
        await client.get_object(*NAME)
    server.objects.held[NAME] = b""
    with pytest.raises(Corrupt):
        await fetched(client)


async def test_an_empty_object_is_read(server: FakeServer, client: Client) -> None:
    server.objects.held[NAME] = b""
    assert (await client.get_object(*NAME)).data == b""
    assert await fetched(client) == b""


async def test_a_broken_read_goes_on(server: FakeServer, client: Client) -> None:
    server.objects.held[NAME] = LARGE
    server.cuts.extend([70_000, 70_000, 0])
    assert await fetched(client) == LARGE
    assert server.starts()[0] == 0
    assert 0 < server.starts()[1] <= 70_000
    assert all("if-match" in each.headers for each in server.seen[1:])


@pytest.mark.parametrize("knows_conditions", [True, False])
async def test_two_versions_are_never_mixed(
    server: FakeServer, client: Client, knows_conditions: bool
) -> None:
    server.objects.knows_conditions = knows_conditions
    server.objects.held[NAME] = LARGE
    server.cuts.append(70_000)

    def change() -> None:
        if len(server.seen) > 1:
            server.objects.held[NAME] = LARGE[::-1]

    server.objects.before = change
    with pytest.raises(Conflict, match="changed while it was read"):
        await fetched(client)


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.get_object(*NAME)
    with pytest.raises(NotFound):
        await client.head_object(*NAME)


def change(seq: int, *, deleted: bool = False) -> dict[str, object]:
    return {
        "seq": seq,
        "deleted": deleted,
        "bucket": "photos",
        "key": f"k{seq}",
        "digest": None if deleted else str(Digest.of(DATA)),
        "size": len(DATA),
        "content_type": "",
        "metadata": {},
        "modified": "2026-01-01T00:00:00.000000000Z",
        "timestamp": "1767225600000000000",
        "node": "n1",
    }


async def test_the_feed_is_followed_across_trouble(server: FakeServer, client: Client) -> None:
    server.objects.feed.extend(
        [
            {"changes": [change(1), change(2, deleted=True)], "next": "E-2"},
            {"changes": [], "next": "F-2"},
            {"changes": [change(3)], "next": "F-3"},
        ]
    )
    found: list[tuple[int, bool]] = []
    async with aclosing(client.changes("E-0")) as pages:
        async for page in pages:
            found += [(each.seq, each.object is None) for each in page.changes]
            server.problems.append((503, {}))
            if page.next == "F-3":
                break
    assert found == [(1, False), (2, True), (3, False)]
    assert [each["since"] for each in server.objects.asked] == ["E-0", "E-2", "F-2"]
    assert all(each["wait"] == "30" for each in server.objects.asked)


async def test_the_feed_ends_where_it_is_not_followed(server: FakeServer, client: Client) -> None:
    server.objects.feed.extend(
        [{"changes": [change(1)], "next": "E-1"}, {"changes": [], "next": "E-1"}]
    )
    pages = [page async for page in client.changes(follow=False)]
    assert [page.next for page in pages] == ["E-1"]
    assert "wait" not in server.objects.asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"changes": [{"seq": 1}], "next": ""},
        {"changes": [change(1) | {"timestamp": "x"}], "next": "E"},
        {"changes": [change(1) | {"digest": "x"}], "next": "E"},
    ],
    ids=["empty", "few", "timestamp", "digest"],
)
async def test_a_foreign_answer_is_not_believed(
    server: FakeServer, client: Client, answer: dict[str, object]
) -> None:
    server.objects.feed.append(answer)
    with pytest.raises(Unavailable, match="not a Tierce node's"):
        await anext(client.changes())
