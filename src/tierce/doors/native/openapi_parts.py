"""The parts that operations of the OpenAPI document are made of: headers, parameters, error answers.

Whatever the code holds in a table is taken from there: statuses and types of problems from
errors.py, digest patterns from the algorithms, limits from core/limits.py. So the document can't
say otherwise than the code does. What JSON bodies look like is in openapi_schemas.py.
"""

import re
from collections.abc import Iterable

from tierce.core import errors
from tierce.core.digest import ALGORITHMS, Digest
from tierce.core.errors import TierceError
from tierce.core.kinds import NODE_ID_LIMIT_CHARACTERS
from tierce.core.limits import HEADER_LINE_BYTES, HEADERS_COUNT, OBJECT_KEY_BYTES
from tierce.doors.native.errors import NAMES, OUR_MISTAKE, STATUS
from tierce.doors.native.object_render import SANDBOX
from tierce.doors.native.openapi_schemas import (
    DIGEST_PATTERN,
    EXAMPLE,
    EXAMPLE_BYTES,
    EXAMPLE_NODE,
    Json,
    ref,
)
from tierce.doors.native.render import BLOB_TYPE, PROBLEM_BASE
from tierce.doors.shared import digest_fields
from tierce.doors.shared.bodies import UnsupportedEncoding
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.errors import RETRY_AFTER_SECONDS
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed

BLOB_CONTENT: Json = {BLOB_TYPE: {"schema": {"type": "string", "format": "binary"}}}
JSON_HEADERS = ("Cache-Control", "X-Content-Type-Options")
# The errors of every operation that may ask for a token, of those that look at the disk, and of those
# that take bytes.
GUARDED = (errors.Unauthenticated, errors.Forbidden)
STORAGE = (errors.Unavailable, errors.Corrupt)
UPLOAD = (
    *GUARDED, *STORAGE, errors.TooLarge, errors.DigestMismatch, errors.TooSlow, errors.ReadOnly,
    errors.Full, UnsupportedEncoding,
)  # fmt: skip

# What the node may answer to any request, before it is known what the request is for.
_ALWAYS: tuple[type[TierceError], ...] = (
    errors.BadRequest,
    errors.TooManyRequests,
    HeadersTooLarge,
)


def json_content(schema: Json, example: object) -> Json:
    """A JSON body."""
    return {"application/json": {"schema": schema, "example": example}}


def answer(description: str, headers: Iterable[str] = (), content: Json | None = None) -> Json:
    """A response with headers from the components, named by their names in HTTP."""
    response: Json = {"description": description}
    named = {name: ref("headers", name) for name in headers}
    if named:
        response["headers"] = named
    if content is not None:
        response["content"] = content
    return response


def headers_asked(*names: str) -> tuple[Json, ...]:
    """Parameters from the components, named by their names in HTTP."""
    return tuple(ref("parameters", name) for name in names)


def operation(
    tag: str,
    name: str,
    summary: str,
    description: str,
    responses: Json,
    *,
    parameters: tuple[Json, ...] = (),
    upload: bool = False,
    public: bool = False,
) -> Json:
    """An operation. A ``public`` one never asks for a token; an empty choice makes it optional."""
    made: Json = {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "description": description,
        "security": [] if public else [{"bearer": []}, {}],
        "responses": responses,
    }
    if parameters:
        made["parameters"] = list(parameters)
    if upload:
        made["requestBody"] = {
            "description": "The bytes, with a Content-Length or chunked.",
            "required": False,
            "content": BLOB_CONTENT,
        }
    return made


def problems(*kinds: type[TierceError], body: bool = True) -> Json:
    """The error answers of an operation, by status: those of ``kinds``, and those of any request."""
    by_status: dict[int, list[str]] = {500: [OUR_MISTAKE]}
    headers: dict[int, list[str]] = {}
    for kind in (*_ALWAYS, *kinds):
        status = STATUS[kind]
        by_status.setdefault(status, []).append(NAMES[kind])
        headers.setdefault(status, []).extend(_ERROR_HEADERS.get(kind, ()))
    return {
        str(status): _problem(status, names, headers.get(status, []), body=body)
        for status, names in sorted(by_status.items())
    }


def _problem(status: int, names: list[str], headers: list[str], *, body: bool) -> Json:
    types = [PROBLEM_BASE + name for name in names]
    schema = {
        "allOf": [
            ref("schemas", "Problem"),
            {"properties": {"type": {"enum": types}, "status": {"const": status}}},
        ]
    }
    example = {
        "type": types[0],
        "title": names[0].replace("-", " ").capitalize(),
        "status": status,
        "detail": _DETAILS[names[0]],
        "hint": "What to do about it, in a sentence.",
    }
    text = " or ".join(f"`{name}`" for name in names)
    content = {"application/problem+json": {"schema": schema, "example": example}}
    return answer(
        f"A problem of type {text}.",
        [*headers, "Cache-Control", "X-Content-Type-Options"],
        content if body else None,
    )


_ERROR_HEADERS: dict[type[TierceError], tuple[str, ...]] = {
    errors.Unauthenticated: ("WWW-Authenticate",),
    errors.Unavailable: ("Retry-After",),
    errors.TooManyRequests: ("Retry-After",),
    MethodNotAllowed: ("Allow",),
    UnsatisfiableRange: ("Content-Range",),
}

_DETAILS = {
    "not-found": f"{EXAMPLE} is not here",
    "bad-request": "'sha256:xyz' is not a sha256 digest",
    "too-large": "the body is larger than 5368709120 bytes",
    "digest-mismatch": f"the body's digest is {EXAMPLE}, not the one announced",
    "too-slow": "less than 1024 bytes per second came in over 20 seconds",
    "unauthenticated": "this needs a token with the right to write",
    "conflict": f"the node {EXAMPLE_NODE} is not down",
    "forbidden": "the token reader has no right to write",
    "unavailable": "3 copies are asked for, and 2 nodes take new blobs now",
    "too-many-requests": "this address sent more than the 100 requests a second that are allowed",
    "read-only": "this node is read-only",
    "corrupt": "the index is damaged",
    "full": "1000 bytes are free, 4096 would come in, and 1073741824 are kept in reserve",
    "no-such-path": "'/v2' is not a path of this door",
    "method-not-allowed": "the method 'PATCH' is not allowed here",
    "headers-too-large": "Too many headers received",
    "precondition-failed": "the precondition in the request's headers does not hold",
    "unsatisfiable-range": f"the range asked for lies outside of the {EXAMPLE_BYTES} bytes",
    "unsupported-encoding": "the Content-Encoding 'gzip' is not taken",
    OUR_MISTAKE: "the node failed to answer",
}


def _header(description: str, schema: Json, *, required: bool = True) -> Json:
    return {"description": description, "required": required, "schema": schema}


# A digest of each algorithm in base64, to see how long it is and how it is padded.
_FIELD_MEMBERS = "|".join(
    re.sub(r":(\w+)", lambda encoded: f":[A-Za-z0-9+/]{{{len(encoded[1])}}}", rendered)
    for rendered in (
        digest_fields.render(Digest(each.name, bytes(each.size_bytes)))
        for each in ALGORITHMS.values()
    )
)
_FIELD = {
    "type": "string",
    "pattern": f"^({_FIELD_MEMBERS})(, ({_FIELD_MEMBERS}))*$",
    "examples": [digest_fields.render(EXAMPLE)],
}
_TAG = {"type": "string", "pattern": f'^"({DIGEST_PATTERN})"$', "examples": [f'"{EXAMPLE}"']}

_DATE_PATTERN = "^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$"
_DATE_EXAMPLE = "Thu, 01 Jan 2026 00:00:00 GMT"

HEADERS: Json = {
    "Accept-Ranges": _header("Ranges of bytes can be asked for.", {"const": "bytes"}),
    "Allow": _header("The methods of this path.", {"type": "string", "examples": ["GET, HEAD"]}),
    "Cache-Control": _header(
        "Blobs may be kept for ever, as they never change; objects may be kept, but the node must be "
        "asked whether they changed; everything else may not be kept at all.",
        {"enum": ["max-age=31536000, immutable", "no-cache", "no-store"]},
    ),
    "Content-Digest": _header("The digest of the body (RFC 9530).", _FIELD),
    "Content-Security-Policy": _header(
        "What a browser is shown of an object must run no scripts.", {"const": SANDBOX}
    ),
    "Content-Length": _header(
        "Size of the blob or object, in bytes.", {"type": "integer", "minimum": 0}
    ),
    "Content-Range": _header(
        "The bytes that are sent, or with 416 the size there is. Answers of several ranges have it "
        "in each part instead.",
        {"type": "string", "pattern": r"^bytes ([0-9]+-[0-9]+|\*)/[0-9]+$"},
        required=False,
    ),
    "ETag": _header("The digest of the content in quotes: a strong tag.", _TAG),
    "Last-Modified": _header(
        "When the object was written, to the second. Tags tell more.",
        {"type": "string", "pattern": _DATE_PATTERN},
    ),
    "Location": _header(
        "Path of the blob, or of the object.",
        {
            "type": "string",
            "pattern": f"^/v1/(blobs/({DIGEST_PATTERN})|buckets/[a-z0-9.-]+/objects/[!-~]+)$",
        },
    ),
    "Repr-Digest": _header("The digest of the whole blob or object (RFC 9530).", _FIELD),
    "Retry-After": _header(
        "Wait for so many seconds before asking again.",
        {"type": "integer", "minimum": RETRY_AFTER_SECONDS},
    ),
    "WWW-Authenticate": _header("Asks for a bearer token.", {"const": 'Bearer realm="tierce"'}),
    "X-Content-Type-Options": _header("Browsers shall not guess a type.", {"const": "nosniff"}),
}


def _parameter(where: str, name: str, description: str, schema: Json, example: object) -> Json:
    return {
        "name": name, "in": where, "description": description, "required": where == "path",
        "schema": schema, "example": example,
    }  # fmt: skip


PARAMETERS: Json = {
    "NodeId": _parameter(
        "path",
        "node_id",
        "The id of a node of the cluster, percent-encoded.",
        {"type": "string", "minLength": 1, "maxLength": NODE_ID_LIMIT_CHARACTERS},
        EXAMPLE_NODE,
    ),
    "Digest": _parameter(
        "path",
        "digest",
        "The name of the blob. The colon may be percent-encoded.",
        ref("schemas", "Digest"),
        str(EXAMPLE),
    ),
    "Bucket": _parameter(
        "path",
        "bucket",
        "The bucket: 3 to 63 small letters, digits, dashes and single dots.",
        {
            "type": "string",
            "minLength": 3,
            "maxLength": 63,
            "pattern": r"^[a-z0-9](\.?[a-z0-9-])*\.?[a-z0-9]$",
        },
        "photos",
    ),
    "Key": _parameter(
        "path",
        "key",
        f"The name of the object: 1 to {OBJECT_KEY_BYTES} bytes of UTF-8, percent-encoded once, "
        "without a zero byte. Slashes may stand as they are.",
        {
            "type": "string",
            "minLength": 1,
            "maxLength": OBJECT_KEY_BYTES,
            "pattern": r"^[^\x00]+$",
        },
        "2026/summer/beach.jpg",
    ),
    "If-Match": _parameter(
        "header",
        "If-Match",
        "Go on only if what is here has one of these tags; `*` stands for any. Else 412.",
        {"type": "string"},
        f'"{EXAMPLE}"',
    ),
    "If-None-Match": _parameter(
        "header",
        "If-None-Match",
        "Go on only if what is here has none of these tags; `*` stands for any. "
        "Else 304 to GET and HEAD, 412 to others.",
        {"type": "string"},
        f'"{EXAMPLE}"',
    ),
    "If-Modified-Since": _parameter(
        "header",
        "If-Modified-Since",
        "Without If-None-Match: go on only if the object is newer. Else 304. What is no date is "
        "ignored.",
        {"type": "string"},
        _DATE_EXAMPLE,
    ),
    "If-Unmodified-Since": _parameter(
        "header",
        "If-Unmodified-Since",
        "Without If-Match: go on only if the object, if there is one, is no newer. Else 412. What is "
        "no date is ignored.",
        {"type": "string"},
        _DATE_EXAMPLE,
    ),
    "If-Range": _parameter(
        "header",
        "If-Range",
        "Send the range only if this is the tag of what is here, and the whole otherwise.",
        {"type": "string"},
        f'"{EXAMPLE}"',
    ),
    "Range": _parameter(
        "header",
        "Range",
        "The bytes to send, in one or several ranges. What is no valid list of ranges is ignored.",
        {"type": "string"},
        "bytes=0-99,-100",
    ),
    "Content-Digest": _parameter(
        "header",
        "Content-Digest",
        "Digests of the body (RFC 9530), which are checked. Members of other algorithms are "
        "ignored.",
        _FIELD,
        digest_fields.render(EXAMPLE),
    ),
    "Repr-Digest": _parameter(
        "header",
        "Repr-Digest",
        "The same as Content-Digest, as bodies are never encoded.",
        _FIELD,
        digest_fields.render(EXAMPLE),
    ),
    "Content-Encoding": _parameter(
        "header",
        "Content-Encoding",
        "Bodies are stored as they are sent, so no encoding is taken. Else 415.",
        {"enum": ["identity", ""]},
        "identity",
    ),
}

EVERY_PATH = {
    "NoSuchPath": _problem(404, ["no-such-path"], [], body=True),
    "MethodNotAllowed": _problem(405, ["method-not-allowed"], ["Allow"], body=True),
}
LIMITS_TEXT = f"{HEADERS_COUNT} headers of at most {HEADER_LINE_BYTES} bytes each"
