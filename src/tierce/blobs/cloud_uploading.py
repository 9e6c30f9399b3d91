"""Uploading a blob's object, so that its row appears only when the service has the whole of it.

Of all processes of a node one sends a blob at a time: some services refuse two under one name, and it
would be sent for nothing. Who had to wait, and sees that the other one's row appeared meanwhile, has no
need to send it: the same digest is the same content, and it arrived after this upload had begun. So
that is as good as its own for a copy that was bad before, too.
"""

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Callable
from typing import TypeAlias, TypeGuard, TypeVar

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_ground import Ground
from tierce.blobs.cloud_proof import Proving, is_of, tag_in
from tierce.blobs.environment import WriteBatch
from tierce.blobs.layout import SUM_BYTES, chunk_count
from tierce.blobs.spool import Spool, SpoolSource, read_at
from tierce.blobs.turns import Turns
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable, from_os_error
from tierce.core.limits import CLOUD_POLL_SECONDS, CLOUD_TURN_SECONDS, CLOUD_WAIT_SECONDS

log = logging.getLogger(__name__)

T = TypeVar("T")
Finish: TypeAlias = Callable[[WriteBatch, Row, bytes | None, bytes], T]
"""Makes an object a blob in a commit, of the row, the checksums, and the upload's name."""

_serial = itertools.count()


class Uploads:
    """Uploads by way of intents (catalogue.py)."""

    def __init__(self, ground: Ground, turns: Turns, proving: Proving) -> None:
        self._ground = ground
        self._bucket = ground.bucket
        self._environment = ground.environment
        self._turns = turns
        self._proving = proving
        self._is_closed = False

    def close(self) -> None:
        """Uploads that end from now on are left to the next start."""
        self._is_closed = True
        self._turns.close()

    async def put(self, spool: Spool, finish: Finish[T]) -> T:
        """Put an object, then commit what makes it a blob: ``finish``.

        ``finish`` may raise before it writes.
        """
        digest = spool.digest
        name = catalogue.token(self._ground.host.pid(), next(_serial))
        before = self._ground.row(digest)
        turn = None
        try:
            await self._begin(digest, name)
            turn = await self._turn(digest, before)
            sums = await _sums_of(spool)
            row = self._ground.row(digest)
            if _is_news(row, before):
                done = await self._share(digest, row, sums, name, finish)
                if done is not None:
                    return done[0]
            if (kept := await self._kept(spool)) is not None:
                done = await self._share(digest, kept, sums, name, finish)
                if done is not None:
                    return done[0]
            with contextlib.closing(SpoolSource(spool)) as source:
                tag, proved = await self._send(source)
            sent = Row(spool.size, self._ground.now(), tag, proved)
            return await self._environment.write(lambda batch: finish(batch, sent, sums, name), 512)
        except BaseException:
            # Not waited for, as this may be a cancellation. A commit under way comes before it.
            self._abandon(digest, name)
            raise
        finally:
            if turn is not None:
                self._turns.end(turn)

    async def _begin(self, digest: Digest, name: bytes) -> None:
        """Register an upload, once no deletion of the object may be under way."""
        deadline = asyncio.get_running_loop().time() + CLOUD_WAIT_SECONDS
        while not await self._environment.write(
            lambda batch: catalogue.begin_in(batch, digest, name)
        ):
            if asyncio.get_running_loop().time() >= deadline:
                raise Unavailable(
                    f"{digest} was deleted, or an upload of it failed, and the store has not "
                    "confirmed yet that nothing is left of it",
                    hint="Put it again in a minute. If it stays so, look at the store's `problem` in "
                    "the status.",
                )
            await asyncio.sleep(CLOUD_POLL_SECONDS)

    async def _turn(self, digest: Digest, before: Row | None) -> int | None:
        """Be the only upload of a blob at this node; None if another one takes too long, or is done.

        ``before`` is the row that was there when this one began.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                turn = self._turns.take(digest)
            except OSError as error:
                raise from_os_error(error, "storing a blob") from error
            if turn is not None or _is_news(self._ground.row(digest), before):
                return turn
            waited = loop.time() - began
            if waited >= CLOUD_TURN_SECONDS:
                return None
            await asyncio.sleep(min(CLOUD_POLL_SECONDS, 0.002 + waited / 4))

    async def _share(
        self, digest: Digest, row: Row, sums: bytes | None, name: bytes, finish: Finish[T]
    ) -> tuple[T] | None:
        """Finish by the row of an earlier upload; None, and nothing is done, if it is gone."""

        def change(batch: WriteBatch) -> tuple[T] | None:
            now = catalogue.row_in(batch, digest)
            if now is None or now.put != row.put:
                return None
            return (finish(batch, now, sums, name),)

        return await self._environment.write(change, 512)

    async def _kept(self, spool: Spool) -> Row | None:
        """The row of a large blob whose object is as it was, says the service: it is not sent again.

        A small one is: that costs little more than asking, and makes a bad copy good.
        """
        row = self._ground.row(spool.digest)
        if spool.size > self._bucket.part_bytes and row is not None and row.tag:
            with contextlib.suppress(NotFound):
                if is_of(row, await self._bucket.look(self._ground.path(spool.digest))):
                    return row
        return None

    async def _send(self, source: SpoolSource) -> tuple[str, int]:
        """Put the object into the bucket; its tag, and when it was verified (Row)."""
        path = self._ground.path(source.digest)
        if source.size <= self._bucket.part_bytes:
            return await self._proving.send_small(path, source), self._ground.now()
        await self._bucket.write(path, source)
        told = await self._bucket.look(path)
        if told.size != source.size:
            raise Unavailable(
                f"the store has {told.size} bytes of {source.size} of {path}", hint="Put it again."
            )
        return tag_in(told), self._ground.now()

    def _abandon(self, digest: Digest, name: bytes) -> None:
        if self._is_closed:
            return  # the next start ends it
        until = self._ground.settled_at()
        write = self._environment.submit(
            lambda batch: catalogue.abandon_in(batch, digest, name, until), 128
        )
        write.add_done_callback(_log_failure)


def _is_news(row: Row | None, before: Row | None) -> TypeGuard[Row]:
    """Whether an upload came to its end since a row was looked at.

    A row that was made from what the service lists or tells is of no upload, and nothing is known of
    its object's content.
    """
    return row is not None and bool(row.proved) and (before is None or row.put != before.put)


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
