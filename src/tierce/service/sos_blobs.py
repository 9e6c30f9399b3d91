"""The store of SOS in the cluster itself: an id is the SHA-1 of its bytes, or any name.

What is put under the SHA-1 of its bytes is a blob like any other: ``sha1:HEX``, put without a name, so
it is never collected. Only if X- headers came with it, or if the id names something else by now, there
is also a record, written when the blob is durable. What is put under any other id is an object. Both
kinds of records are in the bucket SOS_BUCKET, with the id as key and the headers as metadata; so an id
is looked for there first, then among the blobs.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from tierce.blobs.spool import Spool
from tierce.core.digest import DEFAULT_ALGORITHM, Digest
from tierce.core.errors import BadRequest, NotFound, Unavailable
from tierce.core.limits import CONTENT_TYPE_BYTES, LIST_LIMIT_DEFAULT, SOS_ID_CHARACTERS
from tierce.core.sos import SosFound, SosStored
from tierce.names.record import Record
from tierce.service.blobs import Blobs
from tierce.service.objects import Objects, check_draft

SOS_BUCKET = "sos"
ALGORITHM = "sha1"
MIME_TYPE = "X-Mime-Type"
"""The header whose value is the type of the content."""

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)
# RFC 9110, section 8.3.1, with anything printable for parameters.
_MEDIA_TYPE = re.compile(r"[\w!#$&^+.-]+/[\w!#$&^+.-]+(?:;[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
_SHA1_ID = re.compile(r"[0-9a-f]{40}", re.ASCII)
# Comes before every SHA-1 in the order of digests, and is none.
_BEFORE_SHA1 = Digest("blake3", b"\xff" * 32)


class SosKnown(NamedTuple):
    """What is known of an id without reading its bytes. ``size`` is in bytes; see also SosFound."""

    size: int
    metadata: Mapping[str, str]
    modified: int
    etag: str


def is_id(text: str) -> bool:
    """Whether a text can be an id: letters, digits, ``-``, ``_``, and ``.`` behind the first one."""
    return len(text) <= SOS_ID_CHARACTERS and _ID.fullmatch(text) is not None


def is_sha1(text: str) -> bool:
    """Whether a text has the form of a SHA-1 in hex, as the id of an upload has."""
    return _SHA1_ID.fullmatch(text) is not None


def check_id(text: str) -> None:
    """Raise BadRequest for what can't be an id."""
    if not is_id(text):
        raise BadRequest(
            f"{text[:80]!a} is not an id",
            hint=f"Use 1 to {SOS_ID_CHARACTERS} letters, digits, dashes, underscores and dots, with "
            "no dot in front.",
        )


def media_type(metadata: Mapping[str, str]) -> str:
    """The type of the content that was sent with it, "" if there is none that can be one."""
    text = metadata.get(MIME_TYPE, "").strip()
    return text if len(text) <= CONTENT_TYPE_BYTES and _MEDIA_TYPE.fullmatch(text) else ""


def draft_of(sos_id: str, metadata: Mapping[str, str]) -> Record:
    """The record that a post asks for. Raises BadRequest or TooLarge for metadata out of bounds."""
    draft = Record(
        bucket=SOS_BUCKET,
        key=sos_id,
        content_type=media_type(metadata),
        metadata=dict(metadata),
    )
    check_draft(draft)
    return draft


class SosBlobs:
    """The SosStore (core/sos.py) of this cluster, and what a blob server of SOS does beyond that."""

    def __init__(self, blobs: Blobs, objects: Objects) -> None:
        self._blobs = blobs
        self._objects = objects

    async def put(
        self,
        body: AsyncIterable[bytes],
        metadata: Mapping[str, str],
        *,
        announced_bytes: int | None = None,
    ) -> SosStored:
        """See SosStore."""
        if metadata:
            draft_of("any", metadata)
        self._blobs.check_writable(announced_bytes, algorithm=ALGORITHM)
        async with self._blobs.spooling(body, ALGORITHM) as spool:
            return await self._keep_under_sha1(spool, metadata)

    async def put_as(
        self,
        sos_id: str,
        body: AsyncIterable[bytes],
        metadata: Mapping[str, str],
        *,
        announced_bytes: int | None = None,
    ) -> SosStored:
        """Keep a body under an id, in place of what it named before; durable when this returns.

        Without metadata the SHA-1 of the body keeps what was sent with it before; any other id has
        then none. Raises BadRequest for what is no id, and what :meth:`put` does.
        """
        check_id(sos_id)
        draft = draft_of(sos_id, metadata)
        # Whether it is the SHA-1 of its body is known at the end.
        algorithm = ALGORITHM if is_sha1(sos_id) else DEFAULT_ALGORITHM
        self._blobs.check_writable(announced_bytes, algorithm=algorithm)
        async with self._blobs.spooling(body, algorithm) as spool:
            if spool.digest.algorithm == ALGORITHM and spool.digest.hex == sos_id:
                return await self._keep_under_sha1(spool, metadata)
            size = spool.size
            await self._objects.keep(spool, draft)
            return SosStored(sos_id, size)

    async def open(self, sos_id: str) -> SosFound:
        """See SosStore."""
        record = self._record(sos_id)
        if record is not None:
            content = await self._objects.open(record)
            return SosFound(content, record.metadata, record.modified_at, record.etag)
        digest = _blob_of(sos_id)
        return SosFound(await self._blobs.open(digest), {}, etag=f'"{digest}"')

    async def know(self, sos_id: str) -> SosKnown:
        """What is known of an id; its bytes were there. Raises as :meth:`open` does."""
        record = self._record(sos_id)
        if record is None:
            digest = _blob_of(sos_id)
            return SosKnown(await self._blobs.size(digest), {}, 0, f'"{digest}"')
        try:
            size = await self._blobs.size(record.content)
        except NotFound as error:
            raise Unavailable(
                f"the content of {sos_id} is on no node that answers",
                hint="Try again when all nodes are up; see `tierce cluster status`.",
            ) from error
        return SosKnown(size, record.metadata, record.modified_at, record.etag)

    async def ids(self) -> AsyncGenerator[str, None]:
        """Yield every id that this node serves once, in order: names, and this node's blobs.

        What comes or goes meanwhile may be there or not.
        """
        async with aclosing(self._names()) as names, aclosing(self._sha1_blobs()) as blobs:
            name, blob = await anext(names, None), await anext(blobs, None)
            while name is not None or blob is not None:
                first = min(each for each in (name, blob) if each is not None)
                yield first
                if name == first:
                    name = await anext(names, None)
                if blob == first:
                    blob = await anext(blobs, None)

    async def _keep_under_sha1(self, spool: Spool, metadata: Mapping[str, str]) -> SosStored:
        kept = await self._blobs.keep(spool)
        sos_id = kept.digest.hex
        known = self._record(sos_id)
        # A record with another content would hide this one.
        if metadata or (known is not None and known.digest != kept.digest):
            draft = draft_of(sos_id, metadata)
            await self._objects.name(
                msgspec.structs.replace(draft, digest=kept.digest, size=kept.size)
            )
        return SosStored(sos_id, kept.size)

    def _record(self, sos_id: str) -> Record | None:
        """The record of an id, if there is one. Raises NotFound for what is no id."""
        if not is_id(sos_id):
            raise NotFound(f"{sos_id[:80]!a} is not an id")
        # Most ids are those of blobs without a record, so that is no error on the way.
        record = self._objects.known(SOS_BUCKET, sos_id)
        return None if record is None or record.deleted else record

    async def _names(self) -> AsyncGenerator[str, None]:
        """The names of records that are ids, in order."""
        after = ""
        while True:
            page = await self._objects.list_page(
                SOS_BUCKET, prefix="", delimiter="", after=after, limit=LIST_LIMIT_DEFAULT
            )
            for record in page.records:
                if is_id(record.key):
                    yield record.key
            after = page.next_after
            if not after:
                return

    async def _sha1_blobs(self) -> AsyncGenerator[str, None]:
        """This node's blobs that are ids by themselves: none that is there for an object only."""
        after = _BEFORE_SHA1
        while True:
            page = await self._blobs.list_after(after, LIST_LIMIT_DEFAULT)
            digests = [each.digest for each in page if each.digest.algorithm == ALGORITHM]
            for digest, is_managed in zip(digests, self._blobs.managed(digests), strict=True):
                if not is_managed:
                    yield digest.hex
            if len(digests) < LIST_LIMIT_DEFAULT:
                return
            after = digests[-1]


def _blob_of(sos_id: str) -> Digest:
    """The digest that an id stands for by itself. Raises NotFound."""
    if not is_sha1(sos_id):
        raise NotFound(f"there is no {sos_id}")
    return Digest(ALGORITHM, bytes.fromhex(sos_id))
