"""Requests made up from the OpenAPI document, valid and not, and answers held against it.

Half of the requests for a blob or an object are turned to one that is here, and half of the uploads of
blobs to the digest of their body, so that success is tried as often as refusal.
"""

import re
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)
from tests.doors.native.node import DOCUMENT, Node

from tierce.core.digest import Digest

DATA = b"what the made-up requests find"
DIGEST = Digest.of(DATA)
BUCKET, KEY = "made-up", "a key/with a slash"

FIELD_PATTERNS = {
    name: DOCUMENT["components"]["parameters"][name]["schema"]["pattern"]
    for name in ("Content-Digest", "Repr-Digest")
}

CHECKS = [
    allow_header_conformance,
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    not_a_server_error,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
]

config = schemathesis.Config.from_dict(
    {
        "generation": {"deterministic": True},
        # A right request may still fail for its digests, its conditions, its range or its position,
        # or for a text whose characters have more than a byte.
        "checks": {
            "positive_data_acceptance": {
                "expected-statuses": [
                    "2xx",
                    "3xx",
                    "404",
                    "409",
                    "412",
                    "413",
                    "416",
                    "422",
                    "431",
                ]
            },
            "negative_data_rejection": {
                "expected-statuses": [
                    "400",
                    "404",
                    "405",
                    "409",
                    "412",
                    "413",
                    "415",
                    "431",
                ]
            },
        },
    }
)
schema = schemathesis.openapi.from_dict(DOCUMENT, config=config)


@schema.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    # How long it takes to make requests up says more about the machine than about the node.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_answers_are_as_the_document_says(node: Node, case: Any) -> None:
    node.put(DATA)
    assert node.put_object(BUCKET, KEY, DATA).status in (200, 201)
    aim(case)
    left_out = (
        [negative_data_rejection, positive_data_acceptance] if has_other_digests(case) else []
    )
    case.call_and_validate(
        base_url=f"http://{node.address}", checks=CHECKS, excluded_checks=left_out
    )


def has_other_digests(case: Any) -> bool:
    """Whether a digest field is not as documented, so that it may be refused or be passed over.

    It is passed over if it is of an algorithm that the node doesn't know. Schemathesis makes such
    fields also where it means to make right ones.
    """
    return any(
        name in (case.headers or {}) and not re.search(pattern, str(case.headers[name]))
        for name, pattern in FIELD_PATTERNS.items()
    )


def aim(case: Any) -> None:
    """Turn half of the valid names to what is here, or of the digests to the body that is sent."""
    parameters = case.path_parameters or {}
    key = parameters.get("key")
    if isinstance(key, str) and isinstance(parameters.get("bucket"), str) and len(key) % 2:
        case.path_parameters["bucket"] = BUCKET
        case.path_parameters["key"] = KEY
    digest = parameters.get("digest")
    if not isinstance(digest, str) or digest[-1:] not in tuple("02468ace"):
        return
    if case.method == "PUT" and isinstance(case.body, bytes):
        case.path_parameters["digest"] = str(Digest.of(case.body))
    elif case.method != "PUT":
        case.path_parameters["digest"] = str(DIGEST)
