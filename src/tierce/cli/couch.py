"""``tierce couch``: attachments of a CouchDB database into the store, and back."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import click

from tierce.cli.progress import Meter, plain_name, reason_of
from tierce.cli.remote import read_token, run
from tierce.client.couch import Couch, Listed, Moved, NoDocument, Notice
from tierce.client.couch_documents import Json
from tierce.core.errors import BadRequest, TierceError, Unavailable
from tierce.core.sizes import parse_size

F = TypeVar("F", bound=Callable[..., Any])
Work = Callable[[Couch, Json, Notice], Awaitable[Moved]]

_AT_ONCE = 4
FAILURES_IN_A_ROW = 20
"""As many say that it is not the documents that fail."""


class _Done(NamedTuple):
    """What a run came to, or a document of it."""

    documents: int = 0
    attachments: int = 0
    bytes: int = 0
    left: int = 0
    failed: int = 0


class _Batch:
    """Documents under treatment, a few at a time. Use it as a context: ``done`` is final at its end.

    An error of ours in the block lets those that are under way end; anything else cancels them.
    ``are_named``: the user has named each, so none may be missing.
    """

    def __init__(self, couch: Couch, meter: Meter, work: Work, *, are_named: bool) -> None:
        self.done = _Done()
        self._couch = couch
        self._meter = meter
        self._work = work
        self._are_named = are_named
        self._running: set[asyncio.Task[_Done]] = set()
        self._failures_in_a_row = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None or isinstance(error, TierceError):
                self._count(await asyncio.gather(*self._running))
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def add(self, listed: Listed) -> None:
        """Begin with a document, as soon as there is a place. Raises Unavailable if all fail."""
        if len(self._running) >= _AT_ONCE:
            ended, self._running = await asyncio.wait(
                self._running, return_when=asyncio.FIRST_COMPLETED
            )
            self._count([each.result() for each in ended])
        if self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise Unavailable(
                f"{self._failures_in_a_row} documents in a row failed",
                hint="Run it again when the reason is gone: what is done stays done.",
            )
        self._running.add(asyncio.create_task(self._treat(listed)))

    def _count(self, ended: Sequence[_Done]) -> None:
        for each in ended:
            self._failures_in_a_row = self._failures_in_a_row + 1 if each.failed else 0
            self.done = _Done(*(sum(pair) for pair in zip(self.done, each, strict=True)))

    async def _treat(self, listed: Listed) -> _Done:
        name, meter = plain_name(listed.doc_id), self._meter
        try:
            document = listed.document or await self._couch.document(listed.doc_id)
            moved = await self._work(self._couch, document, meter.count)
        except NoDocument as error:
            if not self._are_named:  # deleted since it was listed
                return _Done()
            meter.complain(f"tierce: {name}: {reason_of(error)}")
            return _Done(failed=1)
        except TierceError as error:
            meter.complain(f"tierce: {name}: {reason_of(error)}")
            return _Done(failed=1)
        for each in moved.left:
            meter.complain(
                f"tierce: {name}: there is another attachment {plain_name(each)}: it was left, and"
                " the file in the store too"
            )
        for each in moved.aside:
            meter.complain(f"tierce: {name}: an earlier file is named {plain_name(each)} now")
        if not moved.attachments:
            return _Done(left=len(moved.left))
        meter.say(f"{name}: {_counted(moved.attachments, moved.bytes)}")
        return _Done(1, moved.attachments, moved.bytes, len(moved.left))


@click.group(
    epilog="""\b
Examples:
  tierce couch offload --db http://localhost:5984/photos --store http://localhost:8080/
  tierce couch offload --db http://localhost:5984/photos --doc beach-2015 --min-size 1MiB
  tierce couch restore --db http://localhost:5984/photos

User and password of the database are taken from its URL, or from COUCHDB_USER and
COUCHDB_PASSWORD, where no other user of the machine sees them.
"""
)
def command() -> None:
    """Move attachments of a CouchDB database into the store, or back.

    The document keeps their SHA-512 in its field dtfc, by name. Nothing is taken away on one side
    before it was read back, whole, from the other. Stop it at any time, and run it again.
    docs/couch.md tells more.
    """


def _couch_options(function: F) -> F:
    for option in reversed(
        (
            click.option(
                "--db", "database", metavar="URL", required=True, help="URL of the database."
            ),
            click.option(
                "--doc",
                "doc_ids",
                metavar="ID",
                multiple=True,
                help="Only this document.  May be repeated.",
            ),
            click.option(
                "--store",
                metavar="URL",
                envvar="TIERCE_DTFC_URL",
                default="http://127.0.0.1:8080/",
                show_default=True,
                help="Where a dtfc door answers.  (TIERCE_DTFC_URL)",
            ),
            click.option(
                "--token-file",
                metavar="FILE",
                help="File with the token for the store.  [default: the token in TIERCE_TOKEN]",
            ),
        )
    ):
        function = option(function)
    return function


@command.command()
@_couch_options
@click.option(
    "--min-size",
    metavar="SIZE",
    default="0",
    show_default=True,
    help="Leave smaller attachments where they are.",
)
def offload(
    database: str, doc_ids: tuple[str, ...], store: str, token_file: str | None, min_size: str
) -> int:
    """Move attachments into the store, and their hashes into the documents."""
    min_bytes = parse_size(min_size)

    async def work(couch: Couch, document: Json, moved: Notice) -> Moved:
        return await couch.offload(document, min_bytes=min_bytes, moved=moved)

    return run(_all(_couch(database, store, token_file), doc_ids, work, "moved into the store"))


@command.command()
@_couch_options
def restore(database: str, doc_ids: tuple[str, ...], store: str, token_file: str | None) -> int:
    """Make the attachments again that were moved into the store."""

    async def work(couch: Couch, document: Json, moved: Notice) -> Moved:
        return await couch.restore(document, moved=moved)

    return run(_all(_couch(database, store, token_file), doc_ids, work, "made again"))


def _couch(database: str, store: str, token_file: str | None) -> Couch:
    user, password = os.environ.get("COUCHDB_USER"), os.environ.get("COUCHDB_PASSWORD")
    if bool(user) != bool(password):
        raise BadRequest(
            "only one of COUCHDB_USER and COUCHDB_PASSWORD is set", hint="Set both, or none."
        )
    credentials = (user, password) if user and password else None
    return Couch(database, store, user=credentials, token=read_token(token_file))


async def _all(couch: Couch, doc_ids: Sequence[str], work: Work, done_what: str) -> int:
    """Treat documents; returns the exit code. Raises what ended it early, when the sums are said."""
    problem: TierceError | None = None
    async with couch:
        await couch.check()
        with Meter() as meter:
            batch = _Batch(couch, meter, work, are_named=bool(doc_ids))
            try:
                async with batch:
                    async for listed in _listed(couch, doc_ids):
                        await batch.add(listed)
            except TierceError as error:
                problem = error
    done = batch.done
    click.echo(
        f"{_counted(done.attachments, done.bytes)} of {_number(done.documents, 'document')}"
        f" {done_what}"
        + (f", {done.left} left" if done.left else "")
        + (f", {_number(done.failed, 'document')} failed" if done.failed else "")
    )
    if problem is not None:
        raise problem
    return 1 if done.failed or done.left else 0


async def _listed(couch: Couch, doc_ids: Sequence[str]) -> AsyncIterator[Listed]:
    if not doc_ids:
        async for listed in couch.documents():
            yield listed
    for doc_id in dict.fromkeys(doc_ids):
        yield Listed(doc_id, None)


def _counted(attachments: int, size: int) -> str:
    return f"{_number(attachments, 'attachment')} ({size} bytes)"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
