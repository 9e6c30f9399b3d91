"""A Tierce node's Cask door among Cask nodes: joins, heartbeats, and who is dropped when."""

import aiohttp
import pytest
from tests.doors.cask.stand_in import CaskNode
from tests.doors.cask.tierce_node import TierceNode, tierce_node, until
from tests.doors.cask.wire import SECRET

from tierce.cluster.member import Member
from tierce.core.digest import Digest
from tierce.core.errors import Unavailable

TIERCE = "111b1f38-4a30-4bc1-9341-ea0a1c7976e2"
OTHER_TIERCE = "53a5e5f2-9de4-4e72-a71e-fcc8c4e4a03e"
A = "ead52d6c-f423-4c0a-a762-37bacac88d4f"
B = "f864ab85-2cd1-4cc7-a541-3e34ec6fc18f"
# Long enough for a loaded machine to answer in time, short enough to wait for three of them.
QUICK_SECONDS = 0.3


def cask(uuid: str, **options: float) -> CaskNode:
    return CaskNode(uuid, secret=SECRET, **options)  # type: ignore[arg-type]


async def post_join(node: TierceNode, url: str, secret: str = SECRET) -> tuple[int, str]:
    """Join as a person would."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{node.url}/join/", data={"url": url, "secret": secret}) as answer,
    ):
        return answer.status, await answer.text()


class Memory:
    """Bytes to be sent to a peer."""

    def __init__(self, content: bytes) -> None:
        self.data: bytes | None = content
        self.digest = Digest.of(content, "sha1")
        self.size = len(content)

    def stream(self) -> None:
        raise AssertionError("it is in memory")


async def test_a_node_joins_its_neighbors_at_the_start() -> None:
    async with (
        cask(A) as a,
        tierce_node(TIERCE, secret=SECRET, seeds=(a.base_url,)) as node,
    ):
        await until(lambda: node.knows(A) and TIERCE in a.known, "the join")
        assert a.known[TIERCE].base_url == node.url
        assert a.known[TIERCE].writeable
        assert node.members == [Member(A, cask=a.base_url, dialect="cask")]


async def test_a_node_is_joined_by_a_cask_node() -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        assert await a.join(node.url) == f"Added node [{TIERCE}]"
        assert TIERCE in a.known
        assert node.knows(A)


async def test_a_read_only_node_is_joined_as_one() -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        node.blobs.read_only = True
        await a.join(node.url)
        assert not a.known[TIERCE].writeable
        assert not await a._copy(TIERCE, "sha1:x", b"x")


async def test_one_join_makes_all_nodes_known_to_each_other() -> None:
    """Flood and reciprocity, with the calls that a cluster of Cask nodes alone would make."""
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a, cask(B) as b:
        await a.join(b.base_url)
        joins = {each.uuid: each.received["POST /join/"] for each in (a, b)}
        assert await post_join(node, a.base_url) == (200, f"Added node [{A}]")
        assert node.knows(A, B)
        assert set(a.known) == {TIERCE, B}
        assert set(b.known) == {TIERCE, A}
        # A is asked by the node, by B's flood, by the node's flood; B by A's flood and by the node.
        assert a.received["POST /join/"] - joins[A] == 3
        assert b.received["POST /join/"] - joins[B] == 2


async def test_a_node_that_floods_reaches_all_that_it_knows() -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a, cask(B) as b:
        await a.join(node.url)
        await b.join(node.url)
        assert node.knows(A, B)
        assert set(a.known) == {TIERCE, B}
        assert set(b.known) == {TIERCE, A}


async def test_joins_answer_in_casks_words() -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        assert await post_join(node, a.base_url) == (200, f"Added node [{A}]")
        known = "already have a node with that UUID in the cluster"
        assert await post_join(node, f"{a.base_url}/") == (200, known)
        assert await post_join(node, node.url) == (200, "I can't join myself, silly!")
        for url in ("http://127.0.0.1:1", "10.0.0.1:7946", "ftp://h", "http://\nx", "junk"):
            assert await post_join(node, url) == (200, "error retrieving config")
        # Its status page is no JSON.
        assert await post_join(node, f"{a.base_url}/x") == (200, "error parsing json")
        assert await post_join(node, "") == (200, "no url specified")
        assert await post_join(node, a.base_url, "x") == (403, "need to know the secret knock\n")


@pytest.mark.parametrize(
    "config",
    [
        {"uuid": ""}, {"uuid": "a/b"}, {"uuid": "a\nb"}, {"uuid": "x" * 300}, {"base_url": ""},
        {"base_url": "file:///etc/passwd"}, {"uuid": 1}, {"writeable": "yes"}, {"last_seen": ""},
    ],
)  # fmt: skip
async def test_a_node_that_makes_no_sense_is_not_added(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, object]
) -> None:
    def shown(each: CaskNode) -> dict[str, object]:
        sound = {"uuid": each.uuid, "base_url": each.base_url, "writeable": True}
        return sound | config

    async def answer(*_: object) -> aiohttp.web.Response:
        return aiohttp.web.json_response(shown(a))

    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        monkeypatch.setattr(a, "_config", answer)
        assert await post_join(node, a.base_url) == (200, "error parsing json")
        assert node.members == []


async def test_a_join_that_calls_back_is_answered_while_it_waits() -> None:
    """Each of the calls is made while all the ones before it still wait for their answers."""

    class Nosy(CaskNode):
        told: tuple[int, str] = (0, "")
        config = b""

        async def join(self, url: str) -> str:
            if self.told == (0, ""):
                self.told = (1, "")
                async with self.client.get(f"{node.url}/config/") as answer:
                    self.config = await answer.read()
                self.told = await post_join(node, b.base_url)
            return await super().join(url)

    async with (
        tierce_node(TIERCE, secret=SECRET) as node,
        Nosy(A, secret=SECRET) as a,
        cask(B) as b,
    ):
        assert await post_join(node, a.base_url) == (200, f"Added node [{A}]")
        assert a.told == (200, f"Added node [{B}]")
        assert TIERCE.encode() in a.config
        assert node.knows(A, B)


async def test_heartbeats_both_ways_keep_both_alive() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET, interval_seconds=QUICK_SECONDS) as node,
        cask(A, interval_seconds=QUICK_SECONDS) as a,
    ):
        await a.join(node.url)
        await until(lambda: a.received["POST /heartbeat/"] >= 8, "heartbeats")
        assert node.knows(A)
        assert TIERCE in a.known


async def test_a_dead_cask_node_is_dropped_and_joined_again_when_it_is_back() -> None:
    async with (
        cask(A, interval_seconds=QUICK_SECONDS) as a,
        tierce_node(
            TIERCE, secret=SECRET, interval_seconds=QUICK_SECONDS, seeds=(a.base_url,)
        ) as node,
    ):
        await until(lambda: node.knows(A), "the join")
        await a.stop()
        await until(lambda: not node.members, "the reaper")
        await a.start()
        await until(lambda: node.knows(A) and TIERCE in a.known, "the second join")


async def test_a_node_that_stops_is_dropped_by_cask_nodes() -> None:
    async with cask(A, interval_seconds=QUICK_SECONDS) as a:
        async with tierce_node(TIERCE, secret=SECRET, interval_seconds=QUICK_SECONDS) as node:
            await a.join(node.url)
        await until(lambda: not a.known, "the reaper")


async def test_a_node_that_failed_to_take_a_file_gets_none_until_its_next_heartbeat() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET, interval_seconds=QUICK_SECONDS) as node,
        cask(A, interval_seconds=1000.0) as a,
    ):
        await a.join(node.url)
        a.writeable = False
        with pytest.raises(Unavailable, match="503"):
            await node.peers.store(node.member(A), Memory(b"x"))  # type: ignore[arg-type]
        assert not node.member(A).writable
        a.writeable = True
        beat = {"uuid": A, "base_url": a.base_url, "writeable": True, "secret": SECRET}
        async with a.client.post(f"{node.url}/heartbeat/", json=beat) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        assert node.member(A).writable


async def test_a_heartbeat_tells_what_changed_about_its_sender() -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        await a.join(node.url)
        beat = {"uuid": A, "base_url": "http://a:1", "writeable": False, "secret": SECRET}
        async with a.client.post(f"{node.url}/heartbeat/", json=beat) as answer:
            assert answer.status == 200
        assert node.members == [Member(A, cask="http://a:1", writable=False, dialect="cask")]


async def test_an_unknown_sender_is_not_added_but_those_that_it_tells_of_are_joined() -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a, cask(B) as b:
        unknown = {"uuid": A, "base_url": a.base_url, "writeable": True}
        told = {"uuid": B, "base_url": b.base_url, "writeable": True}
        myself = {"uuid": TIERCE, "base_url": node.url, "writeable": True}
        junk = {"uuid": "", "base_url": "x", "writeable": True}
        beat = {**unknown, "secret": SECRET, "neighbors": [junk, myself, told]}
        async with a.client.post(f"{node.url}/heartbeat/", json=beat) as answer:
            assert answer.status == 200
        await until(lambda: node.knows(B) and TIERCE in b.known, "the join")


@pytest.mark.parametrize("body", [b"{}", b'{"secret":"wrong"}', b"junk", b"", b"[]", b"null"])
async def test_a_heartbeat_without_the_secret_changes_nothing(body: bytes) -> None:
    async with tierce_node(TIERCE, secret=SECRET) as node, cask(A) as a:
        await a.join(node.url)
        before = node.members
        async with a.client.post(f"{node.url}/heartbeat/", data=body) as answer:
            assert answer.status in (403, 500)
        assert node.members == before


async def test_nodes_of_another_secret_do_not_stay() -> None:
    async with (
        CaskNode(A, secret="another") as a,
        tierce_node(TIERCE, secret=SECRET) as node,
    ):
        status, text = await post_join(node, a.base_url)
        assert (status, node.members) == (200, [])
        assert "another secret" in text
        await a.join(node.url)
        assert node.members == []
        assert a.files == {}


async def test_cask_nodes_learn_of_other_tierce_nodes_by_heartbeats() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET, interval_seconds=QUICK_SECONDS) as node,
        tierce_node(OTHER_TIERCE, secret=SECRET) as other,
        cask(A) as a,
    ):
        await a.join(node.url)
        node.tierce = [Member(OTHER_TIERCE, cask=other.url)]
        await until(lambda: other.knows(A), "the join")
        assert OTHER_TIERCE in a.known


async def test_tierce_nodes_find_each_other_by_cask_urls_and_gossip_from_then_on() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET, private="127.0.0.1:7071") as first,
        tierce_node(OTHER_TIERCE, secret=SECRET, seeds=(first.url,)) as second,
    ):
        await until(lambda: bool(second.gossip), "the join")
        assert second.gossip == ["127.0.0.1:7071"]
        assert first.members == second.members == []


async def test_a_tierce_node_that_a_cask_node_tells_of_is_joined_by_gossip() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET) as first,
        tierce_node(OTHER_TIERCE, secret=SECRET, private="[::1]:7072") as second,
        cask(A, interval_seconds=QUICK_SECONDS) as a,
    ):
        await a.join(first.url)
        await a.join(second.url)
        await until(lambda: bool(first.gossip), "the heartbeat")
        assert set(first.gossip) == {"[::1]:7072"}
        assert first.knows(A)
        assert set(a.known) == {TIERCE, OTHER_TIERCE}


async def test_a_tierce_node_in_the_place_of_a_cask_node_is_no_cask_node_any_more() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET, interval_seconds=QUICK_SECONDS) as node,
        cask(A, interval_seconds=QUICK_SECONDS) as a,
    ):
        await a.join(node.url)
        node.tierce = [Member(A, private="127.0.0.1:7071", cask=a.base_url)]
        await until(lambda: not node.members, "the end of the Cask node")


async def test_the_private_address_is_in_a_header_of_the_config() -> None:
    async with (
        tierce_node(TIERCE, secret=SECRET, private="127.0.0.1:7071") as node,
        aiohttp.ClientSession() as session,
        session.get(f"{node.url}/config/") as answer,
    ):
        assert answer.headers["Tierce-Private"] == "127.0.0.1:7071"
        assert "private" not in (await answer.text()).lower()


async def test_a_door_without_a_membership_says_that_it_joins_none() -> None:
    async with tierce_node(TIERCE, secret=SECRET, alone=True) as node, cask(A) as a:
        status, text = await post_join(node, a.base_url)
        assert (status, "without a cluster" in text) == (503, True)
        beat = {"uuid": A, "base_url": a.base_url, "writeable": True, "secret": SECRET}
        async with a.client.post(f"{node.url}/heartbeat/", json=beat) as answer:
            assert (answer.status, "without a cluster" in await answer.text()) == (503, True)
