"""The near-cache (near_cache.py), over the way of its objects (node/level_path.py)."""

from collections.abc import AsyncIterable

from tierce.core.digest import DEFAULT_ALGORITHM
from tierce.core.errors import NotFound
from tierce.names.record import LOCAL, Record
from tierce.node.level_path import LevelPath
from tierce.service.blobs import Blobs
from tierce.service.near_cache import Deleted, Found, Kept, Known
from tierce.service.objects import check_key, check_metadata


class Levels:
    """The objects of the near-cache, by way of one node."""

    def __init__(self, blobs: Blobs, path: LevelPath) -> None:
        self._blobs = blobs
        self._path = path

    async def put(
        self,
        draft: Record,
        body: AsyncIterable[bytes],
        *,
        announced_bytes: int | None = None,
    ) -> Kept:
        """See NearCache."""
        check_key(draft.key)
        check_metadata(draft)
        self._blobs.check_writable(announced_bytes, here_only=True)
        spooling = self._blobs.spooling(body, DEFAULT_ALGORITHM, here_only=True)
        async with spooling as spool:
            known = None if spool.size else self._path.get(draft.key)
            if known is None or known.deleted or not known.size:
                return Kept(*await self._path.put(spool, draft))
            # No body is no content: it never takes the place of one, however often it is sent.
            if known.level < draft.level:
                return Kept(*await self._path.raise_level(known, draft))
            return Kept(known, known.level > LOCAL and not known.is_upstream)

    async def open(self, key: str, *, fetch: bool) -> Found:
        """See NearCache."""
        record = self._path.get(key)
        if record is not None and record.deleted:
            raise Deleted(record)
        if record is None:
            if not fetch:
                raise NotFound(f"{key} is not known here")
            return Found(*await self._path.fetch(key))
        return Found(*await self._path.open(record, fetch=fetch))

    async def know(self, key: str) -> Known:
        """See NearCache."""
        record = self._path.get(key)
        if record is None:
            raise NotFound(f"{key} is not known here")
        return Known(record, not record.deleted and not await self._path.is_here(record))

    async def delete(self, key: str) -> Record:
        """See NearCache."""
        record = self._path.get(key)
        if record is None:
            raise NotFound(f"{key} is not known here")
        return await self._path.delete(record)
