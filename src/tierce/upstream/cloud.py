"""An upstream on any service of OpenDAL: S3 and what speaks it, GCS, Azure, WebDAV, a directory.

How content gets there whole or not at all: cloud/writing.py. Metadata goes in the same request; where
it can't, it is in a sidecar (sidecars.py).
"""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import NamedTuple

import opendal
from opendal.options import WriteKwargs
from opendal.types import Metadata

from tierce.cloud.address import Address, parse_address
from tierce.cloud.failures import UPSTREAM
from tierce.cloud.opening import open_operator
from tierce.cloud.retrying import Patience, Retrying
from tierce.cloud.writing import CLOUD_PART_BYTES, Writer
from tierce.core.errors import BadRequest, NotFound, TooLarge, Unavailable
from tierce.core.limits import KIB, MIB
from tierce.names.record import Record
from tierce.upstream import sidecars
from tierce.upstream.metadata import (
    UPSTREAM_METADATA_BYTES,
    Held,
    content_type_of,
    entries_of,
    is_same,
    restored,
)
from tierce.upstream.reading import Content, chained, pieces_of, read_start
from tierce.upstream.tags import Place, Tagger, is_installed, tags_of
from tierce.upstream.tier import Source, UpstreamObject

UPSTREAM_PART_MIN_BYTES = 5 * MIB
"""What S3 takes as a part at least."""
UPSTREAM_WHOLE_BYTES = 64 * MIB
"""The largest object for a service that takes it in one piece only: that is held in memory."""
UPSTREAM_CHECKED_SECONDS = 60.0
"""How long a look at the bucket is trusted when the service says that an object is not found."""
UPSTREAM_KEY_BYTES = 1024
UPSTREAM_SIDECAR_BYTES = 64 * KIB

_WITH_METADATA = ("azblob", "cos", "gcs", "obs", "oss", "s3")
"""Services that keep user metadata in one with the content."""


def open_upstream(
    url: str,
    *,
    part_bytes: int = CLOUD_PART_BYTES,
    patience: Patience | None = None,
    environ: Mapping[str, str] = os.environ,
    has_tags: bool = True,
) -> "CloudUpstream":
    """The upstream that a URL names (docs/upstream.md), without asking it anything yet.

    ``has_tags``: set user metadata as tags too, on S3, if botocore is installed.
    Raises BadRequest, with a hint, for a URL that can't be used.
    """
    address = parse_address(url, environ)
    hint = "Check the upstream's URL and its options; see docs/upstream.md."
    operator = open_operator(address, UPSTREAM, hint)
    tagger = _tagger(address) if has_tags else None
    return CloudUpstream(
        operator, address, part_bytes=part_bytes, patience=patience or Patience(), tagger=tagger
    )


def _tagger(address: Address) -> Tagger | None:
    options = address.options
    # botocore does not know of a role or a bucket without keys that only the URL names.
    if address.service != "s3" or {"role_arn", "skip_signature"} & set(options):
        return None
    if not is_installed():
        return None
    return Tagger(
        Place(
            options.get("endpoint") or f"https://s3.{options['region']}.amazonaws.com",
            options["bucket"],
            options["region"],
            options.get("root", ""),
            options.get("enable_virtual_host_style") == "true",
            options.get("profile", ""),
        )
    )


class _Found(NamedTuple):
    record: Record
    content: Content


class CloudUpstream:
    """See Upstream (tier.py). Close it with :meth:`aclose`."""

    def __init__(
        self,
        operator: opendal.AsyncOperator,
        address: Address,
        *,
        part_bytes: int,
        patience: Patience,
        tagger: Tagger | None = None,
    ) -> None:
        can = operator.capability()
        self._operator = operator
        self._address = address
        self._tagger = tagger
        self._retrying = Retrying(patience)
        self._writer = Writer(operator, address.service, part_bytes, self._retrying)
        self._has_metadata = address.service in _WITH_METADATA and can.write_with_user_metadata
        self._has_type = can.write_with_content_type
        self._can_match = can.read_with_if_match
        self._can_list = can.list
        self._checked_until = 0.0

    # Writing

    async def upload(self, record: Record, source: Source) -> None:
        """See Upstream.

        An object of more than one part is looked at first, and not sent again if it is there. A
        smaller one is sent again, with the same effect: that costs no more than looking.
        """
        path = self._writable_path(record.key)
        entries = entries_of(
            record,
            source.digest,
            source.size,
            limit_bytes=UPSTREAM_METADATA_BYTES if self._has_metadata else None,
            has_user_entries=self._address.service != "azblob",
        )
        if not self._writer.in_parts and source.size > UPSTREAM_WHOLE_BYTES:
            raise TooLarge(
                f"{path} has {source.size} bytes, and {self._address.service} takes "
                f"{UPSTREAM_WHOLE_BYTES} as an upstream",
                hint="Use an upstream on a service that takes large objects in parts, such as S3.",
            )
        try:
            await self._check_directory()
            if source.size <= self._writer.part_bytes or not await self._has(record, source):
                await self._write(path, record, source, entries)
            await self._tag(path, record)
        except NotFound as error:
            raise Unavailable(error.message, hint="Check that the bucket is there.") from None

    async def _has(self, record: Record, source: Source) -> bool:
        try:
            found = await self._look(record.key)
        except NotFound:
            return False
        return is_same(found.record, record, source.digest, source.size)

    async def _write(
        self, path: str, record: Record, source: Source, entries: dict[str, str]
    ) -> None:
        options: WriteKwargs = {}
        if self._has_metadata:
            options["user_metadata"] = entries
        if self._has_type and (kind := content_type_of(record)):
            options["content_type"] = kind
        await self._writer.write(path, source, options)
        if not self._has_metadata:
            await self._write_sidecar(path, entries)

    async def _write_sidecar(self, path: str, entries: dict[str, str]) -> None:
        told = await self._stat(path)
        data = sidecars.pack(sidecars.mark_of(told), entries)
        await self._retrying.run(
            f"writing the metadata of {path}",
            lambda: self._operator.write(path + sidecars.SUFFIX, data),
        )

    async def _tag(self, path: str, record: Record) -> None:
        tagger, tags = self._tagger, tags_of(record.metadata)
        if tagger is not None and tags:
            await self._retrying.run(f"setting tags of {path}", lambda: tagger.put(path, tags))

    async def delete(self, key: str) -> None:
        """See Upstream."""
        path = _path(key)
        if path is None:
            return
        await self._check_directory()
        paths = [path] if self._has_metadata else [path, path + sidecars.SUFFIX]
        for each in paths:
            delete = functools.partial(self._operator.delete, each)
            with suppress(NotFound):
                await self._retrying.run(f"deleting {each}", delete)

    # Reading

    async def stat(self, key: str) -> Record:
        """See Upstream."""
        return (await self._look(key)).record

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[UpstreamObject]:
        """See Upstream. The first piece is there when the block is entered."""
        found = await self._look(key)
        async with aclosing(pieces_of(self._operator, found.content, self._retrying)) as pieces:
            first = await anext(pieces, b"")
            async with aclosing(chained(first, pieces)) as whole:
                yield UpstreamObject(found.record, whole)

    async def _look(self, key: str) -> _Found:
        path = _path(key)
        if path is None:
            raise NotFound(f"the upstream can have no object {key[:200]!a}")
        try:
            told = await self._stat(path)
        except NotFound:
            told = None
        if told is None or told.is_dir:
            # Of a bucket that is not there, the service says no more than this.
            await self._check_lately()
            raise NotFound(f"the upstream has no object {key[:200]!a}")
        mark = sidecars.mark_of(told)
        entries = told.user_metadata or {}
        if not self._has_metadata:
            entries = sidecars.unpack(await self._read_sidecar(path), mark)
        entries = {name.lower(): value for name, value in entries.items()}
        held = Held(mark.size, entries, told.content_type or "", mark.modified)
        has_tag = self._can_match and not mark.etag.startswith("W/")
        content = Content(path, mark.size, mark.etag if has_tag else "")
        return _Found(restored(key, held), content)

    async def _stat(self, path: str) -> Metadata:
        return await self._retrying.run(f"looking at {path}", lambda: self._operator.stat(path))

    async def _read_sidecar(self, path: str) -> bytes:
        sidecar = path + sidecars.SUFFIX
        with suppress(NotFound):
            return await self._retrying.run(
                f"reading the metadata of {path}",
                lambda: read_start(self._operator, sidecar, UPSTREAM_SIDECAR_BYTES),
            )
        return b""

    # State

    async def check(self) -> None:
        """See Upstream. Lists a part of the bucket; that writing is allowed shows only a write."""
        await self._check_directory()
        if self._can_list:
            await self._retrying.run("looking at the bucket", self._operator.check)
        else:
            await self._retrying.run(
                "looking at the bucket", lambda: self._operator.exists("_tierce")
            )
        self._checked_until = asyncio.get_running_loop().time() + UPSTREAM_CHECKED_SECONDS

    async def _check_lately(self) -> None:
        if asyncio.get_running_loop().time() >= self._checked_until:
            await self.check()

    async def _check_directory(self) -> None:
        """A directory that vanished is a disk that is not mounted, not an empty upstream."""
        root = self._address.options.get("root", "")
        if self._address.service == "fs" and not await asyncio.to_thread(os.path.isdir, root):
            raise Unavailable(
                f"the upstream's directory {root!a} is not there",
                hint="Mount what it is on, or make it.",
            )

    def status(self) -> dict[str, object]:
        """For status pages: how it goes, since this process began."""
        tags = "not set" if self._tagger is None else self._tagger.state
        return {"url": self._address.shown, **self._retrying.circuit.status(), "tags": tags}

    async def aclose(self) -> None:
        """Close the connections that are ours."""
        if self._tagger is not None:
            await self._tagger.aclose()

    def _writable_path(self, key: str) -> str:
        path = _path(key)
        if path is None or (not self._has_metadata and path.endswith(sidecars.SUFFIX)):
            raise BadRequest(
                f"{key[:200]!a} can't be the name of an object in the upstream",
                hint="Use a name without empty parts, dots alone between slashes, white space at "
                "its ends, or control characters, of at most 1024 bytes.",
            )
        return path


def _path(key: str) -> str | None:
    """A key as OpenDAL's path; None for one that OpenDAL would change to another."""
    parts = key.split("/")
    if key != key.strip() or not key.isprintable() or len(key.encode()) > UPSTREAM_KEY_BYTES:
        return None
    return None if {"", ".", ".."} & set(parts) else key
