"""Objects by path on any service of OpenDAL: what a store needs of one, with its failures as ours.

Every failure but "there is no such object" is Unavailable, with a hint: missing rights and expired
credentials are the operator's to put right, and the store's clients have nothing to do with them.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import opendal
from opendal.options import WriteKwargs

from tierce.cloud.address import Address, parse_address
from tierce.cloud.failures import OPENDAL_ERRORS, STORE, Lasting, Passing, translate
from tierce.cloud.opening import open_operator
from tierce.cloud.pacing import RequestPace
from tierce.cloud.retrying import Patience, Retrying
from tierce.cloud.telling import checks_itself, md5_of, tag_of
from tierce.cloud.writing import CLOUD_PART_BYTES, CLOUD_WHOLE_BYTES, Content, Writer
from tierce.core.errors import BadRequest, NotFound, TierceError, TooLarge, Unavailable
from tierce.core.limits import CLOUD_LIST_PAGE
from tierce.core.metrics import STORE_READ_BYTES, STORE_REQUESTS, STORE_WRITTEN_BYTES

T = TypeVar("T")


COPY_SECONDS = 300.0
"""The longest that a service may take to copy an object. It says nothing until that is done."""


class Entry(NamedTuple):
    """An object: its path, its size in bytes, and its entity tag, empty where there is none.

    ``md5`` is that of its content in hex, where the service tells it; else empty (telling.py).
    ``modified`` is when it was written, seconds since 1970; 0 where that is not told.
    """

    path: str
    size: int
    etag: str
    md5: str
    modified: float = 0.0


class CutShort(NotFound):
    """The object is there, and has fewer bytes than it should."""


def open_bucket(
    url: str,
    *,
    patience: Patience | None = None,
    part_bytes: int = CLOUD_PART_BYTES,
    environ: Mapping[str, str] = os.environ,
    own: Mapping[str, str] = MappingProxyType({}),
    pace: RequestPace | None = None,
) -> "Bucket":
    """The bucket that a URL names (docs/storage.md), without asking it anything yet.

    ``own`` is as in address.py. Its requests keep to ``pace``; without one, to what the service says
    only.
    Raises BadRequest, with a hint, for a URL that can't be used.
    """
    address = parse_address(re.sub(r"^file:", "fs:", url), environ, STORE, own=own)
    hint = "Check the store's URL and its options; see docs/storage.md."
    operator = open_operator(address, STORE, hint)
    can = operator.capability()
    if not (can.write and can.read and can.stat and can.list and can.delete):
        raise BadRequest(
            f"{address.service} can't be a store: it must write, read, list and delete",
            hint="Use another service, such as S3 or WebDAV.",
        )
    patience = patience or Patience()
    return Bucket(operator, address, patience=patience, part_bytes=part_bytes, pace=pace)


class Bucket:
    """All methods may be called concurrently, from one event loop.

    ``requests`` counts what was sent, vain attempts too, by its kind. Those that ask the service
    raise Unavailable. ``marker`` is the name of an object that stays in a directory once it was seen
    there: so that nothing is written where a share is not mounted any more.
    """

    def __init__(
        self,
        operator: opendal.AsyncOperator,
        address: Address,
        *,
        patience: Patience,
        part_bytes: int = CLOUD_PART_BYTES,
        pace: RequestPace | None = None,
    ) -> None:
        can = operator.capability()
        self._operator = operator
        # What comes can be seen coming: a read fails when nothing comes, however much is asked for.
        self._reading = operator.layer(
            opendal.layers.TimeoutLayer(
                timeout=patience.stall_seconds, io_timeout=patience.stall_seconds
            )
        )
        self._address = address
        self._retrying = Retrying(patience, what=STORE, pace=pace, on_answer=self._answered)
        self._writer = Writer(operator, address.service, part_bytes, self._retrying)
        self._root = address.options.get("root", "") if address.service == "fs" else ""
        self._problem = ""
        # OpenDAL 0.47.12 can't read Dropbox's answer to a copy: it is made, and reported as failed.
        self.can_copy = can.copy and address.service != "dropbox"
        self._can_be_new = can.write_with_if_not_exists and not self._root
        self._has_marker = False
        self.marker = ""
        self.requests = {"write": 0, "read": 0, "look": 0, "list": 0, "delete": 0, "copy": 0}
        self.read_bytes = 0
        self.written_bytes = 0

    @property
    def is_left_alone(self) -> bool:
        """Whether it failed so often of late that for some seconds nothing is sent."""
        return self._retrying.circuit.is_open

    @property
    def shown(self) -> str:
        """Its URL, fit for logs."""
        return self._address.shown

    @property
    def checks_itself(self) -> bool:
        """Whether the service looks after its bytes, so that an entity tag proves them."""
        return checks_itself(self._address)

    @property
    def part_bytes(self) -> int:
        """Above this size an object is written in parts, if the service takes parts."""
        return self._writer.part_bytes

    @property
    def turn_seconds(self) -> float:
        """The longest that a request waits before it is sent."""
        return self._retrying.patience.total_seconds

    async def write(self, path: str, content: Content, *, is_new: bool = False) -> None:
        """Put an object, in place of another one too; it is there, whole, when this returns.

        On a directory it is synced as well. Raises TooLarge for what the service can't take.
        ``is_new``: raise Unavailable if there is one already, where the service can tell.
        """
        options: WriteKwargs = {"if_not_exists": True} if is_new and self._can_be_new else {}
        if not self._writer.in_parts and content.size > CLOUD_WHOLE_BYTES:
            raise TooLarge(
                f"the blob has {content.size} bytes, and {self._address.service} takes "
                f"{CLOUD_WHOLE_BYTES} as a store",
                hint="Use a store on a service that takes large objects in parts, such as S3.",
            )
        await self._check_directory(is_change=True)
        try:
            await self._ours(self._writer.write(path, content, options))
        except NotFound as error:
            raise Unavailable(error.message, hint="Check that the bucket is there.") from None
        self.written_bytes += content.size
        STORE_WRITTEN_BYTES.inc(content.size)
        if self._root:
            await _on_disk(_sync_file, self._root, path)

    async def read(self, path: str, start: int, length: int) -> bytes:
        """Exactly these bytes of an object. Raises NotFound, CutShort if it ends before."""
        if length == 0:
            return b""

        async def attempt() -> bytes:
            try:
                data = await self._reading.read(path, offset=start, size=length)
            except OPENDAL_ERRORS as error:
                failure = translate(error, doing, STORE)
                if isinstance(failure, Passing) or not isinstance(failure, Unavailable):
                    raise
                data = b""  # perhaps because the object has no such bytes
                reason = failure.message
            else:
                reason = f"the store sent {len(data)} bytes of {length} of {path}"
            if len(data) == length:
                return data
            told = await self._operator.stat(path)
            if told.content_length < start + length:
                raise CutShort(f"{path} has {told.content_length} bytes in the store")
            raise Passing(reason, hint="Try again later.")

        doing = f"reading {path}"
        await self._check_directory()
        seconds = self._retrying.patience.body_seconds(length)
        data = await self._run("read", doing, attempt, seconds=seconds)
        self.read_bytes += length
        STORE_READ_BYTES.inc(length)
        return data

    async def look(self, path: str) -> Entry:
        """What the service tells of an object. Raises NotFound."""
        await self._check_directory()
        told = await self._run("look", f"looking at {path}", lambda: self._operator.stat(path))
        return _entry(path, told)

    async def delete(self, path: str, *, attempts: int | None = None) -> None:
        """Remove an object, if it is there."""
        await self._check_directory(is_change=True)

        async def attempt() -> None:
            await self._operator.delete(path)

        try:
            await self._run("delete", f"deleting {path}", attempt, attempts=attempts)
        except NotFound:
            return
        if self._root:
            await _on_disk(_sync_parent, self._root, path)

    async def copy(self, path: str, to: str) -> None:
        """Copy an object inside the bucket. Raises NotFound."""
        await self._run(
            "copy",
            f"copying {path}",
            lambda: self._operator.copy(path, to),
            seconds=COPY_SECONDS,
        )

    async def list(self, prefix: str) -> AsyncGenerator[Entry, None]:
        """What is directly below ``prefix``, which ends in a slash or is empty: in no order.

        Paths that end in a slash are prefixes in their turn.
        """
        await self._check_directory()
        doing = f"listing {prefix}"
        lister = await self._run("list", doing, lambda: self._operator.list(prefix))
        entries = aiter(lister)
        count = 0
        while True:
            # A page that failed can't be asked for again, so the whole listing fails.
            is_page = count > 0 and count % CLOUD_LIST_PAGE == 0
            kind = "list" if is_page else ""
            found = await self._ours(
                self._retrying.once(
                    doing, lambda: anext(entries, None), is_request=is_page, kind=kind
                )
            )
            if found is None:
                return
            count += 1
            if found.path != prefix and found.path != "/":
                told = found.metadata
                yield _entry(found.path, told)

    async def listed(self, prefix: str) -> Sequence[Entry]:
        """All that ``list`` gives. If a page fails in a way that may pass, it begins again."""
        trials = self._retrying.trials()
        while True:
            try:
                async with aclosing(self.list(prefix)) as found:
                    return [entry async for entry in found]
            except Passing as error:
                await trials.pause(error)

    def status(self) -> dict[str, object]:
        """How it goes, since this process began, for status pages.

        ``problem`` is what the operator must put right, such as rights that are missing.
        """
        return {
            "url": self.shown,
            **self._retrying.circuit.status(),
            "pace": self._retrying.pace.status(),
            "problem": self._problem,
            "requests": dict(self.requests),
            "read_bytes": self.read_bytes,
            "written_bytes": self.written_bytes,
        }

    def _answered(self, kind: str, result: str) -> None:
        self.requests[kind] += 1
        STORE_REQUESTS.labels(kind, result).inc()

    async def _run(
        self,
        kind: str,
        doing: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        seconds: float | None = None,
        attempts: int | None = None,
    ) -> T:
        return await self._ours(
            self._retrying.run(doing, attempt, seconds=seconds, attempts=attempts, kind=kind)
        )

    async def _ours(self, request: Awaitable[T]) -> T:
        """What is no answer about the object itself is Unavailable."""
        try:
            answer = await request
        except Lasting as error:
            self._problem = f"{error.message}. {error.hint}"
            raise
        except (NotFound, TooLarge, Unavailable):
            raise
        except TierceError as error:
            self._problem = f"{error.message}. {error.hint}"
            raise Unavailable(error.message, hint=error.hint) from error
        self._problem = ""
        return answer

    async def _check_directory(self, *, is_change: bool = False) -> None:
        """A directory that vanished, or lost its marker, is a disk that is not mounted."""
        if not self._root:
            return
        marker = os.path.join(self._root, self.marker)
        if bool(self.marker) and await asyncio.to_thread(os.path.exists, marker):
            self._has_marker = True
            return
        if not await asyncio.to_thread(os.path.isdir, self._root):
            message = f"the store's directory {self._root!a} is not there"
        elif is_change and self._has_marker:
            message = f"{self.marker} is missing in the store: it is not the directory that it was"
        else:
            return
        error = Unavailable(message, hint="Mount what it is on, or make it.")
        self._problem = f"{error.message}. {error.hint}"
        raise error


def _entry(path: str, told: opendal.types.Metadata) -> Entry:
    modified = told.last_modified.timestamp() if told.last_modified else 0.0
    tag, md5 = tag_of(told.etag), md5_of(told.content_md5)
    return Entry(path, told.content_length, tag, md5, modified)


async def _on_disk(sync: Callable[[str, str], None], root: str, path: str) -> None:
    """Make a change to a directory durable. Raises Unavailable."""
    try:
        await asyncio.to_thread(sync, root, path)
    except OSError as error:
        raise Unavailable(
            f"the {STORE} failed while syncing {path}: {error.strerror or error}",
            hint="Look at the disk or share that the store is on.",
        ) from error


def _sync_file(root: str, path: str) -> None:
    """Make a file durable, and the names that lead to it."""
    fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    _sync_parent(root, path)


def _sync_parent(root: str, path: str) -> None:
    parts = path.split("/")[:-1]
    for count in range(len(parts), -1, -1):
        directory = os.path.join(root, *parts[:count])
        if not os.path.isdir(directory):
            continue
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
