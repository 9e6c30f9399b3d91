"""A disk that is full: writes are refused in good order, reads go on, and room is noticed by itself."""

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.core.digest import Digest
from tierce.core.limits import KIB, MIB
from tierce.testing.calls import Reply, call, get, listing, metric, put, status
from tierce.testing.processes import NodeProcess, wait_for

pytestmark = pytest.mark.procs

DISK_BYTES = 24 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tierce-test", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        reason = done.stderr.strip()
    except FileNotFoundError:
        reason = "there is no mount command"
    if reason:
        if os.geteuid() == 0 and "CI" in os.environ:
            pytest.fail(f"can't mount a tmpfs: {reason}")
        pytest.skip(f"needs the right to mount a tmpfs: {reason}")
    try:
        yield place
    finally:
        done = subprocess.run(["umount", str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
            pytest.fail(f"the tmpfs was still in use: {done.stderr}")


def _try_put(node: NodeProcess, data: bytes) -> tuple[Digest, Reply]:
    digest = Digest.of(data)
    return digest, call(node.address, "PUT", f"/v1/blobs/{digest}", data)


def _fill(node: NodeProcess, seed: int = 1) -> dict[Digest, int]:
    """Put small and large blobs until neither kind is taken; returns what was acknowledged."""
    generator = random.Random(seed)
    acknowledged: dict[Digest, int] = {}
    refused = 0
    while refused < 10:
        size = generator.choice(
            [3000, 4 * KIB, 60 * KIB, 300 * KIB, MIB] if not refused else [2000]
        )
        digest, reply = _try_put(node, generator.randbytes(size))
        if reply.status == 507:
            refused += 1
            _assert_says_full(reply)
        else:
            assert reply.status == 201, reply
            acknowledged[digest] = size
    return acknowledged


def _assert_says_full(reply: Reply) -> None:
    assert reply.status == 507
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["type"].endswith("/full")
    assert "Free some space" in reply.json["hint"]


def _assert_reads_work(node: NodeProcess, acknowledged: dict[Digest, int]) -> None:
    for digest, size in acknowledged.items():
        reply = get(node.address, digest)
        assert reply.status == 200, reply
        assert Digest.of(reply.body, digest.algorithm) == digest
        head = call(node.address, "HEAD", f"/v1/blobs/{digest}")
        assert int(head.headers["content-length"]) == size
    listed = listing(node.address)
    assert acknowledged.items() <= listed.items()
    for digest in listed.keys() - acknowledged.keys():
        assert Digest.of(get(node.address, digest).body) == digest
    assert status(node.address)["disk"]["total_bytes"] == DISK_BYTES
    assert call(node.address, "GET", "/v1/health/ready").status == 200
    assert metric(node.address, "tierce_blobs") >= len(acknowledged)
    assert node.spools() == []


def _assert_becomes_writable(node: NodeProcess) -> None:
    large, small = random.Random(8).randbytes(MIB), random.Random(9).randbytes(5000)
    for data in (large, small):
        wait_for(lambda data=data: _try_put(node, data)[1].status in (200, 201), "room")  # type: ignore[misc]
        assert get(node.address, Digest.of(data)).body == data
    assert status(node.address)["writable"]


@pytest.mark.parametrize("workers", [1, 2])
def test_below_the_reserve_writes_are_refused_and_reads_go_on(disk: Path, workers: int) -> None:
    logs = disk.parent
    reserve = 4 * MIB
    with NodeProcess(disk / "data", workers=workers, reserve_bytes=reserve, logs=logs) as node:
        node.start()
        acknowledged = _fill(node)
        told = status(node.address)
        assert not told["writable"]
        assert "kept in reserve" in told["read_only_reason"]
        assert metric(node.address, "tierce_writable") == 0
        # A commit takes some pages more than the bytes that it was asked to keep.
        assert told["disk"]["free_bytes"] > reserve - 256 * KIB
        _assert_reads_work(node, acknowledged)
        node.stop()

        node.start()
        _assert_reads_work(node, acknowledged)
        _assert_says_full(_try_put(node, bytes(5 * MIB))[1])
        largest = sorted(acknowledged, key=acknowledged.__getitem__)[-6:]
        for digest in largest:
            assert call(node.address, "DELETE", f"/v1/blobs/{digest}").status == 204
            del acknowledged[digest]
        _assert_becomes_writable(node)
        _assert_reads_work(node, acknowledged)
        node.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_really_full(disk: Path, workers: int) -> None:
    with NodeProcess(disk / "data", workers=workers, logs=disk.parent) as node:
        node.start()
        processes = {process.pid for process in node.family()}
        acknowledged = _fill(node)
        _use_up(disk / "filler")
        acknowledged |= _fill(node, seed=2)
        _assert_reads_work(node, acknowledged)
        assert {process.pid for process in node.family()} == processes
        node.stop()

        _use_up(disk / "filler")
        node.start()
        _assert_reads_work(node, acknowledged)
        _assert_says_full(_try_put(node, bytes(5 * MIB))[1])
        (disk / "filler").unlink()
        for digest in sorted(acknowledged, key=acknowledged.__getitem__)[-4:]:
            assert call(node.address, "DELETE", f"/v1/blobs/{digest}").status == 204
            del acknowledged[digest]
        _assert_becomes_writable(node)
        _assert_reads_work(node, acknowledged)
        node.stop()


def _use_up(filler: Path) -> None:
    """Write to a file until the disk has no byte left."""
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4 * KIB))
    stat = os.statvfs(filler)
    assert stat.f_bavail == 0


def test_what_processes_share_in_memory_is_safe_from_a_full_disk(disk: Path) -> None:
    """A write to a mapped page that the disk has no room for would kill the process."""
    with NodeProcess(disk / "data", workers=2, logs=disk.parent) as node:
        node.start()
        lock_file = (node.data / "lmdb" / "lock.mdb").stat()
        assert lock_file.st_blocks * 512 >= lock_file.st_size
        for process in node.family():
            shared = {
                Path(each.path) for each in process.memory_maps() if each.path.startswith("/")
            }
            below = {path.name for path in shared if path.is_relative_to(node.data)}
            assert below <= {"data.mdb", "lock.mdb"}
        node.stop()


def test_deleting_blobs_frees_a_disk_that_is_really_full(disk: Path) -> None:
    with NodeProcess(disk / "data", workers=2, logs=disk.parent) as node:
        node.start()
        acknowledged = _fill(node)
        _use_up(disk / "filler")
        for digest in sorted(acknowledged, key=acknowledged.__getitem__)[-4:]:
            assert call(node.address, "DELETE", f"/v1/blobs/{digest}").status == 204
            del acknowledged[digest]
        _assert_becomes_writable(node)
        _assert_reads_work(node, acknowledged)
        put(node.address, b"one more")
        node.stop()
