"""Attachments of a CouchDB database into a store of files, and back: one document at a time.

A document's attachment is read, given to the store under its SHA-512, read back from there whole, and
only then taken out of the document, in the same write that puts its hash into the document's map
``dtfc``. So at any moment each attachment is in the document, or in the store and named by the document.
That write names the revision that was read: a document that somebody changed meanwhile is looked at
anew. Nothing is remembered between runs: what is done shows in the documents.

The store is a dtfc door (docs/dtfc.md), or a dtfc program; the map is the one that dtfc's README has,
with what it takes to make the attachment again besides. What users are told is in docs/couch.md.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote

from tierce.client.couch_documents import (
    FIELD,
    UNKNOWN_TYPE,
    Json,
    checked,
    enter,
    foreign,
    map_of,
    sha512_in,
    stubs_of,
    type_in,
)
from tierce.client.couch_sites import Received, Site, json_body
from tierce.client.wire import STALL_SECONDS
from tierce.core.dtfc import cleaned_name
from tierce.core.errors import BadRequest, Conflict, Corrupt, NotFound, TooLarge, Unavailable
from tierce.core.limits import MIB
from tierce.core.wording import quoted

PAGE_DOCUMENTS = 100
PAGE_BYTES = 16 * MIB
"""Of larger pages only the ids are asked for, and each document by itself."""
DOCUMENT_BYTES = 256 * MIB
TRIES_COUNT = 5

_NO_DATA = ("_design/", "_local/")
_REFRESH = "refreshpeers.html"  # as a path it is an order to a dtfc program


class NoDocument(NotFound):
    """The database has no such document, or no longer."""


class _NoAttachment(NotFound):
    """The revision of the document that was read has no such attachment, or no longer."""


class Moved(NamedTuple):
    """What became of a document: how many attachments were moved, and their bytes.

    ``left`` are the names of those that could not be made again, as others are in their places;
    ``aside`` the names that files in the map got whose own names were needed for new ones.
    """

    attachments: int = 0
    bytes: int = 0
    left: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


class Listed(NamedTuple):
    """A document of a listing; None in place of one that is to be asked for by itself."""

    doc_id: str
    document: Json | None


Notice = Callable[[int], None]


class Couch:
    """A database, and the store beside it. Use it as a context; all methods may run concurrently.

    ``database`` is its URL, with user and password in it or in ``user``; ``store`` the base URL of a
    dtfc door, which gets ``token`` if there is one. Raises BadRequest for what can't be either.
    """

    def __init__(
        self,
        database: str,
        store: str,
        *,
        user: tuple[str, str] | None = None,
        token: str | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._database = Site(
            database,
            "the database",
            user=user,
            headers={"Accept": "*/*, application/json"},
            stall_seconds=stall_seconds,
        )
        if not self._database.has_path:
            raise BadRequest(
                "the URL names no database", hint="Write it as in http://HOST:5984/DATABASE."
            )
        # A dtfc program sends plain requests to https unless a proxy says that they came that way.
        self._store = Site(
            store,
            "the store",
            token=token,
            headers={"X-Forwarded-Proto": "https"},
            stall_seconds=stall_seconds,
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Couch":
        await self._stack.enter_async_context(self._database)
        await self._stack.enter_async_context(self._store)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def check(self) -> None:
        """Return if both servers answer as what they are to be. Raises what keeps one from it."""
        if "doc_count" not in await self._database.get_json("", "", MIB):
            raise BadRequest(
                "the URL is not that of a database",
                hint="Write it as in http://HOST:5984/DATABASE.",
            )
        await self._store.sha512("/health.html", "health.html")

    async def documents(self) -> AsyncIterator[Listed]:
        """All documents but design documents, in the order of their ids."""
        start: str | None = None
        while True:
            try:
                rows = await self._rows(start, with_documents=True)
            except TooLarge:
                rows = await self._rows(start, with_documents=False)
            for doc_id, document in rows[:PAGE_DOCUMENTS]:
                if not doc_id.startswith(_NO_DATA):
                    yield Listed(doc_id, document)
            if len(rows) <= PAGE_DOCUMENTS:
                return
            start = rows[PAGE_DOCUMENTS].doc_id

    async def document(self, doc_id: str) -> Json:
        """One document, without its attachments' content. Raises NoDocument.

        Raises BadRequest for a document of the design, whose attachments the database itself serves.
        """
        if doc_id.startswith(_NO_DATA):
            raise BadRequest("design documents and local ones are left alone")
        # An attachment that is kept compressed has the digest of that: it must be told apart.
        path = f"/{_escaped(doc_id)}?att_encoding_info=true"
        try:
            found = await self._database.get_json(
                path, f"document {quoted(doc_id)}", DOCUMENT_BYTES
            )
        except NotFound as problem:
            raise NoDocument(problem.message, hint=problem.hint) from problem
        return checked(found)

    async def offload(
        self, document: Json, *, min_bytes: int = 0, moved: Notice = lambda _: None
    ) -> Moved:
        """Move a document's attachments of at least ``min_bytes`` into the store: all, or none.

        ``moved`` hears of the bytes of each that is safe there. Raises Conflict if somebody changes
        the document again and again, NoDocument if it was deleted, Corrupt if what the store gives
        back is something else, and what the two servers refuse.
        """
        # What is in the store already needs no second way there because another field was changed.
        proved: dict[str, Json] = {}

        async def step(document: Json) -> Moved:
            attachments = stubs_of(document)
            wanted = [
                name for name, stub in attachments.items() if int(stub["length"]) >= min_bytes
            ]
            kept, aside = map_of(document), []
            for name in wanted:
                key = json.dumps([name, attachments[name]], sort_keys=True)
                if key not in proved:
                    proved[key] = await self._store_attachment(document, name, attachments[name])
                    moved(proved[key]["length"])
                aside += enter(kept, name, proved[key])
            if not wanted:
                return Moved()
            left = {name: stub for name, stub in attachments.items() if name not in wanted}
            await self._write({**document, "_attachments": left, FIELD: kept})
            return Moved(len(wanted), sum(kept[name]["length"] for name in wanted), (), (*aside,))

        return await self._settled(document, step)

    async def restore(self, document: Json, *, moved: Notice = lambda _: None) -> Moved:
        """Make the attachments of a document's map again, and take them out of the map.

        An attachment of the same name with other content is left, and so is its entry in the map.
        Raises as :meth:`offload` does, and NotFound for what the store has not.
        """

        async def step(document: Json) -> Moved:
            kept, left, size = map_of(document), [], 0
            for name, entry in kept.items():
                document, length = await self._attach(document, name, entry)
                if length is None:
                    left.append(name)
                else:
                    size += length
                    moved(length)
            if len(left) < len(kept):
                changed = {key: value for key, value in document.items() if key != FIELD}
                if left:
                    changed[FIELD] = {name: kept[name] for name in left}
                await self._write(changed)
            return Moved(len(kept) - len(left), size, (*left,))

        return await self._settled(document, step)

    async def _settled(self, document: Json, step: Callable[[Json], Awaitable[Moved]]) -> Moved:
        """Do something with a document, and with what it is then if somebody changed it meanwhile."""
        for _ in range(TRIES_COUNT):
            try:
                return await step(document)
            except (Conflict, _NoAttachment):
                newer = await self.document(document["_id"])
                if newer["_rev"] == document["_rev"]:
                    raise
                document = newer
        raise Conflict(
            "the document changed again and again meanwhile", hint="Run it again: nothing was lost."
        )

    async def _store_attachment(self, document: Json, name: str, stub: Json) -> Json:
        """Give one attachment to the store, and prove it there. Returns its entry for the map."""
        what = f"attachment {quoted(name)}"
        async with self._attachment(document, name) as held:
            _check_received(held, stub, what)
            answer = await self._store.put(_store_path(name), what, held.body())
        if answer.get("sha512") != held.sha512:
            raise Corrupt(
                f"the store does not say that it has the {what}",
                hint="It stays in the document. Look at the store's log and its disk.",
            )
        try:
            back = await self._store.sha512(f"/{held.sha512}/nopeerload", what)
        except NotFound as problem:
            raise Unavailable(
                f"the store took the {what}, but does not have it",
                hint="It stays in the document. What was deleted in a dtfc program stays away there"
                " until the file 404 is removed from its directory.",
            ) from problem
        if back != held.sha512:
            raise Corrupt(
                f"the store gives the {what} back with other bytes",
                hint="It stays in the document. Look at the store's disk.",
            )
        kind = stub.get("content_type") or UNKNOWN_TYPE
        return {"sha512": held.sha512, "length": held.size, "content_type": kind}

    async def _attach(self, document: Json, name: str, entry: object) -> tuple[Json, int | None]:
        """Make an attachment from a file of the store, and prove it in the database.

        Returns the document as it is then, and the size in bytes; None: another one has its name.
        """
        sha512, what = sha512_in(entry, name), f"attachment {quoted(name)}"
        stub = stubs_of(document).get(name)
        if stub is not None:
            is_it = await self._attached_sha512(document, name) == sha512
            return document, int(stub["length"]) if is_it else None
        async with self._store.received(f"/{sha512}", f"file {sha512[:16]}… of {what}") as held:
            if held.sha512 != sha512:
                raise Corrupt(f"the store gives the {what} with other bytes than its hash says")
            headers = {"Content-Type": type_in(entry) or held.content_type or UNKNOWN_TYPE}
            path = _attachment_path(document, name)
            answer = await self._database.put(path, what, held.body(), headers)
        newer = await self.document(document["_id"])
        if newer["_rev"] != answer.get("rev"):
            raise Conflict("somebody else has changed the document just now")
        if await self._attached_sha512(newer, name) != sha512:
            raise Corrupt(
                f"the database gives the {what} back with other bytes",
                hint=f"It is still in {FIELD}. Take the attachment away, and run it again.",
            )
        return newer, held.size

    async def _attached_sha512(self, document: Json, name: str) -> str:
        try:
            return await self._database.sha512(
                _attachment_path(document, name), f"attachment {quoted(name)}"
            )
        except NotFound as problem:
            raise _NoAttachment(problem.message) from problem

    @asynccontextmanager
    async def _attachment(self, document: Json, name: str) -> AsyncIterator[Received]:
        async with AsyncExitStack() as stack:
            reading = self._database.received(
                _attachment_path(document, name),
                f"attachment {quoted(name)}",
                # What is kept compressed has its digest in that form only.
                inflate="encoding" in stubs_of(document)[name],
            )
            try:
                held = await stack.enter_async_context(reading)
            except NotFound as problem:
                raise _NoAttachment(problem.message) from problem
            yield held

    async def _write(self, document: Json) -> None:
        """Write a document over the revision it names. Raises Conflict if somebody was first."""
        if not document.get("_attachments"):
            document = {key: value for key, value in document.items() if key != "_attachments"}
        what = f"document {quoted(document['_id'])}"
        await self._database.put(
            f"/{_escaped(document['_id'])}",
            what,
            json_body(document, what),
            {"Content-Type": "application/json"},
        )

    async def _rows(self, start: str | None, *, with_documents: bool) -> list[Listed]:
        query = f"?limit={PAGE_DOCUMENTS + 1}"
        if with_documents:
            query += "&include_docs=true&att_encoding_info=true"
        if start is not None:
            query += "&startkey=" + quote(json.dumps(start), safe="")
        limit = PAGE_BYTES if with_documents else DOCUMENT_BYTES
        rows = (await self._database.get_json("/_all_docs" + query, "", limit)).get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise foreign()
        # One that was deleted just now has a row, but is none.
        return [
            Listed(str(row.get("id")), checked(row["doc"]) if with_documents else None)
            for row in rows
            if not with_documents or row.get("doc") is not None
        ]


def _check_received(held: Received, stub: Json, what: str) -> None:
    """Compare an attachment with what its document says of it. Raises Corrupt.

    The digest is that of the compressed bytes if it is kept compressed. What came to the database
    compressed already is announced with the size of that, too.
    """
    is_compressed = "encoding" in stub
    compressed = stub.get("encoded_length", held.sent_bytes)
    if held.is_inflated:
        announced, found = compressed, held.sent_bytes
    elif is_compressed and compressed == stub["length"]:
        announced = found = held.size
    else:
        announced, found = stub["length"], held.size
    if announced != found:
        raise Corrupt(f"the {what} came with {found} bytes, and {announced} were announced")
    if held.is_inflated == is_compressed and stub.get("digest", held.sent_md5) != held.sent_md5:
        raise Corrupt(f"the {what} does not have the digest that the database gives")


def _store_path(name: str) -> str:
    """Where to put a file. Cleaned as the store itself does, a name is one plain piece of a path."""
    cleaned = cleaned_name(name.replace("/", "-")) or "attachment"
    return f"/attachment-{cleaned}" if cleaned == _REFRESH else f"/{cleaned}"


def _attachment_path(document: Json, name: str) -> str:
    return f"/{_escaped(document['_id'])}/{_escaped(name)}?rev={quote(document['_rev'], safe='')}"


def _escaped(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")
