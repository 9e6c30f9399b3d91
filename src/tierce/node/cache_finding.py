"""What is cached on a node when its agent starts: what was saved, as far as it is here, and the rest.

The order that was saved is advice; what lies on the disk, and the records, are the truth.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice

from tierce.core.digest import Digest
from tierce.core.errors import Unavailable
from tierce.names.cached import CacheRows, Look, Row, Standing, is_safe
from tierce.names.index import Index
from tierce.names.store import ObjectStore
from tierce.upstream.eviction import GHOST, PINNED_BIT, Entry

FIND_PAGE_COUNT = 500
_SLICE_COUNT = 10_000


async def find_cached(objects: ObjectStore, index: Index, rows: CacheRows) -> list[Entry[Digest]]:
    """All that must be counted, in the order of the last run; what it did not know comes last.

    Shared blobs are pinned, others are not. Ghosts are left as they were.
    """
    entries: list[Entry[Digest]] = []
    known: set[Digest] = set()
    saved = await rows.load()
    for start in range(0, len(saved), FIND_PAGE_COUNT):
        some = saved[start : start + FIND_PAGE_COUNT]
        found = await objects.look([each.digest for each in some])
        for row, look in zip(some, found, strict=True):
            entry = Entry(*row)
            if entry.place == GHOST:
                entries.append(entry)
            elif _is_counted(look) and row.digest not in known:
                known.add(row.digest)
                entries.append(_entry(row.digest, look, row.bits))
    after: tuple[str, str] | None = None
    while page := await index.scan_after(after, FIND_PAGE_COUNT):
        after = page[-1].bucket, page[-1].key
        safe = dict.fromkeys(each.content for each in page if is_safe(each))
        new = [each for each in safe if each not in known]
        for digest, look in zip(new, await objects.look(new) if new else [], strict=True):
            if _is_counted(look):
                known.add(digest)
                entries.append(_entry(digest, look, 0))
    return entries


def _is_counted(look: Look) -> bool:
    return look.standing in (Standing.CACHED, Standing.SHARED)


def _entry(digest: Digest, look: Look, bits: int) -> Entry[Digest]:
    bits &= ~PINNED_BIT
    return Entry(digest, look.size, bits if look.standing is Standing.CACHED else bits | PINNED_BIT)


async def rows_of(entries: Iterator[Entry[Digest]]) -> list[Row]:
    """What is to be saved. Others may run meanwhile."""
    rows: list[Row] = []
    while some := [Row(*each) for each in islice(entries, _SLICE_COUNT)]:
        rows += some
        await asyncio.sleep(0)
    return rows


def not_dropped(digest: Digest) -> Unavailable:
    """What is raised if a blob is still here that must go."""
    return Unavailable(f"{digest} could not be dropped", hint="It is tried again.")


def not_counted() -> Unavailable:
    """What is raised while it is not known what is cached."""
    return Unavailable("it is not known yet how much is cached here", hint="Try again soon.")
