"""The operations of the OpenAPI document that are about the cluster, its nodes and their stores."""

from tierce.core import errors
from tierce.doors.native.openapi_parts import (
    GUARDED,
    JSON_HEADERS,
    answer,
    json_content,
    operation,
    problems,
)
from tierce.doors.native.openapi_schemas import EXAMPLE_NODE, OVERVIEW_EXAMPLE, Json, ref

_ASKED = (*GUARDED, errors.Unavailable)
_ORDERED = (*_ASKED, errors.NotFound, errors.Conflict)


def cluster_paths() -> Json:
    """Paths and their operations."""
    node = {"parameters": [ref("parameters", "NodeId")]}
    return {
        "/v1/cluster": {"get": _get_cluster()},
        "/v1/cluster/nodes/{node_id}/drain": {
            **node,
            "post": _drain_node(),
            "delete": _use_node_again(),
        },
        "/v1/cluster/nodes/{node_id}/forget": {**node, "post": _forget_node()},
        "/v1/store/compare": {"post": _compare_store()},
    }


def _get_cluster() -> Json:
    content = json_content(ref("schemas", "Overview"), OVERVIEW_EXAMPLE)
    return operation(
        "cluster",
        "getCluster",
        "How the cluster is",
        "Needs the right `read`. Any node may be asked. A node on its own is a cluster of one.",
        {"200": answer("The cluster.", JSON_HEADERS, content), **problems(*_ASKED)},
    )


def _drain_node() -> Json:
    return operation(
        "cluster",
        "drainNode",
        "Empty a node before it leaves",
        "Needs the right `admin`. The node takes no new blobs, and its blobs are copied to others. "
        "That takes its time: it is done when `/v1/cluster` says `drained` of it. May be repeated.",
        {
            "202": answer("It is being emptied.", JSON_HEADERS, _draining(begun=True)),
            **problems(*_ORDERED),
        },
    )


def _use_node_again() -> Json:
    return operation(
        "cluster",
        "useNodeAgain",
        "Call the emptying of a node off",
        "Needs the right `admin`. The node takes blobs again. May be repeated.",
        {
            "200": answer("It is in use.", JSON_HEADERS, _draining(begun=False)),
            **problems(*_ORDERED),
        },
    )


def _forget_node() -> Json:
    return operation(
        "cluster",
        "forgetNode",
        "Strike a node that will not come back",
        "Needs the right `admin`. Its blobs are copied from other nodes at once. Only a node that "
        "is down can be forgotten.",
        {"204": answer("It is no member any more."), **problems(*_ORDERED)},
    )


def _compare_store() -> Json:
    content = json_content(ref("schemas", "Comparison"), {"comparison": 2})
    return operation(
        "cluster",
        "compareStore",
        "Compare the node's store in the cloud with its catalogue now",
        "Needs the right `admin`. That is done in the background, by the node that is asked: when "
        "`comparisons` of `agent.store` in `/v1/status` is at the number of the answer, it was.",
        {
            "202": answer("It begins.", JSON_HEADERS, content),
            **problems(*_ASKED, errors.Conflict),
        },
    )


def _draining(*, begun: bool) -> Json:
    return json_content(ref("schemas", "Draining"), {"node_id": EXAMPLE_NODE, "draining": begun})
