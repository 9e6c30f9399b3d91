"""The part of the client that is about named objects, and how it asks for things at all.

A write without conditions may be sent again after any trouble: it makes the same change once more. One
with a condition may be refused the second time for what the first did; the error then says so, because
nobody can tell that from a write of somebody else.
"""

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from typing import TypedDict, Unpack
from urllib.parse import quote

from tierce.client import answers, object_answers
from tierce.client.downloads import Reader, wrong_bytes
from tierce.client.object_answers import ChangesPage, FetchedObject, ObjectInfo, ObjectPage
from tierce.client.retrying import TryAgain
from tierce.client.uploads import (
    LocalFile,
    StreamBody,
    bytes_body,
    changed,
    file_body,
    hash_file,
    read_or_open,
)
from tierce.client.wire import Answer, Body, Wire
from tierce.core.digest import DEFAULT_ALGORITHM, Digest, Hasher, new_hasher
from tierce.core.errors import BadRequest, Conflict, Corrupt, DigestMismatch, NotFound, Unavailable
from tierce.core.limits import CHANGES_WAIT_SECONDS, PAGE_OBJECTS
from tierce.core.wording import quoted


class PutOptions(TypedDict, total=False):
    """How an object is put.

    ``metadata``: user metadata; names come back in lower case. ``if_match``: only in place of this
    content. ``if_absent``: only if there is no object of the name. Conditions are checked by the node
    that is asked (docs/native-api.md).
    """

    content_type: str
    metadata: Mapping[str, str]
    if_match: Digest | None
    if_absent: bool


class ObjectClient:
    """The methods of ``Client`` for named objects; errors are raised as its docstring says."""

    _wire: Wire

    async def put_object(
        self,
        bucket: str,
        key: str,
        data: bytes,
        **options: Unpack[PutOptions],
    ) -> ObjectInfo:
        """Store bytes under a name, in place of what has it. They are on disk when this returns.

        Raises Conflict if a condition of the ``options`` does not hold.
        """
        digest = await asyncio.to_thread(Digest.of, data)
        headers = _headers(options) | _digest_header(digest)
        return await self._put_object(
            bucket, key, headers, bytes_body(data, None), digest, len(data)
        )

    async def put_object_file(
        self,
        bucket: str,
        key: str,
        path: str | os.PathLike[str],
        **options: Unpack[PutOptions],
    ) -> ObjectInfo:
        """Store a regular file as :meth:`put_object` does bytes.

        Raises OSError if it can't be read, DigestMismatch if it changed meanwhile.
        """
        opened = await asyncio.to_thread(read_or_open, os.fspath(path))
        headers = _headers(options)
        if not isinstance(opened, LocalFile):
            digest = Digest.of(opened)
            body, size = bytes_body(opened, None), len(opened)
            return await self._put_object(
                bucket, key, headers | _digest_header(digest), body, digest, size
            )
        try:
            digest, size = await hash_file(opened, DEFAULT_ALGORITHM)
            headers |= _digest_header(digest)
            try:
                return await self._put_object(
                    bucket, key, headers, file_body(opened, size, None), digest, size
                )
            except DigestMismatch:
                raise changed(opened.path) from None
        finally:
            opened.close()

    async def put_object_stream(
        self,
        bucket: str,
        key: str,
        source: AsyncIterable[bytes],
        **options: Unpack[PutOptions],
    ) -> ObjectInfo:
        """Store a stream as :meth:`put_object` does bytes.

        An interruption after its first byte is final, because it can't be replayed. Raises what
        the source raises, and Corrupt if the server hashed other bytes than were sent.
        """
        stream = StreamBody(source, DEFAULT_ALGORITHM, None)
        headers = _headers(options)

        async def attempt() -> Answer:
            try:
                return await self._wire.exchange(
                    "PUT",
                    _path(bucket, key),
                    _subject(bucket, key),
                    headers=headers,
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
        return _checked(object_answers.stored_object(answer.body), stream.digest, stream.size)

    async def head_object(self, bucket: str, key: str) -> ObjectInfo:
        """What an object is, without its bytes. Raises NotFound."""
        answer = await self._ask("HEAD", _path(bucket, key), _subject(bucket, key))
        size = answer.headers.get("Content-Length", "")
        return object_answers.read_object(
            bucket, key, answer.headers, int(size) if size.isdecimal() else None
        )

    async def get_object(self, bucket: str, key: str) -> FetchedObject:
        """An object with all its bytes in memory, verified. Raises NotFound, Corrupt, Conflict."""
        whole = bytearray()
        reader = self._reader(bucket, key)
        async with aclosing(self._verified(reader)) as pieces:
            async for piece in pieces:
                whole += piece
        assert reader.headers is not None, "bytes came without an answer"
        info = object_answers.read_object(bucket, key, reader.headers, len(whole))
        return FetchedObject(info, bytes(whole))

    async def stream_object(self, bucket: str, key: str) -> AsyncGenerator[bytes, None]:
        """An object's bytes in pieces, of one version, resumed after interruptions.

        After the last piece Corrupt says that they were wrong, so don't trust them before the end.
        Leave it early by ``contextlib.aclosing``. Raises NotFound, and Conflict if the object
        changed after an interruption.
        """
        async with aclosing(self._verified(self._reader(bucket, key))) as pieces:
            async for piece in pieces:
                yield piece

    async def delete_object(self, bucket: str, key: str, *, if_match: Digest | None = None) -> None:
        """Remove an object; with ``if_match`` only if that is its content, else Conflict.

        Raises NotFound, unless an attempt before the last may have removed it.
        """
        headers = {} if if_match is None else {"If-Match": f'"{if_match}"'}
        await self._remove("DELETE", _path(bucket, key), _subject(bucket, key), headers)

    async def list_objects(
        self, bucket: str, prefix: str = "", delimiter: str = "", after: str = ""
    ) -> AsyncGenerator[ObjectPage, None]:
        """All objects of a bucket whose keys begin with ``prefix``, page by page.

        They come in the order of the keys' UTF-8 bytes, behind ``after``. With a ``delimiter``, keys
        that have it behind the prefix are folded into the common prefixes of a page.
        """
        while True:
            params = {
                "prefix": prefix,
                "delimiter": delimiter,
                "after": after,
                "limit": str(PAGE_OBJECTS),
            }
            answer = await self._ask(
                "GET", f"/v1/buckets/{_escaped(bucket)}/objects", "the listing", params
            )
            page = object_answers.object_page(answer.body)
            yield page
            if page.next is None:
                return
            if page.next <= after:
                raise answers.foreign("its listing goes round in circles")
            after = page.next

    async def list_buckets(self) -> list[str]:
        """The names of all buckets that have objects."""
        answer = await self._ask("GET", "/v1/buckets", "the buckets")
        return object_answers.bucket_names(answer.body)

    async def changes(
        self, since: str = "", *, follow: bool = True
    ) -> AsyncGenerator[ChangesPage, None]:
        """What changed after the position ``since`` ("" for all), in the order of the node's feed.

        With ``follow`` it goes on for ever, and waits for changes; without, it ends with the feed.
        Each page has a change at least. Keep its ``next`` once its changes are dealt with. Raises
        Conflict for a position of another node, or from before its disk was replaced.
        """
        while True:
            params = {"since": since, "limit": str(PAGE_OBJECTS)}
            if follow:
                params["wait"] = str(CHANGES_WAIT_SECONDS)
            answer = await self._ask("GET", "/v1/changes", "the changes", params)
            page = object_answers.changes_page(answer.body)
            if page.changes:
                yield page
            elif not follow:
                return
            since = page.next

    async def _put_object(
        self,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        body: Body,
        digest: Digest,
        size: int,
    ) -> ObjectInfo:
        path, subject = _path(bucket, key), _subject(bucket, key)
        attempts = 0

        async def attempt() -> Answer:
            nonlocal attempts
            attempts += 1
            try:
                return await self._wire.exchange("PUT", path, subject, headers=headers, body=body)
            except Conflict as refusal:
                if attempts == 1:
                    raise
                raise _perhaps_ours(refusal) from refusal

        answer = await self._wire.retried(attempt)
        return _checked(object_answers.stored_object(answer.body), digest, size)

    def _reader(self, bucket: str, key: str) -> Reader:
        return Reader(self._wire, _path(bucket, key), _subject(bucket, key), may_change=True)

    async def _verified(self, reader: Reader) -> AsyncGenerator[bytes, None]:
        """A reader's bytes, held against the digest that its answer named."""
        hasher: Hasher | None = None
        async with aclosing(reader.pieces()) as pieces:
            async for piece in pieces:
                hasher = hasher or new_hasher(_named(reader).algorithm)
                hasher.update(piece)
                yield piece
        expected = _named(reader)
        hasher = hasher or new_hasher(expected.algorithm)
        actual = Digest(expected.algorithm, hasher.digest())
        if actual != expected:
            raise wrong_bytes(expected, actual, "Don't use them; the node's log should say more.")

    async def _remove(
        self, method: str, path: str, subject: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Ask for something to go; that it is gone at a later attempt is a success."""
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            try:
                await self._wire.exchange(method, path, subject, headers=headers)
            except NotFound:
                if attempts == 1:
                    raise
            except Conflict as refusal:
                if attempts == 1:
                    raise
                raise _perhaps_ours(refusal) from refusal

        await self._wire.retried(attempt)

    async def _ask(
        self, method: str, path: str, subject: str, params: dict[str, str] | None = None
    ) -> Answer:
        async def attempt() -> Answer:
            return await self._wire.exchange(method, path, subject, params=params)

        return await self._wire.retried(attempt)


def _path(bucket: str, key: str) -> str:
    """The path of an object.

    Proxies resolve dots between slashes as in a file system; with escaped slashes there are none.
    """
    has_dots = any(part in (".", "..") for part in key.split("/"))
    return f"/v1/buckets/{_escaped(bucket)}/objects/{_escaped(key, '' if has_dots else '/')}"


def _subject(bucket: str, key: str) -> str:
    return f"the object {quoted(key)} in {quoted(bucket)}"


def _headers(options: PutOptions) -> dict[str, str]:
    headers = {
        f"Tierce-Meta-{_escaped(name)}": _escaped(value)
        for name, value in options.get("metadata", {}).items()
    }
    # Without one, aiohttp would send a type of its own choice.
    headers["Content-Type"] = options.get("content_type") or "application/octet-stream"
    if_match = options.get("if_match")
    if if_match is not None:
        headers["If-Match"] = f'"{if_match}"'
    if options.get("if_absent"):
        headers["If-None-Match"] = "*"
    return headers


def _escaped(text: str, safe: str = "") -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise BadRequest(f"{quoted(text)} can't be written as UTF-8") from None


def _digest_header(digest: Digest) -> dict[str, str]:
    """The digest of the body (RFC 9530), so that nothing else replaces what is there."""
    return {"Content-Digest": f"{digest.algorithm}=:{base64.b64encode(digest.raw).decode()}:"}


def _checked(info: ObjectInfo, digest: Digest, size: int) -> ObjectInfo:
    """Believe no acknowledgement of other bytes than were sent."""
    if (info.digest, info.size) != (digest, size):
        raise Corrupt(
            f"the server stored {info.size} bytes as {info.digest}, "
            f"but {size} bytes of {digest} were sent",
            hint="Send them again; if it happens again, look for failing hardware on the way.",
        )
    return info


def _perhaps_ours(refusal: Conflict) -> Conflict:
    return Conflict(
        f"{refusal.message}; an attempt before this one broke off, and may have made the change",
        hint="Look at what is there now.",
    )


def _named(reader: Reader) -> Digest:
    etag = "" if reader.headers is None else reader.headers.get("ETag", "")
    return answers.parsed_digest(etag.strip('"'))
