"""A database and a store for the tests of ``tierce couch``: one server made of dicts, with faults.

The database is at ``/photos``, the store at ``/store``. As CouchDB does, the database keeps texts
compressed, with the digest of that, and says so only if it is asked. Requests are counted over both,
so a test can have any one of them go wrong in any of the ways of :class:`Fault`.
"""

import base64
import enum
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from tierce.testing.in_thread import held_in_thread

Json = dict[str, Any]


class Fault(enum.Enum):
    """How a request goes wrong."""

    DROPPED = "the connection breaks before anything was done"
    UNANSWERED = "it is carried out, and the connection breaks before the answer"
    FAILED = "500"
    CONFLICT = "409"
    MISSING = "404"
    REFUSED = "403"
    REDIRECTED = "307"
    FOREIGN = "200 with something that is no JSON"
    WRONG = "one byte of the answer's body is another"
    CUT = "the connection breaks in the middle of the answer's body"
    CHANGED = "before it, somebody changes a field of each document"
    REPLACED = "before it, somebody replaces an attachment of each document"
    DELETED = "before it, somebody deletes all documents"


class Attachment(NamedTuple):
    """An attachment, and the number of the revision that brought it."""

    data: bytes
    content_type: str
    revpos: int

    @property
    def is_compressed(self) -> bool:
        return self.content_type.startswith("text/")

    @property
    def compressed(self) -> bytes:
        return gzip.compress(self.data, mtime=0)


@dataclass
class Document:
    """A document as it is now. ``number`` is that of its revision."""

    fields: Json = field(default_factory=dict)
    attachments: dict[str, Attachment] = field(default_factory=dict)
    number: int = 1

    @property
    def rev(self) -> str:
        said = json.dumps([self.fields, {n: a.revpos for n, a in self.attachments.items()}])
        return f"{self.number}-{hashlib.md5(said.encode(), usedforsecurity=False).hexdigest()}"


class CouchAndStore:
    """What the tests prepare and look at. ``database`` and ``store`` are URLs while it serves."""

    def __init__(self) -> None:
        self.database = self.store = ""
        self.documents: dict[str, Document] = {}
        self.files: dict[str, bytes] = {}
        self.names: list[str] = []
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.fault: Fault | None = None
        # The number of the request that goes wrong; -1 for each one.
        self.fault_at = 0
        # Another answer of the store's to a PUT, and what happens after each one.
        self.acknowledged: Json | None = None
        self.after_put: Callable[[], object] = lambda: None
        # What the database keeps of an attachment.
        self.kept_of: Callable[[bytes], bytes] = lambda data: data
        # What the database answers in place of a listing.
        self.listing: object = None
        self.authorization: dict[str, str] = {}
        self.replacement = Attachment(b"somebody else's", "text/plain", 0)

    def add(self, doc_id: str, attachments: dict[str, bytes], **fields: Any) -> Document:
        """Put a document in place. Attachments whose names end in ``.txt`` are texts."""
        made = Document(fields)
        for name, data in attachments.items():
            kind = "text/plain" if name.endswith(".txt") else "image/jpeg"
            made.attachments[name] = Attachment(data, kind, 1)
        self.documents[doc_id] = made
        return made

    def data(self, doc_id: str, name: str) -> bytes | None:
        """The bytes of an attachment, wherever they are. The document is asked first."""
        document = self.documents[doc_id]
        if name in document.attachments:
            return document.attachments[name].data
        entry = document.fields.get("dtfc", {}).get(name)
        return None if entry is None else self.files.get(entry["sha512"])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["CouchAndStore"]:
        """Serve on a free port of the running loop."""
        runner = web.ServerRunner(web.Server(self._gate), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.database, self.store = f"{url}/photos", f"{url}/store/"
        try:
            yield self
        finally:
            await runner.cleanup()

    @contextmanager
    def serving_in_thread(self) -> Iterator["CouchAndStore"]:
        """Serve from another thread, for code that runs a loop of its own."""
        with held_in_thread(self.serving):
            yield self

    async def _gate(self, request: web.BaseRequest) -> web.StreamResponse:
        is_it = self.fault_at in (-1, len(self.seen))
        fault = self.fault if is_it else None
        self.seen.append(f"{request.method} {request.rel_url.raw_path_qs}")
        self.headers.append(dict(request.headers))
        body = await request.read()
        self._somebody_else(fault)
        answer = self._planned(fault) or self._answer(request, body)
        data = answer.body if isinstance(answer.body, bytes) else b""
        if fault is Fault.WRONG and data:
            answer.body = data[:-1] + bytes([data[-1] ^ 1])
        if fault is Fault.CUT and data:
            cut = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await cut.prepare(request)
            await cut.write(data[: len(data) // 2])
            answer_now: web.StreamResponse = cut
        else:
            answer_now = answer
        if fault in (Fault.CUT, Fault.DROPPED, Fault.UNANSWERED):
            assert request.transport is not None
            request.transport.close()
        return answer_now

    def _planned(self, fault: Fault | None) -> web.Response | None:
        if fault in (Fault.FAILED, Fault.CONFLICT, Fault.MISSING, Fault.REFUSED):
            return _problem(int(fault.value), "planned")
        if fault is Fault.REDIRECTED:
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        if fault is Fault.FOREIGN:
            return web.Response(text="<html>")
        return web.Response() if fault is Fault.DROPPED else None

    def _somebody_else(self, fault: Fault | None) -> None:
        if fault is Fault.DELETED:
            self.documents.clear()
        for document in self.documents.values():
            if fault in (Fault.CHANGED, Fault.REPLACED):
                document.number += 1
            if fault is Fault.CHANGED:
                document.fields["changes"] = document.fields.get("changes", 0) + 1
            if fault is Fault.REPLACED:
                replacement = self.replacement._replace(revpos=document.number)
                document.attachments["a.jpg"] = replacement

    def _answer(self, request: web.BaseRequest, body: bytes) -> web.Response:
        side, *parts = [unquote(each) for each in request.rel_url.raw_path[1:].split("/")]
        expected = self.authorization.get(side)
        if expected is not None and request.headers.get("Authorization") != expected:
            return _problem(401, "Name or password is incorrect.")
        if side == "store":
            return self._in_store(request.method, parts, body)
        if side != "photos":
            return _problem(404, "Database does not exist.")
        if not parts:
            return web.json_response({"doc_count": len(self.documents)})
        if parts[0] == "_all_docs":
            said = self.listing
            return self._all(request) if said is None else web.json_response(said)
        document = self.documents.get(parts[0])
        if request.method == "GET" and document is None:
            return _problem(404, "missing")
        rev = request.query.get("rev", "")
        if parts[1:]:
            return self._attachment(request, parts, rev, body)
        if request.method == "PUT":
            return self._write(parts[0], json.loads(body))
        return web.json_response(self._shown(parts[0], "att_encoding_info" in request.query))

    def _all(self, request: web.BaseRequest) -> web.Response:
        start = json.loads(request.query.get("startkey", '""'))
        found = sorted(each for each in self.documents if each >= start)
        rows: list[Json] = [{"id": each, "key": each} for each in found]
        if "include_docs" in request.query:
            for row in rows:
                row["doc"] = self._shown(row["id"], "att_encoding_info" in request.query)
        return web.json_response({"rows": rows[: int(request.query["limit"])]})

    def _attachment(
        self, request: web.BaseRequest, parts: list[str], rev: str, body: bytes
    ) -> web.Response:
        document, name = self.documents.get(parts[0]), "/".join(parts[1:])
        if request.method == "PUT":
            if document is None or document.rev != rev:
                return _problem(409, "Document update conflict.")
            document.number += 1
            kind = request.headers["Content-Type"]
            document.attachments[name] = Attachment(self.kept_of(body), kind, document.number)
            return _written(parts[0], document)
        # As after a compaction: earlier revisions are gone.
        if document is None or document.rev != rev or name not in document.attachments:
            return _problem(404, "Document is missing attachment")
        found = document.attachments[name]
        if found.is_compressed and "gzip" in request.headers["Accept-Encoding"]:
            return web.Response(body=found.compressed, headers={"Content-Encoding": "gzip"})
        return web.Response(body=found.data)

    def _write(self, doc_id: str, content: Json) -> web.Response:
        document = self.documents.get(doc_id)
        if document is None or content["_rev"] != document.rev:
            return _problem(409, "Document update conflict.")
        left = {}
        for name, stub in content.get("_attachments", {}).items():
            if not stub["stub"] or stub["revpos"] != document.attachments[name].revpos:
                return _problem(412, "Invalid attachment stub")
            left[name] = document.attachments[name]
        fields = {key: value for key, value in content.items() if not key.startswith("_")}
        self.documents[doc_id] = made = Document(fields, left, document.number + 1)
        return _written(doc_id, made)

    def _shown(self, doc_id: str, with_encodings: bool) -> Json:
        document = self.documents[doc_id]
        shown: Json = {"_id": doc_id, "_rev": document.rev, **document.fields}
        for name, each in document.attachments.items():
            kept = each.compressed if each.is_compressed else each.data
            digest = hashlib.md5(kept, usedforsecurity=False).digest()
            shown.setdefault("_attachments", {})[name] = stub = {
                "content_type": each.content_type,
                "revpos": each.revpos,
                "digest": "md5-" + base64.b64encode(digest).decode(),
                "length": len(each.data),
                "stub": True,
            }
            if each.is_compressed and with_encodings:
                stub |= {"encoding": "gzip", "encoded_length": len(kept)}
        return shown

    def _in_store(self, method: str, parts: list[str], body: bytes) -> web.Response:
        if parts == ["health.html"] and method == "GET":
            return web.Response(text="All systems go.")
        if method == "PUT":
            sha512 = hashlib.sha512(body).hexdigest()
            self.names.append("/".join(parts))
            self.files[sha512] = body
            self.after_put()
            found = {"sha512": sha512, "filename": parts[0], "length": len(body)}
            said = found if self.acknowledged is None else self.acknowledged
            return web.Response(text=json.dumps(said))
        if parts[0] not in self.files:
            return web.Response(text="404 Not Found.\n", status=404)
        return web.Response(body=self.files[parts[0]])


def _written(doc_id: str, document: Document) -> web.Response:
    return web.json_response({"ok": True, "id": doc_id, "rev": document.rev}, status=201)


def _problem(status: int, reason: str) -> web.Response:
    return web.json_response({"error": "planned", "reason": reason}, status=status)
