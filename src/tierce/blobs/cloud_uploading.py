"""Uploading a blob's object, so that its row appears only when the service has the whole of it."""

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_names import Layout, path_of
from tierce.blobs.environment import Environment, WriteBatch
from tierce.blobs.layout import SUM_BYTES, chunk_count
from tierce.blobs.spool import Spool, SpoolSource, read_at
from tierce.cloud.bucket import Bucket
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable, from_os_error
from tierce.core.limits import CLOUD_POLL_SECONDS, CLOUD_WAIT_SECONDS

log = logging.getLogger(__name__)

T = TypeVar("T")
_serial = itertools.count()


class Uploads:
    """Uploads by way of intents (catalogue.py). ``now`` gives milliseconds since 1970."""

    def __init__(
        self,
        bucket: Bucket,
        environment: Environment,
        layout: Layout,
        *,
        settle_seconds: float,
        now: Callable[[], int],
    ) -> None:
        self._bucket = bucket
        self._environment = environment
        self._layout: Layout = layout
        self._settle_milliseconds = int(settle_seconds * 1000)
        self._now = now
        self._sending: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        self.is_closed = False

    async def put(
        self, spool: Spool, finish: Callable[[WriteBatch, Row, bytes | None, bytes], T]
    ) -> T:
        """Put an object, then commit what makes it a blob: ``finish``, of the row to write.

        ``finish`` may raise before it writes.
        """
        digest = spool.digest
        name = catalogue.token(os.getpid(), next(_serial))
        try:
            await self._begin(digest, name)
            source = SpoolSource(spool)
            try:
                # There are services that refuse two at a time under one name.
                async with self._sending.setdefault(digest, asyncio.Lock()):
                    etag = await self._send(source)
                sums = await _sums_of(spool)
            finally:
                source.close()
            row = Row(spool.size, self._now(), etag)
            return await self._environment.write(lambda batch: finish(batch, row, sums, name), 512)
        except BaseException:
            # Not waited for, as this may be a cancellation. A commit under way comes before it.
            self._abandon(digest, name)
            raise

    async def _begin(self, digest: Digest, name: bytes) -> None:
        """Register an upload, once no deletion of the object may be under way."""
        deadline = asyncio.get_running_loop().time() + CLOUD_WAIT_SECONDS
        while not await self._environment.write(
            lambda batch: catalogue.begin_in(batch, digest, name)
        ):
            if asyncio.get_running_loop().time() >= deadline:
                raise Unavailable(
                    f"{digest} was deleted, and the store has not confirmed that yet",
                    hint="Put it again in a minute.",
                )
            await asyncio.sleep(CLOUD_POLL_SECONDS)

    async def _send(self, source: SpoolSource) -> str:
        """Have the object in the bucket; its entity tag if it is a large one.

        A large one is not sent again if the service says that it is as it was. A small one is: that
        costs little more than asking, and makes a bad copy good.
        """
        path = path_of(source.digest, self._layout)
        is_large = source.size > self._bucket.part_bytes
        if is_large and (known := self._known(source.digest)) is not None and known.etag:
            with contextlib.suppress(NotFound):
                told = await self._bucket.look(path)
                if (told.size, told.etag) == (known.size, known.etag):
                    return known.etag
        await self._bucket.write(path, source)
        if not is_large:
            return ""
        told = await self._bucket.look(path)
        if told.size != source.size:
            raise Unavailable(
                f"the store has {told.size} bytes of {source.size} of {path}", hint="Put it again."
            )
        return told.etag

    def _abandon(self, digest: Digest, name: bytes) -> None:
        if self.is_closed:
            return  # the next start ends it
        until = self._now() + self._settle_milliseconds
        write = self._environment.submit(
            lambda batch: catalogue.abandon_in(batch, digest, name, until), 128
        )
        write.add_done_callback(_log_failure)

    def _known(self, digest: Digest) -> Row | None:
        with self._environment.snapshot() as batch:
            return catalogue.row_in(batch, digest)


async def _sums_of(spool: Spool) -> bytes | None:
    """The checksums that a spool's file has behind its content; None for one in memory."""
    if spool.path is None:
        return None
    try:
        fd = os.open(spool.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(error, "reading a body") from error
    try:
        return await read_at(spool.pool, fd, SUM_BYTES * chunk_count(spool.size), spool.size)
    finally:
        os.close(fd)


def _log_failure(write: "asyncio.Future[None]") -> None:
    if not write.cancelled() and write.exception() is not None:
        log.error("an upload that failed could not be noted: %s", write.exception())
