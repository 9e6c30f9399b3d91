"""The OpenAPI 3.1 document of the native door, as it is served at ``/v1/openapi.json``.

A test holds it against the routes, both ways, and the tests of the door hold every answer they get
against it. What the operations are made of is in openapi_parts.py, those of named objects are in
openapi_objects.py, and the cluster's in openapi_cluster.py.
"""

from typing import Any

from tierce.core import errors
from tierce.core.digest import ALGORITHMS, DEFAULT_ALGORITHM
from tierce.core.limits import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from tierce.doors.native.openapi_cluster import cluster_paths
from tierce.doors.native.openapi_objects import OBJECT_SCHEMAS, object_paths
from tierce.doors.native.openapi_parts import (
    BLOB_CONTENT,
    EVERY_PATH,
    GUARDED,
    HEADERS,
    JSON_HEADERS,
    LIMITS_TEXT,
    PARAMETERS,
    STORAGE,
    UPLOAD,
    answer,
    headers_asked,
    json_content,
    operation,
    problems,
)
from tierce.doors.native.openapi_schemas import (
    EXAMPLE,
    EXAMPLE_BYTES,
    SCHEMAS,
    STATUS_EXAMPLE,
    Json,
    ref,
)
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.sending import PreconditionFailed

_DESCRIPTION = f"""\
Blobs are immutable bytes, named by their digest. Upload bytes, and get them back by name. Objects \
have names of your choice, in buckets; each is a record that names a blob.

* **Durable**: an upload is answered with success only once it is safely on disk, on as many nodes as \
the cluster keeps of each blob.
* **Any node** answers for the whole cluster: it fetches what it does not hold.
* **Verified**: bytes are checked against their digest before they are sent. A bad copy found midway \
breaks the connection off, so it can't pass for a complete answer.
* **Errors** are problem details (RFC 9457) with a stable `type` and a hint. A path that does not \
exist answers 404 (`no-such-path`), a method that a path does not have 405 with `Allow`. GET can \
be asked as HEAD everywhere.
* **Limits**: {LIMITS_TEXT}, the request line included.
* **Tokens**: where the operator has set tokens, send `Authorization: Bearer TOKEN`. Their rights \
are `read`, `write` and `admin`, and none includes another.
"""

_STORED_HEADERS = ("ETag", "Location", *JSON_HEADERS)
_PART_HEADERS = ("Accept-Ranges", "Cache-Control", "ETag", "Repr-Digest", "X-Content-Type-Options")
_BLOB_HEADERS = ("Content-Digest", *_PART_HEADERS)
_UNCHANGED_HEADERS = ("Cache-Control", "ETag", "Repr-Digest", "X-Content-Type-Options")

_STORED_EXAMPLE = {"digest": str(EXAMPLE), "size": EXAMPLE_BYTES}


def document(version: str) -> dict[str, Any]:
    """The document, for this version of the program."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tierce native API",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This node"}],
        "tags": [
            {"name": "blobs", "description": "Store, read, list and remove blobs."},
            {"name": "objects", "description": "Store, read, list and remove named objects."},
            {"name": "cluster", "description": "How the cluster is, and what nodes it has."},
            {"name": "node", "description": "How the node is."},
        ],
        "paths": {
            "/v1/blobs/{digest}": {
                "parameters": [ref("parameters", "Digest")],
                "get": _get_blob(),
                "head": _head_blob(),
                "put": _put_blob(),
                "delete": _delete_blob(),
            },
            "/v1/blobs": {"get": _list_blobs(), "post": _post_blob()},
            **object_paths(),
            **cluster_paths(),
            **_node_paths(),
        },
        "components": {
            "schemas": {**SCHEMAS, **OBJECT_SCHEMAS},
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "responses": EVERY_PATH,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that `tierce token new` made. Needed only where the "
                    "operator has set tokens, for what callers without one may not do.",
                }
            },
        },
    }


def _get_blob() -> Json:
    several: Json = {"multipart/byteranges": {"schema": {"type": "string", "format": "binary"}}}
    return operation(
        "blobs",
        "getBlob",
        "Read a blob, or parts of it",
        "Needs the right `read`. Takes ranges (RFC 9110): one comes as it is, several as "
        "multipart/byteranges, where those that touch or overlap are joined. 503 if the blob may be "
        "on nodes that can't be reached.",
        {
            "200": answer("The whole blob.", _BLOB_HEADERS, BLOB_CONTENT),
            "206": answer(
                "The ranges asked for.",
                ("Content-Range", *_PART_HEADERS),
                {**BLOB_CONTENT, **several},
            ),
            "304": answer("It is what If-None-Match names.", _UNCHANGED_HEADERS),
            **problems(*GUARDED, *STORAGE, errors.NotFound, PreconditionFailed, UnsatisfiableRange),
        },
        parameters=headers_asked("Range", "If-Range", "If-Match", "If-None-Match"),
    )


def _head_blob() -> Json:
    return operation(
        "blobs",
        "headBlob",
        "See whether a blob is here, and how large it is",
        "Needs the right `read`. Answers as GET would, without a body, and without reading the "
        "blob. Range is ignored. 503 if the blob may be on nodes that can't be reached.",
        {
            "200": answer("It is here.", ("Content-Length", *_BLOB_HEADERS)),
            "304": answer("It is what If-None-Match names.", _UNCHANGED_HEADERS),
            **problems(*GUARDED, *STORAGE, errors.NotFound, PreconditionFailed, body=False),
        },
        parameters=headers_asked("If-Match", "If-None-Match"),
    )


def _put_blob() -> Json:
    return operation(
        "blobs",
        "putBlob",
        "Store a blob whose digest is known",
        "Needs the right `write`. The body must have the digest in the path, and those in "
        "Content-Digest and Repr-Digest; else nothing is stored. Putting a blob again is harmless. "
        "A Content-Range is refused: a blob comes whole. 503 while too few nodes take new blobs.",
        {
            "200": answer("The cluster had it.", _STORED_HEADERS, _stored()),
            "201": answer("It is new, and on disk.", _STORED_HEADERS, _stored()),
            **problems(*UPLOAD, PreconditionFailed),
        },
        parameters=headers_asked(
            "If-Match", "If-None-Match", "Content-Digest", "Repr-Digest", "Content-Encoding"
        ),
        upload=True,
    )


def _post_blob() -> Json:
    algorithm = {
        "name": "algorithm",
        "in": "query",
        "required": False,
        "description": "The algorithm that the blob is to be named by.",
        "schema": {"type": "string", "enum": list(ALGORITHMS), "default": DEFAULT_ALGORITHM},
    }
    return operation(
        "blobs",
        "postBlob",
        "Store a blob whose digest is not known",
        "Needs the right `write`. The node works the digest out, and answers with it. 503 while too "
        "few nodes take new blobs.",
        {
            "201": answer("It is on disk, new or not.", _STORED_HEADERS, _stored()),
            **problems(*UPLOAD),
        },
        parameters=(
            algorithm,
            *headers_asked("Content-Digest", "Repr-Digest", "Content-Encoding"),
        ),
        upload=True,
    )


def _delete_blob() -> Json:
    return operation(
        "blobs",
        "deleteBlob",
        "Remove a blob from the cluster",
        "Needs the right `admin`. All copies go, those on read-only nodes too. 503 while a node is "
        "down, as it could bring the blob back; some copies may be gone then, so ask again. 409 for "
        "the content of an object: remove the object, then the bytes go by themselves.",
        {
            "204": answer("It is gone, durably."),
            **problems(*GUARDED, *STORAGE, errors.NotFound, errors.Conflict, errors.Full),
        },
    )


def _list_blobs() -> Json:
    digest = SCHEMAS["Digest"]
    after = {
        "name": "after",
        "in": "query",
        "required": False,
        "description": "List what follows this digest, which need not be here. Nothing, or empty: "
        "from the start.",
        "schema": {"type": "string", "pattern": digest["pattern"].replace(")$", ")?$")},
        "example": str(EXAMPLE),
    }
    limit = {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "The most blobs to list.",
        "schema": {
            "type": "integer", "minimum": 1, "maximum": LIST_LIMIT_MAX,
            "default": LIST_LIMIT_DEFAULT,
        },
    }  # fmt: skip
    page = {"blobs": [_STORED_EXAMPLE], "next": None}
    return operation(
        "blobs",
        "listBlobs",
        "List the blobs of this node, page by page",
        "Needs the right `read`. Only what this node itself holds. The order is that of the digests "
        "as text. A full page has a `next`, even if nothing follows.",
        {
            "200": answer("A page.", JSON_HEADERS, json_content(ref("schemas", "Listing"), page)),
            **problems(*GUARDED, *STORAGE),
        },
        parameters=(after, limit),
    )


def _stored() -> Json:
    return json_content(ref("schemas", "Stored"), _STORED_EXAMPLE)


def _node_paths() -> Json:
    def reading(
        name: str, summary: str, schema: str, example: object, *, public: bool = False
    ) -> Json:
        kinds = () if public else (*GUARDED, *STORAGE)
        content = json_content(ref("schemas", schema), example)
        responses = {"200": answer(summary + ".", JSON_HEADERS, content), **problems(*kinds)}
        needs = "Needs no token." if public else "Needs the right `read`."
        return {"get": operation("node", name, summary, needs, responses, public=public)}

    version = "0.1.0"
    metrics = operation(
        "node",
        "getMetrics",
        "The node's metrics",
        "Needs the right `read`. In the text format of Prometheus.",
        {
            "200": answer(
                "The metrics.", ("Cache-Control",), {"text/plain": {"schema": {"type": "string"}}}
            ),
            **problems(*GUARDED, *STORAGE),
        },
    )
    welcome = {"name": "tierce", "version": version, "openapi": "/v1/openapi.json"}
    ready = {"ready": True, "writable": True}
    return {
        "/v1/status": reading("getStatus", "How the node is", "Status", STATUS_EXAMPLE),
        "/v1/health/live": reading(
            "getLive", "Whether the process answers", "Live", {"live": True}, public=True
        ),
        "/v1/health/ready": reading(
            "getReady", "Whether blobs are served, and taken", "Ready", ready, public=True
        ),
        "/v1/openapi.json": {
            "get": operation(
                "node",
                "getOpenapi",
                "This document",
                "Needs no token.",
                {
                    "200": answer(
                        "This document.",
                        JSON_HEADERS,
                        {"application/json": {"schema": {"type": "object"}}},
                    ),
                    **problems(),
                },
                public=True,
            )
        },
        "/metrics": {"get": metrics},
        "/": reading("getRoot", "What this is", "Welcome", welcome, public=True),
    }
