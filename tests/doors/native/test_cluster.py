"""The cluster's routes: what the agent is asked, and how its answers and refusals are put.

The door stands alone here, with an agent that is a few lines of Python; every answer is held against
the OpenAPI document. What real agents say is tested where they run.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import pytest
from tests.doors.native.node import DOCUMENT, Node, problem

from tierce.blobs.space import Space
from tierce.blobs.store import Counts
from tierce.core.errors import Conflict, NotFound, TierceError, Unavailable
from tierce.core.rights import Right, Token
from tierce.doors.native.gauges import StatusGauges
from tierce.doors.native.openapi_schemas import OVERVIEW_EXAMPLE, STATUS_EXAMPLE
from tierce.doors.native.routes import native_door
from tierce.doors.shared.connection import Pace
from tierce.service.access import Access
from tierce.service.cluster import Cluster
from tierce.service.status import Identity, Status, StatusReporter
from tierce.testing.calls import Reply
from tierce.testing.processes import Address

ODD_ID = "node 1 %2F?#&;+ü"
MEMBER = f"/v1/cluster/nodes/{quote(ODD_ID, safe='')}"
COMPARISON = {"comparison": 3}
# Each order with the right that it needs, and what the agent is then asked.
ORDERS = [
    ("GET", "/v1/cluster", Right.READ, 200, ("cluster", {})),
    ("POST", f"{MEMBER}/drain", Right.ADMIN, 202, ("drain", {"cancel": False})),
    ("DELETE", f"{MEMBER}/drain", Right.ADMIN, 200, ("drain", {"cancel": True})),
    ("POST", f"{MEMBER}/forget", Right.ADMIN, 204, ("forget", {})),
    ("POST", "/v1/store/compare", Right.ADMIN, 202, ("compare_store", {})),
]
EACH = pytest.mark.parametrize(
    ("method", "path", "right", "status", "call"),
    ORDERS,
    ids=[f"{each[0]} {each[1].rpartition('/')[2]}" for each in ORDERS],
)


class FakeAgent:
    """Remembers what it was asked; answers, or refuses if it has an error to raise."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error: TierceError | None = None

    async def call(
        self, name: str, arguments: dict[str, Any], seconds: float = 0.0
    ) -> dict[str, Any]:
        self.calls.append((name, arguments))
        if self.error is not None:
            raise self.error
        return {"cluster": OVERVIEW_EXAMPLE, "compare_store": COMPARISON}.get(name, {})


class Doorway:
    """A native door, and the agent behind it."""

    def __init__(self, agent: FakeAgent, node: Node) -> None:
        self.agent = agent
        self._node = node

    async def call(self, method: str, path: str, right: str | None = None) -> Reply:
        """One request, as one who has that right."""
        headers: Mapping[str, str] = {"Authorization": f"Bearer {right}"} if right else {}
        return await asyncio.to_thread(self._node.call, method, path, None, headers)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Doorway]:
    nothing: Any = None
    agent = FakeAgent()
    tokens = [Token.of(each, frozenset({each}), each) for each in Right]
    access = Access(tokens, frozenset())
    reporter = StatusReporter(Identity("n1", "0", (), 1, 0.0), nothing, nothing)
    door = native_door(nothing, access, reporter, Cluster(agent), nothing, log_requests=False)
    server = door.server(Pace(1, 20.0, 20.0, 20.0))
    sock = socket.create_server(("127.0.0.1", 0))
    await server.listen(sock, None)
    yield Doorway(agent, Node(tmp_path, Address(f"127.0.0.1:{sock.getsockname()[1]}")))
    await server.drain(1.0)


@EACH
async def test_the_agent_is_asked_and_its_answer_passed_on(
    door: Doorway, method: str, path: str, right: Right, status: int, call: tuple[str, Any]
) -> None:
    reply = await door.call(method, path, right)
    assert reply.status == status
    name, arguments = call
    if path.startswith(MEMBER):
        arguments = {"node_id": ODD_ID, **arguments}
    assert door.agent.calls == [(name, arguments)]
    expected = {
        200: OVERVIEW_EXAMPLE if method == "GET" else {"node_id": ODD_ID, "draining": False},
        202: COMPARISON if name == "compare_store" else {"node_id": ODD_ID, "draining": True},
        204: None,
    }[status]
    assert (json.loads(reply.body) if reply.body else None) == expected


@EACH
async def test_no_other_right_will_do(
    door: Doorway, method: str, path: str, right: Right, status: int, call: tuple[str, Any]
) -> None:
    for other in set(Right) - {right}:
        assert (await door.call(method, path, other)).status == 403
    assert (await door.call(method, path)).status == 401
    assert door.agent.calls == []


@EACH
async def test_while_the_agent_is_down_it_is_503(
    door: Doorway, method: str, path: str, right: Right, status: int, call: tuple[str, Any]
) -> None:
    door.agent.error = Unavailable("the agent is down", hint="Try again.")
    reply = await door.call(method, path, right)
    assert (reply.status, problem(reply)) == (503, "unavailable")
    assert "retry-after" in reply.headers


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [(NotFound("no such node"), 404, "not-found"), (Conflict("it is up"), 409, "conflict")],
)
@pytest.mark.parametrize(("method", "order"), [("POST", "drain"), ("DELETE", "drain"),
                                               ("POST", "forget")])  # fmt: skip
async def test_a_refusal_of_the_agent_is_passed_on(
    door: Doorway, method: str, order: str, error: TierceError, status: int, name: str
) -> None:
    door.agent.error = error
    reply = await door.call(method, f"/v1/cluster/nodes/n1/{order}", Right.ADMIN)
    assert (reply.status, problem(reply)) == (status, name)
    assert json.loads(reply.body)["detail"] == error.message


async def test_an_order_is_never_given_by_reading(door: Doorway) -> None:
    for order in ("drain", "forget"):
        reply = await door.call("GET", f"/v1/cluster/nodes/n1/{order}", Right.ADMIN)
        assert (reply.status, problem(reply)) == (405, "method-not-allowed")
    assert door.agent.calls == []


# The shapes that are documented


def validator(name: str) -> Any:
    return jsonschema_rs.validator_for(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": f"#/components/schemas/{name}",
            "components": DOCUMENT["components"],
        }
    )


def changed(content: dict[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    copy = deepcopy(content)
    copy["nodes"][0].update(node)
    return copy


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"state": "down", "down_seconds": 12.0, "status": None},
        {"state": "suspect"},
        {"dialect": "cask", "private": "", "native": "", "status": None},
        {"status": {**OVERVIEW_EXAMPLE["nodes"][0]["status"], "healing": None}},
    ],
)
def test_nodes_in_any_state_fit_the_schema(node: dict[str, Any]) -> None:
    validator("Overview").validate(changed(OVERVIEW_EXAMPLE, node))


@pytest.mark.parametrize(
    "node",
    [{"state": "gone"}, {"dialect": "s3"}, {"weight": "1"}, {"status": {}}, {"down_seconds": -1}],
)
def test_nodes_that_are_none_do_not_fit_the_schema(node: dict[str, Any]) -> None:
    assert not validator("Overview").is_valid(changed(OVERVIEW_EXAMPLE, node))


@pytest.mark.parametrize("agent", [None, {"healing": None}, {"healing": ...}, {"members": ...}, {}])
def test_a_status_need_not_speak_of_healing(agent: dict[str, Any] | None) -> None:
    told = STATUS_EXAMPLE["agent"]
    content: dict[str, Any] = {**STATUS_EXAMPLE, "agent": None}
    if agent is not None:
        parts = {name: told[name] if part is ... else part for name, part in agent.items()}
        content["agent"] = {"scrub": told["scrub"], **parts}
    validator("Status").validate(content)


# Gauges


def gauges(agent: dict[str, Any] | None) -> dict[tuple[str, str], float]:
    now = Status(Identity("", "", (), 1, 0.0), 0.0, Counts(0, 0), Space(0, 0, 0), "", agent)
    return {
        (sample.name.removeprefix("tierce_"), sample.labels.get("state", "")): sample.value
        for family in StatusGauges(now).collect()
        for sample in family.samples
    }


def test_healing_and_members_are_gauges() -> None:
    healing = {
        **STATUS_EXAMPLE["agent"]["healing"], "below_target": 4, "at_target": 320,
        "over_target": 6, "bytes_to_move": 40960, "estimated_seconds": 0.4,
        "last_pass": "1970-01-02T00:00:00Z",
    }  # fmt: skip
    members = [{"state": "alive"}, {"state": "alive"}, {"state": "down"}]
    expected = {
        ("heal_blobs", "below_target"): 4, ("heal_blobs", "at_target"): 320,
        ("heal_blobs", "over_target"): 6, ("heal_bytes_to_move", ""): 40960,
        ("heal_estimated_seconds", ""): 0.4, ("heal_last_pass_timestamp_seconds", ""): 86400,
        ("members", "alive"): 2, ("members", "suspect"): 0, ("members", "down"): 1,
    }  # fmt: skip
    found = gauges({"healing": healing, "members": members})
    assert expected.items() <= found.items()


def test_the_cost_of_the_scrub_of_a_store_is_a_gauge() -> None:
    month = {"list_requests": 420, "look_requests": 2, "read_requests": 3, "read_bytes": 4000}
    now = Status(
        Identity("", "", (), 1, 0.0), 0.0, Counts(0, 0), Space(0, 0, 0), "",
        {"store": {"scrub_month": month}},
    )  # fmt: skip
    samples = [each for family in StatusGauges(now).collect() for each in family.samples]
    found = {each.labels.get("kind", ""): each.value for each in samples if "_month_" in each.name}
    assert found == {"list": 420, "look": 2, "read": 3, "": 4000}


@pytest.mark.parametrize("agent", [None, {}, {"healing": None, "members": []}])
def test_what_is_not_known_is_no_gauge_rather_than_a_false_one(
    agent: dict[str, Any] | None,
) -> None:
    assert not [name for name, _ in gauges(agent) if name.startswith(("heal_", "members"))]


def test_before_the_first_pass_its_time_is_no_gauge() -> None:
    healing = {**STATUS_EXAMPLE["agent"]["healing"], "last_pass": None, "estimated_seconds": None}
    found = gauges({"healing": healing})
    assert ("heal_bytes_to_move", "") in found
    assert ("heal_last_pass_timestamp_seconds", "") not in found
    assert ("heal_estimated_seconds", "") not in found
