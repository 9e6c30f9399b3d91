"""The OpenAPI document is true to the code: routes, statuses, error types, and its own examples."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.doors.native.node import Node

from tierce import __version__
from tierce.core import errors
from tierce.core.errors import TierceError
from tierce.doors.native.errors import NAMES, OUR_MISTAKE, STATUS
from tierce.doors.native.openapi import document
from tierce.doors.native.openapi_schemas import EXAMPLE
from tierce.doors.native.render import PROBLEM_BASE
from tierce.doors.native.routes import NativeDoor
from tierce.doors.shared.answers import REASONS
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.sending import PreconditionFailed

DOCUMENT = document(__version__)
METHODS = {"get", "head", "put", "post", "delete", "options", "patch", "trace"}

ANY: set[type[TierceError]] = {errors.BadRequest, errors.TooManyRequests, HeadersTooLarge}
GUARDED = ANY | {errors.Unauthenticated, errors.Forbidden, errors.Unavailable, errors.Corrupt}
UPLOAD = GUARDED | {
    errors.TooLarge, errors.DigestMismatch, errors.TooSlow, errors.ReadOnly, errors.Full,
    UnsupportedEncoding,
}  # fmt: skip
ASKED = GUARDED - {errors.Corrupt}
ORDERED = ASKED | {errors.NotFound, errors.Conflict}
BLOB = "/v1/blobs/{digest}"
MEMBER = "/v1/cluster/nodes/{node_id}"
OBJECT = "/v1/buckets/{bucket}/objects/{key}"
NAMED = GUARDED | {errors.TooLarge}

# What each route can give: the statuses of success, and the errors that its handler can raise.
CAN_GIVE: dict[tuple[str, str], tuple[set[int], set[type[TierceError]]]] = {
    ("GET", BLOB): (
        {200, 206, 304},
        GUARDED | {errors.NotFound, PreconditionFailed, UnsatisfiableRange},
    ),
    ("HEAD", BLOB): ({200, 304}, GUARDED | {errors.NotFound, PreconditionFailed}),
    ("PUT", BLOB): ({200, 201}, UPLOAD | {PreconditionFailed}),
    ("DELETE", BLOB): ({204}, GUARDED | {errors.NotFound, errors.Conflict, errors.Full}),
    ("POST", "/v1/blobs"): ({201}, UPLOAD),
    ("GET", "/v1/blobs"): ({200}, GUARDED),
    ("GET", OBJECT): (
        {200, 206, 304},
        NAMED | {errors.NotFound, PreconditionFailed, UnsatisfiableRange},
    ),
    ("HEAD", OBJECT): ({200, 304}, NAMED | {errors.NotFound, PreconditionFailed}),
    ("PUT", OBJECT): ({200, 201}, UPLOAD | {PreconditionFailed}),
    ("DELETE", OBJECT): ({204}, NAMED | {errors.NotFound, errors.Full, PreconditionFailed}),
    ("GET", "/v1/buckets/{bucket}/objects"): ({200}, NAMED),
    ("GET", "/v1/buckets"): ({200}, GUARDED),
    ("GET", "/v1/changes"): ({200}, GUARDED | {errors.Conflict}),
    ("GET", "/v1/cluster"): ({200}, ASKED),
    ("POST", f"{MEMBER}/drain"): ({202}, ORDERED),
    ("DELETE", f"{MEMBER}/drain"): ({200}, ORDERED),
    ("POST", f"{MEMBER}/forget"): ({204}, ORDERED),
    ("POST", "/v1/store/compare"): ({202}, ASKED | {errors.Conflict}),
    ("GET", "/v1/status"): ({200}, GUARDED),
    ("GET", "/v1/health/live"): ({200}, ANY),
    ("GET", "/v1/health/ready"): ({200}, ANY),
    ("GET", "/v1/openapi.json"): ({200}, ANY),
    ("GET", "/metrics"): ({200}, GUARDED),
    ("GET", "/"): ({200}, ANY),
}
# These never come from an operation: the document has them among its components.
OF_NO_ROUTE = {"no-such-path": "NoSuchPath", "method-not-allowed": "MethodNotAllowed"}
# The native door never answers with the bare class, only with those derived from it.
ABSTRACT = {errors.Refused}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def strings(content: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)


def subclasses(kind: type[TierceError]) -> set[type[TierceError]]:
    found = set(kind.__subclasses__())
    return found.union(*map(subclasses, found))


def test_routes_and_document_are_the_same() -> None:
    unused: Any = None
    routes = NativeDoor(unused, unused, unused, unused, unused).routes()
    # That a part of a path may have slashes in it is nothing that OpenAPI could say.
    found = {(route.method, route.path.replace("*}", "}")) for route in routes}
    assert found == set(operations())


@pytest.mark.parametrize("route", CAN_GIVE, ids=" ".join)
def test_each_status_that_a_route_can_give_is_declared(route: tuple[str, str]) -> None:
    success, kinds = CAN_GIVE[route]
    expected = success | {STATUS[kind] for kind in kinds} | {500}
    assert set(operations()[route]["responses"]) == {str(status) for status in expected}


def test_each_kind_of_error_is_declared_somewhere() -> None:
    given = set().union(*(kinds for _, kinds in CAN_GIVE.values()))
    assert {kind for kind in STATUS if NAMES[kind] not in OF_NO_ROUTE} == given | ABSTRACT
    for component in OF_NO_ROUTE.values():
        assert component in DOCUMENT["components"]["responses"]


def test_each_problem_type_is_in_the_enum() -> None:
    declared = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert declared == [PROBLEM_BASE + name for name in [*NAMES.values(), OUR_MISTAKE]]
    assert len(set(declared)) == len(declared)


def test_the_error_table_covers_every_kind_of_error_a_door_can_meet() -> None:
    ours = {kind for kind in subclasses(TierceError) if not is_of_another_door(kind)}
    assert set(STATUS) == set(NAMES)
    # A kind of our own that is missing would be answered as its parent: allowed only on purpose.
    assert ours - set(STATUS) == set()


def is_of_another_door(kind: type[TierceError]) -> bool:
    package = kind.__module__.split(".")
    return package[:2] != ["tierce", "core"] and package[:3] not in (
        ["tierce", "doors", "native"], ["tierce", "doors", "shared"], ["tierce", "service"],
        ["tierce", "blobs"],
    )  # fmt: skip


def test_every_declared_status_has_a_reason_phrase() -> None:
    declared = {int(status) for each in operations().values() for status in each["responses"]}
    assert declared <= set(REASONS)
    assert set(STATUS.values()) <= set(REASONS)


def test_references_lead_somewhere() -> None:
    references = [value for key, value in strings(DOCUMENT) if key == "$ref"]
    assert references
    for reference in references:
        assert isinstance(reference, str)
        _, components, section, name = reference.split("/")
        assert name in DOCUMENT[components][section]


def test_nothing_is_declared_that_is_not_used() -> None:
    used = {value for key, value in strings(DOCUMENT) if key == "$ref"}
    for section in ("schemas", "headers", "parameters"):
        for name in DOCUMENT["components"][section]:
            assert f"#/components/{section}/{name}" in used


def test_the_digest_pattern_takes_digests_of_each_algorithm_and_nothing_else() -> None:
    pattern = DOCUMENT["components"]["schemas"]["Digest"]["pattern"]
    for algorithm, digits in (("blake3", 64), ("sha1", 40), ("sha256", 64), ("sha512", 128)):
        assert re.search(pattern, f"{algorithm}:{'a' * digits}")
        assert not re.search(pattern, f"{algorithm}:{'a' * (digits - 1)}")
        assert not re.search(pattern, f"{algorithm}:{'A' * digits}")
    assert not re.search(pattern, f"x{EXAMPLE}")


def test_operations_have_names_and_words_for_people() -> None:
    found = operations().values()
    assert len({each["operationId"] for each in found}) == len(found)
    for each in found:
        assert each["summary"]
        assert each["description"]
        assert all(response["description"] for response in each["responses"].values())


def test_the_node_serves_the_document(node: Node) -> None:
    assert json.loads(node.call("GET", "/v1/openapi.json").body) == DOCUMENT
