"""Gossip between very many nodes, and after very many troubles: do all agree, how soon, at what cost?

The figures are printed; the bounds say that what a node pays does not grow with the cluster.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from tests.unit.node.test_gossip import Network, Node, agree, alive, end, until

from tierce.cluster.member import State
from tierce.testing.virtual_time import run

GROW_LIMIT_SECONDS = 20.0
SETTLE_LIMIT_SECONDS = 30.0
HEAL_LIMIT_SECONDS = 100.0
QUIET_SECONDS = 140.0  # then the quick exchanges of newcomers are over
MEASURED_SECONDS = 100.0
MESSAGES_LIMIT = 2.5
BYTES_LIMIT = 1500


async def grown(network: Network, size: int) -> list[Node]:
    """A cluster of that size, all started at once with three addresses to join, in agreement."""
    ids = [f"node-{number:03}" for number in range(size)]
    seeds = [f"{each}:7071" for each in ids[:3]]
    nodes = [Node(network, each, seeds[number % 3], seeds[0]) for number, each in enumerate(ids)]
    await agree(nodes, alive(*ids), GROW_LIMIT_SECONDS)
    return nodes


async def time_to_settle(nodes: list[Node], leavers: int, *, politely: bool) -> float:
    """The last ones leave at once. How many seconds until all agreed on who is left?"""
    gone = nodes[-leavers:]
    del nodes[-leavers:]
    if politely:
        await asyncio.gather(*(each.gossip.leave(State.DOWN) for each in gone))
    await end(*gone)
    expected = nodes[0].states | {each.node_id: State.DOWN for each in gone}
    return await agree(nodes, expected, SETTLE_LIMIT_SECONDS)


async def traffic(nodes: Sequence[Node]) -> tuple[float, float]:
    """Messages and bytes, answers among them, that a node sends in a second when nothing happens."""
    network = nodes[0].network
    await asyncio.sleep(QUIET_SECONDS)
    messages, size_bytes = network.messages, network.bytes
    await asyncio.sleep(MEASURED_SECONDS)
    share = len(nodes) * MEASURED_SECONDS
    return (network.messages - messages) / share, (network.bytes - size_bytes) / share


class Figures(NamedTuple):
    """What a course of one cluster showed: simulated seconds; messages and bytes in one of them."""

    to_meet: float
    traffic: tuple[float, float]
    after_kills: float
    after_stops: float


async def course(size: int) -> Figures:
    Node.boots = 0
    nodes = await grown(Network(), size)
    to_meet = asyncio.get_running_loop().time()
    figures = Figures(
        to_meet,
        await traffic(nodes),
        await time_to_settle(nodes, size // 10, politely=False),
        await time_to_settle(nodes, size // 10, politely=True),
    )
    await end(*nodes)
    return figures


@pytest.fixture(scope="module")
def figures() -> dict[int, Figures]:
    return {size: run(course(size)) for size in (10, 50, 200)}


def test_the_figures(figures: dict[int, Figures], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\nnodes  to meet  messages/s and B/s a node  a tenth killed  a tenth stopped")
        for size, (to_meet, (messages, size_bytes), kills, stops) in figures.items():
            print(
                f"{size:5}  {to_meet:5.1f} s  {messages:10.2f}  {size_bytes:8.0f} B"
                f"  {kills:16.1f} s  {stops:13.1f} s"
            )
    assert list(figures) == [10, 50, 200]


def test_200_nodes_agree_soon_after_20_were_killed_at_once(figures: dict[int, Figures]) -> None:
    assert figures[200].after_kills < SETTLE_LIMIT_SECONDS


def test_180_nodes_agree_sooner_after_20_were_stopped_at_once(figures: dict[int, Figures]) -> None:
    assert figures[200].after_stops < figures[200].after_kills


def test_the_traffic_of_a_node_does_not_grow_with_the_cluster(figures: dict[int, Figures]) -> None:
    for messages, size_bytes in (each.traffic for each in figures.values()):
        assert messages < MESSAGES_LIMIT
        assert size_bytes < BYTES_LIMIT
    assert figures[200].traffic[0] < 1.1 * figures[10].traffic[0]
    assert figures[200].traffic[1] < 1.5 * figures[50].traffic[1]


class Troubles:
    """A small cluster to which bad things happen, all decided by one seed."""

    def __init__(self, seed: int) -> None:
        Node.boots = 0
        self.random = random.Random(seed)
        self.network = Network()
        self.ids = list("abcdefg")[: self.random.randrange(2, 8)]
        self.nodes = {each: Node(self.network, each, "a:7071") for each in self.ids}
        self.stopped: dict[str, Node] = {}

    async def stop(self, node_id: str, *, politely: bool) -> None:
        if node_id in self.nodes:
            node = self.nodes.pop(node_id)
            if politely:
                await node.gossip.leave(State.DOWN)
            await node.kill()
            self.stopped[node_id] = node

    def start(self, node_id: str, address: str = "") -> None:
        if node_id in self.stopped:
            former = self.stopped.pop(node_id)
            known = former.gossip.view.members
            join = ["a:7071"] if len(known) == 1 or self.random.random() < 0.5 else []
            again = Node(self.network, node_id, *join, address=address, known=known)
            self.nodes[node_id] = again

    def cut(self) -> None:
        halves: tuple[list[Node], list[Node]] = ([], [])
        for node in self.nodes.values():
            self.random.choice(halves).append(node)
        self.network.part(*halves)

    def heal(self) -> None:
        self.network.cut.clear()
        self.network.lost_percent = 0

    async def one(self, number: int) -> None:
        node_id = self.random.choice(self.ids)
        match self.random.randrange(9):
            case 0 | 1:
                await self.stop(node_id, politely=False)
            case 2:
                await self.stop(node_id, politely=True)
            case 3 | 4:
                self.start(node_id)
            case 5 if node_id != "a":  # that one's address is all that the others were given
                self.start(node_id, f"elsewhere:{number}")
            case 6:
                self.cut()
            case 7:
                self.heal()
            case _:
                self.network.lost_percent = self.random.choice([5, 20, 50])
        await asyncio.sleep(self.random.choice([0.1, 1.0, 5.0, 20.0, 60.0]))

    def have_converged(self) -> bool:
        views = [each.gossip.view for each in self.nodes.values()]
        everybody = alive(*self.ids)
        return all(each.members == views[0].members and not each.gone for each in views) and all(
            each.states == everybody for each in self.nodes.values()
        )


@pytest.mark.parametrize("seed", range(30))
def test_after_any_troubles_all_agree_again_and_nobody_was_refused(seed: int) -> None:
    async def troubled() -> list[Node]:
        troubles = Troubles(seed)
        for number in range(20):
            await troubles.one(number)
        troubles.heal()
        for node_id in list(troubles.stopped):
            troubles.start(node_id)
        await until(troubles.have_converged, HEAL_LIMIT_SECONDS)
        nodes = list(troubles.nodes.values())
        await end(*nodes)
        return nodes

    assert not [each.conflicts for each in run(troubled()) if each.conflicts]
