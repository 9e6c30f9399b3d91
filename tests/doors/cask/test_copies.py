"""Files between a Tierce node and Cask nodes, both ways: stored, found, proved, fetched, rebalanced."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from aiohttp import web
from tests.doors.cask.stand_in import CaskNode, error, key_of
from tests.doors.cask.test_nodes import TIERCE, A, B, Memory, cask
from tests.doors.cask.tierce_node import TierceNode, tierce_node
from tests.doors.cask.wire import HELLO, SECRET, ask, failure, post

from tierce.cluster.member import Member
from tierce.core.digest import Digest
from tierce.core.errors import Conflict, Corrupt, NotFound, Unavailable
from tierce.core.limits import KIB, MIB
from tierce.doors.cask.peers import UNKNOWN_SIZE

SIZES = [0, 1, 2048, 3000, 64 * KIB, 64 * KIB + 1, MIB, 3 * MIB + 1]


class Pieces(Memory):
    """Bytes to be sent that are not in memory at once."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._content = content
        self.data = None
        self.closed = False

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        try:
            for start in range(0, len(self._content), MIB):
                yield self._content[start : start + MIB]
        finally:
            self.closed = True


class Pair(NamedTuple):
    """A Tierce node and a Cask node that know each other."""

    node: TierceNode
    cask: CaskNode

    @property
    def member(self) -> Member:
        return self.node.member(A)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        await a.join(node.url)
        yield Pair(node, a)


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def digest_of(content: bytes) -> Digest:
    return Digest.of(content, "sha1")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [Memory, Pieces])
async def test_a_copy_is_stored_on_a_cask_node(pair: Pair, size: int, kind: type[Memory]) -> None:
    content = content_of(size)
    assert await pair.node.peers.store(pair.member, kind(content))  # type: ignore[arg-type]
    assert pair.cask.files == {key_of(content): content}


@pytest.mark.parametrize("size", SIZES)
async def test_a_copy_is_fetched_from_a_cask_node(pair: Pair, size: int) -> None:
    content = content_of(size)
    pair.cask.files[key_of(content)] = content
    digest = digest_of(content)
    found = await pair.node.peers.read(pair.member, digest)
    assert found == (content if size <= MIB else size)
    async with pair.node.peers.open(pair.member, digest) as (length, pieces):
        assert length == size
        assert b"".join([piece async for piece in pieces]) == content


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (10, 20), (0, 1), (MIB, None), (5, 5), (3 * MIB, 9 * MIB)]
)
async def test_a_part_is_fetched_without_having_been_read_before(
    pair: Pair, start: int, stop: int | None
) -> None:
    content = content_of(3 * MIB + 1)
    pair.cask.files[key_of(content)] = content
    async with pair.node.peers.open(
        pair.member, digest_of(content), start=start, stop=stop
    ) as incoming:
        assert incoming.size == len(content)
        assert b"".join([piece async for piece in incoming.pieces]) == content[start:stop]


async def test_a_large_copy_is_counted_only_once(pair: Pair) -> None:
    content = content_of(2 * MIB)
    pair.cask.files[key_of(content)] = content
    for _ in range(3):
        await pair.node.peers.read(pair.member, digest_of(content))
    assert pair.cask.received["GET /local/"] == 1


async def test_a_fetch_that_is_broken_off_does_no_harm(pair: Pair) -> None:
    content = content_of(3 * MIB)
    pair.cask.files[key_of(content)] = content
    async with pair.node.peers.open(pair.member, digest_of(content)) as incoming:
        assert await anext(incoming.pieces)
    assert await pair.node.peers.read(pair.member, digest_of(content)) == len(content)


async def test_many_are_found_at_once(pair: Pair) -> None:
    contents = [content_of(size) for size in range(40)]
    for content in contents[::2]:
        pair.cask.files[key_of(content)] = content
    digests = [digest_of(content) for content in contents]
    found = await pair.node.peers.find(pair.member, digests)
    assert found == [UNKNOWN_SIZE, None] * 20
    proved = await pair.node.peers.find(pair.member, digests, prove=True)
    assert proved == [None if number % 2 else number for number in range(40)]
    assert await pair.node.peers.find(pair.member, digests) == proved
    assert await pair.node.peers.find(pair.member, []) == []


async def test_a_bad_copy_proves_nothing_and_is_not_read(pair: Pair) -> None:
    content = content_of(5000)
    pair.cask.files[key_of(content)] = content[:-1] + b"!"
    digest = digest_of(content)
    assert await pair.node.peers.find(pair.member, [digest]) == [UNKNOWN_SIZE]
    assert await pair.node.peers.find(pair.member, [digest], prove=True) == [None]
    with pytest.raises(Corrupt):
        await pair.node.peers.read(pair.member, digest)
    with pytest.raises(Corrupt):
        async with pair.node.peers.open(pair.member, digest):
            pass


async def test_what_is_not_there_is_not_found(pair: Pair) -> None:
    for digest in (digest_of(b"x"), Digest.of(b"x", "sha256")):
        assert await pair.node.peers.find(pair.member, [digest]) == [None]
        assert await pair.node.peers.find(pair.member, [digest], prove=True) == [None]
        with pytest.raises(NotFound):
            await pair.node.peers.read(pair.member, digest)
        with pytest.raises(NotFound):
            async with pair.node.peers.open(pair.member, digest):
                pass


async def test_a_cask_node_deletes_nothing(pair: Pair) -> None:
    with pytest.raises(Conflict):
        await pair.node.peers.delete(pair.member, digest_of(b"x"))
    assert not await pair.node.peers.delete(pair.member, Digest.of(b"x", "sha256"))


async def test_a_dead_cask_node_is_unavailable(pair: Pair) -> None:
    member, digest = pair.member, digest_of(b"x")
    await pair.cask.stop()
    with pytest.raises(Unavailable):
        await pair.node.peers.read(member, digest)
    for prove in (False, True):
        with pytest.raises(Unavailable):
            await pair.node.peers.find(member, [digest] * 20, prove=prove)
    with pytest.raises(Unavailable):
        await pair.node.peers.store(member, Memory(b"x"))  # type: ignore[arg-type]
    assert not pair.node.member(A).writable


async def test_a_cask_node_of_another_secret_is_unavailable(pair: Pair) -> None:
    pair.cask.secret = "another"
    for call in (
        pair.node.peers.read(pair.member, digest_of(b"x")),
        pair.node.peers.find(pair.member, [digest_of(b"x")]),
        pair.node.peers.store(pair.member, Memory(b"x")),  # type: ignore[arg-type]
    ):
        with pytest.raises(Unavailable, match="another secret"):
            await call


async def test_a_large_copy_for_a_node_that_refuses_it_at_once_is_broken_off(pair: Pair) -> None:
    pair.cask.writeable = False
    source = Pieces(content_of(16 * MIB))
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await pair.node.peers.store(pair.member, source)  # type: ignore[arg-type]
    assert source.closed


async def test_an_answer_that_is_not_the_key_to_the_letter_is_a_failed_copy(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: web.BaseRequest, _: object) -> web.Response:
        await request.read()
        return web.Response(text=f"{key_of(b'x')}\n")

    monkeypatch.setattr(pair.cask, "_local", answer)
    with pytest.raises(Unavailable):
        await pair.node.peers.store(pair.member, Memory(b"x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [404, 500])
async def test_a_file_that_a_cask_node_can_not_read_is_none(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async def answer(*_: object) -> web.Response:
        return error(status, "error reading file")

    monkeypatch.setattr(pair.cask, "_local", answer)
    assert await pair.node.peers.find(pair.member, [digest_of(b"x")]) == [None]
    with pytest.raises(NotFound):
        await pair.node.peers.read(pair.member, digest_of(b"x"))


@pytest.mark.parametrize("size", SIZES)
async def test_a_cask_node_stores_on_tierce_and_fetches_from_it(pair: Pair, size: int) -> None:
    content = content_of(size)
    key = key_of(content)
    assert await pair.cask.write(content)
    assert pair.node.blobs.content[key] == pair.cask.files.pop(key) == content
    assert await pair.cask.read(key) == content
    assert pair.node.blobs.asked_elsewhere == 0


async def test_the_client_of_a_cask_node_gets_a_file_that_only_tierce_has(pair: Pair) -> None:
    content = content_of(3000)
    key = key_of(content)
    pair.node.blobs.content[key] = content
    answer = await ask(pair.cask.base_url, "GET", f"/file/{key}/")
    assert (answer.status, answer.headers["etag"]) == (200, f'"{key}"')
    assert await pair.cask.read(key) == content


async def test_nodes_ask_for_what_is_here_and_clients_for_what_is_anywhere(pair: Pair) -> None:
    key = key_of(b"x")
    knock = f"X-Cask-Cluster-Secret: {SECRET}"
    for method in ("GET", "HEAD"):
        assert (await ask(pair.node.url, method, f"/local/{key}/", knock)).status == 404
    assert pair.node.blobs.asked_elsewhere == 0
    for method in ("GET", "HEAD"):
        assert (await ask(pair.node.url, method, f"/file/{key}/")).status == 404
    assert pair.node.blobs.asked_elsewhere == 2


async def test_an_upload_that_too_few_nodes_took_is_no_success_and_has_its_key(pair: Pair) -> None:
    pair.node.blobs.too_few_nodes = True
    for content in (b"", HELLO, content_of(3000)):
        answer = await post(pair.node.url, content)
        assert (answer.status, answer.body) == (503, failure(key_of(content)))
    knock = f"X-Cask-Cluster-Secret: {SECRET}"
    answer = await post(pair.node.url, HELLO, "/local/", knock)
    assert (answer.status, answer.body) == (200, key_of(HELLO).encode())


async def test_a_read_only_tierce_node_takes_no_copies_and_gives_them(pair: Pair) -> None:
    pair.node.blobs.content[key_of(b"x")] = b"x"
    pair.node.blobs.read_only = True
    assert await pair.cask.write(b"y")
    assert not pair.cask.known[TIERCE].writeable
    assert key_of(b"y") not in pair.node.blobs.content
    assert await pair.cask.read(key_of(b"x")) == b"x"


async def test_rebalancing_counts_and_fills_tierce_nodes() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET) as node,
        CaskNode(A, secret=SECRET, replication=2, max_replication=2) as a,
        CaskNode(B, secret=SECRET, replication=2, max_replication=2) as b,
    ):
        await a.join(b.base_url)
        await a.join(node.url)
        contents = [content_of(100 + number) for number in range(30)]
        for content in contents:
            key = key_of(content)
            a.files[key] = b.files[key] = content
            await a.rebalance(key)
            await b.rebalance(key)
        # Where the ring wants it, the Tierce node got a copy, and a Cask node let go of its own.
        assert node.blobs.content
        for content in contents:
            key = key_of(content)
            holders = [key in node.blobs.content, key in a.files, key in b.files]
            assert holders.count(True) == 2
        assert node.blobs.asked_elsewhere == 0
