"""Workers give the agent orders, and hear its refusals as the errors that they are."""

from pathlib import Path
from typing import Any

import pytest

from tierce.core.errors import NotFound, TierceError, Unavailable
from tierce.node.agent import AgentClient, listening


async def echo(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name == "fail":
        raise NotFound("no such node", hint="Look again.")
    return {"name": name, **arguments}


async def test_a_worker_can_ask_however_long_the_path_is(tmp_path: Path) -> None:
    run = tmp_path / ("long" * 40) / "run"
    run.mkdir(parents=True)
    client = AgentClient(run)
    assert await client.status() is None
    async with listening(echo, run):
        assert await client.status() == {"name": "status"}
        assert await client.call("drain", {"node_id": "x/y"}) == {"name": "drain", "node_id": "x/y"}
    assert await client.status() is None
    with pytest.raises(Unavailable):
        await client.call("drain", {})


async def test_a_refusal_arrives_as_the_error_that_it_was(tmp_path: Path) -> None:
    async with listening(echo, tmp_path):
        with pytest.raises(TierceError) as caught:
            await AgentClient(tmp_path).call("fail", {})
    assert type(caught.value) is NotFound
    assert (caught.value.message, caught.value.hint) == ("no such node", "Look again.")
