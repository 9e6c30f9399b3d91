"""What the JSON bodies of the native door look like: the schemas of its OpenAPI document, and examples.

The shapes themselves are made in render.py, and those of the agent's account and of the cluster in
the agent; tests hold the answers of real nodes against what is said here. Those of named objects are
in openapi_objects.py.
"""

from collections.abc import Iterable
from typing import Any

from tierce.core.digest import ALGORITHMS, DEFAULT_ALGORITHM, Digest
from tierce.doors.native.errors import NAMES, OUR_MISTAKE
from tierce.doors.native.render import PROBLEM_BASE

Json = dict[str, Any]

EXAMPLE = Digest.of(b"hello\n", DEFAULT_ALGORITHM)
EXAMPLE_BYTES = len(b"hello\n")
EXAMPLE_NODE = "01JZ8PGS0M5Q4V5YB2Q1X8ZK3C"

DIGEST_PATTERN = "|".join(
    f"{algorithm.name}:[0-9a-f]{{{2 * algorithm.size_bytes}}}" for algorithm in ALGORITHMS.values()
)


def ref(section: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{section}/{name}"}


def shape(description: str, properties: Json, required: Iterable[str] | None = None) -> Json:
    """An object of JSON. All of its properties are there, unless ``required`` says which are."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties if required is None else required),
    }


def count(description: str) -> Json:
    """A number of things, or of bytes."""
    return {"type": "integer", "minimum": 0, "description": description}


def text(description: str, **more: object) -> Json:
    """A text; ``more`` says of what form."""
    return {"type": "string", "description": description, **more}


def _seconds(description: str) -> Json:
    return {"type": "number", "minimum": 0, "description": description}


def or_null(schema: Json, description: str) -> Json:
    """What may be null."""
    return {"anyOf": [schema, {"type": "null"}], "description": description}


_LAST_PASS: Json = {
    "type": ["string", "null"],
    "format": "date-time",
    "description": "End of the last full pass, in UTC; null before the first.",
}
_ESTIMATED = or_null(
    {"type": "number", "minimum": 0}, "Time that takes, in seconds; null while it is not known."
)
_TARGETS = {
    "below_target": count("Blobs with fewer copies than there should be."),
    "at_target": count("Blobs with as many copies as there should be."),
    "over_target": count("Blobs with surplus copies."),
}
_NO_HEALING = "How healing goes; null or left out where there is nothing to say of it yet."

_SCRUB = shape(
    "How the verification of stored blobs goes, since the agent started.",
    {
        "checked_blobs": count("Blobs verified."),
        "vouched_blobs": count("Blobs passed over, as a store in the cloud vouches for them."),
        "bad_blobs": count("Blobs that were found bad, and set aside."),
        "passes": count("Times that all blobs were gone through."),
        "last_pass": _LAST_PASS,
    },
)

_HEALING = shape(
    "How healing goes, for the blobs that this node is responsible for. Counts of what was done are "
    "since the agent started.",
    {
        "phase": text("What healing does now, in a word."),
        "responsible_blobs": count("Blobs that this node looks after."),
        **_TARGETS,
        "bytes_to_move": count("Bytes that this node has to copy."),
        "estimated_seconds": _ESTIMATED,
        "last_pass": _LAST_PASS,
        "last_pass_seconds": or_null(
            {"type": "number", "minimum": 0}, "How long it took; null before the first."
        ),
        "pushed_blobs": count("Blobs copied to other nodes."),
        "pushed_bytes": count("Their bytes."),
        "proved_blobs": count("Copies of other nodes that were read back and found right."),
        "trimmed_blobs": count("Surplus copies removed here."),
        "failed_pushes": count("Copies that did not succeed, and are tried again."),
    },
)

_DISK = shape(
    "The disk that holds the data, in bytes.",
    {
        "total_bytes": count("Size of the disk."),
        "free_bytes": count("Room on it."),
        "reserve_bytes": count("Room that the node keeps free."),
    },
)

_MEMBER: Json = {
    "node_id": text("Id of the node."),
    "state": text(
        "`suspect` is a node that has not answered lately, and is not given up yet.",
        enum=["alive", "suspect", "down"],
    ),
    "dialect": text("What it speaks: Tierce's way or Cask's own.", enum=["tierce", "cask"]),
    "private": text("Where other nodes reach it, as HOST:PORT; empty for a Cask node."),
    "native": text("Base URL of its native door, or empty."),
    "cask": text("Base URL of its Cask door, or empty."),
    "zone": text("Its zone, or empty."),
    "weight": {"type": "number", "description": "Its share, beside a node of weight 1."},
    "writable": {"type": "boolean", "description": "Whether it takes new blobs."},
    "draining": {"type": "boolean", "description": "Whether it is being emptied."},
    "version": text("Version of its program."),
}

_ACCOUNT = or_null(
    shape(
        "Its own account.",
        {
            "blobs": count("Number of blobs on it."),
            "blob_bytes": count("Their size together, in bytes."),
            "disk": ref("schemas", "Disk"),
            "scrub": ref("schemas", "Scrub"),
            "healing": or_null(ref("schemas", "Healing"), _NO_HEALING),
        },
        required=["blobs", "blob_bytes", "disk"],
    ),
    "Its own account; null if it did not give one.",
)
# What an overview adds to each member.
_MORE_OF_A_MEMBER: Json = {
    "drained": {"type": "boolean", "description": "Whether it is empty, and may be stopped."},
    "down_seconds": or_null(
        {"type": "number", "minimum": 0}, "How long it has been down; null while it is not."
    ),
    "status": _ACCOUNT,
}

SCHEMAS: Json = {
    "Digest": text(
        "Algorithm, colon, and the digest in lower-case hex.",
        pattern=f"^({DIGEST_PATTERN})$",
        examples=[str(EXAMPLE), str(Digest.of(b"hello\n", "sha256"))],
    ),
    "Stored": shape(
        "A blob that is safely on disk.",
        {"digest": ref("schemas", "Digest"), "size": count("Size in bytes.")},
    ),
    "Listing": shape(
        "A page of blobs, in the order of their digests.",
        {
            "blobs": {"type": "array", "items": ref("schemas", "Stored")},
            "next": {
                "description": "Send this as `after` for the next page; null on the last one.",
                "anyOf": [ref("schemas", "Digest"), {"type": "null"}],
            },
        },
    ),
    "Status": shape(
        "The state of the node.",
        {
            "node_id": text("Id of the node."),
            "version": text("Version of Tierce."),
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
            "blobs": count("Number of blobs on this node."),
            "blob_bytes": count("Their size together, in bytes."),
            "disk": ref("schemas", "Disk"),
            "agent": {
                "description": "What the background process says; null while it is down.",
                "anyOf": [
                    shape(
                        "Its account.",
                        {
                            "scrub": ref("schemas", "Scrub"),
                            "healing": or_null(ref("schemas", "Healing"), _NO_HEALING),
                            "members": {
                                "type": "array",
                                "items": ref("schemas", "Member"),
                                "description": "The nodes that this one knows, itself among them.",
                            },
                            "store": {
                                "type": ["object", "null"],
                                "description": "The bucket that keeps its blobs, if one does.",
                            },
                        },
                        required=["scrub"],
                    ),
                    {"type": "null"},
                ],
            },
        },
    ),
    "Scrub": _SCRUB,
    "Healing": _HEALING,
    "Disk": _DISK,
    "Member": shape("A node of the cluster, as it announces itself.", _MEMBER),
    "Overview": shape(
        "The cluster, as the node that was asked knows it.",
        {
            "node_id": text("Id of the node that was asked."),
            "replication": count("Number of nodes that keep each blob."),
            "max_replication": count("Copies above which surplus ones are removed."),
            "blobs": count("Blobs of the cluster, each counted once."),
            **_TARGETS,
            "bytes_to_move": count("Bytes that healing has to copy."),
            "estimated_seconds": _ESTIMATED,
            "settled": {
                "type": "boolean",
                "description": "Whether healing has nothing to do: all nodes answered, and have looked "
                "at all their blobs, of which each has its copies and no more.",
            },
            "warnings": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What an operator should look at, in sentences for people.",
            },
            "nodes": {
                "type": "array",
                "items": shape(
                    "A node with its own account.", {**_MEMBER, **_MORE_OF_A_MEMBER}
                ),
                "description": "The nodes, in the order of their ids.",
            },
        },
    ),
    "Draining": shape(
        "Whether a node is being emptied.",
        {"node_id": text("Id of the node."), "draining": {"type": "boolean"}},
    ),
    "Comparison": shape(
        "The order to compare a store.",
        {"comparison": {"type": "integer", "minimum": 1, "description": "Its number."}},
    ),
    "Live": shape("The process answers.", {"live": {"const": True}}),
    "Ready": shape(
        "The node serves blobs.",
        {
            "ready": {"const": True},
            "writable": {"type": "boolean", "description": "Whether new blobs are taken now."},
        },
    ),
    "Welcome": shape(
        "What this is.",
        {
            "name": {"const": "tierce"},
            "version": text("Version of Tierce."),
            "openapi": text("Where this document is.", format="uri-reference"),
        },
    ),
    "Problem": shape(
        "Problem details (RFC 9457). Programs go by `type`, which never changes; "
        "`detail` and `hint` are for people.",
        {
            "type": text(
                "Stable name of the kind of problem.",
                enum=[PROBLEM_BASE + name for name in (*NAMES.values(), OUR_MISTAKE)],
            ),
            "title": text("The same in words."),
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": text("What happened."),
            "hint": text("What to do about it; may be empty."),
        },
    ),
}  # fmt: skip

_SCRUB_EXAMPLE = {
    "checked_blobs": 1,
    "vouched_blobs": 0,
    "bad_blobs": 0,
    "passes": 12,
    "last_pass": "2026-01-01T00:00:00Z",
}
_HEALING_EXAMPLE = {
    "phase": "resting",
    "responsible_blobs": 1,
    "below_target": 0,
    "at_target": 1,
    "over_target": 0,
    "bytes_to_move": 0,
    "estimated_seconds": 0.0,
    "last_pass": "2026-01-01T00:00:00Z",
    "last_pass_seconds": 1.5,
    "pushed_blobs": 0,
    "pushed_bytes": 0,
    "proved_blobs": 0,
    "trimmed_blobs": 0,
    "failed_pushes": 0,
}
_DISK_EXAMPLE = {"total_bytes": 1 << 40, "free_bytes": 1 << 39, "reserve_bytes": 1 << 30}
_MEMBER_EXAMPLE = {
    "node_id": EXAMPLE_NODE,
    "state": "alive",
    "dialect": "tierce",
    "private": "127.0.0.1:7071",
    "native": "http://127.0.0.1:7070",
    "cask": "",
    "zone": "",
    "weight": 1.0,
    "writable": True,
    "draining": False,
    "version": "0.1.0",
}

OVERVIEW_EXAMPLE: Json = {
    "node_id": EXAMPLE_NODE,
    "replication": 1,
    "max_replication": 1,
    "blobs": 1,
    "below_target": 0,
    "at_target": 1,
    "over_target": 0,
    "bytes_to_move": 0,
    "estimated_seconds": 0.0,
    "settled": True,
    "warnings": [],
    "nodes": [
        {
            **_MEMBER_EXAMPLE,
            "drained": False,
            "down_seconds": None,
            "status": {
                "blobs": 1,
                "blob_bytes": EXAMPLE_BYTES,
                "disk": _DISK_EXAMPLE,
                "scrub": _SCRUB_EXAMPLE,
                "healing": _HEALING_EXAMPLE,
            },
        }
    ],
}

STATUS_EXAMPLE: Json = {
    "node_id": EXAMPLE_NODE,
    "version": "0.1.0",
    "uptime_seconds": 86400.5,
    "listen": ["native=127.0.0.1:7070"],
    "workers": 4,
    "writable": True,
    "read_only_reason": None,
    "blobs": 1,
    "blob_bytes": EXAMPLE_BYTES,
    "disk": _DISK_EXAMPLE,
    "agent": {
        "scrub": _SCRUB_EXAMPLE,
        "healing": _HEALING_EXAMPLE,
        "members": [_MEMBER_EXAMPLE],
    },
}
