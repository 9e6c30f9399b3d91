"""The asynchronous client: what one can ask of a node, of its blobs and its cluster.

Everything here is safe to try again, since a blob has the name of its bytes, and is tried again
when a connection fails or the node says "not now" (``Retry``). The one exception is a stream that
has begun to flow. Bytes are bounded in memory except where a method's purpose is to return them.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tierce.client import answers
from tierce.client.answers import Entry, Page, Stored
from tierce.client.downloads import PartFile, Reader, wrong_bytes
from tierce.client.objects import ObjectClient
from tierce.client.retrying import Retry, TryAgain
from tierce.client.uploads import (
    SMALL_FILE_BYTES,
    LocalFile,
    Progress,
    StreamBody,
    bytes_body,
    changed,
    file_body,
    hash_file,
    read_or_open,
)
from tierce.client.wire import Answer, Body, Wire
from tierce.core.digest import DEFAULT_ALGORITHM, Digest, new_hasher
from tierce.core.errors import Corrupt, DigestMismatch, Forbidden, NotFound, Unavailable


class Client(ObjectClient):
    """A client of one node. Use it in ``async with``; any number of tasks may share it.

    Every method may raise Refused (token), Unavailable (after the attempts that ``retry`` allows),
    Full, and BadRequest, besides what its own docstring names. Sizes are in bytes.
    """

    def __init__(self, url: str, token: str | None = None, *, retry: Retry | None = None) -> None:
        """``url`` is ``http://HOST:PORT`` of a native door. Raises BadRequest for a bad url or token."""
        self._wire = Wire(url, token, retry or Retry())

    async def __aenter__(self) -> Self:
        self._wire.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._wire.close()

    async def put_bytes(
        self, data: bytes, algorithm: str = DEFAULT_ALGORITHM, *, progress: Progress | None = None
    ) -> Stored:
        """Store bytes held in memory. They are on disk when this returns."""
        if len(data) <= SMALL_FILE_BYTES:
            digest = Digest.of(data, algorithm)
        else:
            digest = await asyncio.to_thread(Digest.of, data, algorithm)
        return await self._put(digest, len(data), bytes_body(data, progress))

    async def put_file(
        self,
        path: str | os.PathLike[str],
        algorithm: str = DEFAULT_ALGORITHM,
        *,
        progress: Progress | None = None,
    ) -> Stored:
        """Store a regular file, symbolic links followed. It is on disk there when this returns.

        What is stored is the file as it was hashed: bytes added since then are left out. Raises
        OSError if it can't be read, DigestMismatch if it changed meanwhile.
        """
        opened = await asyncio.to_thread(read_or_open, os.fspath(path))
        if not isinstance(opened, LocalFile):
            return await self.put_bytes(opened, algorithm, progress=progress)
        try:
            digest, size = await hash_file(opened, algorithm)
            try:
                return await self._put(digest, size, file_body(opened, size, progress))
            except DigestMismatch:
                raise changed(opened.path) from None
        finally:
            opened.close()

    async def put_stream(
        self,
        source: AsyncIterable[bytes],
        algorithm: str = DEFAULT_ALGORITHM,
        *,
        progress: Progress | None = None,
    ) -> Stored:
        """Store a stream of unknown length and digest. It is on disk when this returns.

        An interruption after its first byte is final, because it can't be replayed. Raises what
        the source raises, and Corrupt if the server hashed other bytes than were sent.
        """
        stream = StreamBody(source, algorithm, progress)

        async def attempt() -> Answer:
            try:
                return await self._wire.exchange(
                    "POST",
                    "/v1/blobs",
                    "the upload",
                    params={"algorithm": algorithm},
                    body=stream.body(),
                )
            except TryAgain as trouble:
                if not stream.started:
                    raise
                raise Unavailable(
                    f"{trouble.message}, in the middle of a stream",
                    hint="Send it again from the start, or store it as a file first.",
                ) from trouble

        answer = await self._wire.retried(attempt)
        return _checked(answers.stored(answer.status, answer.body), stream.digest, stream.size)

    async def get_bytes(self, digest: Digest) -> bytes:
        """A whole blob in memory, verified. Raises NotFound, Corrupt."""
        whole = bytearray()
        async with aclosing(self.stream(digest)) as pieces:
            async for piece in pieces:
                whole += piece
        return bytes(whole)

    async def stream(self, digest: Digest, start: int = 0) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from offset ``start`` on, in pieces, resumed after interruptions.

        From the beginning they are verified: after the last piece, Corrupt says that they were
        wrong, so don't trust them before the end. From elsewhere the caller must verify. Leave it
        early by ``contextlib.aclosing``. Raises NotFound, and BadRequest for a start beyond the end.
        """
        hasher = new_hasher(digest.algorithm)
        reader = Reader.of_blob(self._wire, digest, start)
        async with aclosing(reader.pieces()) as pieces:
            async for piece in pieces:
                if start == 0:
                    hasher.update(piece)
                yield piece
        actual = Digest(digest.algorithm, hasher.digest())
        if start == 0 and actual != digest:
            raise wrong_bytes(digest, actual, "Don't use them; the node's log should say more.")

    async def get_file(
        self,
        digest: Digest,
        path: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> int:
        """Write a blob to a file, verified and fsynced, in place of what was there; its size.

        The bytes gather in ``PATH.part``, and an interrupted download goes on from there. Raises
        NotFound, OSError, Conflict while another download writes to the same path, and Corrupt
        (the .part is removed) if the bytes are wrong.
        """
        part = await asyncio.to_thread(PartFile, os.fspath(path), digest.algorithm)
        try:
            while await asyncio.to_thread(part.hash_next):
                pass
            await self._complete(part, digest, progress)
            if part.digest() != digest:
                part.discard()
                hint = "The partial file was removed; fetch the blob again from the start."
                raise wrong_bytes(digest, part.digest(), hint)
            await asyncio.to_thread(part.commit)
        finally:
            part.close()
        return part.size

    async def stat(self, digest: Digest) -> int:
        """The size of a blob. Raises NotFound."""
        return (await self._head(digest))[0]

    async def list(self, after: Digest | None = None, limit: int | None = None) -> Page:
        """One page of the node's own blobs in digest order, beginning behind ``after``.

        ``limit`` bounds the page; without it the server chooses.
        """
        params = {}
        if after is not None:
            params["after"] = str(after)
        if limit is not None:
            params["limit"] = str(limit)
        answer = await self._ask("GET", "/v1/blobs", "the listing", params)
        return answers.page(answer.body)

    async def iterate(self, after: Digest | None = None) -> AsyncGenerator[Entry, None]:
        """All of the node's own blobs in digest order, page by page."""
        while True:
            page = await self.list(after)
            for entry in page.entries:
                yield entry
            if page.next is None:
                return
            if after is not None and page.next <= after:
                raise answers.foreign("its listing goes round in circles")
            after = page.next

    async def delete(self, digest: Digest) -> None:
        """Remove a blob, all its copies in the cluster.

        Raises NotFound, unless an attempt before the last may have removed it; and Unavailable while
        a node is down, as that could bring the blob back.
        """
        await self._remove("DELETE", f"/v1/blobs/{digest}", str(digest))

    async def status(self) -> dict[str, Any]:
        """What the node says about itself."""
        return answers.json_object((await self._ask("GET", "/v1/status", "the status")).body)

    async def cluster(self) -> dict[str, Any]:
        """What the node says about the cluster and its nodes (docs/native-api.md).

        ``answers.overview`` gives it types.
        """
        return answers.json_object((await self._ask("GET", "/v1/cluster", "the cluster")).body)

    async def drain(self, node_id: str, cancel: bool = False) -> None:
        """Have a node emptied before it leaves; with ``cancel``, have it used again.

        Returns once the order is taken; :meth:`cluster` says when the node is ``drained``. Raises
        NotFound for an unknown node, and Conflict for one that can't be drained.
        """
        path = f"/v1/cluster/nodes/{quote(node_id, safe='')}/drain"
        await self._ask("DELETE" if cancel else "POST", path, f"the node {node_id}")

    async def forget(self, node_id: str) -> None:
        """Strike a node that will not come back from the cluster; its blobs are copied at once.

        Raises NotFound, unless an attempt before the last may have struck it, and Conflict for a
        node that is not down.
        """
        path = f"/v1/cluster/nodes/{quote(node_id, safe='')}/forget"
        await self._remove("POST", path, f"the node {node_id}")

    async def compare_store(self) -> int:
        """Have the node compare its store in the cloud with its catalogue; the comparison's number.

        It is done when ``agent.store.comparisons`` in the :meth:`status` is at that number. Raises
        Conflict for a node without such a store.
        """
        answer = await self._ask("POST", "/v1/store/compare", "the store")
        return int(answers.json_object(answer.body)["comparison"])

    async def _put(self, digest: Digest, size: int, body: Body) -> Stored:
        if size > SMALL_FILE_BYTES and await self._is_there(digest):
            return Stored(digest, size, created=False)

        async def attempt() -> Answer:
            return await self._wire.exchange("PUT", f"/v1/blobs/{digest}", str(digest), body=body)

        answer = await self._wire.retried(attempt)
        return _checked(answers.stored(answer.status, answer.body), digest, size)

    async def _is_there(self, digest: Digest) -> bool:
        try:
            await self._head(digest)
        except (NotFound, Forbidden):  # a token may have the right to write alone
            return False
        return True

    async def _head(self, digest: Digest) -> tuple[int, str | None]:
        """The size of a blob and its entity tag."""
        headers = (await self._ask("HEAD", f"/v1/blobs/{digest}", str(digest))).headers
        size = headers.get("Content-Length", "")
        if not size.isdecimal():
            raise answers.foreign("it tells no size")
        return int(size), headers.get("ETag")

    async def _complete(self, part: PartFile, digest: Digest, progress: Progress | None) -> None:
        """Fetch what the part file lacks."""
        etag = None
        if part.size:
            size, etag = await self._head(digest)
            if part.size > size:
                await asyncio.to_thread(part.restart)
            elif part.size == size:
                return
        reader = Reader.of_blob(self._wire, digest, part.size, etag)
        async with aclosing(reader.pieces()) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(part.append, piece)
                if progress is not None:
                    progress(part.size, reader.total)


def _checked(stored: Stored, digest: Digest, size: int) -> Stored:
    """Believe no acknowledgement of other bytes than were sent."""
    if (stored.digest, stored.size) != (digest, size):
        raise Corrupt(
            f"the server stored {stored.size} bytes as {stored.digest}, "
            f"but {size} bytes of {digest} were sent",
            hint="Send them again; if it happens again, look for failing hardware on the way.",
        )
    return stored
