"""A bucket's own account of what is in it.

The catalogue of a node that lost its data directory is made again from the listing of its bucket. Later,
a pass now and then compares the two: what the catalogue does not know is adopted, once its content is
seen to be right; what the bucket does not have is here no more, so that healing fetches it again; and
what the bucket tells of otherwise than it did is read by the scrub (cloud_proof.py).
"""

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from tierce.blobs import catalogue, cloud_parts
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud import CloudStore
from tierce.blobs.cloud_names import BLOBS_PREFIX, Layout, digest_of
from tierce.blobs.cloud_owner import LISTED, listed_as, place_of
from tierce.blobs.cloud_proof import UNLISTED, Vouched, tag_in, unlike_in, unproved_in
from tierce.blobs.cloud_seen import Seen
from tierce.blobs.environment import Environment, WriteBatch
from tierce.cloud.bucket import Bucket, Entry
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import CLOUD_LIST_AT_ONCE, CLOUD_LIST_PAGE

log = logging.getLogger(__name__)

GROUPS = 256
"""How many prefixes an algorithm's blobs are below at most, each with a listing of its own."""


@dataclass
class Compared:
    """What a pass found: objects that were adopted, and blobs whose objects are missing.

    ``strange`` are objects below ``blobs/`` that are no blob's, or whose content is not what their
    name says; they are left alone. ``swept`` are part files of uploads that were broken off.
    ``changed`` are blobs of whose objects something else is told than when they were verified;
    ``unproved`` ones have nothing by which they are known again. ``unread`` are objects that the
    catalogue does not know, and that could not be read now: the next pass tries them again.
    """

    objects: int = 0
    adopted: int = 0
    missing: int = 0
    strange: int = 0
    swept: int = 0
    changed: int = 0
    unproved: int = 0
    unread: int = 0


async def adopt(store: CloudStore, environment: Environment, *, is_new: bool = False) -> int:
    """Fill the catalogue from the listing, if that was never done; returns how many blobs it found.

    They are claimed: nobody knows any more which came for records' sake only. Their content is
    verified whenever it is read. Unless the bucket ``is_new``, what is not known is asked for by its
    name for a while (cloud_recall.py). Raises Unavailable; it goes on with the next call then.
    """
    place = listed_as(store.bucket, store.layout)
    if place_of(environment).listed == place:
        return 0
    adopted = 0
    page: list[tuple[Digest, Row]] = []

    async def write() -> None:
        nonlocal adopted
        rows = page.copy()
        page.clear()
        adopted += await environment.write(lambda batch: _add(batch, rows))

    now = store.marking.now()
    async with aclosing(objects_of(store)) as found:
        async for entry in found:
            digest = digest_of(entry.path, store.layout)
            if digest is not None:
                page.append((digest, Row(entry.size, now, "", 0)))
            if len(page) >= CLOUD_LIST_PAGE:
                await write()
                log.info("%d blobs of the store are in the catalogue", adopted)
    await write()
    if adopted or not is_new:
        await store.recall.made()
    await environment.write(lambda batch: catalogue.set_meta_in(batch, LISTED, place))
    if adopted:
        log.info("the catalogue was made from the store's listing: %d blobs", adopted)
    return adopted


async def compare(
    store: CloudStore,
    environment: Environment,
    *,
    is_old: Callable[[Row], bool],
    on_missing: Callable[[Digest], None] = lambda digest: None,
) -> Compared:
    """Hold listing and catalogue against each other. Raises Unavailable.

    A blob that was put only now may not be in the listing yet: only those that ``is_old`` says so of
    are missing. Each of them is asked for by its name before that is believed.
    """
    began = store.marking.now()
    done = Compared()
    seen = Seen()
    page: list[tuple[Digest, Entry]] = []
    tagged = 0
    async with aclosing(objects_of(store)) as found:
        async for entry in found:
            done.objects += 1
            digest = digest_of(entry.path, store.layout)
            if digest is None:
                if cloud_parts.is_part(entry.path, store.layout):
                    done.swept += await cloud_parts.sweep(store.bucket, entry, store.marking.now())
                else:
                    done.strange += 1
                continue
            seen.add(digest)
            tagged += bool(tag_in(entry))
            page.append((digest, entry))
            if len(page) >= CLOUD_LIST_PAGE:
                await _compare_page(store, environment, page, is_old, done)
                page.clear()
    await _compare_page(store, environment, page, is_old, done)
    vouched = Vouched(began, store.proving.place, has_tags=bool(tagged) or not seen)
    after: Digest | None = None
    while held := await store.list_after(after, CLOUD_LIST_PAGE):
        digests = [digest for digest, _ in held]
        page = []
        for digest in digests:
            if digest in seen:
                continue
            if await store.is_missing(digest, is_old):
                done.missing += 1
                on_missing(digest)
            else:
                page.append((digest, UNLISTED))
        await _clear_unlike(store, page, is_old, done)
        if store.proving.by_tags:
            rows = await store.reading(functools.partial(unproved_in, digests=digests))
            vouched.unproved_blobs += len(rows)
            vouched.unproved_bytes += sum(row.size for row in rows)
        after = digests[-1]
    done.unproved = vouched.unproved_blobs
    if not done.unread:  # else there may be blobs of which the catalogue still knows nothing
        await store.recall.compared(began)
    if store.proving.by_tags:
        await store.proving.vouch(vouched)
    return done


async def _compare_page(
    store: CloudStore,
    environment: Environment,
    page: list[tuple[Digest, Entry]],
    is_old: Callable[[Row], bool],
    done: Compared,
) -> None:
    """What was listed, against the catalogue."""

    def look(batch: WriteBatch) -> list[tuple[Digest, Entry]]:
        return [each for each in page if not catalogue.is_known_in(batch, each[0])]

    for digest, entry in await store.reading(look):
        try:
            await adopt_one(store, environment, digest, entry, done)
        except Unavailable as error:
            # One that can never be read, as it was moved to an archive, must not keep us from the rest.
            done.unread += 1
            log.warning("%s is not in the catalogue, and can't be read now: %s", digest, error)
    await _clear_unlike(store, page, is_old, done)


async def _clear_unlike(
    store: CloudStore,
    page: list[tuple[Digest, Entry]],
    is_old: Callable[[Row], bool],
    done: Compared,
) -> None:
    """Nothing vouches any more for blobs of whose objects something else is listed."""
    if store.proving.by_tags:
        unlike = await store.reading(lambda batch: unlike_in(batch, page, is_old))
        await store.proving.clear(unlike)
        done.changed += len(unlike)


async def objects_of(store: CloudStore) -> AsyncGenerator[Entry, None]:
    """All objects that may be blobs, in no order. Raises Unavailable."""
    bucket = store.bucket
    if store.layout == "cask":
        async with aclosing(bucket.list("")) as found:
            async for entry in found:
                is_part = cloud_parts.is_part(entry.path, store.layout)
                if is_part or digest_of(entry.path, store.layout) is not None:
                    yield entry
    groups = []
    for algorithm in await _below(bucket, BLOBS_PREFIX):
        groups += await _below(bucket, algorithm)
    for at in range(0, len(groups), CLOUD_LIST_AT_ONCE):
        listings = [_objects(bucket, each) for each in groups[at : at + CLOUD_LIST_AT_ONCE]]
        for listing in await asyncio.gather(*listings):
            for entry in listing:
                yield entry


def list_requests(blobs: int, layout: Layout) -> int:
    """About how many requests it takes to list so many blobs."""
    groups = 0 if layout == "cask" else min(blobs, GROUPS)
    return 2 + groups + blobs // CLOUD_LIST_PAGE


async def _below(bucket: Bucket, prefix: str) -> list[str]:
    """The prefixes directly below one, in order."""
    found = await bucket.listed(prefix)
    return sorted(entry.path for entry in found if entry.path.endswith("/"))


async def _objects(bucket: Bucket, prefix: str) -> list[Entry]:
    return [entry for entry in await bucket.listed(prefix) if not entry.path.endswith("/")]


def _add(batch: WriteBatch, rows: list[tuple[Digest, Row]]) -> int:
    """Rows for those that have none. Leftovers stay what they are; uploads of the last run ended."""
    new = [
        (digest, row)
        for digest, row in rows
        if not catalogue.has_in(batch, digest) and catalogue.left_in(batch, digest) is None
    ]
    for digest, row in new:
        catalogue.put_in(batch, digest, row, None, None)
    return len(new)


def _forget(batch: WriteBatch, digest: Digest, row: Row) -> None:
    """Take a row back, unless somebody has put the blob since."""
    if catalogue.same_in(batch, digest, row):
        catalogue.lose_in(batch, digest)


async def adopt_one(
    store: CloudStore, environment: Environment, digest: Digest, entry: Entry, done: Compared
) -> None:
    """An object without a row: it is a blob if its content is right and nobody is just putting it."""
    try:
        told = await store.bucket.look(entry.path)
    except NotFound:
        return  # it went since it was listed
    now = store.marking.now()
    row = Row(told.size, now, tag_in(told), now)
    if not await store.checking.is_good(digest, row, repair=False):
        done.strange += 1
        log.warning("the store has an object of another content under the name of %s", digest)
        return

    def change(batch: WriteBatch) -> bool:
        if catalogue.is_known_in(batch, digest):
            return False
        catalogue.put_in(batch, digest, row, None, None)
        return True

    if not await environment.write(change):
        return
    try:
        await store.bucket.look(entry.path)
    except NotFound:
        # It was put and deleted while it was read: there is a row again, and no object.
        await environment.write(lambda batch: _forget(batch, digest, row))
    else:
        done.adopted += 1
        log.warning("%s was in the store, but not in the catalogue: it is now", digest)
