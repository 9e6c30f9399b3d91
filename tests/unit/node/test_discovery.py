"""Nodes of one cluster find each other by multicast DNS; those of another one are left alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tierce.core.errors import BadRequest, Unavailable
from tierce.node import discovery
from tierce.node.discovery import Discovery, tag_of


class Node:
    """Collects what discovery would join."""

    def __init__(self, name: str, port: int, secret: str, fails: bool = False) -> None:
        self.address = f"127.0.0.1:{port}"
        self.joined: list[str] = []
        self.fails = fails
        self.discovery = Discovery(name, self.address, secret, self.join, ["127.0.0.1"])

    async def join(self, address: str) -> None:
        self.joined.append(address)
        if self.fails:
            raise Unavailable("nobody there")


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.discovery.run()) for each in nodes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.05)


async def test_two_nodes_of_a_cluster_find_each_other_and_no_stranger() -> None:
    first, second = Node("one", 17071, "secret"), Node("two", 17072, "secret")
    stranger = Node("three", 17073, "other secret")
    async with running(first, second, stranger):
        await until(lambda: first.joined and second.joined)
    assert set(first.joined) == {second.address}
    assert set(second.joined) == {first.address}
    assert stranger.joined == []


async def test_a_join_that_fails_ends_nothing() -> None:
    first, second = Node("one", 17074, "s", fails=True), Node("two", 17075, "s")
    async with running(first, second):
        await until(lambda: first.joined and second.joined)


def test_the_tag_does_not_hold_the_secret() -> None:
    assert "secret" not in tag_of("secret")
    assert tag_of("secret") != tag_of("secrets")


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "HAS_ZEROCONF", False)
    with pytest.raises(BadRequest) as caught:
        discovery.check_installed()
    assert "tierce[discover]" in caught.value.hint
