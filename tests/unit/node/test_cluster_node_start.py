"""What a node takes its cluster to be before it has heard from anyone."""

import asyncio
import random
from pathlib import Path

from tests.unit.node.fakes import FakeTransport, Room, member, names_of, spooler

from tierce.blobs.memory import MemoryStore
from tierce.cluster.member import View
from tierce.core.limits import GIB
from tierce.node.cluster_node import ClusterNode, Pacing
from tierce.testing import virtual_time


def test_members_of_an_earlier_run_are_in_the_very_first_view(tmp_path: Path) -> None:
    """Else workers would for a moment take their node to be alone, and blobs to be nowhere."""
    views: list[View] = []

    async def main() -> None:
        room = Room()
        node = ClusterNode(
            member("a"),
            MemoryStore(),
            spooler(tmp_path, room, memory_limit_bytes=GIB),
            room,
            FakeTransport(),
            pacing=Pacing(),
            names=names_of(MemoryStore(), "a"),
            random=random.Random(1),
            on_view=views.append,
            on_conflict=lambda error: None,
            known=[member("b"), member("c")],
        )
        assert not node.path.is_alone
        running = asyncio.create_task(node.run())
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await node.close()

    virtual_time.run(main())
    assert [each.node_id for each in views[0].members] == ["a", "b", "c"]
