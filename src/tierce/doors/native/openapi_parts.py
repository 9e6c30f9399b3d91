"""The parts that the OpenAPI document is made of: schemas, headers, parameters, and error answers.

Whatever the code holds in a table is taken from there: statuses and types of problems from
errors.py, digest patterns from the algorithms, limits from core/limits.py. So the document can't
say otherwise than the code does.
"""

import re
from collections.abc import Iterable
from typing import Any

from tierce.core import errors
from tierce.core.digest import ALGORITHMS, DEFAULT_ALGORITHM, Digest
from tierce.core.errors import TierceError
from tierce.core.limits import HEADER_LINE_BYTES, HEADERS_COUNT
from tierce.doors.native.errors import NAMES, OUR_MISTAKE, STATUS
from tierce.doors.native.render import PROBLEM_BASE
from tierce.doors.shared import digest_fields
from tierce.doors.shared.connection import HeadersTooLarge
from tierce.doors.shared.errors import RETRY_AFTER_SECONDS
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.router import MethodNotAllowed

Json = dict[str, Any]

EXAMPLE = Digest.of(b"hello\n", DEFAULT_ALGORITHM)
EXAMPLE_BYTES = len(b"hello\n")

_NAMED = "|".join(
    f"{algorithm.name}:[0-9a-f]{{{2 * algorithm.size_bytes}}}" for algorithm in ALGORITHMS.values()
)

# What the node may answer to any request, before it is known what the request is for.
_ALWAYS: tuple[type[TierceError], ...] = (errors.BadRequest, HeadersTooLarge)


def ref(section: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


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
    "forbidden": "the token reader has no right to write",
    "unavailable": "3 copies are asked for, and this node is not in a cluster",
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


def _object(description: str, properties: Json, required: Iterable[str] | None = None) -> Json:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties if required is None else required),
    }


def _count(description: str) -> Json:
    return {"type": "integer", "minimum": 0, "description": description}


def _text(description: str, **more: object) -> Json:
    return {"type": "string", "description": description, **more}


_SCRUB = _object(
    "How the verification of stored blobs goes, since the agent started.",
    {
        "checked_blobs": _count("Blobs verified."),
        "bad_blobs": _count("Blobs that were found bad, and set aside."),
        "passes": _count("Times that all blobs were gone through."),
        "last_pass": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "End of the last full pass, in UTC; null before the first.",
        },
    },
)

SCHEMAS: Json = {
    "Digest": _text(
        "Algorithm, colon, and the digest in lower-case hex.",
        pattern=f"^({_NAMED})$",
        examples=[str(EXAMPLE), str(Digest.of(b"hello\n", "sha256"))],
    ),
    "Stored": _object(
        "A blob that is safely on disk.",
        {"digest": ref("schemas", "Digest"), "size": _count("Size in bytes.")},
    ),
    "Listing": _object(
        "A page of blobs, in the order of their digests.",
        {
            "blobs": {"type": "array", "items": ref("schemas", "Stored")},
            "next": {
                "description": "Send this as `after` for the next page; null on the last one.",
                "anyOf": [ref("schemas", "Digest"), {"type": "null"}],
            },
        },
    ),
    "Status": _object(
        "The state of the node.",
        {
            "node_id": _text("Id of the node."),
            "version": _text("Version of Tierce."),
            "uptime_seconds": {
                "type": "number", "minimum": 0, "description": "Time since the start, in seconds.",
            },
            "listen": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Where the node answers, as `DOOR=HOST:PORT`.",
            },
            "workers": {"type": "integer", "minimum": 1, "description": "Worker processes."},
            "writable": {"type": "boolean", "description": "Whether new blobs are taken now."},
            "read_only_reason": {
                "type": ["string", "null"], "description": "Why they are not, or null.",
            },
            "blobs": _count("Number of blobs on this node."),
            "blob_bytes": _count("Their size together, in bytes."),
            "disk": _object(
                "The disk that holds the data, in bytes.",
                {
                    "total_bytes": _count("Size of the disk."),
                    "free_bytes": _count("Room on it."),
                    "reserve_bytes": _count("Room that the node keeps free."),
                },
            ),
            "agent": {
                "description": "What the background process says; null while it is down.",
                "anyOf": [_object("Its account.", {"scrub": _SCRUB}), {"type": "null"}],
            },
        },
    ),
    "Live": _object("The process answers.", {"live": {"const": True}}),
    "Ready": _object(
        "The node serves blobs.",
        {
            "ready": {"const": True},
            "writable": {"type": "boolean", "description": "Whether new blobs are taken now."},
        },
    ),
    "Welcome": _object(
        "What this is.",
        {
            "name": {"const": "tierce"},
            "version": _text("Version of Tierce."),
            "openapi": _text("Where this document is.", format="uri-reference"),
        },
    ),
    "Problem": _object(
        "Problem details (RFC 9457). Programs go by `type`, which never changes; "
        "`detail` and `hint` are for people.",
        {
            "type": _text(
                "Stable name of the kind of problem.",
                enum=[PROBLEM_BASE + name for name in (*NAMES.values(), OUR_MISTAKE)],
            ),
            "title": _text("The same in words."),
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": _text("What happened."),
            "hint": _text("What to do about it; may be empty."),
        },
    ),
}  # fmt: skip


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
_TAG = {"type": "string", "pattern": f'^"({_NAMED})"$', "examples": [f'"{EXAMPLE}"']}

HEADERS: Json = {
    "Accept-Ranges": _header("Ranges of bytes can be asked for.", {"const": "bytes"}),
    "Allow": _header("The methods of this path.", {"type": "string", "examples": ["GET, HEAD"]}),
    "Cache-Control": _header(
        "Blobs may be kept for ever, as they never change; everything else not at all.",
        {"enum": ["max-age=31536000, immutable", "no-store"]},
    ),
    "Content-Digest": _header("The digest of the body (RFC 9530).", _FIELD),
    "Content-Length": _header("Size of the blob, in bytes.", {"type": "integer", "minimum": 0}),
    "Content-Range": _header(
        "The bytes that are sent, or with 416 the size there is. Answers of several ranges have it "
        "in each part instead.",
        {"type": "string", "pattern": r"^bytes ([0-9]+-[0-9]+|\*)/[0-9]+$"},
        required=False,
    ),
    "ETag": _header("The digest in quotes: a strong tag, which never changes.", _TAG),
    "Location": _header(
        "Path of the blob.",
        {"type": "string", "pattern": f"^/v1/blobs/({_NAMED})$"},
    ),
    "Repr-Digest": _header("The digest of the whole blob (RFC 9530).", _FIELD),
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
    "Digest": _parameter(
        "path",
        "digest",
        "The name of the blob. The colon may be percent-encoded.",
        ref("schemas", "Digest"),
        str(EXAMPLE),
    ),
    "If-Match": _parameter(
        "header",
        "If-Match",
        "Go on only if the blob is here under one of these tags; `*` stands for any. Else 412.",
        {"type": "string"},
        f'"{EXAMPLE}"',
    ),
    "If-None-Match": _parameter(
        "header",
        "If-None-Match",
        "Go on only if the blob is not here under any of these tags; `*` stands for any. "
        "Else 304 to GET and HEAD, 412 to PUT.",
        {"type": "string"},
        f'"{EXAMPLE}"',
    ),
    "If-Range": _parameter(
        "header",
        "If-Range",
        "Send the range only if the blob has this tag, and the whole blob otherwise.",
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
