"""A bucket's own account of itself: whose it is, and what is in it.

The catalogue of a node that lost its data directory is made again from the listing of its bucket. Later,
a pass now and then compares the two: what the catalogue does not know is adopted, once its content is
seen to be right; what the bucket does not have is here no more, so that healing fetches it again.
"""

import asyncio
import functools
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from tierce.blobs import catalogue
from tierce.blobs.catalogue import Row
from tierce.blobs.cloud import CloudStore
from tierce.blobs.cloud_names import BLOBS_PREFIX, OWNER_PATH, digest_of
from tierce.blobs.environment import Environment, WriteBatch
from tierce.cloud.bucket import Bucket, Entry
from tierce.cloud.writing import Content
from tierce.core.digest import Digest
from tierce.core.errors import BadRequest, Corrupt, NotFound, Unavailable
from tierce.core.limits import CLOUD_LIST_AT_ONCE, CLOUD_LIST_PAGE, CLOUD_OWNER_BYTES

log = logging.getLogger(__name__)

_LISTED = "listed"
_OWNED = "owned"
_VERSION = 1


class _Owner(msgspec.Struct):
    version: int
    node_id: str


@dataclass
class Compared:
    """What a pass found: objects that were adopted, and blobs whose objects are missing.

    ``strange`` are objects below ``blobs/`` that are no blob's, or whose content is not what their
    name says; they are left alone.
    """

    objects: int = 0
    adopted: int = 0
    missing: int = 0
    strange: int = 0


class _Bytes:
    """A small content."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes | None = data
        self.size = len(data)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        assert self.data is not None
        yield self.data


async def take(bucket: Bucket, environment: Environment, node_id: str) -> None:
    """Make a bucket this node's, if it is nobody's yet. Raises BadRequest if it is another node's.

    Raises Unavailable if the bucket can't be asked, but for one that this node has had already.
    """
    try:
        owner = await owner_of(bucket)
        if owner is None:
            content: Content = _Bytes(
                json.dumps({"version": _VERSION, "node_id": node_id}).encode() + b"\n"
            )
            # Of two that come at once, one finds the other's.
            try:
                await bucket.write(OWNER_PATH, content, is_new=True)
                owner = await owner_of(bucket)
            except Unavailable:
                if (owner := await owner_of(bucket)) is None:
                    raise
    except Unavailable as error:
        if _meta(environment, _OWNED) != _place(bucket, node_id):
            raise
        log.warning("the store can't be used now: %s %s", error.message, error.hint)
        return
    if owner != node_id:
        raise BadRequest(
            f"the store {bucket.shown} belongs to the node {owner}",
            hint=f"Give this node a prefix of its own. If it is that node, and lost its data "
            f"directory, start it with --node-id {owner}. If that node is gone for good, delete the "
            f"object {OWNER_PATH}, and start this one again.",
        )
    await _set_meta(environment, _OWNED, _place(bucket, node_id))


async def owner_of(bucket: Bucket) -> str | None:
    """The id of the node that a bucket belongs to, if there is one. Raises Unavailable, Corrupt."""
    try:
        told = await bucket.look(OWNER_PATH)
        data = await bucket.read(OWNER_PATH, 0, min(told.size, CLOUD_OWNER_BYTES))
    except NotFound:
        return None
    try:
        return msgspec.json.decode(data, type=_Owner).node_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Corrupt(
            f"the object {OWNER_PATH} in the store is not understood",
            hint="Delete it if no other node uses the same bucket and prefix.",
        ) from None


async def adopt(store: CloudStore, environment: Environment) -> int:
    """Fill the catalogue from the listing, if that was never done; returns how many blobs it found.

    They are claimed: nobody knows any more which came for records' sake only. Their content is
    verified whenever it is read. Raises Unavailable; it goes on with the next call then.
    """
    place = f"{store.bucket.shown} {store.layout}"
    if _meta(environment, _LISTED) == place:
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
                page.append((digest, Row(entry.size, now, "")))
            if len(page) >= CLOUD_LIST_PAGE:
                await write()
                log.info("%d blobs of the store are in the catalogue", adopted)
    await write()
    await _set_meta(environment, _LISTED, place)
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
    done = Compared()
    seen: dict[tuple[str, int], set[bytes]] = {}
    async with aclosing(objects_of(store)) as found:
        async for entry in found:
            done.objects += 1
            digest = digest_of(entry.path, store.layout)
            if digest is None:
                done.strange += 1
                continue
            seen.setdefault((digest.algorithm, digest.raw[0]), set()).add(digest.raw)
            if not await store.reading(functools.partial(_is_known, digest=digest)):
                await _adopt_one(store, environment, digest, entry, done)
    after: Digest | None = None
    while page := await store.list_after(after, CLOUD_LIST_PAGE):
        for digest, _ in page:
            if digest.raw in seen.get((digest.algorithm, digest.raw[0]), ()):
                continue
            if await store.is_missing(digest, is_old):
                done.missing += 1
                on_missing(digest)
        after = page[-1].digest
    return done


async def objects_of(store: CloudStore) -> AsyncGenerator[Entry, None]:
    """All objects that may be blobs, in no order. Raises Unavailable."""
    bucket = store.bucket
    if store.layout == "cask":
        async with aclosing(bucket.list("")) as found:
            async for entry in found:
                if digest_of(entry.path, store.layout) is not None:
                    yield entry
    groups = []
    for algorithm in await _below(bucket, BLOBS_PREFIX):
        groups += await _below(bucket, algorithm)
    for at in range(0, len(groups), CLOUD_LIST_AT_ONCE):
        listings = [_objects(bucket, each) for each in groups[at : at + CLOUD_LIST_AT_ONCE]]
        for listing in await asyncio.gather(*listings):
            for entry in listing:
                yield entry


async def _below(bucket: Bucket, prefix: str) -> list[str]:
    """The prefixes directly below one, in order."""
    async with aclosing(bucket.list(prefix)) as found:
        return sorted([entry.path async for entry in found if entry.path.endswith("/")])


async def _objects(bucket: Bucket, prefix: str) -> list[Entry]:
    async with aclosing(bucket.list(prefix)) as found:
        return [entry async for entry in found if not entry.path.endswith("/")]


def _add(batch: WriteBatch, rows: list[tuple[Digest, Row]]) -> int:
    """Rows for those that have none. Leftovers stay what they are."""
    new = [each for each in rows if not _is_known(batch, each[0])]
    for digest, row in new:
        catalogue.put_in(batch, digest, row, None, None)
    return len(new)


def _is_known(batch: WriteBatch, digest: Digest) -> bool:
    return catalogue.has_in(batch, digest) or catalogue.left_in(batch, digest) is not None


async def _adopt_one(
    store: CloudStore, environment: Environment, digest: Digest, entry: Entry, done: Compared
) -> None:
    """An object without a row: it is a blob if its content is right and nobody is just putting it."""
    row = Row(entry.size, store.marking.now(), "")
    try:
        await store.bucket.look(entry.path)
    except NotFound:
        return  # it went since it was listed
    if not await store.checking.is_good(digest, row, repair=False):
        done.strange += 1
        log.warning("the store has an object of another content under the name of %s", digest)
        return

    def change(batch: WriteBatch) -> bool:
        if _is_known(batch, digest) or catalogue.is_uploaded_in(batch, digest):
            return False
        catalogue.put_in(batch, digest, row, None, None)
        return True

    if await environment.write(change):
        done.adopted += 1
        log.warning("%s was in the store, but not in the catalogue: it is now", digest)


def _place(bucket: Bucket, node_id: str) -> str:
    return f"{bucket.shown} {node_id}"


def _meta(environment: Environment, name: str) -> str | None:
    with environment.snapshot() as batch:
        return catalogue.meta_in(batch, name)


async def _set_meta(environment: Environment, name: str, value: str) -> None:
    if _meta(environment, name) != value:
        await environment.write(lambda batch: catalogue.set_meta_in(batch, name, value))
