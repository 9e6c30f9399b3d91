"""The part of the OpenAPI document about named objects: operations, and what their bodies look like."""

from tierce.core import errors
from tierce.core.limits import (
    CHANGES_WAIT_MAX_SECONDS,
    LIST_LIMIT_DEFAULT,
    METADATA_BYTES,
    METADATA_ENTRIES_COUNT,
    OBJECT_KEY_BYTES,
    OBJECTS_LIMIT_MAX,
)
from tierce.doors.native.openapi_parts import (
    GUARDED,
    JSON_HEADERS,
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
    EXAMPLE_NODE,
    Json,
    count,
    or_null,
    ref,
    shape,
    text,
)
from tierce.doors.shared.ranges import UnsatisfiableRange
from tierce.doors.shared.sending import PreconditionFailed

_EXAMPLE_CHANGE_TEXT = "01JZ8PGS0M5Q4V5YB2Q1X8ZK3C-17"
_OBJECT_EXAMPLE: Json = {
    "bucket": "photos",
    "key": "2026/summer/beach.jpg",
    "digest": str(EXAMPLE),
    "size": EXAMPLE_BYTES,
    "content_type": "image/jpeg",
    "metadata": {"camera": "X100"},
    "modified": "2026-01-01T00:00:00.123456789Z",
    "timestamp": "1767225600123456789",
    "node": EXAMPLE_NODE,
}
_CONTENT: Json = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_PART_HEADERS = (
    "Accept-Ranges", "Cache-Control", "Content-Security-Policy", "ETag", "Last-Modified",
    "Repr-Digest", "X-Content-Type-Options",
)  # fmt: skip
_WHOLE_HEADERS = ("Content-Digest", *_PART_HEADERS)
_NAMED = (*GUARDED, *STORAGE, errors.TooLarge)
_METADATA_TEXT = (
    "User metadata is in headers `Tierce-Meta-NAME: VALUE`; names are in lower case, and what is no "
    "plain ASCII is percent-encoded in both."
)


_OBJECT: Json = {
    "bucket": text("Its bucket."),
    "key": text("Its name in the bucket."),
    "digest": or_null(ref("schemas", "Digest"), "Digest of the content; null if it was removed."),
    "size": count("Size in bytes."),
    "content_type": text("The type that it was stored with."),
    "metadata": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "User metadata, by names in lower case.",
    },
    "modified": text(
        "When the content was written, in UTC, to the nanosecond.", format="date-time"
    ),
    "timestamp": text(
        "The time of the write that counts, in nanoseconds since 1970; of two, the greater wins.",
        pattern="^[0-9]+$",
    ),
    "node": text("Id of the node that took the write."),
}

OBJECT_SCHEMAS: Json = {
    "Object": shape("A named object.", _OBJECT),
    "Objects": shape(
        "A page of a bucket, in the order of the keys' UTF-8 bytes.",
        {
            "bucket": text("As it was asked for."),
            "prefix": text("As it was asked for."),
            "delimiter": text("As it was asked for."),
            "objects": {"type": "array", "items": ref("schemas", "Object")},
            "prefixes": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What keys were folded into, up to and including the delimiter.",
            },
            "next": or_null(
                {"type": "string"}, "Send this as `after` for the next page; null on the last one."
            ),
        },
    ),
    "Buckets": shape(
        "All buckets that have objects.",
        {"buckets": {"type": "array", "items": {"type": "string"}}},
    ),
    "Changes": shape(
        "A part of the feed of changes.",
        {
            "changes": {
                "type": "array",
                "items": shape(
                    "The last change of a name.",
                    {
                        "seq": {"type": "integer", "minimum": 1, "description": "Its number."},
                        "deleted": {"type": "boolean", "description": "Whether it was removed."},
                        **_OBJECT,
                    },
                ),
            },
            "next": text("The position behind them: send it as `since` to go on."),
        },
    ),
}


def object_paths() -> Json:
    """Paths and their operations."""
    bucket = ref("parameters", "Bucket")
    return {
        "/v1/buckets/{bucket}/objects/{key}": {
            "parameters": [bucket, ref("parameters", "Key")],
            "get": _get_object(),
            "head": _head_object(),
            "put": _put_object(),
            "delete": _delete_object(),
        },
        "/v1/buckets/{bucket}/objects": {"parameters": [bucket], "get": _list_objects()},
        "/v1/buckets": {"get": _list_buckets()},
        "/v1/changes": {"get": _get_changes()},
    }


def _get_object() -> Json:
    return operation(
        "objects",
        "getObject",
        "Read an object, or parts of it",
        "Needs the right `read`. Takes ranges as blobs do, and conditions on tags and dates. The type "
        f"is the one it was stored with. {_METADATA_TEXT}",
        {
            "200": answer("The whole object.", _WHOLE_HEADERS, _CONTENT),
            "206": answer("The ranges asked for.", ("Content-Range", *_PART_HEADERS), _CONTENT),
            "304": answer("It has not changed.", _PART_HEADERS),
            **problems(*_NAMED, errors.NotFound, PreconditionFailed, UnsatisfiableRange),
        },
        parameters=headers_asked(
            "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since",
            "If-Unmodified-Since",
        ),
    )  # fmt: skip


def _head_object() -> Json:
    return operation(
        "objects",
        "headObject",
        "See what an object is",
        f"Needs the right `read`. Answers as GET would, without a body. {_METADATA_TEXT}",
        {
            "200": answer("It is here.", ("Content-Length", *_WHOLE_HEADERS)),
            "304": answer("It has not changed.", _PART_HEADERS),
            **problems(*_NAMED, errors.NotFound, PreconditionFailed, body=False),
        },
        parameters=headers_asked(
            "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"
        ),
    )


def _put_object() -> Json:
    headers = ("ETag", "Location", *JSON_HEADERS)
    content = json_content(ref("schemas", "Object"), _OBJECT_EXAMPLE)
    return operation(
        "objects",
        "putObject",
        "Store an object under its name",
        "Needs the right `write`. Replaces what has this name. Conditions are checked on the node that "
        "is asked, in the transaction that makes the change. The Content-Type is kept. "
        f"{_METADATA_TEXT} There are {METADATA_ENTRIES_COUNT} of them at most, with "
        f"{METADATA_BYTES} bytes together. A Content-Range is "
        "refused: an object comes whole. 503 while too few nodes take new blobs.",
        {
            "200": answer("It replaced an object, and is on disk.", headers, content),
            "201": answer("There was none of this name; it is on disk.", headers, content),
            **problems(*UPLOAD, PreconditionFailed),
        },
        parameters=headers_asked(
            "If-Match", "If-None-Match", "If-Unmodified-Since", "Content-Digest", "Repr-Digest",
            "Content-Encoding",
        ),
        upload=True,
    )  # fmt: skip


def _delete_object() -> Json:
    return operation(
        "objects",
        "deleteObject",
        "Remove an object",
        "Needs the right `write`, as an object can also be replaced with that.",
        {
            "204": answer("It is gone, durably."),
            **problems(*_NAMED, errors.NotFound, errors.Full, PreconditionFailed),
        },
        parameters=headers_asked("If-Match", "If-None-Match", "If-Unmodified-Since"),
    )


def _query(name: str, description: str, schema: Json, **more: object) -> Json:
    return {
        "name": name, "in": "query", "required": False, "description": description,
        "schema": schema, **more,
    }  # fmt: skip


def _text_asked(name: str, description: str) -> Json:
    schema = {"type": "string", "maxLength": OBJECT_KEY_BYTES, "default": ""}
    return _query(name, description, schema)


_LIMIT = _query(
    "limit",
    "The most entries of a page.",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": OBJECTS_LIMIT_MAX,
        "default": LIST_LIMIT_DEFAULT,
    },
)


def _list_objects() -> Json:
    page = {
        "bucket": "photos",
        "prefix": "2026/",
        "delimiter": "/",
        "objects": [{**_OBJECT_EXAMPLE, "key": "2026/index.txt"}],
        "prefixes": ["2026/summer/"],
        "next": None,
    }
    return operation(
        "objects",
        "listObjects",
        "List the objects of a bucket, page by page",
        "Needs the right `read`. In the order of the keys' UTF-8 bytes, objects and common prefixes "
        "counted together. A bucket without objects has an empty listing.",
        {
            "200": answer("A page.", JSON_HEADERS, json_content(ref("schemas", "Objects"), page)),
            **problems(*_NAMED),
        },
        parameters=(
            _text_asked("prefix", "List only keys that begin with this."),
            _text_asked(
                "delimiter",
                "Fold keys that share what stands between the prefix and the first of this text "
                "behind it: that part is listed once, among `prefixes`.",
            ),
            _text_asked(
                "after", "List what follows this key or common prefix, which need not be there."
            ),
            _LIMIT,
        ),
    )


def _list_buckets() -> Json:
    content = json_content(ref("schemas", "Buckets"), {"buckets": ["photos"]})
    return operation(
        "objects",
        "listBuckets",
        "List the buckets",
        "Needs the right `read`. A bucket is there while it has an object.",
        {
            "200": answer("All of them, in order.", JSON_HEADERS, content),
            **problems(*GUARDED, *STORAGE),
        },
    )


def _get_changes() -> Json:
    change = {"seq": 17, "deleted": False, **_OBJECT_EXAMPLE}
    content = json_content(
        ref("schemas", "Changes"), {"changes": [change], "next": _EXAMPLE_CHANGE_TEXT}
    )
    return operation(
        "objects",
        "getChanges",
        "Follow the changes of names",
        "Needs the right `read`. Each name is there once, at its last change, in the order in which "
        "this node took them. Positions belong to the node that gave them: 409 for one of another "
        "node, or of a history that this node's disk does not have; then read from the start.",
        {
            "200": answer("Changes, if there are any.", JSON_HEADERS, content),
            **problems(*GUARDED, *STORAGE, errors.Conflict),
        },
        parameters=(
            _query(
                "since",
                "The position after which to go on: `next` of an earlier answer. Nothing, or empty: "
                "from the start.",
                {"type": "string", "pattern": "^([0-9A-Za-z]{1,40}-[0-9]{1,19})?$"},
                example=_EXAMPLE_CHANGE_TEXT,
            ),
            _LIMIT,
            _query(
                "wait",
                "If there are no changes, how many seconds to wait for some before answering.",
                {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": int(CHANGES_WAIT_MAX_SECONDS),
                    "default": 0,
                },
            ),
        ),
    )
