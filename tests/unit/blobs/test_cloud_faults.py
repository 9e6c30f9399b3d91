"""A store in the cloud when the network or the service fails: nothing is lost, in bounded time."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tierce.blobs.cloud_names import path_of
from tierce.blobs.packed import SmallBlob
from tierce.cloud.bucket import open_bucket
from tierce.cloud.failures import Taken
from tierce.cloud.retrying import Patience
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.core.limits import MIB
from tierce.testing.blob_contract import body
from tierce.testing.cloud_nodes import CloudNode
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.rclone import BUCKET, SECRET_KEY, RcloneServer

PART_BYTES = 5 * MIB
SMALL = body(100_000)
LARGE = body(2 * PART_BYTES + 100, seed=1)
QUICK = Patience(
    attempts=3,
    backoff_min_seconds=0.01,
    backoff_max_seconds=0.05,
    total_seconds=3.0,
    stall_seconds=0.3,
    min_bytes_per_second=50 * MIB,
    circuit_failures=1000,
)
BOUND_SECONDS = 8.0
each_size = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
async def proxy(s3_server: RcloneServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(s3_server.port).running() as proxy:
        yield proxy


class Node(CloudNode):
    """A cloud node whose requests pass through a proxy."""

    def __init__(self, data: Path, url: str, objects: Path) -> None:
        super().__init__(data, open_bucket(url, patience=QUICK, part_bytes=PART_BYTES))
        self.objects = objects

    def has_object(self, digest: Digest) -> bool:
        return (self.objects / path_of(digest, "tierce")).exists()

    async def is_empty(self) -> bool:
        """Whether neither a blob nor anything of one is left."""
        return not self.leftovers() and not await self.digests()


@pytest.fixture
async def node(
    proxy: FaultProxy,
    s3_server: RcloneServer,
    s3_keys: None,
    tmp_path: Path,
    prefix: str,
) -> AsyncIterator[Node]:
    url = f"s3://{BUCKET}/{prefix}?endpoint={proxy.endpoint}"
    node = Node(tmp_path, url, s3_server.directory / prefix)
    await node.disk.prepare("one")
    began = time.monotonic()
    yield node
    assert time.monotonic() - began < BOUND_SECONDS
    await node.disk.close()


PUT_FAULTS = [
    (Mode.REFUSE, 0), (Mode.ERROR, 500), (Mode.ERROR, 503), (Mode.LATE_ERROR, 503), (Mode.STALL, 0),
]  # fmt: skip


@each_size
@pytest.mark.parametrize(("mode", "status"), PUT_FAULTS)
async def test_a_put_that_fails_is_not_acknowledged_and_leaves_nothing(
    node: Node, proxy: FaultProxy, mode: Mode, status: int, data: bytes
) -> None:
    proxy.status = status
    proxy.harm(mode)
    with pytest.raises(Unavailable) as caught:
        await node.put(data)
    assert "the store failed" in caught.value.message
    assert caught.value.hint
    digest = Digest.of(data)
    with pytest.raises(NotFound):
        await node.store.open(digest)
    proxy.harm(Mode.NONE)
    async with asyncio.timeout(BOUND_SECONDS):
        await node.store.tend()
        while node.has_object(digest):  # a request that was given up may still be carried out
            await asyncio.sleep(0.02)
            await node.store.tend()
    node.now += 61_000
    await node.store.tend()
    assert await node.is_empty()
    assert await node.put(data) == digest
    assert await node.get(digest) == data


@each_size
@pytest.mark.parametrize(("mode", "status"), PUT_FAULTS)
async def test_a_fault_that_passes_holds_up_a_put_only_for_a_while(
    node: Node, proxy: FaultProxy, mode: Mode, status: int, data: bytes
) -> None:
    proxy.status = status
    proxy.harm(mode, times=1)
    digest = await node.put(data)
    assert proxy.harmed == 1
    assert await node.get(digest) == data


GET_FAULTS = [
    (Mode.REFUSE, 0), (Mode.ERROR, 500), (Mode.ERROR, 503), (Mode.STALL, 0), (Mode.STALL_BODY, 9),
    (Mode.CUT, 0), (Mode.CUT, 50_000), (Mode.WRONG_LENGTH, 50_000), (Mode.FLIP, 0),
]  # fmt: skip


@each_size
@pytest.mark.parametrize(("mode", "number"), GET_FAULTS)
async def test_a_read_that_fails_condemns_no_blob(
    node: Node, proxy: FaultProxy, mode: Mode, number: int, data: bytes
) -> None:
    digest = await node.put(data)
    proxy.status = proxy.cut_bytes = number
    proxy.harm(mode, only="GET", times=1)
    assert await node.get(digest) == data
    assert proxy.harmed == 1
    proxy.harm(mode, only="GET")
    with pytest.raises(Unavailable):
        await node.get(digest)
    with pytest.raises(Unavailable):
        await node.store.verify(digest, repair=True)
    proxy.harm(Mode.NONE)
    assert node.quarantined() == 0
    assert await node.store.verify(digest, repair=True) == len(data)
    assert await node.get(digest) == data


@pytest.mark.parametrize("mode", [Mode.STALL, Mode.STALL_BODY])
async def test_a_read_fails_when_nothing_comes_however_much_was_asked_for(
    s3_keys: None, proxy: FaultProxy, prefix: str, mode: Mode
) -> None:
    url = f"s3://{BUCKET}/{prefix}?endpoint={proxy.endpoint}"
    patience = replace(QUICK, attempts=1, min_bytes_per_second=1000.0)
    bucket = open_bucket(url, patience=patience)
    await bucket.write("object", SmallBlob(Digest.of(SMALL), SMALL))
    proxy.harm(mode, only="GET")
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(Unavailable):
            await bucket.read("object", 0, len(SMALL))
    proxy.bytes_per_second = 100_000  # for longer than a stall, but steadily
    proxy.harm(Mode.SLOW)
    assert await bucket.read("object", 0, len(SMALL)) == SMALL


async def test_an_owner_that_comes_damaged_is_no_other_owner(node: Node, proxy: FaultProxy) -> None:
    await node.disk.prepare("one")
    for place in range(40):
        proxy.harm(Mode.FLIP, only="GET")
        proxy.harmed = place
        with pytest.raises(Unavailable) as caught:
            await node.store.ownership.check(is_afresh=True)
        assert not isinstance(caught.value, Taken)
    proxy.harm(Mode.NONE)
    await node.store.ownership.check(is_afresh=True)


async def test_slow_bytes_come_all_the_same(node: Node, proxy: FaultProxy) -> None:
    digest = await node.put(SMALL)
    proxy.bytes_per_second = 1_000_000
    proxy.harm(Mode.SLOW, only="GET")
    assert await node.get(digest) == SMALL
    assert proxy.harmed == 1


async def test_expired_credentials_are_told_to_the_operator_and_are_no_fault_of_clients(
    node: CloudNode, proxy: FaultProxy
) -> None:
    digest = await node.put(SMALL)
    proxy.status = 403
    proxy.harm(Mode.ERROR)
    for request in (node.put(b"other"), node.get(digest), node.store.verify(digest, repair=True)):
        with pytest.raises(Unavailable) as caught:
            await request
        assert "credentials" in caught.value.hint
    assert "credentials" in str(node.store.bucket.status()["problem"])
    assert SECRET_KEY not in str(node.store.bucket.status())
    proxy.harm(Mode.NONE)
    assert await node.get(digest) == SMALL
    assert node.store.bucket.status()["problem"] == ""


@each_size
@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.ERROR, Mode.LATE_ERROR, Mode.STALL])
async def test_a_deletion_that_fails_is_one_all_the_same(
    node: Node, proxy: FaultProxy, mode: Mode, data: bytes
) -> None:
    digest = await node.put(data)
    proxy.status = 503
    proxy.harm(mode, only="DELETE")
    assert await node.store.delete(digest)
    with pytest.raises(NotFound):
        await node.store.open(digest)
    proxy.harm(Mode.NONE)
    node.now += 61_000
    await node.store.tend()
    assert await node.is_empty()
    assert not node.has_object(digest)


async def test_a_service_that_is_down_is_left_alone_for_a_while(
    node: CloudNode, proxy: FaultProxy
) -> None:
    node.store.bucket._retrying.circuit._patience = replace(QUICK, circuit_failures=3)
    proxy.harm(Mode.ERROR)
    with pytest.raises(Unavailable):
        await node.put(SMALL)
    before = proxy.harmed
    requests = [node.put(b"%d" % number) for number in range(20)]
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in results)
    assert proxy.harmed == before
    assert node.store.bucket.status()["circuit"] == "open"


async def test_what_can_not_be_deleted_from_a_service_that_is_down_is_not_tried_one_by_one(
    node: Node, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    digests = [await node.put(b"%d" % number) for number in range(20)]
    circuit = node.store.bucket._retrying.circuit
    circuit._patience = replace(QUICK, circuit_failures=3, circuit_seconds=0.3)
    proxy.harm(Mode.ERROR)
    for digest in digests:
        assert await node.store.delete(digest)
    await node.store.tend()
    assert proxy.harmed == 3
    assert 0 < caplog.text.count("could not be deleted yet") <= 3
    proxy.harm(Mode.NONE)
    async with asyncio.timeout(BOUND_SECONDS):
        while node.store.bucket.is_left_alone:
            await asyncio.sleep(0.02)
    for _ in range(2):  # one request tries whether it is up again, before all others
        node.now += 61_000
        await node.store.tend()
    assert not any(node.has_object(digest) for digest in digests)


async def test_who_deletes_does_not_wait_for_a_service_that_does_not_answer(
    node: Node, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierce.blobs.cloud.CLOUD_LATE_SECONDS", 0.01)
    digest = await node.put(SMALL)
    proxy.harm(Mode.STALL, only="DELETE")
    assert await node.store.delete(digest)
    under_way = set(node.store._clearing._running)
    assert under_way
    with pytest.raises(NotFound):
        await node.store.open(digest)
    await asyncio.wait(under_way)
    proxy.harm(Mode.NONE)
    node.now += 61_000
    await node.store.tend()
    assert not node.has_object(digest)
