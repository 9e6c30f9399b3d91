"""Whose a bucket is: the object ``tierce-node.json`` says so, by the node's id.

One node has a prefix. Another may take it over if the first is gone for good, which nobody can be sure
of. So a node deletes nothing unless it has seen within CLOUD_OWNER_SECONDS that the bucket is still its
own; and who takes one over waits until the former owner can't delete any more, should it run after all.
What that one puts until it notices harms nobody: it is adopted, as any object that is not known.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from tierce.blobs import catalogue
from tierce.blobs.cloud_names import OWNER_PATH, Layout, path_of
from tierce.blobs.environment import Environment
from tierce.blobs.processes import HOST
from tierce.cloud.bucket import Bucket
from tierce.cloud.failures import Taken
from tierce.cloud.writing import Content
from tierce.core.errors import BadRequest, Corrupt, NotFound, Unavailable
from tierce.core.limits import CLOUD_OWNER_BYTES, CLOUD_OWNER_SECONDS

log = logging.getLogger(__name__)

LISTED = "listed"
"""The place whose listing the catalogue was made from."""
_OWNED = "owned"
_VERSION = 1
_LOOKED_FOR = 8
_EMPTIED_HINT = "Check the setting store, and that the bucket was not emptied."


class _Owner(msgspec.Struct):
    version: int
    node_id: str


class Place(NamedTuple):
    """A bucket as the catalogue names it. ``node_id`` is whose it was when it was last looked."""

    listed: str | None
    owned: str | None
    node_id: str | None

    @property
    def url(self) -> str:
        """The URL that the catalogue was made from, fit for logs; empty if there is none."""
        return (self.listed or "").rpartition(" ")[0]


class _Bytes:
    """A small content."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes | None = data
        self.size = len(data)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        assert self.data is not None
        yield self.data


class Ownership:
    """Whether the bucket is still this node's, as one process knows. ``take`` comes before it.

    ``clock`` gives seconds, and goes on while the machine sleeps.
    """

    def __init__(
        self,
        bucket: Bucket,
        environment: Environment,
        *,
        clock: Callable[[], float] = HOST.seconds,
    ) -> None:
        self._bucket = bucket
        self._environment = environment
        self._clock = clock
        self._lock = asyncio.Lock()
        self._seen_at: float | None = None

    async def check(self, *, is_afresh: bool = False, ahead_seconds: float = 0.0) -> None:
        """See that the bucket is this node's, unless that was seen lately enough.

        Enough for a request that is sent within ``ahead_seconds``. ``is_afresh`` asks all the same.
        Raises Taken if it is another's, Unavailable if it can't be asked or is not the bucket that it
        was.
        """
        if self._is_sure(ahead_seconds) and not is_afresh:
            return
        called = self._clock()
        async with self._lock:
            if self._seen_at is not None and self._seen_at >= called:
                return  # somebody asked in the meantime
            asked = self._clock()
            node_id = place_of(self._environment).node_id
            assert node_id is not None, "nobody has taken the bucket yet"
            if not await self._says(node_id):
                await self._explain()
            self._seen_at = asked

    def _is_sure(self, ahead_seconds: float) -> bool:
        at = self._clock() + ahead_seconds
        return self._seen_at is not None and at - self._seen_at < CLOUD_OWNER_SECONDS

    async def _says(self, node_id: str) -> bool:
        """One request, if all is as it should be."""
        expected = _content(node_id)
        try:
            return await self._bucket.read(OWNER_PATH, 0, len(expected)) == expected
        except NotFound:
            return False

    async def _explain(self) -> None:
        """It is not as this node wrote it. Somebody may only have formatted it anew.

        Another owner is believed when it is read twice: one byte that is wrong would end this node.
        """
        try:
            owner = await owner_of(self._bucket)
            is_certain = owner == await owner_of(self._bucket)
        except Corrupt as error:
            raise Unavailable(error.message, hint=error.hint) from error
        if not is_certain:
            raise Unavailable(
                f"{OWNER_PATH} says something else each time it is read", hint="It is asked again."
            )
        if owner is None:
            raise Unavailable(
                f"{OWNER_PATH} is missing in the store: it is not the bucket that it was",
                hint=_EMPTIED_HINT,
            )
        if owner != place_of(self._environment).node_id:
            raise Taken(
                f"the store {self._bucket.shown} belongs to the node {owner} now",
                hint="It was taken over while this node ran. Give this one another prefix and an "
                "empty data directory.",
            )


async def take(bucket: Bucket, environment: Environment, node_id: str) -> bool:
    """Make a bucket this node's; True if it was nobody's. Raises BadRequest if it is another node's.

    And if it is nobody's and has none of the blobs that this node has. Raises Unavailable if the bucket
    can't be asked, but for one that this node has had already.
    """
    try:
        owner = await owner_of(bucket)
        if owner != node_id:
            owner = await owner_of(bucket)  # it may have come damaged
        is_new = owner is None
        if is_new:
            await _check_not_emptied(bucket, environment, node_id)
            # Of two that come at once, one finds the other's.
            try:
                await bucket.write(OWNER_PATH, _contained(node_id), is_new=True)
                owner = await owner_of(bucket)
            except Unavailable:
                if (owner := await owner_of(bucket)) is None:
                    raise
    except Unavailable as error:
        if place_of(environment).owned != _owned(bucket, node_id):
            raise
        log.warning("the store can't be used now: %s. %s", error.message, error.hint)
        return False
    if owner != node_id:
        raise of_another(bucket, owner)
    if place_of(environment).owned != _owned(bucket, node_id):
        await environment.write(
            lambda batch: catalogue.set_meta_in(batch, _OWNED, _owned(bucket, node_id))
        )
    return is_new


async def _check_not_emptied(bucket: Bucket, environment: Environment, node_id: str) -> None:
    """Refuse what was not mounted, or has a mistake in its URL: all blobs would be missing there.

    A store in memory is empty at each start.
    """
    listed = place_of(environment).listed
    if listed is None or bucket.shown.startswith("memory:"):
        return
    layout: Layout = "cask" if listed.endswith(" cask") else "tierce"
    some = catalogue.listed(environment, None, _LOOKED_FOR)
    for blob in some:
        with contextlib.suppress(NotFound):
            await bucket.look(path_of(blob.digest, layout))
            return
    if some:
        await _check_there(bucket)
        raise BadRequest(
            f"the store {bucket.shown} belongs to no node and has none of this node's blobs",
            hint="Check the setting store, and that what it names is mounted. If it was emptied for "
            f"good, put an object {OWNER_PATH} there, of {_content(node_id).decode().strip()}: what is "
            "missing is healed then.",
        )


async def _check_there(bucket: Bucket) -> None:
    """See that there is a bucket at all. Raises Unavailable."""
    try:
        async with aclosing(bucket.list("")) as found:
            await anext(found, None)
    except NotFound as error:
        raise Unavailable(error.message, hint="Check that the bucket is there.") from error


async def take_over(bucket: Bucket, environment: Environment, node_id: str, former: str) -> bool:
    """Make the bucket of ``former`` this node's; False if it was already.

    This node must not run, and must not know what another place holds, or held: its marks would be
    about other objects. Raises BadRequest if that is so, or if the bucket is not ``former``'s.
    """
    owner = await owner_of(bucket)
    if owner == node_id:
        return False
    if owner is None:
        raise BadRequest(
            f"the store {bucket.shown} belongs to no node",
            hint="Check its URL. If it is right, just start the node: it takes it.",
        )
    if owner != former:
        raise BadRequest(
            f"the store {bucket.shown} belongs to the node {owner}, not to {former}",
            hint=f"If {owner} is gone for good, name that one.",
        )
    place = place_of(environment)
    if place.listed or place.owned or environment.counts(catalogue.KIND).blobs:
        raise BadRequest(
            "the data directory has a catalogue of a store already",
            hint="Take the prefix over with an empty data directory, for a node of its own.",
        )
    await bucket.write(OWNER_PATH, _contained(node_id))
    found = await owner_of(bucket)
    if found != node_id:
        raise Unavailable(
            f"the store {bucket.shown} belongs to {found or 'no node'} all the same",
            hint="Somebody else takes it over at this moment, or the service shows it late: look "
            "again in a minute.",
        )
    return True


async def owner_of(bucket: Bucket) -> str | None:
    """The id of the node that a bucket belongs to, if there is one. Raises Unavailable, Corrupt."""
    for _ in range(2):  # it may come damaged
        try:
            told = await bucket.look(OWNER_PATH)
            data = await bucket.read(OWNER_PATH, 0, min(told.size, CLOUD_OWNER_BYTES))
        except NotFound:
            return None
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(data, type=_Owner).node_id
    raise Corrupt(
        f"the object {OWNER_PATH} in the store is not understood",
        hint="Delete it if no other node uses the same bucket and prefix.",
    )


def of_another(bucket: Bucket, owner: str | None) -> BadRequest:
    """What to say when a bucket is not this node's."""
    return BadRequest(
        f"the store {bucket.shown} belongs to the node {owner}",
        hint=f"Give this node a prefix of its own. If it is that node, and lost its data directory, "
        f"start it with --node-id {owner}. If that node is gone for good, run `tierce store "
        f"take-over {owner}` with the same options, and start this one again.",
    )


def place_of(environment: Environment) -> Place:
    """What the catalogue is of."""
    with environment.snapshot() as batch:
        owned = catalogue.meta_in(batch, _OWNED)
        node_id = None if owned is None else owned.rpartition("\n")[2]
        return Place(catalogue.meta_in(batch, LISTED), owned, node_id)


def listed_as(bucket: Bucket, layout: str) -> str:
    """How the catalogue of a bucket names it once it was made from its listing."""
    return f"{bucket.shown} {layout}"


def _owned(bucket: Bucket, node_id: str) -> str:
    return f"{bucket.shown}\n{node_id}"  # either may have a space in it


def _content(node_id: str) -> bytes:
    return json.dumps({"version": _VERSION, "node_id": node_id}).encode() + b"\n"


def _contained(node_id: str) -> Content:
    return _Bytes(_content(node_id))
