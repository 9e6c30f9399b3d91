"""What the Cask door's answers look like: texts, JSON, pages for people, and the headers of a file.

JSON is compact and its keys stand in Cask's order, as clients may compare it as text.
"""

import functools
import json
from typing import TYPE_CHECKING, Any

from tierce.core.digest import Digest
from tierce.core.listen import Listen
from tierce.core.settings import Settings, shown
from tierce.doors.cask import gauges
from tierce.doors.shared.answers import Answer, Headers, lines
from tierce.doors.shared.sending import Presented
from tierce.service.status import Status

if TYPE_CHECKING:
    from jinja2 import Environment

PLAIN_TEXT = "text/plain; charset=utf-8"
FILE_TYPE = "application/octet"
HTML_TYPE = "text/html; charset=utf-8"
ZERO_TIME = "0001-01-01T00:00:00Z"

# What /status/ tells of the settings: none that is secret, or about this machine only.
SHOWN_SETTINGS = (
    "replication", "max_replication", "read_only", "blob_limit_bytes", "reserve_bytes",
    "heartbeat_interval_seconds", "scrub_interval_seconds", "workers",
)  # fmt: skip

_NO_CACHE = ("Cache-Control", "no-store")
_NO_SNIFF = ("X-Content-Type-Options", "nosniff")
_PAGE_HEADERS = [
    ("Content-Type", HTML_TYPE),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"),
    _NO_CACHE,
    _NO_SNIFF,
]  # fmt: skip


def text(content: str, status: int = 200) -> Answer:
    """Plain text, to the letter."""
    return Answer(status, content.encode(), [("Content-Type", PLAIN_TEXT)])


def error(status: int, content: str) -> Answer:
    """An error as Cask words one: its text, and a line end."""
    return Answer(status, f"{content}\n".encode(), [("Content-Type", PLAIN_TEXT), _NO_SNIFF])


def json_answer(content: Any, headers: Headers = ()) -> Answer:
    """Compact JSON without a line end."""
    kind = ("Content-Type", "application/json")
    return Answer(200, _compact(content), [kind, _NO_CACHE, *headers])


def uploaded(key: Digest | None, *, success: bool) -> Answer:
    """The answer to a client's upload. Without success, the key may not be known."""
    content = {"key": "" if key is None else str(key), "success": success}
    return Answer(200 if success else 503, _compact(content), [("Content-Type", PLAIN_TEXT)])


def presented(key: Digest) -> Presented:
    """The headers of a file. Its type is none that a browser would show."""
    etag = f'"{key}"'
    block = lines([_NO_SNIFF, ("ETag", etag), ("Accept-Ranges", "bytes")])
    return Presented(etag=etag, content_type=FILE_TYPE, block=block)


def redirect(target: str) -> Answer:
    """Send the client to the address with an end slash. ``target`` is path and query, as sent."""
    path, question, query = target.partition("?")
    return Answer(301, headers=[("Location", f"{path}/{question}{query}")])


def base_url(settings: Settings, listen: Listen) -> str:
    """Where other nodes find this one, without an end slash."""
    if settings.cask_base_url:
        return settings.cask_base_url
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{'http' if settings.tls_certificate is None else 'https'}://{host}:{listen.port}"


def node(node_id: str, url: str, *, writeable: bool) -> dict[str, Any]:
    """A node of the cluster, as nodes tell each other. One shows itself with the zero time."""
    return {
        "uuid": node_id,
        "base_url": url,
        "writeable": writeable,
        "last_seen": ZERO_TIME,
        "last_failed": ZERO_TIME,
    }


def status(now: Status, url: str, settings: Settings) -> dict[str, Any]:
    """The shape of ``/status/``: sizes in bytes, times in seconds."""
    in_force = {name: getattr(settings, name) for name in SHOWN_SETTINGS}
    # None has the operator set: how many copies there are follows from the nodes there are.
    in_force |= {name: in_force[name] or None for name in ("replication", "max_replication")}
    return {
        "node": node(now.identity.node_id, url, writeable=not now.read_only_reason),
        "neighbors": _neighbors(now),
        "healing": (now.agent or {}).get("healing"),
        "settings": in_force,
        "version": now.identity.version,
        "uptime_seconds": round(now.uptime_seconds, 3),
        "read_only_reason": now.read_only_reason or None,
        "files": now.counts.blobs,
        "file_bytes": now.counts.bytes,
        "disk": {
            "total_bytes": now.space.total,
            "free_bytes": now.space.free,
            "reserve_bytes": now.space.reserve,
        },
    }


def status_page(now: Status, url: str, settings: Settings) -> Answer:
    """The same for people."""
    as_text = shown(settings)
    return _page(
        "status.html",
        status=status(now, url, settings),
        settings={name: as_text[name] for name in SHOWN_SETTINGS},
    )


def upload_page() -> Answer:
    """A form that posts a file."""
    return _page("upload.html")


def join_page() -> Answer:
    """A form that joins a node."""
    return _page("join.html")


def variables() -> Answer:
    """What ``/debug/vars`` says: the program's name, without its arguments, and its memory."""
    return json_answer({"cmdline": ["tierce"], "memstats": gauges.memory()})


def _neighbors(now: Status) -> list[dict[str, Any]]:
    """All other nodes, of Cask and of Tierce, as far as the agent tells of them."""
    members = (now.agent or {}).get("members") or []
    return [
        {
            "uuid": each["node_id"],
            "base_url": each.get("cask", ""),
            "writeable": each.get("writable", False),
            "state": each.get("state", ""),
            "dialect": each.get("dialect", ""),
        }
        for each in members
        if each["node_id"] != now.identity.node_id
    ]


@functools.cache
def _templates() -> "Environment":
    """What makes pages. It is loaded for the first one: most processes never make one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tierce.doors.cask"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def _page(name: str, **values: Any) -> Answer:
    return Answer(200, _templates().get_template(name).render(values).encode(), _PAGE_HEADERS)


def _compact(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
