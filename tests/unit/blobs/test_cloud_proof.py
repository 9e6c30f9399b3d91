"""When a service's tags are proof: what is not read, and what is found all the same."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.blobs.cloud_nodes import (
    BODIES,
    DAY,
    HOUR,
    PART_BYTES,
    Node,
    Nodes,
    TellingBucket,
)

from tierce.blobs.catalogue import Row
from tierce.blobs.cloud_names import path_of
from tierce.blobs.cloud_proof import is_of
from tierce.cloud.bucket import Bucket, Entry, open_bucket
from tierce.core.codec import decode, encode
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt, NotFound, TierceError
from tierce.node import peer_messages as messages
from tierce.node.peer_service import BlobService
from tierce.testing.rclone import BUCKET, RcloneServer
from tierce.testing.upstream_contract import BytesSource


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    for node in nodes.all:
        await node.disk.close()


@pytest.fixture
def s3(s3_server: RcloneServer, s3_keys: None, prefix: str) -> Bucket:
    """A prefix of a bucket of S3 that only this test uses."""
    url = f"s3://{BUCKET}/{prefix}?endpoint={s3_server.endpoint}"
    return open_bucket(url, part_bytes=PART_BYTES)


async def test_on_s3_what_the_listing_vouches_for_is_not_read(nodes: Nodes, s3: Bucket) -> None:
    node = await nodes.new(s3)
    digests = [await node.put(data) for data in BODIES]
    for digest, data in zip(digests[:2], BODIES, strict=False):
        row = node.row(digest)
        assert row is not None
        assert row.tag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    node.now += 2 * HOUR
    done = await node.compare()
    assert (done.objects, done.changed, done.unproved) == (3, 0, 0)
    before = (node.reads(), node.bucket.requests["look"])
    assert await node.scrub() == (0, 3)
    assert (node.reads(), node.bucket.requests["look"]) == before


async def test_on_s3_an_object_that_was_replaced_is_found(nodes: Nodes, s3: Bucket) -> None:
    node = await nodes.new(s3)
    digests = [await node.put(data) for data in BODIES]
    node.now += 2 * HOUR
    await node.compare()
    for digest, data in zip(digests, BODIES, strict=True):
        await s3.write(path_of(digest, "tierce"), BytesSource(data[:-1] + b"?"))
    assert await node.scrub() == (0, 3)
    assert (await node.compare()).changed == 3
    assert await node.scrub() == (3, 0)
    assert node.bad == sorted(digests)
    assert node.quarantined() == 3
    for digest in digests:
        with pytest.raises(NotFound):
            await node.store.open(digest)


async def test_another_size_is_found_by_the_comparison(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(BODIES[1])
    bucket.rot(path_of(digest, "tierce"), BODIES[1][:-1])
    node.now += 2 * HOUR
    assert (await node.compare()).changed == 1
    assert await node.scrub() == (1, 0)
    assert node.bad == [digest]


@pytest.mark.parametrize("data", BODIES, ids=["tiny", "small", "large"])
async def test_reading_finds_what_no_tag_tells(nodes: Nodes, data: bytes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket, "read")
    digest = await node.put(data)
    bucket.rot(path_of(digest, "tierce"), bytes(len(data)))
    node.now += 2 * HOUR
    assert (await node.compare()).changed == 0
    assert await node.scrub() == (1, 0)
    assert node.bad == [digest]
    assert node.quarantined() == 1


@pytest.mark.parametrize("data", BODIES, ids=["tiny", "small", "large"])
async def test_what_no_tag_tells_is_found_in_half_a_year(nodes: Nodes, data: bytes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(data)
    bucket.rot(path_of(digest, "tierce"), bytes(len(data)))
    node.now += 179 * DAY
    await node.compare()
    assert await node.scrub() == (0, 1)
    node.now += 2 * DAY
    assert await node.scrub() == (1, 0)
    assert node.bad == [digest]


async def test_an_object_that_was_read_again_is_vouched_for_again(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    for data in BODIES:
        await node.put(data)
    node.now += 181 * DAY
    await node.compare()
    assert await node.scrub() == (3, 0)
    assert await node.scrub() == (0, 3)
    node.now += 179 * DAY
    await node.compare()
    assert await node.scrub() == (0, 3)


async def test_nothing_is_vouched_for_before_a_comparison_or_long_after(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    await node.put(b"blob")
    assert await node.scrub() == (1, 0)
    await node.compare()
    assert await node.scrub() == (0, 1)
    node.now += 4 * DAY
    assert await node.scrub() == (1, 0)


async def test_a_comparison_that_breaks_off_vouches_for_nothing(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(b"blob")
    bucket.unlisted.add(path_of(digest, "tierce"))
    node.now += 2 * HOUR

    async def fail(digest: Digest, is_old: object) -> bool:
        raise TierceError("the service failed")

    with monkeypatch.context() as patched:
        patched.setattr(node.store, "is_missing", fail)
        with pytest.raises(TierceError):
            await node.compare()
    assert node.store.proving.vouched() is None


async def test_a_comparison_of_another_bucket_vouches_for_nothing(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    await node.put(b"blob")
    await node.compare()
    node.store.proving.place = "s3://elsewhere tierce"
    assert await node.scrub() == (1, 0)


async def test_what_is_encrypted_by_a_key_of_the_customers_is_read_once(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket(is_encrypted=True))
    digests = [await node.put(data) for data in BODIES]
    node.now += 2 * HOUR
    assert (await node.compare()).changed == 2  # of the large one the tag was asked for
    assert await node.scrub() == (2, 1)
    node.now += DAY
    assert (await node.compare()).changed == 0
    assert await node.scrub() == (0, 3)
    row = node.row(digests[0])
    assert row is not None
    assert row.tag.startswith("v")


async def test_without_tags_all_is_read_again_and_again(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket(has_tags=False))
    for data in BODIES:
        await node.put(data)
    node.now += 2 * HOUR
    assert (await node.compare()).unproved == 3
    vouched = node.store.proving.vouched()
    assert vouched is not None
    assert not vouched.has_tags
    for _ in range(2):
        assert await node.scrub() == (3, 0)
    assert node.bad == []


async def test_what_was_put_since_the_listing_began_is_not_held_against_it(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(b"blob")
    bucket.tags[path_of(digest, "tierce")] = "of an object that was there before"
    assert (await node.compare()).changed == 0
    assert await node.scrub() == (0, 1)


async def test_an_object_that_is_there_and_not_listed_is_read(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(b"blob")
    bucket.unlisted.add(path_of(digest, "tierce"))
    node.now += 2 * HOUR
    done = await node.compare()
    assert (done.missing, done.changed) == (0, 1)
    assert await node.scrub() == (1, 0)


async def test_a_row_that_was_put_anew_meanwhile_keeps_its_tag(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    digest = await node.put(b"blob")
    before = node.row(digest)
    assert before is not None
    node.now += 1
    await node.put(b"blob")
    await node.store.proving.clear([(digest, before)])
    assert node.row(digest) == before._replace(put=node.now, proved=node.now)


async def test_a_row_that_was_proved_anew_meanwhile_keeps_its_tag(nodes: Nodes) -> None:
    bucket = TellingBucket(is_encrypted=True)
    node = await nodes.new(bucket)
    digest = await node.put(b"blob")
    before = node.row(digest)
    assert before is not None
    await node.store.verify(digest, repair=True)
    await node.store.proving.clear([(digest, before)])
    row = node.row(digest)
    assert row is not None
    assert row.tag.startswith("v")


async def test_an_object_with_more_behind_the_blob_is_never_vouched_for(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(BODIES[1])
    bucket.replace(path_of(digest, "tierce"), BODIES[1] + b"more")
    node.now += 2 * HOUR
    await node.compare()
    for _ in range(2):
        assert await node.scrub() == (1, 0)
    assert node.bad == []


def test_a_row_without_a_tag_is_of_no_object() -> None:
    assert not is_of(Row(4, 0, "", 0), Entry("path", 4, "", ""))
    assert is_of(Row(4, 0, "sum", 0), Entry("path", 4, "etag", "sum"))
    assert is_of(Row(4, 0, "etag", 0), Entry("path", 4, "etag", "sum"))


async def test_blobs_of_a_catalogue_made_from_the_listing_are_read_once(nodes: Nodes) -> None:
    bucket = TellingBucket()
    first = await nodes.new(bucket)
    for data in BODIES:
        await first.put(data)
    second = await nodes.new(bucket)
    second.now += 2 * HOUR
    await second.compare()
    assert await second.scrub() == (3, 0)
    assert await second.scrub() == (0, 3)


async def test_an_object_that_is_adopted_was_read_and_has_its_tag(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = Digest.of(b"found")
    bucket.replace(path_of(digest, "tierce"), b"found")
    assert (await node.compare()).adopted == 1
    assert await node.scrub() == (0, 1)


@pytest.mark.parametrize("data", BODIES, ids=["tiny", "small", "large"])
async def test_a_peer_gets_its_proof_by_one_look(nodes: Nodes, data: bytes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    digest = await node.put(data)

    async def nothing(*arguments: object) -> bytes:
        return b""

    service = BlobService(
        node.store,
        node.disk.spooler,
        {},
        node_id="one",
        is_draining=lambda: False,
        gossip=nothing,
        control=nothing,
    )

    async def find() -> list[int | None]:
        request = messages.FindRequest([digest], True, "", None)
        answer = await service.exchange(messages.FIND, encode(request))
        return decode(answer, messages.FindAnswer, "answer").sizes

    before = dict(bucket.requests)
    assert await find() == [len(data)]
    assert bucket.requests == {**before, "look": before["look"] + 1}
    bucket.replace(path_of(digest, "tierce"), bytes(len(data)))
    assert await find() == [None]
    assert node.quarantined() == 1
    await node.put(data)
    bucket.plain().delete(path_of(digest, "tierce"))
    assert await find() == [None]


async def test_in_the_mode_read_a_proof_is_a_read(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket, "read")
    digest = await node.put(b"blob")
    assert await node.store.prove(digest) == 4
    assert node.reads() > 0
    bucket.rot(path_of(digest, "tierce"), b"blub")
    with pytest.raises(Corrupt):
        await node.store.prove(digest)


async def test_a_proof_that_is_old_is_made_anew(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    digest = await node.put(b"blob")
    node.now += 181 * DAY
    before = node.reads()
    for _ in range(2):
        assert await node.store.prove(digest) == 4
    assert node.reads() == before + 1


async def test_who_only_asks_whether_a_blob_is_right_changes_nothing(nodes: Nodes) -> None:
    node = await nodes.new(TellingBucket())
    digest = await node.put(b"blob")
    row = node.row(digest)
    node.now += DAY
    await node.store.verify(digest, repair=False)
    assert node.row(digest) == row


async def test_a_body_that_is_damaged_on_its_way_is_not_sent(nodes: Nodes) -> None:
    bucket = TellingBucket()
    node = await nodes.new(bucket)
    async with node.disk.spooler.holding(BODIES[1], "blake3") as spool:
        assert spool.path is not None
        with Path(spool.path).open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(TierceError, match="damaged on its way"):
            await node.store.put(spool)
    with pytest.raises(NotFound):
        await bucket.look(path_of(Digest.of(BODIES[1]), "tierce"))


def test_by_itself_a_store_of_ones_own_is_read(tmp_path: Path) -> None:
    node = Node(tmp_path, TellingBucket(), "auto")
    assert not node.store.proving.by_tags
