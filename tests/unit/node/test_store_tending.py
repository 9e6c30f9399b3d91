"""When the agent compares a bucket with its catalogue, and what it says that the scrub costs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.blobs.cloud_nodes import DAY, HOUR, Nodes, TellingBucket

from tierce.blobs.cloud_disk import CloudDisk, Proof
from tierce.cloud.failures import Taken
from tierce.core.digest import Digest
from tierce.node.scrub_cost import ScrubPace
from tierce.node.store_tending import StoreTending


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    for node in nodes.all:
        await node.disk.close()


def tending_of(disk: CloudDisk) -> StoreTending:
    missing: list[Digest] = []
    return StoreTending(
        disk,
        scrub=ScrubPace(2.0, 1000.0, 600.0, 1000),
        on_missing=missing.append,
        on_taken=lambda *said: None,
    )


@pytest.mark.parametrize(
    ("proof", "compared_hours_ago", "is_at_once"),
    [("tags", None, True), ("tags", 25, True), ("tags", 1, False), ("read", None, False)],
)
async def test_a_node_that_starts_compares_at_once_only_if_its_tags_are_worth_nothing_else(
    nodes: Nodes,
    monkeypatch: pytest.MonkeyPatch,
    proof: Proof,
    compared_hours_ago: int | None,
    is_at_once: bool,
) -> None:
    node = await nodes.new(TellingBucket(), proof)
    if compared_hours_ago is not None:
        await node.compare()
        node.now += compared_hours_ago * HOUR

    rounds = 0

    async def tend() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            raise Taken("enough")

    monkeypatch.setattr("tierce.node.store_tending.CLOUD_TEND_SECONDS", 0)
    monkeypatch.setattr(node.store, "tend", tend)
    tending = tending_of(node.disk)
    await tending.run()
    assert (tending.status()["compared_at"] is not None) is is_at_once


async def test_the_cost_of_the_scrub_falls_as_tags_become_proofs(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    for number in range(12):
        await node.put(b"%d" % number)
    tending = tending_of(node.disk)
    before = tending.status()
    assert before["proof"] == "tags"
    assert before["scrub_month"]["read_requests"] == 12
    node.now += DAY
    await tending.compare()
    after = tending.status()
    assert after["compared"]["unproved"] == 0
    assert after["scrub_month"] == {
        "list_requests": 30 * 14, "look_requests": 2, "read_requests": 2, "read_bytes": 2
    }  # fmt: skip


async def test_a_store_that_is_read_says_what_that_costs(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket(), "read")
    await node.put(b"blob")
    told = tending_of(node.disk).status()
    assert told["proof"] == "read"
    assert told["scrub_month"]["look_requests"] == 0
    assert told["scrub_month"]["read_requests"] == 30 * 86_400 // 602
    assert told["scrub_month"]["read_bytes"] == int(4 * 30 * 86_400 / 602)
