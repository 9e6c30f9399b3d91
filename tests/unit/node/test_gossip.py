"""Gossip between some nodes over a small network in memory, in simulated time."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from tierce.cluster.gossip_messages import Answer, Ping, Question
from tierce.cluster.member import Member, State, View
from tierce.cluster.membership import Membership
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    TierceError,
    Unavailable,
)
from tierce.core.limits import GOSSIP_SYNC_SECONDS, JOIN_BACKOFF_MAX_SECONDS
from tierce.node.gossip import Gossip
from tierce.node.peers import Incoming
from tierce.testing.virtual_time import VirtualLoop, run

LATENCY_SECONDS = 0.005
GRACE_SECONDS = 20.0
ALIVE, SUSPECT, DOWN, LEFT = State.ALIVE, State.SUSPECT, State.DOWN, State.LEFT


class Network:
    """Carries messages with some latency; ways from one address to another can be cut."""

    def __init__(self) -> None:
        self.doors: dict[str, Callable[[bytes], Coroutine[Any, Any, bytes]]] = {}
        self.cut: set[tuple[str, str]] = set()
        self.lost_percent = 0
        self.random = random.Random(7)
        self.messages = 0
        self.bytes = 0

    def part(self, some: "Sequence[Node]", others: "Sequence[Node]") -> None:
        """No way between these and those any more, in either direction."""
        for one in some:
            for other in others:
                self.cut |= {(one.address, other.address), (other.address, one.address)}

    async def pass_on(self, sender: str, receiver: str, body: bytes) -> None:
        self.messages += 1
        self.bytes += len(body)
        await asyncio.sleep(LATENCY_SECONDS)
        if (sender, receiver) in self.cut or self.random.randrange(100) < self.lost_percent:
            await asyncio.Event().wait()


class Wire:
    """One node's end of the network."""

    def __init__(self, network: Network, address: str) -> None:
        self.network = network
        self.address = address

    async def exchange(
        self, address: str, path: str, body: bytes, *, timeout_seconds: float
    ) -> bytes:
        assert path == "/gossip"
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.network.pass_on(self.address, address, body)
                door = self.network.doors.get(address)
                if door is None:
                    raise Unavailable(f"nobody listens at {address}")
                answer = await door(body)
                await self.network.pass_on(address, self.address, answer)
                return answer
        except TimeoutError:
            raise Unavailable(f"no answer from {address}") from None

    async def upload(
        self, address: str, path: str, size: int, pieces: AsyncIterator[bytes], digest: Digest
    ) -> bytes:
        raise AssertionError("gossip sends no blobs")

    def download(
        self, address: str, path: str, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        raise AssertionError("gossip reads no blobs")


class Node:
    """One run of a node: started at once, until it is killed."""

    boots = 0

    def __init__(
        self,
        network: Network,
        node_id: str,
        *join: str,
        address: str = "",
        known: Sequence[Member] = (),
        ring_points: int = 128,
    ) -> None:
        Node.boots += 1
        self.network = network
        self.node_id = node_id
        self.address = address or f"{node_id}:7071"
        me = Member(
            node_id,
            Node.boots * 1_000_000,
            boot=f"{Node.boots:026}",
            private=self.address,
            native=f"http://{node_id}.example:7070",
            cask=f"http://{node_id}.example:7080",
            ring_points=ring_points,
            version="0.1.0",
        )
        self.views: list[View] = []
        self.conflicts: list[TierceError] = []
        self.membership = Membership(me, asyncio.get_running_loop().time())
        self.gossip = Gossip(
            self.membership,
            Wire(network, self.address),
            join=join,
            random=random.Random(f"{node_id} {Node.boots}"),
            grace_seconds=GRACE_SECONDS,
            on_change=self.views.append,
            on_conflict=self.conflicts.append,
            known=known,
        )
        network.doors[self.address] = self.gossip.handle
        self.task = asyncio.create_task(self.gossip.run())

    @property
    def states(self) -> dict[str, State]:
        return {each.node_id: each.state for each in self.gossip.view.members}

    async def kill(self) -> None:
        self.network.doors.pop(self.address, None)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def alive(*ids: str) -> dict[str, State]:
    return dict.fromkeys(ids, ALIVE)


async def until(condition: Callable[[], bool], limit_seconds: float) -> float:
    """Wait for it; gives back after how many simulated seconds it came true."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not condition():
        assert loop.time() - started < limit_seconds, "the deadline is over"
        await asyncio.sleep(0.1)
    return loop.time() - started


async def rest(seconds: float) -> None:
    """Let simulated time pass, to see that nothing happens."""
    await asyncio.sleep(seconds)


async def agree(nodes: Sequence[Node], states: dict[str, State], limit_seconds: float) -> float:
    return await until(lambda: all(each.states == states for each in nodes), limit_seconds)


async def cluster(network: Network, *ids: str) -> list[Node]:
    first = Node(network, ids[0])
    nodes = [first, *(Node(network, each, first.address) for each in ids[1:])]
    await agree(nodes, alive(*ids), 30)
    return nodes


async def end(*nodes: Node) -> None:
    for node in nodes:
        await node.kill()


def simulated(test: Callable[[Network], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs a test in simulated time, and sees that no task was left behind."""

    async def whole() -> None:
        network = Network()
        await test(network)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def wrapped() -> None:
        run(whole())

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


@simulated
async def test_one_known_address_is_enough_to_join(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    await end(*nodes)


@simulated
async def test_the_first_view_is_told_when_it_begins_and_each_new_one_after(
    network: Network,
) -> None:
    a, b = await cluster(network, "a", "b")
    assert [sorted(each.by_id) for each in a.views] == [["a"], ["a", "b"]]
    assert a.views[-1] == a.gossip.view
    await end(a, b)


@simulated
async def test_a_node_joins_an_address_that_nobody_listens_at_yet(network: Network) -> None:
    a = Node(network, "a", "b:7071")
    await rest(60)
    b = Node(network, "b")
    await agree([a, b], alive("a", "b"), JOIN_BACKOFF_MAX_SECONDS * 1.5 + 1)
    await end(a, b)


@simulated
async def test_nodes_that_all_join_all_find_each_other_and_themselves(network: Network) -> None:
    addresses = [f"{each}:7071" for each in "abc"]
    nodes = [Node(network, each, *addresses) for each in "abc"]
    await agree(nodes, alive(*"abc"), 3)
    await rest(60)
    assert [each.conflicts for each in nodes] == [[], [], []]
    await end(*nodes)


@simulated
async def test_joining_by_hand_raises_what_hinders_it(network: Network) -> None:
    a, b = Node(network, "a"), Node(network, "b")
    with pytest.raises(Unavailable):
        await a.gossip.join("nowhere:1")
    await a.gossip.join(b.address)
    assert a.states == b.states == alive("a", "b")
    await end(a, b)


@simulated
async def test_a_lone_node_stays_quiet(network: Network) -> None:
    a = Node(network, "a")
    await rest(100)
    assert network.messages == 0
    await end(a)


@simulated
async def test_a_killed_node_is_down_soon_and_gone_after_the_grace_time(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    await c.kill()
    await agree([a, b], {**alive("a", "b"), "c": DOWN}, 12)
    assert a.gossip.view.gone == ()
    await until(lambda: a.gossip.view.gone == b.gossip.view.gone == ("c",), GRACE_SECONDS + 5)
    assert a.views[-1].gone == ("c",)
    await end(a, b)


@simulated
async def test_a_plain_stop_is_known_at_once(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    await c.gossip.leave(DOWN)
    await c.kill()
    assert await agree([a, b], {**alive("a", "b"), "c": DOWN}, 1) < 0.5
    await end(a, b)


@simulated
async def test_who_leaves_for_good_is_no_member_any_more(network: Network) -> None:
    nodes = await cluster(network, *"abcdefgh")
    leaver, rest_of_them = nodes[3], nodes[:3] + nodes[4:]
    await leaver.gossip.leave(LEFT)
    await leaver.kill()
    await agree(rest_of_them, alive(*"abcefgh"), 5)
    await rest(100)
    await agree(rest_of_them, alive(*"abcefgh"), 1)
    await end(*rest_of_them)


@simulated
async def test_leaving_takes_a_bounded_time_when_nobody_answers(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    network.part([a], [b, c])
    started = asyncio.get_running_loop().time()
    await a.gossip.leave(DOWN)
    assert asyncio.get_running_loop().time() - started <= 1.0
    await end(a, b, c)


@simulated
async def test_a_way_that_is_cut_between_two_makes_no_suspect(network: Network) -> None:
    a, b, c, d = await cluster(network, *"abcd")
    network.cut = {(a.address, b.address)}
    seen = len(a.views), len(c.views)
    await rest(120)
    assert (len(a.views), len(c.views)) == seen
    await end(a, b, c, d)


@simulated
async def test_lost_messages_bring_nobody_down(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    network.lost_percent = 5
    await rest(300)
    network.lost_percent = 0
    await agree(nodes, alive(*"abcdef"), 30)
    downs = [view for node in nodes for view in node.views if DOWN in node_states(view)]
    assert not downs
    await end(*nodes)


def node_states(view: View) -> list[State]:
    return [each.state for each in view.members]


@simulated
async def test_a_machine_that_slept_for_an_hour_blames_nobody(network: Network) -> None:
    nodes = await cluster(network, *"abc")
    seen = [len(each.views) for each in nodes]
    for _ in range(20):
        await rest(0.17)  # so that it also happens in the middle of a probe
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._virtual.now += 3600
    await rest(60)
    assert [len(each.views) for each in nodes] == seen
    await end(*nodes)


@simulated
async def test_a_cluster_cut_in_two_merges_again_when_healed(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    network.part(nodes[:2], nodes[2:])
    await agree(nodes[:2], {**alive("a", "b"), **dict.fromkeys("cdef", DOWN)}, 30)
    await agree(nodes[2:], {**alive(*"cdef"), "a": DOWN, "b": DOWN}, 30)
    await rest(600)
    assert nodes[0].gossip.view.gone == ("c", "d", "e", "f")
    network.cut.clear()
    await agree(nodes, alive(*"abcdef"), 1.5 * GOSSIP_SYNC_SECONDS + 20)
    await end(*nodes)


@simulated
async def test_when_two_halves_meet_nobody_is_gone_who_never_was(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    network.part(nodes[:3], nodes[3:])
    await rest(600)
    network.cut.clear()
    seen = [len(each.views) for each in nodes]
    await agree(nodes, alive(*"abcdef"), 100)
    for node, count in zip(nodes, seen, strict=True):
        own = "abc" if node.node_id in "abc" else "def"
        for view in node.views[count:]:
            assert not [each for each in own if each in view.gone]
    await end(*nodes)


@simulated
async def test_a_node_cut_off_alone_comes_back(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    network.part([a], [b, c])
    await rest(300)
    network.cut.clear()
    await agree([a, b, c], alive(*"abc"), 60)
    await end(a, b, c)


@simulated
async def test_a_restart_at_a_new_address_just_works(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    await c.kill()
    again = Node(network, "c", a.address, address="elsewhere:1")
    await agree([a, b, again], alive(*"abc"), 5)
    await until(lambda: b.gossip.view.by_id["c"].private == "elsewhere:1", 5)
    await rest(100)
    assert again.conflicts == []
    await end(a, b, again)


@simulated
async def test_a_restart_while_it_counts_as_down_just_works(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    await c.kill()
    await rest(60)
    again = Node(network, "c", known=c.views[-1].members)
    await agree([a, b, again], alive(*"abc"), 5)
    assert a.gossip.view.gone == ()
    await end(a, b, again)


@simulated
async def test_all_restarted_at_once_find_each_other_by_memory(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    for node in nodes:
        await node.gossip.leave(DOWN)
        await node.kill()
    again = [Node(network, each.node_id, known=each.gossip.view.members) for each in nodes]
    await agree(again, alive(*"abcdef"), 10)
    await end(*again)


@simulated
async def test_all_restarted_one_after_another_find_each_other_by_memory(network: Network) -> None:
    nodes = await cluster(network, *"abc")
    await end(*nodes)
    again = []
    for node in nodes:
        again.append(Node(network, node.node_id, known=node.views[-1].members))
        await rest(45)
    await agree(again, alive(*"abc"), 1)
    await end(*again)


@simulated
async def test_a_restart_makes_suspects_of_nobody_elsewhere(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    a, others = nodes[0], nodes[1:]
    await a.kill()
    again = Node(network, "a", known=a.views[-1].members)
    await agree([again, *others], alive(*"abcdef"), 10)
    await rest(60)
    suspects = [view for node in others for view in node.views if SUSPECT in node_states(view)]
    assert not suspects
    await end(again, *others)


@simulated
async def test_when_alone_again_a_node_joins_again(network: Network) -> None:
    a = Node(network, "a", "seed:1")
    b = Node(network, "b", address="seed:1")
    await agree([a, b], alive("a", "b"), 5)
    await b.kill()
    await until(lambda: a.states["b"] is DOWN, 20)
    other = Node(network, "c", address="seed:1")
    await until(lambda: a.states.get("c") is ALIVE, JOIN_BACKOFF_MAX_SECONDS * 1.5 + 1)
    await end(a, other)


@simulated
async def test_a_later_node_with_the_same_id_is_refused_when_it_joins(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    twin = Node(network, "c", a.address, address="elsewhere:1")
    await until(lambda: bool(twin.conflicts), 5)
    assert isinstance(twin.conflicts[0], Conflict)
    assert "another node with the id c runs at c:7071" in str(twin.conflicts[0])
    await twin.kill()
    await agree([a, b, c], alive(*"abc"), 1)
    assert b.gossip.view.by_id["c"].private == c.address
    assert c.conflicts == []
    await end(a, b, c)


@simulated
async def test_a_later_node_with_the_same_id_is_refused_by_its_twin(network: Network) -> None:
    a = Node(network, "a")
    twin = Node(network, "a", a.address, address="elsewhere:1")
    await until(lambda: bool(twin.conflicts), 5)
    await rest(10)
    assert (len(twin.conflicts), a.conflicts) == (1, [])
    with pytest.raises(Unavailable, match="a is stopping"):
        await twin.gossip.handle(encode(Question(a.membership.me, Ping())))
    await end(a, twin)


@simulated
async def test_a_copied_directory_is_refused_by_whom_it_remembers(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    twin = Node(network, "c", address="elsewhere:1", known=c.gossip.view.members)
    await until(lambda: bool(twin.conflicts), 5)
    assert c.conflicts == []
    await end(a, b, c, twin)


@simulated
async def test_of_two_with_one_id_that_meet_by_gossip_the_later_stops(network: Network) -> None:
    a, b, c = await cluster(network, *"abc")
    network.part([c], [a, b])
    await until(lambda: a.states["c"] is DOWN, 20)
    twin = Node(network, "c", a.address, address="elsewhere:1")
    await agree([a, b, twin], alive(*"abc"), 10)
    assert twin.conflicts == []
    network.cut.clear()
    await until(lambda: bool(twin.conflicts), 1.5 * GOSSIP_SYNC_SECONDS + 10)
    await twin.kill()
    await agree([a, b, c], alive(*"abc"), 100)
    await until(lambda: a.gossip.view.by_id["c"].private == c.address, 100)
    assert c.conflicts == []
    await end(a, b, c)


@simulated
async def test_other_ring_points_are_refused_when_joining(network: Network) -> None:
    a = Node(network, "a")
    b = Node(network, "b", a.address, ring_points=64)
    await until(lambda: bool(b.conflicts), 5)
    assert "ring_points is 64 on the node b, and 128 on the node a" in str(b.conflicts[0])
    await rest(10)
    assert a.states == alive("a")
    await end(a, b)


@simulated
async def test_other_ring_points_are_refused_by_whom_a_node_remembers(network: Network) -> None:
    a, b = await cluster(network, "a", "b")
    await b.kill()
    again = Node(network, "b", known=b.views[-1].members, ring_points=64)
    await until(lambda: bool(again.conflicts), 5)
    await rest(30)
    assert a.states == {"a": ALIVE, "b": DOWN}
    assert a.conflicts == []
    await end(a, again)


@simulated
async def test_an_announcement_reaches_all(network: Network) -> None:
    nodes = await cluster(network, *"abcdef")
    nodes[2].gossip.announce(draining=True, writable=False)
    assert nodes[2].views[-1].by_id["c"].draining
    await until(lambda: all(each.gossip.view.by_id["c"].draining for each in nodes), 10)
    assert not nodes[0].gossip.view.by_id["c"].writable
    await end(*nodes)


@simulated
async def test_a_forgotten_node_is_a_member_nowhere_and_joins_again_when_it_lives(
    network: Network,
) -> None:
    a, b, c, d = await cluster(network, *"abcd")
    network.part([d], [a, b, c])
    await agree([a, b, c], {**alive(*"abc"), "d": DOWN}, 20)
    with pytest.raises(NotFound):
        a.gossip.forget("x")
    with pytest.raises(Conflict):
        a.gossip.forget("b")
    a.gossip.forget("d")
    await agree([a, b, c], alive(*"abc"), 10)
    await rest(100)
    network.cut.clear()
    await agree([a, b, c, d], alive(*"abcd"), 60)
    await end(a, b, c, d)


@simulated
async def test_members_heard_of_in_another_way_are_passed_on_and_not_probed(
    network: Network,
) -> None:
    a, b, c = await cluster(network, *"abc")
    cask = Member("real", 1, cask="http://real:8000", ring_points=16, dialect="cask")
    a.gossip.hear([cask])
    await agree([a, b, c], alive("a", "b", "c", "real"), 10)
    await rest(60)
    await agree([a, b, c], alive("a", "b", "c", "real"), 1)
    await end(a, b, c)


@simulated
async def test_a_joining_node_answers_whoever_calls_back(network: Network) -> None:
    a = Node(network, "a")
    handle = a.gossip.handle

    async def call_back_first(body: bytes) -> bytes:
        sender = decode(body, Question, "message").sender
        ping = encode(Question(a.membership.me, Ping()))
        answer = await network.doors[sender.private](ping)
        assert decode(answer, Answer, "answer").sender.node_id == sender.node_id
        return await handle(body)

    network.doors[a.address] = call_back_first
    b = Node(network, "b", a.address)
    await agree([a, b], alive("a", "b"), 5)
    await end(a, b)


@simulated
async def test_a_wrong_secret_is_logged_once_a_minute_and_tried_again(network: Network) -> None:
    async def refuse(_: bytes) -> bytes:
        raise Forbidden("the signature is wrong", hint="Use the same secret on all nodes.")

    network.doors["seed:1"] = refuse
    a = Node(network, "a", "seed:1")
    await rest(300)
    assert a.conflicts == []
    seed = Node(network, "b", address="seed:1")
    await agree([a, seed], alive("a", "b"), JOIN_BACKOFF_MAX_SECONDS * 1.5 + 1)
    await end(a, seed)


def test_refusals_are_logged_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    test_a_wrong_secret_is_logged_once_a_minute_and_tried_again()
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert 2 <= len(errors) <= 5
    assert "seed:1 refuses this one: the signature is wrong. Use the same secret" in errors[0]


@simulated
async def test_a_node_that_stops_takes_nobody_in(network: Network) -> None:
    a, b = await cluster(network, "a", "b")
    await a.gossip.leave(DOWN)
    with pytest.raises(Unavailable):
        await b.gossip.join(a.address)
    await end(a, b)


class Unknown(msgspec.Struct, array_like=True, tag="from-the-future"):
    pass


@simulated
async def test_a_message_of_an_unknown_kind_is_a_bad_request(network: Network) -> None:
    a = Node(network, "a")
    for body in (encode([a.membership.me, Unknown(), []]), b"", b"\x01junk", b"\x63"):
        with pytest.raises(BadRequest):
            await a.gossip.handle(body)
    await end(a)


@simulated
async def test_the_same_seed_gives_the_same_course(network: Network) -> None:
    counts = []
    for _ in range(2):
        Node.boots = 0
        network = Network()
        nodes = await cluster(network, *"abcde")
        await rest(60)
        counts.append((network.messages, network.bytes))
        await end(*nodes)
    assert counts[0] == counts[1]
