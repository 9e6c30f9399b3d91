"""Loading from dtfc peers, and deleting on them, by nodes that are real processes."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import MIB
from tierce.testing.calls import Reply, Wire, call
from tierce.testing.cluster_processes import ClusterNode, free_port
from tierce.testing.dtfc_peers import DtfcPeer, Faults, serving_dtfc_in_thread
from tierce.testing.processes import Address, wait_for

pytestmark = pytest.mark.procs

SIZE = 20 * MIB
PAUSE_SECONDS = 0.003
"""A stand-in needs about a second for a file then."""


class DtfcNode(ClusterNode):
    """A node with the dtfc door on a fixed port, whose peer list a test writes."""

    def __init__(self, data: Path, workers: int) -> None:
        self.list = data.parent / f"{data.name}.peers"
        self.list.write_text("")
        self.url = f"http://127.0.0.1:{free_port()}"
        super().__init__(
            data,
            workers=workers,
            listen=[f"dtfc={self.url.removeprefix('http://')}"],
            dtfc_peer_list=self.list,
            dtfc_me=self.url,
        )

    def __enter__(self) -> "DtfcNode":
        return self

    @property
    def address(self) -> Address:
        return self.addresses["dtfc"]

    def ask(self, *urls: str) -> None:
        """Have these peers from now on."""
        self.list.write_text("".join(f"{url}/\n" for url in urls))
        assert call(self.address, "PUT", "/refreshpeers.html").status == 200

    def put(self, data: bytes, name: str = "file.bin") -> str:
        assert call(self.address, "PUT", f"/{name}", data).status == 200
        return hash_of(data)

    def get(self, hashed: str, option: str = "") -> Reply:
        return call(self.address, "GET", f"/{hashed}{option}")


class Pair(NamedTuple):
    """Two nodes, the first one with two workers and an agent of its own."""

    one: DtfcNode
    two: DtfcNode


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("dtfc")
    with DtfcNode(root / "one", 2) as one, DtfcNode(root / "two", 1) as two:
        for node in (one, two):
            node.launch()
        for node in (one, two):
            node.wait_ready()
        yield Pair(one, two)


def content(seed: int, size: int = SIZE) -> bytes:
    return Random(seed).randbytes(size)


def hash_of(data: bytes) -> str:
    return Digest.of(data, "sha512").raw.hex()


def at_once(count: int, task: Callable[[], Reply]) -> list[Reply]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: task(), range(count)))


def test_ten_readers_of_a_missing_file_cause_one_transfer_and_read_it_as_it_comes(
    pair: Pair,
) -> None:
    data = content(1)
    hashed = hash_of(data)
    peer = DtfcPeer(faults=Faults(pause_seconds=PAUSE_SECONDS)).has(data, "Big.MP4")
    with serving_dtfc_in_thread(peer), Wire(pair.one.address) as wire:
        pair.one.ask(peer.url)
        wire.request("GET", f"/{hashed}")
        status, headers = wire.head()
        assert (status, headers["content-length"]) == (200, str(SIZE))
        assert headers["content-disposition"] == 'attachment; filename="big.mp4"'
        assert wire.rest(MIB) == data[:MIB]
        assert peer.sent_bytes < SIZE
        for reply in at_once(10, lambda: pair.one.get(hashed)):
            assert (reply.status, reply.body == data) == (200, True)
        assert wire.rest(SIZE - MIB) == data[MIB:]
        assert (peer.asked("GET"), peer.sent_bytes) == ([f"/{hashed}/nopeerload"], SIZE)
    wait_for(lambda: pair.one.get(hashed, "/nopeerload").body == data, "it to be kept")
    assert pair.one.spools() == []


def test_an_agent_that_dies_in_mid_load_breaks_its_readers_off_and_no_more(pair: Pair) -> None:
    data = content(2)
    hashed = hash_of(data)
    peer = DtfcPeer(faults=Faults(pause_seconds=PAUSE_SECONDS)).has(data)
    with serving_dtfc_in_thread(peer):
        pair.one.ask(peer.url)
        replies: list[Reply] = []
        readers = [
            threading.Thread(target=lambda: replies.append(pair.one.get(hashed))) for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        wait_for(lambda: peer.sent_bytes > SIZE // 3, "the load to be under way")
        pair.one.roles()["agent"].kill()
        for reader in readers:
            reader.join(30)
        assert len(replies) == 4
        for reply in replies:
            assert not reply.complete or reply.status == 503
            assert reply.status == 503 or data.startswith(reply.body)
        peer.faults.pause_seconds = 0
        wait_for(lambda: pair.one.get(hashed).body == data, "a new reader to get it")
    wait_for(lambda: not pair.one.spools(), "what was spooled to be removed")


def test_a_corrupt_peer_and_one_that_always_stops_midway_do_no_harm(pair: Pair) -> None:
    data = content(3, 5 * MIB)
    hashed = hash_of(data)
    corrupt = DtfcPeer(faults=Faults(gives_wrong_bytes=True)).has(data)
    stops = DtfcPeer(faults=Faults(stops_after=2 * MIB, has_no_ranges=True)).has(data)
    good = DtfcPeer(faults=Faults(answers_after_seconds=0.5)).has(data)
    with serving_dtfc_in_thread(corrupt, stops, good):
        pair.one.ask(corrupt.url, stops.url)
        for reply in at_once(3, lambda: pair.one.get(hashed)):
            assert not reply.complete or reply.status in (404, 502)
        assert pair.one.get(hashed, "/nopeerload").status == 404
        pair.one.ask(corrupt.url, stops.url, good.url)
        wait_for(lambda: pair.one.get(hashed).body == data, "the right bytes")
    wait_for(lambda: pair.one.get(hashed, "/nopeerload").body == data, "it to be kept")


def test_two_nodes_that_are_each_others_peers_do_not_ask_in_circles(pair: Pair) -> None:
    pair.one.ask(pair.two.url)
    pair.two.ask(pair.one.url)
    unknown = "0" * 128
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda node: node.get(unknown).status, [*pair] * 4))
    assert found == [404] * 8
    data = content(4, 3 * MIB)
    hashed = pair.two.put(data)
    assert pair.one.get(hashed).body == data


def test_a_peer_that_is_down_hears_of_a_deletion_when_it_returns(pair: Pair) -> None:
    """Also if the node that took the order loses its power meanwhile."""
    data = content(5, 1000)
    peer = DtfcPeer().has(data)
    with serving_dtfc_in_thread(peer):
        pair.one.ask(peer.url, pair.two.url)
        hashed = pair.two.put(data)
        pair.two.kill()
        reply = call(pair.one.address, "DELETE", f"/{hashed}/allpeers")
        assert reply.json["peers"] == {peer.url: "deleted", pair.two.url: "queued"}
        assert hashed in peer.deleted
        pair.one.kill()
        pair.two.start()
        assert pair.two.get(hashed).body == data
        pair.one.start()
        wait_for(lambda: pair.two.get(hashed, "/nopeerload").status == 404, "it to hear of it")
