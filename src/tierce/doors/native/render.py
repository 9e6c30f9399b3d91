"""What the native door's answers look like: JSON shapes and the headers of a blob."""

import json
from typing import Any

from tierce.blobs.store import BlobInfo
from tierce.core.digest import Digest
from tierce.doors.shared import digest_fields
from tierce.doors.shared.answers import Answer, lines
from tierce.doors.shared.sending import Presented
from tierce.service.blobs import Stored
from tierce.service.status import Status

PROBLEM_BASE = "https://tierce.dev/problems/"
BLOB_TYPE = "application/octet-stream"
_CACHE = ("Cache-Control", "max-age=31536000, immutable")
_NO_CACHE = ("Cache-Control", "no-store")
_NO_SNIFF = ("X-Content-Type-Options", "nosniff")
_JSON_BLOCK = lines([("Content-Type", "application/json"), _NO_CACHE, _NO_SNIFF])
_BLOB_BLOCK = lines([_CACHE, _NO_SNIFF, ("Accept-Ranges", "bytes")])


def json_answer(status: int, content: Any, content_type: str = "application/json") -> Answer:
    """A JSON body, ended by a line end so that a terminal shows it well.

    It is ASCII: a message may quote text that is not valid Unicode, and must not fail for that.
    """
    body = json.dumps(content).encode("ascii") + b"\n"
    if content_type == "application/json":
        return Answer(status, body, block=_JSON_BLOCK)
    return Answer(status, body, [("Content-Type", content_type), _NO_CACHE, _NO_SNIFF])


def problem(status: int, name: str, detail: str, hint: str) -> Answer:
    """Problem details (RFC 9457). ``type`` is stable; ``detail`` and ``hint`` are for people."""
    content = {
        "type": PROBLEM_BASE + name,
        "title": name.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "hint": hint,
    }
    return json_answer(status, content, "application/problem+json")


def presented(digest: Digest) -> Presented:
    """The headers of a blob (RFC 9110, RFC 9530). A blob never changes, so its tag is its name."""
    field = digest_fields.render(digest)
    etag = f'"{digest}"'
    return Presented(
        etag=etag,
        content_type=BLOB_TYPE,
        block=f"{_BLOB_BLOCK}Repr-Digest: {field}\r\nETag: {etag}\r\n",
        whole=f"Content-Digest: {field}\r\n",
    )


def stored(result: Stored, *, located: bool) -> Answer:
    """The answer to an upload: 201 when it is new, 200 when it was there."""
    digest = str(result.digest)
    body = f'{{"digest": "{digest}", "size": {result.size}}}\n'.encode("ascii")
    block = f'{_JSON_BLOCK}ETag: "{digest}"\r\nLocation: /v1/blobs/{digest}\r\n'
    return Answer(201 if result.created or located else 200, body, block=block)


def listing(blobs: list[BlobInfo], limit: int) -> Answer:
    """A page of blobs; ``next`` is what to send as ``after``, or null at the end."""
    return json_answer(
        200,
        {
            "blobs": [{"digest": str(info.digest), "size": info.size} for info in blobs],
            "next": str(blobs[-1].digest) if len(blobs) == limit else None,
        },
    )


def draining(node_id: str, *, begun: bool) -> Answer:
    """The answer to the order to empty a node, 202 as that takes its time, or to use it again."""
    return json_answer(202 if begun else 200, {"node_id": node_id, "draining": begun})


def status(now: Status) -> dict[str, Any]:
    """The shape of ``/v1/status``; sizes in bytes, times in seconds."""
    return {
        "node_id": now.identity.node_id,
        "version": now.identity.version,
        "uptime_seconds": round(now.uptime_seconds, 3),
        "listen": list(now.identity.listen),
        "workers": now.identity.workers,
        "writable": not now.read_only_reason,
        "read_only_reason": now.read_only_reason or None,
        "blobs": now.counts.blobs,
        "blob_bytes": now.counts.bytes,
        "disk": {
            "total_bytes": now.space.total,
            "free_bytes": now.space.free,
            "reserve_bytes": now.space.reserve,
        },
        "agent": now.agent,
    }
