"""What doors may have the agent do."""

from typing import Any

from tierce.service.cluster import Cluster


class Recorded:
    """An agent that takes every order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(
        self, name: str, arguments: dict[str, Any], seconds: float = 0.0
    ) -> dict[str, Any]:
        self.calls.append((name, arguments))
        return {"said": name}


async def test_each_wish_is_one_order() -> None:
    agent = Recorded()
    cluster = Cluster(agent)
    assert await cluster.overview() == {"said": "cluster"}
    await cluster.drain("n1")
    await cluster.drain("n1", cancel=True)
    await cluster.forget("n1")
    assert agent.calls == [
        ("cluster", {}),
        ("drain", {"node_id": "n1", "cancel": False}),
        ("drain", {"node_id": "n1", "cancel": True}),
        ("forget", {"node_id": "n1"}),
    ]
