"""Writes of this node that lost to another node's: perhaps the older one was the last to be uploaded.

While two nodes don't hear of each other, both may take the same id and upload it. When they do, all
agree on the newer record; but the upstream has what came last. It is the node whose record lost that
can tell, as it is there that the newer record takes its place. So this node looks at the upstream then,
and puts the content in force there again if need be. Names to look at outlive a restart: they are
written down before the newer record is merged.

It costs nothing but a look at the index for each record that is heard of, and one request to the
upstream for each object that this node took and another one replaced.
"""

import asyncio
import logging
from collections.abc import Sequence

from tierce.core.codec import decode, encode
from tierce.core.errors import NotFound, TierceError
from tierce.core.limits import COPY_RETRY_SECONDS, OVERTAKEN_COUNT, UPLOAD_AT_ONCE
from tierce.names.damage import known_record
from tierce.names.index import Index
from tierce.names.record import Record
from tierce.node.data_path import DataPath
from tierce.node.uploading import found_in, is_for_upstream, is_newer, is_of, upload_blob
from tierce.upstream.tier import Upstream

log = logging.getLogger(__name__)

CHECKPOINT = "overtaken"
_VERSION = 1

Name = tuple[str, str]


class Overtaken:
    """An agent's merging of what other nodes tell (as Index.merge), and the looks that follow."""

    def __init__(self, node_id: str, index: Index, blobs: DataPath, upstream: Upstream) -> None:
        self._node_id = node_id
        self._index = index
        self._blobs = blobs
        self._upstream = upstream
        # With the number of the last time that each was added.
        self._names: dict[Name, int] = {}
        self._number = 0
        self._written: list[Name] = []
        self._news = asyncio.Event()
        self._last_error = ""
        self.mended = 0

    @property
    def waiting(self) -> int:
        """How many objects of the upstream are still to be looked at."""
        return len(self._names)

    async def merge(self, records: Sequence[Record]) -> list[bool]:
        """See Index.merge."""
        names = [(each.bucket, each.key) for each in records if self._overtakes(each)]
        if not names:
            return await self._index.merge(records)
        await self._add(names)
        try:
            return await self._index.merge(records)
        finally:
            # What was looked at before the newer record was there is to be looked at again.
            await self._add(names)

    async def run(self) -> None:
        """Look at the upstream until cancelled."""
        self._resume()
        while True:
            self._news.clear()
            await self._look_at_all()
            if not self._names:
                await self._news.wait()
            else:
                await asyncio.sleep(COPY_RETRY_SECONDS)

    def _overtakes(self, record: Record) -> bool:
        """Whether a record from elsewhere takes the place of one that this node may have uploaded."""
        if not is_for_upstream(record) or record.node == self._node_id:
            return False
        known = known_record(self._index, record.bucket, record.key)
        return (
            known is not None
            and known.node == self._node_id
            and known.rank < record.rank
            and is_for_upstream(known)
        )

    async def _add(self, names: Sequence[Name]) -> None:
        self._number += 1
        for name in names:
            if name in self._names or len(self._names) < OVERTAKEN_COUNT:
                self._names[name] = self._number
            else:
                # Who would drop it from the cache asks the upstream all the same.
                log.info("%s is not looked at in the upstream: too many are waiting", name[1])
        self._news.set()
        await self._write_down()

    async def _write_down(self) -> None:
        names = list(self._names)
        if names != self._written:
            await self._index.set_checkpoint(CHECKPOINT, encode((_VERSION, names)))
            self._written = names

    def _resume(self) -> None:
        """Go on with what an earlier run left."""
        try:
            kept = self._index.checkpoint(CHECKPOINT)
            if kept is not None:
                _, names = decode(kept, tuple[int, list[Name]], "list of overtaken names")
                self._names |= dict.fromkeys(names, 0)
        except TierceError as error:
            log.error("what was to be looked at in the upstream is not known: %s", error)

    async def _look_at_all(self) -> None:
        due = list(self._names.items())
        for start in range(0, len(due), UPLOAD_AT_ONCE):
            some = due[start : start + UPLOAD_AT_ONCE]
            left = await asyncio.gather(*(self._is_left(name) for name, _ in some))
            for (name, number), is_left in zip(some, left, strict=True):
                # One that was added once more meanwhile is to be looked at again.
                if not is_left and self._names[name] == number:
                    del self._names[name]
        try:
            await self._write_down()
        except TierceError as error:
            log.info("what was looked at in the upstream is looked at again: %s", error)

    async def _is_left(self, name: Name) -> bool:
        """Look at one; whether it must be looked at again."""
        try:
            return await self._look_at(*name)
        except NotFound as error:
            log.error("%s can't be put into the upstream again: %s", name[1], error.message)
            return False
        except TierceError as error:
            if error.message != self._last_error:
                log.warning("%s could not be looked at in the upstream: %s", name[1], error.message)
            self._last_error = error.message
            return True

    async def _look_at(self, bucket: str, key: str) -> bool:
        record = self._index.get(bucket, key)
        if record is None or not is_for_upstream(record):
            return False
        if not record.is_upstream:
            return True  # its own node is about to upload it, or has, and has not told yet
        found = await found_in(self._upstream, key)
        if found is not None:
            is_foreign = found.digest is None  # other programs may replace what they like
            if is_foreign or is_of(found, record) or is_newer(found, record):
                return False
        log.warning("the upstream has an older content of %s: it is put there again", key)
        opening = self._blobs.open(record.content, first=(record.node,))
        await upload_blob(self._upstream, record, opening)
        self.mended += 1
        return True  # it may have been overtaken once more meanwhile
