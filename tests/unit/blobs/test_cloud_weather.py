"""Every fault between a node and its bucket, against everything that a node asks of it, all at once.

While the fault lasts, nothing wrong is served, nothing is forgotten, and no request ends otherwise than
well or with Unavailable. When it ends, the node goes on by itself, with all that was acknowledged.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.blobs.test_cloud_faults import LARGE, PART_BYTES, QUICK, SMALL, Node

from tierce.blobs import cloud_listing
from tierce.cloud import pacing
from tierce.core.digest import Digest
from tierce.core.errors import NotFound, Unavailable
from tierce.testing.blob_contract import body
from tierce.testing.fault_proxy import FaultProxy, Mode
from tierce.testing.rclone import BUCKET, SECRET_KEY, RcloneServer

NEW_SMALL = body(100_000, seed=7)
NEW_LARGE = body(PART_BYTES + 77, seed=8)
GONE = body(50_000, seed=9)
BOUND_SECONDS = 10.0


@dataclass(frozen=True)
class Fault:
    """What the proxy does; what the status says of it then (a pattern), and under which key."""

    mode: Mode
    status: int = 503
    code: str = ""
    retry_after_seconds: int = 0
    cut_bytes: int = 0
    bytes_per_second: int = 0
    key: str = "last_error"
    told: str = ""


FAULTS = {
    "errors": Fault(Mode.ERROR, 500, "InternalError", told="InternalError"),
    "slow down": Fault(Mode.ERROR, 503, "SlowDown", told="SlowDown"),
    "too many requests": Fault(Mode.ERROR, 429, retry_after_seconds=1, told="429"),
    "resets": Fault(Mode.REFUSE, told="send"),
    "answers that are lost": Fault(Mode.LATE_ERROR, 500, told="500"),
    "silence": Fault(Mode.STALL, told="no progress|timeout"),
    "truncated": Fault(Mode.CUT, cut_bytes=300, told=""),
    "truncated in good order": Fault(Mode.WRONG_LENGTH, cut_bytes=300, told=""),
    "stalled bodies": Fault(Mode.STALL_BODY, cut_bytes=300, told=""),
    "drops of bytes": Fault(Mode.SLOW, bytes_per_second=60_000, told=""),
    "expired keys": Fault(Mode.ERROR, 400, "ExpiredToken", key="problem", told="ExpiredToken"),
    "no rights": Fault(Mode.ERROR, 403, "AccessDenied", key="problem", told="AccessDenied"),
    "no bucket": Fault(Mode.ERROR, 404, "NoSuchBucket", key="problem", told="NoSuchBucket"),
}


@pytest.fixture
async def proxy(
    s3_server: RcloneServer, s3_keys: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FaultProxy]:
    monkeypatch.setattr(pacing, "PACE_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(pacing, "PACE_MIN_PER_SECOND", 50.0)
    async with FaultProxy(s3_server.port).running() as proxy:
        yield proxy


@pytest.fixture
def place(s3_server: RcloneServer, prefix: str) -> tuple[str, Path]:
    """A prefix of the test's own, and where its objects are."""
    return prefix, s3_server.directory / prefix


def node_at(proxy: FaultProxy, place: tuple[str, Path], data: Path) -> Node:
    prefix, objects = place
    node = Node(data, f"s3://{BUCKET}/{prefix}?endpoint={proxy.endpoint}", objects)
    node.store.bucket._retrying.patience = replace(QUICK, total_seconds=1.0)
    return node


@pytest.fixture
async def node(proxy: FaultProxy, place: tuple[str, Path], tmp_path: Path) -> AsyncIterator[Node]:
    node = node_at(proxy, place, tmp_path / "first")
    await node.disk.prepare("one")
    yield node
    await node.disk.close()


@pytest.fixture
async def rebuilt(
    proxy: FaultProxy, place: tuple[str, Path], tmp_path: Path
) -> AsyncIterator[Node]:
    """The node after it lost its data directory, not started yet."""
    rebuilt = node_at(proxy, place, tmp_path / "second")
    yield rebuilt
    await rebuilt.disk.close()


def harm(proxy: FaultProxy, fault: Fault) -> None:
    proxy.status, proxy.code = fault.status, fault.code
    proxy.retry_after_seconds = fault.retry_after_seconds
    proxy.cut_bytes, proxy.bytes_per_second = fault.cut_bytes, fault.bytes_per_second
    proxy.harm(fault.mode)


async def all_right(expected: dict[str, tuple[Awaitable[object], object]]) -> dict[str, bool]:
    """Wait for all; for each whether it worked. It must have given what was expected then."""
    results = await asyncio.gather(
        *(asked for asked, _ in expected.values()), return_exceptions=True
    )
    worked = {}
    for (name, (_, right)), result in zip(expected.items(), results, strict=True):
        if isinstance(result, BaseException):
            assert isinstance(result, Unavailable), f"{name}: {result!r}"
            assert result.hint, f"{name}: {result}"
        else:
            assert right is None or result == right, name
        worked[name] = not isinstance(result, BaseException)
    return worked


async def compare(node: Node) -> None:
    """Nothing is old enough to be missed, so that whatever is missing is wrong."""
    done = await cloud_listing.compare(node.store, node.disk.environment, is_old=lambda row: True)
    assert done.missing == 0


@pytest.mark.parametrize("name", FAULTS)
async def test_a_node_outlives_its_service(
    node: Node, rebuilt: Node, proxy: FaultProxy, name: str
) -> None:
    fault = FAULTS[name]
    small, large = await node.put(SMALL), await node.put(LARGE)
    gone = await node.put(GONE)
    acknowledged = {small: SMALL, large: LARGE}
    async with asyncio.timeout(BOUND_SECONDS):
        harm(proxy, fault)
        worked = await all_right(
            {
                "put small": (node.put(NEW_SMALL), Digest.of(NEW_SMALL)),
                "put large": (node.put(NEW_LARGE), Digest.of(NEW_LARGE)),
                "get small": (node.get(small), SMALL),
                "get large": (node.get(large), LARGE),
                "range": (node.get(large, 4_200_000, 4_200_100), LARGE[4_200_000:4_200_100]),
                "verify": (node.store.verify(large, repair=True), len(LARGE)),
                "delete": (node.store.delete(gone), True),
                "compare": (compare(node), None),
                "start": (node.disk.prepare("one"), None),
                "first start": (rebuilt.disk.prepare("one"), None),
            }
        )
        assert proxy.harmed
        assert worked["delete"], "a blob is gone when its row is"
        assert worked["start"], "a node that knows its bucket starts without it"
        for data in (NEW_SMALL, NEW_LARGE):
            if worked["put small" if data is NEW_SMALL else "put large"]:
                acknowledged[Digest.of(data)] = data
        assert not (worked["get large"] and fault.mode in (Mode.ERROR, Mode.REFUSE))
        status = node.store.bucket.status()
        assert re.search(fault.told, str(status[fault.key]))
        assert SECRET_KEY not in str(status)
        with pytest.raises(NotFound):
            await node.store.open(gone)
        proxy.harm(Mode.NONE)
        await mended(node, gone)
        await compare(node)
        for digest, data in acknowledged.items():
            assert await node.get(digest) == data
        assert node.quarantined() == 0
        assert node.store.bucket.status()["problem"] == ""
        await rebuilt.disk.prepare("one")
        for digest, data in acknowledged.items():
            assert await rebuilt.get(digest) == data
        with pytest.raises(NotFound):
            await rebuilt.store.open(gone)


async def mended(node: Node, gone: Digest) -> None:
    """What the tending does once the fault has ended, and a minute has passed."""
    for _ in range(2):
        node.now += 61_000
        await node.store.tend()
    while node.has_object(gone):
        await asyncio.sleep(0.02)
        await node.store.tend()
    for data in (NEW_SMALL, NEW_LARGE):
        assert await node.get(await node.put(data)) == data


@pytest.mark.parametrize("name", ["errors", "resets", "truncated", "truncated in good order"])
async def test_a_listing_that_breaks_off_in_the_midst_makes_nothing_missing(
    node: Node, rebuilt: Node, proxy: FaultProxy, name: str
) -> None:
    digests = [await node.put(b"%d" % number) for number in range(5)]
    await rebuilt.disk.prepare("one")
    harm(proxy, FAULTS[name])
    proxy.harm(FAULTS[name].mode, only="GET", skip=3)
    with pytest.raises(Unavailable):
        await compare(node)
    assert proxy.harmed
    proxy.harm(Mode.NONE)
    for digest in digests:
        assert await node.store.verify(digest, repair=True)
    await compare(node)
