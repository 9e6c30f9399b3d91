"""The life among Cask nodes, in simulated time: retries, pace, and calls that hang."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from tierce.cluster.member import Member, View
from tierce.core.errors import BadRequest, Forbidden, Unavailable
from tierce.core.limits import JOIN_BACKOFF_MAX_SECONDS
from tierce.doors.cask.calls import Config
from tierce.doors.cask.control import FAILED, HEARTBEAT, JOIN, AgentControl, carry_out
from tierce.doors.cask.membership import JOINS_IN_FLIGHT, CaskMembership
from tierce.doors.cask.neighbors import Neighbors, Node
from tierce.testing import virtual_time

INTERVAL = 60.0


class Network:
    """Cask nodes that only answer. ``hanging`` ones never do; ``told`` is what they were sent."""

    def __init__(self) -> None:
        self.nodes: dict[str, Config] = {}
        self.hanging: set[str] = set()
        self.strangers: set[str] = set()
        self.told: list[tuple[float, str, str]] = []
        self.asked = 0
        self.most_asked = 0

    def cask(self, name: str, private: str = "") -> str:
        url = f"http://{name}:1"
        self.nodes[url] = Config(Node(name, url, True), private)
        return url

    async def _reach(self, url: str, what: str) -> None:
        self.told.append((asyncio.get_running_loop().time(), url, what))
        self.asked += 1
        self.most_asked = max(self.asked, self.most_asked)
        try:
            if url in self.hanging:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0.001)
        finally:
            self.asked -= 1
        if url not in self.nodes:
            raise Unavailable(f"{url} is not there")

    async def config(self, url: str) -> Config:
        await self._reach(url, "config")
        return self.nodes[url]

    async def join(self, at: str, url: str) -> None:
        await self._reach(at, f"join {url}")
        if at in self.strangers:
            raise Forbidden("another secret")

    async def heartbeat(self, at: str, body: bytes) -> None:
        await self._reach(at, "heartbeat")

    def times(self, url: str, what: str) -> list[float]:
        return [at for at, each, told in self.told if (each, told) == (url, what)]


class Life:
    """A membership in a network, and what it makes known."""

    def __init__(self, network: Network, *seeds: str) -> None:
        self.members: list[Member] = []
        self.changes = 0
        self.gossip: list[str] = []
        self.tierce: list[Member] = []
        self.fail_gossip = False
        self.membership = CaskMembership(
            Neighbors("knock", INTERVAL),
            network,
            seeds=seeds,
            random=random.Random(1),
            join_tierce=self.join_tierce,
            view=self.view,
            on_change=self.take,
        )

    def view(self) -> View:
        me = Member("me", cask="http://me:1")
        return View.of("me", [me, *self.members, *self.tierce])

    def take(self, members: list[Member]) -> None:
        self.members = members
        self.changes += 1

    async def join_tierce(self, address: str) -> None:
        self.gossip.append(address)
        if self.fail_gossip:
            raise Unavailable("nobody is there")

    @property
    def ids(self) -> list[str]:
        return [each.node_id for each in self.members]

    async def join(self, url: str) -> str:
        status, text = await self.membership.join({"url": url, "secret": "knock"})
        assert status == 200
        return text

    async def beat(self, sender: str, *others: str) -> None:
        told = [
            {"uuid": each, "base_url": f"http://{each}:1", "writeable": True} for each in others
        ]
        content = {
            "uuid": sender, "base_url": f"http://{sender}:1", "writeable": True, "neighbors": told,
        }  # fmt: skip
        await self.membership.heartbeat(json.dumps(content).encode())


def simulated(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtual_time.run(test())


async def running(life: Life, during: Callable[[], Awaitable[None]]) -> None:
    """Do something while the membership runs."""
    task = asyncio.create_task(life.membership.run())
    try:
        await during()
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def passing(seconds: float) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_seed_that_is_not_there_is_tried_for_ever_and_ever_more_rarely(seeds: int) -> None:
    async def test() -> None:
        network = Network()
        life = Life(network, *(f"http://s{number}:1" for number in range(seeds)))

        async def during() -> None:
            await passing(10_000.0)
            tries = network.times("http://s0:1", "config")
            assert tries[0] <= 1.0
            assert 300 < len(tries) < 1000
            pauses = [later - earlier for earlier, later in pairwise(tries[20:])]
            assert max(pauses) <= JOIN_BACKOFF_MAX_SECONDS + 1
            network.cask("s0")
            await passing(JOIN_BACKOFF_MAX_SECONDS + 1)
            assert life.ids == ["s0"]

        await running(life, during)

    simulated(test)


def test_a_seed_that_is_this_node_is_left_alone() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network, network.cask("me"))
        await running(life, lambda: passing(1000.0))
        assert len(network.told) == 1

    simulated(test)


def test_a_node_that_hangs_holds_up_no_heartbeat_to_another() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        a, b = network.cask("a"), network.cask("b")
        await life.join(a)
        await life.join(b)
        network.hanging.add(a)

        async def during() -> None:
            for _ in range(20):
                await passing(30.0)
                await life.beat("a")
                await life.beat("b")

        await running(life, during)
        times = network.times(b, "heartbeat")
        pauses = [later - earlier for earlier, later in pairwise([0.0, *times])]
        assert all(INTERVAL <= pause <= INTERVAL + 4.01 for pause in pauses)
        # One that does not answer is not sent a second one on top.
        assert len(network.times(a, "heartbeat")) == 1
        assert life.ids == ["a", "b"]

    simulated(test)


def test_a_silent_node_is_dropped_between_three_and_four_intervals() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        await life.join(network.cask("a"))

        async def during() -> None:
            await passing(3 * INTERVAL)
            assert life.ids == ["a"]
            await passing(INTERVAL + 4 * 4)
            assert life.ids == []

        await running(life, during)

    simulated(test)


def test_a_seed_that_was_dropped_is_joined_again() -> None:
    async def test() -> None:
        network = Network()
        seed = network.cask("a")
        life = Life(network, seed)
        await running(life, lambda: passing(1000.0))
        assert life.ids == ["a"]
        assert 3 <= len(network.times(seed, "config")) <= 6

    simulated(test)


def test_a_join_is_answered_while_another_hangs() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        a, b = network.cask("a"), network.cask("b")
        network.hanging.add(a)
        stuck = asyncio.create_task(life.join(a))
        await passing(1.0)
        assert await life.join(b) == "Added node [b]"
        await life.beat("b")
        assert not stuck.done()
        stuck.cancel()

    simulated(test)


def test_of_two_joins_of_a_node_at_once_one_adds_it() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        a = network.cask("a")
        answers = await asyncio.gather(*(life.join(a) for _ in range(3)))
        known = "already have a node with that UUID in the cluster"
        assert sorted(answers) == ["Added node [a]", known, known]
        assert life.changes == 1

    simulated(test)


def test_a_new_node_is_told_to_all_others_and_told_of_this_one() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        a, b, c = (network.cask(name) for name in "abc")
        await life.join(a)
        await life.join(b)
        network.told.clear()
        del network.nodes[a]
        assert await life.join(c) == "Added node [c]"
        told = sorted((at, what) for _, at, what in network.told if what != "config")
        assert told == [(a, f"join {c}"), (b, f"join {c}"), (c, "join http://me:1")]

    simulated(test)


def test_a_node_that_can_not_be_told_of_this_one_stays_added() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        network.nodes["http://a:1"] = Config(Node("a", "http://unreachable:1", True), "")
        assert await life.join("http://a:1") == "http://unreachable:1 is not there"
        assert life.ids == ["a"]

    simulated(test)


def test_a_node_of_another_secret_is_not_kept() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        network.strangers.add(network.cask("a"))
        assert await life.join("http://a:1") == "another secret"
        assert life.ids == []

    simulated(test)


def test_a_heartbeat_full_of_unknown_nodes_makes_few_calls_at_a_time() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        names = [f"n{number:02}" for number in range(50)]
        for name in names:
            network.hanging.add(network.cask(name))

        async def during() -> None:
            await life.beat("x", *names)
            await passing(1.0)
            await life.beat("x", *names)
            await passing(1.0)
            assert network.most_asked == JOINS_IN_FLIGHT

        await running(life, during)

    simulated(test)


def test_a_tierce_node_that_gossip_can_not_reach_is_tried_again() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network, network.cask("t", private="t:7071"))
        life.fail_gossip = True

        async def during() -> None:
            await passing(60.0)
            assert len(life.gossip) > 3
            life.fail_gossip = False
            await passing(60.0)
            life.tierce = [Member("t", private="t:7071")]
            life.gossip.clear()
            await passing(1000.0)
            assert len(life.gossip) <= 1

        await running(life, during)
        assert set(life.gossip) <= {"t:7071"}
        assert life.members == []

    simulated(test)


def test_changes_are_told_only_when_there_are_some() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)
        await life.join(network.cask("a"))
        for _ in range(5):
            await life.beat("a")
            life.membership.copied("a", True)
        assert life.changes == 1
        life.membership.copied("a", False)
        assert (life.changes, life.members[0].writable) == (2, False)

    simulated(test)


def test_orders_reach_it_from_another_process() -> None:
    async def test() -> None:
        network = Network()
        life = Life(network)

        class Direct:
            async def call(
                self, name: str, arguments: dict[str, Any], seconds: float = 0.0
            ) -> dict[str, Any]:
                sent = json.loads(json.dumps(arguments))
                return await carry_out(life.membership, name, sent)

        control = AgentControl(Direct())
        answer = await control.join({"url": network.cask("a"), "secret": "knock"})
        assert answer == (200, "Added node [a]")
        control.copied("a", True)
        control.copied("a", False)
        control.copied("a", False)
        await passing(1.0)
        assert [each.writable for each in life.members] == [False]
        await control.heartbeat(b'{"uuid":"a","base_url":"http://a:1","writeable":true}')
        assert [each.writable for each in life.members] == [True]
        await control.close()
        with pytest.raises(BadRequest):
            await carry_out(life.membership, "other", {})
        assert len({JOIN, HEARTBEAT, FAILED}) == 3

    simulated(test)
